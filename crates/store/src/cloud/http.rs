//! The HTTP client beneath the cloud's: set up as the client library sets up its own, except that it
//! sees the bodies of uploads go, which are their only sign of life before the answer. It must not
//! know what requests are for.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody,
};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Certificate, NoProxy, Proxy};

use crate::sent::Sent;

/// A body is handed to the connection in pieces of this size, so that it shows how the body goes: a
/// connection takes some 400 KiB before anything has gone.
const PIECE_BYTES: usize = 64 << 10;

/// A client with these options. Those of HTTP/2 have no effect: copies of a request are to go over
/// connections of their own.
pub(super) fn client(options: &ClientOptions) -> object_store::Result<reqwest::Client> {
    let text = |key| options.get_config_value(&key);
    let flag = |key| text(key).is_some_and(|value| is_true(&value));
    let mut builder = reqwest::Client::builder()
        .http1_only()
        .https_only(!flag(ClientConfigKey::AllowHttp))
        .danger_accept_invalid_certs(flag(ClientConfigKey::AllowInvalidCertificates))
        .user_agent(text(ClientConfigKey::UserAgent).unwrap_or_else(|| "seaway".to_owned()));
    if flag(ClientConfigKey::RandomizeAddresses) {
        builder = builder.dns_resolver(Shuffled);
    }
    if flag(ClientConfigKey::NoSystemCertificates) {
        builder = builder.tls_certs_only([]);
    }
    if let Some(url) = text(ClientConfigKey::ProxyUrl) {
        let excluded = text(ClientConfigKey::ProxyExcludes);
        let excluded = excluded.and_then(|hosts| NoProxy::from_string(&hosts));
        let proxy = Proxy::all(url).map_err(unusable)?.no_proxy(excluded);
        builder = builder.proxy(proxy);
    }
    if let Some(pem) = text(ClientConfigKey::ProxyCaCertificate) {
        let certificate = Certificate::from_pem(pem.as_bytes()).map_err(unusable)?;
        builder = builder.tls_certs_merge([certificate]);
    }
    if let Some(limit) = time(options, ClientConfigKey::Timeout)? {
        builder = builder.timeout(limit);
    }
    if let Some(limit) = time(options, ClientConfigKey::ConnectTimeout)? {
        builder = builder.connect_timeout(limit);
    }
    if let Some(limit) = time(options, ClientConfigKey::ReadTimeout)? {
        builder = builder.read_timeout(limit);
    }
    if let Some(limit) = time(options, ClientConfigKey::PoolIdleTimeout)? {
        builder = builder.pool_idle_timeout(limit);
    }
    builder.build().map_err(unusable)
}

/// True for the spellings that the client library reads as true.
pub(crate) fn is_true(value: &str) -> bool {
    ["1", "true", "on", "yes", "y"].contains(&value.to_ascii_lowercase().as_str())
}

fn unusable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> object_store::Error {
    object_store::Error::Generic {
        store: "HTTP client",
        source: error.into(),
    }
}

fn time(options: &ClientOptions, key: ClientConfigKey) -> object_store::Result<Option<Duration>> {
    let Some(text) = options.get_config_value(&key) else {
        return Ok(None);
    };
    let refused = || {
        unusable(format!(
            "{}={text:?} is no time: write it as 30s",
            key.as_ref()
        ))
    };
    duration(&text).map(Some).ok_or_else(refused)
}

/// A time as the client library writes it: `1m 30s`.
fn duration(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    for part in text.split_whitespace() {
        let unit = part.trim_start_matches(|digit: char| digit.is_ascii_digit());
        let number: u32 = part.strip_suffix(unit)?.parse().ok()?;
        let one = match unit {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" => Duration::from_secs(60),
            "h" => Duration::from_secs(3_600),
            _ => return None,
        };
        total = total.checked_add(one.checked_mul(number)?)?;
    }
    (!total.is_zero()).then_some(total)
}

/// Resolves names as the machine does and tries their addresses in any order, so that the copies of a
/// request reach different servers of a store.
struct Shuffled;

impl Resolve for Shuffled {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            // Port 0 stands for that of the URL.
            let mut found = host::net::resolve(name.as_str(), 0).await?;
            found.sort_by_cached_key(|_| host::rng::nonce());
            let addresses: Addrs = Box::new(found.into_iter());
            Ok(addresses)
        })
    }
}

