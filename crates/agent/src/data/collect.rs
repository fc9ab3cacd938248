//! The collector of a bucket: the only part that deletes files. It deletes files that the journal says are
//! over: those of which nothing can be read, once their grace has passed, and those that were never
//! committed and never can be. A listing of the bucket only nominates; an error never means that
//! something is absent. Each bucket of several has a collector of its own, so that one that is away holds up no other; one that is back is
//! listed at once, since files may have been forgotten without it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use host::clock::Instant;
use host::log_limit::LogLimit;
use meta::places::{Fate, FileRef};
use rpc::Client;
use store::bucket::{Bucket, Key};
use store::file::TOMBSTONE_BYTES;
use store::layout::{FILES, file_key};
use store::retry::{Limits as RetryLimits, Retry};

use crate::data::cache::stored_id;
use crate::data::copies::examine::file_of;
use crate::metrics::Metrics;

/// Files handled in one step.
const STEP_FILES: usize = 500;
/// Deletions under way at one time.
const DELETIONS_MAX: usize = 8;
/// Dead files that are remembered between runs; if there are more, later runs find them again.
const SUSPECTS_MAX: usize = 100_000;

/// At most one log line in this time: a bucket that refuses fails all deletions alike.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// How often the collector runs, and how soon it deletes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time between two runs.
    pub interval: Duration,
    /// Least time between two listings of the bucket: they cost requests, and orphans are few.
    pub list_interval: Duration,
    /// How long a file must have been seen dead before it is deleted.
    pub grace: Duration,
}

pub struct Collector {
    place: Place,
    control: Client,
    metrics: Arc<Metrics>,
    limits: Limits,
    retry: Retry,
    suspects: Suspects,
    log: LogLimit,
}

/// The bucket that a collector is for.
pub struct Place {
    pub bucket: Arc<dyn Bucket>,
    pub number: u32,
    /// Whether the bucket can be used, and it is this agent that sees to it.
    pub is_seen_to: Box<dyn Fn() -> bool + Send + Sync>,
}

/// Why a step was not finished; it is done again by the next run.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Store(#[from] store::bucket::Error),
    #[error(transparent)]
    Control(#[from] rpc::Error),
}

/// Files that were dead when last judged, and since when. Pure.
#[derive(Debug, Default)]
pub struct Suspects {
    since: BTreeMap<Key, Instant>,
}

impl Suspects {
    /// Notes a file found in the bucket and its fate; true if it is to be deleted now.
    pub fn judge(&mut self, now: Instant, grace: Duration, key: &Key, fate: Fate) -> bool {
        if fate != Fate::Dead {
            self.since.remove(key);
            return false;
        }
        if let Some(since) = self.since.get(key) {
            return now.since(*since) >= grace;
        }
        if self.since.len() < SUSPECTS_MAX {
            self.since.insert(key.clone(), now);
        }
        grace.is_zero()
    }

    /// Files that were first seen dead a grace ago.
    pub fn due(&self, now: Instant, grace: Duration) -> Vec<Key> {
        let seen = self.since.iter();
        let due = seen.filter(|(_, since)| now.since(**since) >= grace);
        due.map(|(key, _)| key.clone()).collect()
    }

    /// Forgets a file that was deleted.
    pub fn forget(&mut self, key: &Key) {
        self.since.remove(key);
    }
}

impl Collector {
    pub fn new(place: Place, control: Client, metrics: Arc<Metrics>, limits: Limits) -> Self {
        let retry = Retry::new(RetryLimits::FILES);
        Collector {
            place,
            control,
            metrics,
            limits,
            retry,
            suspects: Suspects::default(),
            log: LogLimit::every(LOG_EVERY),
        }
    }

    pub async fn run(mut self) {
        let mut listed: Option<Instant> = None;
        loop {
            host::clock::sleep(self.limits.interval).await;
            if !(self.place.is_seen_to)() {
                listed = None;
                continue;
            }
            let tombstoned = self.delete_tombstoned().await;
            self.note(tombstoned);
            let orphans = self.delete_suspects().await;
            self.note(orphans);
            let now = host::clock::now();
            if listed.is_none_or(|listed| now.since(listed) >= self.limits.list_interval) {
                let nominated = self.nominate().await;
                // After a failure the listing is repeated by the next run, not after the whole list
                // interval.
                listed = nominated.is_ok().then_some(now);
                self.note(nominated);
            }
        }
    }

    fn note(&self, outcome: Result<(), Error>) {
        if let Err(error) = outcome {
            self.metrics.collect_errors.increment();
            tracing::warn!(%error, "a run of the collector failed; the next run goes on with the rest");
        }
    }

