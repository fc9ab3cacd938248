//! Which clocks are taken for wrong, with one node, two, three and four, answers that are missing, and what stamps rest on then.

use super::*;

const MINUTE: i64 = 60_000;
const YEAR: i64 = 365 * 24 * 60 * MINUTE;
/// How far the clocks that are right are ahead of the boot clock.
const RIGHT: i64 = 1_800_000_000_000;
const NOW: Instant = Instant::from_millis(100_000);

fn names(count: usize) -> BTreeSet<String> {
    ["b", "c", "d", "e"][..count]
        .iter()
        .map(|name| (*name).to_owned())
        .collect()
}

fn cluster(others: BTreeSet<String>) -> Cluster {
    Cluster {
        others,
        leader: None,
    }
}

/// Compares a clock that is off by so much with those of others, of which some have not answered.
fn compare(own: i64, others: &[Option<i64>]) -> Compared {
    let mut clocks = Clocks::default();
    let names = names(others.len());
    for (name, off) in names.iter().zip(others) {
        if let Some(off) = off {
            hear(&mut clocks, name, *off, NOW);
        }
    }
    clocks.compare(NOW, RIGHT + own, &cluster(names))
}

fn hear(clocks: &mut Clocks, name: &str, off: i64, at: Instant) {
    let boot = i64::try_from(at.as_micros() / 1_000).unwrap();
    let wall = (RIGHT + off + boot).cast_unsigned();
    clocks.hear(name, wall, false, (at, at));
}

fn standing(own: i64, others: &[Option<i64>]) -> (Standing, i64) {
    let compared = compare(own, others);
    (compared.standing, compared.ahead_millis)
}

fn unsure(off: i64) -> WallClock {
    WallClock::Unsure {
        ahead_millis: RIGHT + off,
    }
}

#[test]
fn a_node_without_others_is_alone_and_one_whose_others_are_silent_is_not() {
    assert_eq!(standing(YEAR, &[]), (Standing::Alone, 0));
    assert_eq!(compare(YEAR, &[]).stamps, WallClock::Alone);
    let silent = compare(YEAR, &[None, None]);
    assert_eq!((silent.standing, silent.others), (Standing::Unheard, 0));
    assert_eq!(silent.stamps, unsure(YEAR));
    assert_eq!(silent.wrong, names(0));
}

#[test]
fn two_clocks_are_right_as_long_as_they_agree() {
    for off in [0, MINUTE, -MINUTE] {
        let compared = compare(off, &[Some(0)]);
        assert_eq!(
            (compared.standing, compared.ahead_millis),
            (Standing::Right, off)
        );
        let ahead_millis = RIGHT + off;
        assert_eq!(compared.stamps, WallClock::Right { ahead_millis });
    }
}

#[test]
fn of_two_clocks_that_differ_nobody_knows_which_is_wrong_and_the_earlier_bounds_stamps() {
    for (own, other) in [(0, MINUTE + 1), (MINUTE + 1, 0), (YEAR, 0), (0, YEAR)] {
        let compared = compare(own, &[Some(other)]);
        assert_eq!(
            (compared.standing, compared.ahead_millis),
            (Standing::Apart, own - other)
        );
        assert_eq!(compared.stamps, unsure(0));
        assert_eq!(compared.wrong, names(0));
    }
    assert_eq!(standing(YEAR, &[Some(0), None]), (Standing::Apart, YEAR));
}

#[test]
fn of_three_the_median_says_who_is_wrong() {
    assert_eq!(
        standing(MINUTE, &[Some(0), Some(0)]),
        (Standing::Right, MINUTE)
    );
    let wrong = compare(MINUTE + 1, &[Some(0), Some(-1)]);
    assert_eq!(
        (wrong.standing, wrong.ahead_millis),
        (Standing::Wrong, MINUTE + 1)
    );
    let ahead_millis = RIGHT;
    assert_eq!(wrong.stamps, WallClock::Wrong { ahead_millis });
    assert_eq!(wrong.wrong, names(0));
    assert_eq!(
        standing(-MINUTE - 1, &[Some(0), Some(0)]),
        (Standing::Wrong, -MINUTE - 1)
    );
    // Another is.
    let right = compare(0, &[Some(YEAR), Some(5)]);
    assert_eq!((right.standing, right.ahead_millis), (Standing::Right, -5));
    assert_eq!(right.wrong, names(1));
}

