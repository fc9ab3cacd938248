//! Requests of members: join, sync, heartbeat, leave. Must not decide what is true of the group.

use std::time::Duration;

use host::clock::Instant;
use meta::group::{Action, Group, Join, Leaving, Phase, Protocol, Sync};
use rpc::group::{
    GroupError, GroupProtocol, GroupReply, Heartbeat, JoinGroup, LeaveGroup, LeftMember, SyncGroup,
    SyncedGroup,
};

use super::live::{Live, Parked, session_timeout};
use super::proposals::Purpose;
use super::{Coordinator, Effect, Metadata, Ticket, error_of};

/// How long to gather members that were silent and are heard after all, before that is noted.
const HEARD_DELAY: Duration = Duration::from_secs(5);

/// Most member ids that a group may be waiting for: clients that ask for one and never come back
/// must not fill the memory.
const AWAITED_MAX: usize = 10_000;

impl Coordinator {
    pub(super) fn join(
        &mut self,
        now: Instant,
        ticket: Ticket,
        join: JoinGroup,
        metadata: &dyn Metadata,
    ) {
        let Some(session) = self.session_in_range(join.session_timeout_millis) else {
            let error = GroupError::InvalidSessionTimeout;
            return self.answer_join_error(ticket, error, &join.member_id);
        };
        let group = metadata.groups().get(&join.group_id);
        let protocols = protocols_of(&join.protocols);
        let fresh = join.member_id.is_empty();
        if fresh && join.id_required && join.instance_id.is_none() {
            let accepted = accepts(group, &join.protocol_type, &protocols);
            let has_room = self.has_room_for_id(metadata, &join.group_id, &join.fresh_member_id);
            let error = match (accepted, has_room) {
                (false, _) => Some(GroupError::InconsistentGroupProtocol),
                (true, false) => Some(GroupError::GroupMaxSizeReached),
                (true, true) => None,
            };
            return match error {
                Some(error) => self.answer_join_error(ticket, error, ""),
                None => self.give_id(now, ticket, &join, session),
            };
        }
        let member = if fresh {
            &join.fresh_member_id
        } else {
            &join.member_id
        };
        if member.is_empty() {
            return self.answer_join_error(ticket, GroupError::UnknownMemberId, "");
        }
        let live = self.groups.get(&join.group_id);
        let awaited = live.is_some_and(|live| live.awaited.contains_key(member));
        if let Some(group) = group {
            self.hear(now, &join.group_id, group, member);
        }
        let proposed = Join {
            member: member.clone(),
            admitted: fresh || awaited,
            instance: join.instance_id,
            client_id: join.client_id,
            client_host: join.client_host,
            session_timeout_millis: u32::try_from(join.session_timeout_millis).unwrap_or(0),
            rebalance_timeout_millis: u32::try_from(join.rebalance_timeout_millis).unwrap_or(0),
            protocol_type: join.protocol_type,
            protocols,
            can_skip_assignment: join.can_skip_assignment,
            members_max: self.settings.members_max,
        };
        if !self.has_room_for_member(metadata, group, &proposed) {
            let error = GroupError::GroupMaxSizeReached;
            return self.answer_join_error(ticket, error, &join.member_id);
        }
        self.propose(
            now,
            join.group_id,
            Action::Join(proposed),
            Purpose::Join {
                ticket,
                member_id: join.member_id,
            },
        );
    }

    fn session_in_range(&self, millis: i32) -> Option<Duration> {
        let session = Duration::from_millis(u64::try_from(millis).ok()?);
        let range = self.settings.session_timeout_min..=self.settings.session_timeout_max;
        range.contains(&session).then_some(session)
    }

    /// Gives a member an id to join with: a client that never sees its answer leaves nothing
    /// behind in the group (KIP-394).
    fn give_id(&mut self, now: Instant, ticket: Ticket, join: &JoinGroup, session: Duration) {
        let awaited =
            self.awaited_bytes
                .awaited(&join.group_id, &join.fresh_member_id, now + session);
        let live = self.groups.entry(join.group_id.clone()).or_default();
        if live.awaited.len() >= AWAITED_MAX {
            return self.answer_join_error(ticket, GroupError::GroupMaxSizeReached, "");
        }
        live.awaited.insert(join.fresh_member_id.clone(), awaited);
        self.answer_join_error(ticket, GroupError::MemberIdRequired, &join.fresh_member_id);
        self.file(&join.group_id);
    }

    pub(super) fn sync(
        &mut self,
        now: Instant,
        ticket: Ticket,
        sync: SyncGroup,
        metadata: &dyn Metadata,
    ) {
        let group_id = sync.group_id;
        let sync = Sync {
            member: sync.member_id,
            instance: sync.instance_id,
            generation: sync.generation,
            protocol_type: sync.protocol_type,
            protocol: sync.protocol,
            assignments: sync.assignments,
        };
        let Some(group) = metadata.groups().get(&group_id) else {
            return self.answer(ticket, GroupReply::Sync(Err(GroupError::UnknownMemberId)));
        };
        if let Err(refusal) = group.check_sync(&sync) {
            return self.answer(ticket, GroupReply::Sync(Err(error_of(refusal))));
        }
        self.hear(now, &group_id, group, &sync.member);
        let live = self.groups.entry(group_id.clone()).or_default();
        live.unsynced.remove(&sync.member);
        if live.unsynced.is_empty() {
            live.sync_deadline = None;
        }
        if group.phase() == Phase::Stable {
            return self.answer(ticket, GroupReply::Sync(Ok(synced(group, &sync.member))));
        }
        if group.leader() == Some(sync.member.as_str()) {
            if !self.has_room_for_assignments(metadata, group, &sync) {
                let error = GroupError::GroupMaxSizeReached;
                return self.answer(ticket, GroupReply::Sync(Err(error)));
            }
            let parked = Parked {
                ticket,
                instance: sync.instance.clone(),
                generation: sync.generation,
            };
            let purpose = Purpose::Sync {
                member: sync.member.clone(),
                parked,
            };
            return self.propose(now, group_id, Action::Sync(sync), purpose);
        }
        let parked = Parked {
            ticket,
            instance: sync.instance,
            generation: sync.generation,
        };
        self.park_sync(&group_id, sync.member, parked);
    }

