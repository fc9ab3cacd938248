//! What groups look like from outside: DescribeGroups and ListGroups. Changes nothing and must
//! not know deadlines.

use std::collections::BTreeSet;

use bytes::Bytes;
use meta::group::{Group, Groups, Member, Phase};
use rpc::group::{DescribedGroup, DescribedMember, ListedGroup};

use super::answers::{Room, described_bytes};

/// Kafka's name for the state of a group that does not exist.
const DEAD: &str = "Dead";

pub(super) fn describe(groups: &Groups, ids: Vec<String>) -> Vec<DescribedGroup> {
    let mut room = Room::new();
    let describe = |id: String| {
        let error = room.admit().err();
        let group = groups.get(&id).filter(|_| error.is_none());
        let described = DescribedGroup {
            error,
            ..describe_one(group, id)
        };
        room.take(described_bytes(&described));
        described
    };
    ids.into_iter().map(describe).collect()
}

fn describe_one(group: Option<&Group>, id: String) -> DescribedGroup {
    let Some(group) = group else {
        return DescribedGroup {
            group: id,
            error: None,
            exists: false,
            state: DEAD.to_owned(),
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        };
    };
    // Between generations the choice of the protocol means nothing, nor what rests on it.
    let protocol = group.protocol().filter(|_| group.phase() == Phase::Stable);
    DescribedGroup {
        group: id,
        error: None,
        exists: true,
        state: group.phase().name().to_owned(),
        protocol_type: group.protocol_type().unwrap_or_default().to_owned(),
        protocol: protocol.unwrap_or_default().to_owned(),
        members: group
            .members()
            .map(|(id, member)| describe_member(id, member, protocol))
            .collect(),
    }
}

fn describe_member(id: &str, member: &Member, protocol: Option<&str>) -> DescribedMember {
    DescribedMember {
        member: id.to_owned(),
        instance: member.instance.clone(),
        client_id: member.client_id.clone(),
        client_host: member.client_host.clone(),
        metadata: protocol.map_or_else(Bytes::new, |protocol| member.metadata(protocol)),
        assignment: member.assignment.clone(),
    }
}

pub(super) fn list(groups: &Groups, states: &[String]) -> Vec<ListedGroup> {
    // Sorted, since there may be many, and of groups too.
    let states: BTreeSet<String> = states
        .iter()
        .map(|state| state.to_ascii_lowercase())
        .collect();
    let is_wanted = |group: &Group| {
        states.is_empty() || states.contains(&group.phase().name().to_ascii_lowercase())
    };
    groups
        .iter()
        .filter(|(_, group)| is_wanted(group))
        .map(|(id, group)| ListedGroup {
            group: id.to_owned(),
            protocol_type: group.protocol_type().unwrap_or_default().to_owned(),
            state: group.phase().name().to_owned(),
        })
        .collect()
}
