//! Performs a node's requests on the engine, the bucket and the state machine; each yields the
//! event that answers it, within a time limit. It must not know why the node asks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use host::backoff::Backoff;
use host::clock;
use host::task::Task;
use sha2::{Digest, Sha256};
use store::bucket::{Bucket, IsWhole, Key, Payload};
use store::layout::BODIES;
use store::retry::{Limits, Retry};

use super::{Capture, Others, Part, PartId, Parts, Shared, StateMachine};
use crate::engine::{Append, Content, End, Engine, Error, TakeError, Tenure, WINDOW};
use crate::entry::{Body, DecodeError, Entry, EntryId};
use crate::node::{Ask, Event, Loaded, Run, Slot, Verdict};
use crate::quarantine::Quarantined;
use crate::snapshot::archive::{Archive, Found, Read};
use crate::snapshot::manifest::{Chunk, Manifest};
use crate::snapshot::{Cut, Unreadable};

/// How long an append may take before it is sent again.
const APPEND_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a read of the floor, or a take, may take before it begins again.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the other nodes together may take to say how far they have come, before they are asked again.
const HEAR_TIMEOUT: Duration = Duration::from_secs(30);
/// How often what is damaged is read, since it may have been altered on the way, or be a gateway's word on an error.
const READS_OF_DAMAGE: u32 = 8;
/// The pauses between these reads, some 1.5 seconds together: what is wrong on the way may pass.
const READ_AGAIN: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// How often a snapshot that cannot be used is restored before it is removed.
const RESTORES: u32 = 3;

/// A run with so many bytes is most likely followed by more slots.
const LONG_RUN_BYTES: usize = 16 << 20;
/// The most bytes of a run, with bodies; one more slot is not read beyond them.
const RUN_BYTES: usize = 32 << 20;

pub(super) struct Requests<S> {
    engine: Arc<dyn Engine>,
    /// The last tenure, in which alone entries are appended and slots trimmed.
    tenure: Mutex<Option<Arc<dyn Tenure>>>,
    bucket: Arc<dyn Bucket>,
    others: Arc<dyn Others>,
    archive: Archive,
    /// The parts of the last snapshot that have an identity, and their chunks in the bucket.
    parts: Mutex<BTreeMap<PartId, Chunk>>,
    retry: Retry,
    shared: Arc<Shared<S>>,
    /// The next run, which is read while the one before is applied. There is one at most, so it
    /// takes at most as much memory again as a scan.
    ahead: Mutex<Option<Ahead>>,
}

/// A run that the node has not asked for yet.
struct Ahead {
    from: u64,
    run: Task<Run>,
}

impl<S: StateMachine> Requests<S> {
    pub(super) fn new(parts: Parts, shared: Arc<Shared<S>>) -> Self {
        Requests {
            archive: Archive::new(Arc::clone(&parts.bucket)),
            parts: Mutex::default(),
            engine: parts.engine.into(),
            tenure: Mutex::new(None),
            bucket: parts.bucket,
            others: parts.others,
            retry: Retry::new(Limits::FILES),
            shared,
            ahead: Mutex::new(None),
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
            let Some(tenure) = self.tenure() else {
                return Append::Superseded;
            };
            let began = clock::now();
            let sent = tenure.append(id.index, id.nonce, bytes);
            match clock::timeout(APPEND_TIMEOUT, sent).await {
                Ok(outcome) => {
                    self.shared.status().append_latency = Some(clock::now().since(began));
                    outcome
                }
                Err(elapsed) => Append::Unknown(elapsed.to_string()),
            }
        };
        Event::AppendDone(id, append.await)
    }

