//! A bucket behind a network, made steady. A request that takes longer than similar ones lately did
//! is sent again on another connection, with the same key and bytes, and the first answer counts. A
//! request that was lost, or refused for load, is repeated soon. Bytes of a body that stopped half
//! way are kept. How many extra requests are made is bounded in [`pace`]; when, is decided without
//! I/O in [`race`]. It must not know what the objects mean.
//!
//! Copies of one create may conflict with each other. After a conflict the object is therefore read
//! back: [`Put::Created`] here means that the object holds these bytes and one of our copies may
//! have put them there.

use std::future::poll_fn;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use host::clock::Instant;
use host::rng::Rng;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put, Space, short_object};
use crate::meter::Counters;
use crate::received::{Received, join};
use crate::retry::is_ours;
use crate::sent::Sent;

pub mod pace;
pub mod race;

use pace::{Pace, Work};
use race::{Attempt, Effect, Event, Failure, GIVE_UP_AFTER, Race, Why};

#[cfg(test)]
mod tests;

/// A steady bucket. A bucket that is not remote gets one request per call, which is given up after
/// ten seconds and the time that its bytes need at the slowest upload.
pub struct Hedged {
    inner: Arc<dyn Bucket>,
    counters: Arc<Counters>,
    shared: Mutex<Shared>,
    /// Bytes of the uploads under way, all copies of them included.
    uploading: Arc<AtomicU64>,
}

struct Shared {
    pace: Pace,
    rng: Rng,
}

/// A request under way.
struct Try<'a, T> {
    attempt: Attempt,
    why: Why,
    request: BoxFuture<'a, Result<T, Error>>,
    signs: Signs,
    _upload: Upload,
}

/// Where a request under way shows that it moves.
enum Signs {
    None,
    Read(Arc<Received>),
    Write(Arc<Sent>),
}

impl Signs {
    fn event(&self, attempt: Attempt) -> Option<Event> {
        match self {
            Signs::None => None,
            Signs::Read(received) => Some(Event::Moved(attempt, received.moved_at()?)),
            Signs::Write(sent) => {
                let (bytes, at) = sent.last()?;
                Some(Event::Sent(attempt, bytes, at))
            }
        }
    }
}

/// The bytes of one request's body, which count as under way until this is dropped.
struct Upload {
    uploading: Arc<AtomicU64>,
    bytes: u64,
}

impl Upload {
    fn begin(uploading: &Arc<AtomicU64>, work: Work) -> Self {
        let bytes = work.bytes();
        uploading.fetch_add(bytes, Relaxed);
        Upload {
            uploading: Arc::clone(uploading),
            bytes,
        }
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        self.uploading.fetch_sub(self.bytes, Relaxed);
    }
}

impl Hedged {
    /// Makes `inner` steady; `counters` count the extra requests.
    pub fn new(inner: Arc<dyn Bucket>, counters: Arc<Counters>) -> Self {
        Hedged {
            inner,
            counters,
            shared: Mutex::new(Shared {
                pace: Pace::default(),
                rng: Rng::from_entropy(),
            }),
            uploading: Arc::default(),
        }
    }

    /// Makes requests for one operation until one is answered or the race gives up.
    async fn race<'a, T>(
        &self,
        work: Work,
        op: Op,
        key: &str,
        mut make: impl FnMut() -> (BoxFuture<'a, Result<T, Error>>, Signs),
    ) -> Result<T, Error> {
        let mut race = Race::new(work);
        let mut running: Vec<Try<'a, T>> = Vec::new();
        let mut failed: Option<Error> = None;
        let mut events = vec![Event::Begun];
        loop {
            for effect in self.decide(&mut race, &mut events) {
                match effect {
                    Effect::Start(attempt, why) => {
                        self.counters.sent(why);
                        let (request, signs) = make();
                        running.push(Try {
                            attempt,
                            why,
                            request,
                            signs,
                            _upload: Upload::begin(&self.uploading, work),
                        });
                    }
                    Effect::Drop(attempt) => {
                        let lost = running.iter().position(|one| one.attempt == attempt);
                        let signs = lost.map(|at| running.remove(at).signs);
                        let lost = Error::unknown(op, key, silence(signs.as_ref(), work));
                        failed = Some(worse(failed, lost));
                    }
                    Effect::End => {
                        let unsaid = || Error::unknown(op, key, "no answer");
                        return Err(failed.unwrap_or_else(unsaid));
                    }
                }
            }
            match next(&mut running, race.deadline()).await {
                Some((at, Ok(answer))) => {
                    self.answered(&race, &running[at]);
                    return Ok(answer);
                }
                // A read has no effect, so what one copy was told for certain is the answer.
                Some((_, Err(error @ Error::Definite { .. }))) if work.is_read() => {
                    return Err(error);
                }
                Some((at, Err(error))) => {
                    let attempt = running.remove(at).attempt;
                    events.push(Event::Failed(attempt, failure(&error)));
                    failed = Some(worse(failed, error));
                }
                None => {
                    let moved = running.iter();
                    events.extend(moved.filter_map(|one| one.signs.event(one.attempt)));
                    events.push(Event::Timer);
                }
            }
        }
    }

