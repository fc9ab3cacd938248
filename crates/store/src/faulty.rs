//! A bucket that fails on purpose, around any other. For an operation with an effect there are two
//! questions, whether it happens and what is reported, and fault rules give every combination;
//! reads can miss, lie or end early. The test adds rules; chances are drawn from a seed. It must
//! not know what the objects mean.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use host::clock::Instant;
use host::rng::Rng;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put, Space};
use crate::received::Received;

/// What goes wrong in an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing happens, and the caller is told so, as for a bucket that is forbidden or full.
    Definite,
    /// Nothing happens, but the caller cannot know: the request was lost.
    Unknown,
    /// Nothing happens; the caller is asked to come back later.
    Throttled,
    /// It happens, and the caller cannot know: the reply was lost.
    LoseReply,
    /// Nothing happens, and the caller hears that it did: the store lies.
    Pretend,
    /// A write is held back and the caller cannot know; [`Faults::apply_held`] lets it happen.
    Hold,
    /// A create reports a conflict though nothing happened, as S3's 409 may.
    Conflict,
    /// A read finds nothing; a listing is empty.
    Missing,
    /// A read returns the bytes with one bit flipped.
    Corrupt,
    /// A read returns all but the last byte.
    Truncate,
    /// The request is never answered; nothing happens.
    Silence,
    /// The body of a read stops halfway and never ends.
    Stall,
    /// All bytes of a read come, but its end never does.
    Endless,
    /// The operation is delayed by this time and then goes on.
    Delay(Duration),
}

/// When a fault strikes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// The operation concerned; every operation if `None`.
    pub op: Option<Op>,
    /// The prefix of the keys concerned.
    pub prefix: String,
    pub fault: Fault,
    /// It strikes once in so many operations, on average.
    pub one_in: u64,
    /// How many matching operations pass before the rule may strike.
    pub skip: u64,
    /// How often it may strike; for ever if `None`.
    pub times: Option<u64>,
}

impl FaultRule {
    /// Strikes every `op`.
    pub fn on(op: Op, fault: Fault) -> Self {
        FaultRule {
            op: Some(op),
            ..FaultRule::always(fault)
        }
    }

    pub fn always(fault: Fault) -> Self {
        FaultRule {
            op: None,
            prefix: String::new(),
            fault,
            one_in: 1,
            skip: 0,
            times: None,
        }
    }

    pub fn below(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    pub fn one_in(mut self, one_in: u64) -> Self {
        self.one_in = one_in;
        self
    }

    pub fn after(mut self, skip: u64) -> Self {
        self.skip = skip;
        self
    }

    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }
}

/// The handle by which a test steers a [`Faulty`] bucket.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    rules: Vec<FaultRule>,
    rng: Rng,
    calls: BTreeMap<Op, u64>,
    injected: u64,
    held: Vec<Held>,
}

/// A write that is held back.
#[derive(Clone, Debug)]
enum Held {
    Put(Key, Payload),
    Delete(Key),
}

impl Faults {
    /// Adds a rule. The first rule that strikes decides; delays add up before it.
    pub fn add(&self, rule: FaultRule) {
        self.state().rules.push(rule);
    }

    /// Removes all rules: the bucket is healthy, held writes stay held.
    pub fn clear(&self) {
        self.state().rules.clear();
    }

    /// How often `op` was called.
    pub fn calls(&self, op: Op) -> u64 {
        self.state().calls.get(&op).copied().unwrap_or(0)
    }

    /// How often a fault struck. A test that injects none proves nothing.
    pub fn injected(&self) -> u64 {
        self.state().injected
    }

    /// Writes that are held back now.
    pub fn held(&self) -> usize {
        self.state().held.len()
    }

