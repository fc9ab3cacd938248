//! Puts cut files into the buckets: the same key and the same bytes until they are durable or the
//! deadline has passed. A copy that comes later than those that are needed goes on by itself, as long as there is memory for it. An uploaded file goes into the cache before it can be committed, so that a
//! reader at the tail never asks the bucket. It must not know the order of files.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::backoff::Backoff;
use host::budget::Budget;
use host::latest::Latest;
use host::log_limit::LogLimit;
use meta::places::FileRef;
use store::bucket::{Bucket, Payload};
use store::buckets::Buckets;
use store::buckets::copies::{Copier, Late};
use store::file::{Built, Counts, FileBuilder, HEADER_BYTES, Piece};
use store::layout::file_key;
use store::retry::Limits;
use wire::batch::Batch as WireBatch;

use super::batch::{Cut, Stored};
use crate::data::cache::stored_id;
use crate::data::cache::{Cache, Chunk, Entry, Part, Segment};
use crate::data::copies::report::Reports;
use crate::metrics::Metrics;

/// So many attempts that the deadline, and not their number, ends an upload.
const ATTEMPTS: u32 = 1_000;
/// The pauses between attempts: short, since later files wait for this one, and service returns
/// this soon after a bucket was away.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(500));

/// Memory for copies that come later than those that a commit needs; beyond it they are given up, and are made by repair.
const LATE_BYTES: u64 = 64 << 20;

/// At most one log line in this time: a bucket that refuses fails all uploads alike.
const LOG_EVERY: Duration = Duration::from_secs(10);

pub struct Uploader {
    buckets: Arc<Buckets>,
    copier: Copier,
    late: Budget,
    /// Told of copies that are made later.
    reports: Arc<Reports>,
    deadline: Duration,
    cache: Arc<Cache>,
    metrics: Arc<Metrics>,
    /// True while clients are sent to other agents, since this one reaches too few buckets.
    cut_off: Arc<Latest<bool>>,
    log: LogLimit,
}

impl Uploader {
    /// Uploads to `buckets`; gives up after `deadline`, and while the agent is `cut_off` from them: its producers go on elsewhere
    /// once they are told.
    pub fn new(
        buckets: Arc<Buckets>,
        deadline: Duration,
        cache: Arc<Cache>,
        reports: Arc<Reports>,
        metrics: Arc<Metrics>,
        cut_off: Arc<Latest<bool>>,
    ) -> Self {
        let limits = Limits {
            attempts: ATTEMPTS,
            backoff: BACKOFF,
            deadline,
        };
        Uploader {
            copier: Copier::new(Arc::clone(&buckets), limits),
            buckets,
            late: Budget::of_bytes(LATE_BYTES),
            reports,
            deadline,
            cache,
            metrics,
            cut_off,
            log: LogLimit::every(LOG_EVERY),
        }
    }

    /// Uploads a file; `None` if it was not seen to become durable in time, though it may be or
    /// become so.
    pub async fn upload(&self, cut: Arc<Cut>) -> Option<Stored> {
        let start = host::clock::now();
        self.metrics.uploads.add(1);
        let outcome = self.put(&cut).await;
        self.metrics.uploads.add(-1);
        match outcome {
            Ok(stored) => {
                self.metrics
                    .upload_micros
                    .observe_duration(host::clock::now().since(start));
                self.metrics.file_bytes.observe(stored.length);
                self.metrics.file_partitions.observe(cut.partitions());
                Some(stored)
            }
            Err(error) => {
                if host::trial::leaves_out("agent-deletes-failed-upload") {
                    let key = file_key(stored_id(cut.file), cut.nonce);
                    drop(self.buckets.delete(&key).await);
                }
                self.metrics.uploads_failed.increment();
                if let Some(left_out) = self.log.pass(host::clock::now()) {
                    let file = cut.file;
                    tracing::warn!(%file, %error, left_out, "a file was not stored; its producers retry");
                }
                None
            }
        }
    }

    async fn put(&self, cut: &Cut) -> Result<Stored, UploadError> {
        let built = build(cut)?;
        let key = file_key(stored_id(cut.file), cut.nonce);
        let stored = |placement| Stored {
            length: built.length,
            checksum: built.checksum,
            placement,
        };
        if host::trial::leaves_out("commit-before-upload") {
            let stored = stored(self.buckets.numbers());
            let buckets = Arc::clone(&self.buckets);
            host::task::spawn_detached("upload", async move {
                drop(buckets.put_new(&key, built.payload).await);
            });
            return Ok(stored);
        }
        let put = self.copier.put(&key, &built.payload);
        let put = async {
            tokio::select! {
                biased;
                put = put => put.map_err(UploadError::Store),
                // Without the agent nobody waits for the file either.
                _ = self.cut_off.wait_for(|is_cut_off| *is_cut_off) => Err(UploadError::CutOff),
            }
        };
        let copies = host::clock::timeout(self.deadline, put)
            .await
            .map_err(|_| UploadError::TooLate)??;
        let stored = stored(copies.held);
        self.finish_later(cut, copies.late);
        self.keep(cut, built);
        Ok(stored)
    }