/// Sends a request and waits for the head of the answer.
pub(super) async fn send(
    client: &reqwest::Client,
    request: HttpRequest,
) -> Result<HttpResponse, HttpError> {
    let (mut parts, body) = request.into_parts();
    let sent = parts.extensions.remove::<Arc<Sent>>();
    let url = parts.uri.to_string().parse();
    let url = url.map_err(|error| HttpError::new(HttpErrorKind::Unknown, error))?;
    let mut request = reqwest::Request::new(parts.method, url);
    *request.headers_mut() = parts.headers;
    *request.body_mut() = Some(match body.as_bytes() {
        Some(bytes) => bytes.clone().into(),
        None => reqwest::Body::wrap(Observed::new(body, sent)),
    });
    let answer = client.execute(request).await.map_err(failed)?;
    let (parts, body) = http::Response::<reqwest::Body>::from(answer).into_parts();
    let body = HttpResponseBody::new(body.map_err(failed));
    Ok(HttpResponse::from_parts(parts, body))
}

/// The error without the URL, which may hold a credential: a token of an Azure SAS, or of a web identity.
fn failed(error: reqwest::Error) -> HttpError {
    let kind = if error.is_timeout() {
        HttpErrorKind::Timeout
    } else if error.is_connect() {
        HttpErrorKind::Connect
    } else {
        HttpErrorKind::Unknown
    };
    HttpError::new(kind, error.without_url())
}

/// A request's body that notes how much of it the connection has taken.
struct Observed {
    body: HttpRequestBody,
    /// What the connection gets next of the piece that came last from `body`.
    piece: Bytes,
    taken: u64,
    sent: Option<Arc<Sent>>,
}

impl Observed {
    fn new(body: HttpRequestBody, sent: Option<Arc<Sent>>) -> Self {
        Observed {
            body,
            piece: Bytes::new(),
            taken: 0,
            sent,
        }
    }
}

impl Body for Observed {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        while self.piece.is_empty() {
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => self.piece = frame.into_data().unwrap_or_default(),
                end => return Poll::Ready(end),
            }
        }
        let length = self.piece.len().min(PIECE_BYTES);
        let piece = self.piece.split_to(length);
        self.taken += length as u64;
        if let Some(sent) = &self.sent {
            sent.note(self.taken);
        }
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.piece.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let rest = self.body.size_hint().lower();
        SizeHint::with_exact(rest + self.piece.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_error_does_not_show_what_the_url_holds() {
        let client = client(&ClientOptions::new().with_allow_http(true)).expect("a client");
        // Nothing listens on port 1.
        let request = HttpRequest::new(HttpRequestBody::empty());
        let (mut parts, body) = request.into_parts();
        parts.uri = "http://127.0.0.1:1/?sig=secret".parse().expect("a URL");
        let error = send(&client, HttpRequest::from_parts(parts, body)).await;
        let error = error.expect_err("nobody answers");
        let mut told = format!("{error} {error:?}");
        let mut source = std::error::Error::source(&error);
        while let Some(error) = source {
            told += &format!(" {error} {error:?}");
            source = error.source();
        }
        assert!(!told.contains("secret"), "{told}");
    }

    #[test]
    fn times_are_read_as_the_client_library_writes_them() {
        let seconds = Duration::from_secs;
        for (text, expected) in [
            ("3s", Some(seconds(3))),
            ("1m 30s", Some(seconds(90))),
            ("150ms", Some(Duration::from_millis(150))),
            ("2h", Some(seconds(7_200))),
            ("", None),
            ("0s", None),
            ("3", None),
            ("s", None),
            ("3 s", None),
            ("99999999999s", None),
            ("-1s", None),
        ] {
            assert_eq!(duration(text), expected, "{text:?}");
        }
        let options = ClientOptions::new()
            .with_timeout(seconds(90))
            .with_config(ClientConfigKey::ConnectTimeout, "soon");
        assert_eq!(
            time(&options, ClientConfigKey::Timeout).ok(),
            Some(Some(seconds(90)))
        );
        let refused = client(&options).expect_err("no time").to_string();
        assert!(refused.contains("connect_timeout"), "{refused}");
    }

    #[tokio::test]
    async fn a_body_goes_in_small_pieces_and_is_seen_to_go() {
        let pieces = [Bytes::from(vec![1; 150 << 10]), Bytes::from_static(b"end")];
        let whole = pieces.concat();
        let payload: object_store::PutPayload = pieces.into_iter().collect();
        let sent = Arc::<Sent>::default();
        let mut body = Observed::new(payload.into(), Some(Arc::clone(&sent)));
        let (mut got, mut seen) = (Vec::new(), Vec::new());
        assert_eq!(body.size_hint().exact(), Some(whole.len() as u64));
        while let Some(frame) = body.frame().await {
            got.extend_from_slice(&frame.unwrap().into_data().unwrap());
            seen.push(sent.last().unwrap().0);
            let left = whole.len() - got.len();
            assert_eq!(body.size_hint().exact(), Some(left as u64));
        }
        assert!(got == whole && body.is_end_stream());
        let first = PIECE_BYTES as u64;
        assert_eq!(seen, [first, 2 * first, 150 << 10, (150 << 10) + 3]);
    }
}
