//! Counting what is asked of a bucket: requests, bytes, errors and time by operation, for metrics
//! and for the bill. It must not know what the objects mean.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use host::clock::Instant;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put};

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

/// What was counted for one operation since the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// Which operation.
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

    fn of(&self, op: Op) -> &Counter {
        // Op::ALL lists the variants in the order of their numbers.
        &self.counters[op as usize]
    }

    fn note<T>(&self, op: Op, start: Instant, result: &Result<T, Error>, bytes: u64) {
        let counter = self.of(op);
        let add = |value: &AtomicU64, n: u64| {
            value.fetch_add(n, Ordering::Relaxed);
        };
        add(&counter.requests, 1);
        let micros = host::clock::now().since(start).as_micros();
        add(&counter.micros, u64::try_from(micros).unwrap_or(u64::MAX));
        match result {
            Ok(_) => add(&counter.bytes, bytes),
            Err(Error::Definite { .. }) => add(&counter.definite, 1),
            Err(Error::Unknown { .. }) => add(&counter.unknown, 1),
            Err(Error::Throttled { .. }) => add(&counter.throttled, 1),
        }
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

    /// The counters, to be read at any time.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }
}

#[async_trait]
impl Bucket for Meter {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let (start, bytes) = (host::clock::now(), body.len());
        let result = self.inner.put_new(key, body).await;
        self.counters.note(Op::PutNew, start, &result, bytes);
        if matches!(result, Ok(Put::Conflict)) {
            let conflicts = &self.counters.of(Op::PutNew).conflicts;
            conflicts.fetch_add(1, Ordering::Relaxed);
        }
        result
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let start = host::clock::now();
        let result = self.inner.get(key).await;
        self.counters.note(Op::Get, start, &result, length(&result));
        result
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let start = host::clock::now();
        let result = self.inner.get_range(key, range).await;
        let bytes = length(&result);
        self.counters.note(Op::GetRange, start, &result, bytes);
        result
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        let start = host::clock::now();
        let result = self.inner.head(key).await;
        self.counters.note(Op::Head, start, &result, 0);
        result
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let start = host::clock::now();
        let result = self.inner.list(prefix, start_after, limit).await;
        self.counters.note(Op::List, start, &result, 0);
        result
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let start = host::clock::now();
        let result = self.inner.delete(key).await;
        self.counters.note(Op::Delete, start, &result, 0);
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
    use crate::faulty::{Fault, Faulty, Rule};
    use crate::memory::Memory;

    #[tokio::test]
    async fn requests_bytes_and_errors_are_counted_by_operation() {
        let faulty = Faulty::new(Arc::new(Memory::new()), 0);
        faulty
            .faults()
            .add(Rule::on(Op::Get, Fault::Throttled).times(1));
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
}
