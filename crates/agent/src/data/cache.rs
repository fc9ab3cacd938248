//! Parts of files in memory, shared by all readers: bounded by bytes, and each part loaded once for
//! all who want it. Files of this agent are put in as they are uploaded, so that readers at the
//! tail never ask the bucket. It must not know topics or offsets.
//!
//! Two bounds hold. Chunks kept for later take at most `cache_bytes`; the least recently used goes
//! first. And every chunk, kept or still in some reader's hands, counts against `cache_bytes +
//! buffer_bytes` until its last user drops it: a slow reader cannot pin memory unseen.

use std::collections::{BTreeMap, HashMap};
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

pub use chunk::{Chunk, Corrupt, Entry, check_id, read_file, read_slice};

/// Memory of a kept chunk beside its bytes: map nodes and list heads.
const CHUNK_OVERHEAD_BYTES: u64 = 512;
/// To make room, this many of the oldest chunks are tried; a chunk that a reader holds frees
/// nothing. Held chunks were used lately and are seldom among the oldest.
const EVICT_LOOKS: usize = 64;
/// How often a load that waits for memory looks again for chunks to evict.
const EVICT_AGAIN: Duration = Duration::from_millis(20);

/// A part of a file: all of it, or one slice of a large one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Part {
    pub file: FileId,
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
}

pub type Loaded = Result<Arc<Chunk>, LoadError>;

/// The cache; see the module.
pub struct Cache {
    kept: Mutex<Kept>,
    loading: Mutex<HashMap<Part, Flight>>,
    capacity_bytes: u64,
    budget: Budget,
    metrics: Arc<Metrics>,
}

#[derive(Clone)]
struct Flight {
    outcome: Shared<BoxFuture<'static, Loaded>>,
    /// True while the load waits for memory.
    is_waiting: Arc<AtomicBool>,
}

/// How a load takes its memory.
#[derive(Clone, Copy, Debug)]
pub struct Need {
    pub bytes: u64,
    /// Waits until enough is free, which only a caller that holds no chunk may do. Otherwise the
    /// load ends with [`LoadError::NoRoom`].
    pub may_wait: bool,
}

#[derive(Default)]
struct Kept {
    chunks: HashMap<Part, (Arc<Chunk>, u64)>,
    used: BTreeMap<u64, Part>,
    clock: u64,
    bytes: u64,
}

impl Cache {
    /// An empty cache that keeps `cache_bytes`; `budget` covers these and what readers hold beyond.
    pub fn new(cache_bytes: u64, budget: Budget, metrics: Arc<Metrics>) -> Self {
        Cache {
            kept: Mutex::default(),
            loading: Mutex::default(),
            capacity_bytes: cache_bytes,
            budget,
            metrics,
        }
    }

    /// Notes that an answer was cut short for want of memory.
    pub fn note_short(&self, now: Instant) {
        self.budget.note_short(now);
    }

    /// The chunk that holds a slice: the whole file, or just this slice of it.
    pub fn find(&self, file: FileId, position: u64) -> Option<Arc<Chunk>> {
        let mut kept = self.kept();
        kept.touch(Part { file, slice: None }).or_else(|| {
            kept.touch(Part {
                file,
                slice: Some(position),
            })
        })
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
    pub fn keep(&self, part: Part, chunk: Arc<Chunk>) {
        let bytes = chunk.held_bytes() + CHUNK_OVERHEAD_BYTES;
        if bytes > self.capacity_bytes {
            return;
        }
        let mut kept = self.kept();
        kept.insert(part, chunk);
        while kept.bytes > self.capacity_bytes && kept.evict().is_some() {}
        self.metrics.cache_bytes.set(kept.bytes);
    }

    /// Removes a part.
    pub fn forget(&self, part: Part) {
        let mut kept = self.kept();
        drop(kept.remove(part));
        self.metrics.cache_bytes.set(kept.bytes);
    }

    /// Loads a part, once for all callers, unless the cache has it; keeps the chunk that `load`
    /// yields.
    pub async fn load<F: Future<Output = Loaded> + Send + 'static>(
        self: &Arc<Self>,
        part: Part,
        need: Need,
        load: impl FnOnce(Held) -> F + Send + 'static,
    ) -> Loaded {
        let flight = {
            let mut loading = self.loading.lock().unwrap_or_else(PoisonError::into_inner);
            match loading.get(&part) {
                Some(flight) if !need.may_wait && flight.is_waiting.load(Relaxed) => {
                    return Err(LoadError::NoRoom);
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
    fn start<F: Future<Output = Loaded> + Send + 'static>(
        self: &Arc<Self>,
        part: Part,
        need: Need,
        load: impl FnOnce(Held) -> F + Send + 'static,
    ) -> Flight {
        let is_waiting = Arc::new(AtomicBool::new(need.may_wait));
        let (cache, waits) = (Arc::clone(self), Arc::clone(&is_waiting));
        let task = host::task::spawn("load", async move {
            let held = match cache.try_hold(need.bytes) {
                None if need.may_wait => Some(cache.hold(need.bytes).await),
                held => held,
            };
            waits.store(false, Relaxed);
            let loaded = match held {
                Some(held) => load(held).await,
                None => Err(LoadError::NoRoom),
            };
            if let Ok(chunk) = &loaded {
                cache.keep(part, Arc::clone(chunk));
            }
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
            is_waiting,
        }
    }

    fn evict_idle(&self) -> bool {
        let mut kept = self.kept();
        let evicted = kept.evict_idle();
        self.metrics.cache_bytes.set(kept.bytes);
        drop(kept);
        evicted.is_some()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // The maps are whole whenever the lock is free: no code that can panic runs under it.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn touch(&mut self, part: Part) -> Option<Arc<Chunk>> {
        let (chunk, used) = self.chunks.get_mut(&part)?;
        // Most reads hit the chunk that was read last; the order needs no change then.
        if *used != self.clock {
            self.used.remove(used);
            self.clock += 1;
            *used = self.clock;
            self.used.insert(self.clock, part);
        }
        Some(Arc::clone(chunk))
    }

    fn insert(&mut self, part: Part, chunk: Arc<Chunk>) {
        drop(self.remove(part));
        self.clock += 1;
        self.bytes += chunk.held_bytes() + CHUNK_OVERHEAD_BYTES;
        self.used.insert(self.clock, part);
        self.chunks.insert(part, (chunk, self.clock));
    }

    fn remove(&mut self, part: Part) -> Option<Arc<Chunk>> {
        let (chunk, used) = self.chunks.remove(&part)?;
        self.used.remove(&used);
        self.bytes -= chunk.held_bytes() + CHUNK_OVERHEAD_BYTES;
        Some(chunk)
    }

    /// Evicts the least recently used chunk that nobody else holds.
    fn evict_idle(&mut self) -> Option<Arc<Chunk>> {
        for _ in 0..self.used.len().min(EVICT_LOOKS) {
            let part = *self.used.first_key_value()?.1;
            let (chunk, used) = self.chunks.get_mut(&part)?;
            // While the map is locked nobody else can get the chunk from it.
            if Arc::strong_count(chunk) == 1 {
                return self.remove(part);
            }
            // A reader holds it, so it counts as used now.
            self.used.remove(used);
            self.clock += 1;
            *used = self.clock;
            self.used.insert(self.clock, part);
        }
        None
    }

    fn evict(&mut self) -> Option<Arc<Chunk>> {
        let part = *self.used.first_key_value()?.1;
        self.remove(part)
    }
}

#[cfg(test)]
mod tests;
