//! The commands of groups as bytes, whose shape is in `proto/group.proto`. Must not know what the
//! commands do.

use std::collections::BTreeMap;

use super::proto;
use super::proto::group_command::Kind;
use crate::terms::group::{
    Action, Command, CommitOffsets, Join, Leaving, OffsetEntry, Protocol, Silent, Sync,
};
use crate::terms::ids::{Incarnation, TopicId};

/// Bytes that no version of this code has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A command without a kind.
    #[error("a group's command has no kind")]
    NoKind,
    /// A topic id that is not 16 bytes long, or an index to none.
    #[error("a group's offset names no topic id of 16 bytes")]
    TopicId,
    /// Columns of different lengths.
    #[error("the columns of a group's offsets, or of its silent members, differ in length")]
    Columns,
    /// A topic that no offset names, or topics in another order than that in which offsets name them.
    #[error("the topics of a group's offsets are not those that they name, in their order")]
    Table,
    /// A phase that does not exist.
    #[error("a group is in no known phase")]
    Phase,
    /// The same group or member twice, or offsets without their group.
    #[error("a group, or a member of it, is there twice or not at all")]
    Identity,
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
                silent: silent.iter().map(|silent| silent.member.clone()).collect(),
                heard: heard.clone(),
                silent_millis: silent.iter().map(|silent| silent.for_millis).collect(),
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
            Kind::MarkSilence(mark) => {
                if mark.silent.len() != mark.silent_millis.len() {
                    return Err(Malformed::Columns);
                }
                let silent = mark.silent.into_iter().zip(mark.silent_millis);
                let silent = silent.map(|(member, for_millis)| Silent { member, for_millis });
                Action::MarkSilence {
                    silent: silent.collect(),
                    heard: mark.heard,
                }
            }
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
            by: commit.by.map(|run| run.0),
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
        // Written anew, the table has each topic once, in the order in which rows name it, and no other.
        let mut written = TopicTable::default();
        for (row, metadata) in commit.metadata.into_iter().enumerate() {
            let topic = usize::try_from(commit.topic[row])
                .ok()
                .and_then(|index| topics.get(index));
            let topic = *topic.ok_or(Malformed::TopicId)?;
            if written.index(topic) != commit.topic[row] {
                return Err(Malformed::Table);
            }
            offsets.push(OffsetEntry {
                topic,
                partition: commit.partition[row],
                offset: commit.offset[row],
                leader_epoch: commit.leader_epoch[row],
                metadata,
            });
        }
        if written.bytes != commit.topics {
            return Err(Malformed::Table);
        }
        Ok(CommitOffsets {
            by: commit.by.map(Incarnation),
            member: commit.member,
            instance: commit.instance,
            generation: commit.generation,
            offsets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_name_each_topic_of_their_table_in_its_order() {
        let commit = |topics: &[u8], topic: &[u32]| {
            let rows = topic.len();
            CommitOffsets::try_from(proto::CommitOffsets {
                topics: topics.iter().map(|id| vec![*id; 16]).collect(),
                topic: topic.to_vec(),
                partition: vec![0; rows],
                offset: vec![0; rows],
                leader_epoch: vec![0; rows],
                metadata: vec![String::new(); rows],
                ..Default::default()
            })
        };
        let good = commit(&[1, 2], &[0, 1, 0]).expect("as it is written");
        assert_eq!(good.offsets.len(), 3);
        let bad: [(&[u8], &[u32]); 4] = [
            (&[1], &[]),
            (&[1, 2], &[0]),
            (&[1, 2], &[1, 0]),
            (&[1, 1], &[0, 1]),
        ];
        for (topics, topic) in bad {
            assert_eq!(
                commit(topics, topic).err(),
                Some(Malformed::Table),
                "{topics:?} {topic:?}"
            );
        }
        assert_eq!(commit(&[1], &[0, 1]).err(), Some(Malformed::TopicId));
    }
}
