//! Lets others call a control node over the network. It must not know what calls mean.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use host::budget::Budget;
use host::log_limit::LogLimit;
use host::net::TcpListener;
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rpc::notice::{Notices, Told};
use rpc::{Error, Position, Served, encoding};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Semaphore;

use crate::caller::name;
use crate::handshake;
use crate::keys::{Keys, Security};
use crate::message::{
    CALL, CLUSTER, LEADER_AWAY, LEVEL, MESSAGE_BYTES_MAX, NAME, NOTICES, framed, level,
};
use crate::runtime::{Clock, Tasks};
use crate::verify;

/// Streams of one connection at one time: requests of members that wait for others are one each.
const STREAMS_MAX: u32 = 200_000;
/// Bytes of one call that may come before they are read.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all calls of one connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How long a caller may say nothing, not even answer a ping, before its connection is ended.
const SILENCE: Duration = Duration::from_secs(10);
/// A stream of notices says something at least this often.
const BEAT: Duration = Duration::from_millis(500);
/// How long a caller may take to show its certificate.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Callers that may be about to do so at one time; one more is sent away, and comes again.
const HANDSHAKES_MAX: usize = 256;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const LOG_EVERY: Duration = Duration::from_secs(10);

type Body = Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

struct Server {
    node: Arc<dyn Served>,
    cluster_id: String,
    budget: Budget,
    log: LogLimit,
    security: Security,
    /// Connections that may begin at this time.
    handshakes: Arc<Semaphore>,
}

