//! Where partitions are, and what of it clients are shown.

use std::collections::BTreeSet;

use meta::endpoint::PLAINTEXT;
use meta::ids::Incarnation;

use super::*;

const PARTITIONS: u64 = 1_000;

/// Agents with these ids and zones, each with one listener.
fn agents(all: &[(i32, &str)]) -> Vec<Agent> {
    let agent = |(id, zone): &(i32, &str)| Agent {
        id: AgentId(*id),
        name: format!("a{id}"),
        listeners: Endpoint::alone("h", 9092),
        region: String::new(),
        zone: (*zone).to_owned(),
        neighbour_address: String::new(),
        level: 1,
        incarnation: Incarnation(1),
        drains: false,
        cut_off: false,
    };
    all.iter().map(agent).collect()
}

fn partitions() -> Vec<PartitionId> {
    (0..PARTITIONS).map(PartitionId).collect()
}

/// What clients of a zone are shown: the replicas of each partition, the leader first.
fn shown(all: &[(i32, &str)], wanted: usize, zone: &str) -> Vec<Vec<i32>> {
    let routes = Routes::new(&agents(all));
    let (partitions, placed) = (partitions(), Placed::new(PARTITIONS as usize, wanted));
    let places = routes.places(&partitions, &placed);
    let zone = routes.zone(PLAINTEXT, None, zone);
    let replicas = places.replicas(PLAINTEXT, zone.map(Place::from));
    let ids = replicas.map(|replicas| {
        let all: Vec<i32> = replicas.iter().map(|agent| agent.0).collect();
        assert_eq!(all[0], replicas.leader().0);
        all
    });
    ids.collect()
}

fn leaders(all: &[(i32, &str)], zone: &str) -> Vec<i32> {
    let shown = shown(all, 1, zone);
    shown.iter().map(|replicas| replicas[0]).collect()
}

fn share(leaders: &[i32], agent: i32) -> usize {
    leaders.iter().filter(|leader| **leader == agent).count()
}

const FOUR: &[(i32, &str)] = &[(1, ""), (2, ""), (3, ""), (4, "")];
const SIX: &[(i32, &str)] = &[(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c")];

#[test]
fn partitions_spread_evenly() {
    let leaders = leaders(FOUR, "");
    for agent in 1..=4 {
        let share = share(&leaders, agent);
        assert!((150..350).contains(&share), "{share} of 1000 for {agent}");
    }
}

#[test]
fn what_nobody_asks_for_is_not_worked_out() {
    let routes = Routes::new(&agents(SIX));
    let partitions: Vec<PartitionId> = (0..100_000).map(PartitionId).collect();
    let placed = Placed::new(partitions.len(), 3);
    let places = routes.places(&partitions, &placed);
    let worked_out = || {
        let pieces = placed.pieces.iter().filter(|piece| piece.get().is_some());
        pieces.count()
    };
    let zone = routes.zone(PLAINTEXT, None, "b").unwrap();
    let one = places.agent_in(77_777, PLAINTEXT, zone).unwrap();
    assert_eq!(worked_out(), 1);
    assert_eq!(places.agent_in(100_000, PLAINTEXT, zone), None);
    let mut all = places.replicas(PLAINTEXT, Some(zone.into()));
    assert_eq!(all.next().map(|first| first.iter().count()), Some(3));
    assert_eq!(worked_out(), 2);
    assert_eq!(all.nth(77_776).map(|found| found.leader()), Some(one));
    assert_eq!(all.count(), 100_000 - 77_778);
    assert_eq!(worked_out(), 100_000_usize.div_ceil(PIECE));
}

#[test]
fn only_the_partitions_of_a_lost_agent_move() {
    let (before, after) = (leaders(FOUR, ""), leaders(&FOUR[..3], ""));
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *before == 4);
    }
    assert!(shown(&[], 3, "").is_empty());
}

