//! Copies that landed and are not told yet: they are told in bulk, beside a commit if one is soon, so that they share its entry. What is lost
//! on the way is found short, and told by repair. It must not know how a copy came to be.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use host::log_limit::LogLimit;
use meta::places::FileRef;
use rpc::Client;
use tokio::sync::Notify;

use crate::metrics::Metrics;

/// From this age on a report goes along with the next commit.
const RIDE_AFTER: Duration = Duration::from_secs(1);
/// It waits no longer for one than this: no commit may come any more.
pub(crate) const TELL_AFTER: Duration = Duration::from_secs(5);
/// Most files of one report: some tens of KiB of an entry.
const FILES_MAX: usize = 2_000;
/// Most files that wait: beyond that they are left to be found short.
const WAITING_MAX: usize = 200_000;
/// The pause after a report failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// How often it is logged that reports are refused.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Files that one bucket holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub bucket: u32,
    pub files: BTreeSet<FileRef>,
}

/// What happens to reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A bucket holds a file.
    Landed { bucket: u32, file: FileRef },
    /// A commit is about to be sent.
    Committing,
    /// Time has passed.
    Timer,
    /// The report that was to be sent is in the journal, or is refused for good.
    Settled,
    /// It may not be in the journal.
    Failed(Report),
}

/// What waits to be told. Pure.
#[derive(Debug, Default)]
pub struct Untold {
    waiting: BTreeMap<u32, BTreeSet<FileRef>>,
    /// Since when something waits.
    since: Option<Instant>,
    /// One report at a time.
    is_telling: bool,
    not_before: Instant,
}

impl Untold {
    /// The report to be sent now.
    pub fn handle(&mut self, now: Instant, event: Event) -> Option<Report> {
        let mut rides = false;
        match event {
            Event::Landed { bucket, file } => {
                if self.count() < WAITING_MAX {
                    self.waiting.entry(bucket).or_default().insert(file);
                    self.since.get_or_insert(now);
                }
            }
            Event::Committing => rides = true,
            Event::Timer => {}
            Event::Settled => {
                self.is_telling = false;
                // What is left goes with what went.
                rides = true;
            }
            Event::Failed(report) => {
                self.is_telling = false;
                self.not_before = now + RETRY_AFTER;
                let waiting = self.waiting.entry(report.bucket).or_default();
                waiting.extend(report.files);
                self.since.get_or_insert(now);
            }
        }
        self.is_due(now, rides).then(|| self.take()).flatten()
    }

    /// When to look again without being told anything.
    pub fn deadline(&self) -> Option<Instant> {
        let since = self.since.filter(|_| !self.is_telling)?;
        Some(self.not_before.max(since + TELL_AFTER))
    }

    fn count(&self) -> usize {
        self.waiting.values().map(BTreeSet::len).sum()
    }

    fn is_due(&self, now: Instant, rides: bool) -> bool {
        let Some(since) = self.since else {
            return false;
        };
        if self.is_telling || now < self.not_before {
            return false;
        }
        let age = now.since(since);
        age >= TELL_AFTER || (rides && age >= RIDE_AFTER) || self.count() >= FILES_MAX
    }

    /// The next report: of the bucket of which most is to be told.
    fn take(&mut self) -> Option<Report> {
        let most = self.waiting.iter().max_by_key(|(_, files)| files.len());
        let bucket = *most?.0;
        let mut files = self.waiting.remove(&bucket)?;
        if let Some(rest) = files.iter().nth(FILES_MAX).copied() {
            let rest = files.split_off(&rest);
            self.waiting.insert(bucket, rest);
        }
        if self.waiting.is_empty() {
            self.since = None;
        }
        self.is_telling = true;
        Some(Report { bucket, files })
    }
}

/// Where copies that landed are told of.
#[derive(Debug, Default)]
pub struct Reports {
    shared: Mutex<Shared>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Shared {
    untold: Untold,
    ready: Option<Report>,
}

impl Reports {
    /// A bucket holds a file beside those that held it at its commit.
    pub fn landed(&self, bucket: u32, file: FileRef) {
        let is_first = self.shared().untold.deadline().is_none();
        self.tell(Event::Landed { bucket, file });
        if is_first {
            self.wake.notify_one();
        }
    }

    /// A commit is about to be sent: a report that is due goes along.
    pub fn committing(&self) {
        self.tell(Event::Committing);
    }

    fn tell(&self, event: Event) {
        let mut shared = self.shared();
        if let Some(report) = shared.untold.handle(host::clock::now(), event) {
            shared.ready = Some(report);
            self.wake.notify_one();
        }
    }

