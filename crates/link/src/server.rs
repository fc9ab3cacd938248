//! Lets others call a control node over the network. It must not know what calls mean.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use host::budget::Budget;
use host::net::TcpListener;
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::HeaderValue;
use hyper::{Method, Request, Response, StatusCode};
use meta::level::{Level, TooNew};
use rpc::growth::Growth;
use rpc::notice::Told;
use rpc::{Error, Position, Served, Speaker, encoding};

use crate::front::{Body, Front, Responds, Shown, accept, speaker, told};
use crate::keys::Security;
use crate::message::{CALL, GROWTH, LEADER_AWAY, LEVEL, MESSAGE_BYTES_MAX, NOTICES, framed, level};
use crate::process::Role;

/// A stream says something at least this often.
const BEAT: Duration = Duration::from_millis(500);

struct Server {
    node: Arc<dyn Served>,
    budget: Budget,
    front: Front,
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
    let server = Server {
        node,
        budget: Budget::of_bytes(calls_bytes),
        front: Front::new(cluster_id, security),
    };
    accept(listener, Arc::new(server)).await;
}

impl Responds for Server {
    /// Requests of members that wait for others are one each.
    const STREAMS_MAX: u32 = 200_000;

    fn front(&self) -> &Front {
        &self.front
    }

    async fn respond(&self, request: Request<Incoming>, caller: &Option<Shown>) -> Response<Body> {
        if let Err(refusal) = self.admit(&request, caller) {
            return self.front.refused(&request, refusal);
        }
        match (request.method(), request.uri().path()) {
            (&Method::POST, CALL) => self.call(request, &speaker(caller)).await,
            (&Method::GET, NOTICES) => self.stream(self.node.notices()),
            (&Method::GET, GROWTH) if is_agent(caller) => told(
                StatusCode::FORBIDDEN,
                "only control nodes are told how the journal grows".to_owned(),
            ),
            (&Method::GET, GROWTH) => self.stream(self.node.growth()),
            (_, path) => told(
                StatusCode::NOT_FOUND,
                format!("nothing is served at {path}"),
            ),
        }
    }
}

impl Server {
    /// Refuses callers that are not who they say, those of another cluster, and those that could not understand the answer.
    fn admit(
        &self,
        request: &Request<Incoming>,
        caller: &Option<Shown>,
    ) -> Result<(), (StatusCode, String)> {
        let name = self.front.admit(request, caller, "control node")?;
        let in_force = self.node.level().number;
        match level(request.headers()) {
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

    async fn call(&self, request: Request<Incoming>, speaker: &Speaker) -> Response<Body> {
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
        let outcome = self.node.serve(call, speaker, is_leader_away).await;
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

    /// What the node tells, for as long as somebody listens.
    fn stream<T: Message>(&self, items: BoxStream<'static, T>) -> Response<Body> {
        let beats = Beats {
            node: Arc::clone(&self.node),
            items,
            to: Position::default(),
        };
        let messages = futures::stream::unfold(beats, Beats::next).boxed();
        Response::new(Either::Right(StreamBody::new(messages)))
    }
}

/// Whether a caller has shown itself to be an agent.
fn is_agent(caller: &Option<Shown>) -> bool {
    let shown = caller.as_ref().and_then(|Shown(process)| process.as_ref());
    shown.is_some_and(|process| process.role == Role::Agent)
}

/// One message of a stream.
trait Message: Send + 'static {
    /// The message that says that there was none since the one that went up to here.
    fn beat(at: Position) -> Self;

    /// Up to where it tells.
    fn to(&self) -> Position;

    fn encode(&self, level: &'static Level) -> Result<Vec<u8>, TooNew>;
}

impl Message for Told {
    fn beat(at: Position) -> Self {
        Told {
            from: at,
            to: at,
            notices: Vec::new(),
        }
    }

    fn to(&self) -> Position {
        self.to
    }

    fn encode(&self, level: &'static Level) -> Result<Vec<u8>, TooNew> {
        encoding::encode_told(level, self)
    }
}

impl Message for Growth {
    fn beat(at: Position) -> Self {
        Growth {
            to: at,
            entries: Vec::new(),
        }
    }

    fn to(&self) -> Position {
        self.to
    }

    fn encode(&self, level: &'static Level) -> Result<Vec<u8>, TooNew> {
        encoding::encode_growth(level, self)
    }
}

/// What a node tells, with a beat whenever there was nothing for a while.
struct Beats<T> {
    node: Arc<dyn Served>,
    items: BoxStream<'static, T>,
    to: Position,
}

impl<T: Message> Beats<T> {
    async fn next(mut self) -> Option<(Result<Frame<Bytes>, Infallible>, Self)> {
        let told = match host::clock::timeout(BEAT, self.items.next()).await {
            Ok(told) => told?,
            Err(_) => T::beat(self.to),
        };
        self.to = told.to();
        let message = told.encode(self.node.level()).ok()?;
        Some((Ok(Frame::data(framed(&message))), self))
    }
}