    fn tenure(&self) -> Option<Arc<dyn Tenure>> {
        // No code that can panic runs under the lock, so a poisoned value is still whole.
        let tenure = self.tenure.lock();
        tenure.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells the engine of a claim that counts.
    pub(super) fn claimed(&self, index: u64) {
        self.engine.claimed(index);
    }

    /// Tells the last tenure that its claim counts.
    pub(super) fn confirmed(&self) {
        if let Some(tenure) = self.tenure() {
            tenure.confirmed();
        }
    }

    pub(super) async fn take(&self, ask: Ask, from: u64, through: u64) -> Event {
        let taken = clock::timeout(READ_TIMEOUT, self.engine.take(from, through)).await;
        let taken = match taken {
            Ok(Ok(taken)) => taken,
            Ok(Err(error)) => return Event::Taken(ask, Err(error)),
            Err(elapsed) => {
                let why = elapsed.to_string();
                return Event::Taken(ask, Err(TakeError::Unavailable(why)));
            }
        };
        *self.tenure.lock().unwrap_or_else(PoisonError::into_inner) = Some(taken.tenure);
        let run = self
            .complete_all(taken.settled, usize::MAX, End::Free)
            .await;
        let settled = match run.end {
            End::Undecided(why) => Err(TakeError::Unavailable(why)),
            End::Free | End::More | End::Unsettled => Ok(run.slots),
        };
        Event::Taken(ask, settled)
    }

    pub(super) async fn read_floor(&self, ask: Ask, end: u64) -> Event {
        let is_damaged = |read: &_| matches!(read, Err(Error::Corrupt(_)));
        let mut read = limited(self.floor_and_gap(end)).await;
        if is_damaged(&read) {
            let mut pauses = READ_AGAIN.start();
            for _ in 1..READS_OF_DAMAGE {
                pauses.pause().await;
                read = limited(self.floor_and_gap(end)).await;
                if !is_damaged(&read) {
                    break;
                }
            }
        }
        Event::FloorRead(ask, read)
    }

    /// The floor; damage if slot `end` is free although more slots follow than can have been in
    /// flight.
    async fn floor_and_gap(&self, end: u64) -> Result<u64, Error> {
        let above = self.engine.above(end + WINDOW - 1);
        let (floor, above) = futures::future::join(self.engine.floor(), above).await;
        let floor = floor?;
        if floor > end {
            return Ok(floor);
        }
        let Some(above) = above? else {
            return Ok(floor);
        };
        // Other nodes may have appended since `end` was read, or trimmed.
        let scan = self.engine.scan(end, 1).await;
        match scan.end {
            _ if !scan.slots.is_empty() => return Ok(floor),
            End::Undecided(why) => return Err(Error::Unavailable(why)),
            // It is being written, or was when its writer ended: it is not gone.
            End::Unsettled => return Ok(floor),
            End::Free | End::More => {}
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

    /// Reads the run of slots from `from` on; if more probably follow, reads those ahead.
    pub(super) async fn scan(self: &Arc<Self>, ask: Ask, from: u64, limit: usize) -> Event {
        let run = match self.take_ahead(from).await {
            Some(run) => run,
            None => self.run(from, limit).await,
        };
        if let Some(last) = run.slots.last() {
            let bytes: usize = run.slots.iter().map(Slot::len).sum();
            if (run.slots.len() >= limit && limit > 1) || bytes >= LONG_RUN_BYTES {
                self.read_ahead(last.index + 1, limit);
            }
        }
        Event::Scanned(ask, run)
    }

    /// The run that was read ahead from this slot, if there is one; a look elsewhere leaves it. A slot that was free then may
    /// be occupied now, and an error may have passed, so these are dropped; a slot's contents stay
    /// what they were, and whether they may have been put where a slot was trimmed, the floor
    /// decides, which is read later.
    async fn take_ahead(&self, from: u64) -> Option<Run> {
        let ahead = self.ahead().take_if(|ahead| ahead.from == from)?;
        let run = ahead.run.join().await?;
        (!run.slots.is_empty()).then_some(run)
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

    async fn run(&self, from: u64, limit: usize) -> Run {
        let scan = self.engine.scan(from, limit).await;
        self.complete_all(scan.slots, RUN_BYTES, scan.end).await
    }

    /// Completes slots with their bodies, up to so many bytes but at least one slot. A slot that
    /// cannot be completed ends the run; those before it are kept.
    async fn complete_all(&self, found: Vec<(u64, Content)>, most: usize, end: End) -> Run {
        let mut run = Run {
            slots: Vec::with_capacity(found.len()),
            end,
        };
        let mut bytes = 0;
        for (index, content) in found {
            if bytes >= most {
                run.end = End::More;
                break;
            }
            match self.complete(index, content).await {
                Ok(slot) => {
                    bytes += slot.len();
                    run.slots.push(slot);
                }
                Err(error) => {
                    run.end = End::Undecided(error.to_string());
                    break;
                }
            }
        }
        run
    }

    /// A slot, read again if it does not decode, with its body if that is stored apart.
    async fn complete(&self, index: u64, content: Content) -> Result<Slot, Error> {
        let content = match is_damaged(&content) {
            true => self.read_again(index, content).await?,
            false => content,
        };
        let body = match &content {
            Content::Entry(bytes) => match Entry::decode(bytes).map(|entry| entry.body) {
                Ok(Body::Elsewhere(reference)) => {
                    let key = body_key(&reference.sha256);
                    self.read_body(&key, &reference.sha256).await?
                }
                _ => None,
            },
            Content::Filler => None,
        };
        Ok(Slot {
            index,
            content,
            body,
        })
    }

    /// What a slot holds of which damaged bytes were read; damaged only if it stays so.
    async fn read_again(&self, index: u64, damaged: Content) -> Result<Content, Error> {
        let mut content = damaged;
        let mut pauses = READ_AGAIN.start();
        for _ in 1..READS_OF_DAMAGE {
            pauses.pause().await;
            // Without an answer nothing more is known of the slot.
            let again = self.engine.scan(index, 1).await;
            match (again.slots.into_iter().next(), again.end) {
                (Some((_, read)), _) => content = read,
                (None, End::Undecided(why)) => return Err(Error::Unavailable(why)),
                (None, End::Free | End::More | End::Unsettled) => {}
            }
            if !is_damaged(&content) {
                break;
            }
        }
        Ok(content)
    }

    /// A body that is stored apart; damaged only if it stays so.
    async fn read_body(&self, key: &Key, sha256: &[u8; 32]) -> Result<Option<Bytes>, Error> {
        let sha256 = *sha256;
        let is_whole: IsWhole = Arc::new(move |body| Sha256::digest(body).as_slice() == sha256);
        let bucket = self.bucket.as_ref();
        let read = self.retry.get_whole(bucket, key, &is_whole).await;
        read.map_err(unavailable)
    }

    pub(super) async fn load_snapshot(
        &self,
        ask: Ask,
        above: u64,
        leaves_out: &[Quarantined],
    ) -> Event {
        Event::SnapshotLoaded(ask, self.load(above, leaves_out).await)
    }

    pub(super) async fn find_snapshot(&self, ask: Ask, from: u64) -> Event {
        let listed = self.archive.list(from - 1).await.map_err(unavailable);
        Event::SnapshotFound(ask, listed.map(|found| Some(found.last()?.index)))
    }

    pub(super) async fn hear(&self, ask: Ask, slot: u64) -> Event {
        let heard = clock::timeout(HEAR_TIMEOUT, self.others.applied(slot)).await;
        let heard = heard.unwrap_or_else(|elapsed| Err(elapsed.to_string()));
        Event::Heard(ask, heard.map_err(Error::Unavailable))
    }

    async fn load(&self, above: u64, leaves_out: &[Quarantined]) -> Result<Loaded, Error> {
        // The floor is read first: only snapshots below the two that it rests on are ever removed.
        let floor = limited(self.engine.floor()).await?;
        let (mut damaged, mut is_newer) = (Vec::new(), false);
        for found in self.archive.list(above).await.map_err(unavailable)? {
            let (manifest, state) = match self.restored(&found).await? {
                Ok((manifest, state, _)) => match manifest.cut.holds(leaves_out) {
                    None => (manifest, state),
                    Some(slot) => {
                        damaged.push(format!(
                            "{} holds entry {slot}, which is quarantined",
                            found.key
                        ));
                        continue;
                    }
                },
                Err(why) => {
                    tracing::error!(%why, "a snapshot cannot be used; an older one is tried");
                    is_newer |= matches!(why, Unreadable::Newer(_));
                    damaged.push(why.to_string());
                    continue;
                }
            };
            self.engine.adopt(&manifest.mark)?;
            let bytes = manifest
                .chunks
                .iter()
                .map(|stored| stored.chunk.length)
                .sum();
            let before = {
                let shared = self.shared.state.write();
                let mut shared = shared.unwrap_or_else(PoisonError::into_inner);
                let before = std::mem::replace(&mut *shared, state);
                shared.adopted(manifest.cut.last);
                before
            };
            // Dropping a large state takes a while.
            host::task::spawn_blocking(move || drop(before)).await;
            return Ok(Loaded::Restored {
                cut: Box::new(manifest.cut),
                floor,
                bytes,
            });
        }
        Ok(Loaded::Nothing {
            floor,
            damaged,
            is_newer,
        })
    }

    /// Reads and restores a snapshot beside the state in use, and compares it with its manifest;
    /// yields how long that kept a core busy.
    async fn restored(
        &self,
        found: &Found,
    ) -> Result<Result<(Manifest, S, Duration), Unreadable>, Error> {
        let (manifest, chunks) = match self.archive.read(found).await.map_err(unavailable)? {
            Read::Whole(manifest, chunks) => (*manifest, chunks),
            Read::Unusable(why) => return Ok(Err(why)),
        };
        let mut state = {
            let shared = self.shared.state.read();
            shared.unwrap_or_else(PoisonError::into_inner).genesis()
        };
        let restored = host::task::spawn_blocking(move || {
            let began = clock::now();
            state.restore(chunks)?;
            let seal = state.seal();
            Ok::<_, Unreadable>((state, seal, clock::now().since(began)))
        });
        Ok(match restored.await {
            Ok((state, seal, took)) if seal == manifest.seal => Ok((manifest, state, took)),
            Ok(_) => Err(Unreadable::Damaged(format!(
                "{} restores to another state than it was cut from",
                found.key
            ))),
            Err(Unreadable::Damaged(why)) => {
                Err(Unreadable::Damaged(format!("{}: {why}", found.key)))
            }
            Err(Unreadable::Newer(why)) => Err(Unreadable::Newer(format!("{}: {why}", found.key))),
        })
    }

    pub(super) async fn write_snapshot(
        &self,
        cut: Cut,
        older: Option<u64>,
        mut capture: Box<dyn Capture>,
    ) -> Event {
        if host::trial::leaves_out("snapshot-mislabelled") {
            clock::sleep(APPEND_TIMEOUT / 10).await;
            let state = self.shared.state.read();
            capture = state.unwrap_or_else(PoisonError::into_inner).capture();
        }
        let (index, claim) = (cut.last.index, cut.claim.index);
        let known = self.known_parts(claim);
        let encoded = host::task::spawn_blocking(move || {
            let seal = capture.seal();
            let parts = capture.encode(&|id| known.contains_key(&id));
            let parts = parts.into_iter().map(|part| match part {
                Part::Same(id) => (Some(id), known[&id], None),
                Part::Encoded(id, bytes) => (id, Chunk::of(&bytes), Some(bytes)),
            });
            (seal, parts.collect::<Vec<_>>())
        });
        let (seal, parts) = encoded.await;
        let identified = parts
            .iter()
            .filter_map(|(id, chunk, _)| Some(((*id)?, *chunk)));
        *self.parts() = identified.collect();
        let bytes = parts.iter().map(|(_, chunk, _)| chunk.length).sum();
        let parts = parts.into_iter().map(|(_, chunk, bytes)| (chunk, bytes));
        let mark = self.engine.mark(index);
        let describe = |chunks| Manifest {
            cut,
            seal,
            mark,
            chunks,
        };
        let written = self.archive.write(claim, parts.collect(), describe).await;
        if written.is_ok()
            && let Err(error) = self.archive.sweep(older.unwrap_or(0), claim).await
        {
            // Snapshots left over are found again after the next one.
            tracing::warn!(%error, "old snapshots could not be removed");
        }
        let written = written.map(|()| bytes).map_err(|error| error.to_string());
        Event::SnapshotWritten(index, written)
    }

    /// The parts of the last snapshot that was written under this claim.
    fn known_parts(&self, claim: u64) -> BTreeMap<PartId, Chunk> {
        let mut parts = self.parts().clone();
        parts.retain(|_, chunk| self.archive.has(claim, chunk));
        parts
    }

    fn parts(&self) -> MutexGuard<'_, BTreeMap<PartId, Chunk>> {
        // It is whole at any time.
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Restores a snapshot beside the state in use, and tells whether it equals the state it was
    /// cut from. One that does not is removed: it is of no use to anybody.
    pub(super) async fn verify_snapshot(&self, index: u64) -> Event {
        let verdict = self.verdict(index).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "a snapshot could not be verified; it is tried again");
            Verdict::Unknown
        });
        Event::SnapshotVerified(index, verdict)
    }

    async fn verdict(&self, index: u64) -> Result<Verdict, Error> {
        let listed = self.archive.list(index - 1).await.map_err(unavailable)?;
        let Some(found) = listed.into_iter().find(|found| found.index == index) else {
            // Another leader has removed it, or an attempt of ours whose answer was lost.
            self.forget_chunks();
            return Ok(Verdict::Useless);
        };
        for reads in 1.. {
            match self.restored(&found).await? {
                Ok((_, _, took)) => return Ok(Verdict::Whole(took)),
                // Another build has written it, which can use it.
                Err(Unreadable::Newer(why)) => {
                    tracing::warn!(%why, "a snapshot cannot be used here, and is not counted on");
                    return Ok(Verdict::Useless);
                }
                Err(_) if reads < RESTORES => {}
                Err(why) => {
                    tracing::error!(%why, "a snapshot cannot be used, and is removed; the journal is not trimmed for it");
                    break;
                }
            }
        }
        self.forget_chunks();
        self.archive.remove(&found).await.map_err(unavailable)?;
        Ok(Verdict::Useless)
    }

    /// Has the next snapshot written whole: chunks that were written before may be what is damaged.
    fn forget_chunks(&self) {
        self.archive.forget();
        self.parts().clear();
    }

    /// Trims slots that the state does not need any more.
    pub(super) async fn trim(
        &self,
        (floor, through): (u64, u64),
        indices: Vec<u64>,
        bodies: Vec<(u64, [u8; 32])>,
    ) -> Event {
        let trim = async {
            let Some(tenure) = self.tenure() else {
                return Err(Error::Unavailable("there is no tenure".to_owned()));
            };
            let needed = {
                let state = self.shared.state.read();
                state.unwrap_or_else(PoisonError::into_inner).needs(through)
            };
            let is_free = |index: &u64| !needed.contains(index);
            let indices: Vec<u64> = indices.into_iter().filter(is_free).collect();
            tenure.trim(floor, &indices).await?;
            for (_, sha256) in bodies.iter().filter(|(index, _)| is_free(index)) {
                let key = body_key(sha256);
                let deleted = self.retry.delete(self.bucket.as_ref(), &key).await;
                deleted.map_err(unavailable)?;
            }
            Ok(())
        };
        Event::Trimmed(through, trim.await)
    }
}

fn body_key(sha256: &[u8; 32]) -> Key {
    let hash: String = sha256.iter().map(|byte| format!("{byte:02x}")).collect();
    Key::new(format!("{BODIES}{hash}")).expect("a key of a body is a key")
}

fn is_damaged(content: &Content) -> bool {
    match content {
        Content::Entry(bytes) => matches!(Entry::decode(bytes), Err(DecodeError::Corrupt(_))),
        Content::Filler => false,
    }
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
