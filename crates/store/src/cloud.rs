//! Buckets of the clouds, and of every store that speaks S3: one attempt per call over the
//! `object_store` crate, with errors that say truthfully whether the request may have had an
//! effect. It must not know what the objects mean, nor how the bucket was named: [`crate::open`]
//! does.
//!
//! The client's own errors hide the HTTP status, and take a bucket that does not exist for a
//! missing object. So the HTTP layer is watched ([`witness`]) and its word decides.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::TryStreamExt;
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use object_store::{PutMode, PutOptions, PutPayload};

use crate::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put};
use crate::bucket::{check_prefix, check_range, short_object};
use crate::received::Received;

pub(crate) mod http;
pub(crate) mod sign;
pub(crate) mod witness;

use witness::{Checksum, Reply, Seen};

/// What an operator can do about a store that refuses uploads with a checksum.
const UNKNOWN_CHECKSUM: &str = "if the store does not know the checksum of uploads \
    (x-amz-checksum-crc32c), say checksum=none, crc64nvme or sha256 in the bucket's URL";

/// Keys in one page of a listing: no store returns more.
const PAGE: usize = 1_000;

/// What a cloud's client must be able to do.
pub(crate) trait Client: ObjectStore + PaginatedListStore {}

impl<T: ObjectStore + PaginatedListStore> Client for T {}

/// A bucket, or a prefix of one, in a cloud.
pub(crate) struct Cloud {
    client: Arc<dyn Client>,
    /// Empty, or ends with a slash.
    prefix: String,
    /// Whether uploads carry their CRC-32C for the store to verify.
    checksums: bool,
}

impl Cloud {
    /// The objects below `prefix`, which is empty or ends with a slash.
    pub(crate) fn new(client: Arc<dyn Client>, prefix: String) -> Self {
        Cloud {
            client,
            prefix,
            checksums: false,
        }
    }

    /// The same bucket, with a store that verifies a CRC-32C as S3 does.
    pub(crate) fn with_checksums(self) -> Self {
        Cloud {
            checksums: true,
            ..self
        }
    }

    fn path(&self, op: Op, key: &Key) -> Result<Path, Error> {
        // Keys need no escaping: `Path::parse` refuses characters that would.
        Path::parse(format!("{}{key}", self.prefix))
            .map_err(|error| Error::definite(op, key, error))
    }

    async fn fetch(
        &self,
        op: Op,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        let path = self.path(op, key)?;
        let options = GetOptions {
            range: range.map(GetRange::Bounded),
            ..GetOptions::default()
        };
        let work = async {
            let answer = self.client.get_opts(&path, options).await?;
            received.expect(answer.range.end - answer.range.start);
            let mut body = answer.into_stream();
            while let Some(piece) = body.try_next().await? {
                received.push(piece);
            }
            Ok(())
        };
        match witness::watch(work).await {
            Reply::Done(()) => Ok(Some(())),
            Reply::Failed(_, seen) if seen.says_absent() => Ok(None),
            Reply::Failed(error, seen) => Err(seen.classify(op, key, &error)),
        }
    }
}

