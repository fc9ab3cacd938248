//! Where parts of files come from: another agent of the zone that keeps them, or the bucket. Everything is verified once, as it
//! comes, wherever it comes from; a part that differs from its index is read once more from the bucket, and is a loud error
//! then. It must not know the cache.

use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{Either, select};
use host::budget::Held;
use meta::ids::PartitionId;
use meta::places::{FileRef, SlicePlace};
use rpc::part::Wanted;
use store::bucket::{Bucket, Key, Op};
use store::buckets::Buckets;
use store::file::{FOOTER_BYTES, FileIndex, Footer, TOMBSTONE_BYTES, Tombstone};
use store::layout::{file_key, parse_file_key};
use store::retry::{Limits, Retry};

use super::indexes::Indexes;
use super::neighbours::{Asking, Neighbours};
use super::plan::{part_bytes, part_of};
use crate::data::cache::{Brought, Chunk, Corrupt, Entry, LoadError, Segment, Waits};
use crate::data::cache::{check_id, read_file, read_slice, stored_id};
use crate::data::copies::examine::Doubtful;
use crate::metrics::{Metrics, Origin};

/// Bytes read at the end of a large file: the footer and an index of some 400 slices. A longer
/// index takes another request.
const TAIL_BYTES: u64 = 16 << 10;

/// The bucket, the other agents of the zone, and what a load needs beside them.
pub(super) struct Source {
    buckets: Arc<Buckets>,
    /// The same, the farthest first: a copy that differs from its index is read from another bucket.
    others: Arc<Buckets>,
    /// The same, of which each is asked before a file is taken for missing: one may have lost what it held, and another not have its copy yet.
    /// `None` if there is only one.
    all: Option<Buckets>,
    retry: Retry,
    indexes: Indexes,
    neighbours: Arc<Neighbours>,
    metrics: Arc<Metrics>,
    /// Files that a bucket did not give as their index says.
    doubtful: Arc<Doubtful>,
}

/// A part that was verified.
struct Read {
    entries: Vec<Entry>,
    /// What was read, of which the entries are parts.
    bytes: Bytes,
}

impl Source {
    pub(super) fn new(
        buckets: Arc<Buckets>,
        neighbours: Arc<Neighbours>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Source {
            others: Arc::new(buckets.farthest_first()),
            all: buckets
                .among(&buckets.numbers())
                .filter(|all| all.numbers().len() > 1),
            buckets,
            retry: Retry::new(Limits::FILES),
            indexes: Indexes::default(),
            neighbours,
            metrics,
            doubtful: Arc::default(),
        }
    }

    pub(super) fn doubtful(&self) -> &Arc<Doubtful> {
        &self.doubtful
    }

    /// Reads a part from the agent of the zone that keeps it, or from the bucket; `own` is where it is kept if this agent has
    /// it from the bucket.
    pub(super) async fn bring(
        &self,
        partition: PartitionId,
        place: &SlicePlace,
        own: Segment,
        held: Held,
        waits: &Waits,
    ) -> Brought {
        let is_recent = own == Segment::Hot;
        let asking = self
            .neighbours
            .begin(part_of(place), part_bytes(place), is_recent);
        let (read, segment) = match asking {
            None => {
                waits.for_bucket();
                (self.read_twice(partition, place).await?, own)
            }
            Some(asking) => self.race(asking, partition, place, own, waits).await?,
        };
        let origin = match segment {
            Segment::Copied => Origin::Neighbour,
            Segment::Hot | Segment::Cold => Origin::Bucket,
        };
        Ok((chunk(read, place, held, origin), segment))
    }

    /// Reads a part from the bucket, for another agent.
    pub(super) async fn bring_from_bucket(
        &self,
        partition: PartitionId,
        place: &SlicePlace,
        own: Segment,
        held: Held,
    ) -> Brought {
        let read = self.read_twice(partition, place).await?;
        Ok((chunk(read, place, held, Origin::Bucket), own))
    }

    /// Asks another agent, and the bucket once that has failed or is late. The first good answer counts.
    async fn race(
        &self,
        asking: Asking<'_>,
        partition: PartitionId,
        place: &SlicePlace,
        own: Segment,
        waits: &Waits,
    ) -> Result<(Read, Segment), LoadError> {
        let mut near = pin!(self.read_near(&asking, partition, place));
        match host::clock::timeout(asking.patience, near.as_mut()).await {
            Ok(Some(read)) => return Ok((read, Segment::Copied)),
            Ok(None) => {
                waits.for_bucket();
                return Ok((self.read_twice(partition, place).await?, own));
            }
            Err(_) => asking.late(),
        }
        waits.for_bucket();
        let far = pin!(self.read_twice(partition, place));
        match select(near, far).await {
            Either::Left((Some(read), _)) => Ok((read, Segment::Copied)),
            Either::Left((None, far)) => Ok((far.await?, own)),
            Either::Right((read, _)) => Ok((read?, own)),
        }
    }

