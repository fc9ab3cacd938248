//! Watching the HTTP requests beneath an operation, because the client library's errors hide
//! what the store answered; and adding what the library cannot: a checksum that is known already, and
//! the signature that has to come after it. It must not know what answers mean for a bucket.

use std::cell::RefCell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use ::http::Method;
use async_trait::async_trait;
use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use futures::FutureExt;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse,
    HttpResponseBody, HttpService,
};

use super::http;
use super::sign::Signer;

/// The longest error code that is kept; real ones have some twenty bytes.
const MAX_CODE_BYTES: usize = 64;
/// The header in which S3 expects the CRC-32C of a body.
const CHECKSUM_HEADER: &str = "x-amz-checksum-crc32c";

tokio::task_local! {
    static SEEN: RefCell<Seen>;
}

/// The last answer to an operation's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Whether a request was sent at all.
    pub(crate) sent: bool,
    /// The HTTP status; `None` if no answer came.
    pub(crate) status: Option<u16>,
    /// The store's error code, such as `NoSuchKey`; empty if it gave none.
    pub(crate) code: String,
}

/// An operation's result; a failure comes with the last answer seen on the wire.
pub(crate) enum Reply<T> {
    Done(T),
    Failed(object_store::Error, Seen),
}

/// Runs `work` and notes the last answer that its requests got. The client library panics on settings
/// and credentials of which it can build no request; some of them come from files and services, any
/// time.
pub(crate) async fn watch<T>(work: impl Future<Output = object_store::Result<T>>) -> Reply<T> {
    SEEN.scope(RefCell::default(), async {
        let ended = AssertUnwindSafe(work).catch_unwind().await;
        match ended.unwrap_or_else(|_| Err(unbuildable())) {
            Ok(value) => Reply::Done(value),
            Err(error) => Reply::Failed(error, SEEN.with(RefCell::take)),
        }
    })
    .await
}

fn unbuildable() -> object_store::Error {
    object_store::Error::Generic {
        store: "client",
        source: "no request can be built of the settings and credentials: look for spaces, line feeds and \
                 other characters that cannot be sent in AWS_*, GOOGLE_* or AZURE_* variables and in the \
                 files that they name"
            .into(),
    }
}

fn note(seen: Seen) {
    // Outside of `watch` there is nobody to tell.
    let _ = SEEN.try_with(|last| last.replace(seen));
}

/// The CRC-32C of a request's body: an extension of the request, which becomes S3's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checksum(pub(crate) u32);

/// Connects as the client library does, and watches.
#[derive(Debug, Default)]
pub(crate) struct Connector {
    signer: Option<Arc<Signer>>,
}

impl Connector {
    /// A connector whose requests, which the library leaves unsigned, are signed by `signer`.
    pub(crate) fn signing(signer: Signer) -> Self {
        Connector {
            signer: Some(Arc::new(signer)),
        }
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Watched {
            client: http::client(options)?,
            signer: self.signer.clone(),
        }))
    }
}

#[derive(Debug)]
struct Watched {
    client: reqwest::Client,
    signer: Option<Arc<Signer>>,
}

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, mut request: HttpRequest) -> Result<HttpResponse, HttpError> {
        if let Some(Checksum(value)) = request.extensions().get() {
            let value = BASE64.encode(value.to_be_bytes());
            let header = value.parse().map_err(unusable)?;
            request.headers_mut().insert(CHECKSUM_HEADER, header);
        }
        if let Some(signer) = &self.signer {
            signer.sign(&mut request).await.map_err(unusable)?;
        }
        note(Seen {
            sent: true,
            ..Seen::default()
        });
        let awaited = Awaited::by(&request);
        let response = http::send(&self.client, request).await?;
        let status = response.status();
        let mut seen = Seen {
            sent: true,
            status: Some(status.as_u16()),
            code: String::new(),
        };
        if status.is_success() {
            note(seen);
            return awaited.confirm(response).await;
        }
        let (parts, body) = response.into_parts();
        // Azure names the code in a header as well, which answers to HEAD carry, too.
        let header = parts.headers.get("x-ms-error-code");
        let named = header.and_then(|value| value.to_str().ok());
        seen.code = named.map(clip).unwrap_or_default();
        note(seen.clone());
        let body = body.bytes().await?;
        if seen.code.is_empty() {
            seen.code = code_in(&body);
            note(seen);
        }
        Ok(HttpResponse::from_parts(
            parts,
            HttpResponseBody::from(body),
        ))
    }
}

