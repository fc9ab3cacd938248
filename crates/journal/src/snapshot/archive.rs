//! Snapshots in a bucket: written chunk by chunk and read back before they are named, loaded and
//! checked, and removed once two newer ones are whole. It must not know what the chunks hold.
//!
//! Chunks are named by the claim under which they were written and by their hash. A chunk is
//! shared only between snapshots of one claim, by the one node that holds it; so whoever removes
//! what no snapshot names cannot remove what another node is just about to name.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use store::bucket::{self, Bucket, Key, Op, Payload};
use store::layout::{CHUNKS, SNAPSHOTS};
use store::retry::{Limits, Retry};

use super::manifest::{Chunk, Manifest};
use crate::entry::DecodeError;

#[cfg(test)]
mod tests;

/// Chunks written or read at the same time.
const AT_ONCE: usize = 4;
/// Objects per listing.
const PAGE: usize = 1_000;

/// The snapshots of one journal.
#[derive(Clone)]
pub struct Archive {
    bucket: Arc<dyn Bucket>,
    retry: Arc<Retry>,
    /// Chunks that were read back as they were written, by the last snapshot or since.
    verified: Arc<Mutex<BTreeSet<Key>>>,
}

/// A snapshot that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub key: Key,
    /// The slot at which it was cut.
    pub index: u64,
}

/// What became of reading a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Read {
    Whole(Box<Manifest>, Vec<Bytes>),
    /// It cannot be used; why, for people.
    Damaged(String),
}

impl Archive {
    /// The snapshots in `bucket`.
    pub fn new(bucket: Arc<dyn Bucket>) -> Self {
        Archive {
            bucket,
            retry: Arc::new(Retry::new(Limits::FILES)),
            verified: Arc::default(),
        }
    }

    /// Writes a snapshot, reads every new part of it back, and names it by its manifest. Of chunks
    /// without bytes, which are unchanged since the last snapshot, only the presence is checked.
    pub async fn write(
        &self,
        manifest: &Manifest,
        chunks: Vec<Option<Bytes>>,
    ) -> Result<(), bucket::Error> {
        let claim = manifest.cut.claim.index;
        stream::iter(manifest.chunks.clone().into_iter().zip(chunks))
            .map(Ok)
            .try_for_each_concurrent(AT_ONCE, |(chunk, bytes)| async move {
                let key = chunk_key(claim, &chunk);
                self.write_chunk(key, chunk.length, bytes).await
            })
            .await?;
        self.write_one(&manifest_key(manifest), manifest.encode())
            .await?;
        let named = manifest.chunks.iter();
        let named: BTreeSet<Key> = named.map(|chunk| chunk_key(claim, chunk)).collect();
        self.verified().retain(|key| named.contains(key));
        Ok(())
    }

    /// Whether a chunk was written and read back under this claim, by the last snapshot or since.
    pub fn has(&self, claim: u64, chunk: &Chunk) -> bool {
        self.verified().contains(&chunk_key(claim, chunk))
    }

    /// Writes a chunk, unless it was written and read back before. That it is there says nothing:
    /// an attempt that failed may have left it, damaged.
    async fn write_chunk(
        &self,
        key: Key,
        length: u64,
        bytes: Option<Bytes>,
    ) -> Result<(), bucket::Error> {
        let is_verified = self.verified().contains(&key);
        if is_verified && self.bucket.head(&key).await? == Some(length) {
            return Ok(());
        }
        let Some(bytes) = bytes else {
            // The next attempt encodes it again.
            self.verified().remove(&key);
            let gone = "a chunk of the last snapshot is not there";
            return Err(bucket::Error::definite(Op::Head, &key, gone));
        };
        self.write_one(&key, bytes).await?;
        self.verified().insert(key);
        Ok(())
    }

