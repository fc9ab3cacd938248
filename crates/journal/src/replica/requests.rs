//! What a node asks for, done on the engine, the bucket and the state machine; each gives the
//! event that answers it, within a time limit. It must not know why it is asked.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use host::clock;
use host::task::Task;
use sha2::{Digest, Sha256};
use store::bucket::{Bucket, Key, Payload};
use store::layout::BODIES;
use store::retry::{Limits, Retry};

use super::{Parts, Shared, StateMachine};
use crate::chain::SLOTS_AHEAD_MAX;
use crate::engine::{Append, Engine, Error};
use crate::entry::{Body, DecodeError, Entry, EntryId};
use crate::node::{Event, Loaded, Slot};
use crate::snapshot::Cut;
use crate::snapshot::archive::{Archive, Read};
use crate::snapshot::manifest::Chunk;

/// How long an append may take before its slot is read.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How often what is damaged is read, since bytes may be altered on the way.
const READS_OF_DAMAGE: u32 = 3;

/// A run of slots of this many bytes has more behind it, most likely.
const LONG_RUN_BYTES: usize = 16 << 20;

/// Everything that requests need.
pub(super) struct Requests<S> {
    engine: Arc<dyn Engine>,
    bucket: Arc<dyn Bucket>,
    archive: Archive,
    retry: Retry,
    shared: Arc<Shared<S>>,
    /// The next run, which is read while the one before is applied: one at most, hence as much
    /// memory again as a scan takes.
    ahead: Mutex<Option<Ahead>>,
    /// Slots that one scan asks for: halved when one fails, so that each reads what can be read in
    /// its time, however slow the bucket is.
    scan_slots: AtomicUsize,
}

/// A run that nobody has asked for yet.
struct Ahead {
    from: u64,
    run: Task<Result<Vec<Slot>, Error>>,
}

impl<S: StateMachine> Requests<S> {
    pub(super) fn new(parts: Parts, shared: Arc<Shared<S>>) -> Self {
        Requests {
            archive: Archive::new(Arc::clone(&parts.bucket)),
            engine: parts.engine,
            bucket: parts.bucket,
            retry: Retry::new(Limits::FILES),
            shared,
            ahead: Mutex::new(None),
            scan_slots: AtomicUsize::new(usize::MAX),
        }
    }

    pub(super) async fn append(
        &self,
        id: EntryId,
        bytes: Bytes,
        body: Option<([u8; 32], Bytes)>,
    ) -> Event {
        let append = async {
            if let Some((sha256, object)) = body {
                let payload = Payload::from(object);
                let bucket = self.bucket.as_ref();
                let key = body_key(&sha256);
                if let Err(error) = self.retry.put_immutable(bucket, &key, &payload).await {
                    return Append::Unknown(error.to_string());
                }
            }
            let began = clock::now();
            match clock::timeout(
                APPEND_TIMEOUT,
                self.engine.append(id.index, id.nonce, bytes),
            )
            .await
            {
                Ok(outcome) => {
                    self.shared.status().append_latency = Some(clock::now().since(began));
                    match outcome {
                        // It may be this very entry, altered on the way: the slot is read again.
                        Append::Occupied(found) if is_damaged(&found) => {
                            Append::Unknown("what its slot holds came back damaged".to_owned())
                        }
                        outcome => outcome,
                    }
                }
                Err(elapsed) => Append::Unknown(elapsed.to_string()),
            }
        };
        Event::AppendDone(id, append.await)
    }

    pub(super) async fn read_slot(&self, index: u64) -> Event {
        Event::SlotRead(index, limited(self.read_checked(index)).await)
    }

    pub(super) async fn read_floor(&self, end: u64) -> Event {
        let mut read = limited(self.floor_and_gap(end)).await;
        for _ in 1..READS_OF_DAMAGE {
            match read {
                Err(Error::Corrupt(_)) => read = limited(self.floor_and_gap(end)).await,
                _ => break,
            }
        }
        Event::FloorRead(read)
    }

