//! What a bucket is: objects created if absent, read whole or in ranges, listed and deleted, and
//! errors that say whether a request may have had an effect. It must not know which store is
//! behind it, nor what the objects mean.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::received::Received;
use crate::sent::Sent;

/// The longest key, in bytes. Object stores allow 1,024 with the cluster's prefix included.
pub const MAX_KEY_BYTES: usize = 512;
/// The longest part of a key between slashes: file systems allow 255.
pub const MAX_SEGMENT_BYTES: usize = 200;

/// The name of an object below the cluster's prefix: `[a-z0-9/._-]+`, without a leading or
/// trailing slash and without empty, `.` or `..` parts, so that it is a path on any file system
/// and needs no escaping in a URL. Keys are ordered by bytes, as listings are.
///
/// A bucket that is a directory cannot hold both `a` and `a/b`; no layout of ours needs it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(Arc<str>);

/// Why a string is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{key:?} is no object key: {why}")]
pub struct InvalidKey {
    key: String,
    why: &'static str,
}

impl Key {
    /// A key, if `text` is one.
    pub fn new(text: impl Into<String>) -> Result<Self, InvalidKey> {
        let text = text.into();
        match Self::flaw(&text) {
            None => Ok(Key(text.into())),
            Some(why) => {
                // A hostile name must not flood the log.
                let key = text.chars().take(80).collect();
                Err(InvalidKey { key, why })
            }
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn flaw(text: &str) -> Option<&'static str> {
        if text.is_empty() || text.len() > MAX_KEY_BYTES {
            return Some("it must have 1 to 512 bytes");
        }
        if !text.bytes().all(is_key_byte) {
            return Some("only a-z, 0-9, '/', '.', '_' and '-' may occur");
        }
        for part in text.split('/') {
            if part.is_empty() || part == "." || part == ".." {
                return Some("a part between slashes is empty, '.' or '..'");
            }
            if part.len() > MAX_SEGMENT_BYTES {
                return Some("a part between slashes is longer than 200 bytes");
            }
        }
        None
    }
}

pub(crate) fn is_key_byte(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-')
}

impl std::borrow::Borrow<str> for Key {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Key {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for Key {
    type Error = InvalidKey;

    fn try_from(text: &str) -> Result<Self, InvalidKey> {
        Key::new(text)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An object's bytes in pieces, which stay pieces on the way to the socket. Cloning copies no
/// bytes.
#[derive(Clone, Debug, Default)]
pub struct Payload {
    pieces: Vec<Bytes>,
    checksum: Option<u32>,
    sent: Option<Arc<Sent>>,
}

impl Payload {
    /// These pieces, one after the other.
    pub fn new(pieces: Vec<Bytes>) -> Self {
        Payload {
            pieces,
            checksum: None,
            sent: None,
        }
    }

    /// The same bytes with their CRC-32C, which the caller computed from the source of the bytes: a
    /// bucket that verifies it notices any change made since.
    pub fn with_checksum(self, checksum: u32) -> Self {
        Payload {
            checksum: Some(checksum),
            ..self
        }
    }

    /// The same bytes; a bucket that sees them go notes in `sent` how many have gone.
    pub fn with_sent(self, sent: Arc<Sent>) -> Self {
        Payload {
            sent: Some(sent),
            ..self
        }
    }

    /// Where a bucket notes how many bytes have gone, if somebody asked for it.
    pub fn sent(&self) -> Option<&Arc<Sent>> {
        self.sent.as_ref()
    }

    /// The CRC-32C of all bytes, computed if it is not known.
    pub fn checksum(&self) -> u32 {
        self.checksum.unwrap_or_else(|| {
            let pieces = self.pieces.iter();
            pieces.fold(0, |sum, piece| crate::checksum::append(sum, piece))
        })
    }

    /// Bytes in all pieces together.
    pub fn len(&self) -> u64 {
        self.pieces.iter().map(|piece| piece.len() as u64).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.pieces.iter().all(Bytes::is_empty)
    }

    pub fn pieces(&self) -> &[Bytes] {
        &self.pieces
    }

    pub fn into_pieces(self) -> Vec<Bytes> {
        self.pieces
    }

    /// All pieces in one: free for a single piece, a copy for more. Not for the hot path.
    pub fn to_bytes(&self) -> Bytes {
        match self.pieces.as_slice() {
            [] => Bytes::new(),
            [only] => only.clone(),
            pieces => pieces.concat().into(),
        }
    }

    /// True if `bytes` are exactly what the pieces hold.
    pub fn equals(&self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        for piece in &self.pieces {
            match rest.strip_prefix(piece.as_ref()) {
                Some(after) => rest = after,
                None => return false,
            }
        }
        rest.is_empty()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Payload::new(vec![bytes])
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Payload::new(vec![bytes.into()])
    }
}

/// What a create-if-absent did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// The object did not exist and is durable now, with these bytes.
    Created,
    /// Something may already be there, perhaps our own bytes after a lost reply, perhaps nothing
    /// yet (a store may answer 409 while another create is under way). It is never proof that
    /// somebody else won: read the object back.
    Conflict,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectMeta {
    /// The object's key, below the cluster's prefix.
    pub key: Key,
    pub size: u64,
}

/// Room on a file system, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    pub free: u64,
    pub total: u64,
}

/// The operations of a bucket, as errors, counters and fault rules name them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    PutNew,
    Get,
    GetRange,
    Head,
    List,
    Delete,
}

impl Op {
    /// All operations, in a fixed order.
    pub const ALL: [Op; 6] = [
        Op::PutNew,
        Op::Get,
        Op::GetRange,
        Op::Head,
        Op::List,
        Op::Delete,
    ];

