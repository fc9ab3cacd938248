//! A bucket that calls a test before an object is made, so that a process can end in the middle of what it does with several objects; there
//! is none in production. It must not know what the objects mean.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Payload, Put, Space};
use crate::received::Received;

/// What to call, with the key of the object.
pub type Hook = Arc<dyn Fn(&Key) + Send + Sync>;

/// A bucket of which it is told what is about to be made.
pub struct Watched {
    inner: Arc<dyn Bucket>,
    hook: Hook,
}

impl Watched {
    pub fn new(inner: Arc<dyn Bucket>, hook: Hook) -> Self {
        Watched { inner, hook }
    }
}

#[async_trait]
impl Bucket for Watched {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        (self.hook)(key);
        self.inner.put_new(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        self.inner.get_range(key, range).await
    }

    async fn read(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        self.inner.read(key, range, received).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        self.inner.list(prefix, start_after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.inner.delete(key).await
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
    use std::sync::Mutex;

    use super::*;
    use crate::memory::Memory;

    #[tokio::test]
    async fn what_is_made_is_told() {
        let told = Arc::new(Mutex::new(Vec::new()));
        let hook: Hook = {
            let told = Arc::clone(&told);
            Arc::new(move |key| told.lock().unwrap().push(key.to_string()))
        };
        let bucket = Watched::new(Arc::new(Memory::new()), hook);
        let key = Key::new("a").unwrap();
        let body = Bytes::from_static(b"1");
        bucket.put_new(&key, body.clone().into()).await.unwrap();
        assert_eq!(bucket.get(&key).await, Ok(Some(body)));
        bucket.delete(&key).await.unwrap();
        assert_eq!(*told.lock().unwrap(), ["a"]);
    }
}
