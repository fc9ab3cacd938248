//! Steps and pace as pure functions, and that what is announced holds nothing.

use futures::FutureExt;

use super::*;

const MIB: usize = 1 << 20;
const NEVER: Instant = Instant::from_micros(u64::MAX);

fn gates() -> Gates {
    Gates::new(&Sizes {
        beginnings_bytes: 16 << 20,
        whole_bytes: 64 << 20,
        large_bytes: 32 << 20,
        frame_bytes_max: 8 << 20,
    })
}

fn at(millis: u64) -> Instant {
    Instant::from_millis(millis)
}

#[test]
fn a_frame_gets_more_only_once_it_has_filled_what_it_has() {
    assert_eq!(step_due(6, 100 * MIB), Step::Prefix);
    assert_eq!(step_due(PREFIX_ROOM - 1, 100 * MIB), Step::Prefix);
    assert_eq!(step_due(PREFIX_ROOM, 100 * MIB), Step::Beginning);
    assert_eq!(step_due(BEGINNING_BYTES - 1, 100 * MIB), Step::Beginning);
    assert_eq!(step_due(BEGINNING_BYTES, 100 * MIB), Step::Whole);
    assert_eq!(step_due(100, 101), Step::Prefix);
    assert_eq!(step_due(100, 100), Step::Whole);
    assert_eq!(step_due(5_000, 5_001), Step::Beginning);
}

#[test]
fn large_frames_take_no_more_than_their_share() {
    let gates = gates();
    let mut grants = Vec::new();
    while let Some(grant) = gates.large.try_take(Step::Whole, 8 * MIB) {
        grants.push(grant);
    }
    assert_eq!(grants.len(), 4);
    assert_eq!(gates.usual.whole.free_bytes(), 32 << 20);
    assert!(gates.usual.try_take(Step::Whole, MIB).is_some());
    while let Some(grant) = gates.large.try_take(Step::Beginning, 8 * MIB) {
        grants.push(grant);
    }
    assert!(gates.usual.try_take(Step::Beginning, MIB).is_some());
}

#[test]
fn all_memory_at_once_only_while_it_is_ample() {
    let gates = gates();
    assert!(gates.usual.is_ample(MIB));
    assert!(!gates.large.is_ample(MIB));
    let _held = gates.usual.try_take(Step::Whole, 32 * MIB);
    assert!(!gates.usual.is_ample(MIB));
    assert!(gates.usual.try_take(Step::Whole, 32 * MIB).is_some());
}

#[test]
fn memory_is_wanted_by_those_who_wait_for_the_same_step() {
    let gates = gates();
    let whole = gates.usual.try_take(Step::Whole, 64 * MIB).unwrap();
    let mut waits = Arc::clone(&gates.usual).take(Step::Whole, MIB).boxed();
    assert!((&mut waits).now_or_never().is_none());
    assert!(gates.usual.is_wanted(Step::Whole, NEVER));
    assert!(!gates.usual.is_wanted(Step::Beginning, NEVER));
    drop(whole);
    assert!(waits.now_or_never().is_some());
    assert!(!gates.usual.is_wanted(Step::Whole, NEVER));
}

#[test]
fn who_waits_for_the_share_of_large_frames_hurries_these_alone() {
    let gates = gates();
    let _large = gates.large.try_take(Step::Whole, 32 * MIB).unwrap();
    let mut waits = Arc::clone(&gates.large).take(Step::Whole, 8 * MIB).boxed();
    assert!((&mut waits).now_or_never().is_none());
    assert!(gates.large.is_wanted(Step::Whole, NEVER));
    assert!(!gates.usual.is_wanted(Step::Whole, NEVER));
}

#[test]
fn a_frame_too_large_for_its_kind_is_refused() {
    let memory = Memory::new(192 << 20, 100 << 20);
    assert!(memory.gate(true, 100 * MIB).is_ok());
    assert_eq!(memory.gate(true, 100 * MIB + 1).err(), Some(100 << 20));
    assert_eq!(memory.gate(false, 100 * MIB).err(), Some(OTHER_BYTES_MAX));
}

const HALT: Duration = Duration::from_secs(30);

#[test]
fn nobody_is_hurried_while_nobody_waits() {
    let mut pace = Pace::begin(at(0), 100);
    for second in 1..100 {
        let now = at(second * 1_000);
        assert_eq!(pace.look_at(HALT), now);
        assert!(!pace.is_too_slow(now, (100 + second as usize, MIB), false, HALT));
        pace.advance(now);
    }
}

#[test]
fn a_halt_ends_the_patience_at_last() {
    let mut pace = Pace::begin(at(0), 100);
    assert!(!pace.is_too_slow(at(29_999), (100, MIB), false, HALT));
    assert_eq!(pace.look_at(HALT), at(30_000));
    assert!(pace.is_too_slow(at(30_000), (100, MIB), false, HALT));
}

#[test]
fn while_others_wait_a_sixteenth_must_come_each_second() {
    let mut pace = Pace::begin(at(0), 0);
    pace.advance(at(900));
    assert!(!pace.is_too_slow(at(999), (1, MIB), true, HALT));
    assert!(!pace.is_too_slow(at(1_000), (MIB / 16, MIB), true, HALT));
    pace.advance(at(1_900));
    assert!(pace.is_too_slow(at(2_000), (MIB / 8 - 1, MIB), true, HALT));
}

#[test]
fn a_byte_at_a_time_is_too_slow() {
    let mut pace = Pace::begin(at(0), 5_000);
    for step in 1..10 {
        pace.advance(at(step * 100));
        assert!(!pace.is_too_slow(at(step * 100), (5_000 + step as usize, MIB), true, HALT));
    }
    assert!(pace.is_too_slow(at(1_000), (5_010, MIB), true, HALT));
}
