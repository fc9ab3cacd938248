//! When a leader gives up the lead, and that nobody does so for ever in turn.

use super::*;

const AGENTS: Surroundings = Surroundings {
    are_agents: true,
    are_others: true,
    called_at: None,
};

struct Bench {
    aside: Aside,
    now: Instant,
}

impl Bench {
    fn new() -> Self {
        Bench {
            aside: Aside::default(),
            now: Instant::from_millis(3_000_000),
        }
    }

    fn look(&mut self, seen: Surroundings) -> bool {
        self.aside.look(self.now, true, seen)
    }

    /// Looks ten times a second, until the others are to be asked or so long; yields when that was.
    fn lead(&mut self, millis: u64, seen: impl Fn(Instant) -> Surroundings) -> Option<u64> {
        let _first = self.look(seen(self.now));
        for passed in (100..=millis).step_by(100) {
            self.now = self.now + Duration::from_millis(100);
            if self.look(seen(self.now)) {
                return Some(passed);
            }
        }
        None
    }

    fn follow(&mut self) {
        assert!(!self.aside.look(self.now, false, AGENTS));
    }
}

#[test]
fn a_leader_that_no_agent_reaches_asks_the_others_after_two_seconds() {
    let mut bench = Bench::new();
    assert_eq!(bench.lead(60_000, |_| AGENTS), Some(2_000));
    assert_eq!(bench.lead(60_000, |_| AGENTS), Some(500), "and again");
    // One of them calls.
    let called_at = Some(bench.now);
    let seen = Surroundings {
        called_at,
        ..AGENTS
    };
    assert_eq!(bench.lead(60_000, |_| seen), Some(2_000));
    let calls = |now| Surroundings {
        called_at: Some(now),
        ..AGENTS
    };
    assert_eq!(bench.lead(60_000, calls), None);
}

#[test]
fn a_leader_without_agents_or_without_another_node_leads_on() {
    for (are_agents, are_others) in [(false, true), (true, false)] {
        let seen = Surroundings {
            are_agents,
            are_others,
            called_at: None,
        };
        assert_eq!(Bench::new().lead(60_000, |_| seen), None);
    }
}

#[test]
fn silence_counts_only_while_this_node_leads_and_is_awake() {
    let mut bench = Bench::new();
    assert_eq!(bench.lead(1_900, |_| AGENTS), None);
    bench.now = bench.now + Duration::from_secs(60);
    assert!(!bench.look(AGENTS), "it slept");
    assert_eq!(bench.lead(1_900, |_| AGENTS), None);
    bench.follow();
    assert_eq!(bench.lead(1_900, |_| AGENTS), None);
    assert_eq!(bench.lead(100, |_| AGENTS), Some(100));
}

#[test]
fn who_hears_that_agents_reach_nobody_keeps_the_lead() {
    assert!(!Aside::gives_up(Others::Unasked));
    assert!(Aside::gives_up(Others::Asked));
    assert!(Aside::gives_up(Others::Silent));
}

/// Two nodes, neither of which any agent reaches, and which do not reach each other's word that it is so: in an hour the lead
/// changes a few times, not each two seconds.
#[test]
fn a_lead_that_is_given_up_again_and_again_is_so_ever_more_rarely() {
    let mut nodes = [Bench::new(), Bench::new()];
    let mut changes = 0;
    let begun = nodes[0].now;
    while nodes[0].now.since(begun) < Duration::from_secs(3_600) {
        let at = changes % 2;
        let waited = nodes[at].lead(3_600_000, |_| AGENTS).expect("in the end");
        assert!(waited >= 2_000 << changes.min(8), "{waited} at {changes}");
        let now = nodes[at].now;
        let times = nodes[at].aside.has_given_up(now);
        nodes[at].follow();
        nodes[1 - at].now = now;
        nodes[1 - at].aside.note(now, times);
        changes += 1;
    }
    assert!(changes <= 16, "{changes} changes");
    // It is forgotten after a while in which nothing of it happens.
    let mut bench = Bench::new();
    bench.aside.note(bench.now, 5);
    bench.now = bench.now + REMEMBERED_FOR;
    assert_eq!(bench.lead(60_000, |_| AGENTS), Some(2_000));
    assert_eq!(bench.aside.has_given_up(bench.now), 1);
}

#[test]
fn who_is_told_late_of_fewer_times_forgets_none() {
    let mut bench = Bench::new();
    bench.aside.note(bench.now, 3);
    bench.aside.note(bench.now, 1);
    assert_eq!(bench.aside.times(bench.now), 3);
}
