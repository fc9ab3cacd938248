//! The HTTP side of a node: health, readiness, metrics, status; and the client that
//! `seaway status` uses. It must not know what the pages say.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use host::log_limit::LogLimit;
use http_body_util::{BodyExt, Empty, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};

/// A client that sends no complete request head within this time is cut off.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a page may take to arrive.
const GET_TIMEOUT: Duration = Duration::from_secs(10);
/// The largest page that [`get`] reads.
const PAGE_BYTES_MAX: usize = 64 << 20;
/// Connections at one time, for a few scrapers and people with keep-alive. More are closed as they
/// come, since they would take file descriptors from the bucket.
const CONNECTIONS_MAX: usize = 64;
/// Pause after a failed accept, so that a shortage of file handles does not become a busy loop.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// An answer to a GET.
pub struct Page {
    pub status: StatusCode,
    pub kind: &'static str,
    pub body: String,
}

impl Page {
    pub fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Page {
            status,
            kind: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }
}

/// Makes the page for a path; `None` if there is no such path.
pub type Pages = Arc<dyn Fn(&str) -> Option<Page> + Send + Sync>;

/// Does what a path asks for, and says what came of it; `None` if there is no such path.
pub type Actions = Arc<dyn Fn(&str) -> BoxFuture<'static, Option<Page>> + Send + Sync>;

/// Does what a path asks of one of two.
pub fn either(one: Actions, other: Actions) -> Actions {
    Arc::new(move |path| {
        let (one, other) = (one(path), other(path));
        async move {
            match one.await {
                Some(page) => Some(page),
                None => other.await,
            }
        }
        .boxed()
    })
}

/// What is served: pages by GET, and what is done by POST.
#[derive(Clone)]
pub struct Site {
    pub pages: Pages,
    pub actions: Actions,
}

impl From<Pages> for Site {
    /// Nothing is done by request.
    fn from(pages: Pages) -> Self {
        let actions: Actions = Arc::new(|_| futures::future::ready(None).boxed());
        Site { pages, actions }
    }
}

/// Serves a site on `listener` until the returned task is dropped.
pub fn serve(listener: host::net::TcpListener, site: impl Into<Site>) -> host::task::Task<()> {
    let site = site.into();
    host::task::spawn("http listener", async move {
        let log = LogLimit::default();
        // Each connection holds a clone, so the count of clones is that of open connections.
        let open = Arc::new(());
        loop {
            match host::net::accept(&listener).await {
                Ok((stream, _)) if Arc::strong_count(&open) <= CONNECTIONS_MAX => {
                    let (site, open) = (site.clone(), Arc::clone(&open));
                    host::task::spawn_detached("http", async move {
                        connection(stream, site).await;
                        drop(open);
                    });
                }
                Ok((_, peer)) => {
                    if let Some(left_out) = log.pass(host::clock::now()) {
                        let max = CONNECTIONS_MAX;
                        tracing::warn!(%peer, max, left_out, "too many HTTP connections: one is closed");
                    }
                }
                Err(error) => {
                    if let Some(left_out) = log.pass(host::clock::now()) {
                        tracing::warn!(%error, left_out, "cannot accept an HTTP connection");
                    }
                    host::clock::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    })
}

async fn connection(stream: host::net::TcpStream, site: Site) {
    let service = service_fn(move |request: Request<Incoming>| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(answer(&request, &site).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "an HTTP connection broke");
    }
}

async fn answer(request: &Request<Incoming>, site: &Site) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let page = match *request.method() {
        Method::GET => (site.pages)(path).unwrap_or_else(|| {
            Page::text(
                StatusCode::NOT_FOUND,
                "no such page; there are /healthz /readyz /metrics /status\n",
            )
        }),
        Method::POST => (site.actions)(path)
            .await
            .unwrap_or_else(|| Page::text(StatusCode::NOT_FOUND, "nothing is done here\n")),
        _ => Page::text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from(page.body)));
    *response.status_mut() = page.status;
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(page.kind),
    );
    response
}

/// Fetches a page: `base` is like `http://127.0.0.1:8080`.
pub async fn get(base: &str, path: &str) -> Result<(StatusCode, String)> {
    ask(Method::GET, base, path).await
}

/// Asks for something to be done; yields the answer.
pub async fn post(base: &str, path: &str) -> Result<(StatusCode, String)> {
    ask(Method::POST, base, path).await
}

async fn ask(method: Method, base: &str, path: &str) -> Result<(StatusCode, String)> {
    let Some(authority) = base.strip_prefix("http://") else {
        bail!("{base}: write it as http://HOST:PORT");
    };
    let authority = authority.trim_end_matches('/');
    let exchange = async {
        let stream = host::net::dial(authority)
            .await
            .with_context(|| format!("nothing answers at {base}"))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let _connection = host::task::spawn("http client", async move { connection.await.is_ok() });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(HOST, authority)
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        let body = Limited::new(response.into_body(), PAGE_BYTES_MAX)
            .collect()
            .await;
        let body = body.map_err(|error| anyhow::anyhow!("the page broke off: {error}"))?;
        Ok((status, String::from_utf8(body.to_bytes().to_vec())?))
    };
    match host::clock::timeout(GET_TIMEOUT, exchange).await {
        Ok(result) => result,
        Err(_) => bail!("{base} did not answer within {} s", GET_TIMEOUT.as_secs()),
    }
}
