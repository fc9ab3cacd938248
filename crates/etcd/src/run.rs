//! Which slots are read or deleted in one request. Pure. It must not know how they are stored.

use journal::engine::{Content, End};

/// Slots that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deletion {
    pub(crate) first: u64,
    /// The slot after the last.
    pub(crate) end: u64,
}

/// etcd refuses more operations in one step than 128, one of which raises the floor.
const DELETIONS_MAX: usize = 100;
/// A step that deletes more keys would hold up what comes after it.
const SLOTS_MAX: u64 = 1_000;

/// Slots, in whatever order, as the steps in which they are deleted; one step at least.
pub(crate) fn deletions(indices: &[u64]) -> Vec<Vec<Deletion>> {
    let mut indices = indices.to_vec();
    indices.sort_unstable();
    indices.dedup();
    let mut steps = vec![Vec::new()];
    let mut slots = 0;
    for index in indices {
        let step = steps
            .last_mut()
            .unwrap_or_else(|| unreachable!("one step at least"));
        let follows = step.last().is_some_and(|last: &Deletion| last.end == index);
        let is_full = slots == SLOTS_MAX || !follows && step.len() == DELETIONS_MAX;
        match step.last_mut() {
            Some(last) if follows && !is_full => last.end += 1,
            _ => {
                let deletion = Deletion {
                    first: index,
                    end: index + 1,
                };
                if is_full {
                    steps.push(vec![deletion]);
                    slots = 0;
                } else {
                    step.push(deletion);
                }
            }
        }
        slots += 1;
    }
    steps
}

/// So many of the largest slots fit one answer.
pub(crate) const PAGE_MIN: usize = 32;
/// So many slots are read at once at most: as many as the journal asks for.
const PAGE_MAX: usize = 1_000;
/// The answer that a page is to be, if the slots are as large as those before.
const PAGE_BYTES: usize = 16 << 20;

/// How many slots to read next, after a page of so many slots and bytes.
pub(crate) fn next_page(slots: usize, bytes: usize) -> usize {
    if slots == 0 {
        return PAGE_MIN;
    }
    let each = (bytes / slots).max(1);
    (PAGE_BYTES / each).clamp(PAGE_MIN, PAGE_MAX)
}

/// The unbroken run from `from` on, of slots that were found when `limit` were asked for, and how it ends.
pub(crate) fn unbroken(
    found: Vec<(u64, Content)>,
    from: u64,
    limit: usize,
) -> (Vec<(u64, Content)>, End) {
    let expected = (from..).zip(found);
    let run = expected.map_while(|(index, slot)| (slot.0 == index).then_some(slot));
    let run: Vec<_> = run.collect();
    // All slots were read that there were at one moment, or as many as were asked for.
    let end = if run.len() < limit {
        End::Free
    } else {
        End::More
    };
    (run, end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(indices: &[u64]) -> Vec<(usize, u64)> {
        let steps = deletions(indices);
        let slots = |step: &Vec<Deletion>| step.iter().map(|run| run.end - run.first).sum();
        steps.iter().map(|step| (step.len(), slots(step))).collect()
    }

    #[test]
    fn slots_that_follow_each_other_are_deleted_together_and_no_others() {
        let run = |first, end| Deletion { first, end };
        assert_eq!(deletions(&[]), [[]]);
        assert_eq!(deletions(&[7, 2, 3, 5, 6, 2]), [[run(2, 4), run(5, 8)]]);
        let many: Vec<u64> = (1..=2_500).collect();
        assert_eq!(sizes(&many), [(1, 1_000), (1, 1_000), (1, 500)]);
        let scattered: Vec<u64> = (0..250).map(|number| number * 2).collect();
        assert_eq!(sizes(&scattered), [(100, 100), (100, 100), (50, 50)]);
    }

    #[test]
    fn pages_grow_while_slots_are_small() {
        assert_eq!(next_page(0, 0), PAGE_MIN);
        assert_eq!(next_page(32, 32 << 20), PAGE_MIN);
        assert_eq!(next_page(10, 10 * (64 << 10)), 256);
        assert_eq!(next_page(10, 0), PAGE_MAX);
    }

    #[test]
    fn a_run_ends_at_the_first_gap() {
        let slots = |indices: &[u64]| -> Vec<(u64, Content)> {
            indices
                .iter()
                .map(|index| (*index, Content::Filler))
                .collect()
        };
        let run = |found: &[u64], from, limit| unbroken(slots(found), from, limit);
        assert_eq!(run(&[], 3, 2), (slots(&[]), End::Free));
        assert_eq!(run(&[4], 3, 2), (slots(&[]), End::Free));
        assert_eq!(run(&[3], 3, 2), (slots(&[3]), End::Free));
        assert_eq!(run(&[3, 5], 3, 2), (slots(&[3]), End::Free));
        assert_eq!(run(&[3, 4], 3, 2), (slots(&[3, 4]), End::More));
    }
}