    /// Lets a sync wait; a newer one of the same member takes the place of an older.
    pub(super) fn park_sync(&mut self, group_id: &str, member: String, parked: Parked) {
        self.effects.push(Effect::Parked {
            ticket: parked.ticket,
        });
        let live = self.groups.entry(group_id.to_owned()).or_default();
        if let Some(older) = live.syncs.insert(member, parked) {
            let error = GroupError::RebalanceInProgress;
            self.answer(older.ticket, GroupReply::Sync(Err(error)));
        }
    }

    pub(super) fn heartbeat(
        &mut self,
        now: Instant,
        ticket: Ticket,
        heartbeat: &Heartbeat,
        metadata: &dyn Metadata,
    ) {
        let group = metadata.groups().get(&heartbeat.group_id);
        let instance = heartbeat.instance_id.as_deref();
        let result = match group {
            None => Err(GroupError::UnknownMemberId),
            Some(group) => group
                .heartbeat(&heartbeat.member_id, instance, heartbeat.generation)
                .map_err(error_of),
        };
        if let Some(group) = group
            && matches!(result, Ok(()) | Err(GroupError::RebalanceInProgress))
        {
            self.hear(now, &heartbeat.group_id, group, &heartbeat.member_id);
        }
        self.answer(ticket, GroupReply::Heartbeat(result));
    }

    /// A sign of life: the member's session begins anew.
    pub(super) fn hear(&mut self, now: Instant, group_id: &str, group: &Group, member_id: &str) {
        let Some(member) = group.member(member_id) else {
            return;
        };
        let Some(live) = self.groups.get_mut(group_id) else {
            return;
        };
        let Some(session) = live.sessions.get_mut(member_id) else {
            return;
        };
        session.heard = true;
        session.deadline = session.deadline.max(now + session_timeout(member));
        if member.silent && live.listen_until.is_none() {
            live.listen_until = Some(now + HEARD_DELAY);
            self.file(group_id);
        }
    }

    pub(super) fn leave(
        &mut self,
        now: Instant,
        ticket: Ticket,
        leave: LeaveGroup,
        metadata: &dyn Metadata,
    ) {
        let group_id = leave.group_id;
        let mut results = Vec::new();
        let mut leaving = Vec::new();
        let mut live = self.groups.get_mut(&group_id);
        for member in leave.members {
            let awaited = member.instance_id.is_none()
                && live
                    .as_deref_mut()
                    .is_some_and(|live| live.awaited.remove(&member.member_id).is_some());
            let result = if awaited {
                Ok(())
            } else {
                Err(GroupError::UnknownMemberId)
            };
            if !awaited {
                leaving.push((
                    results.len(),
                    Leaving {
                        member: member.member_id.clone(),
                        instance: member.instance_id.clone(),
                    },
                ));
            }
            results.push(LeftMember {
                member_id: member.member_id,
                instance_id: member.instance_id,
                result,
            });
        }
        let has_members = metadata
            .groups()
            .get(&group_id)
            .is_some_and(|group| group.members().len() > 0);
        if has_members && !leaving.is_empty() {
            let (rows, members) = leaving.into_iter().unzip();
            let purpose = Purpose::Leave {
                ticket,
                results,
                rows,
                repeated: false,
            };
            self.propose(now, group_id.clone(), Action::Leave(members), purpose);
        } else {
            self.answer(ticket, GroupReply::Leave(Ok(results)));
        }
        // Whoever was only waiting for an id that is given back need wait no longer.
        self.settle(now, &group_id, metadata);
    }
}

impl Live {
    /// Lets a join wait; gives back an older one of the same member, whose place it takes.
    pub(super) fn park_join(&mut self, member: String, parked: Parked) -> Option<Parked> {
        self.joins.insert(member, parked)
    }
}

fn accepts(group: Option<&Group>, protocol_type: &str, protocols: &[Protocol]) -> bool {
    group.map_or_else(
        || Group::default().accepts(protocol_type, protocols),
        |group| group.accepts(protocol_type, protocols),
    )
}

fn protocols_of(protocols: &[GroupProtocol]) -> Vec<Protocol> {
    let convert = |protocol: &GroupProtocol| Protocol {
        name: protocol.name.clone(),
        metadata: protocol.metadata.clone(),
    };
    protocols.iter().map(convert).collect()
}

/// What a member of a stable group is told.
pub(super) fn synced(group: &Group, member: &str) -> SyncedGroup {
    let synced = group.synced(member);
    SyncedGroup {
        protocol_type: synced.protocol_type,
        protocol: synced.protocol,
        assignment: synced.assignment,
    }
}
