//! Copies that landed, or are gone or damaged, and are not told yet: they are told in bulk, beside a commit if one is soon, so that they share
//! its entry. What is lost on the way is found again by whoever found it. It must not know how a copy came to be, or was lost.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use host::log_limit::LogLimit;
use meta::ids::Incarnation;
use meta::places::FileRef;
use rpc::Client;
use tokio::sync::Notify;

use crate::metrics::{Counter, Metrics};

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

/// What is said of the copy of a file in one bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Word {
    /// The bucket holds it.
    Landed,
    /// The bucket has nothing under the file's name.
    Missing,
    /// The bucket has something else than was written; another copy was read whole.
    Damaged,
}

impl Word {
    /// What counts how often it was told.
    pub(crate) fn counter(self, metrics: &Metrics) -> &Counter {
        match self {
            Word::Landed => &metrics.copies_told,
            Word::Missing => &metrics.copies_told_missing,
            Word::Damaged => &metrics.copies_told_damaged,
        }
    }
}

/// Files of which the same is said in one bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    pub word: Word,
    pub bucket: u32,
    pub files: BTreeSet<FileRef>,
}

/// What happens to reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Something is to be told of a file in a bucket, whatever was to be told of it before.
    Found {
        word: Word,
        bucket: u32,
        file: FileRef,
    },
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
    waiting: BTreeMap<(Word, u32), BTreeSet<FileRef>>,
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
            Event::Found { word, bucket, file } => {
                self.take_back(bucket, &file);
                if self.count() < WAITING_MAX {
                    let waiting = self.waiting.entry((word, bucket)).or_default();
                    waiting.insert(file);
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
                self.wait_again(report);
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

    /// What was to be told of a file in a bucket holds no more.
    fn take_back(&mut self, bucket: u32, file: &FileRef) {
        for word in [Word::Landed, Word::Missing, Word::Damaged] {
            if let Some(waiting) = self.waiting.get_mut(&(word, bucket)) {
                waiting.remove(file);
            }
        }
        self.waiting.retain(|_, files| !files.is_empty());
    }

    /// Puts a report back, but for files of which something else has been found since.
    fn wait_again(&mut self, mut report: Report) {
        let of_bucket =
            |((_, bucket), _): &(&(Word, u32), &BTreeSet<FileRef>)| *bucket == report.bucket;
        for (_, later) in self.waiting.iter().filter(of_bucket) {
            report.files.retain(|file| !later.contains(file));
        }
        if !report.files.is_empty() {
            let key = (report.word, report.bucket);
            self.waiting.entry(key).or_default().extend(report.files);
        }
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

    /// The next report: of that of which most is to be told.
    fn take(&mut self) -> Option<Report> {
        let most = self.waiting.iter().max_by_key(|(_, files)| files.len());
        let Some((&(word, bucket), _)) = most else {
            self.since = None;
            return None;
        };
        let mut files = self.waiting.remove(&(word, bucket))?;
        if let Some(rest) = files.iter().nth(FILES_MAX).copied() {
            let rest = files.split_off(&rest);
            self.waiting.insert((word, bucket), rest);
        }
        if self.waiting.is_empty() {
            self.since = None;
        }
        self.is_telling = true;
        Some(Report {
            word,
            bucket,
            files,
        })
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
        self.found(Word::Landed, bucket, file);
    }

    /// Something is to be told of a file in a bucket, whatever was to be told of it before.
    pub fn found(&self, word: Word, bucket: u32, file: FileRef) {
        let is_first = self.shared().untold.deadline().is_none();
        self.tell(Event::Found { word, bucket, file });
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

    /// Sends reports, for ever; `own` is the incarnation in whose name.
    pub(crate) async fn run(
        self: Arc<Self>,
        control: Client,
        own: impl Fn() -> Option<Incarnation> + Send,
        metrics: Arc<Metrics>,
    ) -> Infallible {
        let log = LogLimit::every(LOG_EVERY);
        loop {
            let (report, deadline) = self.next();
            let Some(report) = report else {
                self.wait(deadline).await;
                continue;
            };
            let (word, bucket, files) = (report.word, report.bucket, report.files.len());
            match send(&control, own(), report.clone()).await {
                Ok(()) => {
                    word.counter(&metrics).add(files as u64);
                    self.tell(Event::Settled);
                }
                Err(error @ rpc::Error::Refused { .. }) => {
                    if let Some(left_out) = log.pass(host::clock::now()) {
                        tracing::warn!(?word, bucket, files, %error, left_out, "what was found of copies is not counted");
                    }
                    self.tell(Event::Settled);
                }
                Err(error) => {
                    tracing::debug!(?word, bucket, files, %error, "what was found of copies is told again later");
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

async fn send(
    control: &Client,
    own: Option<Incarnation>,
    report: Report,
) -> Result<(), rpc::Error> {
    let Report {
        word,
        bucket,
        files,
    } = report;
    let is_missing = match word {
        Word::Landed => return control.add_copies(bucket, files).await,
        Word::Missing => true,
        Word::Damaged => false,
    };
    let unregistered = || rpc::Error::Unavailable {
        reason: "this agent is not registered just now".to_owned(),
    };
    let by = own.ok_or_else(unregistered)?;
    control.drop_copies(by, bucket, is_missing, files).await
}

#[cfg(test)]
mod tests {
    use meta::ids::FileId;

    use super::*;

    fn landed(bucket: u32, number: u64) -> Event {
        found(Word::Landed, bucket, number)
    }

    fn found(word: Word, bucket: u32, number: u64) -> Event {
        let incarnation = Incarnation(1);
        let file = FileId {
            incarnation,
            number,
        };
        let file = FileRef { file, nonce: 7 };
        Event::Found { word, bucket, file }
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
    fn what_was_found_last_of_a_copy_is_told() {
        let mut untold = Untold::default();
        untold.handle(at(0), landed(2, 1));
        untold.handle(at(0), landed(2, 2));
        let landed_both = untold.handle(at(5_000), Event::Timer).expect("due");
        untold.handle(at(5_001), found(Word::Damaged, 2, 2));
        untold.handle(at(5_002), Event::Failed(landed_both));
        let first = untold.handle(at(20_000), Event::Timer).expect("due");
        let second = untold.handle(at(20_000), Event::Settled).expect("due");
        let words: BTreeMap<Word, u64> = [first, second]
            .into_iter()
            .map(|report| {
                assert_eq!(report.files.len(), 1);
                (report.word, report.files.first().expect("one").file.number)
            })
            .collect();
        assert_eq!(words, [(Word::Landed, 1), (Word::Damaged, 2)].into());
        untold.handle(at(20_001), Event::Settled);
        untold.handle(at(20_002), found(Word::Missing, 2, 3));
        untold.handle(at(20_003), landed(2, 3));
        let last = untold.handle(at(40_000), Event::Timer).expect("due");
        assert_eq!(last.word, Word::Landed);
        assert_eq!(untold.handle(at(50_000), Event::Settled), None);
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