/// What a success carries. Some gateways answer an error with status 200, and the client library takes the body of one for the
/// listing of an empty bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    /// The bytes of an object, which only its reader can judge.
    Object,
    Listing,
    /// Nothing that anybody reads.
    Word,
}

impl Awaited {
    fn by(request: &HttpRequest) -> Self {
        let query = request.uri().query().unwrap_or_default();
        // S3 and GCS; Azure.
        let lists = |part: &str| part.starts_with("list-type=") || part == "comp=list";
        match *request.method() {
            Method::GET if query.split('&').any(lists) => Awaited::Listing,
            Method::GET | Method::HEAD => Awaited::Object,
            _ => Awaited::Word,
        }
    }

    /// The response, if its body is what such a request is answered with.
    async fn confirm(self, response: HttpResponse) -> Result<HttpResponse, HttpError> {
        if self == Awaited::Object {
            return Ok(response);
        }
        let (parts, body) = response.into_parts();
        let body = body.bytes().await?;
        if !self.may_be(&body) {
            return Err(HttpError::new(
                HttpErrorKind::Decode,
                NoSuccess {
                    code: code_in(&body),
                },
            ));
        }
        let body = HttpResponseBody::from(body);
        Ok(HttpResponse::from_parts(parts, body))
    }

    fn may_be(self, body: &[u8]) -> bool {
        let body = body.trim_ascii_end();
        match self {
            Awaited::Object => true,
            // S3 and GCS; Azure. One that ends early is none either.
            Awaited::Listing => {
                body.ends_with(b"ListBucketResult>") || body.ends_with(b"EnumerationResults>")
            }
            Awaited::Word => !body.ends_with(b"</Error>"),
        }
    }
}

/// The store's answer says success, and its body does not.
#[derive(Debug, thiserror::Error)]
#[error(
    "the store, or a proxy before it, answered with the status of a success and the body of an error (code {code:?})"
)]
struct NoSuccess {
    /// Empty if the body has none.
    code: String,
}

/// The request was not sent.
fn unusable(error: impl std::error::Error + Send + Sync + 'static) -> HttpError {
    HttpError::new(HttpErrorKind::Unknown, error)
}

/// The text of the first `<Code>` element of an error body, as S3, GCS and Azure write it.
fn code_in(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let code = text
        .split_once("<Code>")
        .and_then(|(_, rest)| rest.split_once("</Code>"));
    code.map(|(code, _)| clip(code)).unwrap_or_default()
}

fn clip(code: &str) -> String {
    code.chars().take(MAX_CODE_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_found_in_an_error_body() {
        let body = b"<?xml?><Error><Code>NoSuchKey</Code><Message>x</Message></Error>";
        assert_eq!(code_in(body), "NoSuchKey");
        assert_eq!(code_in(b"<html>not found</html>"), "");
        assert_eq!(code_in(b"<Code>\xff"), "");
    }

    #[test]
    fn a_listing_ends_as_listings_do_and_other_successes_are_no_errors() {
        let error = b"<?xml?><Error><Code>InternalError</Code></Error>\n".as_slice();
        let empty =
            b"<?xml?><ListBucketResult xmlns=\"x\"><KeyCount>0</KeyCount></ListBucketResult>\n";
        let azure = b"<EnumerationResults><Blobs/></EnumerationResults>".as_slice();
        for (body, is_listing, is_word) in [
            (error, false, false),
            (empty.as_slice(), true, true),
            (azure, true, true),
            (&empty[..30], false, true),
            (b"".as_slice(), false, true),
            (b"<html>busy</html>".as_slice(), false, true),
        ] {
            assert_eq!(Awaited::Listing.may_be(body), is_listing);
            assert_eq!(Awaited::Word.may_be(body), is_word);
        }
    }

    #[tokio::test]
    async fn a_panic_in_the_client_library_is_an_error_of_one_request() {
        let work = async { panic!("request must be valid") };
        let Reply::<()>::Failed(error, seen) = watch(work).await else {
            panic!("it failed");
        };
        assert!(error.to_string().contains("AWS_*"), "{error}");
        assert!(!seen.sent);
    }
}
