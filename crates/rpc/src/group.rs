//! What agents ask of the coordinator of a group, and what it answers: the content of Kafka's
//! group requests without their versions. Must not know the wire format, error codes or timers.

use bytes::Bytes;
use meta::ids::TopicId;

/// A request to the coordinator. Every kind is answered by the [`GroupReply`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRequest {
    /// JoinGroup; waits until the rebalance completes.
    Join(JoinGroup),
    /// SyncGroup; waits until the leader of the group has sent its assignments.
    Sync(SyncGroup),
    Heartbeat(Heartbeat),
    Leave(LeaveGroup),
    Commit(CommitOffsets),
    Fetch(FetchOffsets),
    /// DescribeGroups: the groups to describe, by id.
    Describe(Vec<String>),
    /// ListGroups: the states wanted by name, compared without case; empty means all.
    List(Vec<String>),
}

/// The answer to a [`GroupRequest`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupReply {
    /// To [`GroupRequest::Join`].
    Join(Result<JoinedGroup, JoinRefusal>),
    /// To [`GroupRequest::Sync`].
    Sync(Result<SyncedGroup, GroupError>),
    /// To [`GroupRequest::Heartbeat`].
    Heartbeat(Result<(), GroupError>),
    /// To [`GroupRequest::Leave`]: one outcome per member, in the order of the request.
    Leave(Result<Vec<LeftMember>, GroupError>),
    /// To [`GroupRequest::Commit`]: topics and partitions in the order of the request.
    Commit(Vec<CommittedTopic>),
    /// To [`GroupRequest::Fetch`]: groups in the order of the request.
    Fetch(Vec<FetchedGroup>),
    /// To [`GroupRequest::Describe`]: groups in the order of the request.
    Describe(Result<Vec<DescribedGroup>, GroupError>),
    /// To [`GroupRequest::List`], sorted by id.
    List(Result<Vec<ListedGroup>, GroupError>),
}

/// Why the coordinator refuses, each with the meaning of Kafka's error of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum GroupError {
    /// NOT_COORDINATOR: ask again at once; no effect, or one that a repeat settles.
    NotCoordinator,
    /// COORDINATOR_NOT_AVAILABLE: the outcome is not known, or there is no answer just now.
    CoordinatorNotAvailable,
    /// INVALID_GROUP_ID: empty.
    InvalidGroupId,
    UnknownMemberId,
    IllegalGeneration,
    InconsistentGroupProtocol,
    InvalidSessionTimeout,
    RebalanceInProgress,
    /// MEMBER_ID_REQUIRED: join again with the member id of the answer (KIP-394).
    MemberIdRequired,
    /// FENCED_INSTANCE_ID: another member has taken over this static instance (KIP-345).
    FencedInstanceId,
    GroupMaxSizeReached,
    /// GROUP_ID_NOT_FOUND; OffsetCommit before version 9 says ILLEGAL_GENERATION instead.
    GroupIdNotFound,
    NonEmptyGroup,
    OffsetMetadataTooLarge,
    /// INVALID_COMMIT_OFFSET_SIZE: the groups would take more memory than they may, or the journal
    /// takes no request of this size.
    NoRoom,
    /// UNKNOWN_SERVER_ERROR: the journal takes no request of this size, now or later.
    TooLarge,
    /// COORDINATOR_LOAD_IN_PROGRESS: there is no more room in this answer; ask again for this group.
    AnswerFull,
    /// UNKNOWN_TOPIC_OR_PARTITION: for a topic that was named.
    UnknownTopicOrPartition,
    /// UNKNOWN_TOPIC_ID: for a topic asked for by id.
    UnknownTopicId,
}

/// A member joins or comes back. Fields that a version lacks have Kafka's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroup {
    pub group_id: String,
    /// The id that the member has, or empty.
    pub member_id: String,
    /// The id to give the member if it has none: client id (static members: instance id), a
    /// dash and a random UUID. An agent that repeats a call repeats this too, so that one
    /// request never makes two members.
    pub fresh_member_id: String,
    /// `group.instance.id` of a static member (version 5 on).
    pub instance_id: Option<String>,
    /// Client id of the request.
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
    /// Session timeout in milliseconds.
    pub session_timeout_millis: i32,
    /// Rebalance timeout in milliseconds; version 0 has none: the session timeout.
    pub rebalance_timeout_millis: i32,
    /// Kind of the group's protocols, "consumer" or "connect" for instance.
    pub protocol_type: String,
    /// Protocols that the member supports, best first, and its metadata for each.
    pub protocols: Vec<GroupProtocol>,
    /// Version 4 on: a member without an id is given one and must join again with it.
    pub id_required: bool,
    /// Version 9 on: a static leader that comes back can be told to skip the assignment.
    pub can_skip_assignment: bool,
}

/// One protocol of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupProtocol {
    /// Name, such as "range".
    pub name: String,
    /// The member's metadata, opaque.
    pub metadata: Bytes,
}

