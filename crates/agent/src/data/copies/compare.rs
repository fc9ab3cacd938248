//! How what a suspect bucket holds is compared with what it is known to hold: piece by piece, in the order of the files' ids, from the beginning
//! for each suspicion. Pure. It must not know how a file is looked for.

use std::collections::BTreeMap;

use meta::ids::FileId;
use meta::places::{StoredFile, StoredFiles};

/// The comparisons of the buckets that this agent sees to.
#[derive(Debug, Default)]
pub(crate) struct Comparisons {
    of: BTreeMap<u32, Comparison>,
}

/// How far a bucket was compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Comparison {
    /// Which suspicion it is for: since when, in ticks.
    pub since_ticks: u64,
    /// The last file that was compared.
    pub after: Option<FileId>,
}

/// What is to be done about a piece of a comparison.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Look for these files, and say then that it is done.
    LookFor {
        files: Vec<StoredFile>,
        after: Option<FileId>,
    },
    /// Who named the files does not know of this suspicion: files may be missing from the list.
    AskAgain,
}

impl Comparisons {
    /// The suspect buckets that this agent sees to, each with the time, in ticks, since when it is suspect.
    pub(crate) fn see_to(&mut self, suspects: impl Iterator<Item = (u32, u64)>) {
        let suspects: BTreeMap<u32, u64> = suspects.collect();
        let is_current = |bucket: &u32, comparison: &mut Comparison| {
            suspects.get(bucket) == Some(&comparison.since_ticks)
        };
        self.of.retain(is_current);
        for (bucket, since_ticks) in suspects {
            self.of.entry(bucket).or_insert(Comparison {
                since_ticks,
                after: None,
            });
        }
    }

    /// The buckets whose comparisons go on.
    pub(crate) fn buckets(&self) -> Vec<u32> {
        self.of.keys().copied().collect()
    }

    /// How far a bucket is compared; `None` if it is not to be, or not any more.
    pub(crate) fn of(&self, bucket: u32) -> Option<Comparison> {
        self.of.get(&bucket).copied()
    }

    /// What to do with the files that were named after those that are compared.
    pub(crate) fn named(&self, bucket: u32, named: StoredFiles) -> Piece {
        let since = self
            .of
            .get(&bucket)
            .map(|comparison| comparison.since_ticks);
        let is_known = |(suspect, ticks): &(u32, u64)| *suspect == bucket && Some(*ticks) == since;
        match named.suspects.iter().any(is_known) {
            true => Piece::LookFor {
                files: named.files,
                after: named.more_after,
            },
            false => Piece::AskAgain,
        }
    }

    /// All files up to one have been looked for, and what lacks is told; true if that was all.
    pub(crate) fn done(&mut self, bucket: u32, after: Option<FileId>) -> bool {
        if let Some(comparison) = self.of.get_mut(&bucket) {
            comparison.after = after.or(comparison.after);
        }
        after.is_none()
    }

    /// The end of a comparison is told.
    pub(crate) fn over(&mut self, bucket: u32) {
        self.of.remove(&bucket);
    }
}

#[cfg(test)]
mod tests {
    use meta::ids::Incarnation;

    use super::*;

    fn id(number: u64) -> FileId {
        FileId {
            incarnation: Incarnation(1),
            number,
        }
    }

    fn named(since_ticks: u64, more_after: Option<FileId>) -> StoredFiles {
        StoredFiles {
            files: Vec::new(),
            more_after,
            suspects: vec![(2, since_ticks)],
        }
    }

    #[test]
    fn a_comparison_goes_on_where_it_was_and_begins_anew_for_another_suspicion() {
        let mut comparisons = Comparisons::default();
        comparisons.see_to([(2, 10)].into_iter());
        let piece = comparisons.named(2, named(10, Some(id(5))));
        assert!(matches!(piece, Piece::LookFor { after: Some(after), .. } if after == id(5)));
        assert!(!comparisons.done(2, Some(id(5))));
        comparisons.see_to([(2, 10)].into_iter());
        let after = |of: &Comparisons| of.of(2).expect("it goes on").after;
        assert_eq!(after(&comparisons), Some(id(5)));
        comparisons.see_to([(2, 20)].into_iter());
        assert_eq!(after(&comparisons), None);
        assert!(comparisons.done(2, None));
        comparisons.over(2);
        assert_eq!(comparisons.of(2), None);
        assert_eq!(comparisons.buckets(), [0_u32; 0]);
    }

    #[test]
    fn files_are_not_taken_from_who_does_not_know_of_the_suspicion() {
        let mut comparisons = Comparisons::default();
        comparisons.see_to([(2, 10)].into_iter());
        assert_eq!(comparisons.named(2, named(9, None)), Piece::AskAgain);
        assert_eq!(
            comparisons.named(2, StoredFiles::default()),
            Piece::AskAgain
        );
    }
}
