//! Counts what is asked of a bucket: requests, bytes, errors and time by operation, for metrics and
//! for the bill. It must not know what the objects mean.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host::clock::Instant;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put, Space};
use crate::hedge::race::Why;
use crate::outage::{Kind, Outage, Outcomes};
use crate::received::Received;

/// A request dropped without an answer counts as failed if it was under way for this long; before
/// that, its caller may simply have gone away.
const PATIENCE: Duration = Duration::from_secs(3);

/// The counters of one operation.
#[derive(Debug, Default)]
struct Counter {
    requests: AtomicU64,
    conflicts: AtomicU64,
    definite: AtomicU64,
    unknown: AtomicU64,
    throttled: AtomicU64,
    bytes: AtomicU64,
    micros: AtomicU64,
}

/// Requests beyond those that callers asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extra {
    /// Second copies of slow requests.
    pub hedges: u64,
    /// Second copies that were answered first.
    pub hedges_won: u64,
    /// Requests sent again because one failed or was taken for lost.
    pub repeats: u64,
}

/// What was counted for one operation since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    pub op: Op,
    /// Requests that got an answer or an error.
    pub requests: u64,
    /// Creates that met a conflict; object stores bill them, too.
    pub conflicts: u64,
    /// Errors that certainly had no effect.
    pub definite_errors: u64,
    /// Errors that left the outcome unknown.
    pub unknown_errors: u64,
    /// Requests that were throttled.
    pub throttled: u64,
    /// Bytes written or read.
    pub bytes: u64,
    /// Time from request to answer, in microseconds, all requests together.
    pub micros: u64,
}

/// Counters of a bucket, shared by everything that uses it.
#[derive(Debug, Default)]
pub struct Counters {
    counters: [Counter; Op::ALL.len()],
    hedges: AtomicU64,
    hedges_won: AtomicU64,
    repeats: AtomicU64,
    outcomes: Outcomes,
}

impl Counters {
    /// All counters, in the order of [`Op::ALL`].
    pub fn counts(&self) -> [Count; Op::ALL.len()] {
        Op::ALL.map(|op| {
            let counter = self.of(op);
            let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
            Count {
                op,
                requests: read(&counter.requests),
                conflicts: read(&counter.conflicts),
                definite_errors: read(&counter.definite),
                unknown_errors: read(&counter.unknown),
                throttled: read(&counter.throttled),
                bytes: read(&counter.bytes),
                micros: read(&counter.micros),
            }
        })
    }

    /// The extra requests made so far.
    pub fn extra(&self) -> Extra {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        Extra {
            hedges: read(&self.hedges),
            hedges_won: read(&self.hedges_won),
            repeats: read(&self.repeats),
        }
    }

