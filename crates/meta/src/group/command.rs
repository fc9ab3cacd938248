//! The commands of groups, and their bytes' shape in `proto/group.proto`. Must not know what the
//! commands do.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::Malformed;
use crate::ids::TopicId;
use crate::proto;
use crate::proto::group_command::Kind;

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
    /// Which members a leader of the journal has not heard since it took over, and which it
    /// has heard after all.
    MarkSilence {
        silent: Vec<String>,
        heard: Vec<String>,
    },
    Commit(CommitOffsets),
    /// The group is deleted, with its offsets.
    Delete,
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

impl From<&Command> for proto::GroupCommand {
    fn from(command: &Command) -> Self {
        let kind = match &command.action {
            Action::Join(join) => Kind::Join(join.into()),
            Action::CompleteJoin { generation } => Kind::CompleteJoin(proto::CompleteJoin {
                generation: *generation,
            }),
            Action::Sync(sync) => Kind::Sync(sync.into()),
            Action::Leave(members) => {
                let members = members.iter().cloned().map(|leaving| proto::LeavingMember {
                    member: leaving.member,
                    instance: leaving.instance,
                });
                Kind::Leave(proto::LeaveGroup {
                    members: members.collect(),
                })
            }
            Action::Expire(members) => Kind::Expire(proto::ExpireMembers {
                members: members.clone(),
            }),
            Action::MarkSilence { silent, heard } => Kind::MarkSilence(proto::MarkSilence {
                silent: silent.clone(),
                heard: heard.clone(),
            }),
            Action::Commit(commit) => Kind::CommitOffsets(commit.into()),
            Action::Delete => Kind::Delete(proto::DeleteGroup {}),
        };
        proto::GroupCommand {
            group: command.group.clone(),
            kind: Some(kind),
        }
    }
}

impl TryFrom<proto::GroupCommand> for Command {
    type Error = Malformed;

    fn try_from(command: proto::GroupCommand) -> Result<Self, Malformed> {
        let action = match command.kind.ok_or(Malformed::NoKind)? {
            Kind::Join(join) => Action::Join(join.into()),
            Kind::CompleteJoin(complete) => Action::CompleteJoin {
                generation: complete.generation,
            },
            Kind::Sync(sync) => Action::Sync(sync.into()),
            Kind::Leave(leave) => {
                let members = leave.members.into_iter().map(|leaving| Leaving {
                    member: leaving.member,
                    instance: leaving.instance,
                });
                Action::Leave(members.collect())
            }
            Kind::Expire(expire) => Action::Expire(expire.members),
            Kind::MarkSilence(mark) => Action::MarkSilence {
                silent: mark.silent,
                heard: mark.heard,
            },
            Kind::CommitOffsets(commit) => Action::Commit(commit.try_into()?),
            Kind::Delete(_) => Action::Delete,
        };
        Ok(Command {
            group: command.group,
            action,
        })
    }
}

impl From<&Join> for proto::JoinGroup {
    fn from(join: &Join) -> Self {
        proto::JoinGroup {
            member: join.member.clone(),
            admitted: join.admitted,
            instance: join.instance.clone(),
            client_id: join.client_id.clone(),
            client_host: join.client_host.clone(),
            session_timeout_millis: join.session_timeout_millis,
            rebalance_timeout_millis: join.rebalance_timeout_millis,
            protocol_type: join.protocol_type.clone(),
            protocols: encode_protocols(&join.protocols),
            can_skip_assignment: join.can_skip_assignment,
            members_max: join.members_max,
        }
    }
}

impl From<proto::JoinGroup> for Join {
    fn from(join: proto::JoinGroup) -> Self {
        Join {
            member: join.member,
            admitted: join.admitted,
            instance: join.instance,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_millis: join.session_timeout_millis,
            rebalance_timeout_millis: join.rebalance_timeout_millis,
            protocol_type: join.protocol_type,
            protocols: decode_protocols(join.protocols),
            can_skip_assignment: join.can_skip_assignment,
            members_max: join.members_max,
        }
    }
}

