//! The shell around `repair`: reads a file whole from a bucket that has it, compares it with what the metadata say of it, and creates it where it
//! lacks. What is told of it goes by way of `report`.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use host::clock::Instant;
use host::log_limit::LogLimit;
use meta::places::StoredFile;
use rpc::Client;
use store::bucket::{Bucket, Key, Payload};
use store::buckets::Buckets;
use store::buckets::filling::Filled;
use store::retry::{Limits as RetryLimits, Retry};

use super::examine::{examine, is_whole, key_of};
use super::repair::{Effect, Event, LIST_FILES, Limits, Outcome, Repair};
use super::report::Reports;
use crate::metrics::Metrics;

/// How often it is looked which buckets there are to see to.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// A copy that takes longer is tried again by the next pass.
const COPY_LIMIT: Duration = Duration::from_secs(60);
/// How often the log says that a copy could not be made.
const LOG_EVERY: Duration = Duration::from_secs(10);
/// Seconds over which the rate is smoothed that is shown.
const SMOOTHED_OVER: u64 = 8;

/// Makes copies that lack.
pub(crate) struct Repairer {
    pub buckets: Arc<Buckets>,
    pub control: Client,
    pub reports: Arc<Reports>,
    pub metrics: Arc<Metrics>,
    log: LogLimit,
    retries: BTreeMap<u32, Retry>,
}

/// The work under way.
type Running<'a> = FuturesUnordered<BoxFuture<'a, Event>>;

impl Repairer {
    pub(crate) fn new(
        buckets: Arc<Buckets>,
        control: Client,
        reports: Arc<Reports>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let numbers = buckets.numbers().into_iter();
        Repairer {
            retries: numbers
                .map(|number| (number, Retry::new(RetryLimits::FILES)))
                .collect(),
            buckets,
            control,
            reports,
            metrics,
            log: LogLimit::every(LOG_EVERY),
        }
    }

    /// Makes copies for ever; `sees_to` says for which buckets it is this agent's turn.
    pub(crate) async fn run(
        self,
        limits: Limits,
        sees_to: impl Fn() -> Vec<u32> + Send,
    ) -> Infallible {
        let mut repair = Repair::new(limits);
        let mut running = Running::new();
        let mut look_at = Instant::default();
        let mut rate = Rate::default();
        loop {
            let now = host::clock::now();
            let event = if now >= look_at {
                look_at = now + LOOK_EVERY;
                rate.tick(&self.metrics);
                let usable = |bucket: &u32| self.buckets.is_usable(*bucket);
                let buckets = sees_to().into_iter().filter(usable).collect();
                Event::SeesTo(buckets)
            } else {
                let deadline = repair.deadline().map_or(look_at, |at| at.min(look_at));
                next(&mut running, deadline).await
            };
            for effect in repair.handle(host::clock::now(), event) {
                running.push(self.perform(effect));
            }
        }
    }