#[async_trait]
impl Bucket for Cloud {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        let path = self.path(Op::PutNew, key)?;
        let mut options = PutOptions::from(PutMode::Create);
        if self.checksums {
            options.extensions.insert(Checksum(body.checksum()));
        }
        if let Some(sent) = body.sent() {
            options.extensions.insert(Arc::clone(sent));
        }
        let pieces = body.into_pieces().into_iter();
        let payload: PutPayload = pieces.filter(|piece| !piece.is_empty()).collect();
        match witness::watch(self.client.put_opts(&path, payload, options)).await {
            Reply::Done(_) => Ok(Put::Created),
            Reply::Failed(_, seen) if seen.says_conflict() => Ok(Put::Conflict),
            Reply::Failed(error, seen) if self.checksums && seen.may_refuse_a_header() => {
                let detail = format!("{error}; {UNKNOWN_CHECKSUM}");
                Err(seen.classify(Op::PutNew, key, detail))
            }
            Reply::Failed(error, seen) => Err(seen.classify(Op::PutNew, key, &error)),
        }
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        let received = Received::default();
        let read = self.read(key, None, &received).await?;
        Ok(read.map(|()| received.whole()))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        check_range(key, &range)?;
        if range.is_empty() {
            // HTTP has no empty range. The caller still learns whether the object reaches that far.
            return match self.head(key).await? {
                None => Ok(None),
                Some(size) if range.end <= size => Ok(Some(Bytes::new())),
                Some(size) => Err(short_object(key, &range, size)),
            };
        }
        let received = Received::default();
        let read = self.read(key, Some(range), &received).await?;
        Ok(read.map(|()| received.whole()))
    }

    async fn read(
        &self,
        key: &Key,
        range: Option<Range<u64>>,
        received: &Received,
    ) -> Result<Option<()>, Error> {
        let Some(range) = range else {
            return self.fetch(Op::Get, key, None, received).await;
        };
        let asked = Some(range.clone());
        let found = self.fetch(Op::GetRange, key, asked, received).await?;
        if found.is_some() && received.length() != range.end - range.start {
            let size = range.start + received.length();
            return Err(short_object(key, &range, size));
        }
        Ok(found)
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        let path = self.path(Op::Head, key)?;
        match witness::watch(self.client.head(&path)).await {
            Reply::Done(meta) => Ok(Some(meta.size)),
            // The answer to HEAD has no body, so that a missing object looks like a missing
            // bucket. Absence must be certain: a GET's answer says which it is.
            Reply::Failed(error, seen) if seen.status == Some(404) => {
                let byte = Received::default();
                match self.fetch(Op::Head, key, Some(0..1), &byte).await? {
                    None => Ok(None),
                    Some(()) => Err(Error::unknown(Op::Head, key, error)),
                }
            }
            Reply::Failed(error, seen) => Err(seen.classify(Op::Head, key, &error)),
        }
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        check_prefix(prefix)?;
        let full = format!("{}{prefix}", self.prefix);
        let mut found: Vec<ObjectMeta> = Vec::new();
        let mut token = None;
        while found.len() < limit {
            let options = PaginatedListOptions {
                // Some stores refuse a start that sorts before the prefix; nothing would be skipped
                // then.
                offset: start_after
                    .filter(|key| key.as_str() > prefix)
                    .map(|key| format!("{}{key}", self.prefix)),
                max_keys: Some((limit - found.len()).min(PAGE)),
                page_token: token.take(),
                ..PaginatedListOptions::default()
            };
            let asked = (!full.is_empty()).then_some(full.as_str());
            let page = match witness::watch(self.client.list_paginated(asked, options)).await {
                Reply::Done(page) => page,
                Reply::Failed(error, seen) => {
                    return Err(seen.classify(Op::List, prefix, &error));
                }
            };
            let ours = page.result.objects.into_iter().filter_map(|object| {
                let key = object.location.as_ref().strip_prefix(&self.prefix)?;
                let key = Key::new(key).ok()?;
                let size = object.size;
                Some(ObjectMeta { key, size })
            });
            found.extend(ours.filter(|meta| start_after.is_none_or(|after| meta.key > *after)));
            token = page.page_token;
            if token.is_none() {
                break;
            }
        }
        if !found.is_sorted_by(|a, b| a.key < b.key) {
            let detail = "the store's listings are not ordered by key";
            return Err(Error::definite(Op::List, prefix, detail));
        }
        Ok(found)
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let path = self.path(Op::Delete, key)?;
        match witness::watch(self.client.delete(&path)).await {
            Reply::Done(()) => Ok(()),
            Reply::Failed(_, seen) if seen.says_absent() => Ok(()),
            Reply::Failed(error, seen) => Err(seen.classify(Op::Delete, key, &error)),
        }
    }
}

impl Seen {
    /// True if the store said explicitly that the object does not exist.
    fn says_absent(&self) -> bool {
        // S3, GCS and all that follow them; Azure.
        self.status == Some(404) && ["NoSuchKey", "BlobNotFound"].contains(&self.code.as_str())
    }

    /// True if a create-if-absent met an object, or may have.
    fn says_conflict(&self) -> bool {
        matches!(self.status, Some(304 | 409 | 412))
    }

    /// Whether the store may have refused an upload because of a header that it does not know.
    fn may_refuse_a_header(&self) -> bool {
        let others = [
            "AuthorizationHeaderMalformed",
            "BadDigest",
            "EntityTooLarge",
            "ExpiredToken",
            "InvalidBucketName",
            "InvalidToken",
            "KeyTooLongError",
            "RequestTimeout",
            "XAmzContentChecksumMismatch",
        ];
        match self.status {
            Some(501) => true,
            Some(400) => !others.contains(&self.code.as_str()),
            _ => false,
        }
    }

    /// Turns a failed request into the error that says whether it may have had an effect.
    fn classify(&self, op: Op, key: impl AsRef<str>, error: impl fmt::Display) -> Error {
        let code = self.code.as_str();
        match self.status {
            // No request was sent: bad settings, no credentials.
            None if !self.sent => Error::definite(op, key, error),
            // A timeout, a reset, no connection.
            None => Error::unknown(op, key, error),
            Some(429) => Error::throttled(op, key, error),
            // S3 and most who follow it; Azure. Any other 503 may come from a proxy after the
            // store has acted.
            Some(503)
                if ["SlowDown", "SlowDownWrite", "SlowDownRead", "ServerBusy"].contains(&code) =>
            {
                Error::throttled(op, key, error)
            }
            // The disk or the quota is full: refused before anything happened.
            Some(507) => Error::definite(op, key, error),
            // The store gave up waiting for our bytes, or got others than we sent.
            Some(408) => Error::unknown(op, key, error),
            Some(400)
                if ["RequestTimeout", "BadDigest", "XAmzContentChecksumMismatch"]
                    .contains(&code) =>
            {
                Error::unknown(op, key, error)
            }
            // A store that does not support a request has not performed it.
            Some(300..=499 | 501) => Error::definite(op, key, error),
            // 5xx, or an answer whose body broke off or made no sense.
            Some(_) => Error::unknown(op, key, error),
        }
    }
}