    fn verified(&self) -> MutexGuard<'_, BTreeSet<Key>> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_one(&self, key: &Key, bytes: Bytes) -> Result<(), bucket::Error> {
        let payload = Payload::from(bytes);
        let bucket = self.bucket.as_ref();
        self.retry.put_immutable(bucket, key, &payload).await?;
        match self.retry.get(bucket, key).await? {
            Some(found) if payload.equals(&found) => Ok(()),
            _ => Err(bucket::Error::definite(
                Op::Get,
                key,
                "it does not read back as it was written",
            )),
        }
    }

    /// The snapshots with an index above `above`, the newest first.
    pub async fn list(&self, above: u64) -> Result<Vec<Found>, bucket::Error> {
        let mut found: Vec<Found> = self
            .keys(SNAPSHOTS)
            .await?
            .into_iter()
            .filter_map(|key| {
                let index = manifest_index(&key)?;
                (index > above).then_some(Found { key, index })
            })
            .collect();
        found.sort_by(|a, b| (b.index, &b.key).cmp(&(a.index, &a.key)));
        Ok(found)
    }

    /// Reads a whole snapshot and checks every part of it.
    pub async fn read(&self, found: &Found) -> Result<Read, bucket::Error> {
        let manifest = match self.manifest(&found.key).await? {
            Ok(manifest) => manifest,
            Err(why) => return Ok(Read::Damaged(why)),
        };
        let claim = manifest.cut.claim.index;
        let chunks: Result<Vec<Bytes>, Unread> = stream::iter(manifest.chunks.clone())
            .map(|chunk| async move { self.chunk(claim, &chunk).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await;
        match chunks {
            Ok(chunks) => Ok(Read::Whole(Box::new(manifest), chunks)),
            Err(Unread::Damaged(why)) => Ok(Read::Damaged(format!("{}: {why}", found.key))),
            Err(Unread::Failed(error)) => Err(error),
        }
    }

    async fn chunk(&self, claim: u64, chunk: &Chunk) -> Result<Bytes, Unread> {
        let key = chunk_key(claim, chunk);
        let read = self.retry.get(self.bucket.as_ref(), &key).await;
        let bytes = read
            .map_err(Unread::Failed)?
            .ok_or_else(|| Unread::Damaged(format!("{key} is missing")))?;
        // A large snapshot takes a second to hash, which is shared by the cores here.
        let chunk = *chunk;
        let checked = host::task::spawn_blocking(move || chunk.describes(&bytes).then_some(bytes));
        match checked.await {
            Some(bytes) => Ok(bytes),
            None => Err(Unread::Damaged(format!("{key} is damaged"))),
        }
    }

    async fn manifest(&self, key: &Key) -> Result<Result<Manifest, String>, bucket::Error> {
        let read = self.retry.get(self.bucket.as_ref(), key).await?;
        let Some(object) = read else {
            return Ok(Err(format!("{key} is missing")));
        };
        let decoded = Manifest::decode(&object).map_err(|error| match error {
            DecodeError::Corrupt(why) => format!("{key} is damaged: {why}"),
            DecodeError::NewerFormat(format) => {
                format!("{key} has format {format}, which is newer than this program")
            }
            DecodeError::NewerSection(_) => format!("{key}: {error}"),
        });
        Ok(decoded.and_then(|manifest| {
            if manifest_key(&manifest) == *key {
                Ok(manifest)
            } else {
                Err(format!("{key} holds another snapshot's manifest"))
            }
        }))
    }

    /// Removes the snapshots below `oldest`, and the chunks that no other one names. Only the
    /// node that holds the claim at slot `claim` may call it, and not while it writes a snapshot.
    pub async fn sweep(&self, oldest: u64, claim: u64) -> Result<(), bucket::Error> {
        let (kept, old): (Vec<Found>, Vec<Found>) = self
            .list(0)
            .await?
            .into_iter()
            .partition(|found| found.index >= oldest);
        // First the names, so that nothing names a chunk that is gone.
        for found in old {
            self.retry.delete(self.bucket.as_ref(), &found.key).await?;
        }
        let mut named = BTreeSet::new();
        for found in kept {
            // One that cannot be read may name anything.
            let Ok(manifest) = self.manifest(&found.key).await? else {
                return Ok(());
            };
            let claim = manifest.cut.claim.index;
            named.extend(manifest.chunks.iter().map(|chunk| chunk_key(claim, chunk)));
        }
        for key in unreferenced_chunks(&self.keys(CHUNKS).await?, &named, claim) {
            self.retry.delete(self.bucket.as_ref(), key).await?;
        }
        Ok(())
    }

    async fn keys(&self, prefix: &str) -> Result<Vec<Key>, bucket::Error> {
        let mut keys: Vec<Key> = Vec::new();
        loop {
            let page = self.bucket.list(prefix, keys.last(), PAGE).await?;
            let last = page.len() < PAGE;
            keys.extend(page.into_iter().map(|object| object.key));
            if last {
                return Ok(keys);
            }
        }
    }
}

enum Unread {
    Damaged(String),
    Failed(bucket::Error),
}

/// The chunks among `keys` that no snapshot names and that nobody may name any more: those of
/// later claims than `claim` belong to a node that has taken over since.
pub fn unreferenced_chunks<'a>(keys: &'a [Key], named: &BTreeSet<Key>, claim: u64) -> Vec<&'a Key> {
    keys.iter()
        .filter(|key| !named.contains(*key))
        .filter(|key| chunk_claim(key).is_some_and(|written| written <= claim))
        .collect()
}

fn manifest_key(manifest: &Manifest) -> Key {
    let digest = hex(&manifest.digest()[..8]);
    let index = manifest.cut.last.index;
    key(format!("{SNAPSHOTS}{index:020}-{digest}"))
}

/// The index in a manifest's key.
fn manifest_index(key: &Key) -> Option<u64> {
    let (index, digest) = key.as_str().strip_prefix(SNAPSHOTS)?.split_once('-')?;
    (index.len() == 20 && digest.len() == 16)
        .then(|| index.parse().ok())
        .flatten()
}

fn chunk_key(claim: u64, chunk: &Chunk) -> Key {
    key(format!("{CHUNKS}{claim:020}-{}", hex(&chunk.sha256)))
}

/// The claim in a chunk's key.
fn chunk_claim(key: &Key) -> Option<u64> {
    let (claim, hash) = key.as_str().strip_prefix(CHUNKS)?.split_once('-')?;
    (claim.len() == 20 && hash.len() == 64)
        .then(|| claim.parse().ok())
        .flatten()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Keys of ours are valid by construction.
fn key(text: String) -> Key {
    Key::new(text).expect("a key of a snapshot is a key")
}
