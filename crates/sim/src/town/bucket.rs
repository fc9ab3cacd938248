//! The town's bucket: single objects, each request on one of them, behind a network that can be cut
//! between it and any one process, with every fault that a store has. What takes effect does so at one
//! instant; nothing on several objects does. It must not know what the objects mean.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use host::seeded::{self, Place};
use store::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put};
use store::layout::{FILES, JOURNAL, MARKER, PROBE};
use store::received::Received;
use tokio::sync::oneshot;

use crate::bucket::corrupted;
use crate::faults::Fault;

use super::Town;

/// Without faults a request takes between these, both ways together.
const USUAL_US: (u64, u64) = (2_000, 20_000);
/// What a slow request takes on top, at most.
const SLOW_US: u64 = 4_000_000;
/// A put that comes late comes up to so much later.
const LATE_US: u64 = 30_000_000;
/// How often a request that hangs looks whether the store is well again.
const HANG_STEP_US: u64 = 50_000;
/// How long a request hangs that is never answered: longer than any client waits.
const NEVER_US: u64 = 600_000_000;

/// What may be asked.
#[derive(Clone, Debug)]
enum Request {
    Put(Key, Bytes),
    Get(Key, Option<Range<u64>>),
    Head(Key),
    List(String, Option<Key>, usize),
    Delete(Key),
}

#[derive(Clone, Debug)]
enum Answer {
    Put(Put),
    Bytes(Option<Bytes>),
    Size(Option<u64>),
    Listed(Vec<ObjectMeta>),
    Deleted,
    /// The object ends before the range does.
    Short,
}

type Answered = Result<Answer, Error>;

/// The objects of one bucket.
#[derive(Debug)]
pub(super) struct Store {
    place: Place,
    objects: Mutex<BTreeMap<Key, Bytes>>,
}

/// The bucket as one process reaches it.
pub(super) struct Reached {
    store: Arc<Store>,
    town: Arc<Town>,
    from: Place,
}

impl Store {
    /// An empty bucket on a machine of its own.
    pub(super) fn new(place: Place) -> Self {
        Store {
            place,
            objects: Mutex::default(),
        }
    }

