//! Keeps what a client or a sick bucket can cause at will from filling the log. It must not know
//! what is logged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use meta::ids::FileId;

/// At most one line in this time.
const EVERY: Duration = Duration::from_secs(1);
/// At most one line of a file in this time: its readers ask again and again.
const EVERY_OF_A_FILE: Duration = Duration::from_secs(10);
/// Files whose lines are limited each on its own: some KiB of memory, and six lines a second.
const FILES_MAX: usize = 64;

/// Lets one line through in a while, and counts the others.
#[derive(Debug, Default)]
pub(crate) struct LogLimit {
    next_micros: AtomicU64,
    left_out: AtomicU64,
}

impl LogLimit {
    /// Whether to write a line now: how many were left out since the last one.
    pub(crate) fn pass(&self, now: Instant) -> Option<u64> {
        let next = self.next_micros.load(Relaxed);
        let later = (now + EVERY).as_micros();
        let won = now.as_micros() >= next
            && self
                .next_micros
                .compare_exchange(next, later, Relaxed, Relaxed)
                .is_ok();
        if won {
            return Some(self.left_out.swap(0, Relaxed));
        }
        self.left_out.fetch_add(1, Relaxed);
        None
    }
}

/// The same for each file on its own, so that one damaged file does not hide another. Files beyond
/// [`FILES_MAX`] share one limit.
#[derive(Debug, Default)]
pub(crate) struct FileLogLimit {
    files: Mutex<BTreeMap<FileId, Silence>>,
    others: LogLimit,
}

/// Until when nothing more is said of a file, and how much was not.
#[derive(Debug)]
struct Silence {
    until: Instant,
    left_out: u64,
}

impl FileLogLimit {
    /// Whether to write a line about `file` now: how many were left out since the last one.
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

    #[test]
    fn one_line_a_second_and_a_count_of_the_others() {
        let limit = LogLimit::default();
        let at = Instant::from_millis;
        assert_eq!(limit.pass(at(5_000)), Some(0));
        assert_eq!(limit.pass(at(5_001)), None);
        assert_eq!(limit.pass(at(5_999)), None);
        assert_eq!(limit.pass(at(6_000)), Some(2));
    }

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
