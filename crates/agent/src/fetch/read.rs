//! Slices from the cache or the bucket. Everything that comes from a bucket is checked once, as it
//! is loaded; what is not what the index says is read again once, past the cache, and is a loud
//! error then. It must not know clients.

use std::sync::Arc;

use host::budget::Held;
use meta::ids::FileId;
use rpc::view::Place;
use store::bucket::{Bucket, Key, Op};
use store::layout::file_key;
use store::retry::{Limits, Retry};

use crate::cache::{Cache, Chunk, Corrupt, Entry, LoadError, Loaded, Part, read_file, read_slice};
use crate::log_limit::LogLimit;
use crate::metrics::Metrics;

/// Files up to this size are loaded whole: one request for all partitions in them, and the file's
/// own index and checksums to compare with. Of larger ones only the slice is read.
const WHOLE_FILE_BYTES: u64 = 8 << 20;

/// The metadata shard of all files, until there are more.
const SHARD: u16 = 0;

/// The identity of a file in the bucket.
pub fn stored_id(file: FileId) -> store::layout::FileId {
    store::layout::FileId {
        shard: SHARD,
        incarnation: file.incarnation.0,
        number: file.number,
    }
}

/// Reads slices.
pub struct Reader {
    cache: Arc<Cache>,
    source: Arc<Source>,
    metrics: Arc<Metrics>,
    log: LogLimit,
}

/// The bucket, as loads use it.
struct Source {
    bucket: Arc<dyn Bucket>,
    retry: Retry,
    metrics: Arc<Metrics>,
}

impl Reader {
    /// Reads from `bucket` through `cache`.
    pub fn new(bucket: Arc<dyn Bucket>, cache: Arc<Cache>, metrics: Arc<Metrics>) -> Self {
        let retry = Retry::new(Limits::FILES);
        let source = Arc::new(Source {
            bucket,
            retry,
            metrics: Arc::clone(&metrics),
        });
        Reader {
            cache,
            source,
            metrics,
            log: LogLimit::default(),
        }
    }

    /// The chunk with a place's batches, if it is in memory and sound.
    pub fn find(&self, place: &Place) -> Option<Arc<Chunk>> {
        let chunk = self.cache.find(place.file, place.position)?;
        if check_place(&chunk, place).is_err() {
            // What the cache holds and the index disagree: the bucket decides.
            self.cache.forget(whole(place));
            self.cache.forget(part_of(place));
            return None;
        }
        self.metrics.cache_hits.increment();
        Some(chunk)
    }

    /// Loads the chunk with a place's batches. Waits for memory only if `may_wait`, which nobody
    /// may say who holds a chunk already; [`LoadError::NoRoom`] otherwise.
    pub async fn load(&self, place: &Place, may_wait: bool) -> Loaded {
        self.metrics.cache_misses.increment();
        let (cache, source) = (Arc::clone(&self.cache), Arc::clone(&self.source));
        let wanted = *place;
        // Only the one who loads takes memory: all who wait get the same chunk.
        let load = async move {
            let bytes = part_bytes(&wanted);
            let held = match cache.try_hold(bytes) {
                Some(held) => held,
                None if may_wait => cache.hold(bytes).await,
                None => return Err(LoadError::NoRoom),
            };
            source.read_twice(&wanted, held).await
        };
        let loaded = self.cache.load(part_of(place), load).await;
        if let Err(error) = &loaded {
            self.report(place, error);
        }
        loaded
    }