    async fn read_near(
        &self,
        asking: &Asking<'_>,
        partition: PartitionId,
        place: &SlicePlace,
    ) -> Option<Read> {
        let place = *place;
        let bytes = asking.ask(&Wanted { partition, place }).await?;
        let length = bytes.len() as u64;
        match self.verify(&self.buckets, partition, &place, bytes).await {
            Ok(read) => {
                asking.answered();
                self.metrics.loaded_bytes.neighbour.add(length);
                Some(read)
            }
            Err(LoadError::Corrupt(why)) => {
                asking.failed(&why.0);
                None
            }
            // The index of a large file was not read from the bucket, which is not the other agent's fault.
            Err(_) => None,
        }
    }

    /// Reads a part, and once more if it is not what its index says, from another bucket if there is one: bits may have flipped
    /// only on the way, or in one copy. Such a load counts as corrupt once, whether the second look was sound or not, and
    /// however many readers wait for it.
    async fn read_twice(
        &self,
        partition: PartitionId,
        place: &SlicePlace,
    ) -> Result<Read, LoadError> {
        let mut first = self.read(&self.buckets, partition, place).await;
        if let (Err(LoadError::Missing), Some(all)) = (&first, &self.all) {
            first = self.read(all, partition, place).await;
            if first.is_ok() {
                self.metrics.copies_missing.increment();
            }
        }
        if let Err(error) = &first {
            count(&self.metrics, error);
        }
        if matches!(first, Err(LoadError::Missing)) {
            let key = || file_key(stored_id(place.file), place.nonce);
            host::trial::tell("missing", 0, || key().as_str().as_bytes().to_vec());
        }
        match first {
            Err(LoadError::Corrupt(_)) => {
                if self.all.is_some() {
                    self.doubtful.note(FileRef {
                        file: place.file,
                        nonce: place.nonce,
                    });
                }
                let second = self.read(&self.others, partition, place).await;
                if let Err(error @ (LoadError::Missing | LoadError::Unavailable(_))) = &second {
                    count(&self.metrics, error);
                }
                second
            }
            outcome => outcome,
        }
    }

    async fn read(
        &self,
        from: &Buckets,
        partition: PartitionId,
        place: &SlicePlace,
    ) -> Result<Read, LoadError> {
        let key = file_key(stored_id(place.file), place.nonce);
        self.metrics.cache_loads.increment();
        self.metrics.loaded_bytes.bucket.add(part_bytes(place));
        let begun = host::clock::now();
        let bytes = if part_of(place).slice.is_none() {
            let file = self.retry.get(from, &key).await;
            let file = file
                .map_err(LoadError::Unavailable)?
                .ok_or(LoadError::Missing)?;
            if is_tombstone(&key, &file) {
                return Err(LoadError::Missing);
            }
            file
        } else {
            let range = place.position..place.position + u64::from(place.length);
            self.range(from, &key, range)
                .await?
                .ok_or(LoadError::Missing)?
        };
        self.neighbours.note_bucket(host::clock::now().since(begun));
        self.verify(from, partition, place, bytes).await
    }

    /// The batches in the bytes of a part, if it is the one that is wanted.
    async fn verify(
        &self,
        from: &Buckets,
        partition: PartitionId,
        place: &SlicePlace,
        bytes: Bytes,
    ) -> Result<Read, LoadError> {
        let id = stored_id(place.file);
        let (length, wanted) = (bytes.len() as u64, part_bytes(place));
        if length != wanted {
            let detail = format!("it has {length} bytes, not {wanted}");
            return Err(Corrupt(detail).into());
        }
        let part = bytes.clone();
        let entries = if part_of(place).slice.is_none() {
            check(move || read_file(id, &part)).await?
        } else {
            let key = file_key(id, place.nonce);
            let index = self.index(from, &key, place).await?;
            let slice = index.find(partition.0).copied();
            let slice = slice.ok_or_else(|| no_slice(partition))?;
            let position = place.position;
            check(move || read_slice(&slice, position, part)).await?
        };
        Ok(Read { entries, bytes })
    }

