//! Reads slices from the cache, or has them loaded into it. It must not know clients, nor where parts of files come from.

use std::sync::Arc;
use std::time::Duration;

use host::log_limit::{LogLimit, LogLimits};
use meta::ids::{FileId, PartitionId};
use meta::places::SlicePlace;
use store::buckets::Buckets;
use store::layout::file_key;

use super::neighbours::Neighbours;
use super::offer::Offer;
use super::plan::{part_bytes, part_of};
use super::source::{Source, count};
use crate::data::cache::{
    Cache, Chunk, Corrupt, Entry, LoadError, Loaded, Need, Part, Waits, stored_id,
};
use crate::data::copies::examine::Doubtful;
use crate::metrics::Metrics;

pub struct Reader {
    cache: Arc<Cache>,
    source: Arc<Source>,
    metrics: Arc<Metrics>,
    log: Log,
}

/// Limits the log lines about loads: a sick bucket makes all of them fail alike, a damaged file its
/// own.
struct Log {
    bucket: LogLimit,
    files: LogLimits<FileId>,
}

/// At most one line about a file in this time: its readers ask again and again.
const LOG_EVERY_OF_A_FILE: Duration = Duration::from_secs(10);

impl Default for Log {
    fn default() -> Self {
        Log {
            bucket: LogLimit::default(),
            files: LogLimits::every(LOG_EVERY_OF_A_FILE),
        }
    }
}

impl Reader {
    pub(crate) fn new(
        buckets: Arc<Buckets>,
        neighbours: Arc<Neighbours>,
        cache: Arc<Cache>,
        metrics: Arc<Metrics>,
    ) -> Self {
        let source = Arc::new(Source::new(buckets, neighbours, Arc::clone(&metrics)));
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
        let chunk = self.cache.find(part_of(first))?;
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
            let own = self.cache.segment_of(place.file);
            let load = move |held, waits: Arc<Waits>| async move {
                source.bring(partition, &wanted, own, held, &waits).await
            };
            let need = Need {
                bytes: part_bytes(place),
                may_wait,
                may_ask: true,
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

    /// Loads the part that holds a place before somebody asks for it, if memory is free. If that fails, whoever asks will see why.
    pub(crate) async fn load_ahead(&self, partition: PartitionId, place: &SlicePlace) {
        let (part, bytes) = (part_of(place), part_bytes(place));
        if self.cache.find_exactly(part).is_some() || !self.cache.has_ample(bytes) {
            return;
        }
        self.metrics.cache_loads_ahead.increment();
        let (source, wanted) = (Arc::clone(&self.source), *place);
        let own = self.cache.segment_of(place.file);
        let load = move |held, waits: Arc<Waits>| async move {
            source.bring(partition, &wanted, own, held, &waits).await
        };
        let need = Need {
            bytes,
            may_wait: false,
            may_ask: true,
        };
        drop(self.cache.load(part, need, load).await);
    }

    /// Gives other agents of the zone what this one has, or has loaded for them; `bytes` at most are on their way to them.
    pub(crate) fn offer(&self, bytes: u64) -> Offer {
        Offer::new(
            Arc::clone(&self.cache),
            Arc::clone(&self.source),
            Arc::clone(&self.metrics),
            bytes,
        )
    }

    /// Files that a bucket did not give as their index says.
    pub(crate) fn doubtful(&self) -> &Arc<Doubtful> {
        self.source.doubtful()
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
            LoadError::NoRoom | LoadError::Asked => return,
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

/// The part that is all of the file.
fn whole(place: &SlicePlace) -> Part {
    Part {
        slice: None,
        ..part_of(place)
    }
}
