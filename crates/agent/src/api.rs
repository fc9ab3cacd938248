//! Kafka's APIs, a file per family: from a decoded request to an encoded answer. Error codes are
//! chosen in `errors` alone. It must not know sockets or the order of answers.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, StreamExt};
use host::budget::Held;
use meta::ids::TopicId;
use wire::errors::ErrorCode;
use wire::frame::{RequestError, RequestHeader};
use wire::messages::{ApiKey, Request, Response};
use wire::rope::Rope;
use wire::text::Str;
use wire::uuid::Uuid;

use crate::context::Context;
use crate::data::cache::Chunk;
use crate::edge::memory::DECODED_BYTES_MAX;
use crate::edge::session::Peer;

pub(crate) mod cluster;
pub(crate) mod configs;
pub(crate) mod errors;
pub(crate) mod fetch;
pub(crate) mod groups;
pub(crate) mod offsets;
pub(crate) mod produce;
pub(crate) mod producers;
pub(crate) mod topics;
pub(crate) mod versions;

/// Memory that an answer's bytes lie in, counted until it is sent.
#[derive(Default)]
pub(crate) struct Keep {
    _chunks: Vec<Arc<Chunk>>,
    /// What was written for the answer alone.
    held: Vec<Held>,
    /// Memory for the answer to a produce request.
    pub of_produce: Option<Held>,
}

/// What a request comes to.
#[derive(Default)]
pub(crate) enum Reply {
    Frame {
        frame: Rope,
        /// What it keeps alive.
        keep: Keep,
    },
    #[default]
    Silence,
    /// No answer, and the end of the connection; why, for the log.
    Close(String),
}

impl Reply {
    /// Counts memory for the answer to a produce request until it is sent.
    fn holding(mut self, mut held: Held) -> Self {
        held.shrink_to(self.bytes() as u64);
        if let Reply::Frame { keep, .. } = &mut self {
            keep.of_produce = Some(held);
        }
        self
    }

    /// The size of its frame.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Reply::Frame { frame, .. } => frame.len(),
            Reply::Silence | Reply::Close(_) => 0,
        }
    }
}

/// Topics of one request that are seen to at one time: they share entries of the journal.
const AT_ONCE: usize = 64;

/// Awaits what is asked of the control plane for each topic of a request, several at a time; yields
/// the outcomes in the same order.
async fn each<T: Send>(asked: Vec<BoxFuture<'_, T>>) -> Vec<T> {
    stream::iter(asked).buffered(AT_ONCE).collect().await
}

/// What a request names, each once: an answer to what is named again would only be larger.
fn once<T, K: Hash + Eq>(mut named: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut keys = HashSet::new();
    named.retain(|one| keys.insert(key(one)));
    named
}

/// What a request names more than once.
fn repeated<T: Clone + Eq + Hash>(named: impl Iterator<Item = T>) -> HashSet<T> {
    let mut seen = HashSet::new();
    named.filter(|name| !seen.insert(name.clone())).collect()
}

pub(crate) fn encode(response: impl Into<Response>, correlation_id: i32, version: i16) -> Reply {
    encode_keeping(response.into(), correlation_id, version, Keep::default())
}

fn encode_keeping(response: Response, correlation_id: i32, version: i16, keep: Keep) -> Reply {
    match response.encode(correlation_id, version) {
        Ok(frame) => Reply::Frame { frame, keep },
        Err(error) => Reply::Close(format!("an answer cannot be written: {error}")),
    }
}

/// The answer to ApiVersions in a version that nobody here knows.
fn unsupported_api_versions(correlation_id: i32) -> Reply {
    encode(
        wire::versions::unsupported_api_versions(),
        correlation_id,
        0,
    )
}

/// True if a frame is that of a produce request.
pub(crate) fn is_produce(frame: &[u8]) -> bool {
    frame.starts_with(&ApiKey::Produce.code().to_be_bytes())
}

/// Answers every request but Produce. `held` is the memory of its frame.
pub(crate) async fn serve(context: Arc<Context>, peer: Peer, frame: Bytes, held: Held) -> Reply {
    match decode(&context, &frame).await {
        Ok((mut header, request, room)) => {
            // Not as a slice of the frame, which would last as long.
            header.client_id = header.client_id.as_deref().map(Str::from);
            drop(frame);
            answer(&context, &peer, (header, request), vec![held, room]).await
        }
        Err(RequestError::UnsupportedApiVersions { correlation_id, .. }) => {
            unsupported_api_versions(correlation_id)
        }
        Err(error) => Reply::Close(error.to_string()),
    }
}

