//! Parts of files in memory, shared by all readers: bounded by bytes, and each part loaded once for
//! all who want it. Files of this agent are put in as they are uploaded, so that readers at the
//! tail never ask the bucket. It must not know topics or offsets.
//!
//! Two bounds hold. Chunks kept for later take at most `cache_bytes`; which go first, `kept` says.
//! And every chunk, kept or still in some reader's hands, counts against `cache_bytes +
//! buffer_bytes` until its last user drops it: a slow reader cannot pin memory unseen.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use host::budget::{Budget, Held};
use host::clock::Instant;
use meta::ids::FileId;

use crate::metrics::Metrics;

mod chunk;
mod kept;
mod recent;

pub use chunk::{Chunk, Corrupt, Entry, check_id, read_file, read_slice, stored_id};
pub use kept::Segment;

use kept::Kept;
use recent::Recent;

/// How often a load that waits for memory looks again for chunks to evict.
const EVICT_AGAIN: Duration = Duration::from_millis(20);

/// A part of a file: all of it, or one slice of a large one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    pub file: FileId,
    /// The random part of the file's name.
    pub nonce: u32,
    /// Position of the slice in the file; `None` for the whole file.
    pub slice: Option<u64>,
}

/// Why a part cannot be read. Cheap to clone for all who wait for it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The store's definite word that the file does not exist.
    #[error("the file is not in the bucket")]
    Missing,
    /// The bytes are not what the index says.
    #[error("{0}")]
    Corrupt(#[from] Corrupt),
    /// The bucket gave no answer.
    #[error("{0}")]
    Unavailable(store::bucket::Error),
    /// Readers hold all the memory for parts of files; try again as they let go.
    #[error("no memory is free for the part")]
    NoRoom,
    /// Another agent is asked for the part just now.
    #[error("another agent is asked for the part")]
    Asked,
}

pub type Loaded = Result<Arc<Chunk>, LoadError>;
/// What a load brings, and where it is to be kept.
pub type Brought = Result<(Arc<Chunk>, Segment), LoadError>;

/// The cache; see the module.
pub struct Cache {
    kept: Mutex<Kept>,
    recent: Mutex<Recent>,
    loading: Mutex<HashMap<Part, Flight>>,
    cache_bytes: u64,
    budget: Budget,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Flight {
    outcome: Shared<BoxFuture<'static, Loaded>>,
    waits: Arc<Waits>,
}

/// What a load waits for, which not everybody who wants the part may wait for.
#[derive(Debug)]
pub struct Waits {
    for_memory: AtomicBool,
    for_others: AtomicBool,
}

impl Waits {
    /// The load no longer waits for another agent alone: what it wants comes from the bucket in any case.
    pub(crate) fn for_bucket(&self) {
        self.for_others.store(false, Relaxed);
    }
}

/// How a load takes its memory.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub bytes: u64,
    /// Waits until enough is free, which only a caller that holds no chunk may do. Otherwise the
    /// load ends with [`LoadError::NoRoom`].
    pub may_wait: bool,
    /// Another agent may be asked for the part. A caller that wants it for another agent must not wait for that, or two could wait
    /// for each other; while one is asked, its load ends with [`LoadError::Asked`].
    pub may_ask: bool,
}

impl Cache {
    /// An empty cache that keeps `cache_bytes`; `budget` covers these and what readers hold beyond.
    pub fn new(cache_bytes: u64, budget: Budget, metrics: Arc<Metrics>) -> Self {
        Cache {
            kept: Mutex::new(Kept::of_bytes(cache_bytes)),
            recent: Mutex::default(),
            loading: Mutex::default(),
            cache_bytes: cache_bytes.min(budget.total_bytes()),
            budget,
            metrics,
        }
    }

    /// Notes that an answer was cut short for want of memory.
    pub fn note_short(&self, now: Instant) {
        self.budget.note_short(now);
    }

    /// The chunk of a part, if it is kept: the whole file, or just one slice of it.
    pub fn find(&self, part: Part) -> Option<Arc<Chunk>> {
        let whole = Part {
            slice: None,
            ..part
        };
        let mut kept = self.kept();
        kept.touch(whole).or_else(|| {
            let has_slice = part.slice.is_some();
            has_slice.then(|| kept.touch(part)).flatten()
        })
    }

    /// The chunk of just this part, if it is kept.
    pub(crate) fn find_exactly(&self, part: Part) -> Option<Arc<Chunk>> {
        self.kept().touch(part)
    }

    /// Notes that a file was written.
    pub fn note_written(&self, file: FileId) {
        self.recent().note(file);
    }

    /// Where parts of a file are kept that are read from the bucket.
    pub fn segment_of(&self, file: FileId) -> Segment {
        if self.recent().has(file) {
            Segment::Hot
        } else {
            Segment::Cold
        }
    }

    /// Whether memory for a chunk is free, and a quarter of what readers may hold beyond the kept ones, so that nobody waits because
    /// of what is loaded only in case it is wanted.
    pub(crate) fn has_ample(&self, bytes: u64) -> bool {
        let buffer_bytes = self.budget.total_bytes() - self.cache_bytes;
        self.budget.free_bytes() >= bytes + buffer_bytes / 4
    }

