//! From a request to an answer: which operation it is, what the fault rules do to it, and how S3
//! words the result. It must not know how objects are kept.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use bytes::Bytes;
use http::Method;
use http::request::Parts;
use hyper::body::Incoming;

use super::body::{self, Dropped, Frames};
use super::control;
use super::faults::{Drawn, Effect, Kind};
use super::list;
use super::message::{Answer, Error, Request, respond};
use super::multipart;
use super::objects::Object;
use super::{Shared, dates};

pub(super) async fn answer(shared: Arc<Shared>, request: http::Request<Incoming>) -> Answer {
    let (parts, incoming) = request.into_parts();
    let frames = body::read(incoming).await?;
    let Some(request) = take_apart(parts, frames) else {
        return Error::new(400, "InvalidURI").answer();
    };
    if request.bucket == control::BUCKET {
        return control::answer(&shared, &request);
    }
    let kind = request.kind();
    let drawn = shared.faults().draw(&request.bucket, kind, &request.key);
    let injected = match &drawn.effect {
        Some(effect) => Some(effect.name()),
        None if !drawn.delay.is_zero() => Some("delay"),
        None => None,
    };
    shared.counters.request(name(kind), injected);
    let bytes: u64 = request.frames.iter().map(|frame| frame.len() as u64).sum();
    shared.counters.bytes_in(bytes);
    let answer = with_faults(&shared, request, drawn).await;
    if let Ok(response) = &answer {
        shared.counters.bytes_out(response.body().len());
    }
    answer
}

async fn with_faults(shared: &Arc<Shared>, request: Request, drawn: Drawn) -> Answer {
    if !drawn.delay.is_zero() {
        host::clock::sleep(drawn.delay).await;
    }
    match drawn.effect {
        None => perform(shared, request),
        Some(Effect::Stale { ms }) => perform_as_of(shared, request, now_ms().saturating_sub(ms)),
        Some(Effect::ErrorBody) => Error::new(200, "InternalError").answer(),
        Some(Effect::SlowDown) => Error::new(503, "SlowDown").answer(),
        Some(Effect::Fail { status }) => Error::new(status, "InternalError").answer(),
        Some(Effect::Conflict) => Error::new(409, "ConditionalRequestConflict").answer(),
        Some(Effect::Reset) => Err(Dropped),
        Some(Effect::Forbidden) => Error::new(403, "AccessDenied").answer(),
        Some(Effect::Full) => Error::FULL.answer(),
        Some(Effect::Missing) if request.key.is_empty() => list::answer(
            &shared.objects(),
            &Request {
                bucket: String::new(),
                ..request
            },
            u64::MAX,
        ),
        Some(Effect::Missing) => Error::NO_SUCH_KEY.answer(),
        Some(Effect::LoseReply { status }) => {
            perform(shared, request)?;
            match status {
                Some(status) => Error::new(status, "InternalError").answer(),
                None => Err(Dropped),
            }
        }
        Some(Effect::Hold { ms }) => {
            // On a task of its own, because the client may hang up before the write's time has
            // come.
            let shared = Arc::clone(shared);
            let (done, later) = tokio::sync::oneshot::channel();
            host::task::spawn_detached("s3 held request", async move {
                host::clock::sleep(Duration::from_millis(ms)).await;
                // The client may be gone.
                drop(done.send(perform(&shared, request)));
            });
            later.await.unwrap_or(Err(Dropped))
        }
        Some(Effect::Silence) => std::future::pending().await,
        Some(Effect::Stall) => Ok(perform(shared, request)?.map(Frames::stalled)),
        Some(Effect::Corrupt) => Ok(perform(shared, request)?.map(Frames::corrupted)),
        Some(Effect::Truncate) => Ok(perform(shared, request)?.map(Frames::truncated)),
        // The delay was drawn and waited for above.
        Some(Effect::Delay { .. }) => perform(shared, request),
    }
}

fn now_ms() -> u64 {
    host::clock::wall_millis()
}

fn perform(shared: &Shared, request: Request) -> Answer {
    perform_as_of(shared, request, u64::MAX)
}

/// Performs a request; if it reads, what was written after `seen_ms` is not seen.
fn perform_as_of(shared: &Shared, request: Request, seen_ms: u64) -> Answer {
    if !shared.bucket_exists(&request.bucket) {
        return Error::NO_SUCH_BUCKET.answer();
    }
    let upload = request.parameter("uploadId").is_some() || request.parameter("uploads").is_some();
    match request.method {
        _ if upload => multipart::answer(shared, request),
        Method::PUT if request.key.is_empty() => respond(200, &[], Frames::default()),
        Method::PUT if request.header("x-amz-copy-source").is_some() => {
            Error::NOT_IMPLEMENTED.answer()
        }
        Method::PUT => put(shared, request).unwrap_or_else(Error::answer),
        Method::GET | Method::HEAD if !request.key.is_empty() => {
            let object = shared.objects().get(&request.bucket, &request.key);
            match object.filter(|object| object.written_ms <= seen_ms) {
                Some(object) => get(&request, &object).unwrap_or_else(Error::answer),
                None => Error::NO_SUCH_KEY.answer(),
            }
        }
        Method::GET => list::answer(&shared.objects(), &request, seen_ms),
        Method::HEAD => respond(200, &[], Frames::default()),
        Method::DELETE => {
            shared.objects().delete(&request.bucket, &request.key);
            respond(204, &[], Frames::default())
        }
        Method::POST if request.parameter("delete").is_some() => {
            list::delete_many(&mut shared.objects(), &request)
        }
        _ => Error::NOT_IMPLEMENTED.answer(),
    }
}

