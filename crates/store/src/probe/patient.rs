//! A bucket that repeats each request a few times, so that one chance failure does not end a probe
//! of thirty requests. It must not know what the requests are for.
//!
//! Repeating a create whose outcome is unknown may conflict with our own object; callers must
//! reckon with a conflict anyway.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use host::backoff::Backoff;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put};
use crate::layout::{MARKER, known};
use crate::retry::{Limits, Retry};

/// For longer outages, the caller of the probe waits.
const LIMITS: Limits = Limits {
    attempts: 6,
    backoff: Backoff::new(Duration::from_millis(20), Duration::from_millis(500)),
    deadline: Duration::from_secs(15),
};

pub(super) struct Patient {
    bucket: Arc<dyn Bucket>,
    retry: Retry,
}

impl Patient {
    pub(super) fn new(bucket: &Arc<dyn Bucket>) -> Self {
        Patient {
            bucket: Arc::clone(bucket),
            retry: Retry::new(LIMITS),
        }
    }
}

#[async_trait]
impl Bucket for Patient {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let put = || self.bucket.put_new(key, body.clone());
        self.retry.run(Op::PutNew, key, put).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        self.retry.get(&*self.bucket, key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let get = || self.bucket.get_range(key, range.clone());
        self.retry.run(Op::GetRange, key, get).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        let head = || self.bucket.head(key);
        self.retry.run(Op::Head, key, head).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let list = || self.bucket.list(prefix, start_after, limit);
        // A listing has no key; this one only stands in the message for a missed deadline.
        let named = Key::new(prefix.trim_end_matches('/'));
        let named = named.unwrap_or_else(|_| known(Key::new(MARKER)));
        self.retry.run(Op::List, &named, list).await
    }

    fn is_remote(&self) -> bool {
        self.bucket.is_remote()
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.retry.delete(&*self.bucket, key).await
    }
}
