//! The engine on one bucket: a slot is an object, created if absent; the floor is a chain of such
//! objects. It must not know what entries mean.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{join, try_join_all};
use futures::stream::{self, StreamExt, TryStreamExt};
use host::clock;
use store::bucket::{self, Bucket, Key, Payload, Put};
use store::layout::JOURNAL;
use store::retry::{Limits as Attempts, Retry};

use crate::engine::filler;
use crate::engine::settle::{Settle, Step};
use crate::engine::tenures::{Sending, Tenures};
use crate::engine::{Append, Content, End, Engine, Error, Limits, Scan, TakeError, Taken, Tenure};

pub(crate) mod floor;
#[cfg(test)]
mod tests;

/// The largest slot. Objects may be far larger, but a reader holds several at a time.
const SLOT_BYTES_MAX: usize = 8 << 20;
/// Slots read at the same time: a start reads thousands, each of which takes some 25 ms on S3.
const READS_AT_ONCE: usize = 64;
/// Roughly how many bytes one scan reads.
const SCAN_BYTES: u64 = 32 << 20;
/// After this long a scan returns what it has, so that it is applied while the rest is read.
const SCAN_FOR: Duration = Duration::from_secs(5);
/// Slots deleted at the same time.
const DELETES_AT_ONCE: usize = 16;
/// How long one slot may take to be read, repetitions included.
const READ_FOR: Duration = Duration::from_secs(8);
/// How often a take tries to close a slot before it fails, if the store contradicts itself.
const FILLS: u32 = 4;

/// The journal of one shard in a bucket.
pub struct Object {
    shared: Arc<Shared>,
}

/// What an engine and its tenures share.
struct Shared {
    bucket: Arc<dyn Bucket>,
    reads: Retry,
    shard: u16,
    /// The last link of the floor's chain that is known.
    floor: Mutex<floor::Link>,
    /// Tenures begun; only the last one may be at work.
    tenures: Tenures,
}

impl Object {
    /// The journal of `shard` in `bucket`.
    pub fn new(bucket: Arc<dyn Bucket>, shard: u16) -> Self {
        Object {
            shared: Arc::new(Shared {
                bucket,
                reads: Retry::new(Attempts::FILES),
                shard,
                floor: Mutex::new(floor::Link::default()),
                tenures: Tenures::default(),
            }),
        }
    }
}

impl Shared {
    fn prefix(&self) -> String {
        prefix(self.shard)
    }

    fn slot(&self, index: u64) -> Key {
        key(slot_name(self.shard, index))
    }

    /// The slot number in a key.
    fn index_of(&self, key: &Key) -> Option<u64> {
        let digits = key.as_str().strip_prefix(&self.prefix())?;
        let index = digits.parse().ok()?;
        (self.slot(index) == *key).then_some(index)
    }

    /// Slots after `after` by a listing, which may lag: index and size.
    async fn listed(&self, after: u64, limit: usize) -> Result<Vec<(u64, u64)>, Error> {
        let start = self.slot(after);
        let listed = self.bucket.list(&self.prefix(), Some(&start), limit).await;
        let objects = listed.map_err(unavailable)?;
        Ok(objects
            .iter()
            .filter_map(|object| Some((self.index_of(&object.key)?, object.size)))
            .collect())
    }

    async fn read(&self, index: u64) -> Result<Option<Content>, Error> {
        let key = self.slot(index);
        let read = self.reads.get(self.bucket.as_ref(), &key);
        let read = clock::timeout(READ_FOR, read).await;
        let read = read.map_err(|elapsed| Error::Unavailable(elapsed.to_string()))?;
        let bytes = read.map_err(unavailable)?;
        Ok(bytes.map(|bytes| self.content(index, bytes)))
    }

    fn content(&self, index: u64, bytes: Bytes) -> Content {
        if bytes == filler::encode(self.shard, index) {
            return Content::Filler;
        }
        Content::Entry(bytes)
    }