    /// A short lower-case name, for metrics.
    pub fn name(self) -> &'static str {
        match self {
            Op::PutNew => "put",
            Op::Get => "get",
            Op::GetRange => "get_range",
            Op::Head => "head",
            Op::List => "list",
            Op::Delete => "delete",
        }
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why an operation gave no answer. None of these ever means that an object is absent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It certainly had no effect and the same request will fail again: forbidden, a bucket that
    /// does not exist, a bad setting, an object shorter than the range asked for.
    #[error("bucket {op} of {key:?} failed: {detail}")]
    Definite { op: Op, key: String, detail: String },
    /// It may have happened, or may still happen: a timeout, a reset, a 5xx, no connection.
    #[error("bucket {op} of {key:?} may or may not have happened: {detail}")]
    Unknown { op: Op, key: String, detail: String },
    /// The store asked for fewer requests and certainly did nothing.
    #[error("bucket {op} of {key:?} was throttled: {detail}")]
    Throttled { op: Op, key: String, detail: String },
}

/// A detail as one line of a log: stores answer errors with pages of XML, line feeds and all.
fn one_line(detail: impl fmt::Display) -> String {
    let detail = detail.to_string();
    if !detail.contains(char::is_control) {
        return detail;
    }
    let in_between = |letter: char| letter.is_control() || letter.is_whitespace();
    let words = detail.split(in_between).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join(" ")
}

impl Error {
    pub fn definite(op: Op, key: impl AsRef<str>, detail: impl fmt::Display) -> Self {
        Error::Definite {
            op,
            key: key.as_ref().to_owned(),
            detail: one_line(detail),
        }
    }

    pub fn unknown(op: Op, key: impl AsRef<str>, detail: impl fmt::Display) -> Self {
        Error::Unknown {
            op,
            key: key.as_ref().to_owned(),
            detail: one_line(detail),
        }
    }

    pub fn throttled(op: Op, key: impl AsRef<str>, detail: impl fmt::Display) -> Self {
        Error::Throttled {
            op,
            key: key.as_ref().to_owned(),
            detail: one_line(detail),
        }
    }

    /// True if the request may have had an effect all the same.
    pub fn may_have_happened(&self) -> bool {
        matches!(self, Error::Unknown { .. })
    }

    /// True if the same request may succeed later.
    pub fn worth_repeating(&self) -> bool {
        !matches!(self, Error::Definite { .. })
    }
}

/// Whether bytes that were read are what was written.
pub type IsWhole = Arc<dyn Fn(&Bytes) -> bool + Send + Sync>;

/// A bucket: a strongly consistent map from keys to immutable objects.
///
/// Every method is one attempt; [`crate::retry`] repeats what may be repeated. Dropping a future
/// leaves its outcome unknown: a put may still be applied.
#[async_trait]
pub trait Bucket: Send + Sync + 'static {
    /// Creates the object if there is none, and never overwrites. `Created` means durable. A store
    /// that refuses an object before it has read all of it may break the connection, which is
    /// [`Error::Unknown`]: a caller that repeats the call learns of the conflict in the end.
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error>;

    /// The whole object; `None` only on the store's definite word that it does not exist.
    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error>;

    /// Exactly the bytes of `range`; `None` only on the store's definite word that the object does
    /// not exist. An object that ends before the range does is a [`Error::Definite`].
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error>;

    /// Reads as [`Bucket::get`] does, or as [`Bucket::get_range`] if a range is given, but puts the
    /// bytes into `received` as they come, where they stay if this future is dropped.
    async fn read(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        let read = match range {
            None => self.get(key).await?,
            Some(range) => self.get_range(key, range).await?,
        };
        Ok(read.map(|bytes| {
            received.expect(bytes.len() as u64);
            received.push(bytes);
        }))
    }

