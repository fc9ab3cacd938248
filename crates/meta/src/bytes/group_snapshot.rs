//! Groups in a snapshot, and back. Must not know how snapshots are stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::group::{Malformed, TopicTable, decode_protocols, encode_protocols};
use super::proto;
use crate::nouns::group::{Group, Groups, Member, Phase};
use crate::nouns::offset::CommittedOffset;
use crate::terms::ids::TopicId;

/// Number of sections that a snapshot's groups are cut into. A group's id alone decides in which
/// one it is, so that a section of unchanged groups has the same bytes in the next snapshot.
const SECTIONS: u64 = 64;

/// Most offsets in one message, which bounds its size.
const OFFSETS_PER_MESSAGE: usize = 10_000;

impl Groups {
    /// The groups as parts of a snapshot, each a function of its groups alone. Empty parts are
    /// left out.
    pub(crate) fn sections(&self) -> impl Iterator<Item = proto::Groups> {
        let mut sections: BTreeMap<u64, Vec<(&str, &Group)>> = BTreeMap::new();
        for (id, group) in self.iter() {
            sections.entry(section(id)).or_default().push((id, group));
        }
        sections.into_values().map(|groups| proto::Groups {
            groups: groups.iter().map(|(id, group)| encode(id, group)).collect(),
            offsets: groups
                .iter()
                .flat_map(|(id, group)| encode_offsets(id, group))
                .collect(),
        })
    }

    /// Adds the groups of one part. Their bytes are to be counted once all parts are there.
    pub(crate) fn restore(&mut self, section: proto::Groups) -> Result<(), Malformed> {
        for group in section.groups {
            let (id, group) = decode(group)?;
            if self.groups.insert(id.into(), Arc::new(group)).is_some() {
                return Err(Malformed::Identity);
            }
        }
        for offsets in section.offsets {
            let group = self
                .groups
                .get_mut(offsets.group.as_str())
                .ok_or(Malformed::Identity)?;
            decode_offsets(Arc::make_mut(group), offsets)?;
        }
        Ok(())
    }
}

/// FNV-1a of the id, folded to a section.
fn section(id: &str) -> u64 {
    let hash = id.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash % SECTIONS
}

fn encode(id: &str, group: &Group) -> proto::GroupState {
    let members = group.members().map(|(id, member)| proto::MemberState {
        member: id.to_owned(),
        instance: member.instance.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        session_timeout_millis: member.session_timeout_millis,
        rebalance_timeout_millis: member.rebalance_timeout_millis,
        protocols: encode_protocols(&member.protocols),
        assignment: member.assignment.to_vec(),
        joined: member.joined,
        silent_since_millis: member.silent_since,
    });
    proto::GroupState {
        group: id.to_owned(),
        phase: match group.phase {
            Phase::Empty => 0,
            Phase::PreparingRebalance => 1,
            Phase::CompletingRebalance => 2,
            Phase::Stable => 3,
        },
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol: group.protocol.clone(),
        leader: group.leader.clone(),
        initial: group.initial,
        emptied_ticks_millis: group.emptied_ticks_millis,
        members: members.collect(),
    }
}

fn decode(state: proto::GroupState) -> Result<(String, Group), Malformed> {
    let mut group = Group {
        phase: match state.phase {
            0 => Phase::Empty,
            1 => Phase::PreparingRebalance,
            2 => Phase::CompletingRebalance,
            3 => Phase::Stable,
            _ => return Err(Malformed::Phase),
        },
        generation: state.generation,
        protocol_type: state.protocol_type,
        protocol: state.protocol,
        leader: state.leader,
        initial: state.initial,
        emptied_ticks_millis: state.emptied_ticks_millis,
        ..Group::default()
    };
    for member in state.members {
        let id = member.member;
        if let Some(instance) = &member.instance
            && group
                .instances
                .insert(instance.clone(), id.clone())
                .is_some()
        {
            return Err(Malformed::Identity);
        }
        let member = Member {
            instance: member.instance,
            client_id: member.client_id,
            client_host: member.client_host,
            session_timeout_millis: member.session_timeout_millis,
            rebalance_timeout_millis: member.rebalance_timeout_millis,
            protocols: decode_protocols(member.protocols),
            assignment: member.assignment.into(),
            joined: member.joined,
            silent_since: member.silent_since_millis,
        };
        if group.members.insert(id, member).is_some() {
            return Err(Malformed::Identity);
        }
    }
    Ok((state.group, group))
}

fn encode_offsets(id: &str, group: &Group) -> Vec<proto::OffsetsState> {
    let rows: Vec<_> = group
        .offsets
        .topics()
        .flat_map(|(topic, partitions)| {
            partitions.map(move |(partition, offset)| (topic, partition, offset))
        })
        .collect();
    let encode = |rows: &[(TopicId, u32, &CommittedOffset)]| {
        let mut topics = TopicTable::default();
        let mut message = proto::OffsetsState {
            group: id.to_owned(),
            ..Default::default()
        };
        for (topic, partition, offset) in rows {
            message.topic.push(topics.index(*topic));
            message.partition.push(*partition);
            message.offset.push(offset.offset);
            message.leader_epoch.push(offset.leader_epoch);
            message.metadata.push(offset.metadata.clone());
            message
                .committed_ticks_millis
                .push(offset.committed_ticks_millis);
        }
        message.topics = topics.bytes;
        message
    };
    rows.chunks(OFFSETS_PER_MESSAGE).map(encode).collect()
}

fn decode_offsets(group: &mut Group, state: proto::OffsetsState) -> Result<(), Malformed> {
    let topics = TopicTable::decode(&state.topics)?;
    let rows = state.topic.len();
    let columns = [
        state.partition.len(),
        state.offset.len(),
        state.leader_epoch.len(),
        state.metadata.len(),
        state.committed_ticks_millis.len(),
    ];
    if columns.iter().any(|column| *column != rows) {
        return Err(Malformed::Columns);
    }
    for (row, metadata) in state.metadata.into_iter().enumerate() {
        let topic = usize::try_from(state.topic[row])
            .ok()
            .and_then(|index| topics.get(index));
        let offset = CommittedOffset {
            offset: state.offset[row],
            leader_epoch: state.leader_epoch[row],
            metadata,
            committed_ticks_millis: state.committed_ticks_millis[row],
        };
        group.offsets.insert(
            *topic.ok_or(Malformed::TopicId)?,
            state.partition[row],
            offset,
        );
    }
    Ok(())
}