    pub(super) fn place(&self) -> Place {
        self.place
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Bytes>> {
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object, without a request.
    pub(super) fn peek(&self, key: &Key) -> Option<Bytes> {
        self.objects().get(key).cloned()
    }

    fn perform(&self, request: &Request) -> Answer {
        let mut objects = self.objects();
        match request {
            Request::Put(key, bytes) => {
                // Where files are not overwritten, two halves keep it so: their names, and this.
                let overwrites = host::trial::leaves_out("overwrite-files");
                let may_replace = overwrites && key.as_str().starts_with(FILES);
                if objects.contains_key(key) && !may_replace {
                    return Answer::Put(Put::Conflict);
                }
                objects.insert(key.clone(), bytes.clone());
                Answer::Put(Put::Created)
            }
            Request::Get(key, None) => Answer::Bytes(objects.get(key).cloned()),
            Request::Get(key, Some(range)) => match objects.get(key) {
                None => Answer::Bytes(None),
                Some(bytes) if range.end > bytes.len() as u64 => Answer::Short,
                Some(bytes) => {
                    let range = range.start as usize..range.end as usize;
                    Answer::Bytes(Some(bytes.slice(range)))
                }
            },
            Request::Head(key) => Answer::Size(objects.get(key).map(|bytes| bytes.len() as u64)),
            Request::List(prefix, after, limit) => {
                let start = match after {
                    Some(key) if key.as_str() >= prefix.as_str() => Bound::Excluded(key.as_str()),
                    _ => Bound::Included(prefix.as_str()),
                };
                let found = objects.range::<str, _>((start, Bound::Unbounded));
                let found = found.take_while(|(key, _)| key.as_str().starts_with(prefix.as_str()));
                let listed = found.take(*limit).map(|(key, bytes)| ObjectMeta {
                    key: key.clone(),
                    size: bytes.len() as u64,
                });
                Answer::Listed(listed.collect())
            }
            Request::Delete(key) => {
                objects.remove(key);
                Answer::Deleted
            }
        }
    }
}

impl Reached {
    /// The bucket, reached from a process.
    pub(super) fn new(town: &Arc<Town>, store: &Arc<Store>, from: Place) -> Self {
        Reached {
            store: Arc::clone(store),
            town: Arc::clone(town),
            from,
        }
    }

    async fn ask(&self, op: Op, key: &str, request: Request) -> Answered {
        let (answer, answered) = oneshot::channel();
        let (town, store) = (Arc::clone(&self.town), Arc::clone(&self.store));
        let (from, about) = (self.from, key.to_owned());
        // It goes on if the process dies: what is sent is sent.
        seeded::spawn_at(self.store.place, "bucket", async move {
            let outcome = serve(&town, &store, from, (op, &about), &request).await;
            drop(answer.send(outcome));
        });
        match answered.await {
            Ok(outcome) => outcome,
            Err(_) => Err(Error::unknown(op, key, "the connection was reset")),
        }
    }
}

/// What becomes of one request, from its sending to its answer.
async fn serve(
    town: &Arc<Town>,
    store: &Arc<Store>,
    from: Place,
    (op, key): (Op, &str),
    request: &Request,
) -> Answered {
    let (low_us, high_us) = USUAL_US;
    let takes_us = seeded::draw(|rng| low_us + rng.below(high_us - low_us));
    if town.strike(Fault::SlowBucket) {
        hang(town, seeded::draw(|rng| rng.below(SLOW_US))).await;
    }
    pass(from, store.place, takes_us / 2).await;
    if town.is_bucket_away() || town.strike(Fault::FailingBucket) {
        pass(store.place, from, takes_us / 2).await;
        return Err(match seeded::draw(|rng| rng.below(2)) {
            0 => Error::throttled(op, key, "503 SlowDown"),
            _ => Error::unknown(op, key, "500 InternalError"),
        });
    }
    let is_put = op == Op::PutNew;
    if is_put && town.strike(Fault::LatePut) {
        let late_us = seeded::draw(|rng| rng.below(LATE_US));
        let (late, request, book) = (Arc::clone(store), request.clone(), Arc::clone(town));
        let is_entry = key.starts_with(JOURNAL);
        seeded::spawn_at(store.place, "late put", async move {
            seeded::sleep_us(late_us).await;
            let answer = late.perform(&request);
            seeded::note(format_args!("late put: {}", told(&answer)));
            if is_entry && matches!(answer, Answer::Put(Put::Created)) {
                book.with(|book| book.last_fault_us = seeded::now_us());
            }
        });
        return Err(never_answered(town, op, key).await);
    }
    // Either nothing is there yet, or a repetition of its own met it.
    let lies = is_put && town.strike(Fault::LyingConflict);
    if !lies || seeded::draw(|rng| rng.below(2)) == 0 {
        town.before_effect(from, op, key);
        let answer = store.perform(request);
        seeded::note(format_args!(
            "bucket {op} {key} from {}: {}",
            from.0,
            told(&answer)
        ));
        if town.strike(Fault::LostAnswer) {
            return Err(never_answered(town, op, key).await);
        }
        pass(store.place, from, takes_us / 2).await;
        return match answer {
            Answer::Put(_) if lies => Ok(Answer::Put(Put::Conflict)),
            Answer::Bytes(Some(bytes)) if is_corrupted(town, key) => {
                Ok(Answer::Bytes(Some(seeded::draw(|rng| {
                    corrupted(&bytes, rng)
                }))))
            }
            Answer::Short => Err(Error::definite(op, key, "the object is shorter than that")),
            answer => Ok(answer),
        };
    }
    pass(store.place, from, takes_us / 2).await;
    Ok(Answer::Put(Put::Conflict))
}

/// What comes back damaged eight times in a row stops a replica for good, so entries are damaged less often; a bucket
/// that alters what is looked at in a start is refused, as it should be.
fn is_corrupted(town: &Town, key: &str) -> bool {
    let ends_a_start = key.starts_with(PROBE) || key == MARKER;
    let may = key.starts_with(FILES) || seeded::draw(|rng| rng.once_in(10));
    may && !ends_a_start && town.strike(Fault::CorruptRead)
}

/// Hangs for so long, or until the store is well again.
async fn hang(town: &Town, mut left_us: u64) {
    while left_us > 0 && !town.is_healed() {
        let step_us = left_us.min(HANG_STEP_US);
        seeded::sleep_us(step_us).await;
        left_us -= step_us;
    }
}

/// No answer comes; once the store is well again, the connection is found broken.
async fn never_answered(town: &Town, op: Op, key: &str) -> Error {
    hang(town, NEVER_US).await;
    Error::unknown(op, key, "the connection was reset")
}

/// Lets a message get from one place to the other, however long that is cut.
async fn pass(from: Place, to: Place, takes_us: u64) {
    seeded::sleep_us(takes_us).await;
    while let Some(until_us) = seeded::is_cut(from, to) {
        let left_us = until_us.saturating_sub(seeded::now_us());
        // Cuts may end early.
        seeded::sleep_us(left_us.clamp(1, 50_000)).await;
    }
}

fn told(answer: &Answer) -> String {
    match answer {
        Answer::Put(put) => format!("{put:?}"),
        Answer::Bytes(found) => format!("{:?} bytes", found.as_ref().map(Bytes::len)),
        Answer::Size(size) => format!("size {size:?}"),
        Answer::Listed(found) => format!("{} listed", found.len()),
        Answer::Deleted => "deleted".to_owned(),
        Answer::Short => "short".to_owned(),
    }
}

/// An answer to another question, which the store cannot give.
fn odd(op: Op, key: &str) -> Error {
    Error::unknown(op, key, "an odd answer")
}

#[async_trait]
impl Bucket for Reached {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let request = Request::Put(key.clone(), body.to_bytes());
        match self.ask(Op::PutNew, key.as_str(), request).await? {
            Answer::Put(put) => Ok(put),
            _ => Err(odd(Op::PutNew, key.as_str())),
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let request = Request::Get(key.clone(), None);
        match self.ask(Op::Get, key.as_str(), request).await? {
            Answer::Bytes(found) => Ok(found),
            _ => Err(odd(Op::Get, key.as_str())),
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let request = Request::Get(key.clone(), Some(range));
        match self.ask(Op::GetRange, key.as_str(), request).await? {
            Answer::Bytes(found) => Ok(found),
            _ => Err(odd(Op::GetRange, key.as_str())),
        }
    }

    async fn read(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        let read = match range {
            None => self.get(key).await?,
            Some(range) => self.get_range(key, range).await?,
        };
        let Some(mut bytes) = read else {
            return Ok(None);
        };
        received.expect(bytes.len() as u64);
        if self.town.strike(Fault::SlowBody) {
            received.push(bytes.split_to(bytes.len() / 2));
            let stops = seeded::draw(|rng| rng.once_in(2));
            let stall_us = seeded::draw(|rng| rng.below(SLOW_US));
            hang(&self.town, if stops { NEVER_US } else { stall_us }).await;
        }
        received.push(bytes);
        Ok(Some(()))
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        let request = Request::Head(key.clone());
        match self.ask(Op::Head, key.as_str(), request).await? {
            Answer::Size(size) => Ok(size),
            _ => Err(odd(Op::Head, key.as_str())),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let request = Request::List(prefix.to_owned(), start_after.cloned(), limit);
        match self.ask(Op::List, prefix, request).await? {
            Answer::Listed(found) => Ok(found),
            _ => Err(odd(Op::List, prefix)),
        }
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let request = Request::Delete(key.clone());
        match self.ask(Op::Delete, key.as_str(), request).await? {
            Answer::Deleted => Ok(()),
            _ => Err(odd(Op::Delete, key.as_str())),
        }
    }
}
