//! Reads slices from the cache or the bucket. Everything that comes from a bucket is verified once,
//! as it is loaded; a part that differs from its index is read once more past the cache, and is a
//! loud error then. It must not know clients.

use std::ops::Range;
use std::sync::Arc;

use host::budget::Held;
use host::log_limit::LogLimit;
use meta::ids::{FileId, PartitionId};
use meta::places::SlicePlace;
use store::bucket::{Bucket, Key, Op};
use store::file::{FOOTER_BYTES, FileIndex, Footer, TOMBSTONE_BYTES, Tombstone};
use store::layout::{file_key, parse_file_key};
use store::retry::{Limits, Retry};

use super::indexes::Indexes;
use super::plan::part_of;
use crate::data::cache::{Cache, Chunk, Corrupt, Entry, LoadError, Loaded, Need, Part};
use crate::data::cache::{check_id, read_file, read_slice};
use crate::log_limit::FileLogLimit;
use crate::metrics::Metrics;

/// Bytes read at the end of a large file: the footer and an index of some 400 slices. A longer
/// index takes another request.
const TAIL_BYTES: u64 = 16 << 10;

/// The metadata shard of all files: there is only one.
const SHARD: u16 = 0;

/// The id of a file as its bytes and key have it.
pub fn stored_id(file: FileId) -> store::layout::FileId {
    store::layout::FileId {
        shard: SHARD,
        incarnation: file.incarnation.0,
        number: file.number,
    }
}

pub struct Reader {
    cache: Arc<Cache>,
    source: Arc<Source>,
    metrics: Arc<Metrics>,
    log: Log,
}

/// Limits the log lines about loads: a sick bucket makes all of them fail alike, a damaged file its
/// own.
#[derive(Default)]
struct Log {
    bucket: LogLimit,
    files: FileLogLimit,
}

/// The bucket and what a load needs beside it.
struct Source {
    bucket: Arc<dyn Bucket>,
    retry: Retry,
    indexes: Indexes,
    metrics: Arc<Metrics>,
}

impl Reader {
    pub fn new(bucket: Arc<dyn Bucket>, cache: Arc<Cache>, metrics: Arc<Metrics>) -> Self {
        let retry = Retry::new(Limits::FILES);
        let source = Arc::new(Source {
            bucket,
            retry,
            indexes: Indexes::default(),
            metrics: Arc::clone(&metrics),
        });
        Reader {
            cache,
            source,
            metrics,
            log: Log::default(),
        }
    }

    /// The chunk that holds these places, which lie all in one part, if it is in memory and agrees
    /// with them.
    pub fn find(&self, places: &[(PartitionId, SlicePlace)]) -> Option<Arc<Chunk>> {
        let (_, first) = places.first()?;
        let chunk = self.cache.find(first.file, first.position)?;
        let is_sound = |(partition, place): &(PartitionId, SlicePlace)| {
            check_place(&chunk, *partition, place).is_ok()
        };
        if !places.iter().all(is_sound) {
            // The cached chunk and the metadata disagree: the bucket's bytes decide.
            self.cache.forget(whole(first));
            self.cache.forget(part_of(first));
            return None;
        }
        self.metrics.cache_hits.add(places.len() as u64);
        Some(chunk)
    }

    /// Loads the chunk that holds a partition's place, verified against its file's own index;
    /// [`check_place`] tells whether that agrees with the metadata. It waits for memory only if
    /// `may_wait`, which a caller that holds a chunk must not ask for, and else fails with
    /// [`LoadError::NoRoom`]. Of several callers one loads and takes memory; all get the same
    /// chunk.
    pub async fn load(&self, partition: PartitionId, place: &SlicePlace, may_wait: bool) -> Loaded {
        self.metrics.cache_misses.increment();
        loop {
            let (source, wanted) = (Arc::clone(&self.source), *place);
            let load = move |held| async move { source.read_twice(partition, &wanted, held).await };
            let need = Need {
                bytes: part_bytes(place),
                may_wait,
            };
            let loaded = self.cache.load(part_of(place), need, load).await;
            match &loaded {
                // The load was begun by a caller that would not wait for memory.
                Err(LoadError::NoRoom) if may_wait => tokio::task::yield_now().await,
                Err(error) => {
                    self.log(place, error);
                    return loaded;
                }
                Ok(_) => return loaded,
            }
        }
    }

