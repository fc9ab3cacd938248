//! Snapshots in a bucket: written chunk by chunk and read back before they are named, loaded and
//! checked, and removed once two newer ones are whole. It must not know what the chunks hold.
//!
//! A chunk is named by the claim under which it was written and by a nonce. It is shared only
//! between snapshots of one claim, by the one node that holds it; so whoever removes what no
//! snapshot names cannot remove what another node is just about to name. A name that was removed
//! never comes again, so that a deletion which takes effect late hits nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::stream::{self, StreamExt, TryStreamExt};
use sha2::{Digest, Sha256};
use store::bucket::{self, Bucket, IsWhole, Key, Op, Payload};
use store::layout::{CHUNKS, SNAPSHOTS};
use store::retry::{Limits, Retry};

use super::Unreadable;
use super::manifest::{Chunk, Manifest, Stored};
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
    verified: Arc<Mutex<Verified>>,
}

/// Chunks that were read back as they were written, by the last snapshot or since, each with the
/// claim under which that was and with its object.
type Verified = BTreeMap<(u64, Chunk), Stored>;

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
    Unusable(Unreadable),
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

    /// Writes a snapshot of these parts under a claim, reads every new one back, and names it by
    /// the manifest that `describe` makes of its chunks. Of parts without bytes, which are
    /// unchanged since the last snapshot, only the presence is checked.
    pub async fn write(
        &self,
        claim: u64,
        parts: Vec<(Chunk, Option<Bytes>)>,
        describe: impl FnOnce(Vec<Stored>) -> Manifest,
    ) -> Result<(), bucket::Error> {
        let chunks: Vec<Stored> = stream::iter(parts)
            .map(|(chunk, bytes)| self.write_chunk(claim, chunk, bytes))
            .buffered(AT_ONCE)
            .try_collect()
            .await?;
        let named: BTreeSet<u128> = chunks.iter().map(|stored| stored.nonce).collect();
        let manifest = describe(chunks);
        let object = manifest.encode();
        let key = manifest_key(manifest.cut.last.index, &object);
        self.write_one(&key, object).await?;
        self.verified()
            .retain(|_, stored| named.contains(&stored.nonce));
        Ok(())
    }

    /// Whether a chunk was written and read back under this claim, by the last snapshot or since.
    pub fn has(&self, claim: u64, chunk: &Chunk) -> bool {
        self.verified().contains_key(&(claim, *chunk))
    }

    /// Writes a chunk, unless it was written and read back before.
    async fn write_chunk(
        &self,
        claim: u64,
        chunk: Chunk,
        bytes: Option<Bytes>,
    ) -> Result<Stored, bucket::Error> {
        let verified = self.verified().get(&(claim, chunk)).copied();
        if let Some(stored) = verified {
            let key = chunk_key(claim, &stored);
            if self.bucket.holds_bytes(&key, chunk.length).await? {
                return Ok(stored);
            }
            self.verified().remove(&(claim, chunk));
            if bytes.is_none() {
                // The next attempt encodes it again.
                let gone = "a chunk of the last snapshot is not there";
                return Err(bucket::Error::definite(Op::Head, &key, gone));
            }
        }
        let stored = Stored {
            chunk,
            nonce: host::rng::nonce(),
        };
        let key = chunk_key(claim, &stored);
        let Some(bytes) = bytes else {
            let unknown = "the chunk of a part that was not encoded was never written";
            return Err(bucket::Error::definite(Op::PutNew, &key, unknown));
        };
        self.write_one(&key, bytes).await?;
        self.verified().insert((claim, chunk), stored);
        Ok(stored)
    }

    /// Forgets what was written before: none of it is named by another snapshot.
    pub fn forget(&self) {
        self.verified().clear();
    }

    fn verified(&self) -> MutexGuard<'_, Verified> {
        self.verified.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn write_one(&self, key: &Key, bytes: Bytes) -> Result<(), bucket::Error> {
        let payload = Payload::from(bytes);
        let bucket = self.bucket.as_ref();
        self.retry.put_immutable(bucket, key, &payload).await?;
        let read = || bucket.holds(key, &payload);
        match self.retry.run(Op::Get, key, read).await? {
            true => Ok(()),
            false => {
                let differs = "it does not read back as it was written";
                Err(bucket::Error::definite(Op::Get, key, differs))
            }
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
            Err(why) => return Ok(Read::Unusable(why)),
        };
        let claim = manifest.cut.claim.index;
        let chunks: Result<Vec<Bytes>, Unread> = stream::iter(manifest.chunks.clone())
            .map(|stored| async move { self.chunk(claim, &stored).await })
            .buffered(AT_ONCE)
            .try_collect()
            .await;
        match chunks {
            Ok(chunks) => Ok(Read::Whole(Box::new(manifest), chunks)),
            Err(Unread::Damaged(why)) => Ok(Read::Unusable(Unreadable::Damaged(format!(
                "{}: {why}",
                found.key
            )))),
            Err(Unread::Failed(error)) => Err(error),
        }
    }

    async fn chunk(&self, claim: u64, stored: &Stored) -> Result<Bytes, Unread> {
        let key = chunk_key(claim, stored);
        let chunk = stored.chunk;
        let is_whole: IsWhole = Arc::new(move |bytes| chunk.describes(bytes));
        let bucket = self.bucket.as_ref();
        let read = self.retry.get_whole(bucket, &key, &is_whole).await;
        let bytes = read
            .map_err(Unread::Failed)?
            .ok_or_else(|| Unread::Damaged(format!("{key} is missing")))?;
        // A large snapshot takes a second to hash, which is shared by the cores here.
        let checked = host::task::spawn_blocking(move || chunk.describes(&bytes).then_some(bytes));
        match checked.await {
            Some(bytes) => Ok(bytes),
            None => Err(Unread::Damaged(format!("{key} is damaged"))),
        }
    }

    async fn manifest(&self, key: &Key) -> Result<Result<Manifest, Unreadable>, bucket::Error> {
        let named = key.clone();
        let is_whole: IsWhole = Arc::new(move |object| match Manifest::decode(object) {
            Ok(manifest) => manifest_key(manifest.cut.last.index, object) == named,
            Err(DecodeError::Corrupt(_)) => false,
            // A later version has written it, which knows whether it is whole.
            Err(_) => true,
        });
        let bucket = self.bucket.as_ref();
        let read = self.retry.get_whole(bucket, key, &is_whole).await?;
        let damaged = |why| Err(Unreadable::Damaged(format!("{key} {why}")));
        let Some(object) = read else {
            return Ok(damaged("is missing".to_owned()));
        };
        Ok(match Manifest::decode(&object) {
            Ok(manifest) if manifest_key(manifest.cut.last.index, &object) == *key => Ok(manifest),
            Ok(_) => damaged("holds another snapshot's manifest".to_owned()),
            Err(DecodeError::Corrupt(why)) => damaged(format!("is damaged: {why}")),
            Err(newer) => Err(Unreadable::Newer(format!("{key}: {newer}"))),
        })
    }

    /// Removes the name of a snapshot; its chunks go with the next sweep.
    pub async fn remove(&self, found: &Found) -> Result<(), bucket::Error> {
        self.retry.delete(self.bucket.as_ref(), &found.key).await
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
            self.remove(&found).await?;
        }
        let mut named = BTreeSet::new();
        for found in kept {
            // One that cannot be read may name anything.
            let Ok(manifest) = self.manifest(&found.key).await? else {
                return Ok(());
            };
            let claim = manifest.cut.claim.index;
            named.extend(
                manifest
                    .chunks
                    .iter()
                    .map(|stored| chunk_key(claim, stored)),
            );
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

/// The key of a manifest of a snapshot cut at this slot.
fn manifest_key(index: u64, object: &[u8]) -> Key {
    let digest = hex(&Sha256::digest(object)[..8]);
    key(format!("{SNAPSHOTS}{index:020}-{digest}"))
}

/// The index in a manifest's key.
fn manifest_index(key: &Key) -> Option<u64> {
    let (index, digest) = key.as_str().strip_prefix(SNAPSHOTS)?.split_once('-')?;
    (index.len() == 20 && digest.len() == 16)
        .then(|| index.parse().ok())
        .flatten()
}

fn chunk_key(claim: u64, stored: &Stored) -> Key {
    key(format!("{CHUNKS}{claim:020}-{:032x}", stored.nonce))
}

/// The claim in a chunk's key.
fn chunk_claim(key: &Key) -> Option<u64> {
    let (claim, nonce) = key.as_str().strip_prefix(CHUNKS)?.split_once('-')?;
    (claim.len() == 20 && nonce.len() == 32)
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
