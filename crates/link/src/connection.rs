//! One connection to one control node or agent, made when it is first needed and again once it is lost. It must not know who leads, nor
//! what calls mean.

use std::io::ErrorKind;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use host::clock::Instant;
use host::log_limit::LogLimit;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::{HeaderMap, HeaderValue, InvalidHeaderValue};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use rpc::LedBy;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Mutex;

use crate::handshake;
use crate::keys::Security;
use crate::message::{
    AWAITED_AT, CALL, CLOCK, DOUBT, GROWTH, LEADER_AWAY, MESSAGE_BYTES_MAX, NOTICES, PART, RELAY,
    RELAYED_FOR, WITHIN, led_by, level,
};
use crate::process::Role;
use crate::reckoning::{Reading, Reckoning};
use crate::runtime::{Clock, Tasks};

/// How long connecting may take.
const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// Whoever has just failed to connect does not try again for so long, however many calls wait.
const DIAL_PAUSE: Duration = Duration::from_millis(20);
/// A node that says nothing is asked whether it is there after so long.
const PING_AFTER: Duration = Duration::from_secs(1);
/// A node that does not answer that for so long is taken for gone, with all calls to it.
const PONG_LIMIT: Duration = Duration::from_secs(2);
/// What still comes for a call that was given up is expected for so long, and harmless: the library's own choice.
const GIVEN_UP_KNOWN_FOR: Duration = Duration::from_secs(1);
const LOG_EVERY: Duration = Duration::from_secs(10);
const STREAM_WINDOW: u32 = 2 << 20;
const CONNECTION_WINDOW: u32 = 32 << 20;
/// The same where parts of files come, whose memory is counted apart from what is on its way.
const PARTS_WINDOW: u32 = 8 << 20;

/// How a call is asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Manner<'a> {
    /// The caller does not reach the node that leads.
    pub(crate) is_leader_away: bool,
    /// The call is to be passed on to that node.
    pub(crate) relays: bool,
    /// The agent whose call this is, if another passes it on.
    pub(crate) relayed_for: Option<&'a str>,
    /// For how long the caller waits.
    pub(crate) within: Option<Duration>,
    /// When the client for which this is asked was last found to wait, on this process's boot clock.
    pub(crate) awaited_at: Option<Instant>,
}

impl Manner<'_> {
    fn put(&self, headers: &mut HeaderMap) -> Result<(), InvalidHeaderValue> {
        if self.is_leader_away {
            headers.insert(LEADER_AWAY, HeaderValue::from_static("yes"));
        }
        if self.relays {
            headers.insert(RELAY, HeaderValue::from_static("yes"));
        }
        if let Some(agent) = self.relayed_for {
            headers.insert(RELAYED_FOR, HeaderValue::from_str(agent)?);
        }
        if let Some(within) = self.within {
            let millis = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            headers.insert(WITHIN, HeaderValue::from(millis));
        }
        Ok(())
    }
}

/// An answer that has begun.
pub(crate) struct Begun {
    /// It is not known yet, and the node may lead no more.
    pub(crate) is_doubtful: bool,
    /// The node that has given it to the one that was asked: the one that leads.
    pub(crate) by: Option<LedBy>,
    /// The level for which it is written.
    pub(crate) level: u32,
    body: Incoming,
}

impl Begun {
    /// The answer's bytes.
    pub(crate) async fn end(self) -> Result<Bytes, Failure> {
        let body = Limited::new(self.body, MESSAGE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| Failure::Broken(error.to_string()))?;
        Ok(body.to_bytes())
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The call did not reach the node.
    NotSent(String),
    /// The node is there and does nothing for this call: its form, or the caller, is of another release.
    NotServed(String),
    /// The call did not reach the node: its machine says that nobody listens there.
    NobodyThere(String),
    /// The call did not reach the node: one end does not believe the other's certificate.
    Rejected(String),
    /// The call did not reach the node, which took the connection and ended it before.
    HungUp(String),
    /// The call did nothing: the node cannot tell by its clock how long it was under way, and has shown that now.
    ClockNotKnown(String),
    /// It may have reached it.
    Broken(String),
}

impl Failure {
    pub(crate) fn why(self) -> String {
        let (Failure::NotSent(why)
        | Failure::NotServed(why)
        | Failure::NobodyThere(why)
        | Failure::Rejected(why)
        | Failure::HungUp(why)
        | Failure::ClockNotKnown(why)
        | Failure::Broken(why)) = self;
        why
    }
}

pub(crate) struct Connection {
    address: String,
    /// What the process there is.
    role: Role,
    /// Of every request.
    headers: HeaderMap,
    security: Security,
    log: LogLimit,
    state: Mutex<State>,
    reckoning: std::sync::Mutex<Reckoning>,
}

#[derive(Default)]
struct State {
    sender: Option<SendRequest<Full<Bytes>>>,
    failed: Option<(Instant, Failure)>,
}

impl Connection {
    pub(crate) fn new(address: String, headers: HeaderMap, security: Security) -> Self {
        Self::to(Role::Control, address, headers, security)
    }

