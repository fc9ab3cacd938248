//! Kafka's APIs, a file per family: from a decoded request to an encoded answer. `errors` has the codes
//! for what other parts report. It is the `Service` of the edge, and must not know sockets or the order
//! of answers.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use host::clock::Instant;
use meta::ids::TopicId;
use rpc::Client;
use wire::errors::ErrorCode;
use wire::frame::{RequestError, RequestHeader};
use wire::messages::{ApiKey, Request, Response};
use wire::text::Str;
use wire::uuid::Uuid;

use crate::context::Context;
use crate::edge::connection::Kind;
use crate::edge::memory::{Kept, Lease};
use crate::edge::service::{Begun, Job, Peer, Reply, Service};
use crate::settings::DECODED_BYTES_MAX;
use origin::Origin;

pub(crate) mod cluster;
pub(crate) mod configs;
pub(crate) mod errors;
pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod offsets;
pub(crate) mod origin;
pub(crate) mod produce;
pub(crate) mod producers;
pub(crate) mod topics;
pub(crate) mod versions;

/// Larger produce requests are looked at off the async threads, which other connections need:
/// walking over two MiB of tiny records takes some milliseconds.
const PRODUCE_INLINE_BYTES: usize = 2 << 20;
/// The same bound for other requests, whose elements are much smaller.
const OTHER_INLINE_BYTES: usize = 256 << 10;

impl Service for Context {
    fn kind_of(prefix: &[u8]) -> Kind {
        if prefix == ApiKey::Produce.code().to_be_bytes() {
            Kind::Bulk
        } else {
            Kind::Other
        }
    }

    fn begin(self: &Arc<Self>, peer: &Peer, frame: Bytes, lease: Lease, now: Instant) -> Begun {
        let (context, peer) = (Arc::clone(self), peer.clone());
        if Context::kind_of(frame.get(..2).unwrap_or_default()) == Kind::Other {
            let reply = serve(context, peer, frame, lease, now);
            return Begun::InTurn(Job::Future(async { Begun::Done(reply.await) }.boxed()));
        }
        if frame.len() <= PRODUCE_INLINE_BYTES {
            return produce::begin(&context, &peer, frame, lease, now);
        }
        let begun = move || produce::begin(&context, &peer, frame, lease, now);
        Begun::Entering(Job::Future(host::task::spawn_blocking(begun).boxed()))
    }
}

impl Context {
    fn origin<'a>(&'a self, peer: &Peer, header: &'a RequestHeader) -> Origin<'a> {
        Origin {
            connection: peer.connection,
            listener: &self.listeners[peer.listener],
            client_id: header.client_id.as_deref(),
        }
    }
}

/// Topics of one request that are worked on at one time: their commands share journal entries.
const AT_ONCE: usize = 64;

