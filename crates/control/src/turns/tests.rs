//! Calls in any order: which are held, for how long, and that nothing is kept of those that are over.

use host::rng::Rng;

use super::*;

const NOW: Instant = Instant::from_millis(5_000);
const ONE: Incarnation = Incarnation(1);

fn file(number: u64) -> FileId {
    FileId {
        incarnation: ONE,
        number,
    }
}

fn held() -> Turn {
    Turn::Held(NOW + HOLD_MAX)
}

#[test]
fn calls_that_come_backwards_are_passed_on_in_order() {
    let mut turns = Turns::default();
    for number in (8..12).rev() {
        assert_eq!(turns.comes(NOW, file(number), 7, number), held());
    }
    assert_eq!(turns.comes(NOW, file(7), 7, 7), Turn::Now);
    for number in 7..11 {
        assert_eq!(turns.passed_on(file(number)), [number + 1]);
    }
    assert_eq!(turns.passed_on(file(11)), [0_u64; 0]);
    // None of them is applied yet.
    assert_eq!(turns.comes(NOW, file(12), 7, 12), Turn::Now);
    assert_eq!(turns.comes(NOW, file(14), 7, 14), held());
    for number in 7..13 {
        turns.answered(file(number), true);
    }
    turns.given_up(file(14), 14);
    assert!(turns.lines.is_empty() && turns.held == 0);
}

#[test]
fn a_call_that_is_repeated_is_released_with_the_first_and_what_was_applied_is_not_held() {
    let mut turns = Turns::default();
    assert_eq!(turns.comes(NOW, file(1), 0, 10), held());
    assert_eq!(turns.comes(NOW, file(1), 0, 11), held());
    // Another call of the same agent has come by another way, and is applied.
    assert_eq!(turns.comes(NOW, file(0), 1, 12), Turn::Now);
    assert_eq!(turns.passed_on(file(0)), [10, 11]);
    assert!(!turns.is_over(file(1), 10), "it was released");
}

#[test]
fn who_waits_in_vain_is_passed_on_in_the_end() {
    let mut turns = Turns::default();
    assert_eq!(turns.comes(NOW, file(2), 0, 1), held());
    assert!(turns.is_over(file(2), 1));
    assert_eq!(turns.passed_on(file(2)), [0_u64; 0]);
    // It was refused, and those before it are still waited for.
    turns.answered(file(2), false);
    assert_eq!(turns.comes(NOW, file(1), 0, 2), held());
}

#[test]
fn after_one_that_failed_what_was_passed_on_counts_for_nothing() {
    let mut turns = Turns::default();
    for number in 0..3 {
        assert_eq!(turns.comes(NOW, file(number), 0, number), Turn::Now);
        turns.passed_on(file(number));
    }
    turns.answered(file(0), true);
    turns.answered(file(1), false);
    assert_eq!(turns.comes(NOW, file(3), 1, 3), held());
    assert_eq!(turns.comes(NOW, file(1), 1, 4), Turn::Now);
}

#[test]
fn what_is_held_is_bounded() {
    let mut turns = Turns::default();
    assert_eq!(turns.comes(NOW, file(AHEAD_MAX + 1), 0, 0), Turn::Now);
    for ticket in 0..AHEAD_MAX {
        assert_eq!(turns.comes(NOW, file(5), 0, ticket), held());
    }
    assert_eq!(turns.comes(NOW, file(5), 0, AHEAD_MAX), Turn::Now);
    for incarnation in 2..100 {
        let file = FileId {
            incarnation: Incarnation(incarnation),
            number: 5,
        };
        for ticket in 0..AHEAD_MAX {
            turns.comes(NOW, file, 0, ticket);
        }
    }
    assert_eq!(turns.held, HELD_MAX);
}

#[test]
fn in_any_schedule_nothing_is_kept_in_the_end() {
    for seed in 0..2_000 {
        let mut rng = Rng::seeded(seed);
        let mut turns = Turns::default();
        let (mut waits, mut goes) = (Vec::new(), Vec::new());
        for ticket in 0..40 {
            let file = file(rng.below(12));
            match turns.comes(NOW, file, 0, ticket) {
                Turn::Now => goes.push(file),
                Turn::Held(_) => waits.push((file, ticket)),
            }
            if rng.once_in(3)
                && let Some(file) = goes.pop()
            {
                if rng.once_in(2) {
                    let released = turns.passed_on(file);
                    let is_released =
                        |(_, ticket): &mut (FileId, Ticket)| released.contains(ticket);
                    goes.extend(waits.extract_if(.., is_released).map(|(file, _)| file));
                }
                turns.answered(file, rng.once_in(2));
            }
            if rng.once_in(5)
                && let Some((file, ticket)) = waits.pop()
            {
                match rng.once_in(2) {
                    true => turns.given_up(file, ticket),
                    false if turns.is_over(file, ticket) => goes.push(file),
                    false => panic!("seed {seed}: it was not released"),
                }
            }
        }
        for (file, ticket) in waits {
            turns.given_up(file, ticket);
        }
        for file in goes {
            turns.answered(file, false);
        }
        assert!(turns.lines.is_empty() && turns.held == 0, "seed {seed}");
    }
}
