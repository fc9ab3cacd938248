//! Keeps lines that a client or a sick bucket can cause at will from filling the log; if wanted, each subject apart, so that one
//! does not hide another. It must not know what is logged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::clock::Instant;

/// The time for one line, unless another is given.
const EVERY: Duration = Duration::from_secs(1);

/// Lets one line through in a while and counts those left out.
#[derive(Debug)]
pub struct LogLimit {
    every: Duration,
    next_micros: AtomicU64,
    left_out: AtomicU64,
}

impl Default for LogLimit {
    fn default() -> Self {
        LogLimit::every(EVERY)
    }
}

impl LogLimit {
    pub const fn every(every: Duration) -> Self {
        LogLimit {
            every,
            next_micros: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
        }
    }

    /// `Some` if a line may be written now: how many were left out since the last one.
    pub fn pass(&self, now: Instant) -> Option<u64> {
        let next = self.next_micros.load(Relaxed);
        let later = (now + self.every).as_micros();
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

/// Subjects that have a limit of their own: some KiB of memory, and six lines a second if each has one in ten.
const SUBJECTS_MAX: usize = 64;

/// Lets one line about each subject through in a while, and counts the others. Subjects beyond [`SUBJECTS_MAX`] share one limit.
#[derive(Debug)]
pub struct LogLimits<Subject> {
    every: Duration,
    subjects: Mutex<BTreeMap<Subject, Silence>>,
    others: LogLimit,
}

/// When the next line about a subject may be written, and how many were left out.
#[derive(Debug)]
struct Silence {
    until: Instant,
    left_out: u64,
}

impl<Subject: Ord> LogLimits<Subject> {
    pub const fn every(every: Duration) -> Self {
        LogLimits {
            every,
            subjects: Mutex::new(BTreeMap::new()),
            others: LogLimit::every(EVERY),
        }
    }

    /// `Some` if a line about `subject` may be written now: how many were left out since the last one.
    pub fn pass(&self, subject: Subject, now: Instant) -> Option<u64> {
        let mut subjects = self.subjects.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(silence) = subjects.get_mut(&subject) {
            if now < silence.until {
                silence.left_out += 1;
                return None;
            }
            silence.until = now + self.every;
            return Some(std::mem::take(&mut silence.left_out));
        }
        if subjects.len() >= SUBJECTS_MAX {
            subjects.retain(|_, silence| now < silence.until);
        }
        if subjects.len() >= SUBJECTS_MAX {
            drop(subjects);
            return self.others.pass(now);
        }
        let until = now + self.every;
        subjects.insert(subject, Silence { until, left_out: 0 });
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEN_SECONDS: Duration = Duration::from_secs(10);

    #[test]
    fn one_subject_does_not_hide_another() {
        let limits = LogLimits::every(TEN_SECONDS);
        let at = Instant::from_millis;
        assert_eq!(limits.pass(1, at(5_000)), Some(0));
        assert_eq!(limits.pass(1, at(5_001)), None);
        assert_eq!(limits.pass(2, at(5_001)), Some(0));
        assert_eq!(limits.pass(1, at(14_999)), None);
        assert_eq!(limits.pass(1, at(15_000)), Some(2));
    }

    #[test]
    fn thousands_of_subjects_are_few_lines_and_little_memory() {
        let limits = LogLimits::every(TEN_SECONDS);
        let passed = |millis: u64| {
            let lines =
                (0..10_000).map(|subject| limits.pass(subject, Instant::from_millis(millis)));
            lines.flatten().count()
        };
        assert_eq!(passed(5_000), SUBJECTS_MAX + 1);
        assert_eq!(passed(5_500), 0);
        assert_eq!(passed(15_000), SUBJECTS_MAX + 1);
        let subjects = limits.subjects.lock().expect("whole");
        assert_eq!(subjects.len(), SUBJECTS_MAX);
    }

    #[test]
    fn one_line_a_second_and_a_count_of_the_others() {
        let limit = LogLimit::default();
        let at = Instant::from_millis;
        assert_eq!(limit.pass(at(5_000)), Some(0));
        assert_eq!(limit.pass(at(5_001)), None);
        assert_eq!(limit.pass(at(5_999)), None);
        assert_eq!(limit.pass(at(6_000)), Some(2));
    }
}
