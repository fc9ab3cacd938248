//! The shell that looks whether buckets still hold what they are known to hold: at one of the last files of each once in a while, at what
//! readers missed or found damaged, and at everything that a suspect bucket should hold. It must not know how copies are made.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use host::clock::Instant;
use host::log_limit::LogLimit;
use meta::ids::Incarnation;
use meta::places::{FileRef, StoredFile, WantedFiles};
use rpc::Client;
use store::bucket::Op;
use store::buckets::Buckets;
use store::retry::{Limits as RetryLimits, Retry};

use super::compare::{Comparison, Comparisons, Piece};
use super::examine::{Doubtful, examine, file_of, key_of};
use super::report::{Reports, Word};
use crate::metrics::Metrics;

/// How often a control node is asked about one of the buckets, in turn, and which are suspect.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// How often it is looked whether a file is in a bucket.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// A look that takes longer has failed.
const LOOK_LIMIT: Duration = Duration::from_secs(10);
/// How often it is looked for one file of a suspect bucket before the rest waits for another time.
const LOOKED_FOR_MAX: usize = 4;
/// Looks at files of a suspect bucket at one time.
const LOOKS_MAX: usize = 64;
/// So many of the files that readers missed in a bucket are looked into at one time: they are samples.
const MISSED_MAX: usize = 8;
/// So many that were damaged are read whole at one time.
const DOUBTFUL_MAX: usize = 4;
/// How often the log says what was found.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Looks whether buckets hold what they are known to hold.
pub(crate) struct Watcher {
    pub buckets: Arc<Buckets>,
    pub control: Client,
    pub reports: Arc<Reports>,
    pub doubtful: Arc<Doubtful>,
    pub metrics: Arc<Metrics>,
    pub files_per_second: u64,
}

/// What a watcher needs to know of its agent.
pub(crate) struct Own<'a> {
    pub incarnation: &'a (dyn Fn() -> Option<Incarnation> + Send + Sync),
    /// The buckets that this agent sees to.
    pub sees_to: &'a (dyn Fn() -> Vec<u32> + Send + Sync),
}

/// What is remembered from one look to the next.
struct Memory {
    /// A file that each bucket held when it was asked for, and when it is looked for.
    known: BTreeMap<u32, (StoredFile, Instant)>,
    comparisons: Comparisons,
    retry: Retry,
    log: LogLimit,
}

impl Watcher {
    pub(crate) async fn run(self, own: Own<'_>) -> Infallible {
        let mut memory = Memory {
            known: BTreeMap::new(),
            comparisons: Comparisons::default(),
            retry: Retry::new(RetryLimits::FILES),
            log: LogLimit::every(LOG_EVERY),
        };
        let numbers = self.buckets.numbers();
        let mut ask_at = Instant::default();
        let mut turn = numbers.iter().cycle();
        loop {
            host::clock::sleep_until(ask_at).await;
            ask_at = host::clock::now() + ASK_EVERY;
            if let Some(bucket) = turn.next() {
                self.ask(*bucket, &mut memory, &own).await;
            }
            self.look_at_missed(&memory).await;
            self.look_at_doubtful(&memory).await;
            for bucket in memory.comparisons.buckets() {
                self.compare_until(ask_at, bucket, &mut memory, &own).await;
            }
        }
    }

    /// Goes on to compare a bucket for as long as there is time and it answers.
    async fn compare_until(&self, end: Instant, bucket: u32, memory: &mut Memory, own: &Own<'_>) {
        while let Some(comparison) = memory.comparisons.of(bucket)
            && host::clock::now() < end
        {
            let compared = self.compare(bucket, comparison, memory, own).await;
            if let Err(error) = compared {
                tracing::debug!(bucket, %error, "a comparison goes on later");
                return;
            }
        }
    }