/// Serves `node`, of this cluster, to all who connect, until the future is dropped. Calls that are being read or decoded, over
/// all connections, take up to `calls_bytes`, and a larger one is refused.
pub async fn serve(
    listener: TcpListener,
    cluster_id: String,
    node: Arc<dyn Served>,
    security: Security,
    calls_bytes: u64,
) {
    let server = Arc::new(Server {
        node,
        cluster_id,
        budget: Budget::of_bytes(calls_bytes),
        log: LogLimit::every(LOG_EVERY),
        security,
        handshakes: Arc::new(Semaphore::new(HANDSHAKES_MAX)),
    });
    let mut connections = Vec::new();
    loop {
        match host::net::accept(&listener).await {
            Ok((stream, peer)) => {
                connections.retain(|task: &host::task::Task<()>| !task.is_finished());
                let server = Arc::clone(&server);
                connections.push(host::task::spawn("link connection", async move {
                    match server.security.clone() {
                        Security::Plaintext => serve_connection(server, stream, None, peer).await,
                        Security::Tls(keys) => serve_securely(server, stream, &keys, peer).await,
                    }
                }));
            }
            Err(error) => {
                if let Some(left_out) = server.log.pass(host::clock::now()) {
                    tracing::warn!(%error, left_out, "a caller's connection could not be accepted");
                }
                host::clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Who a caller is by its certificate, as headers name it; `None` inside if it names nobody.
struct Shown(Option<String>);

async fn serve_securely(
    server: Arc<Server>,
    stream: host::net::TcpStream,
    keys: &Keys,
    from: SocketAddr,
) {
    let Ok(beginning) = Arc::clone(&server.handshakes).try_acquire_owned() else {
        server.refuse(
            from,
            "too many callers connect at one time; they come again",
        );
        return;
    };
    let begun = host::clock::timeout(HANDSHAKE_LIMIT, handshake::answer(keys, stream)).await;
    drop(beginning);
    let (stream, peer) = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(handshake::Failure::Refused(why))) => return server.refuse(from, &why),
        // Somebody looked whether the port is open, or was stopped.
        Ok(Err(handshake::Failure::Closed)) => return,
        Err(_) => return server.refuse(from, "it does not begin to speak TLS"),
    };
    let process = peer.chain.first().and_then(verify::process);
    let shown = Shown(process.as_ref().map(name));
    tokio::select! {
        () = serve_connection(Arc::clone(&server), stream, Some(shown), from) => {}
        () = keys.disbelieved(&peer) => {
            server.refuse(from, "its certificate is not of a CA that is believed any more");
        }
    }
}

async fn serve_connection(
    server: Arc<Server>,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    caller: Option<Shown>,
    from: SocketAddr,
) {
    let caller = Arc::new(caller);
    let answer = service_fn(move |request| {
        let (server, caller) = (Arc::clone(&server), Arc::clone(&caller));
        async move { Ok::<_, Infallible>(server.respond(request, &caller).await) }
    });
    let served = hyper::server::conn::http2::Builder::new(Tasks)
        .timer(Clock::new())
        .auto_date_header(false)
        .max_concurrent_streams(STREAMS_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .keep_alive_interval(SILENCE / 2)
        .keep_alive_timeout(SILENCE / 2)
        .serve_connection(TokioIo::new(stream), answer)
        .await;
    // A connection that breaks is its caller's to tell; each call on it is lost there.
    if let Err(error) = served {
        tracing::debug!(%from, %error, "the connection of a caller ended");
    }
}

impl Server {
    /// Tells that a caller is sent away.
    fn refuse(&self, from: SocketAddr, why: &str) {
        if let Some(left_out) = self.log.pass(host::clock::now()) {
            tracing::warn!(%from, why, left_out, "a caller has no secure connection to this node");
        }
    }

    async fn respond(&self, request: Request<Incoming>, caller: &Option<Shown>) -> Response<Body> {
        if let Err((status, why)) = self.admit(&request, caller) {
            if let Some(left_out) = self.log.pass(host::clock::now()) {
                tracing::warn!(%why, left_out, "a caller is refused");
            }
            return told(status, why);
        }
        match (request.method(), request.uri().path()) {
            (&Method::POST, CALL) => self.call(request).await,
            (&Method::GET, NOTICES) => self.notices(),
            (_, path) => told(
                StatusCode::NOT_FOUND,
                format!("nothing is served at {path}"),
            ),
        }
    }

    /// Refuses callers that are not who they say, those of another cluster, and those that could not understand the answer.
    fn admit(
        &self,
        request: &Request<Incoming>,
        caller: &Option<Shown>,
    ) -> Result<(), (StatusCode, String)> {
        let headers = request.headers();
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("")
        };
        let (cluster, name) = (text(CLUSTER), text(NAME));
        if let Some(Shown(shown)) = caller
            && shown.as_deref() != Some(name)
        {
            let whose = shown.as_deref().unwrap_or("no process of Seaway");
            let why = format!(
                "the certificate of {name} is that of {whose}: give each process one that was issued for its role and name \
                 (`seaway certs issue`)"
            );
            return Err((StatusCode::FORBIDDEN, why));
        }
        if cluster != self.cluster_id {
            let why = format!(
                "{name} belongs to cluster {cluster:?}, and this control node to {:?}: start it with this cluster's bucket, or \
                 with the addresses of its own control nodes",
                self.cluster_id
            );
            return Err((StatusCode::MISDIRECTED_REQUEST, why));
        }
        let in_force = self.node.level().number;
        match level(headers) {
            Some(newest) if newest >= in_force => Ok(()),
            newest => Err((
                StatusCode::UPGRADE_REQUIRED,
                format!(
                    "the cluster is at feature level {in_force}, and {name} knows levels up to {}: run a newer release",
                    newest.unwrap_or(0)
                ),
            )),
        }
    }

    async fn call(&self, request: Request<Incoming>) -> Response<Body> {
        let is_leader_away = request.headers().contains_key(LEADER_AWAY);
        let body = request.into_body();
        let announced = body.size_hint().upper().unwrap_or(MESSAGE_BYTES_MAX as u64);
        let Some(held) = self
            .budget
            .try_hold(announced.min(MESSAGE_BYTES_MAX as u64))
        else {
            return self.answer(&Err(Error::Busy));
        };
        let read = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
        let call = match read.map(|body| encoding::decode_call(body.to_bytes())) {
            Ok(Ok(call)) => call,
            Ok(Err(malformed)) => return told(StatusCode::BAD_REQUEST, malformed.to_string()),
            Err(error) => return told(StatusCode::BAD_REQUEST, error.to_string()),
        };
        drop(held);
        let outcome = self.node.serve(call, is_leader_away).await;
        self.answer(&outcome)
    }

    fn answer(&self, outcome: &Result<rpc::Answer, Error>) -> Response<Body> {
        // It may rise meanwhile; whoever reads the answer is told for which one it is written.
        let level = self.node.level();
        match encoding::encode_answer(level, outcome) {
            Ok(bytes) => {
                let mut response = Response::new(Either::Left(Full::new(Bytes::from(bytes))));
                let headers = response.headers_mut();
                headers.insert(LEVEL, HeaderValue::from(level.number));
                response
            }
            Err(too_new) => told(StatusCode::INTERNAL_SERVER_ERROR, too_new.to_string()),
        }
    }

    fn notices(&self) -> Response<Body> {
        let node = Arc::clone(&self.node);
        let notices = node.notices();
        let beats = Beats {
            node,
            notices,
            to: None,
        };
        let messages = futures::stream::unfold(beats, Beats::next).boxed();
        Response::new(Either::Right(StreamBody::new(messages)))
    }
}

/// Notices, with an empty one whenever there was none for a while.
struct Beats {
    node: Arc<dyn Served>,
    notices: Notices,
    to: Option<Position>,
}

impl Beats {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Infallible>, Self)> {
        let told = match host::clock::timeout(BEAT, self.notices.next()).await {
            Ok(told) => told?,
            Err(_) => {
                let at = self.to.unwrap_or_default();
                let notices = Vec::new();
                Told {
                    from: at,
                    to: at,
                    notices,
                }
            }
        };
        self.to = Some(told.to);
        let message = encoding::encode_told(self.node.level(), &told).ok()?;
        Some((Ok(Frame::data(framed(&message))), self))
    }
}

fn told(status: StatusCode, why: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(why))));
    *response.status_mut() = status;
    response
}
