//! The commands of groups and what comes of them, with the meaning of Kafka's errors. It must not
//! know what the commands do, or error codes.

use bytes::Bytes;

use super::ids::{Incarnation, TopicId};

/// A command for one group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Command {
    pub group: String,
    pub action: Action,
}

/// What to do with a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// A member joins or comes back.
    Join(Join),
    /// Ends the joining phase that began in this generation.
    CompleteJoin {
        /// The generation before the one that is formed.
        generation: i32,
    },
    Sync(Sync),
    Leave(Vec<Leaving>),
    /// Members whose time ran out.
    Expire(Vec<String>),
    /// Members that the leader of the journal has not heard for a while, and those that it has heard after all.
    MarkSilence {
        silent: Vec<Silent>,
        heard: Vec<String>,
    },
    Commit(CommitOffsets),
    /// The group is deleted, with its offsets.
    Delete,
}

/// A member that is silent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Silent {
    pub member: String,
    /// For how long, in milliseconds in which somebody led.
    pub for_millis: u32,
}

/// A member joins or comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Join {
    /// The id that the member has or is given; never empty.
    pub member: String,
    /// A member of this id may be made if there is none, or take over its static instance: the
    /// id was given to this very request, or is awaited.
    pub admitted: bool,
    /// `group.instance.id`.
    pub instance: Option<String>,
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
    /// Session timeout in milliseconds.
    pub session_timeout_millis: u32,
    /// Rebalance timeout in milliseconds.
    pub rebalance_timeout_millis: u32,
    pub protocol_type: String,
    /// Supported protocols, best first.
    pub protocols: Vec<Protocol>,
    /// A static leader that comes back understands that it must skip the assignment.
    pub can_skip_assignment: bool,
    /// Most members that the group may have.
    pub members_max: u32,
}

/// A protocol that a member supports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    /// The member's metadata for it, opaque.
    pub metadata: Bytes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sync {
    pub member: String,
    /// `group.instance.id`.
    pub instance: Option<String>,
    /// Generation that it joined.
    pub generation: i32,
    /// Kind of protocols, if it says so.
    pub protocol_type: Option<String>,
    /// Protocol, if it says so.
    pub protocol: Option<String>,
    /// Assignments by member, from the leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member that leaves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// Its id; empty for whoever holds the instance.
    pub member: String,
    /// `group.instance.id`.
    pub instance: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitOffsets {
    /// The run of the agent that passes it on: once that is fenced, the commit is refused, since its client may have committed
    /// more by another agent meanwhile. `None` if no agent passed it on.
    pub by: Option<Incarnation>,
    /// Empty from a client that manages its own partitions.
    pub member: String,
    /// `group.instance.id`.
    pub instance: Option<String>,
    /// -1 from a client that manages its own partitions.
    pub generation: i32,
    pub offsets: Vec<OffsetEntry>,
}

/// An offset to commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OffsetEntry {
    pub topic: TopicId,
    /// Index of the partition in its topic.
    pub partition: u32,
    /// Next offset to read.
    pub offset: i64,
    /// Leader epoch, -1 if not known.
    pub leader_epoch: i32,
    /// What the client attaches.
    pub metadata: String,
}

/// Why a command is refused, each with the meaning of Kafka's error of that name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Refusal {
    /// There is no such member.
    UnknownMemberId,
    /// The member is of another generation.
    IllegalGeneration,
    /// No protocol is supported by all members.
    InconsistentGroupProtocol,
    /// The members are about to join another generation.
    RebalanceInProgress,
    /// Another member has taken over the static instance.
    FencedInstanceId,
    /// The group is full.
    GroupMaxSizeReached,
    /// The run of the agent that passed it on is fenced.
    AgentFenced,
    /// There is no such group.
    GroupIdNotFound,
    /// The group has members.
    NonEmptyGroup,
    /// What the client attached to an offset is too long.
    OffsetMetadataTooLarge,
    /// There is no such topic or partition.
    UnknownTopicOrPartition,
}

/// The reply to a [`Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`Action::Join`].
    Join(Result<JoinOutcome, Refusal>),
    /// To [`Action::CompleteJoin`].
    CompleteJoin(Completion),
    /// To [`Action::Sync`].
    Sync(Result<SyncOutcome, Refusal>),
    /// To [`Action::Leave`]: one outcome per member.
    Leave(Vec<Result<(), Refusal>>),
    /// To [`Action::Commit`]: refused as a whole, or one outcome per offset.
    Commit(Result<Vec<Result<(), Refusal>>, Refusal>),
    /// To [`Action::Delete`].
    Delete(Result<(), Refusal>),
    /// To [`Action::Expire`] and [`Action::MarkSilence`].
    Done,
}

/// A join that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JoinOutcome {
    /// The member has joined; it is answered when the joining phase that began in this
    /// generation completes.
    Waits {
        /// The generation before the one that it will be part of.
        generation: i32,
    },
    /// The member is part of the generation that exists.
    Joined(Joined),
}

/// What a member is told of the generation that it is part of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    /// Kind of the group's protocols.
    pub protocol_type: String,
    pub protocol: String,
    /// Member id of the leader, as this member may know it.
    pub leader: String,
    /// The leader must not assign anew.
    pub skip_assignment: bool,
    /// All members, for the leader; empty for others.
    pub members: Vec<JoinedMember>,
}

/// A member as the leader of the group sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    pub member: String,
    /// Its `group.instance.id`.
    pub instance: Option<String>,
    /// Its metadata for the chosen protocol.
    pub metadata: Bytes,
}

/// What came of an attempt to complete a joining phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Completion {
    /// The next generation exists.
    Completed,
    /// Nobody was left: the group is empty.
    Emptied,
    /// Only static members are left and none of them has joined: they are awaited until their
    /// sessions end.
    Postponed,
    /// That joining phase is over already.
    Superseded,
}

/// A sync that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyncOutcome {
    /// The leader's assignments are awaited.
    Waits,
    /// The member has its assignment.
    Synced(Synced),
}

/// The assignment of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Synced {
    /// Kind of the group's protocols.
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// A group changed, or is gone, in a way that may concern a member that waits: whoever keeps
/// requests or deadlines for it looks at it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub group: String,
    pub touched: Touched,
}

/// Whose membership a command may have changed. A new phase or generation concerns all members,
/// named or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    Members(Vec<String>),
    All,
}

impl Event {
    pub(crate) fn one(group: &str, member: &str) -> Event {
        Event::some(group, vec![member.to_owned()])
    }

    pub(crate) fn some(group: &str, members: Vec<String>) -> Event {
        Event {
            group: group.to_owned(),
            touched: Touched::Members(members),
        }
    }

    pub(crate) fn all(group: &str) -> Event {
        Event {
            group: group.to_owned(),
            touched: Touched::All,
        }
    }
}
