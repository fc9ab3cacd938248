//! Requests to the coordinator of a group, and its answers: the content of Kafka's group requests
//! without their versions. Must not know the wire format, error codes or timers.

use bytes::Bytes;
use meta::group::{Join, Joined, Leaving, Refusal, Sync, Synced};
use meta::ids::{Incarnation, TopicId};

/// A request to the coordinator. Every kind is answered by the [`GroupReply`] of the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupRequest {
    /// Adds a member, or one that comes back; waits until the rebalance completes.
    Join(JoinGroup),
    /// Asks for a member's assignment; the leader brings everybody's, and the others wait for it.
    Sync {
        group: String,
        sync: Sync,
    },
    /// Says that a member is alive.
    Heartbeat(Heartbeat),
    Leave {
        group: String,
        members: Vec<Leaving>,
    },
    Commit(CommitOffsets),
    /// Asks for the offsets of one or more groups. The answer is current, and stable: there are no
    /// pending transactional offsets.
    Fetch(Vec<FetchGroup>),
    /// DescribeGroups: the groups to describe, by id.
    Describe(Vec<String>),
    /// ListGroups: the states wanted by name, compared without case; empty means all.
    List(Vec<String>),
}

/// The answer to a [`GroupRequest`]; lists are in the order of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupReply {
    /// The member is part of a generation.
    Join(Result<JoinedGroup, JoinRefusal>),
    Sync(Result<Synced, GroupError>),
    Heartbeat(Result<(), GroupError>),
    /// One outcome per member.
    Leave(Result<Vec<Result<(), GroupError>>, GroupError>),
    /// One outcome per partition, topic after topic.
    Commit(Vec<Result<(), GroupError>>),
    Fetch(Vec<FetchedGroup>),
    Describe(Result<Vec<DescribedGroup>, GroupError>),
    /// Sorted by id.
    List(Result<Vec<ListedGroup>, GroupError>),
}

impl GroupReply {
    /// True if the node that gave it leads no more, and the request can be repeated at the one that does. Commits are not
    /// among them: a repeat might overwrite what was committed since.
    pub fn is_of_no_coordinator(&self) -> bool {
        !matches!(self, GroupReply::Commit(_)) && self.says_not_coordinator()
    }

    /// True if the coordinator that gave it leads no more, or did not. Of offsets it may be that they were committed.
    pub fn says_not_coordinator(&self) -> bool {
        let is_so = |error: &GroupError| *error == GroupError::NotCoordinator;
        match self {
            GroupReply::Join(Err(refusal)) => is_so(&refusal.error),
            GroupReply::Sync(Err(error))
            | GroupReply::Heartbeat(Err(error))
            | GroupReply::Leave(Err(error))
            | GroupReply::Describe(Err(error))
            | GroupReply::List(Err(error)) => is_so(error),
            GroupReply::Fetch(groups) => {
                let mut refused = groups
                    .iter()
                    .filter_map(|group| group.topics.as_ref().err());
                refused.any(is_so)
            }
            GroupReply::Commit(results) => results.contains(&Err(GroupError::NotCoordinator)),
            _ => false,
        }
    }
}

/// Why the coordinator refuses, each with the meaning of Kafka's error of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupError {
    /// The state of the group does not allow it.
    Refused(Refusal),
    /// NOT_COORDINATOR: ask again at once; no effect, or one that a repeat settles.
    NotCoordinator,
    /// COORDINATOR_NOT_AVAILABLE: the outcome is not known, or there is no answer just now.
    CoordinatorNotAvailable,
    /// INVALID_GROUP_ID: empty.
    InvalidGroupId,
    InvalidSessionTimeout,
    /// MEMBER_ID_REQUIRED: join again with the member id of the answer (KIP-394).
    MemberIdRequired,
    /// COORDINATOR_LOAD_IN_PROGRESS: the groups would take more memory than they may just now.
    NoRoom,
    /// INVALID_COMMIT_OFFSET_SIZE for offsets, else UNKNOWN_SERVER_ERROR: the journal takes no
    /// request of this size, now or later.
    TooLarge,
    /// COORDINATOR_LOAD_IN_PROGRESS: there is no more room in this answer; ask again for this group.
    AnswerFull,
    /// UNKNOWN_TOPIC_ID: for a topic asked for by id.
    UnknownTopicId,
}