/// Where clients are sent: for partitions, and for groups.
fn sent_to(agents: &[Agent]) -> (Vec<i32>, Vec<i32>) {
    let routes = Routes::new(agents);
    let shown = routes.brokers(PLAINTEXT).iter().map(|broker| broker.id);
    assert!(
        shown.eq(agents.iter().map(|agent| agent.id)),
        "all are shown"
    );
    let (partitions, placed) = (partitions(), Placed::new(PARTITIONS as usize, 1));
    let places = routes.places(&partitions, &placed);
    let replicas = places.replicas(PLAINTEXT, None);
    let mut led: Vec<i32> = replicas.map(|replicas| replicas.leader().0).collect();
    led.sort_unstable();
    led.dedup();
    let sent = agents.iter().map(|agent| agent.id);
    let sent = sent.filter(|id| routes.leads_to(PLAINTEXT, *id));
    assert!(sent.map(|id| id.0).eq(led.iter().copied()));
    let zone = routes.zone(PLAINTEXT, None, "b");
    let hosts = (0..40).filter_map(|key| routes.any(PLAINTEXT, zone.map(Place::from), key));
    let hosts: BTreeSet<i32> = hosts.map(|broker| broker.id.0).collect();
    (led, hosts.into_iter().collect())
}

#[test]
fn clients_are_sent_to_agents_that_drain_only_if_there_is_no_other() {
    let mut agents = agents(&[(1, "a"), (2, "b"), (3, "b")]);
    assert_eq!(sent_to(&agents), (vec![1, 2, 3], vec![2, 3]));
    agents[2].drains = true;
    assert_eq!(sent_to(&agents), (vec![1, 2], vec![2]));
    agents[1].drains = true;
    assert_eq!(sent_to(&agents), (vec![1], vec![1]));
    agents[0].drains = true;
    assert_eq!(sent_to(&agents), (vec![1, 2, 3], vec![2, 3]));
}

#[test]
fn clients_are_sent_to_agents_that_are_cut_off_only_if_all_others_end() {
    let mut agents = agents(&[(1, "a"), (2, "b"), (3, "b")]);
    agents[2].cut_off = true;
    assert_eq!(sent_to(&agents), (vec![1, 2], vec![2]));
    agents[1].drains = true;
    assert_eq!(sent_to(&agents), (vec![1], vec![1]));
    agents[0].drains = true;
    assert_eq!(sent_to(&agents), (vec![3], vec![3]));
    agents[2].drains = true;
    assert_eq!(sent_to(&agents), (vec![1, 2, 3], vec![2, 3]));
}

#[test]
fn a_group_moves_only_to_an_agent_that_joins_or_from_one_that_goes() {
    let hosts = |agents: &[Agent]| -> Vec<i32> {
        let routes = Routes::new(agents);
        let hosts = (0..300).filter_map(|key| routes.any(PLAINTEXT, None, key));
        hosts.map(|broker| broker.id.0).collect()
    };
    let before = hosts(&agents(&[(1, "a"), (2, "b"), (3, "c")]));
    for agent in 1..=3 {
        let share = before.iter().filter(|host| **host == agent).count();
        assert!((60..=140).contains(&share), "agent {agent} has {share}");
    }
    let after = hosts(&agents(&[(1, "a"), (2, "b"), (3, "c"), (4, "a")]));
    let mut moved = before.iter().zip(&after).filter(|(one, two)| one != two);
    assert!(moved.all(|(_, to)| *to == 4));
}

#[test]
fn an_agent_that_joins_takes_its_share_of_its_zone_and_nothing_of_others() {
    let grown = [SIX, &[(7, "a")]].concat();
    for zone in ["b", "c"] {
        assert_eq!(leaders(SIX, zone), leaders(&grown, zone));
    }
    let (before, after) = (leaders(SIX, "a"), leaders(&grown, "a"));
    for (before, after) in before.iter().zip(&after) {
        assert!(before == after || *after == 7);
    }
    let share = share(&after, 7);
    assert!((230..440).contains(&share), "{share} of 1000");
}

