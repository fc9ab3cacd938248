//! A bucket that looks far away, or slow to write to: a rehearsal, on one machine, for clusters that span regions. It must not
//! know what is asked of it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Payload, Put, Space};
use crate::received::Received;

/// A bucket whose answers come later.
pub struct Far {
    inner: Arc<dyn Bucket>,
    /// From here to the bucket and back.
    round_trip: Duration,
    /// What the bucket takes to make an object, beyond that.
    put: Duration,
    slow: Vec<PathBuf>,
}

impl Far {
    /// `inner`, which looks so far away, and so many times as far as a number says in one of the files `slow`, while it is there.
    pub fn new(
        inner: Arc<dyn Bucket>,
        round_trip: Duration,
        put: Duration,
        slow: Vec<PathBuf>,
    ) -> Self {
        Far {
            inner,
            round_trip,
            put,
            slow,
        }
    }

    /// How many times as far away it is just now.
    fn times(&self) -> u32 {
        let said = |file: &PathBuf| {
            let text = std::fs::read_to_string(file).ok()?;
            text.trim().parse::<u32>().ok()
        };
        self.slow.iter().filter_map(said).max().unwrap_or(1)
    }

    /// A request takes half a round trip to the bucket, and its answer as long to come back.
    async fn ask<T>(&self, request: impl Future<Output = T>) -> T {
        let way = self.round_trip / 2 * self.times();
        host::clock::sleep(way).await;
        let answer = request.await;
        host::clock::sleep(way).await;
        answer
    }
}

#[async_trait]
impl Bucket for Far {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let request = async {
            host::clock::sleep(self.put).await;
            self.inner.put_new(key, body).await
        };
        self.ask(request).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        self.ask(self.inner.get(key)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        self.ask(self.inner.get_range(key, range)).await
    }

    async fn read(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        self.ask(self.inner.read(key, range, received)).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        self.ask(self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        self.ask(self.inner.list(prefix, start_after, limit)).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.ask(self.inner.delete(key)).await
    }

    async fn space(&self) -> std::io::Result<Option<Space>> {
        self.inner.space().await
    }

    fn is_remote(&self) -> bool {
        self.inner.is_remote()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    #[tokio::test]
    async fn a_bucket_is_as_far_away_as_it_is_said_to_be_just_now() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("east.slow");
        let (round_trip, none) = (Duration::from_millis(20), Duration::ZERO);
        let slow = vec![directory.path().join("west.slow"), file.clone()];
        let bucket = Far::new(Arc::new(Memory::new()), round_trip, none, slow);
        let takes = async || {
            let begun = host::clock::now();
            assert_eq!(bucket.get(&Key::new("a").unwrap()).await, Ok(None));
            host::clock::now().since(begun)
        };
        let usually = takes().await;
        assert!(usually >= round_trip, "{usually:?}");
        std::fs::write(&file, "10").unwrap();
        let slow = takes().await;
        assert!(slow >= round_trip * 10, "{slow:?}");
        std::fs::remove_file(&file).unwrap();
        let again = takes().await;
        assert!(again < round_trip * 10, "{again:?}");
    }
}