    /// The faults of the next operation: delays, then at most one of another kind.
    fn draw(&self, op: Op, key: &str) -> (Duration, Option<Fault>) {
        let state = &mut *self.state();
        *state.calls.entry(op).or_default() += 1;
        let mut delay = Duration::ZERO;
        for rule in &mut state.rules {
            let concerned = rule.op.is_none_or(|only| only == op) && key.starts_with(&rule.prefix);
            if !concerned || rule.times == Some(0) {
                continue;
            }
            if rule.skip > 0 {
                rule.skip -= 1;
                continue;
            }
            if !state.rng.once_in(rule.one_in) {
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            state.injected += 1;
            match rule.fault {
                Fault::Delay(more) => delay += more,
                fault => return (delay, Some(fault)),
            }
        }
        (delay, None)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
pub struct Faulty {
    inner: Arc<dyn Bucket>,
    faults: Arc<Faults>,
    uplink: Option<Uplink>,
}

/// A connection to the bucket that brings so many bytes a second, shared by all uploads.
#[derive(Clone)]
struct Uplink {
    rate: u64,
    /// When the pieces that are on their way have arrived.
    free_at: Arc<Mutex<Instant>>,
}

impl Uplink {
    /// What is sent at once: the uploads take turns by such pieces.
    const PIECE: u64 = 64 << 10;
    /// What the buffers of one connection take before anything has gone.
    const BUFFERED: u64 = 1 << 20;

    async fn send(&self, body: &Payload) {
        let (length, mut gone) = (body.len(), 0);
        while gone < length {
            if let Some(sent) = body.sent() {
                sent.note(length.min(gone + Uplink::BUFFERED));
            }
            let piece = Uplink::PIECE.min(length - gone);
            let arrives = {
                let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
                let takes = Duration::from_micros(piece * 1_000_000 / self.rate);
                *free_at = host::clock::now().max(*free_at) + takes;
                *free_at
            };
            host::clock::sleep_until(arrives).await;
            gone += piece;
        }
    }
}

impl Faulty {
    pub fn new(inner: Arc<dyn Bucket>, seed: u64) -> Self {
        let state = State {
            rules: Vec::new(),
            rng: Rng::seeded(seed),
            calls: BTreeMap::new(),
            injected: 0,
            held: Vec::new(),
        };
        Faulty {
            inner,
            faults: Arc::new(Faults {
                state: Mutex::new(state),
            }),
            uplink: None,
        }
    }

    /// The same bucket, to which all uploads together bring so many bytes a second.
    pub fn behind_uplink(self, bytes_per_second: u64) -> Self {
        let uplink = Uplink {
            rate: bytes_per_second.max(1),
            free_at: Arc::default(),
        };
        Faulty {
            uplink: Some(uplink),
            ..self
        }
    }

    pub fn faults(&self) -> &Arc<Faults> {
        &self.faults
    }

    /// Lets the writes that were held back happen now, in order. Errors of the inner bucket are
    /// lost, as their callers are gone.
    pub async fn apply_held(&self) {
        let held = std::mem::take(&mut self.faults.state().held);
        for write in held {
            match write {
                Held::Put(key, body) => drop(self.inner.put_new(&key, body).await),
                Held::Delete(key) => drop(self.inner.delete(&key).await),
            }
        }
    }

    /// Waits as the rules say and returns the fault that is left for `op` to deal with; errors
    /// that mean the same for every operation are returned as such.
    async fn strike(&self, op: Op, key: &str) -> Result<Option<Fault>, Error> {
        let (delay, fault) = self.faults.draw(op, key);
        if !delay.is_zero() {
            host::clock::sleep(delay).await;
        }
        match fault {
            Some(Fault::Definite) => Err(Error::definite(op, key, "injected: refused")),
            Some(Fault::Unknown) => Err(Error::unknown(op, key, "injected: request lost")),
            Some(Fault::Throttled) => Err(Error::throttled(op, key, "injected: slow down")),
            Some(Fault::Silence) => std::future::pending().await,
            other => Ok(other),
        }
    }

    fn lost<T>(op: Op, key: &str) -> Result<T, Error> {
        Err(Error::unknown(op, key, "injected: reply lost"))
    }
}

#[async_trait]
impl Bucket for Faulty {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let op = Op::PutNew;
        if let Some(uplink) = &self.uplink {
            uplink.send(&body).await;
        }
        match self.strike(op, key.as_str()).await? {
            Some(Fault::LoseReply) => {
                let _ = self.inner.put_new(key, body).await?;
                Faulty::lost(op, key.as_str())
            }
            Some(Fault::Pretend) => Ok(Put::Created),
            Some(Fault::Conflict) => Ok(Put::Conflict),
            Some(Fault::Hold) => {
                let held = Held::Put(key.clone(), body);
                self.faults.state().held.push(held);
                Faulty::lost(op, key.as_str())
            }
            _ => self.inner.put_new(key, body).await,
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let received = Received::default();
        let read = self.read(key, None, &received).await?;
        Ok(read.map(|()| received.whole()))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let received = Received::default();
        let read = self.read(key, Some(range), &received).await?;
        Ok(read.map(|()| received.whole()))
    }

    async fn read(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        let op = range.as_ref().map_or(Op::Get, |_| Op::GetRange);
        let fault = self.strike(op, key.as_str()).await?;
        match fault {
            Some(Fault::Missing) => return Ok(None),
            Some(Fault::LoseReply) => return Faulty::lost(op, key.as_str()),
            _ => {}
        }
        let read = match range {
            None => self.inner.get(key).await?,
            Some(range) => self.inner.get_range(key, range).await?,
        };
        let Some(bytes) = read.map(|bytes| spoil(fault, bytes)) else {
            return Ok(None);
        };
        received.expect(bytes.len() as u64);
        if fault == Some(Fault::Stall) {
            received.push(bytes.slice(..bytes.len() / 2));
            std::future::pending::<()>().await;
        }
        received.push(bytes);
        if fault == Some(Fault::Endless) {
            std::future::pending::<()>().await;
        }
        Ok(Some(()))
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        match self.strike(Op::Head, key.as_str()).await? {
            Some(Fault::Missing) => Ok(None),
            Some(Fault::LoseReply) => Faulty::lost(Op::Head, key.as_str()),
            _ => self.inner.head(key).await,
        }
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        match self.strike(Op::List, prefix).await? {
            Some(Fault::Missing) => Ok(Vec::new()),
            Some(Fault::LoseReply) => Faulty::lost(Op::List, prefix),
            _ => self.inner.list(prefix, start_after, limit).await,
        }
    }

    async fn space(&self) -> std::io::Result<Option<Space>> {
        self.inner.space().await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let op = Op::Delete;
        match self.strike(op, key.as_str()).await? {
            Some(Fault::LoseReply) => {
                self.inner.delete(key).await?;
                Faulty::lost(op, key.as_str())
            }
            Some(Fault::Pretend) => Ok(()),
            Some(Fault::Hold) => {
                self.faults.state().held.push(Held::Delete(key.clone()));
                Faulty::lost(op, key.as_str())
            }
            _ => self.inner.delete(key).await,
        }
    }
}

fn spoil(fault: Option<Fault>, bytes: Bytes) -> Bytes {
    match fault {
        Some(Fault::Corrupt) if !bytes.is_empty() => {
            let mut bytes = BytesMut::from(bytes.as_ref());
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            bytes.freeze()
        }
        Some(Fault::Truncate) => bytes.slice(..bytes.len().saturating_sub(1)),
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn faulty(rule: FaultRule) -> (Faulty, Key) {
        let bucket = Faulty::new(Arc::new(Memory::new()), 7);
        bucket.faults().add(rule);
        (bucket, Key::new("a/b").unwrap())
    }

    fn body() -> Payload {
        Bytes::from_static(b"bytes").into()
    }

    #[tokio::test]
    async fn a_write_happens_or_not_and_is_reported_or_not() {
        for (fault, happens, reported) in [
            (Fault::Definite, false, false),
            (Fault::Unknown, false, false),
            (Fault::LoseReply, true, false),
            (Fault::Pretend, false, true),
            (Fault::Delay(Duration::from_millis(1)), true, true),
        ] {
            let (bucket, key) = faulty(FaultRule::on(Op::PutNew, fault));
            let result = bucket.put_new(&key, body()).await;
            assert_eq!(result.is_ok(), reported, "{fault:?}");
            let there = bucket.get(&key).await.unwrap().is_some();
            assert_eq!(there, happens, "{fault:?}");
            assert_eq!(bucket.faults().injected(), 1);
        }
    }

    #[tokio::test]
    async fn a_held_write_happens_when_it_is_let_go() {
        let (bucket, key) = faulty(FaultRule::on(Op::PutNew, Fault::Hold));
        assert!(bucket.put_new(&key, body()).await.is_err());
        assert_eq!(bucket.head(&key).await, Ok(None));
        assert_eq!(bucket.faults().held(), 1);
        bucket.apply_held().await;
        assert_eq!(bucket.head(&key).await, Ok(Some(5)));
    }

    #[tokio::test]
    async fn rules_count_choose_and_end() {
        let rule = FaultRule::on(Op::Get, Fault::Missing)
            .below("a/")
            .after(1)
            .times(2);
        let (bucket, key) = faulty(rule);
        let other = Key::new("b").unwrap();
        bucket.put_new(&key, body()).await.unwrap();
        bucket.put_new(&other, body()).await.unwrap();
        let mut seen = Vec::new();
        for _ in 0..4 {
            assert!(bucket.get(&other).await.unwrap().is_some());
            seen.push(bucket.get(&key).await.unwrap().is_some());
        }
        assert_eq!(seen, [true, false, false, true]);
    }

    #[tokio::test]
    async fn reads_can_lie() {
        let (bucket, key) = faulty(FaultRule::on(Op::Get, Fault::Corrupt).times(1));
        bucket.faults().add(FaultRule::on(Op::Get, Fault::Truncate));
        bucket.put_new(&key, body()).await.unwrap();
        let flipped = bucket.get(&key).await.unwrap().unwrap();
        assert_eq!((flipped.len(), flipped == "bytes"), (5, false));
        assert_eq!(bucket.get(&key).await.unwrap().unwrap(), "byte");
    }

    #[tokio::test]
    async fn a_seed_repeats_itself() {
        let mut runs = Vec::new();
        for _ in 0..2 {
            let (bucket, key) = faulty(FaultRule::always(Fault::Unknown).one_in(3));
            let mut run = Vec::new();
            for _ in 0..50 {
                run.push(bucket.head(&key).await.is_ok());
            }
            runs.push(run);
        }
        assert_eq!(runs[0], runs[1]);
        assert!(runs[0].contains(&true) && runs[0].contains(&false));
    }
}