    fn decide(&self, race: &mut Race, events: &mut Vec<Event>) -> Vec<Effect> {
        let now = host::clock::now();
        let mut effects = Vec::new();
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        let Shared { pace, rng } = &mut *shared;
        pace.uploading(self.uploading.load(Relaxed));
        for event in events.drain(..) {
            race.handle(now, event, pace, rng, &mut effects);
        }
        effects
    }

    fn answered<T>(&self, race: &Race, winner: &Try<'_, T>) {
        let now = host::clock::now();
        let began = match &winner.signs {
            Signs::Read(received) => received.began_at(),
            Signs::Write(_) | Signs::None => None,
        };
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        race.answered(now, winner.attempt, began.unwrap_or(now), &mut shared.pace);
        drop(shared);
        self.counters.won(winner.why);
    }

    /// Reads an object or a range of one.
    async fn fetch(&self, key: &Key, range: Option<Range<u64>>) -> Result<Option<Bytes>, Error> {
        let op = range.as_ref().map_or(Op::Get, |_| Op::GetRange);
        let mut parts: Vec<Arc<Part>> = Vec::new();
        let make = || {
            let furthest = parts.iter().max_by_key(|part| part.length());
            let part = Arc::new(Part::after(furthest.map(AsRef::as_ref)));
            parts.push(Arc::clone(&part));
            let received = Arc::clone(&part.received);
            let range = range.clone();
            let request = async move {
                if !part.is_whole() {
                    let wanted = part.wanted(range.as_ref());
                    match self.inner.read(key, wanted, &part.received).await {
                        Ok(Some(())) => {}
                        Ok(None) => return Ok(None),
                        Err(_) if host::trial::leaves_out("error-means-absent") => return Ok(None),
                        Err(error) => return Err(error),
                    }
                }
                part.answer(key, range.as_ref()).map(Some)
            };
            let request: BoxFuture<'_, Result<Option<Bytes>, Error>> = Box::pin(request);
            (request, Signs::Read(received))
        };
        self.race(Work::read(op), op, key.as_str(), make).await
    }
}

/// What one request reads of an object: the bytes that earlier requests left, and its own.
struct Part {
    before: Vec<Bytes>,
    before_length: u64,
    /// The length of all that the caller wants, if it is known.
    total: Option<u64>,
    received: Arc<Received>,
}

impl Part {
    /// A request that goes on where `other` stopped, if the length of the whole is known.
    fn after(other: Option<&Part>) -> Self {
        let mut part = Part {
            before: Vec::new(),
            before_length: 0,
            total: None,
            received: Arc::default(),
        };
        if let Some(other) = other
            && let Some(total) = other.total()
        {
            let before = other.before.iter().cloned();
            part.before = before.chain(other.received.pieces()).collect();
            part.before_length = part.before.iter().map(|piece| piece.len() as u64).sum();
            part.total = Some(total);
        }
        part
    }

    fn length(&self) -> u64 {
        self.before_length + self.received.length()
    }

    fn total(&self) -> Option<u64> {
        self.total.or_else(|| self.received.expected())
    }

    /// The range still to be asked for, if the caller wants `range` of the object, or all of it.
    fn wanted(&self, range: Option<&Range<u64>>) -> Option<Range<u64>> {
        match self.total.filter(|_| self.before_length > 0) {
            None => range.cloned(),
            Some(total) => {
                let start = range.map_or(0, |range| range.start);
                Some(start + self.before_length..start + total)
            }
        }
    }

    /// True if earlier requests have left all bytes, so that none is to be asked for: HTTP has no
    /// empty range.
    fn is_whole(&self) -> bool {
        self.total == Some(self.before_length)
    }

