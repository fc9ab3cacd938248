//! Consumer groups: requests to the coordinator in Kafka's versions, and its answers back. Every
//! agent answers for every group, since the coordinator is the control plane's. It must not know
//! how groups work.

use meta::group::{Join, Leaving, Protocol, Refusal, Sync};
use meta::ids::Incarnation;
use rpc::Client;
use rpc::group::{
    CommitOffsets, CommitPartition, FetchGroup, FetchedGroup, GroupError, GroupReply, GroupRequest,
    Heartbeat, JoinGroup, JoinedGroup, TopicName,
};
use wire::errors::ErrorCode;
use wire::frame::RequestHeader;
use wire::messages::find_coordinator::{
    Coordinator, FindCoordinatorRequest, FindCoordinatorResponse,
};
use wire::messages::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use wire::messages::join_group::{JoinGroupRequest, JoinGroupResponse, JoinGroupResponseMember};
use wire::messages::leave_group::{
    LeaveGroupRequest, LeaveGroupResponse, MemberIdentity, MemberResponse,
};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetCommitResponsePartition,
    OffsetCommitResponseTopic,
};
use wire::messages::sync_group::{SyncGroupRequest, SyncGroupResponse};
use wire::text::Str;
use wire::uuid::Uuid;

use super::origin::Origin;
use super::{errors, topic_id};
use crate::context::Context;
use crate::edge::memory::Lease;
use crate::edge::service::Peer;
use crate::route::Broker;
use crate::view::View;

mod describe;
mod fetch_offsets;
pub(crate) mod heartbeats;
mod once;

pub(crate) use describe::{describe, list};
pub(crate) use fetch_offsets::fetch_offsets;

/// Several coordinators are asked for at once from this version on.
const BATCHED_COORDINATORS_SINCE: i16 = 4;
/// Coordinator types (`FindCoordinatorRequest.CoordinatorType`).
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
/// A member without an id is given one and joins again with it from this version on (KIP-394).
const ID_REQUIRED_SINCE: i16 = 4;
/// A static leader that comes back can be told to skip the assignment from this version on.
const SKIP_ASSIGNMENT_SINCE: i16 = 9;
/// How much of the client id goes into a member id: it only helps people to recognize the member,
/// and the whole must fit into a string of an answer.
const MEMBER_PREFIX_BYTES: usize = 255;
/// Several members leave at once from this version on.
const BATCHED_LEAVE_SINCE: i16 = 3;
/// OffsetCommit names topics by id from this version on.
const COMMIT_BY_ID_SINCE: i16 = 10;
/// OffsetCommit says GROUP_ID_NOT_FOUND from this version on.
const COMMIT_GROUP_NOT_FOUND_SINCE: i16 = 9;

pub(crate) fn find_coordinator(
    context: &Context,
    origin: Origin<'_>,
    request: FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let view = context.views.latest();
    let coordinator = |key: Str| {
        let host = host(origin, &view, &key);
        let refused = match request.key_type {
            GROUP => host
                .is_none()
                .then_some((ErrorCode::CoordinatorNotAvailable, "not ready yet")),
            // Every client takes this code as final; after others, most would ask again for ever.
            TRANSACTION => Some((
                ErrorCode::TransactionalIdAuthorizationFailed,
                "transactions are not served",
            )),
            _ => Some((
                ErrorCode::InvalidRequest,
                "there is no such kind of coordinator",
            )),
        };
        match (refused, host) {
            (None, Some(host)) => Coordinator {
                key,
                node_id: host.id.0,
                host: Str::from(&host.endpoint.host),
                port: i32::from(host.endpoint.port),
                ..Coordinator::default()
            },
            (refused, _) => {
                let (code, why) =
                    refused.unwrap_or((ErrorCode::CoordinatorNotAvailable, "not ready yet"));
                Coordinator {
                    key,
                    node_id: -1,
                    port: -1,
                    error_code: code.code(),
                    error_message: Some(Str::from_static(why)),
                    ..Coordinator::default()
                }
            }
        }
    };
    if version >= BATCHED_COORDINATORS_SINCE {
        let coordinators = request
            .coordinator_keys
            .into_iter()
            .map(coordinator)
            .collect();
        return FindCoordinatorResponse {
            coordinators,
            ..FindCoordinatorResponse::default()
        };
    }
    let found = coordinator(request.key);
    FindCoordinatorResponse {
        error_code: found.error_code,
        error_message: found.error_message,
        node_id: found.node_id,
        host: found.host,
        port: found.port,
        ..FindCoordinatorResponse::default()
    }
}