    /// Deletes files of which nothing can be read any more, and reports that.
    async fn delete_tombstoned(&self) -> Result<(), Error> {
        loop {
            let files = self
                .control
                .collectable(self.place.number, STEP_FILES as u32)
                .await?;
            let last = files.len() < STEP_FILES;
            let deleted = self.delete_all(&files).await;
            let complete = deleted.len() == files.len();
            if !deleted.is_empty() {
                self.metrics.files_deleted.add(deleted.len() as u64);
                self.control
                    .forget_files(self.place.number, deleted)
                    .await?;
            }
            // The control plane would name files that could not be deleted again and again.
            if last || !complete {
                return Ok(());
            }
        }
    }

    /// Deletes files; yields those that are certainly gone.
    async fn delete_all(&self, files: &[FileRef]) -> Vec<FileRef> {
        stream::iter(files.to_vec())
            .map(|found| async move {
                self.delete(&file_key(stored_id(found.file), found.nonce))
                    .await
                    .then_some(found)
            })
            .buffer_unordered(DELETIONS_MAX)
            .filter_map(|deleted| async move { deleted })
            .collect()
            .await
    }

    async fn delete(&self, key: &Key) -> bool {
        match self.retry.delete(&*self.place.bucket, key).await {
            Ok(()) => true,
            Err(error) => {
                self.metrics.collect_errors.increment();
                if let Some(left_out) = self.log.pass(host::clock::now()) {
                    tracing::warn!(%key, %error, left_out, "a file could not be deleted; it is tried again later");
                }
                false
            }
        }
    }

    /// Lists the bucket for files that are not and never will be committed.
    async fn nominate(&mut self) -> Result<(), Error> {
        let mut after: Option<Key> = None;
        loop {
            let bucket = &self.place.bucket;
            let found = bucket.list(FILES, after.as_ref(), STEP_FILES).await?;
            let last = found.len() < STEP_FILES;
            after = found.last().map(|object| object.key.clone());
            // A tombstone is left alone: it keeps the name taken, whatever became of the file.
            let files = found
                .into_iter()
                .filter(|object| object.size != TOMBSTONE_BYTES);
            self.judge(files.map(|object| object.key)).await?;
            if last {
                return Ok(());
            }
        }
    }

    /// Judges the files that were seen dead a grace ago once more and deletes those that still are;
    /// the bucket is not listed.
    async fn delete_suspects(&mut self) -> Result<(), Error> {
        let due = self.suspects.due(host::clock::now(), self.limits.grace);
        for keys in due.chunks(STEP_FILES) {
            self.judge(keys.iter().cloned()).await?;
        }
        Ok(())
    }

    /// Asks for the fates of files and deletes those that have been dead for a grace.
    async fn judge(&mut self, keys: impl Iterator<Item = Key>) -> Result<(), Error> {
        let (keys, ids): (Vec<Key>, Vec<FileRef>) = keys
            .filter_map(|key| file_of(&key).map(|found| (key, found)))
            .unzip();
        let fates = self.control.fates(ids).await?;
        let now = host::clock::now();
        for (key, mut fate) in keys.iter().zip(fates) {
            if fate == Fate::Undecided && host::trial::leaves_out("collect-by-age") {
                fate = Fate::Dead;
            }
            if self.suspects.judge(now, self.limits.grace, key, fate) && self.delete(key).await {
                self.metrics.orphans_deleted.increment();
                self.suspects.forget(key);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> Key {
        Key::new(format!("{FILES}00/{name}")).expect("a key")
    }

    #[test]
    fn only_what_stays_dead_for_the_grace_is_deleted() {
        let mut suspects = Suspects::default();
        let (at, grace) = (Instant::from_millis, Duration::from_millis(100));
        let mut judge = |now, name, fate| suspects.judge(at(now), grace, &key(name), fate);
        assert!(!judge(0, "a", Fate::Dead));
        assert!(!judge(99, "a", Fate::Dead));
        assert!(judge(100, "a", Fate::Dead));
        assert!(suspects.due(at(100), grace).contains(&key("a")));
        let mut judge = |now, name, fate| suspects.judge(at(now), grace, &key(name), fate);
        for alive in [Fate::Live, Fate::Tombstoned, Fate::Undecided] {
            assert!(!judge(1_000, "b", Fate::Dead));
            assert!(!judge(1_050, "b", alive));
            assert!(
                !judge(1_100, "b", Fate::Dead),
                "the time begins anew after {alive:?}"
            );
            assert!(!judge(1_101, "b", alive));
        }
    }
}