    /// Asks which buckets are suspect, and for one of the last files of a bucket; the one before is looked for once it is time.
    async fn ask(&self, bucket: u32, memory: &mut Memory, own: &Own<'_>) {
        let stored = match self.control.stored(WantedFiles::LastIn { bucket }).await {
            Ok(stored) => stored,
            Err(error) => {
                tracing::debug!(bucket, %error, "what buckets hold is asked for again");
                return;
            }
        };
        self.take_suspects(&stored.suspects, memory, own);
        let now = host::clock::now();
        if let Some((_, look_at)) = memory.known.get(&bucket)
            && now < *look_at
        {
            return;
        }
        // A file that was known before may be gone though the last one is there, which was written since.
        let before = memory.known.remove(&bucket).map(|(file, _)| file);
        let last = stored.files.into_iter().next();
        let is_other = |file: &&StoredFile| Some(file.file) != last.as_ref().map(|last| last.file);
        for file in before.iter().filter(is_other).chain(&last) {
            if let Some(word) = self.look(bucket, file).await
                && self.is_known_in(bucket, file.file).await
            {
                self.found(word, bucket, file.file, memory);
                return;
            }
        }
        if let Some(last) = last {
            memory.known.insert(bucket, (last, now + LOOK_EVERY));
        }
    }

    fn take_suspects(&self, suspects: &[(u32, u64)], memory: &mut Memory, own: &Own<'_>) {
        let bits = suspects.iter().fold(0, |bits, (bucket, _)| {
            bits | 1_u64.checked_shl(*bucket).unwrap_or(0)
        });
        self.buckets.suspect(bits);
        self.metrics.buckets_suspect.set(suspects.len() as u64);
        let sees_to = (own.sees_to)();
        let is_own =
            |(bucket, _): &(u32, u64)| sees_to.contains(bucket) && self.buckets.is_usable(*bucket);
        memory
            .comparisons
            .see_to(suspects.iter().copied().filter(is_own));
    }

    /// Whether a file is still live, and known to lie in a bucket.
    async fn is_known_in(&self, bucket: u32, file: FileRef) -> bool {
        match self.control.stored(WantedFiles::File(file)).await {
            Ok(stored) => stored.files.iter().any(|file| file.held.contains(&bucket)),
            Err(_) => false,
        }
    }

    /// What is wrong with a bucket's copy of a file, as far as its length tells; `None` if nothing is, or the bucket does not say.
    async fn look(&self, bucket: u32, file: &StoredFile) -> Option<Word> {
        let place = self.buckets.by_itself(bucket)?;
        let key = key_of(file.file);
        let length = host::clock::timeout(LOOK_LIMIT, place.head(&key)).await;
        match Found::of(length.ok()?.ok()?, file) {
            Found::Held => None,
            Found::Bad(word) => Some(word),
        }
    }

    fn found(&self, word: Word, bucket: u32, file: FileRef, memory: &Memory) {
        if let Some(left_out) = memory.log.pass(host::clock::now()) {
            let key = key_of(file);
            tracing::error!(bucket, %key, ?word, left_out, "a bucket does not hold what it is known to hold; the file is copied to it again");
        }
        self.reports.found(word, bucket, file);
    }

    /// Looks into what readers missed in a bucket, if it is known to be there.
    async fn look_at_missed(&self, memory: &Memory) {
        for (key, bucket) in self.buckets.take_missed(MISSED_MAX) {
            let Some(file) = file_of(&key) else { continue };
            let Ok(stored) = self.control.stored(WantedFiles::File(file)).await else {
                return;
            };
            for file in &stored.files {
                if file.held.contains(&bucket)
                    && let Some(word) = self.look(bucket, file).await
                {
                    self.found(word, bucket, file.file, memory);
                }
            }
        }
    }

    /// Reads files of which a reader was given something else from each bucket that holds them.
    async fn look_at_doubtful(&self, memory: &Memory) {
        for _ in 0..DOUBTFUL_MAX {
            let Some(file) = self.doubtful.take() else {
                return;
            };
            let Ok(stored) = self.control.stored(WantedFiles::File(file)).await else {
                return self.doubtful.note(file);
            };
            for file in &stored.files {
                let examined = examine(&self.buckets, None, true, file, &memory.retry).await;
                // Without a sound copy it may be this agent that cannot read.
                if examined.whole.is_some() {
                    for (bucket, word) in examined.bad {
                        self.found(word, bucket, file.file, memory);
                    }
                }
            }
        }
    }