    /// All bytes, if they are as many as `range` has. A request that went on where another stopped
    /// asked for what the store had promised then, which is less if the object ends early.
    fn answer(&self, key: &Key, range: Option<&Range<u64>>) -> Result<Bytes, Error> {
        let before = self.before.iter().cloned();
        let whole = join(before.chain(self.received.pieces()).collect());
        match range {
            Some(range) if whole.len() as u64 != range.end - range.start => {
                let size = range.start + whole.len() as u64;
                Err(short_object(key, range, size))
            }
            _ => Ok(whole),
        }
    }
}

/// Waits this long for the only request of an operation.
async fn single<T>(
    patience: Duration,
    op: Op,
    key: &str,
    request: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    let answer = host::clock::timeout(patience, request).await;
    answer.unwrap_or_else(|_| Err(Error::unknown(op, key, "no answer")))
}

/// Waits, at most until `deadline`, for one of the requests to end; yields its number and result.
async fn next<T>(
    running: &mut [Try<'_, T>],
    deadline: Option<Instant>,
) -> Option<(usize, Result<T, Error>)> {
    let ended = poll_fn(|context| {
        for (at, request) in running.iter_mut().enumerate() {
            if let Poll::Ready(result) = request.request.as_mut().poll(context) {
                return Poll::Ready((at, result));
            }
        }
        Poll::Pending
    });
    tokio::select! {
        biased;
        ended = ended => Some(ended),
        () = host::clock::sleep_until(deadline?) => None,
    }
}

/// What is known of a request that was never answered.
fn silence(signs: Option<&Signs>, work: Work) -> String {
    match signs {
        Some(Signs::Write(sent)) => {
            let sent = sent.last().map_or(0, |(bytes, _)| bytes);
            format!("no answer; {sent} of {} bytes had been sent", work.bytes())
        }
        _ => "no answer".to_owned(),
    }
}

fn failure(error: &Error) -> Failure {
    match error {
        Error::Definite { .. } => Failure::Final,
        Error::Unknown { .. } => Failure::Unknown,
        Error::Throttled { .. } => Failure::Throttled,
    }
}

/// Picks the failure to report for the whole operation: one that may have had an effect outweighs
/// any that had none.
fn worse(before: Option<Error>, error: Error) -> Error {
    match before {
        Some(before) if before.may_have_happened() => before,
        _ => error,
    }
}

#[async_trait]
impl Bucket for Hedged {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        if !self.inner.is_remote() {
            let patience = GIVE_UP_AFTER + Work::put(body.len()).slowest_upload();
            let request = self.inner.put_new(key, body);
            return single(patience, Op::PutNew, key.as_str(), request).await;
        }
        let made = AtomicU32::new(0);
        let make = || {
            made.fetch_add(1, Relaxed);
            let (sent, made) = (Arc::<Sent>::default(), &made);
            let body = body.clone().with_sent(Arc::clone(&sent));
            let request = async move {
                match self.inner.put_new(key, body.clone()).await? {
                    Put::Conflict if made.load(Relaxed) > 1 => {
                        let ours = is_ours(&*self.inner, key, &body).await?;
                        Ok(if ours { Put::Created } else { Put::Conflict })
                    }
                    put => Ok(put),
                }
            };
            let request: BoxFuture<'_, Result<Put, Error>> = Box::pin(request);
            (request, Signs::Write(sent))
        };
        self.race(Work::put(body.len()), Op::PutNew, key.as_str(), make)
            .await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        if !self.inner.is_remote() {
            return single(GIVE_UP_AFTER, Op::Get, key.as_str(), self.inner.get(key)).await;
        }
        self.fetch(key, None).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        // HTTP has no empty range, and the inner bucket refuses a reversed one.
        if !self.inner.is_remote() || range.is_empty() {
            let read = self.inner.get_range(key, range);
            return single(GIVE_UP_AFTER, Op::GetRange, key.as_str(), read).await;
        }
        self.fetch(key, Some(range)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        if !self.inner.is_remote() {
            return single(GIVE_UP_AFTER, Op::Head, key.as_str(), self.inner.head(key)).await;
        }
        let make = || (self.inner.head(key), Signs::None);
        self.race(Work::read(Op::Head), Op::Head, key.as_str(), make)
            .await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        if !self.inner.is_remote() {
            let list = self.inner.list(prefix, start_after, limit);
            return single(GIVE_UP_AFTER, Op::List, prefix, list).await;
        }
        let make = || (self.inner.list(prefix, start_after, limit), Signs::None);
        self.race(Work::read(Op::List), Op::List, prefix, make)
            .await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        single(
            GIVE_UP_AFTER,
            Op::Delete,
            key.as_str(),
            self.inner.delete(key),
        )
        .await
    }

    async fn space(&self) -> std::io::Result<Option<Space>> {
        self.inner.space().await
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }
}