#[test]
fn of_three_that_all_differ_the_one_in_the_middle_is_right() {
    let offs = [-30 * MINUTE, 0, YEAR];
    for (own, expected) in offs
        .iter()
        .zip([Standing::Wrong, Standing::Right, Standing::Wrong])
    {
        let others: Vec<_> = offs
            .iter()
            .filter(|off| *off != own)
            .map(|off| Some(*off))
            .collect();
        let compared = compare(*own, &others);
        assert_eq!((compared.standing, compared.ahead_millis), (expected, *own));
    }
}

/// The only one whose clock is right leads: if it ends, somebody whose clock is wrong has to take its place.
#[test]
fn a_node_whose_clock_is_wrong_leaves_the_lead_to_others_only_if_there_are_such() {
    let mut clocks = Clocks::default();
    hear(&mut clocks, "b", 0, NOW);
    hear(&mut clocks, "c", -YEAR, NOW);
    let mut stamps = |leader: &str| {
        let cluster = Cluster {
            others: names(2),
            leader: Some(leader.to_owned()),
        };
        clocks.compare(NOW, RIGHT + YEAR, &cluster).stamps
    };
    let ahead_millis = RIGHT;
    assert_eq!(stamps("b"), WallClock::Unsure { ahead_millis });
    assert_eq!(stamps("c"), WallClock::Wrong { ahead_millis });
}

/// They have heard different things of a third, which is gone: none of them would lead.
#[test]
fn of_two_nodes_that_take_their_clocks_for_wrong_none_leaves_the_lead_to_the_other() {
    let mut clocks = Clocks::default();
    hear(&mut clocks, "b", 0, NOW);
    hear(&mut clocks, "c", 0, NOW);
    let cluster = Cluster {
        others: names(2),
        leader: Some("b".to_owned()),
    };
    let ahead_millis = RIGHT;
    let stamps = clocks.compare(NOW, RIGHT + YEAR, &cluster).stamps;
    assert_eq!(stamps, WallClock::Wrong { ahead_millis });
    let shown = (RIGHT + 100_000).cast_unsigned();
    clocks.hear("c", shown, true, (NOW, NOW));
    let stamps = clocks.compare(NOW, RIGHT + YEAR, &cluster).stamps;
    assert_eq!(stamps, WallClock::Unsure { ahead_millis });
}

#[test]
fn of_four_two_halves_that_differ_are_both_unsure() {
    let (right, ahead) = (
        [Some(0), Some(YEAR), Some(YEAR)],
        [Some(0), Some(0), Some(YEAR)],
    );
    assert_eq!(standing(0, &right), (Standing::Apart, -YEAR));
    assert_eq!(compare(YEAR, &ahead).stamps, unsure(0));
    assert_eq!(standing(0, &ahead), (Standing::Right, 0));
    assert_eq!(
        standing(YEAR, &[Some(0), Some(0), Some(0), None]).0,
        Standing::Wrong
    );
}

#[test]
fn what_was_heard_long_ago_or_of_nodes_that_are_gone_counts_no_more() {
    let mut clocks = Clocks::default();
    hear(&mut clocks, "b", 0, NOW);
    hear(&mut clocks, "c", 0, NOW + Duration::from_secs(1));
    let late = NOW + HEARD_FOR;
    let compared = clocks.compare(late, RIGHT + YEAR, &cluster(names(2)));
    assert_eq!((compared.standing, compared.others), (Standing::Apart, 1));
    let compared = clocks.compare(late, RIGHT + YEAR, &cluster(names(1)));
    assert_eq!((compared.standing, compared.others), (Standing::Unheard, 0));
}

/// The time that an answer takes is shared between there and back.
#[test]
fn a_slow_answer_is_compared_with_the_middle_of_its_time() {
    let mut clocks = Clocks::default();
    let wall = (RIGHT + 100_000).cast_unsigned();
    clocks.hear("b", wall, false, (NOW, NOW + Duration::from_millis(400)));
    let compared = clocks.compare(NOW, RIGHT, &cluster(names(1)));
    assert_eq!(compared.ahead_millis, 200);
}

#[test]
fn clocks_that_say_anything_at_all_harm_nobody() {
    let all = [u64::MAX, 0, u64::MAX / 2];
    for (wall, own) in all.into_iter().zip([i64::MIN, i64::MAX, 0]) {
        let mut clocks = Clocks::default();
        for name in names(3) {
            clocks.hear(&name, wall, false, (NOW, NOW));
        }
        clocks.compare(NOW, own, &cluster(names(3)));
    }
}
