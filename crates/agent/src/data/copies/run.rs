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
use meta::places::ShortFile;
use rpc::Client;
use store::bucket::{Bucket, Key, Payload};
use store::buckets::Buckets;
use store::buckets::filling::Filled;
use store::checksum::crc32c;
use store::layout::file_key;
use store::retry::{Limits as RetryLimits, Retry};

use super::repair::{Effect, Event, LIST_FILES, Limits, Outcome, Repair};
use super::report::Reports;
use crate::data::cache::stored_id;
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

    async fn copy(&self, bucket: u32, file: &ShortFile) -> Outcome {
        let key = file_key(stored_id(file.file.file), file.file.nonce);
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
            Ok(Filled::Other) => {
                let why = "the bucket holds other bytes under its name: they are left, and do not count as a copy";
                self.complain(bucket, &key, why);
                Outcome::Unmendable
            }
            Err(error) => {
                tracing::debug!(bucket, %key, %error, "a copy was not made");
                Outcome::Failed
            }
        }
    }

    /// The file as the metadata know it, from any other bucket that has it.
    async fn read(&self, bucket: u32, key: &Key, file: &ShortFile) -> Result<Bytes, Outcome> {
        let mut held = file.held.clone();
        held.retain(|holder| *holder != bucket);
        let Some(holders) = self.buckets.among(&held) else {
            return Err(Outcome::Unmendable);
        };
        let farthest_first = holders.farthest_first();
        let (mut outcome, mut why) = (Outcome::Failed, None);
        for from in [holders, farthest_first] {
            match from.get(key).await {
                Ok(Some(content)) if is_whole(&content, file) => return Ok(content),
                Ok(Some(_)) => {
                    outcome = Outcome::Unmendable;
                    why = Some("what a bucket gives is not what was written: it is damaged there");
                }
                Ok(None) => {
                    outcome = Outcome::Unmendable;
                    why = Some("the buckets that should hold it do not have it");
                }
                Err(error) => tracing::debug!(bucket, %key, %error, "a file could not be read"),
            }
        }
        if let Some(why) = why {
            self.complain(bucket, key, why);
        }
        Err(outcome)
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

fn is_whole(content: &Bytes, file: &ShortFile) -> bool {
    content.len() as u64 == file.length && crc32c(content) == file.checksum
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