    fn perform(&self, effect: Effect) -> BoxFuture<'_, Event> {
        match effect {
            Effect::List { bucket, after } => async move {
                match self.control.short(bucket, after, LIST_FILES).await {
                    Ok((wall_millis, files)) => Event::Listed {
                        bucket,
                        wall_millis,
                        files,
                    },
                    Err(error) => {
                        tracing::debug!(bucket, %error, "what lacks copies is asked for again");
                        Event::ListFailed { bucket }
                    }
                }
            }
            .boxed(),
            Effect::Copy { bucket, file } => async move {
                let copying = self.copy(bucket, &file);
                let ended = host::clock::timeout(COPY_LIMIT, copying).await;
                let outcome = ended.unwrap_or(Outcome::Failed);
                let length = file.length;
                self.count(outcome, length);
                Event::Ended {
                    bucket,
                    length,
                    outcome,
                }
            }
            .boxed(),
        }
    }

    async fn copy(&self, bucket: u32, file: &StoredFile) -> Outcome {
        let key = key_of(file.file);
        let content = match self.read(bucket, &key, file).await {
            Ok(content) => content,
            Err(outcome) => return outcome,
        };
        let Some(retry) = self.retries.get(&bucket) else {
            return Outcome::Failed;
        };
        let payload = Payload::from(content);
        match self.buckets.fill(bucket, &key, &payload, retry).await {
            Ok(Filled::Held) => {
                self.reports.landed(bucket, file.file);
                Outcome::Held
            }
            Ok(Filled::Other) if may_replace(file) => self.mend(bucket, &key, file, &payload).await,
            Ok(Filled::Other) => {
                let why = "the bucket holds other bytes under its name: they are left until enough other buckets hold the file";
                self.complain(bucket, &key, why);
                Outcome::Unmendable
            }
            Err(error) => {
                tracing::debug!(bucket, %key, %error, "a copy was not made");
                Outcome::Failed
            }
        }
    }

    /// Replaces what lies in a bucket under the name of a file that it holds no copy of, as the metadata know, while enough others do. It counts
    /// once it was read back.
    async fn mend(&self, bucket: u32, key: &Key, file: &StoredFile, payload: &Payload) -> Outcome {
        let (Some(place), Some(retry)) =
            (self.buckets.by_itself(bucket), self.retries.get(&bucket))
        else {
            return Outcome::Failed;
        };
        let mended = async {
            retry.delete(&*place, key).await?;
            let filled = self.buckets.fill(bucket, key, payload, retry).await?;
            let found = retry.get(&*place, key).await?;
            Ok::<_, store::bucket::Error>((filled, found))
        };
        match mended.await {
            Ok((Filled::Held, Some(found))) if is_whole(&found, file) => {
                self.metrics.copies_mended.increment();
                tracing::warn!(bucket, %key, "a damaged copy of a file was replaced");
                self.reports.landed(bucket, file.file);
                Outcome::Held
            }
            Ok(_) => {
                let why = "a copy was written in the place of a damaged one, and something else was read back";
                self.complain(bucket, key, why);
                Outcome::Unmendable
            }
            Err(error) => {
                tracing::debug!(bucket, %key, %error, "a damaged copy was not replaced");
                Outcome::Failed
            }
        }
    }

    /// The file as the metadata know it, from any other bucket that has it.
    async fn read(&self, bucket: u32, key: &Key, file: &StoredFile) -> Result<Bytes, Outcome> {
        let mut held = file.held.clone();
        held.retain(|holder| *holder != bucket);
        let Some(holders) = self.buckets.among(&held) else {
            return Err(Outcome::Unmendable);
        };
        match holders.get(key).await {
            Ok(Some(content)) if is_whole(&content, file) => return Ok(content),
            Ok(_) => {}
            Err(error) => {
                tracing::debug!(bucket, %key, %error, "a file could not be read");
                return Err(Outcome::Failed);
            }
        }
        let Some(retry) = self.retries.get(&bucket) else {
            return Err(Outcome::Failed);
        };
        let examined = examine(&self.buckets, Some(bucket), false, file, retry).await;
        let is_any_bad = !examined.bad.is_empty();
        if let Some(whole) = examined.whole {
            for (number, word) in examined.bad {
                self.reports.found(word, number, file.file);
            }
            return Ok(whole);
        }
        match is_any_bad {
            true => {
                let why = "no bucket gives it as it was written";
                self.complain(bucket, key, why);
                Err(Outcome::Unmendable)
            }
            false => Err(Outcome::Failed),
        }
    }

    /// What needs an operator's eye.
    fn complain(&self, bucket: u32, key: &Key, why: &str) {
        if let Some(left_out) = self.log.pass(host::clock::now()) {
            tracing::error!(bucket, %key, left_out, why, "a copy of a file cannot be made");
        }
    }

    fn count(&self, outcome: Outcome, length: u64) {
        match outcome {
            Outcome::Held => {
                self.metrics.repaired_files.increment();
                self.metrics.repaired_bytes.add(length);
            }
            Outcome::Failed => self.metrics.repair_failed.increment(),
            Outcome::Unmendable => self.metrics.repair_unmendable.increment(),
        }
    }
}

/// Whether what a bucket holds under the name of a file, which is no copy of it, may be deleted: only while enough others hold the file.
fn may_replace(file: &StoredFile) -> bool {
    file.is_held_enough || host::trial::leaves_out("mend-the-last-copies")
}

/// What ends next, or that it is time to look.
async fn next(running: &mut Running<'_>, deadline: Instant) -> Event {
    let timer = pin!(host::clock::sleep_until(deadline));
    tokio::select! {
        biased;
        Some(event) = running.next(), if !running.is_empty() => event,
        () = timer => Event::Timer,
    }
}

/// How fast copies are made, smoothed over some seconds, for people.
#[derive(Debug, Default)]
struct Rate {
    files: Smoothed,
    bytes: Smoothed,
}

#[derive(Debug, Default)]
struct Smoothed {
    done: u64,
    thousandths_per_second: u64,
}

impl Smoothed {
    /// What is done in a second, now that another is over and so much is done in all.
    fn tick(&mut self, done: u64) -> u64 {
        let last = done.saturating_sub(self.done).saturating_mul(1_000);
        let before = self
            .thousandths_per_second
            .saturating_mul(SMOOTHED_OVER - 1);
        self.thousandths_per_second = before.saturating_add(last) / SMOOTHED_OVER;
        self.done = done;
        self.thousandths_per_second.div_ceil(1_000)
    }
}

impl Rate {
    /// Counts one second.
    fn tick(&mut self, metrics: &Metrics) {
        let files = self.files.tick(metrics.repaired_files.get());
        metrics.repair_files_per_second.set(files);
        let bytes = self.bytes.tick(metrics.repaired_bytes.get());
        metrics.repair_bytes_per_second.set(bytes);
    }
}

#[cfg(test)]
mod tests;
