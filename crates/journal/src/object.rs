//! The engine on one bucket: a slot is an object, created if absent; the floor is a chain of such
//! objects. It must not know what entries mean.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use store::bucket::{self, Bucket, Key, Payload, Put};
use store::layout::JOURNAL;

use crate::engine::{Append, Engine, Error, Limits};

mod floor;
#[cfg(test)]
mod tests;

/// The largest slot. Objects may be far larger, but a reader holds several at a time.
const SLOT_BYTES_MAX: usize = 8 << 20;
/// Slots read at the same time: a start reads thousands, each of which takes some 25 ms on S3.
const READS_AT_ONCE: usize = 64;
/// About how many bytes one scan holds.
const SCAN_BYTES: u64 = 32 << 20;
/// Slots deleted at the same time.
const DELETES_AT_ONCE: usize = 16;

/// The journal of one shard in a bucket.
pub struct Object {
    bucket: Arc<dyn Bucket>,
    shard: u16,
    /// The last floor known to be in the chain: its number there and its value.
    floor: Mutex<floor::Link>,
}

impl Object {
    /// The journal of `shard` in `bucket`.
    pub fn new(bucket: Arc<dyn Bucket>, shard: u16) -> Self {
        Object {
            bucket,
            shard,
            floor: Mutex::new(floor::Link::default()),
        }
    }

    fn prefix(&self) -> String {
        prefix(self.shard)
    }

    fn slot(&self, index: u64) -> Key {
        key(slot_name(self.shard, index))
    }

    /// The number in the key of a slot.
    fn index_of(&self, key: &Key) -> Option<u64> {
        let digits = key.as_str().strip_prefix(&self.prefix())?;
        let index = digits.parse().ok()?;
        (self.slot(index) == *key).then_some(index)
    }

    /// Slots after `after` as a listing has them, which may lag: index and size.
    async fn listed(&self, after: u64, limit: usize) -> Result<Vec<(u64, u64)>, Error> {
        let start = self.slot(after);
        let listed = self.bucket.list(&self.prefix(), Some(&start), limit).await;
        let objects = listed.map_err(unavailable)?;
        Ok(objects
            .iter()
            .filter_map(|object| Some((self.index_of(&object.key)?, object.size)))
            .collect())
    }
}

#[async_trait]
impl Engine for Object {
    async fn append(&self, index: u64, _nonce: u128, bytes: Bytes) -> Append {
        let key = self.slot(index);
        match self
            .bucket
            .put_new(&key, Payload::from(bytes.clone()))
            .await
        {
            Ok(Put::Created) => return Append::Appended,
            Ok(Put::Conflict) => {}
            Err(error) => return Append::Unknown(error.to_string()),
        }
        // A conflict proves nothing: it may be our own write after a lost reply, or another
        // create that is still under way and may yet fail.
        match self.bucket.get(&key).await {
            Ok(Some(found)) if found == bytes => Append::Appended,
            Ok(Some(found)) => Append::Occupied(found),
            Ok(None) => Append::Unknown(format!("{key} is taken and not there")),
            Err(error) => Append::Unknown(error.to_string()),
        }
    }

    async fn read(&self, index: u64) -> Result<Option<Bytes>, Error> {
        let read = self.bucket.get(&self.slot(index)).await;
        read.map_err(unavailable)
    }

    async fn scan(&self, from: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        let Some(first) = self.read(from).await? else {
            return Ok(Vec::new());
        };
        let mut size = first.len() as u64;
        let mut slots = vec![(from, first)];
        if limit <= 1 {
            return Ok(slots);
        }
        // The listing only says how many slots to read at once. A short one, or a slot that does
        // not answer, costs another scan and nothing else.
        let listed = self.listed(from, limit - 1).await.unwrap_or_default();
        let run = (from + 1..)
            .zip(listed)
            .map_while(|(expected, (index, bytes))| {
                size += bytes;
                (index == expected && size <= SCAN_BYTES).then_some(index)
            });
        let run: Vec<u64> = run.collect();
        let mut reads = stream::iter(run)
            .map(|index| async move { (index, self.read(index).await) })
            .buffered(READS_AT_ONCE);
        while let Some((index, Ok(Some(bytes)))) = reads.next().await {
            slots.push((index, bytes));
        }
        Ok(slots)
    }

    async fn above(&self, index: u64) -> Result<Option<u64>, Error> {
        let listed = self.listed(index, 1).await?;
        Ok(listed.first().map(|(index, _)| *index))
    }

    async fn floor(&self) -> Result<u64, Error> {
        let known = *self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        let last = floor::last(self.bucket.as_ref(), self.shard, known).await?;
        self.note_floor(last);
        Ok(last.floor)
    }

    async fn trim(&self, floor: u64, indices: &[u64]) -> Result<(), Error> {
        let known = *self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        let last = floor::raise(self.bucket.as_ref(), self.shard, known, floor).await?;
        self.note_floor(last);
        let delete = |index: u64| async move {
            assert!(index < floor, "only slots below the floor are trimmed");
            self.bucket
                .delete(&self.slot(index))
                .await
                .map_err(unavailable)
        };
        stream::iter(indices.iter().copied())
            .map(Ok)
            .try_for_each_concurrent(DELETES_AT_ONCE, delete)
            .await
    }

    fn limits(&self) -> Limits {
        Limits {
            slot_bytes_max: SLOT_BYTES_MAX,
        }
    }
}

impl Object {
    fn note_floor(&self, link: floor::Link) {
        let mut known = self.floor.lock().unwrap_or_else(PoisonError::into_inner);
        if known.number < link.number {
            *known = link;
        }
    }
}

fn unavailable(error: bucket::Error) -> Error {
    Error::Unavailable(error.to_string())
}

fn prefix(shard: u16) -> String {
    format!("{JOURNAL}{shard:04x}/")
}

/// The name of the object that is a slot, also for messages: it is what people restore.
pub(crate) fn slot_name(shard: u16, index: u64) -> String {
    format!("{}{index:020}", prefix(shard))
}

/// Keys of ours are valid by construction.
fn key(text: String) -> Key {
    Key::new(text).expect("a key of the journal is a key")
}