    /// The floor; damage if slot `end` is free although more slots follow than were ever in flight.
    async fn floor_and_gap(&self, end: u64) -> Result<u64, Error> {
        let floor = self.engine.floor().await?;
        if floor > end {
            return Ok(floor);
        }
        let Some(above) = self.engine.above(end + SLOTS_AHEAD_MAX - 1).await? else {
            return Ok(floor);
        };
        // Others may have gone on since `end` was read, or have trimmed.
        if self.engine.read(end).await?.is_some() {
            return Ok(floor);
        }
        let floor = self.engine.floor().await?;
        if floor > end {
            return Ok(floor);
        }
        Err(Error::Corrupt(format!(
            "entry {end} of the journal is missing, though entry {above} is there. Restore that \
             object from a copy of the bucket and start again"
        )))
    }

    /// The run of slots from here. If there is most likely more behind it, that is read meanwhile.
    pub(super) async fn scan(self: &Arc<Self>, from: u64, limit: usize) -> Event {
        let run = match self.take_ahead(from).await {
            Some(run) => Ok(run),
            None => self.run(from, limit).await,
        };
        if let Ok(slots) = &run
            && let Some(last) = slots.last()
        {
            let bytes: usize = slots.iter().map(|slot| slot.bytes.len()).sum();
            if slots.len() >= limit || bytes >= LONG_RUN_BYTES {
                self.read_ahead(last.index + 1, limit);
            }
        }
        Event::Scanned(from, run)
    }

    /// What was read ahead from this slot, if anything. That a slot was free then says nothing
    /// about now, and an error may have passed; what a slot held it holds still, and whether that
    /// may have been put where a slot was trimmed is decided by the floor, which is read after.
    async fn take_ahead(&self, from: u64) -> Option<Vec<Slot>> {
        let ahead = self.ahead().take();
        let ahead = ahead.filter(|ahead| ahead.from == from)?;
        let run = ahead.run.join().await?;
        run.ok().filter(|slots| !slots.is_empty())
    }

    fn read_ahead(self: &Arc<Self>, from: u64, limit: usize) {
        let requests = Arc::clone(self);
        let run = host::task::spawn("journal read-ahead", async move {
            requests.run(from, limit).await
        });
        *self.ahead() = Some(Ahead { from, run });
    }

    fn ahead(&self) -> MutexGuard<'_, Option<Ahead>> {
        // It is whole at any time.
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(&self, from: u64, limit: usize) -> Result<Vec<Slot>, Error> {
        let limit = limit.min(self.scan_slots.load(Relaxed));
        let found = limited(self.engine.scan(from, limit)).await;
        let next = match found {
            Ok(_) => limit.saturating_mul(2),
            Err(_) => (limit / 2).max(1),
        };
        self.scan_slots.store(next, Relaxed);
        let found = found?;
        let mut slots = Vec::with_capacity(found.len());
        for (index, bytes) in found {
            slots.push(self.complete(index, bytes).await?);
        }
        Ok(slots)
    }

    /// The slot, read again if it does not decode.
    async fn read_checked(&self, index: u64) -> Result<Option<Bytes>, Error> {
        let mut read = self.engine.read(index).await?;
        for _ in 1..READS_OF_DAMAGE {
            match &read {
                Some(bytes) if is_damaged(bytes) => read = self.engine.read(index).await?,
                _ => break,
            }
        }
        Ok(read)
    }

    /// The slot with its body, if that lies elsewhere.
    async fn complete(&self, index: u64, bytes: Bytes) -> Result<Slot, Error> {
        let bytes = match is_damaged(&bytes) {
            true => limited(self.read_checked(index)).await?.unwrap_or(bytes),
            false => bytes,
        };
        let body = match Entry::decode(&bytes) {
            Ok(Entry {
                body: Body::Elsewhere(reference),
                ..
            }) => {
                let key = body_key(&reference.sha256);
                self.read_body(&key, &reference.sha256).await?
            }
            _ => None,
        };
        Ok(Slot { index, bytes, body })
    }