    /// The index of a large file.
    async fn index(
        &self,
        from: &Buckets,
        key: &Key,
        place: &SlicePlace,
    ) -> Result<Arc<FileIndex>, LoadError> {
        let read = self.read_index(from, key, place);
        self.indexes.get((place.file, place.nonce), read).await
    }

    async fn read_index(
        &self,
        from: &Buckets,
        key: &Key,
        place: &SlicePlace,
    ) -> Result<FileIndex, LoadError> {
        let end = place.file_length;
        let start = end.saturating_sub(TAIL_BYTES);
        let mut tail = self.range(from, key, start..end).await?;
        let footer = tail.as_ref().ok_or(LoadError::Missing)?;
        let footer = footer
            .last_chunk::<{ FOOTER_BYTES as usize }>()
            .ok_or_else(|| Corrupt("it is shorter than a footer".to_owned()))?;
        let footer = Footer::decode(footer).map_err(Corrupt::from)?;
        if footer.file_length().map_err(Corrupt::from)? != end {
            let detail = format!("its footer is not that of a file of {end} bytes");
            return Err(Corrupt(detail).into());
        }
        if footer.index_position < start {
            tail = self.range(from, key, footer.index_position..end).await?;
        }
        let tail = tail.ok_or(LoadError::Missing)?;
        self.metrics.loaded_bytes.bucket.add(tail.len() as u64);
        let index = FileIndex::decode(&tail, end).map_err(Corrupt::from)?;
        check_id(&index, stored_id(place.file))?;
        Ok(index)
    }

    async fn holds_tombstone(&self, from: &Buckets, key: &Key) -> bool {
        let found = self.retry.get(from, key).await.ok().flatten();
        found.is_some_and(|bytes| is_tombstone(key, &bytes))
    }

    async fn range(
        &self,
        from: &Buckets,
        key: &Key,
        range: Range<u64>,
    ) -> Result<Option<bytes::Bytes>, LoadError> {
        let read = self
            .retry
            .run(Op::GetRange, key, || from.get_range(key, range.clone()))
            .await;
        match read {
            // The file is shorter than the range, or missing; one more look tells which.
            Err(error @ store::bucket::Error::Definite { .. }) => match from.head(key).await {
                Ok(Some(TOMBSTONE_BYTES)) if self.holds_tombstone(from, key).await => Ok(None),
                Ok(Some(size)) if size < range.end => {
                    let detail = format!("it has {size} bytes, the range ends at {}", range.end);
                    Err(Corrupt(detail).into())
                }
                _ => Err(LoadError::Unavailable(error)),
            },
            Ok(Some(bytes)) if bytes.len() as u64 != range.end - range.start => {
                let detail = format!("{} bytes came for {range:?}", bytes.len());
                Err(Corrupt(detail).into())
            }
            other => other.map_err(LoadError::Unavailable),
        }
    }
}

/// True if the object under a file's name is a tombstone.
fn is_tombstone(key: &Key, bytes: &[u8]) -> bool {
    let found = Tombstone::decode(bytes).ok();
    found.is_some_and(|found| parse_file_key(key) == Some((found.id, found.nonce)))
}

fn no_slice(partition: PartitionId) -> LoadError {
    Corrupt(format!(
        "its index has no slice of partition {}",
        partition.0
    ))
    .into()
}

/// Verifies bytes off the async threads: checksums of some MiB take about a millisecond.
async fn check(
    work: impl FnOnce() -> Result<Vec<Entry>, Corrupt> + Send + 'static,
) -> Result<Vec<Entry>, LoadError> {
    host::task::spawn_blocking(work)
        .await
        .map_err(LoadError::Corrupt)
}

/// Counts a load that failed.
pub(super) fn count(metrics: &Metrics, error: &LoadError) {
    match error {
        LoadError::Missing => metrics.missing_files.increment(),
        LoadError::Corrupt(_) => metrics.corrupt_reads.increment(),
        LoadError::Unavailable(_) => metrics.failed_reads.increment(),
        LoadError::NoRoom | LoadError::Asked => {}
    }
}

/// A chunk of what was read.
fn chunk(read: Read, place: &SlicePlace, held: Held, origin: Origin) -> Arc<Chunk> {
    let chunk = Chunk::new(read.entries, part_bytes(place), held).loaded_from(origin);
    Arc::new(chunk.with_stored(vec![read.bytes]))
}
