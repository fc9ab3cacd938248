//! Keeps damaged files from filling the log. Each file has a limit of its own, so that one does not
//! hide another. It must not know what is logged.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use host::log_limit::LogLimit;
use meta::ids::FileId;

/// At most one line about a file in this time: its readers ask again and again.
const EVERY_OF_A_FILE: Duration = Duration::from_secs(10);
/// Files that have a limit of their own: some KiB of memory, and six lines a second.
const FILES_MAX: usize = 64;

/// Lets one line about each file through in a while, and counts the others. Files beyond
/// [`FILES_MAX`] share one limit.
#[derive(Debug, Default)]
pub(crate) struct FileLogLimit {
    files: Mutex<BTreeMap<FileId, Silence>>,
    others: LogLimit,
}

/// When the next line about a file may be written, and how many were left out.
#[derive(Debug)]
struct Silence {
    until: Instant,
    left_out: u64,
}

impl FileLogLimit {
    /// `Some` if a line about `file` may be written now: how many were left out since the last one.
    pub(crate) fn pass(&self, file: FileId, now: Instant) -> Option<u64> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(silence) = files.get_mut(&file) {
            if now < silence.until {
                silence.left_out += 1;
                return None;
            }
            silence.until = now + EVERY_OF_A_FILE;
            return Some(std::mem::take(&mut silence.left_out));
        }
        if files.len() >= FILES_MAX {
            files.retain(|_, silence| now < silence.until);
        }
        if files.len() >= FILES_MAX {
            drop(files);
            return self.others.pass(now);
        }
        let until = now + EVERY_OF_A_FILE;
        files.insert(file, Silence { until, left_out: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use meta::ids::Incarnation;

    use super::*;

    fn file(number: u64) -> FileId {
        let incarnation = Incarnation(1);
        FileId {
            incarnation,
            number,
        }
    }

    #[test]
    fn one_damaged_file_does_not_hide_another() {
        let limit = FileLogLimit::default();
        let at = Instant::from_millis;
        assert_eq!(limit.pass(file(1), at(5_000)), Some(0));
        assert_eq!(limit.pass(file(1), at(5_001)), None);
        assert_eq!(limit.pass(file(2), at(5_001)), Some(0));
        assert_eq!(limit.pass(file(1), at(14_999)), None);
        assert_eq!(limit.pass(file(1), at(15_000)), Some(2));
    }

    #[test]
    fn thousands_of_damaged_files_are_few_lines_and_little_memory() {
        let limit = FileLogLimit::default();
        let passed = |millis: u64| {
            let lines =
                (0..10_000).map(|number| limit.pass(file(number), Instant::from_millis(millis)));
            lines.flatten().count()
        };
        assert_eq!(passed(5_000), FILES_MAX + 1);
        assert_eq!(passed(5_500), 0);
        assert_eq!(passed(15_000), FILES_MAX + 1);
        assert_eq!(limit.files.lock().unwrap().len(), FILES_MAX);
    }
}
