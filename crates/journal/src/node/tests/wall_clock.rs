//! Stamps and claims of a node whose wall clock is not known to be right.

use super::*;

/// An hour of a leader whose clock goes a year ahead, of which others know better.
#[test]
fn stamps_do_not_run_ahead_by_a_clock_that_is_not_known_to_be_right() {
    const YEAR: u64 = 365 * 86_400_000;
    let wall = |bench: &Bench| match bench.seen.last() {
        Some(Effect::Apply { stamp, .. }) => stamp.wall_millis,
        other => panic!("{other:?}"),
    };
    let mut bench = Bench::leader();
    bench.run(propose(0..1));
    let (begun, boot) = (wall(&bench), bench.now.boot.as_micros() / 1_000);
    let ahead_millis = (begun - boot).cast_signed();
    bench.run(Event::WallClock(WallClock::Right { ahead_millis }));
    bench.now.wall_millis += YEAR;
    for minute in 1..=60 {
        bench.pass(60_000);
        bench.run(propose(minute..minute + 1));
        assert_eq!(wall(&bench), begun + minute * 60_000);
    }
    bench.run(Event::WallClock(WallClock::Wrong { ahead_millis }));
    bench.pass(60_000);
    bench.run(propose(61..62));
    assert_eq!(wall(&bench), begun + 61 * 60_000);
    bench.run(Event::WallClock(WallClock::Alone));
    bench.run(propose(62..63));
    assert_eq!(wall(&bench), begun + 61 * 60_000 + YEAR);
}

/// A node with such a clock, which follows another that has appended commands.
fn follower(clock: WallClock) -> Bench {
    let mut leader = Bench::leader();
    leader.run(propose(0..3));
    let mut bench = Bench::new(Settings::one_of_several("m"));
    bench.slots = leader.slots.clone();
    bench.run(Event::Started);
    bench.run(Event::WallClock(clock));
    bench
}

#[test]
fn a_node_whose_clock_is_wrong_leaves_the_lead_to_others_but_not_for_ever() {
    let silence = |clock| {
        let mut bench = follower(clock);
        let mut waited = 0;
        while bench.node.role() != Role::Leader {
            bench.pass(50);
            bench.run(Event::Timer);
            let claim = bench.node.chain().claim().index;
            bench.run(Event::LeaderGone(claim));
            waited += 50;
            assert!(waited < 60_000, "nobody leads");
        }
        waited
    };
    let right = silence(WallClock::Unsure { ahead_millis: 0 });
    let wrong = silence(WallClock::Wrong { ahead_millis: 0 });
    assert!(
        right < 10_000 && (10_000..30_000).contains(&wrong),
        "{right} {wrong}"
    );
}

#[test]
fn a_node_whose_clock_is_wrong_claims_at_once_if_the_lead_is_handed_to_it() {
    let mut bench = follower(WallClock::Wrong { ahead_millis: 0 });
    bench.pass(50);
    bench.run(Event::Timer);
    let claim = bench.node.chain().claim().index;
    bench.run(Event::LeaderResigned(claim));
    for _ in 0..20 {
        bench.pass(50);
        bench.run(Event::Timer);
    }
    assert_eq!(bench.node.role(), Role::Leader);
}