    pub(super) fn cache(&self) -> &Cache {
        &self.cache
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Counts and logs a disagreement between the metadata and a chunk that was verified.
    pub fn report(&self, place: &SlicePlace, error: &LoadError) {
        count(&self.metrics, error);
        self.log(place, error);
    }

    fn log(&self, place: &SlicePlace, error: &LoadError) {
        let now = host::clock::now();
        let passed = match error {
            LoadError::Missing | LoadError::Corrupt(_) => self.log.files.pass(place.file, now),
            LoadError::Unavailable(_) => self.log.bucket.pass(now),
            LoadError::NoRoom => return,
        };
        if let Some(left_out) = passed {
            tracing::error!(
                file = %place.file,
                key = %file_key(stored_id(place.file), place.nonce),
                position = place.position,
                offset = place.base_offset,
                left_out,
                %error,
                "records cannot be read"
            );
        }
    }
}

fn count(metrics: &Metrics, error: &LoadError) {
    match error {
        LoadError::Missing => metrics.missing_files.increment(),
        LoadError::Corrupt(_) => metrics.corrupt_reads.increment(),
        LoadError::Unavailable(_) => metrics.failed_reads.increment(),
        LoadError::NoRoom => {}
    }
}

impl Source {
    /// Reads a part, and once more if it is not what its index says: bits may have flipped only on
    /// the way. Such a load counts as corrupt once, whether the second look was sound or not, and
    /// however many readers wait for it.
    async fn read_twice(&self, partition: PartitionId, place: &SlicePlace, held: Held) -> Loaded {
        let first = self.read(partition, place).await;
        if let Err(error) = &first {
            count(&self.metrics, error);
        }
        if matches!(first, Err(LoadError::Missing)) {
            let key = || file_key(stored_id(place.file), place.nonce);
            host::trial::tell("missing", 0, || key().as_str().as_bytes().to_vec());
        }
        let read = match first {
            Err(LoadError::Corrupt(_)) => {
                let second = self.read(partition, place).await;
                if let Err(error @ (LoadError::Missing | LoadError::Unavailable(_))) = &second {
                    count(&self.metrics, error);
                }
                second
            }
            outcome => outcome,
        };
        read.map(|entries| Arc::new(Chunk::new(entries, part_bytes(place), held)))
    }

    async fn read(
        &self,
        partition: PartitionId,
        place: &SlicePlace,
    ) -> Result<Vec<Entry>, LoadError> {
        let id = stored_id(place.file);
        let key = file_key(id, place.nonce);
        self.metrics.cache_loads.increment();
        self.metrics.cache_load_bytes.add(part_bytes(place));
        if part_of(place).slice.is_none() {
            let file = self.retry.get(&*self.bucket, &key).await;
            let file = file
                .map_err(LoadError::Unavailable)?
                .ok_or(LoadError::Missing)?;
            if is_tombstone(&key, &file) {
                return Err(LoadError::Missing);
            }
            if file.len() as u64 != place.file_length {
                let detail = format!("it has {} bytes, not {}", file.len(), place.file_length);
                return Err(Corrupt(detail).into());
            }
            check(move || read_file(id, &file)).await
        } else {
            let index = self.index(&key, place).await?;
            let slice = index.find(partition.0).copied();
            let slice = slice.ok_or_else(|| no_slice(partition))?;
            let range = place.position..place.position + u64::from(place.length);
            let bytes = self.range(&key, range).await?.ok_or(LoadError::Missing)?;
            let position = place.position;
            check(move || read_slice(&slice, position, bytes)).await
        }
    }