/// Decodes a request, within memory for that. How much it takes is known when it is decoded: if so
/// much is not free, it is decoded again when it is.
async fn decode(
    context: &Context,
    frame: &Bytes,
) -> Result<(RequestHeader, Request, Held), RequestError> {
    let decode = || wire::frame::decode_request_within(frame, DECODED_BYTES_MAX);
    let memory = context.memory.decoded();
    let (header, request, bytes) = decode()?;
    if let Some(room) = memory.try_hold(bytes as u64) {
        return Ok((header, request, room));
    }
    drop((header, request));
    let room = memory.hold(bytes as u64).await;
    let (header, request, _) = decode()?;
    Ok((header, request, room))
}

async fn answer(
    context: &Context,
    peer: &Peer,
    (header, request): (RequestHeader, Request),
    memory: Vec<Held>,
) -> Reply {
    let (api, version) = (header.key.code(), header.version);
    let correlation_id = header.correlation_id;
    if let Request::Fetch(request) = request {
        let fetched = crate::api::fetch::fetch(context, request, version).await;
        let keep = Keep {
            _chunks: fetched.chunks,
            held: fetched.held,
            of_produce: None,
        };
        let mut reply = encode_keeping(fetched.response.into(), correlation_id, version, keep);
        if let Reply::Frame { frame, keep } = &mut reply {
            // Records are counted already; what is said of partitions is not.
            let bytes = (frame.len() as u64).saturating_sub(fetched.records_bytes);
            keep.held.push(context.answers.hold(bytes).await);
        }
        return reply;
    }
    // Those that wait for others would keep it from these.
    let waits = matches!(request, Request::JoinGroup(_) | Request::SyncGroup(_));
    let room = if waits {
        None
    } else {
        Some(context.answers.room(api).await)
    };
    let Some(response) = respond(context, peer, &header, request, memory).await else {
        return Reply::Close("a request out of its way".to_owned());
    };
    let mut reply = encode(response, correlation_id, version);
    if let Reply::Frame { frame, keep } = &mut reply {
        keep.held = context.answers.settle(api, frame.len() as u64, room);
    }
    reply
}

/// The response to everything but Produce and Fetch, which have ways of their own. The memory of
/// the request is held until then, unless it waits for others.
async fn respond(
    context: &Context,
    peer: &Peer,
    header: &RequestHeader,
    request: Request,
    memory: Vec<Held>,
) -> Option<Response> {
    let version = header.version;
    Some(match request {
        Request::Fetch(_) | Request::Produce(_) => return None,
        Request::ApiVersions(request) => versions::api_versions(&request, version).into(),
        Request::Metadata(request) => cluster::metadata(context, request, version).await.into(),
        Request::DescribeCluster(request) => {
            cluster::describe_cluster(context, &request).await.into()
        }
        Request::CreateTopics(request) => topics::create_topics(context, request).await.into(),
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
            groups::find_coordinator(context, request, version).into()
        }
        Request::JoinGroup(request) => groups::join(context, peer, header, request, memory)
            .await
            .into(),
        Request::SyncGroup(request) => groups::sync(context, request, memory).await.into(),
        Request::Heartbeat(request) => groups::heartbeat(context, request).await.into(),
        Request::LeaveGroup(request) => groups::leave(context, request, version).await.into(),
        Request::DescribeGroups(request) => {
            groups::describe(context, request, version).await.into()
        }
        Request::ListGroups(request) => groups::list(context, request).await.into(),
        Request::OffsetCommit(request) => groups::commit_offsets(context, request, version)
            .await
            .into(),
        Request::OffsetFetch(request) => groups::fetch_offsets(context, request, version)
            .await
            .into(),
    })
}

/// A topic id from the wire.
pub(crate) fn topic_id(uuid: Uuid) -> TopicId {
    TopicId(u128::from_be_bytes(uuid.into()))
}

/// A topic id for the wire.
pub(crate) fn uuid(id: TopicId) -> Uuid {
    Uuid::from(id.0.to_be_bytes())
}

/// The code and, for an error, what to say of it.
fn verdict(error: Option<(ErrorCode, String)>) -> (i16, Option<wire::text::Str>) {
    match error {
        None => (ErrorCode::None.code(), None),
        Some((code, why)) => (code.code(), Some(why.into())),
    }
}