    /// The next report to be sent, and when to look again.
    fn next(&self) -> (Option<Report>, Option<Instant>) {
        let mut shared = self.shared();
        let shared = &mut *shared;
        if shared.ready.is_none() {
            shared.ready = shared.untold.handle(host::clock::now(), Event::Timer);
        }
        (shared.ready.take(), shared.untold.deadline())
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        // No code that can panic runs under this lock.
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends reports, for ever.
    pub(crate) async fn run(self: Arc<Self>, control: Client, metrics: Arc<Metrics>) -> Infallible {
        let log = LogLimit::every(LOG_EVERY);
        loop {
            let (report, deadline) = self.next();
            let Some(report) = report else {
                self.wait(deadline).await;
                continue;
            };
            let (bucket, files) = (report.bucket, report.files.len());
            match control.add_copies(bucket, report.files.clone()).await {
                Ok(()) => {
                    metrics.copies_told.add(files as u64);
                    self.tell(Event::Settled);
                }
                Err(error @ rpc::Error::Refused { .. }) => {
                    if let Some(left_out) = log.pass(host::clock::now()) {
                        tracing::warn!(bucket, files, %error, left_out, "copies are not counted");
                    }
                    self.tell(Event::Settled);
                }
                Err(error) => {
                    tracing::debug!(bucket, files, %error, "copies are told again later");
                    self.tell(Event::Failed(report));
                }
            }
        }
    }

    async fn wait(&self, deadline: Option<Instant>) {
        let timer = pin!(async {
            match deadline {
                Some(deadline) => host::clock::sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        });
        tokio::select! {
            () = self.wake.notified() => {}
            () = timer => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use meta::ids::{FileId, Incarnation};

    use super::*;

    fn landed(bucket: u32, number: u64) -> Event {
        let incarnation = Incarnation(1);
        let file = FileId {
            incarnation,
            number,
        };
        let file = FileRef { file, nonce: 7 };
        Event::Landed { bucket, file }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    #[test]
    fn copies_are_told_in_bulk_beside_a_commit_or_after_a_while() {
        let mut untold = Untold::default();
        assert_eq!(untold.deadline(), None);
        assert_eq!(untold.handle(at(0), Event::Committing), None);
        for number in 0..100 {
            assert_eq!(untold.handle(at(100 + number), landed(2, number)), None);
        }
        assert_eq!(untold.handle(at(1_000), Event::Committing), None);
        let told = untold.handle(at(1_100), Event::Committing).expect("due");
        assert_eq!((told.bucket, told.files.len()), (2, 100));
        // No commit comes any more; another report is under way meanwhile.
        assert_eq!(untold.handle(at(1_200), landed(1, 7)), None);
        assert_eq!(untold.deadline(), None);
        assert_eq!(untold.handle(at(9_000), Event::Timer), None);
        let told = untold.handle(at(9_001), Event::Settled).expect("due");
        assert_eq!((told.bucket, told.files.len()), (1, 1));
        assert_eq!(untold.handle(at(9_100), Event::Settled), None);
        untold.handle(at(10_000), landed(1, 8));
        assert_eq!(untold.deadline(), Some(at(15_000)));
        assert!(untold.handle(at(15_000), Event::Timer).is_some());
    }

    #[test]
    fn a_report_that_failed_is_sent_again_with_what_came_since() {
        let mut untold = Untold::default();
        untold.handle(at(0), landed(2, 1));
        let report = untold.handle(at(5_000), Event::Timer).expect("due");
        untold.handle(at(5_100), landed(2, 2));
        assert_eq!(untold.handle(at(5_200), Event::Failed(report)), None);
        assert_eq!(untold.handle(at(6_150), Event::Committing), None, "a pause");
        let again = untold.handle(at(6_200), Event::Committing).expect("due");
        assert_eq!(again.files.len(), 2);
    }

    #[test]
    fn reports_and_what_waits_are_bounded() {
        let mut untold = Untold::default();
        let mut told = 0;
        let many = WAITING_MAX as u64 + 5_000;
        for number in 0..many {
            let report = untold.handle(at(0), landed(2, number));
            told += report.map_or(0, |report| report.files.len());
        }
        assert_eq!(told, FILES_MAX, "one report at a time");
        let mut rest = 0;
        while let Some(report) = untold.handle(at(10_000), Event::Settled) {
            assert!(report.files.len() <= FILES_MAX);
            rest += report.files.len();
        }
        assert_eq!(rest, WAITING_MAX);
    }
}