impl From<Refusal> for GroupError {
    fn from(refusal: Refusal) -> Self {
        GroupError::Refused(refusal)
    }
}

/// A member joins or comes back. Fields that a version lacks have Kafka's defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinGroup {
    pub group: String,
    /// The member's data; its id is empty if it has none. The coordinator decides whether it is
    /// admitted, and how many members there may be.
    pub join: Join,
    /// The id to give the member if it has none: client id (static members: instance id), a
    /// dash and a random UUID. An agent that repeats a call repeats this too, so that one
    /// request never makes two members.
    pub fresh_member: String,
    /// Version 4 on: a member without an id is given one and must join again with it.
    pub id_required: bool,
}

/// The answer to a member that is part of a generation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedGroup {
    /// The member's own id.
    pub member: String,
    pub joined: Joined,
}

/// The answer to a member that may not join.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinRefusal {
    pub error: GroupError,
    /// The member id of the response: the new one with [`GroupError::MemberIdRequired`], else
    /// that of the request.
    pub member: String,
}

/// A sign of life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub group: String,
    pub member: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// Generation that the member joined.
    pub generation: i32,
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
    pub group: String,
    /// The run of the agent that passes it on.
    pub by: Option<Incarnation>,
    /// The member; empty from a client that manages its own partitions.
    pub member: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    /// Generation that the member joined; -1 from a client that manages its own partitions.
    pub generation: i32,
    pub topics: Vec<(TopicName, Vec<CommitPartition>)>,
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

/// Offsets wanted of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchGroup {
    pub group: String,
    /// Topics and partition indices; `None` for everything the group has committed.
    pub topics: Option<Vec<(TopicName, Vec<i32>)>>,
}

/// Offsets of one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchedGroup {
    pub group: String,
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

/// A group with all its members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    pub group: String,
    /// Why the group is not described; all other fields are meaningless then.
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
    pub member: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Its metadata for the chosen protocol, only while stable.
    pub metadata: Bytes,
    pub assignment: Bytes,
}

/// A group in a list. Its type is always "classic".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    pub group: String,
    /// Kind of the group's protocols, empty if none.
    pub protocol_type: String,
    /// Kafka's name of the state.
    pub state: String,
}

impl GroupRequest {
    /// About how much memory it takes.
    pub fn bytes(&self) -> usize {
        let variable: usize = match self {
            GroupRequest::Join(asked) => {
                let protocols = asked.join.protocols.iter();
                protocols
                    .map(|protocol| {
                        size_of_val(protocol) + protocol.name.len() + protocol.metadata.len()
                    })
                    .sum()
            }
            GroupRequest::Sync { sync, .. } => {
                let assigned = sync.assignments.iter();
                assigned
                    .map(|assigned| size_of_val(assigned) + assigned.0.len() + assigned.1.len())
                    .sum()
            }
            GroupRequest::Leave { members, .. } => {
                let members = members.iter();
                members
                    .map(|member| size_of_val(member) + member.member.len())
                    .sum()
            }
            GroupRequest::Commit(commit) => {
                let partitions = commit.topics.iter().flat_map(|topic| &topic.1);
                partitions
                    .map(|partition| size_of_val(partition) + partition.metadata.len())
                    .sum()
            }
            GroupRequest::Fetch(groups) => {
                let topics = groups.iter().filter_map(|group| group.topics.as_ref());
                topics
                    .flatten()
                    .map(|topic| size_of_val(topic) + size_of_val(topic.1.as_slice()))
                    .sum()
            }
            GroupRequest::Describe(names) | GroupRequest::List(names) => {
                let names = names.iter();
                names.map(|name| size_of_val(name) + name.len()).sum()
            }
            GroupRequest::Heartbeat(_) => 0,
        };
        size_of::<GroupRequest>() + variable
    }
}
