//! Takes the connections of those who call this process, and finds out who they are. It must not know what they ask.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::BoxStream;
use host::log_limit::{LogLimit, LogLimits};
use host::net::TcpListener;
use http_body_util::{Either, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rpc::Speaker;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::beginnings::Beginnings;
use crate::caller::name;
use crate::handshake;
use crate::keys::{Keys, Security};
use crate::message::{CLUSTER, NAME};
use crate::process::{Process, Role};
use crate::runtime::{Clock, Tasks};
use crate::verify;

/// Bytes of one request that may come before they are read.
const STREAM_WINDOW: u32 = 1 << 20;
/// The same of all requests of one connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How long a caller may say nothing, not even answer a ping, before its connection is ended.
const SILENCE: Duration = Duration::from_secs(10);
/// How long a caller may take to show its certificate.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Callers that may be about to do so at one time, from one place half as many; one more is sent away, and comes again.
const HANDSHAKES_MAX: usize = 256;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const LOG_EVERY: Duration = Duration::from_secs(10);

pub(crate) type Body =
    Either<Full<Bytes>, StreamBody<BoxStream<'static, Result<Frame<Bytes>, Infallible>>>>;

/// What all who are called have in common.
pub(crate) struct Front {
    cluster_id: String,
    security: Security,
    /// Of connections that cannot be accepted.
    log: LogLimit,
    /// Of refusals, by whom they are of and what they say.
    refusals: LogLimits<(String, String)>,
    handshakes: Arc<Beginnings>,
}

/// Who a caller is by its certificate; `None` if it names nobody.
pub(crate) struct Shown(pub(crate) Option<Process>);

/// As whom a caller speaks that was admitted, which may pass on the call of another. `None`: that is not its to do, since control
/// nodes alone do it, and for agents alone.
pub(crate) fn speaker(caller: &Option<Shown>, relayed_for: Option<&str>) -> Option<Speaker> {
    let speaker = own_speaker(caller);
    match (speaker, relayed_for) {
        (speaker, None) => Some(speaker),
        (Speaker::ControlNode(by), Some(agent)) => {
            let agent = agent.to_owned();
            Some(Speaker::Relayed { agent, by })
        }
        (Speaker::Believed, Some(_)) => Some(Speaker::Believed),
        (Speaker::Agent(_) | Speaker::Relayed { .. }, Some(_)) => None,
    }
}

fn own_speaker(caller: &Option<Shown>) -> Speaker {
    match caller {
        Some(Shown(Some(process))) => {
            let name = process.name.clone();
            match process.role {
                Role::Agent => Speaker::Agent(name),
                Role::Control => Speaker::ControlNode(name),
            }
        }
        // It is not admitted, and would be nobody.
        Some(Shown(None)) => Speaker::Agent(String::new()),
        None => Speaker::Believed,
    }
}

/// Whoever answers requests.
pub(crate) trait Responds: Send + Sync + 'static {
    /// Streams of one connection at one time.
    const STREAMS_MAX: u32;

    fn front(&self) -> &Front;

    /// Answers a caller; who it is by its certificate is not known of one that came without.
    fn respond(
        &self,
        request: Request<Incoming>,
        caller: &Option<Shown>,
    ) -> impl Future<Output = Response<Body>> + Send;
}

