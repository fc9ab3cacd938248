//! A bucket that can be switched off, as when its region is lost: a rehearsal for clusters on one machine. The bucket's objects
//! stay where they are. It must not know who switches it.

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put, Space};
use crate::received::Received;

/// A bucket that answers nobody while a file is there.
pub struct Switched {
    inner: Arc<dyn Bucket>,
    file: PathBuf,
}

impl Switched {
    /// `inner`, as long as there is no `file`.
    pub fn new(inner: Arc<dyn Bucket>, file: PathBuf) -> Self {
        Switched { inner, file }
    }

    fn check(&self, op: Op, key: impl AsRef<str>) -> Result<(), Error> {
        match self.file.exists() {
            false => Ok(()),
            true => Err(Error::unknown(
                op,
                key,
                "the bucket's region was switched off",
            )),
        }
    }

    /// The answer of a request, unless the bucket was switched off before or meanwhile.
    async fn ask<T>(
        &self,
        op: Op,
        key: &str,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        self.check(op, key)?;
        let answer = request.await?;
        self.check(op, key)?;
        Ok(answer)
    }
}

#[async_trait]
impl Bucket for Switched {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let request = self.inner.put_new(key, body);
        self.ask(Op::PutNew, key.as_str(), request).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        self.ask(Op::Get, key.as_str(), self.inner.get(key)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        let request = self.inner.get_range(key, range);
        self.ask(Op::GetRange, key.as_str(), request).await
    }

    async fn read(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        let op = range.as_ref().map_or(Op::Get, |_| Op::GetRange);
        let request = self.inner.read(key, range, received);
        self.ask(op, key.as_str(), request).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        self.ask(Op::Head, key.as_str(), self.inner.head(key)).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        let request = self.inner.list(prefix, start_after, limit);
        self.ask(Op::List, prefix, request).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let request = self.inner.delete(key);
        self.ask(Op::Delete, key.as_str(), request).await
    }

    async fn space(&self) -> std::io::Result<Option<Space>> {
        match self.file.exists() {
            false => self.inner.space().await,
            true => Ok(None),
        }
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
    async fn a_bucket_that_is_switched_off_answers_nobody_and_keeps_what_it_has() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("east");
        let bucket = Switched::new(Arc::new(Memory::new()), file.clone());
        let (key, body) = (Key::new("a").unwrap(), Bytes::from_static(b"1"));
        assert_eq!(
            bucket.put_new(&key, body.clone().into()).await,
            Ok(Put::Created)
        );
        std::fs::write(&file, "").unwrap();
        let other = Key::new("b").unwrap();
        for failed in [
            bucket.put_new(&other, body.clone().into()).await.err(),
            bucket.get(&key).await.err(),
            bucket.list("", None, 1).await.err(),
            bucket.delete(&key).await.err(),
        ] {
            assert!(failed.is_some_and(|error| error.worth_repeating()));
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(bucket.get(&key).await, Ok(Some(body)));
        assert_eq!(bucket.get(&other).await, Ok(None));
    }
}