    /// Closes the slot if it is free; yields what it holds afterwards.
    async fn fill(&self, index: u64) -> Result<Content, Error> {
        let key = self.slot(index);
        for _ in 0..FILLS {
            let filler = Payload::from(filler::encode(self.shard, index));
            if let Ok(Put::Created) = self.bucket.put_new(&key, filler).await {
                return Ok(Content::Filler);
            }
            // Neither a conflict nor an error tells what the slot holds, or whether it holds
            // anything.
            if let Some(content) = self.read(index).await? {
                return Ok(content);
            }
        }
        Err(Error::Unavailable(format!("{key} is taken and not there")))
    }

    async fn step(&self, step: Step) -> Result<(Step, Option<Content>), Error> {
        let content = match step {
            Step::Read(index) => self.read(index).await?,
            Step::Fill(index) => Some(self.fill(index).await?),
        };
        Ok((step, content))
    }

    async fn floor(&self) -> Result<u64, Error> {
        let known = *self.known_floor();
        let last = floor::last(self.bucket.as_ref(), &floor::prefix(self.shard), known).await?;
        self.note_floor(last);
        Ok(last.floor)
    }

    fn known_floor(&self) -> MutexGuard<'_, floor::Link> {
        self.floor.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_floor(&self, link: floor::Link) {
        let mut known = self.known_floor();
        if known.number < link.number {
            *known = link;
        }
    }
}

#[async_trait]
impl Engine for Object {
    async fn scan(&self, from: u64, limit: usize) -> Scan {
        let shared = &self.shared;
        let first = match shared.read(from).await {
            Ok(Some(first)) => first,
            Ok(None) => return ending(Vec::new(), End::Free),
            Err(error) => return ending(Vec::new(), End::Undecided(error.to_string())),
        };
        let mut slots = vec![(from, first)];
        if limit <= 1 {
            return ending(slots, End::More);
        }
        // The listing only tells how many slots to read at once; a short one costs another scan.
        let listed = shared.listed(from, limit - 1).await.unwrap_or_default();
        let mut size = 0;
        let run = (from + 1..)
            .zip(listed)
            .map_while(|(expected, (index, bytes))| {
                size += bytes;
                (index == expected && size <= SCAN_BYTES).then_some(index)
            });
        let run: Vec<u64> = run.collect();
        // Reads may end in any order, so that a slow one delays no other.
        let mut reads = stream::iter(run)
            .map(|index| async move { (index, shared.read(index).await) })
            .buffer_unordered(READS_AT_ONCE);
        let until = clock::now() + SCAN_FOR;
        let (mut read, mut end) = (BTreeMap::new(), End::More);
        loop {
            let left = until.since(clock::now());
            match clock::timeout(left, reads.next()).await {
                Ok(Some((index, Ok(Some(content))))) => drop(read.insert(index, content)),
                Ok(Some((_, Ok(None)))) => {}
                Ok(Some((_, Err(error)))) => end = End::Undecided(error.to_string()),
                Ok(None) | Err(_) => break,
            }
        }
        let run = (from + 1..).map_while(|index| Some((index, read.remove(&index)?)));
        slots.extend(run);
        if slots.len() > 1 {
            // Slots were read, so the caller will ask again from the next one.
            end = End::More;
        }
        ending(slots, end)
    }

    async fn above(&self, index: u64) -> Result<Option<u64>, Error> {
        let listed = self.shared.listed(index, 1).await?;
        Ok(listed.first().map(|(index, _)| *index))
    }

    async fn floor(&self) -> Result<u64, Error> {
        self.shared.floor().await
    }

    async fn take(&self, from: u64, through: u64) -> Result<Taken, TakeError> {
        let begun = self.shared.tenures.begin();
        let mut settle = Settle::new(from, through);
        let first = settle.round();
        let steps = |round: Vec<Step>| try_join_all(round.into_iter().map(|s| self.shared.step(s)));
        let (floor, answers) = join(self.shared.floor(), steps(first)).await;
        // A writer that slept finds trimmed slots free: there is no use in closing them.
        let floor = floor.map_err(not_taken)?;
        if floor > from {
            return Err(TakeError::Trimmed(floor));
        }
        let mut answers = answers.map_err(not_taken)?;
        loop {
            for (step, content) in answers {
                settle.answer(step, content);
            }
            let round = settle.round();
            if round.is_empty() {
                break;
            }
            answers = steps(round).await.map_err(not_taken)?;
        }
        let (settled, first) = settle.settled();
        let tenure = Held {
            shared: Arc::clone(&self.shared),
            sending: begun.starting_at(first),
        };
        Ok(Taken {
            tenure: Arc::new(tenure),
            settled,
        })
    }

