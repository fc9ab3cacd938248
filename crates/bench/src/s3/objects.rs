//! The objects: an atomic map with create-if-absent and compare-and-set. It must not know HTTP.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;

/// An object: its body in the frames that came, and what S3 reports of it.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) frames: Vec<Bytes>,
    pub(super) size: u64,
    /// Unique for every write, unlike S3's MD5: quicker to make, and stricter for compare-and-set.
    pub(super) etag: String,
    pub(super) written_ms: u64,
}

/// The condition for a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    None,
    /// `If-None-Match: *`
    Absent,
    /// `If-Match`, without quotes.
    Matches(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    /// The condition does not hold.
    Precondition,
    /// There is no object to match.
    Missing,
    Full,
}

#[derive(Debug)]
pub(super) struct Objects {
    objects: BTreeMap<(String, String), Arc<Object>>,
    bytes: u64,
    max_bytes: u64,
    writes: u64,
}

impl Objects {
    pub(super) fn new(max_bytes: Option<u64>) -> Self {
        Objects {
            objects: BTreeMap::new(),
            bytes: 0,
            max_bytes: max_bytes.unwrap_or(u64::MAX),
            writes: 0,
        }
    }

    /// Writes an object if the condition holds, in one step, and returns its ETag.
    pub(super) fn put(
        &mut self,
        bucket: &str,
        key: &str,
        frames: Vec<Bytes>,
        condition: &Condition,
    ) -> Result<String, Refusal> {
        let name = (bucket.to_owned(), key.to_owned());
        let existing = self.objects.get(&name);
        match (condition, existing) {
            (Condition::Absent, Some(_)) => return Err(Refusal::Precondition),
            (Condition::Matches(_), None) => return Err(Refusal::Missing),
            (Condition::Matches(etag), Some(object)) if object.etag != *etag => {
                return Err(Refusal::Precondition);
            }
            _ => {}
        }
        let size: u64 = frames.iter().map(|frame| frame.len() as u64).sum();
        let replaced = existing.map_or(0, |object| object.size);
        let total = (self.bytes - replaced).saturating_add(size);
        if total > self.max_bytes {
            return Err(Refusal::Full);
        }
        self.bytes = total;
        self.writes += 1;
        let etag = format!("{:032x}", self.writes);
        let object = Object {
            frames,
            size,
            etag: etag.clone(),
            written_ms: host::clock::wall_millis(),
        };
        self.objects.insert(name, Arc::new(object));
        Ok(etag)
    }

    pub(super) fn get(&self, bucket: &str, key: &str) -> Option<Arc<Object>> {
        let name = (bucket.to_owned(), key.to_owned());
        self.objects.get(&name).cloned()
    }

    pub(super) fn delete(&mut self, bucket: &str, key: &str) {
        let name = (bucket.to_owned(), key.to_owned());
        if let Some(object) = self.objects.remove(&name) {
            self.bytes -= object.size;
        }
    }

    pub(super) fn wipe(&mut self, bucket: &str) {
        self.objects.retain(|(of, _), _| of != bucket);
        self.bytes = self.objects.values().map(|object| object.size).sum();
    }

    /// The bucket's objects from the key `from` on, or after it, in order.
    pub(super) fn from<'a>(
        &'a self,
        bucket: &str,
        from: Bound<&str>,
    ) -> impl Iterator<Item = (&'a str, &'a Object)> + use<'a> {
        let bucket = bucket.to_owned();
        let named = |key: &str| (bucket.clone(), key.to_owned());
        let start = match from {
            Bound::Included(key) => Bound::Included(named(key)),
            Bound::Excluded(key) => Bound::Excluded(named(key)),
            Bound::Unbounded => Bound::Included(named("")),
        };
        self.objects
            .range((start, Bound::Unbounded))
            .take_while(move |((of, _), _)| *of == bucket)
            .map(|((_, key), object)| (key.as_str(), object.as_ref()))
    }

    pub(super) fn totals(&self) -> (u64, u64) {
        (self.objects.len() as u64, self.bytes)
    }
}