fn put(shared: &Shared, request: Request) -> Result<Answer, Error> {
    let signed = request.header("x-amz-content-sha256").unwrap_or("");
    if signed.starts_with("STREAMING") {
        // This is a body in signed chunks, with signatures between the bytes.
        return Err(Error::NOT_IMPLEMENTED);
    }
    if shared.verify_checksums && !checksum_matches(&request) {
        return Err(Error::BAD_DIGEST);
    }
    let condition = request.condition()?;
    let etag = shared
        .objects()
        .put(&request.bucket, &request.key, request.frames, &condition)?;
    let etag = format!("\"{etag}\"");
    Ok(respond(200, &[("etag", &etag)], Frames::default()))
}

/// True if the body has the checksum that the header states; without that header nothing can be
/// verified, which counts as a mismatch.
fn checksum_matches(request: &Request) -> bool {
    let sum = |algorithm| {
        let mut digest = crc_fast::Digest::new(algorithm);
        request.frames.iter().for_each(|frame| digest.update(frame));
        digest.finalize()
    };
    if let Some(given) = request.header("x-amz-checksum-crc32c") {
        // A 32-bit algorithm leaves the upper half empty.
        let sum = sum(crc_fast::CrcAlgorithm::Crc32Iscsi) as u32;
        return given == BASE64.encode(sum.to_be_bytes());
    }
    let sum = sum(crc_fast::CrcAlgorithm::Crc64Nvme);
    request.header("x-amz-checksum-crc64nvme") == Some(&BASE64.encode(sum.to_be_bytes()))
}

fn get(request: &Request, object: &Object) -> Result<Answer, Error> {
    let etag = format!("\"{}\"", object.etag);
    let written = dates::http(object.written_ms);
    let unchanged = request
        .header("if-none-match")
        .is_some_and(|given| given == "*" || given.trim_matches('"') == object.etag);
    if unchanged {
        return Ok(respond(304, &[("etag", &etag)], Frames::default()));
    }
    let ranged = request
        .header("range")
        .filter(|_| request.method == Method::GET);
    let range = match ranged {
        Some(text) => range_of(text, object.size).ok_or(Error::RANGE)?,
        None => 0..object.size,
    };
    let content_range = format!(
        "bytes {}-{}/{}",
        range.start,
        range.end.max(1) - 1,
        object.size
    );
    // Set explicitly, because hyper sets no length for the empty body of an answer to HEAD.
    let length = (range.end - range.start).to_string();
    let mut headers = vec![
        ("content-length", length.as_str()),
        ("etag", etag.as_str()),
        ("last-modified", written.as_str()),
        ("accept-ranges", "bytes"),
    ];
    let status = if ranged.is_some() {
        headers.push(("content-range", &content_range));
        206
    } else {
        200
    };
    // HEAD gets the same answer: hyper leaves out the body.
    Ok(respond(
        status,
        &headers,
        Frames::cut(&object.frames, range),
    ))
}

/// The bytes that a `Range` header asks for: `bytes=2-5`, `bytes=2-` or `bytes=-3`.
fn range_of(text: &str, size: u64) -> Option<Range<u64>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let range = match (first, last) {
        ("", last) => size.saturating_sub(last.parse().ok()?)..size,
        (first, "") => first.parse().ok()?..size,
        (first, last) => {
            let end = last.parse::<u64>().ok()?.checked_add(1)?;
            first.parse().ok()?..end.min(size)
        }
    };
    (range.start < range.end).then_some(range)
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Put => "put",
        Kind::Get => "get",
        Kind::Head => "head",
        Kind::Delete => "delete",
        Kind::List => "list",
    }
}

fn take_apart(parts: Parts, frames: Vec<Bytes>) -> Option<Request> {
    let path = decode(parts.uri.path().strip_prefix('/')?)?;
    let (bucket, key) = path.split_once('/').unwrap_or((&path, ""));
    let query = parts.uri.query().unwrap_or("");
    let query = query
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(&value.replace('+', " "))?))
        });
    Some(Request {
        bucket: bucket.to_owned(),
        key: key.to_owned(),
        query: query.collect::<Option<_>>()?,
        headers: parts.headers,
        method: parts.method,
        frames,
    })
}

fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        let (high, low) = (digit()?, digit()?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_as_in_rfc_9110() {
        assert_eq!(range_of("bytes=2-5", 10), Some(2..6));
        assert_eq!(range_of("bytes=2-99", 10), Some(2..10));
        assert_eq!(range_of("bytes=2-", 10), Some(2..10));
        assert_eq!(range_of("bytes=-3", 10), Some(7..10));
        assert_eq!(range_of("bytes=-99", 10), Some(0..10));
        for wrong in [
            "bytes=10-",
            "bytes=-0",
            "bytes=5-2",
            "2-5",
            "bytes=-",
            "bytes=x-y",
        ] {
            assert_eq!(range_of(wrong, 10), None, "{wrong}");
        }
    }
}