    /// The name of a slot's object decides it, so the mark is empty.
    fn mark(&self, _: u64) -> Bytes {
        Bytes::new()
    }

    fn adopt(&self, mark: &[u8]) -> Result<(), Error> {
        if mark.is_empty() {
            return Ok(());
        }
        let why = "the snapshot carries the mark of another engine".to_owned();
        Err(Error::Corrupt(why))
    }

    fn limits(&self) -> Limits {
        Limits {
            slot_bytes_max: SLOT_BYTES_MAX,
            takes_give_way: false,
            takes_seal: false,
        }
    }
}

/// A tenure on a bucket.
struct Held {
    shared: Arc<Shared>,
    sending: Sending,
}

#[async_trait]
impl Tenure for Held {
    async fn append(&self, index: u64, _nonce: u128, bytes: Bytes) -> Append {
        if let Err(why) = self.sending.window().admit(index, &bytes) {
            tracing::debug!(index, why, "an append was refused, which ends the tenure");
            return Append::Superseded;
        }
        let key = self.shared.slot(index);
        let bucket = self.shared.bucket.as_ref();
        match bucket.put_new(&key, Payload::from(bytes.clone())).await {
            Ok(Put::Created) => {
                self.sending.window().appended(index);
                return Append::Appended;
            }
            Ok(Put::Conflict) => {}
            Err(error) => return Append::Unknown(error.to_string()),
        }
        // A conflict proves nothing: it may be our own write after a lost reply, or another
        // create that is still under way and may yet fail.
        match bucket.get(&key).await {
            Ok(Some(found)) if found == bytes => {
                self.sending.window().appended(index);
                Append::Appended
            }
            Ok(Some(_)) => {
                self.sending.window().end();
                Append::Superseded
            }
            Ok(None) => Append::Unknown(format!("{key} is taken and not there")),
            Err(error) => Append::Unknown(error.to_string()),
        }
    }

    fn confirmed(&self) {
        self.sending.window().confirm();
    }

    async fn trim(&self, floor: u64, indices: &[u64]) -> Result<(), Error> {
        if self.sending.window().is_over() {
            return Err(Error::Unavailable("the tenure is over".to_owned()));
        }
        let shared = &self.shared;
        let known = *shared.known_floor();
        let prefix = floor::prefix(shared.shard);
        let last = floor::raise(shared.bucket.as_ref(), &prefix, known, floor).await?;
        shared.note_floor(last);
        let delete = |index: u64| async move {
            assert!(index < floor, "only slots below the floor are trimmed");
            let deleted = shared.bucket.delete(&shared.slot(index)).await;
            deleted.map_err(unavailable)
        };
        stream::iter(indices.iter().copied())
            .map(Ok)
            .try_for_each_concurrent(DELETES_AT_ONCE, delete)
            .await
    }
}

fn ending(slots: Vec<(u64, Content)>, end: End) -> Scan {
    Scan { slots, end }
}

pub(crate) fn unavailable(error: bucket::Error) -> Error {
    Error::Unavailable(error.to_string())
}

fn not_taken(error: Error) -> TakeError {
    TakeError::Unavailable(error.to_string())
}

fn prefix(shard: u16) -> String {
    format!("{JOURNAL}{shard:04x}/")
}

/// The name of a slot's object, also for messages: it is the object that people restore.
pub(crate) fn slot_name(shard: u16, index: u64) -> String {
    format!("{}{index:020}", prefix(shard))
}

/// Keys are built from valid parts.
fn key(text: String) -> Key {
    Key::new(text).expect("a key of the journal is a key")
}
