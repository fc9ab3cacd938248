//! What comes of a group's command: outcomes with the meaning of Kafka's errors. Must not know
//! error codes.

use bytes::Bytes;

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
    /// There is no such group.
    GroupIdNotFound,
    /// The group has members.
    NonEmptyGroup,
    /// What the client attached to an offset is too long.
    OffsetMetadataTooLarge,
    /// There is no such topic or partition.
    UnknownTopicOrPartition,
}

/// The reply to a [`super::Command`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// To [`super::Action::Join`].
    Join(Result<JoinOutcome, Refusal>),
    /// To [`super::Action::CompleteJoin`].
    CompleteJoin(Completion),
    /// To [`super::Action::Sync`].
    Sync(Result<SyncOutcome, Refusal>),
    /// To [`super::Action::Leave`]: one outcome per member.
    Leave(Vec<Result<(), Refusal>>),
    /// To [`super::Action::Commit`]: refused as a whole, or one outcome per offset.
    Commit(Result<Vec<Result<(), Refusal>>, Refusal>),
    /// To [`super::Action::Delete`].
    Delete(Result<(), Refusal>),
    /// To [`super::Action::Expire`] and [`super::Action::MarkSilence`].
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
}

impl Event {
    pub(super) fn changed(group: &str) -> Event {
        Event {
            group: group.to_owned(),
        }
    }
}