    /// A connection to a process of a role.
    pub(crate) fn to(role: Role, address: String, headers: HeaderMap, security: Security) -> Self {
        Connection {
            address,
            role,
            headers,
            security,
            log: LogLimit::every(LOG_EVERY),
            state: Mutex::default(),
            reckoning: std::sync::Mutex::default(),
        }
    }

    /// Sends a call; yields the answer as it begins.
    pub(crate) async fn call(&self, call: Bytes, manner: Manner<'_>) -> Result<Begun, Failure> {
        match self.call_once(call.clone(), manner).await {
            Err(Failure::ClockNotKnown(_)) => self.call_once(call, manner).await,
            begun => begun,
        }
    }

    async fn call_once(&self, call: Bytes, manner: Manner<'_>) -> Result<Begun, Failure> {
        let mut request = self.request(Method::POST, CALL, call)?;
        let put = manner.put(request.headers_mut());
        put.map_err(|error| Failure::NotSent(error.to_string()))?;
        if let Some(at) = manner.awaited_at {
            request.headers_mut().insert(AWAITED_AT, self.shown_at(at));
        }
        let response = self.send(request).await?;
        let headers = response.headers();
        Ok(Begun {
            is_doubtful: headers.contains_key(DOUBT),
            // Whoever gave it is not the node that was asked.
            by: led_by(headers).map_err(|flaw| {
                Failure::Broken(format!("an answer that does not say who gave it: {flaw}"))
            })?,
            level: level(headers).unwrap_or(1),
            body: response.into_body(),
        })
    }

    /// The stream of the node's notices.
    pub(crate) async fn notices(&self) -> Result<Incoming, Failure> {
        let request = self.request(Method::GET, NOTICES, Bytes::new())?;
        Ok(self.send(request).await?.into_body())
    }

    /// The stream of how the journal grows, of a node that leads.
    pub(crate) async fn growth(&self) -> Result<Incoming, Failure> {
        let request = self.request(Method::GET, GROWTH, Bytes::new())?;
        Ok(self.send(request).await?.into_body())
    }

