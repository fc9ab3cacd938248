//! Three regions in simulated time, whose commit latencies change, and to which of them the lead goes when.

use super::*;

/// Three regions of a node each. The one of this node is `east`; the commit latencies of all are settable.
struct Town {
    choice: Choice,
    now_millis: u64,
    seen: Seen,
    /// Of east, west and far.
    latencies: [Option<u64>; 3],
}

const NODES: [(&str, &str); 3] = [("e", "east"), ("w", "west"), ("f", "far")];

impl Town {
    /// The node in `east` leads, and has for some time.
    fn with(latencies: [u64; 3]) -> Self {
        let other = |(name, region): &(&str, &str)| Candidate {
            name: (*name).to_owned(),
            region: (*region).to_owned(),
        };
        let mut town = Town {
            choice: Choice::default(),
            now_millis: 1_000_000,
            seen: Seen {
                leads: true,
                own_region: "east".to_owned(),
                leader: Some("e".to_owned()),
                preferred: AUTO.to_owned(),
                others: NODES[1..].iter().map(other).collect(),
            },
            latencies: latencies.map(Some),
        };
        assert_eq!(town.pass(200), None);
        town
    }

    /// So many milliseconds go by, in which others say every five seconds how they are, or each second while that matters; yields what is
    /// offered first.
    fn pass(&mut self, millis: u64) -> Option<Offer> {
        let end = self.now_millis + millis;
        while self.now_millis < end {
            let latency = |at: usize| self.latencies[at].map(Duration::from_millis);
            let now = Instant::from_millis(self.now_millis);
            self.choice.measure(now, latency(0));
            let every_millis = if self.choice.wants_news() {
                1_000
            } else {
                5_000
            };
            if self.now_millis.is_multiple_of(every_millis) {
                for at in [1, 2] {
                    self.choice.hear(now, NODES[at].0, latency(at));
                }
            }
            if let Some(offer) = self.choice.look(now, &self.seen) {
                return Some(offer);
            }
            self.now_millis += 200;
        }
        None
    }

    /// The same, and how many milliseconds it took; nothing else may be offered before.
    fn offered_after(&mut self, within_millis: u64) -> (String, Reason, u64) {
        let began = self.now_millis;
        let offer = self.pass(within_millis).expect("it is offered");
        (offer.region, offer.reason, self.now_millis - began)
    }

    /// The lead goes to another node, and comes back.
    fn is_away_for(&mut self, millis: u64) {
        (self.seen.leads, self.seen.leader) = (false, Some("w".to_owned()));
        assert_eq!(self.pass(millis), None, "it does not lead");
        (self.seen.leads, self.seen.leader) = (true, Some("e".to_owned()));
        assert_eq!(self.pass(200), None);
    }

    fn prefers(&mut self, region: &str) {
        region.clone_into(&mut self.seen.preferred);
    }
}

#[test]
fn the_lead_stays_where_others_are_no_better() {
    for latencies in [
        [12, 12, 65],
        // Less than a fifth, or than what the work of the machine makes.
        [12, 10, 65],
        [5, 1, 1],
        [100, 81, 90],
        [1, 1, 1],
    ] {
        let mut town = Town::with(latencies);
        assert_eq!(town.pass(3_600_000), None, "{latencies:?}");
    }
}

#[test]
fn the_lead_goes_where_commits_take_the_least_time_once_that_has_held_for_a_while() {
    let mut town = Town::with([65, 12, 30]);
    let (region, reason, millis) = town.offered_after(40_000);
    assert_eq!((&*region, reason), ("west", Reason::Faster));
    assert!((29_000..31_000).contains(&millis), "{millis}");
    // Nobody took it: it is offered again, and not all the time.
    let again = town.offered_after(5_000);
    assert_eq!(again, ("west".to_owned(), Reason::Faster, 2_000));
}

#[test]
fn two_regions_that_are_better_in_turns_are_better_all_the_time() {
    let mut town = Town::with([65, 12, 13]);
    for _ in 0..3 {
        assert_eq!(town.pass(5_000), None);
        town.latencies = [Some(65), Some(13), Some(12)];
        assert_eq!(town.pass(4_800), None);
        town.latencies = [Some(65), Some(12), Some(13)];
    }
    assert!(town.offered_after(3_000).2 <= 2_000);
}

#[test]
fn what_holds_only_now_and_then_moves_nothing() {
    let mut town = Town::with([12, 12, 65]);
    for _ in 0..20 {
        town.latencies[0] = Some(40);
        assert_eq!(town.pass(20_000), None);
        town.latencies[0] = Some(12);
        assert_eq!(town.pass(20_000), None);
    }
}

/// Twelve milliseconds become 120, and those of others not much less.
#[test]
fn a_region_that_is_ten_times_as_slow_is_led_elsewhere_soon() {
    let mut town = Town::with([12, 12, 65]);
    assert_eq!(town.pass(60_000), None);
    town.latencies = [Some(120), Some(70), Some(65)];
    let (region, reason, millis) = town.offered_after(10_000);
    assert_eq!(reason, Reason::Faster);
    assert!(region == "west" || region == "far", "{region}");
    assert!(millis <= 3_000, "{millis}");
}

