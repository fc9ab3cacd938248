//! Which request waits for which budget, and how much large frames may take.

use futures::FutureExt;

use super::*;

const MIB: usize = 1 << 20;
const NEVER: Instant = Instant::from_micros(u64::MAX);

fn gates() -> Gates {
    Gates::new([16 << 20, 4 << 20], 64 << 20, 32 << 20)
}

fn ask(step: Step, bytes: usize) -> Ask {
    Ask {
        kind: Kind::Bulk,
        length: bytes,
        step,
        cost: bytes,
        copies: false,
    }
}

#[test]
fn large_frames_take_no_more_than_their_share() {
    let gates = gates();
    let mut grants = Vec::new();
    while let Some((_, grant)) = gates.large.try_take(&ask(Step::Whole, 8 * MIB)) {
        grants.push(grant);
    }
    assert_eq!(grants.len(), 4);
    assert_eq!(gates.usual.whole.free_bytes(), 32 << 20);
    assert!(gates.usual.try_take(&ask(Step::Whole, MIB)).is_some());
    while let Some(grant) = gates.large.try_take_beginning() {
        grants.push(grant);
    }
    assert!(gates.usual.try_take_beginning().is_some());
}

#[test]
fn all_memory_at_once_only_while_it_is_ample() {
    let gates = gates();
    assert!(gates.usual.is_ample(MIB));
    assert!(!gates.large.is_ample(MIB));
    let _held = gates.usual.try_take(&ask(Step::Whole, 32 * MIB));
    assert!(!gates.usual.is_ample(MIB));
    assert!(gates.usual.try_take(&ask(Step::Whole, 32 * MIB)).is_some());
}

#[test]
fn memory_is_wanted_by_those_who_wait_for_the_same_step() {
    let gates = gates();
    let whole = gates.usual.try_take(&ask(Step::Whole, 64 * MIB)).unwrap();
    let mut waits = Arc::clone(&gates.usual).take(ask(Step::Whole, MIB)).boxed();
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
    let _large = gates.large.try_take(&ask(Step::Whole, 32 * MIB)).unwrap();
    let mut waits = Arc::clone(&gates.large)
        .take(ask(Step::Whole, 8 * MIB))
        .boxed();
    assert!((&mut waits).now_or_never().is_none());
    assert!(gates.large.is_wanted(Step::Whole, NEVER));
    assert!(!gates.usual.is_wanted(Step::Whole, NEVER));
}

#[test]
fn who_waits_for_a_beginning_is_one_who_wants_memory() {
    let memory = Memory::new(&Budgets::SMALL, 32 << 20);
    for bytes in [MIB, 4 * MIB] {
        let gate = memory.gate(Kind::Other, bytes);
        let mut beginnings = Vec::new();
        while let Some(beginning) = gate.try_take_beginning() {
            beginnings.push(beginning);
        }
        assert!(!memory.is_other_wanted());
        let ask = ask(Step::Beginning, bytes);
        let mut waits = Arc::clone(gate).take(ask).boxed();
        assert!((&mut waits).now_or_never().is_none());
        assert!(memory.is_other_wanted(), "{bytes}");
        beginnings.pop();
        assert!(waits.now_or_never().is_some());
    }
}