    /// Asks an agent for a part of so many bytes; `None` if it has none to give.
    pub(crate) async fn part(&self, wanted: Bytes, bytes: u64) -> Result<Option<Bytes>, Failure> {
        let request = self.request(Method::POST, PART, wanted)?;
        let response = self.send(request).await?;
        if response.status() == StatusCode::NO_CONTENT {
            return Ok(None);
        }
        let mut body = response.into_body();
        let capacity = usize::try_from(bytes).unwrap_or(usize::MAX);
        if body.size_hint().exact() != Some(bytes) {
            return Err(Failure::Broken(
                "it gives a part of another length".to_owned(),
            ));
        }
        let mut part = BytesMut::with_capacity(capacity);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Failure::Broken(error.to_string()))?;
            if let Some(piece) = frame.data_ref() {
                if part.len() + piece.len() > capacity {
                    return Err(Failure::Broken("it gives more than the part".to_owned()));
                }
                part.extend_from_slice(piece);
            }
        }
        Ok(Some(part.freeze()))
    }

    fn request(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Request<Full<Bytes>>, Failure> {
        let scheme = match self.security {
            Security::Plaintext => "http",
            Security::Tls(_) => "https",
        };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(&*self.address)
            .path_and_query(path);
        let uri = uri
            .build()
            .map_err(|error| Failure::NotSent(error.to_string()))?;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        request.headers_mut().clone_from(&self.headers);
        Ok(request)
    }

    async fn send(&self, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, Failure> {
        let mut sender = self.sender().await?;
        let sent = sender.try_send_request(request).await;
        let response = sent.map_err(|mut error| {
            let was_sent = error.take_message().is_none();
            let why = chain(error.error());
            if was_sent {
                Failure::Broken(why)
            } else {
                Failure::HungUp(why)
            }
        })?;
        self.learn_clock(response.headers());
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let body = Limited::new(response.into_body(), 64 << 10).collect().await;
        let text = body.map_or_else(
            |error| error.to_string(),
            |body| String::from_utf8_lossy(&body.to_bytes()).into_owned(),
        );
        let why = format!("{}: {text}", self.address);
        Err(match status {
            // The node does nothing for this caller; another may.
            StatusCode::UPGRADE_REQUIRED | StatusCode::BAD_REQUEST => Failure::NotServed(why),
            StatusCode::MISDIRECTED_REQUEST => Failure::NotSent(why),
            StatusCode::PRECONDITION_REQUIRED => Failure::ClockNotKnown(why),
            StatusCode::FORBIDDEN => Failure::Rejected(why),
            _ => Failure::Broken(why),
        })
    }

    /// What the node's clock showed at a time of this process's, as the header has it.
    fn shown_at(&self, at: Instant) -> HeaderValue {
        let shown = self.reckoning().shown_at(at);
        let header = shown.and_then(|shown| HeaderValue::from_str(&shown.to_string()).ok());
        header.unwrap_or(HeaderValue::from_static("?"))
    }

    fn learn_clock(&self, headers: &HeaderMap) {
        let shown = headers.get(CLOCK).and_then(|shown| shown.to_str().ok());
        if let Some(shown) = shown.and_then(Reading::parse) {
            self.reckoning().learn(shown, host::clock::now());
        }
    }

    fn reckoning(&self) -> MutexGuard<'_, Reckoning> {
        // Nothing panics while it is held.
        self.reckoning
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The open connection, made by one of those who need it.
    async fn sender(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let mut state = self.state.lock().await;
        if let Some(sender) = state.sender.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        state.sender = None;
        let now = host::clock::now();
        if let Some((at, why)) = &state.failed
            && now.since(*at) < DIAL_PAUSE
        {
            return Err(why.clone());
        }
        let dialled = host::clock::timeout(DIAL_LIMIT, self.dial()).await;
        match dialled
            .unwrap_or_else(|_| Err(Failure::NotSent("connecting took too long".to_owned())))
        {
            Ok(sender) => {
                state.failed = None;
                Ok(state.sender.insert(sender).clone())
            }
            Err(why) => {
                state.failed = Some((host::clock::now(), why.clone()));
                Err(why)
            }
        }
    }

    async fn dial(&self) -> Result<SendRequest<Full<Bytes>>, Failure> {
        let stream = host::net::dial(&self.address).await;
        let stream = stream.map_err(|error| match error.kind() {
            ErrorKind::ConnectionRefused => Failure::NobodyThere(error.to_string()),
            _ => Failure::NotSent(error.to_string()),
        })?;
        let window = match self.role {
            Role::Control => CONNECTION_WINDOW,
            Role::Agent => PARTS_WINDOW,
        };
        let keys = match &self.security {
            Security::Plaintext => return open(window, stream, std::future::pending()).await,
            Security::Tls(keys) => keys.clone(),
        };
        match handshake::call(&keys, self.role, stream).await {
            Ok((stream, peer)) => {
                open(window, stream, async move { keys.disbelieved(&peer).await }).await
            }
            Err(handshake::Failure::Closed) => Err(Failure::NotSent(format!(
                "{} closed the connection before it was secure",
                self.address
            ))),
            Err(handshake::Failure::Refused(why)) => {
                let address = &self.address;
                if let Some(left_out) = self.log.pass(host::clock::now()) {
                    tracing::warn!(
                        address,
                        why,
                        left_out,
                        role = self.role.word(),
                        "there is no secure connection to a process of the cluster"
                    );
                }
                Err(Failure::Rejected(format!("{address}: {why}")))
            }
        }
    }
}

async fn open(
    window: u32,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    ended: impl Future<Output = ()> + Send + 'static,
) -> Result<SendRequest<Full<Bytes>>, Failure> {
    let opened = Builder::new(Tasks)
        .timer(Clock::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(window)
        .keep_alive_interval(PING_AFTER)
        .keep_alive_timeout(PONG_LIMIT)
        .keep_alive_while_idle(true)
        .reset_stream_duration(host::clock::of_a_library(GIVEN_UP_KNOWN_FOR))
        .handshake(TokioIo::new(stream));
    let (sender, connection) = opened
        .await
        .map_err(|error| Failure::NotSent(chain(&error)))?;
    host::task::spawn_detached("link connection", async move {
        tokio::select! {
            // Whoever waits for an answer on it is told by that.
            _ = connection => {}
            () = ended => {}
        }
    });
    Ok(sender)
}

/// An error with its causes.
fn chain(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