#[test]
fn clients_of_a_zone_are_sent_to_its_agents_and_others_to_all() {
    for (zone, own) in [("a", [1, 2]), ("b", [3, 4]), ("c", [5, 6])] {
        let leaders = leaders(SIX, zone);
        for agent in own {
            let share = share(&leaders, agent);
            assert!((350..650).contains(&share), "{share} of 1000 for {agent}");
        }
        assert!(leaders.iter().all(|leader| own.contains(leader)));
    }
    let everywhere = leaders(SIX, "");
    for agent in 1..=6 {
        assert!(share(&everywhere, agent) > 80, "{agent}");
    }
    assert_eq!(leaders(SIX, "a zone of nobody"), everywhere);
}

#[test]
fn the_agent_of_every_zone_is_among_the_replicas_whoever_asks() {
    let by_zone: Vec<Vec<i32>> = ["a", "b", "c"].map(|zone| leaders(SIX, zone)).into();
    for zone in ["", "a", "b", "c"] {
        for wanted in [1, 3] {
            let all = shown(SIX, wanted, zone);
            for (at, replicas) in all.iter().enumerate() {
                assert_eq!(replicas.len(), 3);
                assert!(
                    by_zone
                        .iter()
                        .all(|of_zone| replicas.contains(&of_zone[at]))
                );
            }
        }
    }
    // A set of replicas is the same for all, though its order is not.
    let sorted = |zone| {
        let mut all = shown(SIX, 5, zone);
        all.iter_mut().for_each(|replicas| replicas.sort_unstable());
        all
    };
    assert_eq!(sorted("a"), sorted("c"));
}

#[test]
fn as_many_replicas_are_shown_as_were_asked_for_whoever_runs() {
    for (count, wanted, len, distinct) in [
        (4, 1, 1, 1),
        (4, 3, 3, 3),
        (2, 3, 3, 2),
        (1, 3, 3, 1),
        (4, 1_000_000, REPLICAS_MAX, 4),
    ] {
        for replicas in shown(&FOUR[..count], wanted, "") {
            assert_eq!(replicas.len(), len, "{count} agents, {wanted} wanted");
            let unique: std::collections::BTreeSet<i32> = replicas.iter().copied().collect();
            assert_eq!(unique.len(), distinct, "{count} agents, {wanted} wanted");
        }
        let routes = Routes::new(&agents(&FOUR[..count]));
        assert_eq!(routes.width(PLAINTEXT, wanted), len);
    }
}

#[test]
fn there_may_be_more_zones_than_replicas_are_shown() {
    let names: Vec<String> = (0..40).map(|zone| format!("z{zone}")).collect();
    let all: Vec<(i32, &str)> = (1..).zip(names.iter().map(String::as_str)).collect();
    assert!(
        shown(&all, 1, "")
            .iter()
            .all(|shown| shown.len() == REPLICAS_MAX)
    );
    let routes = Routes::new(&agents(&all));
    let (partitions, placed) = (partitions(), Placed::new(PARTITIONS as usize, 1));
    let places = routes.places(&partitions, &placed);
    let zone = routes.zone(PLAINTEXT, None, "z7").unwrap();
    let leaders = places.replicas(PLAINTEXT, Some(zone.into()));
    for (at, replicas) in leaders.enumerate() {
        let own = places.agent_in(at, PLAINTEXT, zone);
        assert!(own.is_none_or(|own| own == AgentId(8) && replicas.leader() == own));
    }
}