    /// A body that lies elsewhere, read again if it came back damaged.
    async fn read_body(&self, key: &Key, sha256: &[u8; 32]) -> Result<Option<Bytes>, Error> {
        let mut body = None;
        for _ in 0..READS_OF_DAMAGE {
            let read = self.retry.get(self.bucket.as_ref(), key).await;
            body = read.map_err(unavailable)?;
            let is_whole = |body: &Bytes| Sha256::digest(body).as_slice() == sha256;
            if body.as_ref().is_none_or(is_whole) {
                break;
            }
        }
        Ok(body)
    }

    pub(super) async fn load_snapshot(&self, above: u64) -> Event {
        Event::SnapshotLoaded(self.load(above).await)
    }

    async fn load(&self, above: u64) -> Result<Loaded, Error> {
        // First the floor: snapshots are removed only below the two that it rests on.
        let floor = limited(self.engine.floor()).await?;
        let mut damaged = Vec::new();
        for found in self.archive.list(above).await.map_err(unavailable)? {
            let (cut, chunks) = match self.archive.read(&found).await.map_err(unavailable)? {
                Read::Whole(cut, chunks) => (cut, chunks),
                Read::Damaged(why) => {
                    tracing::error!(%why, "a snapshot cannot be used; an older one is tried");
                    damaged.push(why);
                    continue;
                }
            };
            let bytes = chunks.iter().map(|chunk| chunk.len() as u64).sum();
            let shared = Arc::clone(&self.shared);
            let restored = host::task::spawn_blocking(move || {
                let state = shared.state.write();
                state
                    .unwrap_or_else(PoisonError::into_inner)
                    .restore(chunks)
            });
            match restored.await {
                Ok(()) => {
                    let cut = Box::new(cut);
                    return Ok(Loaded::Restored { cut, floor, bytes });
                }
                Err(why) => {
                    tracing::error!(%why, key = %found.key, "a snapshot cannot be restored");
                    damaged.push(format!("{}: {why}", found.key));
                }
            }
        }
        Ok(Loaded::Nothing { floor, damaged })
    }

    pub(super) async fn write_snapshot(
        &self,
        cut: Cut,
        older: Option<u64>,
        capture: Box<dyn FnOnce() -> Vec<Bytes> + Send>,
    ) -> Event {
        let (index, claim) = (cut.last.index, cut.claim.index);
        let chunks = host::task::spawn_blocking(move || {
            let describe = |bytes: Bytes| (Chunk::of(&bytes), bytes);
            capture().into_iter().map(describe).collect::<Vec<_>>()
        });
        let chunks = chunks.await;
        let bytes = chunks.iter().map(|(chunk, _)| chunk.length).sum();
        let written = self.archive.write(cut, chunks).await;
        if written.is_ok()
            && let Some(older) = older
            && let Err(error) = self.archive.sweep(older, claim).await
        {
            // What is left over is found again after the next snapshot.
            tracing::warn!(%error, "old snapshots could not be removed");
        }
        let written = written.map(|()| bytes).map_err(|error| error.to_string());
        Event::SnapshotWritten(index, written)
    }

    pub(super) async fn trim(&self, floor: u64, indices: Vec<u64>, bodies: Vec<[u8; 32]>) -> Event {
        let trim = async {
            self.engine.trim(floor, &indices).await?;
            for sha256 in &bodies {
                let key = body_key(sha256);
                let deleted = self.retry.delete(self.bucket.as_ref(), &key).await;
                deleted.map_err(unavailable)?;
            }
            Ok(())
        };
        Event::Trimmed(trim.await)
    }
}

fn body_key(sha256: &[u8; 32]) -> Key {
    let hash: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    Key::new(format!("{BODIES}{hash}")).expect("a key of a body is a key")
}

fn is_damaged(bytes: &Bytes) -> bool {
    matches!(Entry::decode(bytes), Err(DecodeError::Corrupt(_)))
}

fn unavailable(error: store::bucket::Error) -> Error {
    Error::Unavailable(error.to_string())
}

async fn limited<T>(read: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match clock::timeout(READ_TIMEOUT, read).await {
        Ok(result) => result,
        Err(elapsed) => Err(Error::Unavailable(elapsed.to_string())),
    }
}