/// The agent that clients are told for a group, though any agent serves it. Whichever agent is asked says the same: a client that
/// asks twice, of two agents, would leave the one where it has just been given a member id, for which the group then waits for a whole session.
fn host<'a>(origin: Origin<'_>, view: &'a View, group: &str) -> Option<&'a Broker> {
    let (routes, listener) = (&view.routes, &origin.listener.name);
    routes.any(listener, origin.place(routes), key_of(group))
}

/// A number by which groups are spread over agents.
fn key_of(group: &str) -> u64 {
    let add = |sum: u64, byte| sum.wrapping_mul(31).wrapping_add(u64::from(byte));
    group.bytes().fold(0, add)
}

/// Sends a request to the coordinator; without an answer it yields the code for that.
async fn ask(context: &Context, request: GroupRequest) -> Result<GroupReply, ErrorCode> {
    ask_of(context, &context.control, request).await
}

/// The same by a way of its own to the coordinator.
async fn ask_of(
    context: &Context,
    coordinator: &Client,
    request: GroupRequest,
) -> Result<GroupReply, ErrorCode> {
    context.traffic.served_member(host::clock::now());
    let reply = coordinator.group(request).await;
    reply.map_err(|error| errors::of_coordinator(&error))
}

/// The code for a reply of another kind than its request: a mistake of ours, which a client can
/// only repeat.
fn mismatched(reply: &GroupReply) -> ErrorCode {
    tracing::error!(
        ?reply,
        "a bug: the coordinator answered with another kind of reply"
    );
    ErrorCode::UnknownServerError
}

fn owned(text: &Option<Str>) -> Option<String> {
    text.as_ref().map(ToString::to_string)
}

/// The client's address, as Kafka's tools show it.
fn client_host(peer: &Peer) -> String {
    format!("/{}", peer.address.ip())
}

pub(crate) async fn join(
    context: &Context,
    coordinator: &Client,
    peer: &Peer,
    header: &RequestHeader,
    request: JoinGroupRequest,
    lease: Lease,
) -> JoinGroupResponse {
    let join = join_of(peer, header, request);
    let member_id = Str::from(&join.join.member);
    let failed = |code: ErrorCode, member_id: Str| JoinGroupResponse {
        error_code: code.code(),
        member_id,
        ..JoinGroupResponse::default()
    };
    let Some(_waiting) = lease.park(&context.memory) else {
        return failed(ErrorCode::CoordinatorLoadInProgress, member_id);
    };
    match ask_of(context, coordinator, GroupRequest::Join(join)).await {
        Ok(GroupReply::Join(Ok(JoinedGroup { member, joined }))) => JoinGroupResponse {
            generation_id: joined.generation,
            protocol_type: Some(joined.protocol_type.into()),
            protocol_name: Some(joined.protocol.into()),
            leader: joined.leader.into(),
            skip_assignment: joined.skip_assignment,
            member_id: member.into(),
            members: joined
                .members
                .into_iter()
                .map(|member| JoinGroupResponseMember {
                    member_id: member.member.into(),
                    group_instance_id: member.instance.map(Str::from),
                    metadata: member.metadata,
                })
                .collect(),
            ..JoinGroupResponse::default()
        },
        Ok(GroupReply::Join(Err(refusal))) => {
            failed(errors::of_group(refusal.error), refusal.member.into())
        }
        Ok(other) => failed(mismatched(&other), member_id),
        Err(code) => failed(code, member_id),
    }
}