/// Awaits one call to the control plane for each topic of a request, several at a time; yields the
/// outcomes in the same order.
async fn each<T: Send>(asked: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

/// The elements that a request names, without duplicates: these would only make the answer larger.
fn once<T, K: Hash + Eq>(mut named: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut keys = HashSet::new();
    named.retain(|one| keys.insert(key(one)));
    named
}

/// The elements that a request names more than once.
fn repeated<T: Clone + Eq + Hash>(named: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    named.filter(|name| !seen.insert(name.clone())).collect()
}

fn encode(
    response: impl Into<Response>,
    correlation_id: i32,
    version: i16,
    kept: impl FnOnce(u64) -> Kept,
) -> Reply {
    match response.into().encode(correlation_id, version) {
        Ok(frame) => {
            let kept = kept(frame.len() as u64);
            Reply::Frame { frame, kept }
        }
        Err(error) => Reply::Close(format!("an answer cannot be written: {error}")),
    }
}

/// The answer to an ApiVersions request whose version this agent does not know.
fn unsupported_api_versions(correlation_id: i32) -> Reply {
    encode(
        wire::versions::unsupported_api_versions(),
        correlation_id,
        0,
        |_| Kept::default(),
    )
}

/// Whether what is left of a request, once its client has given up, would change what others see. A connection on which such a request is
/// stale is closed: its client takes that for an agent that has ended, which is how it would be, had the pause been longer. (Records of a late Produce request are those
/// of an attempt that the client repeats, as it does with Kafka's brokers.)
fn changes_something(request: &Request) -> bool {
    matches!(
        request,
        Request::CreateTopics(_)
            | Request::DeleteTopics(_)
            | Request::CreatePartitions(_)
            | Request::JoinGroup(_)
            | Request::SyncGroup(_)
            | Request::LeaveGroup(_)
            | Request::OffsetCommit(_)
    )
}

/// Answers every request but Produce.
async fn serve(
    context: Arc<Context>,
    peer: Peer,
    frame: Bytes,
    mut lease: Lease,
    read_at: Instant,
) -> Reply {
    match decode(&context, &frame, &mut lease).await {
        Ok((mut header, request)) => {
            // The client id is copied: as a slice it would keep the whole frame alive.
            header.client_id = header.client_id.as_deref().map(Str::from);
            drop(frame);
            let now = host::clock::now();
            if changes_something(&request) && context.pauses.is_stale(read_at, now) {
                return Reply::Stale;
            }
            answer(&context, &peer, (header, request), lease, now).await
        }
        Err(RequestError::UnsupportedApiVersions { correlation_id, .. }) => {
            unsupported_api_versions(correlation_id)
        }
        Err(error) => Reply::Close(error.to_string()),
    }
}

/// Decodes a request within the memory for decoded requests. How much it takes is known only
/// afterwards: if that is more than was free, it waits for as much and decodes again.
async fn decode(
    context: &Context,
    frame: &Bytes,
    lease: &mut Lease,
) -> Result<(RequestHeader, Request), RequestError> {
    let decode = async || {
        let bytes = frame.clone();
        let decode = move || wire::frame::decode_request_within(&bytes, DECODED_BYTES_MAX);
        if frame.len() > OTHER_INLINE_BYTES {
            host::task::spawn_blocking(decode).await
        } else {
            decode()
        }
    };
    let memory = &context.memory.decoded;
    let (header, request, bytes) = decode().await?;
    lease.decoded = memory.try_hold(bytes as u64);
    if lease.decoded.is_some() {
        return Ok((header, request));
    }
    drop((header, request));
    lease.decoded = Some(memory.hold(bytes as u64).await);
    let (header, request, _) = decode().await?;
    Ok((header, request))
}

/// Answers a request whose client was found to wait at `awaited_at`.
async fn answer(
    context: &Context,
    peer: &Peer,
    (header, request): (RequestHeader, Request),
    lease: Lease,
    awaited_at: Instant,
) -> Reply {
    let (api, version) = (header.key.code(), header.version);
    let correlation_id = header.correlation_id;
    let answers = &context.memory.answers;
    let origin = context.origin(peer, &header);
    if let Request::Fetch(request) = request {
        let fetched = Box::pin(fetch::fetch(context, origin, request, version)).await;
        return encode(fetched.response, correlation_id, version, |bytes| Kept {
            // The memory of records is counted by the fetch itself; here only the rest of the
            // answer counts.
            answer: answers.fit(bytes.saturating_sub(fetched.records_bytes), fetched.answer),
            records: fetched.held,
            chunks: Some(Box::new(fetched.chunks)),
            ..Kept::default()
        });
    }
    // Requests that wait for other members give their memory back, which those others may need.
    let waits = matches!(request, Request::JoinGroup(_) | Request::SyncGroup(_));
    let held = if waits {
        None
    } else {
        Some(answers.expect(api).await)
    };
    let response = match request {
        Request::Heartbeat(request) => {
            let _lease = lease;
            Some(groups::heartbeat(context, origin, request).await.into())
        }
        // Of a request's future all is moved to where it is kept: that of a heartbeat, of which there are thousands a second, would be
        // as large as the largest of these.
        request => {
            let coordinator = context.control.awaited_at(awaited_at);
            Box::pin(respond(
                context,
                &coordinator,
                peer,
                &header,
                request,
                lease,
            ))
            .await
        }
    };
    let Some(response) = response else {
        return Reply::Close("a request out of its way".to_owned());
    };
    encode(response, correlation_id, version, |bytes| Kept {
        answer: answers.settle(api, bytes, held),
        ..Kept::default()
    })
}

/// The response to every request but Produce, Fetch and Heartbeat, which have functions of their own. The
/// request's memory is held until the response is ready, unless the request waits for other
/// members. What changes a group is asked of `coordinator`, where it has no effect if it comes late.
async fn respond(
    context: &Context,
    coordinator: &Client,
    peer: &Peer,
    header: &RequestHeader,
    request: Request,
    lease: Lease,
) -> Option<Response> {
    let version = header.version;
    let origin = context.origin(peer, header);
    Some(match request {
        Request::Fetch(_) | Request::Produce(_) | Request::Heartbeat(_) => return None,
        Request::ApiVersions(request) => versions::api_versions(&request, version).into(),
        Request::Metadata(request) => cluster::metadata(context, origin, request, version)
            .await
            .into(),
        Request::DescribeCluster(request) => cluster::describe_cluster(context, origin, &request)
            .await
            .into(),
        Request::CreateTopics(request) => {
            topics::create_topics(context, origin, request).await.into()
        }
        Request::DeleteTopics(request) => topics::delete_topics(context, request, version)
            .await
            .into(),
        Request::CreatePartitions(request) => {
            topics::create_partitions(context, request).await.into()
        }
        Request::ListOffsets(request) => offsets::list_offsets(context, request, version)
            .await
            .into(),
        Request::OffsetForLeaderEpoch(request) => {
            offsets::offset_for_leader_epoch(context, request)
                .await
                .into()
        }
        Request::InitProducerId(request) => {
            producers::init_producer_id(context, &request).await.into()
        }
        Request::DescribeConfigs(request) => {
            configs::describe_configs(context, request).await.into()
        }
        Request::FindCoordinator(request) => {
            groups::find_coordinator(context, origin, request, version).into()
        }
        Request::JoinGroup(request) => {
            groups::join(context, coordinator, peer, header, request, lease)
                .await
                .into()
        }
        Request::SyncGroup(request) => groups::sync(context, coordinator, request, lease)
            .await
            .into(),
        Request::LeaveGroup(request) => groups::leave(context, coordinator, request, version)
            .await
            .into(),
        Request::DescribeGroups(request) => {
            groups::describe(context, request, version).await.into()
        }
        Request::ListGroups(request) => groups::list(context, request).await.into(),
        Request::OffsetCommit(request) => {
            groups::commit_offsets(context, coordinator, request, version)
                .await
                .into()
        }
        Request::OffsetFetch(request) => groups::fetch_offsets(context, request, version)
            .await
            .into(),
    })
}

pub(crate) fn topic_id(uuid: Uuid) -> TopicId {
    TopicId(u128::from_be_bytes(uuid.into()))
}

pub(crate) fn uuid(id: TopicId) -> Uuid {
    Uuid::from(id.0.to_be_bytes())
}

/// The code of an outcome and, for an error, the message beside it.
fn verdict(error: Option<(ErrorCode, String)>) -> (i16, Option<wire::text::Str>) {
    match error {
        None => (ErrorCode::None.code(), None),
        Some((code, why)) => (code.code(), Some(why.into())),
    }
}