    /// The index of a large file.
    async fn index(&self, key: &Key, place: &SlicePlace) -> Result<Arc<FileIndex>, LoadError> {
        let read = self.read_index(key, place);
        self.indexes.get((place.file, place.nonce), read).await
    }

    async fn read_index(&self, key: &Key, place: &SlicePlace) -> Result<FileIndex, LoadError> {
        let end = place.file_length;
        let from = end.saturating_sub(TAIL_BYTES);
        let mut tail = self.range(key, from..end).await?;
        let footer = tail.as_ref().ok_or(LoadError::Missing)?;
        let footer = footer
            .last_chunk::<{ FOOTER_BYTES as usize }>()
            .ok_or_else(|| Corrupt("it is shorter than a footer".to_owned()))?;
        let footer = Footer::decode(footer).map_err(Corrupt::from)?;
        if footer.file_length().map_err(Corrupt::from)? != end {
            let detail = format!("its footer is not that of a file of {end} bytes");
            return Err(Corrupt(detail).into());
        }
        if footer.index_position < from {
            tail = self.range(key, footer.index_position..end).await?;
        }
        let tail = tail.ok_or(LoadError::Missing)?;
        self.metrics.cache_load_bytes.add(tail.len() as u64);
        let index = FileIndex::decode(&tail, end).map_err(Corrupt::from)?;
        check_id(&index, stored_id(place.file))?;
        Ok(index)
    }

    async fn holds_tombstone(&self, key: &Key) -> bool {
        let found = self.retry.get(&*self.bucket, key).await.ok().flatten();
        found.is_some_and(|bytes| is_tombstone(key, &bytes))
    }

    async fn range(&self, key: &Key, range: Range<u64>) -> Result<Option<bytes::Bytes>, LoadError> {
        let read = self
            .retry
            .run(Op::GetRange, key, || {
                self.bucket.get_range(key, range.clone())
            })
            .await;
        match read {
            // The file is shorter than the range, or missing; one more look tells which.
            Err(error @ store::bucket::Error::Definite { .. }) => {
                match self.bucket.head(key).await {
                    Ok(Some(TOMBSTONE_BYTES)) if self.holds_tombstone(key).await => Ok(None),
                    Ok(Some(size)) if size < range.end => {
                        let detail =
                            format!("it has {size} bytes, the range ends at {}", range.end);
                        Err(Corrupt(detail).into())
                    }
                    _ => Err(LoadError::Unavailable(error)),
                }
            }
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

/// The batches of a partition's place, if they hold as many records as the metadata says.
pub fn check_place<'a>(
    chunk: &'a Chunk,
    partition: PartitionId,
    place: &SlicePlace,
) -> Result<&'a [Entry], Corrupt> {
    if host::trial::leaves_out("readers-guess") {
        return Ok(chunk.batches_of(partition));
    }
    let entries = chunk.batches(partition, place.position, place.length)?;
    count_records(entries, place)?;
    Ok(entries)
}

fn count_records(entries: &[Entry], place: &SlicePlace) -> Result<(), Corrupt> {
    let records: i64 = entries
        .iter()
        .map(|entry| i64::from(entry.batch.last_offset_delta()) + 1)
        .sum();
    let expected = place
        .last_offset
        .checked_sub(place.base_offset)
        .map(|last| last + 1);
    if expected == Some(records) {
        return Ok(());
    }
    Err(Corrupt(format!(
        "the slice at {} has {records} records, the index says offsets {} to {}",
        place.position, place.base_offset, place.last_offset
    )))
}

fn whole(place: &SlicePlace) -> Part {
    Part {
        file: place.file,
        slice: None,
    }
}

fn part_bytes(place: &SlicePlace) -> u64 {
    match part_of(place).slice {
        None => place.file_length,
        Some(_) => u64::from(place.length),
    }
}