    /// The object's size in bytes; `None` only on the store's definite word that it does not
    /// exist.
    async fn head(&self, key: &Key) -> Result<Option<u64>, Error>;

    /// At most `limit` objects whose keys begin with `prefix` (any characters of a key, not only
    /// whole parts) and come after `start_after`, ordered by key. Fewer than `limit` means that
    /// there are no more. A listing only nominates: no decision may rest on what it lacks.
    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error>;

    /// Deletes the object; one that does not exist is fine.
    async fn delete(&self, key: &Key) -> Result<(), Error>;

    /// The whole object, from a bucket of several that has it as `is_whole` knows it. If none has, and each has said so, it is what one of them
    /// has. A cluster's only bucket is read once.
    async fn get_whole(&self, key: &Key, is_whole: IsWhole) -> Result<Option<Bytes>, Error> {
        let _one_bucket_has_no_choice = is_whole;
        self.get(key).await
    }

    /// Whether the object can be relied upon to be these bytes: every bucket that has to hold it is read. A cluster's only bucket is
    /// read once.
    async fn holds(&self, key: &Key, payload: &Payload) -> Result<bool, Error> {
        let found = self.get(key).await?;
        Ok(found.is_some_and(|bytes| payload.equals(&bytes)))
    }

    /// Whether the object can be relied upon to be there, with this many bytes: every bucket that has to hold it is asked.
    async fn holds_bytes(&self, key: &Key, length: u64) -> Result<bool, Error> {
        Ok(self.head(key).await? == Some(length))
    }

    /// The room on the file system of a bucket that is a directory; `None` for all others.
    async fn space(&self) -> std::io::Result<Option<Space>> {
        Ok(None)
    }

    /// True if the bucket is behind a network, where one request may take far longer than the next.
    fn is_remote(&self) -> bool {
        true
    }
}

/// Refuses a prefix that no key can begin with.
pub(crate) fn check_prefix(prefix: &str) -> Result<(), Error> {
    if prefix.bytes().all(is_key_byte) && !prefix.starts_with('/') && prefix.len() <= MAX_KEY_BYTES
    {
        return Ok(());
    }
    Err(Error::definite(
        Op::List,
        prefix,
        "no key begins with this prefix",
    ))
}

/// Refuses a range that ends before it starts.
pub(crate) fn check_range(key: &Key, range: &Range<u64>) -> Result<(), Error> {
    if range.start <= range.end {
        return Ok(());
    }
    let detail = format!("the range {}..{} is reversed", range.start, range.end);
    Err(Error::definite(Op::GetRange, key, detail))
}

/// The error for an object that ends before `range` does.
pub(crate) fn short_object(key: &Key, range: &Range<u64>, size: u64) -> Error {
    let detail = format!(
        "bytes {}..{} were asked for, but the object ends at {size}",
        range.start, range.end
    );
    Error::definite(Op::GetRange, key, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_paths_without_surprises() {
        for good in ["a", "a/b", "journal/0000/00000000000000000001", "x.y_z-0"] {
            assert_eq!(Key::new(good).unwrap().as_str(), good);
        }
        let long = "a".repeat(MAX_SEGMENT_BYTES + 1);
        for bad in [
            "",
            "/a",
            "a/",
            "a//b",
            ".",
            "a/../b",
            "A",
            "a b",
            "é",
            "#1",
            long.as_str(),
        ] {
            assert!(Key::new(bad).is_err(), "{bad:?} was taken as a key");
        }
    }

    #[test]
    fn an_error_is_one_line() {
        let page = "403 Forbidden:\n<?xml version=\"1.0\"?>\r\n  <Error>\u{1b}[1mno</Error>\n";
        let told = "403 Forbidden: <?xml version=\"1.0\"?> <Error> [1mno</Error>";
        for error in [
            Error::definite(Op::Get, "a", page),
            Error::unknown(Op::Get, "a", page),
            Error::throttled(Op::Get, "a", page),
        ] {
            let error = error.to_string();
            assert!(error.ends_with(told), "{error:?}");
        }
        let plain = Error::definite(Op::Get, "a", "two  spaces").to_string();
        assert!(plain.ends_with("two  spaces"), "{plain}");
    }

    #[test]
    fn a_payload_is_compared_without_being_flattened() {
        let payload = Payload::new(vec![
            Bytes::from_static(b"ab"),
            Bytes::new(),
            Bytes::from_static(b"c"),
        ]);
        assert_eq!(payload.len(), 3);
        assert!(payload.equals(b"abc"));
        assert!(!payload.equals(b"abcd"));
        assert!(!payload.equals(b"ab"));
        assert_eq!(payload.to_bytes(), "abc");
    }
}