/// The member is part of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedGroup {
    pub generation: i32,
    /// Kind of the group's protocols.
    pub protocol_type: String,
    pub protocol: String,
    /// Member id of the leader.
    pub leader: String,
    /// The member's own id.
    pub member_id: String,
    /// The leader must not assign anew (version 9 on).
    pub skip_assignment: bool,
    /// All members, for the leader; empty for others.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader of the group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    /// Its `group.instance.id`.
    pub instance_id: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// The member may not join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefusal {
    pub error: GroupError,
    /// The member id of the response: the new one with [`GroupError::MemberIdRequired`], else
    /// that of the request.
    pub member_id: String,
}

/// A member asks for its assignment; the leader brings everybody's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncGroup {
    pub group_id: String,
    /// Generation that the member joined.
    pub generation: i32,
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    /// Kind of protocols as the member knows it (version 5 on).
    pub protocol_type: Option<String>,
    /// Protocol as the member knows it (version 5 on).
    pub protocol: Option<String>,
    /// The assignments by member id, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// The assignment of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncedGroup {
    /// Kind of the group's protocols.
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub group_id: String,
    /// Generation that the member joined.
    pub generation: i32,
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveGroup {
    pub group_id: String,
    /// Who leaves: one member before version 3.
    pub members: Vec<LeavingMember>,
}

/// A member that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeavingMember {
    /// Its id; may be empty if there is an instance id.
    pub member_id: String,
    /// Its `group.instance.id`.
    pub instance_id: Option<String>,
}

/// What came of leaving.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    /// Member id of the request.
    pub member_id: String,
    /// Instance id of the request.
    pub instance_id: Option<String>,
    pub result: Result<(), GroupError>,
}

/// A topic as a request names it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicName {
    /// By name (versions below 10 of OffsetCommit and OffsetFetch).
    Name(String),
    /// By id (version 10 on).
    Id(TopicId),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffsets {
    pub group_id: String,
    /// Generation that the member joined; -1 from a client that manages its own partitions.
    pub generation: i32,
    /// The member; empty from a client that manages its own partitions.
    pub member_id: String,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<String>,
    pub topics: Vec<CommitTopic>,
}

/// Offsets to commit in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitTopic {
    pub topic: TopicName,
    pub partitions: Vec<CommitPartition>,
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitPartition {
    /// Index of the partition in its topic.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 if not known.
    pub leader_epoch: i32,
    /// Whatever the client attaches; null is empty.
    pub metadata: String,
}

/// What came of a commit in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedTopic {
    /// The topic, as the request named it.
    pub topic: TopicName,
    /// Partition index and outcome.
    pub partitions: Vec<(i32, Result<(), GroupError>)>,
}

/// Offsets wanted, of one or more groups. The answer is current, and stable: there are no
/// pending transactional offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchOffsets {
    /// The groups; one before version 8.
    pub groups: Vec<FetchGroup>,
}

/// Offsets wanted of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchGroup {
    pub group_id: String,
    /// Topics and partition indices; `None` for everything the group has committed.
    pub topics: Option<Vec<(TopicName, Vec<i32>)>>,
}

/// Offsets of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedGroup {
    pub group_id: String,
    /// The topics, or why the whole group cannot be answered.
    pub topics: Result<Vec<FetchedTopic>, GroupError>,
}

/// Offsets in one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedTopic {
    /// The topic as asked for; by name where all topics were asked for.
    pub topic: TopicName,
    /// Its id, if it exists.
    pub id: Option<TopicId>,
    /// The partitions asked for.
    pub partitions: Vec<FetchedPartition>,
}

/// A committed offset, or none: offset -1, epoch -1, empty metadata, and no error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedPartition {
    /// Index of the partition in its topic.
    pub partition: i32,
    /// The committed offset or -1.
    pub offset: i64,
    /// The leader epoch committed with it or -1.
    pub leader_epoch: i32,
    /// What the client attached.
    pub metadata: String,
    /// Only [`GroupError::UnknownTopicId`], for a topic asked for by an id that is not known.
    pub error: Option<GroupError>,
}

/// A group in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    pub group_id: String,
    /// Why it is not described. Then nothing else means anything.
    pub error: Option<GroupError>,
    /// False if there is no such group: the state is "Dead", and version 6 on says
    /// GROUP_ID_NOT_FOUND.
    pub exists: bool,
    /// Kafka's name of the state: Empty, PreparingRebalance, CompletingRebalance, Stable, Dead.
    pub state: String,
    /// Kind of the group's protocols, empty if none.
    pub protocol_type: String,
    /// The protocol chosen, only while stable.
    pub protocol: String,
    pub members: Vec<DescribedMember>,
}

/// A member in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    pub member_id: String,
    /// Its `group.instance.id`.
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Its metadata for the chosen protocol, only while stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// A group in a list. Its type is always "classic".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub group_id: String,
    /// Kind of the group's protocols, empty if none.
    pub protocol_type: String,
    /// Kafka's name of the state.
    pub state: String,
}