    /// Says loudly what is wrong with a file.
    fn report(&self, place: &Place, error: &LoadError) {
        match error {
            LoadError::Missing => self.metrics.missing_files.increment(),
            LoadError::Corrupt(_) => self.metrics.corrupt_reads.increment(),
            LoadError::Unavailable(_) => self.metrics.failed_reads.increment(),
            LoadError::NoRoom => return,
        }
        if let Some(left_out) = self.log.pass(host::clock::now()) {
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

impl Source {
    /// Reads a part, and once more if it is not what the index says: bits may have flipped on the
    /// way only.
    async fn read_twice(&self, place: &Place, held: Held) -> Loaded {
        match self.read(place).await {
            Err(LoadError::Corrupt(_)) => {
                self.metrics.corrupt_reads.increment();
                self.read(place).await
            }
            outcome => outcome,
        }
        .map(|entries| Arc::new(Chunk::new(entries, part_bytes(place), held)))
    }

    async fn read(&self, place: &Place) -> Result<Vec<Entry>, LoadError> {
        let id = stored_id(place.file);
        let key = file_key(id, place.nonce);
        self.metrics.cache_loads.increment();
        self.metrics.cache_load_bytes.add(part_bytes(place));
        let entries = if part_of(place).slice.is_none() {
            let file = self.retry.get(&*self.bucket, &key).await;
            let file = file
                .map_err(LoadError::Unavailable)?
                .ok_or(LoadError::Missing)?;
            if file.len() as u64 != place.file_length {
                let detail = format!("it has {} bytes, not {}", file.len(), place.file_length);
                return Err(Corrupt(detail).into());
            }
            check(move || read_file(id, &file)).await?
        } else {
            let bytes = self.range(&key, place).await?.ok_or(LoadError::Missing)?;
            let position = place.position;
            check(move || {
                let mut entries = Vec::new();
                read_slice(position, bytes, &mut entries).map(|()| entries)
            })
            .await?
        };
        check_records(&entries, place)?;
        Ok(entries)
    }

    async fn range(&self, key: &Key, place: &Place) -> Result<Option<bytes::Bytes>, LoadError> {
        let range = place.position..place.position + u64::from(place.length);
        let read = self
            .retry
            .run(Op::GetRange, key, || {
                self.bucket.get_range(key, range.clone())
            })
            .await;
        match read {
            // The file ends before the slice does, or is not there: one more look tells.
            Err(error @ store::bucket::Error::Definite { .. }) => {
                match self.bucket.head(key).await {
                    Ok(Some(size)) if size < range.end => {
                        let detail =
                            format!("it has {size} bytes, the slice ends at {}", range.end);
                        Err(Corrupt(detail).into())
                    }
                    _ => Err(LoadError::Unavailable(error)),
                }
            }
            other => other.map_err(LoadError::Unavailable),
        }
    }
}

/// Comparing checksums of some MiB takes about a millisecond: not on a thread that serves others.
async fn check(
    work: impl FnOnce() -> Result<Vec<Entry>, Corrupt> + Send + 'static,
) -> Result<Vec<Entry>, LoadError> {
    host::task::spawn_blocking(work)
        .await
        .map_err(LoadError::Corrupt)
}

/// The batches of a place, if they are as many records as the index says.
pub fn check_place<'a>(chunk: &'a Chunk, place: &Place) -> Result<&'a [Entry], Corrupt> {
    let entries = chunk.batches(place.position, place.length)?;
    count_records(entries, place)?;
    Ok(entries)
}

fn check_records(entries: &[Entry], place: &Place) -> Result<(), Corrupt> {
    let end = place.position + u64::from(place.length);
    let first = entries.partition_point(|entry| entry.position < place.position);
    let last = entries.partition_point(|entry| entry.position < end);
    count_records(entries.get(first..last).unwrap_or_default(), place)
}

fn count_records(entries: &[Entry], place: &Place) -> Result<(), Corrupt> {
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

/// The part that a place is loaded with.
pub fn part_of(place: &Place) -> Part {
    let slice = (place.file_length > WHOLE_FILE_BYTES).then_some(place.position);
    Part {
        file: place.file,
        slice,
    }
}

fn whole(place: &Place) -> Part {
    Part {
        file: place.file,
        slice: None,
    }
}

fn part_bytes(place: &Place) -> u64 {
    match part_of(place).slice {
        None => place.file_length,
        Some(_) => u64::from(place.length),
    }
}
