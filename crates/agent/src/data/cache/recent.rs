//! Which files were written lately, as far as notices and uploads told: readers at the tail read those. Pure. It must not know
//! who reads.

use std::collections::BTreeMap;

use meta::ids::{FileId, Incarnation};

/// So many files of each agent count as written lately: some seconds of a busy agent, a quarter of a minute of one that
/// cuts few files.
const FILES: u64 = 64;
/// Runs of agents that are remembered, the latest ones.
const RUNS_MAX: usize = 1_024;

/// The number of the last file of each run of an agent.
#[derive(Debug, Default)]
pub(super) struct Recent {
    last: BTreeMap<Incarnation, u64>,
}

impl Recent {
    /// A file was written.
    pub(super) fn note(&mut self, file: FileId) {
        let last = self.last.entry(file.incarnation).or_default();
        *last = file.number.max(*last);
        if self.last.len() > RUNS_MAX {
            self.last.pop_first();
        }
    }

    /// True if a file was written lately.
    pub(super) fn has(&self, file: FileId) -> bool {
        let last = self.last.get(&file.incarnation);
        last.is_some_and(|last| file.number + FILES > *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(incarnation: u64, number: u64) -> FileId {
        FileId {
            incarnation: Incarnation(incarnation),
            number,
        }
    }

    #[test]
    fn the_last_files_of_each_run_are_recent() {
        let mut recent = Recent::default();
        assert!(!recent.has(file(1, 0)), "nothing is known of the run");
        recent.note(file(1, 500));
        recent.note(file(2, 3));
        recent.note(file(1, 100));
        assert!(recent.has(file(1, 500)) && recent.has(file(1, 437)));
        assert!(!recent.has(file(1, 436)));
        assert!(recent.has(file(2, 0)));
    }

    #[test]
    fn the_runs_that_are_remembered_are_bounded() {
        let mut recent = Recent::default();
        let last = 3 * RUNS_MAX as u64;
        for run in 0..=last {
            recent.note(file(run, 1));
        }
        assert!(recent.last.len() <= RUNS_MAX);
        assert!(recent.has(file(last, 1)) && !recent.has(file(0, 1)));
    }
}
