//! Lets the other agents of a zone ask this one for parts of files, over the network. It must not know which it has.

use std::any::Any;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use futures::StreamExt;
use host::net::TcpListener;
use http_body_util::{BodyExt, Either, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_LENGTH, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use rpc::encoding;
use rpc::part::{NotGiven, Offers, Part};

use crate::front::{Body, Front, Responds, Shown, accept, told};
use crate::keys::Security;
use crate::message::PART;
use crate::process::Role;

/// The most bytes of a request: a place in a file is some dozens.
const WANTED_BYTES_MAX: usize = 1 << 10;

struct Server {
    offers: Arc<dyn Offers>,
    front: Front,
}

/// Serves what an agent of this cluster offers to all other agents that connect, until the future is dropped.
pub async fn serve_parts(
    listener: TcpListener,
    cluster_id: String,
    offers: Arc<dyn Offers>,
    security: Security,
) {
    let front = Front::new(cluster_id, security);
    accept(listener, Arc::new(Server { offers, front })).await;
}

impl Responds for Server {
    /// More than one agent asks of another.
    const STREAMS_MAX: u32 = 256;

    fn front(&self) -> &Front {
        &self.front
    }

    async fn respond(&self, request: Request<Incoming>, caller: &Option<Shown>) -> Response<Body> {
        let name = match self.admit(&request, caller) {
            Ok(name) => name.to_owned(),
            Err(refusal) => return self.front.refused(&request, refusal),
        };
        match (request.method(), request.uri().path()) {
            (&Method::POST, PART) => self.part(&name, request).await,
            (_, path) => told(
                StatusCode::NOT_FOUND,
                format!("an agent serves nothing at {path}"),
            ),
        }
    }
}

impl Server {
    /// Refuses whoever is no agent of the cluster: nobody else needs records by this way.
    fn admit<'a>(
        &self,
        request: &'a Request<Incoming>,
        caller: &Option<Shown>,
    ) -> Result<&'a str, (StatusCode, String)> {
        let name = self.front.admit(request, caller, "agent")?;
        match caller {
            Some(Shown(Some(process))) if process.role != Role::Agent => Err((
                StatusCode::FORBIDDEN,
                format!("{name} is no agent, and only agents are given parts of files"),
            )),
            _ => Ok(name),
        }
    }

    async fn part(&self, caller: &str, request: Request<Incoming>) -> Response<Body> {
        let read = Limited::new(request.into_body(), WANTED_BYTES_MAX).collect();
        let wanted = match read
            .await
            .map(|body| encoding::decode_wanted(body.to_bytes()))
        {
            Ok(Ok(wanted)) => wanted,
            Ok(Err(malformed)) => return told(StatusCode::BAD_REQUEST, malformed.to_string()),
            Err(error) => return told(StatusCode::BAD_REQUEST, error.to_string()),
        };
        match self.offers.part(caller, wanted).await {
            Ok(part) => given(part),
            Err(NotGiven::Busy | NotGiven::Missing) => {
                let mut response = Response::new(Either::Left(Full::new(Bytes::new())));
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Err(NotGiven::Failed(why)) => told(StatusCode::BAD_REQUEST, why),
        }
    }
}

/// The pieces of a part, one after the other, and the memory that they keep until the last has gone.
fn given(part: Part) -> Response<Body> {
    let bytes: u64 = part.pieces.iter().map(|piece| piece.len() as u64).sum();
    let left: (VecDeque<Bytes>, Box<dyn Any + Send + Sync>) = (part.pieces.into(), part.kept);
    let pieces = futures::stream::unfold(left, |(mut left, kept)| async move {
        let piece = left.pop_front()?;
        Some((Ok::<_, Infallible>(Frame::data(piece)), (left, kept)))
    });
    let mut response = Response::new(Either::Right(StreamBody::new(pieces.boxed())));
    let length = HeaderValue::from(bytes);
    response.headers_mut().insert(CONTENT_LENGTH, length);
    response
}