    /// Looks for some more of the files that a suspect bucket should hold, and tells which it does not.
    async fn compare(
        &self,
        bucket: u32,
        comparison: Comparison,
        memory: &mut Memory,
        own: &Own<'_>,
    ) -> Result<(), rpc::Error> {
        let begun = host::clock::now();
        let unsure = |reason: &str| rpc::Error::Unavailable {
            reason: reason.to_owned(),
        };
        let by = (own.incarnation)().ok_or_else(|| unsure("this agent is not registered"))?;
        let after = comparison.after;
        let named = self
            .control
            .stored(WantedFiles::In { bucket, after })
            .await?;
        let Piece::LookFor { files, after } = memory.comparisons.named(bucket, named) else {
            return Err(unsure("it is not known to be suspect there"));
        };
        let count = files.len();
        let (lost, unanswered) = self.look_for(bucket, files, &memory.retry).await;
        for (word, files) in lost {
            let is_missing = word == Word::Missing;
            let told = files.len() as u64;
            self.control
                .drop_copies(by, bucket, is_missing, files)
                .await?;
            word.counter(&self.metrics).add(told);
        }
        if unanswered > 0 {
            return Err(unsure("the bucket does not answer"));
        }
        if memory.comparisons.done(bucket, after) {
            let since_ticks = comparison.since_ticks;
            self.control
                .bucket_compared(by, bucket, since_ticks)
                .await?;
            memory.comparisons.over(bucket);
            tracing::warn!(
                bucket,
                "a suspect bucket has been compared with what it is known to hold; what it lacks is copied to it again"
            );
        }
        let micros = (count as u64).saturating_mul(1_000_000) / self.files_per_second.max(1);
        host::clock::sleep_until(begun + Duration::from_micros(micros)).await;
        Ok(())
    }

    /// Which of these files a bucket does not hold, and of how many it does not say so, though it was asked a few times.
    async fn look_for(
        &self,
        bucket: u32,
        files: Vec<StoredFile>,
        retry: &Retry,
    ) -> (BTreeMap<Word, BTreeSet<FileRef>>, usize) {
        let mut lost: BTreeMap<Word, BTreeSet<FileRef>> = BTreeMap::new();
        let mut left = files;
        for _ in 0..LOOKED_FOR_MAX {
            let looks = stream::iter(left).map(|file| self.look_hard(bucket, file, retry));
            let mut looks = pin!(looks.buffer_unordered(LOOKS_MAX));
            left = Vec::new();
            while let Some((file, found)) = looks.next().await {
                match found {
                    Some(Found::Held) => {}
                    Some(Found::Bad(word)) => {
                        lost.entry(word).or_default().insert(file.file);
                    }
                    None => left.push(file),
                }
                // One that hardly answers is not asked for the rest.
                if left.len() >= LOOKS_MAX {
                    return (lost, left.len());
                }
            }
            if left.is_empty() {
                break;
            }
        }
        (lost, left.len())
    }

    /// What a bucket has of a file, as far as its length tells; `None` if it does not say.
    async fn look_hard(
        &self,
        bucket: u32,
        file: StoredFile,
        retry: &Retry,
    ) -> (StoredFile, Option<Found>) {
        let Some(place) = self.buckets.by_itself(bucket) else {
            return (file, None);
        };
        let key = key_of(file.file);
        let looking = retry.run(Op::Head, &key, || place.head(&key));
        let found = match host::clock::timeout(LOOK_LIMIT, looking).await {
            Ok(Ok(length)) => Some(Found::of(length, &file)),
            Ok(Err(_)) | Err(_) => None,
        };
        (file, found)
    }
}

/// What a bucket has under the name of a file.
enum Found {
    Held,
    Bad(Word),
}

impl Found {
    /// As far as its length tells; `None`: there is nothing.
    fn of(length: Option<u64>, file: &StoredFile) -> Self {
        match length {
            None => Found::Bad(Word::Missing),
            Some(length) if length != file.length => Found::Bad(Word::Damaged),
            Some(_) => Found::Held,
        }
    }
}
