//! Loads parts of files before a reader asks for them, as [`super::ahead`] decides. It must not know what a reader is.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::stream::{self, StreamExt};
use host::task::Task;
use meta::places::{Located, SlicePlace};
use rpc::call::Locate;
use rpc::{Client, Position};
use tokio::sync::Semaphore;

use super::ahead::{Ahead, Step, Who};
use super::read::Reader;

/// How much of a partition one look names at least: as much as a fetch asks for by default.
const LOOK_BYTES: u64 = 1 << 20;
/// Parts that are loaded ahead at one time, for all readers: they leave most requests to those who wait.
const LOADS_MAX: usize = 8;

pub(crate) struct Prefetch {
    control: Client,
    reader: Arc<Reader>,
    ahead: Mutex<Ahead<Task<()>>>,
    /// Whether any reader lags behind, so that other answers are not looked at.
    has_readers: AtomicBool,
    loads: Semaphore,
}

impl Prefetch {
    /// Loads with `reader` what `control` finds, up to `bytes_max` ahead of all readers.
    pub(crate) fn new(control: Client, reader: Arc<Reader>, bytes_max: u64) -> Self {
        Prefetch {
            control,
            reader,
            ahead: Mutex::new(Ahead::new(bytes_max)),
            has_readers: AtomicBool::new(false),
            loads: Semaphore::new(LOADS_MAX),
        }
    }

    /// Whether answers are to be told for which nothing was loaded.
    pub(crate) fn has_readers(&self) -> bool {
        self.has_readers.load(Relaxed)
    }

    /// Takes note of what an answer brought.
    pub(crate) fn answered(self: &Arc<Self>, steps: &[(Who, Step)]) {
        let now = host::clock::now();
        let mut ahead = self.ahead();
        for (who, step) in steps {
            if let Some(from) = ahead.answered(now, *who, *step) {
                let work = Arc::clone(self).load(*who, from);
                ahead.begun(*who, host::task::spawn("prefetch", work));
            }
        }
        self.has_readers.store(!ahead.is_empty(), Relaxed);
    }

    async fn load(self: Arc<Self>, who: Who, from: i64) {
        let wanted = Locate {
            partition: who.partition,
            offset: from,
            max_bytes: LOOK_BYTES,
        };
        let located = self.control.locate(vec![wanted], Position::default()).await;
        let found = located.ok().and_then(|(_, mut located)| located.pop());
        let places = match found {
            Some(Located::Found { places, .. }) => places,
            _ => Vec::new(),
        };
        let wanted = self.ahead().located(who, &places);
        let loads = wanted.into_iter();
        let loads = loads.map(|place| self.load_one(who, place));
        stream::iter(loads)
            .buffer_unordered(LOADS_MAX)
            .collect::<()>()
            .await;
    }

    async fn load_one(&self, who: Who, place: SlicePlace) {
        if let Ok(_turn) = self.loads.acquire().await {
            self.reader.load_ahead(who.partition, &place).await;
        }
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead<Task<()>>> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