/// The join as the coordinator takes it; nothing else of the request is kept in memory.
fn join_of(peer: &Peer, header: &RequestHeader, request: JoinGroupRequest) -> JoinGroup {
    let version = header.version;
    let client_id = owned(&header.client_id).unwrap_or_default();
    let prefix = request.group_instance_id.as_deref().unwrap_or(&client_id);
    let prefix = &prefix[..prefix.floor_char_boundary(MEMBER_PREFIX_BYTES)];
    let id = Uuid::from(host::rng::nonce().to_be_bytes());
    let protocols = request.protocols.into_iter().map(|protocol| Protocol {
        name: protocol.name.to_string(),
        metadata: protocol.metadata,
    });
    // No session is as long as one that is negative.
    let millis = |timeout: i32| u32::try_from(timeout).unwrap_or(u32::MAX);
    JoinGroup {
        group: request.group_id.to_string(),
        fresh_member: format!("{prefix}-{id}"),
        id_required: version >= ID_REQUIRED_SINCE,
        join: Join {
            member: request.member_id.to_string(),
            admitted: false,
            instance: owned(&request.group_instance_id),
            client_id,
            client_host: client_host(peer),
            session_timeout_millis: millis(request.session_timeout_ms),
            rebalance_timeout_millis: match request.rebalance_timeout_ms {
                -1 => millis(request.session_timeout_ms),
                timeout => u32::try_from(timeout).unwrap_or(0),
            },
            protocol_type: request.protocol_type.to_string(),
            protocols: protocols.collect(),
            can_skip_assignment: version >= SKIP_ASSIGNMENT_SINCE,
            members_max: 0,
        },
    }
}

pub(crate) async fn sync(
    context: &Context,
    coordinator: &Client,
    request: SyncGroupRequest,
    lease: Lease,
) -> SyncGroupResponse {
    let Some(_waiting) = lease.park(&context.memory) else {
        return SyncGroupResponse {
            error_code: ErrorCode::CoordinatorLoadInProgress.code(),
            ..SyncGroupResponse::default()
        };
    };
    let code = match ask_of(context, coordinator, sync_of(request)).await {
        Ok(GroupReply::Sync(Ok(synced))) => {
            return SyncGroupResponse {
                protocol_type: Some(synced.protocol_type.into()),
                protocol_name: Some(synced.protocol.into()),
                assignment: synced.assignment,
                ..SyncGroupResponse::default()
            };
        }
        Ok(GroupReply::Sync(Err(error))) => errors::of_group(error),
        Ok(other) => mismatched(&other),
        Err(code) => code,
    };
    SyncGroupResponse {
        error_code: code.code(),
        ..SyncGroupResponse::default()
    }
}

/// The sync as the coordinator takes it; nothing else of the request is kept in memory.
fn sync_of(request: SyncGroupRequest) -> GroupRequest {
    let assignments = request.assignments.into_iter();
    let sync = Sync {
        member: request.member_id.to_string(),
        instance: owned(&request.group_instance_id),
        generation: request.generation_id,
        protocol_type: owned(&request.protocol_type),
        protocol: owned(&request.protocol_name),
        assignments: assignments
            .map(|assigned| (assigned.member_id.to_string(), assigned.assignment))
            .collect(),
    };
    GroupRequest::Sync {
        group: request.group_id.to_string(),
        sync,
    }
}

pub(crate) async fn heartbeat(
    context: &Context,
    origin: Origin<'_>,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    // A member that is stable does nothing else by which it could find the next coordinator. It stays a member: the
    // coordinator, which is not this agent, has not moved. Whatever else it asks is answered here all the same.
    if context.sends_away(origin.listener) {
        return HeartbeatResponse {
            error_code: ErrorCode::NotCoordinator.code(),
            ..HeartbeatResponse::default()
        };
    }
    context.traffic.served_member(host::clock::now());
    let heartbeat = Heartbeat {
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: owned(&request.group_instance_id),
        generation: request.generation_id,
    };
    let code = match context.heartbeats.send(heartbeat).await {
        Ok(Ok(())) => ErrorCode::None,
        Ok(Err(error)) => errors::of_group(error),
        Err(error) => errors::of_coordinator(&error),
    };
    HeartbeatResponse {
        error_code: code.code(),
        ..HeartbeatResponse::default()
    }
}

