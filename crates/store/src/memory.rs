//! A bucket in this process's memory, for tests, simulation and throw-away clusters. It must not
//! know of faults: [`crate::faulty`] adds those around any bucket.

use std::collections::BTreeMap;
use std::ops::{Bound, Range};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Payload, Put};
use crate::bucket::{check_prefix, check_range, short_object};

/// A bucket that lives as long as this value. It keeps payloads as the pieces that came, uncopied.
#[derive(Debug, Default)]
pub struct Memory {
    objects: Mutex<BTreeMap<Key, Payload>>,
}

impl Memory {
    /// An empty bucket.
    pub fn new() -> Self {
        Memory::default()
    }

    fn objects(&self) -> MutexGuard<'_, BTreeMap<Key, Payload>> {
        // No code that can panic runs under the lock, so a poisoned map is still whole.
        self.objects.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Bucket for Memory {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let mut objects = self.objects();
        if objects.contains_key(key) {
            return Ok(Put::Conflict);
        }
        objects.insert(key.clone(), body);
        Ok(Put::Created)
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let object = self.objects().get(key).cloned();
        Ok(object.map(|body| body.to_bytes()))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        check_range(key, &range)?;
        let object = self.objects().get(key).cloned();
        match object {
            None => Ok(None),
            Some(body) if range.end > body.len() => Err(short_object(key, &range, body.len())),
            Some(body) => Ok(Some(cut(&body, &range))),
        }
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        Ok(self.objects().get(key).map(Payload::len))
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        check_prefix(prefix)?;
        let start = match start_after {
            Some(key) if key.as_str() >= prefix => Bound::Excluded(key.as_str()),
            _ => Bound::Included(prefix),
        };
        let objects = self.objects();
        let found = objects.range::<str, _>((start, Bound::Unbounded));
        Ok(found
            .take_while(|(key, _)| key.as_str().starts_with(prefix))
            .take(limit)
            .map(|(key, body)| ObjectMeta {
                key: key.clone(),
                size: body.len(),
            })
            .collect())
    }

    fn is_remote(&self) -> bool {
        false
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        self.objects().remove(key);
        Ok(())
    }
}

/// The bytes of `range`, which lies within `body`: without a copy if one piece holds them all.
fn cut(body: &Payload, range: &Range<u64>) -> Bytes {
    let mut parts = Vec::new();
    let mut start = 0_u64;
    for piece in body.pieces() {
        let end = start + piece.len() as u64;
        let from = range.start.max(start);
        let to = range.end.min(end);
        if from < to {
            parts.push(piece.slice((from - start) as usize..(to - start) as usize));
        }
        start = end;
    }
    match parts.len() {
        0 => Bytes::new(),
        1 => parts.swap_remove(0),
        _ => {
            let mut joined = BytesMut::with_capacity((range.end - range.start) as usize);
            parts.iter().for_each(|part| joined.extend_from_slice(part));
            joined.freeze()
        }
    }
}