#[test]
fn a_node_that_reaches_too_few_buckets_hands_over_to_one_that_reaches_enough() {
    let mut town = Town::with([12, 12, 65]);
    town.latencies = [None, Some(12), None];
    let (region, reason, millis) = town.offered_after(10_000);
    assert_eq!((&*region, reason), ("west", Reason::Faster));
    assert!(millis <= 3_000, "{millis}");
    // Where all are so, nobody is better.
    let mut town = Town::with([12, 12, 65]);
    town.latencies = [None; 3];
    assert_eq!(town.pass(600_000), None);
}

#[test]
fn the_region_that_an_operator_prefers_leads_at_once_however_slow_it_is() {
    let mut town = Town::with([12, 12, 65]);
    town.prefers("far");
    let (region, reason, millis) = town.offered_after(1_000);
    assert_eq!((&*region, reason, millis), ("far", Reason::Preferred, 0));
    // It does not give the lead away for being slow, only for being ailing.
    let mut town = Town::with([65, 12, 12]);
    town.prefers("east");
    assert_eq!(town.pass(600_000), None);
    town.latencies[0] = Some(650);
    let (_, reason, millis) = town.offered_after(10_000);
    assert_eq!(reason, Reason::Faster);
    assert!(millis <= 3_000, "{millis}");
}

#[test]
fn what_an_operator_says_in_the_moment_after_a_change_of_leader_counts_at_once() {
    let mut town = Town::with([12, 12, 65]);
    (town.seen.leads, town.seen.leader) = (false, Some("w".to_owned()));
    assert_eq!(town.pass(5_000), None);
    (town.seen.leads, town.seen.leader) = (true, Some("e".to_owned()));
    town.prefers("far");
    let (region, reason, millis) = town.offered_after(1_000);
    assert_eq!((&*region, reason, millis), ("far", Reason::Preferred, 0));
}

#[test]
fn a_preference_from_before_the_node_began_waits_until_the_region_has_been_well_for_a_while() {
    let mut town = Town::with([12, 12, 65]);
    town.choice = Choice::default();
    town.prefers("west");
    let (region, reason, millis) = town.offered_after(700_000);
    assert_eq!((&*region, reason), ("west", Reason::Preferred));
    assert!((600_000..606_000).contains(&millis), "{millis}");
}

#[test]
fn a_preferred_region_that_is_ailing_now_and_then_is_left_alone() {
    let mut town = Town::with([12, 12, 65]);
    town.choice = Choice::default();
    town.prefers("west");
    for _ in 0..4 {
        assert_eq!(town.pass(400_000), None);
        town.latencies[1] = None;
        assert_eq!(town.pass(20_000), None);
        town.latencies[1] = Some(12);
    }
}

#[test]
fn a_preferred_region_that_is_not_there_leaves_the_choice_to_the_others() {
    let mut town = Town::with([65, 12, 12]);
    town.latencies[2] = None;
    assert_eq!(town.pass(5_000), None);
    town.prefers("far");
    let offered = town.pass(60_000).map(|offer| offer.region);
    assert_eq!(offered.as_deref(), Some("west"));
    town.prefers("nowhere");
    town.latencies[2] = Some(12);
    assert_eq!(town.offered_after(60_000).1, Reason::Faster);
}

/// A region that is faster and comes and goes is left alone for longer each time.
#[test]
fn each_change_of_leader_doubles_the_wait() {
    let mut town = Town::with([65, 12, 12]);
    let mut waits = Vec::new();
    for _ in 0..4 {
        let offered = town.pass(1_000_000).expect("at last");
        assert_eq!(offered.reason, Reason::Faster);
        town.is_away_for(5_000);
        let before = town.now_millis;
        waits.push(before);
        town.choice.leaning = None;
    }
    let waits: Vec<u64> = waits.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(waits.is_sorted(), "{waits:?}");
    assert!(waits[2] >= 4 * waits[0], "{waits:?}");
    // Once nothing has changed for ten minutes, it is as before.
    let mut town = Town::with([65, 12, 12]);
    town.is_away_for(5_000);
    town.is_away_for(5_000);
    let (_, _, damped) = town.offered_after(400_000);
    assert!((239_000..242_000).contains(&damped), "{damped}");
    town.latencies[0] = Some(12);
    assert_eq!(town.pass(700_000), None);
    town.latencies[0] = Some(65);
    let (_, _, millis) = town.offered_after(60_000);
    assert!(millis <= 31_000, "{millis}");
    // An operator's word counts at once, whatever has changed before.
    for region in ["west", "far", "west"] {
        town.prefers(region);
        assert_eq!(town.offered_after(1_000).2, 0);
        town.is_away_for(5_000);
    }
}

#[test]
fn what_was_heard_long_ago_is_no_reason() {
    let mut town = Town::with([65, 12, 65]);
    town.seen.others.retain(|other| other.name != "w");
    assert_eq!(town.pass(600_000), None);
}

#[test]
fn one_that_does_not_lead_gives_nothing_away() {
    let mut town = Town::with([65, 12, 12]);
    town.seen.leads = false;
    town.prefers("west");
    assert_eq!(town.pass(600_000), None);
}