    /// Lets the copies that are not made yet go on, for as long as an upload may take.
    fn finish_later(&self, cut: &Cut, mut late: Late) {
        if late.is_empty() {
            return;
        }
        let Some(held) = self.late.try_hold(cut.pinned_bytes) else {
            self.metrics.copies_given_up.increment();
            return;
        };
        let (deadline, metrics) = (self.deadline, Arc::clone(&self.metrics));
        let reports = Arc::clone(&self.reports);
        let file = FileRef {
            file: cut.file,
            nonce: cut.nonce,
        };
        host::task::spawn_detached("late copies", async move {
            let all = async {
                while let Some((bucket, written)) = late.next().await {
                    match written {
                        Ok(()) => {
                            metrics.copies_late.increment();
                            reports.landed(bucket, file);
                        }
                        Err(_) => metrics.copies_given_up.increment(),
                    }
                }
            };
            if host::clock::timeout(deadline, all).await.is_err() {
                metrics.copies_given_up.increment();
            }
            drop(held);
        });
    }

    /// Puts the file into the cache for readers, if there is memory.
    fn keep(&self, cut: &Cut, built: Built) {
        let Some(entries) = entries(cut, &built.payload) else {
            return;
        };
        // Small batches were copied into new memory; large ones keep their requests' frames alive.
        let held_bytes = cut.pinned_bytes.max(built.length);
        let Some(held) = self.cache.try_hold(held_bytes) else {
            return;
        };
        let chunk = Chunk::new(entries, held_bytes, held).with_stored(built.payload.into_pieces());
        let part = Part {
            file: cut.file,
            nonce: cut.nonce,
            slice: None,
        };
        self.cache.keep(part, Segment::Hot, Arc::new(chunk));
    }
}

#[derive(Debug, thiserror::Error)]
enum UploadError {
    #[error(transparent)]
    Build(#[from] store::file::Error),
    #[error(transparent)]
    Store(store::bucket::Error),
    #[error("the bucket did not answer in time")]
    TooLate,
    #[error("this agent reaches too few buckets, and its clients are sent to others")]
    CutOff,
}

/// Builds a file from batches that are sorted by partition.
fn build(cut: &Cut) -> Result<Built, store::file::Error> {
    let mut builder = FileBuilder::new(stored_id(cut.file));
    for slice in cut.batches.chunk_by(|a, b| a.partition == b.partition) {
        let Some(first) = slice.first() else { continue };
        let pieces = slice.iter().map(|batch| Piece {
            bytes: batch.bytes.clone(),
            checksum: batch.checksum,
        });
        let records = slice
            .iter()
            .fold(0_u32, |sum, batch| sum.saturating_add(batch.records));
        let max_timestamp_ms = slice
            .iter()
            .map(|batch| batch.max_timestamp)
            .max()
            .unwrap_or(-1);
        let batches = u32::try_from(slice.len()).unwrap_or(u32::MAX);
        builder.push(
            first.partition.0,
            pieces,
            Counts {
                batches,
                records,
                max_timestamp_ms,
            },
        )?;
    }
    builder.finish()
}

/// Finds the batches in the pieces of the payload; a batch never spans two pieces.
fn entries(cut: &Cut, payload: &Payload) -> Option<Vec<Entry>> {
    let mut pieces = payload.pieces().iter();
    let mut piece: Bytes = pieces.next()?.clone();
    let mut piece_start = 0_u64;
    let mut position = HEADER_BYTES;
    let mut entries = Vec::with_capacity(cut.batches.len());
    for batch in &cut.batches {
        while position >= piece_start + piece.len() as u64 {
            piece_start += piece.len() as u64;
            piece = pieces.next()?.clone();
        }
        let from = usize::try_from(position - piece_start).ok()?;
        let to = from + batch.bytes.len();
        if to > piece.len() {
            return None;
        }
        let mut bytes = piece.slice(from..to);
        entries.push(Entry {
            partition: batch.partition,
            position,
            batch: WireBatch::take(&mut bytes).ok()??,
        });
        position += batch.bytes.len() as u64;
    }
    Some(entries)
}