/// Lets `server` answer all who connect, until the future is dropped.
pub(crate) async fn accept<S: Responds>(listener: TcpListener, server: Arc<S>) {
    let mut connections = Vec::new();
    loop {
        match host::net::accept(&listener).await {
            Ok((stream, peer)) => {
                connections.retain(|task: &host::task::Task<()>| !task.is_finished());
                let server = Arc::clone(&server);
                connections.push(host::task::spawn("link connection", async move {
                    match server.front().security.clone() {
                        Security::Plaintext => serve_connection(server, stream, None, peer).await,
                        Security::Tls(keys) => serve_securely(server, stream, &keys, peer).await,
                    }
                }));
            }
            Err(error) => {
                if let Some(left_out) = server.front().log.pass(host::clock::now()) {
                    tracing::warn!(%error, left_out, "a caller's connection could not be accepted");
                }
                host::clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn serve_securely<S: Responds>(
    server: Arc<S>,
    stream: host::net::TcpStream,
    keys: &Keys,
    from: SocketAddr,
) {
    let Some(beginning) = server.front().handshakes.admit(from.ip()) else {
        server.front().refuse(
            from,
            "too many callers connect at one time; they come again",
        );
        return;
    };
    let begun = host::clock::timeout(HANDSHAKE_LIMIT, handshake::answer(keys, stream)).await;
    drop(beginning);
    let (stream, peer) = match begun {
        Ok(Ok(begun)) => begun,
        Ok(Err(handshake::Failure::Refused(why))) => return server.front().refuse(from, &why),
        // Somebody looked whether the port is open, or was stopped.
        Ok(Err(handshake::Failure::Closed)) => return,
        Err(_) => {
            return server
                .front()
                .refuse(from, "it does not begin to speak TLS");
        }
    };
    let shown = Shown(peer.chain.first().and_then(verify::process));
    tokio::select! {
        () = serve_connection(Arc::clone(&server), stream, Some(shown), from) => {}
        () = keys.disbelieved(&peer) => {
            server.front().refuse(from, "its certificate is not of a CA that is believed any more");
        }
    }
}

async fn serve_connection<S: Responds>(
    server: Arc<S>,
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
        .max_concurrent_streams(S::STREAMS_MAX)
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

impl Front {
    pub(crate) fn new(cluster_id: String, security: Security) -> Self {
        Front {
            cluster_id,
            security,
            log: LogLimit::every(LOG_EVERY),
            refusals: LogLimits::every(LOG_EVERY),
            handshakes: Beginnings::new(HANDSHAKES_MAX),
        }
    }

    /// Tells that a caller is sent away.
    fn refuse(&self, from: SocketAddr, why: &str) {
        let subject = (from.ip().to_string(), why.to_owned());
        if let Some(left_out) = self.refusals.pass(subject, host::clock::now()) {
            tracing::warn!(%from, why, left_out, "a caller has no secure connection to this node");
        }
    }

    /// Refuses callers that are not who they say, and those of another cluster; `called` is what this process is. Yields the name of
    /// the caller.
    pub(crate) fn admit<'a>(
        &self,
        request: &'a Request<Incoming>,
        caller: &Option<Shown>,
        called: &str,
    ) -> Result<&'a str, (StatusCode, String)> {
        let headers = request.headers();
        let text = |name| {
            headers
                .get(name)
                .and_then(|value| value.to_str().ok())
                .unwrap_or("")
        };
        let (cluster, said) = (text(CLUSTER), text(NAME));
        if let Some(Shown(shown)) = caller {
            let shown = shown.as_ref().map(name);
            if shown.as_deref() != Some(said) {
                let whose = shown.as_deref().unwrap_or("no process of Seaway");
                let why = format!(
                    "the certificate of {said} is that of {whose}: give each process one that was issued for its role and name \
                     (`seaway certs issue`)"
                );
                return Err((StatusCode::FORBIDDEN, why));
            }
        }
        if cluster != self.cluster_id {
            let why = format!(
                "{said} belongs to cluster {cluster:?}, and this {called} to {:?}: start it with this cluster's bucket, or \
                 with the addresses of its own control nodes",
                self.cluster_id
            );
            return Err((StatusCode::MISDIRECTED_REQUEST, why));
        }
        Ok(said)
    }

    /// The answer to a caller that is refused, by the name that it gives.
    pub(crate) fn refused(
        &self,
        request: &Request<Incoming>,
        (status, why): (StatusCode, String),
    ) -> Response<Body> {
        let said = request.headers().get(NAME);
        let said = said.map(|name| String::from_utf8_lossy(name.as_bytes()).into_owned());
        let subject = (said.unwrap_or_default(), status.to_string());
        if let Some(left_out) = self.refusals.pass(subject, host::clock::now()) {
            tracing::warn!(%why, left_out, "a caller is refused");
        }
        told(status, why)
    }
}

/// An answer in words.
pub(crate) fn told(status: StatusCode, why: String) -> Response<Body> {
    let mut response = Response::new(Either::Left(Full::new(Bytes::from(why))));
    *response.status_mut() = status;
    response
}