    /// Counts an extra request by the reason for it.
    pub(crate) fn sent(&self, why: Why) {
        let counter = match why {
            Why::First => return,
            Why::Hedge => &self.hedges,
            Why::Repeat => &self.repeats,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts which request's answer the operation took.
    pub(crate) fn won(&self, why: Why) {
        if why == Why::Hedge {
            self.hedges_won.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Says why the bucket is of no use now, if nothing of `kind` has succeeded for a while.
    pub fn outage(&self, kind: Kind) -> Option<Outage> {
        self.outcomes.outage(host::clock::now(), kind)
    }

    /// Whether nothing of `kind` has succeeded for `lasting` though it was asked for, as far as is known.
    pub(crate) fn is_doubtful(&self, now: Instant, kind: Kind, lasting: Duration) -> bool {
        self.outcomes.is_doubtful(now, kind, lasting)
    }

    /// The outage of `kind` if it has lasted for `lasting`.
    pub(crate) fn outage_of(&self, now: Instant, kind: Kind, lasting: Duration) -> Option<Outage> {
        self.outcomes.outage_of(now, kind, lasting)
    }

    fn of(&self, op: Op) -> &Counter {
        // The index is in range: Op::ALL lists the variants in the order of their numbers.
        &self.counters[op as usize]
    }

    fn note<T>(&self, op: Op, start: Instant, result: &Result<T, Error>, bytes: u64) {
        let counter = self.of(op);
        let add = |value: &AtomicU64, n: u64| {
            value.fetch_add(n, Ordering::Relaxed);
        };
        add(&counter.requests, 1);
        let now = host::clock::now();
        self.outcomes.note(now, op, result.as_ref().err());
        let micros = now.since(start).as_micros();
        add(&counter.micros, u64::try_from(micros).unwrap_or(u64::MAX));
        match result {
            Ok(_) => add(&counter.bytes, bytes),
            Err(Error::Definite { .. }) => add(&counter.definite, 1),
            Err(Error::Unknown { .. }) => add(&counter.unknown, 1),
            Err(Error::Throttled { .. }) => add(&counter.throttled, 1),
        }
    }
}

/// A request under way.
struct Pending<'m> {
    counters: &'m Counters,
    op: Op,
    key: &'m str,
    start: Instant,
    is_answered: bool,
}

impl Pending<'_> {
    fn answered<T>(mut self, result: &Result<T, Error>, bytes: u64) {
        self.is_answered = true;
        self.counters.note(self.op, self.start, result, bytes);
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let now = host::clock::now();
        let waited = now.since(self.start);
        if self.is_answered || waited < PATIENCE {
            return;
        }
        let detail = format!("no answer in {} s", waited.as_secs());
        let error = Error::unknown(self.op, self.key, detail);
        self.counters.outcomes.note(now, self.op, Some(&error));
    }
}

/// A bucket that is counted.
pub struct Meter {
    inner: Arc<dyn Bucket>,
    counters: Arc<Counters>,
}

impl Meter {
    /// Counts everything that is asked of `inner` from now on.
    pub fn new(inner: Arc<dyn Bucket>) -> Self {
        Meter {
            inner,
            counters: Arc::default(),
        }
    }

    /// The same, counted together with what others that have these counters are asked.
    pub fn counting_with(inner: Arc<dyn Bucket>, counters: Arc<Counters>) -> Self {
        Meter { inner, counters }
    }

    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    fn begin<'m>(&'m self, op: Op, key: &'m str) -> Pending<'m> {
        let start = host::clock::now();
        self.counters.outcomes.begun(start, op);
        Pending {
            counters: &self.counters,
            op,
            key,
            start,
            is_answered: false,
        }
    }
}

#[async_trait]
impl Bucket for Meter {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let (request, bytes) = (self.begin(Op::PutNew, key.as_str()), body.len());
        let result = self.inner.put_new(key, body).await;
        request.answered(&result, bytes);
        if matches!(result, Ok(Put::Conflict)) {
            let conflicts = &self.counters.of(Op::PutNew).conflicts;
            conflicts.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let request = self.begin(Op::Get, key.as_str());
        let result = self.inner.get(key).await;
        request.answered(&result, length(&result));
        result
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let request = self.begin(Op::GetRange, key.as_str());
        let result = self.inner.get_range(key, range).await;
        let bytes = length(&result);
        request.answered(&result, bytes);
        result
    }

    async fn read(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        let op = range.as_ref().map_or(Op::Get, |_| Op::GetRange);
        let request = self.begin(op, key.as_str());
        let result = self.inner.read(key, range, received).await;
        request.answered(&result, received.length());
        result
    }

    async fn space(&self) -> std::io::Result<Option<Space>> {
        self.inner.space().await
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        let request = self.begin(Op::Head, key.as_str());
        let result = self.inner.head(key).await;
        request.answered(&result, 0);
        result
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let request = self.begin(Op::List, prefix);
        let result = self.inner.list(prefix, start_after, limit).await;
        request.answered(&result, 0);
        result
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let request = self.begin(Op::Delete, key.as_str());
        let result = self.inner.delete(key).await;
        request.answered(&result, 0);
        result
    }
}

fn length(result: &Result<Option<Bytes>, Error>) -> u64 {
    match result {
        Ok(Some(bytes)) => bytes.len() as u64,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::{Fault, FaultRule, Faulty};
    use crate::memory::Memory;

    #[tokio::test]
    async fn requests_bytes_and_errors_are_counted_by_operation() {
        let faulty = Faulty::new(Arc::new(Memory::new()), 0);
        faulty
            .faults()
            .add(FaultRule::on(Op::Get, Fault::Throttled).times(1));
        let meter = Meter::new(Arc::new(faulty));
        let key = Key::new("a").unwrap();
        for _ in 0..2 {
            let body = Bytes::from_static(b"12345").into();
            meter.put_new(&key, body).await.unwrap();
            let _ = meter.get(&key).await;
        }
        let counts = meter.counters().counts();
        assert!(counts.iter().zip(Op::ALL).all(|(count, op)| count.op == op));
        let put = counts[Op::PutNew as usize];
        assert_eq!((put.requests, put.conflicts, put.bytes), (2, 1, 10));
        let get = counts[Op::Get as usize];
        assert_eq!((get.requests, get.throttled, get.bytes), (2, 1, 5));
    }

    #[test]
    fn what_is_given_up_unanswered_has_failed_unless_it_was_at_once() {
        let counters = Counters::default();
        let begun = |start| Pending {
            counters: &counters,
            op: Op::PutNew,
            key: "a",
            start,
            is_answered: false,
        };
        let now = host::clock::now();
        let ago = |seconds: u64| Instant::from_micros(now.as_micros() - seconds * 1_000_000);
        let error = Error::unknown(Op::PutNew, "a", "reset");
        counters.outcomes.note(ago(6), Op::PutNew, Some(&error));
        drop(begun(now));
        assert_eq!(counters.outage(Kind::Writes), None);
        drop(begun(ago(4)));
        let outage = counters.outage(Kind::Writes).unwrap();
        assert!(outage.why.contains("no answer in 4 s"), "{outage}");
        begun(ago(4)).answered(&Ok(()), 0);
        assert_eq!(counters.outage(Kind::Writes), None);
    }
}
