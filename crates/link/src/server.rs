//! Lets others call a control node over the network. It must not know what calls mean.

use std::future::ready;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use host::budget::Budget;
use host::clock::Instant;
use host::net::TcpListener;
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::body::{Body as _, Frame, Incoming};
use hyper::header::{HeaderMap, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use meta::level::{Level, TooNew};
use rpc::{Asked, Call, Error, Given, Served, encoding};

use crate::front::{Body, Front, Responds, Shown, accept, speaker, told};
use crate::keys::Security;
use crate::message::{
    AWAITED_AT, CALL, CLOCK, DOUBT, GROWTH, LEADER_AWAY, LEVEL, MESSAGE_BYTES_MAX, NOTICES, RELAY,
    RELAYED_FOR, WITHIN, framed, led_by_text, level,
};
use crate::process::Role;
use crate::reckoning::Reading;

/// How a message of a stream is written.
type Encode<T> = fn(&'static Level, &T) -> Result<Vec<u8>, TooNew>;

struct Server {
    node: Arc<dyn Served>,
    budget: Budget,
    front: Front,
    /// By which callers know this process's clock from that of another run.
    run: u64,
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
        run: host::rng::nonce() as u64,
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
            (&Method::POST, CALL) => {
                let mut response = self.call(request, caller).await;
                self.show_clock(response.headers_mut());
                response
            }
            (&Method::GET, NOTICES) => self.stream(self.node.notices(), encoding::encode_told),
            (&Method::GET, GROWTH) if is_agent(caller) => told(
                StatusCode::FORBIDDEN,
                "only control nodes are told how the journal grows".to_owned(),
            ),
            (&Method::GET, GROWTH) => self.stream(self.node.growth(), encoding::encode_growth),
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

    async fn call(&self, request: Request<Incoming>, caller: &Option<Shown>) -> Response<Body> {
        let Some(mut asked) = asked(request.headers(), caller) else {
            let why = "only control nodes pass on the calls of others".to_owned();
            return self.front.refused(&request, (StatusCode::FORBIDDEN, why));
        };
        if let Some(shown) = request.headers().get(AWAITED_AT) {
            let Some(at) = self.own_time(shown) else {
                let why = "the caller does not know this node's clock yet".to_owned();
                return told(StatusCode::PRECONDITION_REQUIRED, why);
            };
            asked.awaited_at = Some(at);
        }
        let body = request.into_body();
        let announced = body.size_hint().upper().unwrap_or(MESSAGE_BYTES_MAX as u64);
        let Some(held) = self
            .budget
            .try_hold(announced.min(MESSAGE_BYTES_MAX as u64))
        else {
            return self.answer(&refused(Error::Busy));
        };
        let read = Limited::new(body, MESSAGE_BYTES_MAX).collect().await;
        let call = match read.map(|body| encoding::decode_call(body.to_bytes())) {
            Ok(Ok(call)) => call,
            Ok(Err(malformed)) => return told(StatusCode::BAD_REQUEST, malformed.to_string()),
            Err(error) => return told(StatusCode::BAD_REQUEST, error.to_string()),
        };
        drop(held);
        let doubted = self.node.doubted(&call);
        let mut serving = serve_call(Arc::clone(&self.node), call, asked).boxed();
        tokio::select! {
            biased;
            given = &mut serving => self.answer(&given),
            () = doubted => self.answer_later(serving),
        }
    }

    /// A time of this process's clock, as a caller reckons it.
    fn own_time(&self, shown: &HeaderValue) -> Option<Instant> {
        let shown = Reading::parse(shown.to_str().ok()?)?;
        (shown.run == self.run).then_some(shown.at)
    }

    fn show_clock(&self, headers: &mut HeaderMap) {
        let shown = Reading {
            run: self.run,
            at: host::clock::now(),
        };
        if let Ok(shown) = HeaderValue::from_str(&shown.to_string()) {
            headers.insert(CLOCK, shown);
        }
    }

    /// Tells at once that this node may lead no more, and the answer when it is known.
    fn answer_later(&self, serving: BoxFuture<'static, Given>) -> Response<Body> {
        let level = self.node.level();
        let answer = async move {
            let given = serving.await;
            // What this level does not have cannot be sent, and an answer that ends early is none.
            let bytes = encoding::encode_answer(level, &given.outcome).unwrap_or_default();
            Ok(Frame::data(Bytes::from(bytes)))
        };
        let body = futures::stream::once(answer).boxed();
        let mut response = Response::new(Either::Right(StreamBody::new(body)));
        let headers = response.headers_mut();
        headers.insert(LEVEL, HeaderValue::from(level.number));
        headers.insert(DOUBT, HeaderValue::from_static("yes"));
        response
    }

    fn answer(&self, given: &Given) -> Response<Body> {
        // It may rise meanwhile; whoever reads the answer is told for which one it is written.
        let level = self.node.level();
        match encoding::encode_answer(level, &given.outcome) {
            Ok(bytes) => {
                let mut response = Response::new(Either::Left(Full::new(Bytes::from(bytes))));
                let headers = response.headers_mut();
                headers.insert(LEVEL, HeaderValue::from(level.number));
                match given.by.as_ref().map(led_by_text) {
                    None => {}
                    Some(Ok(by)) => drop(headers.insert(RELAY, by)),
                    // Without it the caller would take this node for the one that leads.
                    Some(Err(error)) => {
                        let why = format!("the address of the node that leads: {error}");
                        return told(StatusCode::INTERNAL_SERVER_ERROR, why);
                    }
                }
                response
            }
            Err(too_new) => told(StatusCode::INTERNAL_SERVER_ERROR, too_new.to_string()),
        }
    }

    /// What the node tells, for as long as somebody listens.
    fn stream<T: Send + 'static>(
        &self,
        items: BoxStream<'static, T>,
        encode: Encode<T>,
    ) -> Response<Body> {
        let node = Arc::clone(&self.node);
        let messages = items.scan((), move |(), item| {
            let message = encode(node.level(), &item).ok();
            ready(message.map(|message| Ok(Frame::data(framed(&message)))))
        });
        Response::new(Either::Right(StreamBody::new(messages.boxed())))
    }
}

/// How a call has come; `None` if it is not its caller's to pass on.
fn asked(headers: &HeaderMap, caller: &Option<Shown>) -> Option<Asked> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let relayed_for = headers.get(RELAYED_FOR);
    let relayed_for = relayed_for.map(|agent| agent.to_str().unwrap_or_default());
    let within = text(WITHIN).and_then(|millis| millis.parse().ok());
    Some(Asked {
        speaker: speaker(caller, relayed_for)?,
        is_leader_away: headers.contains_key(LEADER_AWAY),
        relays: headers.contains_key(RELAY),
        is_relayed: relayed_for.is_some(),
        within: within.map(Duration::from_millis),
        awaited_at: None,
    })
}

/// Has the node answer a call, for no longer than its caller waits.
async fn serve_call(node: Arc<dyn Served>, call: Call, asked: Asked) -> Given {
    let within = asked.within;
    let served = node.serve(call, asked);
    let Some(within) = within else {
        return served.await;
    };
    let served = host::clock::timeout(within, served).await;
    served.unwrap_or_else(|_| {
        let reason = "there is no answer for as long as the caller waits".to_owned();
        refused(Error::Unknown { reason })
    })
}

fn refused(error: Error) -> Given {
    Given {
        outcome: Err(error),
        by: None,
    }
}

/// Whether a caller has shown itself to be an agent.
fn is_agent(caller: &Option<Shown>) -> bool {
    let shown = caller.as_ref().and_then(|Shown(process)| process.as_ref());
    shown.is_some_and(|process| process.role == Role::Agent)
}