#[test]
fn clients_are_told_of_agents_that_have_the_listener_by_which_they_came() {
    let mut all = agents(SIX);
    for agent in &mut all[1..4] {
        let port = 9_092 + u16::try_from(agent.id.0).unwrap();
        let mut outside = Endpoint::alone("outside", port).into_values();
        agent
            .listeners
            .extend(outside.next().map(|one| ("EXTERNAL".to_owned(), one)));
    }
    let routes = Routes::new(&all);
    let told = |listener| -> Vec<i32> {
        let brokers = routes.brokers(listener).iter();
        brokers.map(|broker| broker.id.0).collect()
    };
    assert_eq!(told(PLAINTEXT), [1, 2, 3, 4, 5, 6]);
    assert_eq!(told("EXTERNAL"), [2, 3, 4]);
    assert!(told("NOBODYS").is_empty());
    let third = routes.broker("EXTERNAL", AgentId(3)).unwrap();
    assert_eq!(
        (third.endpoint.host.as_str(), third.endpoint.port),
        ("outside", 9_095)
    );
    assert_eq!(
        routes.zone("EXTERNAL", None, "c"),
        None,
        "no agent of c has it"
    );
    let (partitions, placed) = (partitions(), Placed::new(PARTITIONS as usize, 3));
    let places = routes.places(&partitions, &placed);
    for replicas in places.replicas("EXTERNAL", None) {
        assert!(replicas.iter().all(|agent| (2..=4).contains(&agent.0)));
    }
    let zone = routes.zone("EXTERNAL", None, "a");
    for replicas in places.replicas("EXTERNAL", zone.map(Place::from)) {
        assert_eq!(
            replicas.leader(),
            AgentId(2),
            "the only one of a that has it"
        );
    }
    assert_eq!(places.replicas("NOBODYS", None).count(), 0);
}

#[test]
fn agents_without_a_zone_are_of_no_zone_that_a_client_can_name() {
    let routes = Routes::new(&agents(FOUR));
    assert_eq!(routes.zone(PLAINTEXT, None, ""), None);
    assert_eq!(routes.brokers(PLAINTEXT)[0].zone, None);
    // The replica of the other agents comes beside those of the zones.
    let mixed = [(1, "a"), (2, "b"), (3, ""), (4, "")];
    assert!(
        shown(&mixed, 1, "a")
            .iter()
            .all(|shown| shown.len() == 3 && shown[0] == 1)
    );
}

#[test]
fn clients_that_name_a_region_are_sent_to_its_agents_and_in_it_to_those_of_their_zone() {
    let mut all = agents(&[(1, "a"), (2, "b"), (3, "a"), (4, ""), (5, "")]);
    let regions = ["east", "east", "west", "west", "north"];
    for (agent, region) in all.iter_mut().zip(regions) {
        region.clone_into(&mut agent.region);
    }
    let routes = Routes::new(&all);
    let (partitions, placed) = (partitions(), Placed::new(PARTITIONS as usize, 1));
    let places = routes.places(&partitions, &placed);
    let led = |place: Option<Place>| -> BTreeSet<i32> {
        let replicas = places.replicas(PLAINTEXT, place);
        let led: BTreeSet<i32> = replicas.map(|replicas| replicas.leader().0).collect();
        let hosts = (0..100).filter_map(|key| routes.any(PLAINTEXT, place, key));
        let hosts: BTreeSet<i32> = hosts.map(|broker| broker.id.0).collect();
        assert_eq!(led, hosts, "for partitions and for groups");
        led
    };
    let region = |name| led(routes.region(PLAINTEXT, name));
    assert_eq!(region("east"), [1, 2].into());
    assert_eq!(region("west"), [3, 4].into());
    assert_eq!(region("north"), [5].into());
    assert_eq!(region("south"), [1, 2, 3, 4, 5].into(), "nobody is there");
    let zone = |region, name| led(routes.zone(PLAINTEXT, region, name).map(Place::from));
    assert_eq!(zone(Some("east"), "a"), [1].into());
    assert_eq!(zone(Some("west"), "a"), [3].into());
    assert_eq!(zone(None, "b"), [2].into());
    assert_eq!(routes.zone(PLAINTEXT, Some("west"), "b"), None);
    // Its own agents gone, the others serve it.
    let routes = Routes::new(&all[..4]);
    assert_eq!(routes.region(PLAINTEXT, "north"), None);
}