impl From<&Sync> for proto::SyncGroup {
    fn from(sync: &Sync) -> Self {
        let assignments =
            sync.assignments
                .iter()
                .map(|(member, assignment)| proto::MemberAssignment {
                    member: member.clone(),
                    assignment: assignment.to_vec(),
                });
        proto::SyncGroup {
            member: sync.member.clone(),
            instance: sync.instance.clone(),
            generation: sync.generation,
            protocol_type: sync.protocol_type.clone(),
            protocol: sync.protocol.clone(),
            assignments: assignments.collect(),
        }
    }
}

impl From<proto::SyncGroup> for Sync {
    fn from(sync: proto::SyncGroup) -> Self {
        let assignments = sync.assignments.into_iter();
        Sync {
            member: sync.member,
            instance: sync.instance,
            generation: sync.generation,
            protocol_type: sync.protocol_type,
            protocol: sync.protocol,
            assignments: assignments
                .map(|assigned| (assigned.member, assigned.assignment.into()))
                .collect(),
        }
    }
}

pub(super) fn encode_protocols(protocols: &[Protocol]) -> Vec<proto::MemberProtocol> {
    let encode = |protocol: &Protocol| proto::MemberProtocol {
        name: protocol.name.clone(),
        metadata: protocol.metadata.to_vec(),
    };
    protocols.iter().map(encode).collect()
}

pub(super) fn decode_protocols(protocols: Vec<proto::MemberProtocol>) -> Vec<Protocol> {
    let decode = |protocol: proto::MemberProtocol| Protocol {
        name: protocol.name,
        metadata: protocol.metadata.into(),
    };
    protocols.into_iter().map(decode).collect()
}

/// Topic ids, each once, as columns refer to them.
#[derive(Default)]
pub(super) struct TopicTable {
    indices: BTreeMap<TopicId, u32>,
    pub(super) bytes: Vec<Vec<u8>>,
}

impl TopicTable {
    /// The index of a topic, which is added if it is new.
    pub(super) fn index(&mut self, topic: TopicId) -> u32 {
        *self.indices.entry(topic).or_insert_with(|| {
            let index = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
            self.bytes.push(topic.0.to_be_bytes().to_vec());
            index
        })
    }

    /// Reads a table back.
    pub(super) fn decode(bytes: &[Vec<u8>]) -> Result<Vec<TopicId>, Malformed> {
        let decode = |id: &Vec<u8>| {
            let id: [u8; 16] = id.as_slice().try_into().map_err(|_| Malformed::TopicId)?;
            Ok(TopicId(u128::from_be_bytes(id)))
        };
        bytes.iter().map(decode).collect()
    }
}

impl From<&CommitOffsets> for proto::CommitOffsets {
    fn from(commit: &CommitOffsets) -> Self {
        let mut topics = TopicTable::default();
        let mut message = proto::CommitOffsets {
            member: commit.member.clone(),
            instance: commit.instance.clone(),
            generation: commit.generation,
            ..Default::default()
        };
        for entry in &commit.offsets {
            message.topic.push(topics.index(entry.topic));
            message.partition.push(entry.partition);
            message.offset.push(entry.offset);
            message.leader_epoch.push(entry.leader_epoch);
            message.metadata.push(entry.metadata.clone());
        }
        message.topics = topics.bytes;
        message
    }
}

impl TryFrom<proto::CommitOffsets> for CommitOffsets {
    type Error = Malformed;

    fn try_from(commit: proto::CommitOffsets) -> Result<Self, Malformed> {
        let topics = TopicTable::decode(&commit.topics)?;
        let rows = commit.topic.len();
        let columns = [
            commit.partition.len(),
            commit.offset.len(),
            commit.leader_epoch.len(),
        ];
        if columns.iter().any(|column| *column != rows) || commit.metadata.len() != rows {
            return Err(Malformed::Columns);
        }
        let mut offsets = Vec::with_capacity(rows);
        for (row, metadata) in commit.metadata.into_iter().enumerate() {
            let topic = usize::try_from(commit.topic[row])
                .ok()
                .and_then(|index| topics.get(index));
            offsets.push(OffsetEntry {
                topic: *topic.ok_or(Malformed::TopicId)?,
                partition: commit.partition[row],
                offset: commit.offset[row],
                leader_epoch: commit.leader_epoch[row],
                metadata,
            });
        }
        Ok(CommitOffsets {
            member: commit.member,
            instance: commit.instance,
            generation: commit.generation,
            offsets,
        })
    }
}