    /// Takes memory for a chunk and evicts kept chunks for it. Chunks that readers hold too stay:
    /// their memory is taken whether they are kept or not.
    pub fn try_hold(&self, bytes: u64) -> Option<Held> {
        loop {
            if let Some(held) = self.budget.try_hold(bytes) {
                return Some(held);
            }
            if !self.evict_idle() {
                return None;
            }
        }
    }

    /// Takes memory for a chunk, waiting for readers if need be. A caller that holds a chunk must
    /// not wait for another: see [`Cache::try_hold`].
    pub async fn hold(&self, bytes: u64) -> Held {
        if let Some(held) = self.try_hold(bytes) {
            return held;
        }
        // The future keeps its place in the queue over all rounds, so that later callers do not
        // overtake.
        let mut held = pin!(self.budget.hold(bytes));
        loop {
            // Memory that readers return comes by itself; chunks that only the cache holds must be
            // evicted.
            if let Ok(held) = host::clock::timeout(EVICT_AGAIN, held.as_mut()).await {
                return held;
            }
            while self.evict_idle() {
                if let Some(held) = held.as_mut().now_or_never() {
                    return held;
                }
            }
        }
    }

    /// Keeps a chunk and evicts others until it fits.
    pub fn keep(&self, part: Part, segment: Segment, chunk: Arc<Chunk>) {
        let mut kept = self.kept();
        kept.keep(part, segment, chunk);
        self.metrics.cache_bytes.set(kept.bytes());
    }

    /// Removes a part.
    pub fn forget(&self, part: Part) {
        let mut kept = self.kept();
        drop(kept.remove(part));
        self.metrics.cache_bytes.set(kept.bytes());
    }

    /// Removes all parts of a file.
    pub fn forget_file(&self, file: FileId) {
        let mut kept = self.kept();
        kept.remove_file(file);
        self.metrics.cache_bytes.set(kept.bytes());
    }

    /// Loads a part, once for all callers, unless the cache has it; keeps the chunk that `load`
    /// yields.
    pub async fn load<F: Future<Output = Brought> + Send + 'static>(
        self: &Arc<Self>,
        part: Part,
        need: Need,
        load: impl FnOnce(Held, Arc<Waits>) -> F + Send + 'static,
    ) -> Loaded {
        let flight = {
            let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
            match loading.get(&part) {
                Some(flight) if !need.may_wait && flight.waits.for_memory.load(Relaxed) => {
                    return Err(LoadError::NoRoom);
                }
                Some(flight) if !need.may_ask && flight.waits.for_others.load(Relaxed) => {
                    return Err(LoadError::Asked);
                }
                Some(flight) => flight.clone(),
                None => {
                    // A load that ended a moment ago put its chunk here before it left the list of
                    // loads.
                    if let Some(chunk) = self.kept().touch(part) {
                        return Ok(chunk);
                    }
                    let flight = self.start(part, need, load);
                    loading.insert(part, flight.clone());
                    flight
                }
            }
        };
        flight.outcome.await
    }

    /// The load goes on even if every caller is gone: its request is paid for.
    fn start<F: Future<Output = Brought> + Send + 'static>(
        self: &Arc<Self>,
        part: Part,
        need: Need,
        load: impl FnOnce(Held, Arc<Waits>) -> F + Send + 'static,
    ) -> Flight {
        // Whether it asks another agent is not known before it has begun.
        let waits = Arc::new(Waits {
            for_memory: AtomicBool::new(need.may_wait),
            for_others: AtomicBool::new(need.may_ask),
        });
        let (cache, waiting) = (Arc::clone(self), Arc::clone(&waits));
        let task = host::task::spawn("load", async move {
            let held = match cache.try_hold(need.bytes) {
                None if need.may_wait => Some(cache.hold(need.bytes).await),
                held => held,
            };
            waiting.for_memory.store(false, Relaxed);
            let brought = match held {
                Some(held) => load(held, waiting).await,
                None => Err(LoadError::NoRoom),
            };
            let loaded = brought.map(|(chunk, segment)| {
                cache.keep(part, segment, Arc::clone(&chunk));
                chunk
            });
            let mut loading = cache.loading.lock().unwrap_or_else(PoisonError::into_inner);
            loading.remove(&part);
            drop(loading);
            loaded
        });
        let stopped = || {
            let (op, detail) = (store::bucket::Op::Get, "the agent stops");
            LoadError::Unavailable(store::bucket::Error::unknown(op, "", detail))
        };
        let outcome = async move { task.join().await.unwrap_or_else(|| Err(stopped())) };
        Flight {
            outcome: outcome.boxed().shared(),
            waits,
        }
    }

    fn evict_idle(&self) -> bool {
        let mut kept = self.kept();
        let evicted = kept.evict_idle();
        self.metrics.cache_bytes.set(kept.bytes());
        drop(kept);
        evicted.is_some()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The maps are whole whenever the lock is free: no code that can panic runs under it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests;
