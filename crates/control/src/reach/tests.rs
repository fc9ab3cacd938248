//! Agents that say what they reach, and what the leader makes of it.

use std::collections::BTreeMap;

use meta::ids::AgentId;

use super::*;

/// A leader and its agents, numbered from 1.
struct Bench {
    reach: Reach,
    now: Instant,
    agents: Vec<Agent>,
    /// Entries of the journal so far.
    entries: u32,
}

impl Bench {
    fn of(count: i32) -> Self {
        let agent = |id| Agent {
            id: AgentId(id),
            name: format!("agent-{id}"),
            listeners: BTreeMap::new(),
            region: "r".to_owned(),
            zone: String::new(),
            neighbour_address: String::new(),
            level: 1,
            incarnation: Incarnation(id.unsigned_abs().into()),
            drains: false,
            cut_off: false,
        };
        Bench {
            reach: Reach::default(),
            now: Instant::from_millis(1_000_000),
            agents: (1..=count).map(agent).collect(),
            entries: 0,
        }
    }

    /// For so many seconds each agent says, once a second, whether it reaches enough; those that say nothing are `None`.
    fn pass(&mut self, seconds: u64, says: &[Option<bool>]) {
        for _ in 0..seconds {
            for (agent, is_enough) in self.agents.iter().zip(says) {
                if let Some(is_enough) = is_enough {
                    self.reach.says(self.now, agent.incarnation, *is_enough);
                }
            }
            for change in self
                .reach
                .changes(self.now, &self.agents.iter().collect::<Vec<_>>())
            {
                let mut agents = self.agents.iter_mut();
                let agent = agents.find(|agent| agent.incarnation == change.incarnation);
                let agent = agent.expect("an agent that is alive");
                assert_ne!(agent.cut_off, change.cut_off, "it is no news");
                agent.cut_off = change.cut_off;
                self.entries += 1;
            }
            self.now = self.now + Duration::from_secs(1);
        }
    }

    fn cut_off(&self) -> Vec<i32> {
        let cut_off = self.agents.iter().filter(|agent| agent.cut_off);
        cut_off.map(|agent| agent.id.0).collect()
    }
}

const ALL: [Option<bool>; 3] = [Some(true); 3];
const NONE: [Option<bool>; 3] = [Some(false); 3];

#[test]
fn who_reaches_too_few_is_left_out_until_it_has_been_back_for_a_while() {
    let mut bench = Bench::of(3);
    bench.pass(10, &ALL);
    bench.pass(1, &[Some(true), Some(false), Some(true)]);
    assert_eq!(bench.cut_off(), [2]);
    bench.pass(60, &[Some(true), Some(false), Some(true)]);
    assert_eq!((bench.cut_off(), bench.entries), (vec![2], 1));
    bench.pass(3, &ALL);
    assert_eq!(bench.cut_off(), [2], "not yet");
    bench.pass(1, &ALL);
    assert_eq!((bench.cut_off(), bench.entries), (Vec::new(), 2));
}

#[test]
fn a_bucket_that_comes_and_goes_moves_its_agent_once() {
    let mut bench = Bench::of(3);
    for _ in 0..20 {
        bench.pass(2, &[Some(false), Some(true), Some(true)]);
        bench.pass(2, &ALL);
    }
    assert_eq!((bench.cut_off(), bench.entries), (vec![1], 1));
}

#[test]
fn buckets_that_are_away_for_all_move_nobody() {
    let mut bench = Bench::of(3);
    bench.pass(10, &ALL);
    bench.pass(60, &NONE);
    assert_eq!((bench.cut_off(), bench.entries), (Vec::new(), 0));
    bench.pass(60, &ALL);
    assert_eq!(bench.entries, 0);
}

#[test]
fn all_are_named_again_once_the_last_one_is_cut_off() {
    let mut bench = Bench::of(3);
    bench.pass(5, &[Some(false), Some(true), Some(true)]);
    bench.pass(5, &[Some(false), Some(false), Some(true)]);
    assert_eq!(bench.cut_off(), [1, 2]);
    bench.pass(1, &NONE);
    assert!(bench.cut_off().is_empty());
    bench.pass(60, &NONE);
    assert_eq!((bench.cut_off(), bench.entries), (Vec::new(), 4));
}

#[test]
fn one_that_drains_is_nobody_to_go_to() {
    let mut bench = Bench::of(2);
    bench.agents[1].drains = true;
    bench.pass(60, &[Some(false), Some(true)]);
    assert!(bench.cut_off().is_empty());
}

#[test]
fn a_leader_that_has_not_heard_all_yet_names_nobody_again() {
    let mut bench = Bench::of(3);
    bench.pass(5, &[Some(false), Some(true), Some(true)]);
    bench.reach.forget();
    bench.pass(5, &[Some(false), None, Some(false)]);
    assert_eq!(bench.cut_off(), [1], "the second may reach enough");
    bench.pass(5, &[None, Some(true), Some(true)]);
    assert_eq!(bench.cut_off(), [1], "nothing is known of the first");
    bench.pass(4, &ALL);
    assert!(bench.cut_off().is_empty());
}
