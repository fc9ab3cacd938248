//! Watching the HTTP requests beneath an operation, because the client library's errors hide
//! what the store answered. It must not know what answers mean for a bucket.

use std::cell::RefCell;
use std::future::Future;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpResponseBody, HttpService,
    ReqwestConnector,
};

/// Error bodies are a few hundred bytes of XML; no more than this is kept of one.
const MAX_CODE_BYTES: usize = 64;

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

/// An operation's result, and for a failure what was seen on the wire.
pub(crate) enum Reply<T> {
    /// It succeeded.
    Done(T),
    /// It failed.
    Failed(object_store::Error, Seen),
}

/// Runs `work` and notes the last answer that its requests got.
pub(crate) async fn watch<T>(work: impl Future<Output = object_store::Result<T>>) -> Reply<T> {
    SEEN.scope(RefCell::default(), async {
        match work.await {
            Ok(value) => Reply::Done(value),
            Err(error) => Reply::Failed(error, SEEN.with(RefCell::take)),
        }
    })
    .await
}

fn note(seen: Seen) {
    // Requests outside an operation are nobody's concern.
    let _ = SEEN.try_with(|last| last.replace(seen));
}

/// Connects as the client library does, and watches.
#[derive(Debug, Default)]
pub(crate) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Watched(self.0.connect(options)?)))
    }
}

#[derive(Debug)]
struct Watched(HttpClient);

#[async_trait]
impl HttpService for Watched {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        note(Seen {
            sent: true,
            ..Seen::default()
        });
        let response = self.0.execute(request).await?;
        let status = response.status();
        let mut seen = Seen {
            sent: true,
            status: Some(status.as_u16()),
            code: String::new(),
        };
        if status.is_success() {
            note(seen);
            return Ok(response);
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
}