pub(crate) async fn leave(
    context: &Context,
    coordinator: &Client,
    request: LeaveGroupRequest,
    version: i16,
) -> LeaveGroupResponse {
    let asked = if version >= BATCHED_LEAVE_SINCE {
        request.members
    } else {
        vec![MemberIdentity {
            member_id: request.member_id,
            ..MemberIdentity::default()
        }]
    };
    let leaving = asked.iter().map(|member| Leaving {
        member: member.member_id.to_string(),
        instance: owned(&member.group_instance_id),
    });
    let leave = GroupRequest::Leave {
        group: request.group_id.to_string(),
        members: leaving.collect(),
    };
    let results = match ask_of(context, coordinator, leave).await {
        Ok(GroupReply::Leave(Ok(results))) if results.len() == asked.len() => Ok(results),
        Ok(GroupReply::Leave(Err(error))) => Err(errors::of_group(error)),
        Ok(other) => Err(mismatched(&other)),
        Err(code) => Err(code),
    };
    let code = |result: &Result<(), GroupError>| {
        result
            .map_or_else(errors::of_group, |()| ErrorCode::None)
            .code()
    };
    let (error_code, members) = match results {
        Err(failed) => (failed.code(), Vec::new()),
        Ok(results) if version < BATCHED_LEAVE_SINCE => {
            (results.first().map_or(0, code), Vec::new())
        }
        Ok(results) => {
            let members = asked.into_iter().zip(&results);
            let members = members.map(|(member, result)| MemberResponse {
                error_code: code(result),
                member_id: member.member_id,
                group_instance_id: member.group_instance_id,
            });
            (ErrorCode::None.code(), members.collect())
        }
    };
    LeaveGroupResponse {
        error_code,
        members,
        ..LeaveGroupResponse::default()
    }
}

pub(crate) async fn commit_offsets(
    context: &Context,
    coordinator: &Client,
    request: OffsetCommitRequest,
    version: i16,
) -> OffsetCommitResponse {
    let partitions = request.topics.iter().map(|topic| topic.partitions.len());
    let partitions: usize = partitions.sum();
    let codes = match context.pipeline.incarnation() {
        Some(run) => {
            let commit = commit_by(run, &request, version);
            match ask_of(context, coordinator, GroupRequest::Commit(commit)).await {
                Ok(GroupReply::Commit(results)) if results.len() == partitions => {
                    let results = results.into_iter();
                    results.map(|result| of_commit(result, version)).collect()
                }
                // There is no code for the whole: every partition says it.
                Ok(other) => vec![mismatched(&other); partitions],
                Err(code) => vec![code; partitions],
            }
        }
        // It registers again.
        None => vec![ErrorCode::CoordinatorNotAvailable; partitions],
    };
    let mut codes = codes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(codes.by_ref());
        OffsetCommitResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: partitions
                .map(|(partition, code)| OffsetCommitResponsePartition {
                    partition_index: partition.partition_index,
                    error_code: code.code(),
                })
                .collect(),
        }
    });
    OffsetCommitResponse {
        topics: topics.collect(),
        ..OffsetCommitResponse::default()
    }
}

/// The commit that a client asks for, as this agent passes it on in this run.
fn commit_by(run: Incarnation, request: &OffsetCommitRequest, version: i16) -> CommitOffsets {
    let topics = request.topics.iter().map(|topic| {
        let name = if version >= COMMIT_BY_ID_SINCE {
            TopicName::Id(topic_id(topic.topic_id))
        } else {
            TopicName::Name(topic.name.to_string())
        };
        let partitions = topic.partitions.iter().map(|partition| CommitPartition {
            partition: partition.partition_index,
            offset: partition.committed_offset,
            leader_epoch: partition.committed_leader_epoch,
            metadata: owned(&partition.committed_metadata).unwrap_or_default(),
        });
        (name, partitions.collect())
    });
    CommitOffsets {
        by: Some(run),
        group: request.group_id.to_string(),
        member: request.member_id.to_string(),
        instance: owned(&request.group_instance_id),
        generation: request.generation_id_or_member_epoch,
        topics: topics.collect(),
    }
}

fn of_commit(result: Result<(), GroupError>, version: i16) -> ErrorCode {
    match result {
        Ok(()) => ErrorCode::None,
        Err(GroupError::Refused(Refusal::GroupIdNotFound))
            if version < COMMIT_GROUP_NOT_FOUND_SINCE =>
        {
            ErrorCode::IllegalGeneration
        }
        Err(GroupError::TooLarge) => ErrorCode::InvalidCommitOffsetSize,
        Err(error) => errors::of_group(error),
    }
}

async fn ask_offsets(
    context: &Context,
    groups: Vec<FetchGroup>,
) -> Result<Vec<FetchedGroup>, ErrorCode> {
    let groups = once::offsets_once(groups);
    let asked = ask(context, GroupRequest::Fetch(groups)).await;
    match asked.map_err(errors::of_offset_fetch)? {
        GroupReply::Fetch(groups) => Ok(groups),
        other => Err(mismatched(&other)),
    }
}
