//! Requests of members: join, sync, heartbeat, leave. Must not decide what is true of the group.

use std::time::Duration;

use host::clock::Instant;
use meta::group::{Action, Command, Group, Leaving, Phase, Protocol, Refusal, Sync};
use rpc::group::{GroupError, GroupReply, Heartbeat, JoinGroup};

use super::awaited::AWAITED_TIME_MAX;
use super::live::Parked;
use super::proposals::Purpose;
use super::settle::NOBODY;
use super::{Coordinator, Effect, Metadata, Ticket};

impl Coordinator {
    pub(super) fn join(
        &mut self,
        now: Instant,
        ticket: Ticket,
        asked: JoinGroup,
        metadata: &dyn Metadata,
    ) {
        let JoinGroup {
            group: id,
            mut join,
            fresh_member,
            id_required,
        } = asked;
        let member = join.member.clone();
        let Some(session) = self.session_in_range(join.session_timeout_millis) else {
            let error = GroupError::InvalidSessionTimeout;
            return self.answer_join_error(ticket, error, &member);
        };
        let group = metadata.groups().get(&id);
        let fresh = member.is_empty();
        if fresh && id_required && join.instance.is_none() {
            if !accepts(group, &join.protocol_type, &join.protocols) {
                let error = Refusal::InconsistentGroupProtocol.into();
                return self.answer_join_error(ticket, error, "");
            }
            self.give_id(now, &id, &fresh_member, session, metadata);
            let error = GroupError::MemberIdRequired;
            return self.answer_join_error(ticket, error, &fresh_member);
        }
        if fresh {
            join.member = fresh_member;
        }
        if join.member.is_empty() {
            let error = Refusal::UnknownMemberId.into();
            return self.answer_join_error(ticket, error, "");
        }
        let live = self.groups.get(&id);
        let awaited = live.is_some_and(|live| live.awaited.contains(&join.member));
        if let Some(group) = group {
            self.hear(now, &id, group, &join.member);
        }
        join.admitted = fresh || awaited;
        join.members_max = self.settings.members_max;
        let command = Command {
            group: id,
            action: Action::Join(join),
        };
        if !self.has_room(metadata, &command) {
            return self.answer_join_error(ticket, GroupError::NoRoom, &member);
        }
        self.propose(now, command, Purpose::Join { ticket, member });
    }

    fn session_in_range(&self, millis: u32) -> Option<Duration> {
        let session = Duration::from_millis(millis.into());
        let range = self.settings.session_timeout_min..=self.settings.session_timeout_max;
        range.contains(&session).then_some(session)
    }

    /// Awaits a member with an id that it is told to join with: a client that never sees its
    /// answer leaves nothing behind in the group (KIP-394).
    fn give_id(
        &mut self,
        now: Instant,
        id: &str,
        member: &str,
        session: Duration,
        metadata: &dyn Metadata,
    ) {
        self.stop_awaiting(id, member);
        let serial = self.awaited.give(id, member);
        let deadline = now + session.min(AWAITED_TIME_MAX);
        let live = self.groups.entry(id.to_owned()).or_default();
        live.awaited.insert(member, deadline, serial);
        self.file(id);
        while let Some(oldest) = self.awaited.superfluous() {
            let (id, member) = (oldest.group.clone(), oldest.member.clone());
            self.stop_awaiting(&id, &member);
            self.settle(now, &id, &NOBODY, metadata);
        }
    }

    /// True if an id was awaited until now.
    pub(super) fn stop_awaiting(&mut self, id: &str, member: &str) -> bool {
        let live = self.groups.get_mut(id);
        let serial = live.and_then(|live| live.awaited.remove(member));
        if let Some(serial) = serial {
            self.awaited.release(serial);
        }
        serial.is_some()
    }

    pub(super) fn sync(
        &mut self,
        now: Instant,
        ticket: Ticket,
        group_id: String,
        sync: Sync,
        metadata: &dyn Metadata,
    ) {
        let Some(group) = metadata.groups().get(&group_id) else {
            let error = Refusal::UnknownMemberId.into();
            return self.answer(ticket, GroupReply::Sync(Err(error)));
        };
        if let Err(refusal) = group.check_sync(&sync) {
            return self.answer(ticket, GroupReply::Sync(Err(refusal.into())));
        }
        self.hear(now, &group_id, group, &sync.member);
        let live = self.groups.entry(group_id.clone()).or_default();
        live.has_synced(&sync.member);
        if group.phase() == Phase::Stable {
            return self.answer(ticket, GroupReply::Sync(Ok(group.synced(&sync.member))));
        }
        let parked = Parked {
            ticket,
            instance: sync.instance.clone(),
            generation: sync.generation,
        };
        let member = sync.member.clone();
        if group.leader() != Some(member.as_str()) {
            return self.park_sync(&group_id, member, parked);
        }
        let command = Command {
            group: group_id,
            action: Action::Sync(sync),
        };
        if !self.has_room(metadata, &command) {
            // Of the codes that make a member join again, the one that it gives time by.
            let error = GroupError::CoordinatorNotAvailable;
            return self.answer(ticket, GroupReply::Sync(Err(error)));
        }
        self.propose(now, command, Purpose::Sync { member, parked });
    }

    /// Lets a sync wait; a newer one of the same member takes the place of an older.
    pub(super) fn park_sync(&mut self, group_id: &str, member: String, parked: Parked) {
        self.effects.push(Effect::Parked {
            ticket: parked.ticket,
        });
        let live = self.groups.entry(group_id.to_owned()).or_default();
        if let Some(older) = live.syncs.insert(member, parked) {
            let error = GroupError::Refused(Refusal::RebalanceInProgress);
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
        let group = metadata.groups().get(&heartbeat.group);
        let instance = heartbeat.instance.as_deref();
        let result = match group {
            None => Err(GroupError::Refused(Refusal::UnknownMemberId)),
            Some(group) => group
                .heartbeat(&heartbeat.member, instance, heartbeat.generation)
                .map_err(GroupError::from),
        };
        if let Some(group) = group
            && matches!(
                result,
                Ok(()) | Err(GroupError::Refused(Refusal::RebalanceInProgress))
            )
        {
            self.hear(now, &heartbeat.group, group, &heartbeat.member);
        }
        self.answer(ticket, GroupReply::Heartbeat(result));
    }

    /// A sign of life: the member's session begins anew.
    pub(super) fn hear(&mut self, now: Instant, group_id: &str, group: &Group, member_id: &str) {
        let Some(member) = group.member(member_id) else {
            return;
        };
        if let Some(live) = self.groups.get_mut(group_id) {
            live.hear(now, member_id, member);
            self.file(group_id);
        }
    }

    pub(super) fn leave(
        &mut self,
        now: Instant,
        ticket: Ticket,
        id: String,
        members: Vec<Leaving>,
        metadata: &dyn Metadata,
    ) {
        let mut results = Vec::new();
        let mut leaving = Vec::new();
        for member in members {
            if member.instance.is_none() && self.stop_awaiting(&id, &member.member) {
                results.push(Ok(()));
            } else {
                leaving.push((results.len(), member));
                results.push(Err(Refusal::UnknownMemberId.into()));
            }
        }
        let has_members = metadata
            .groups()
            .get(&id)
            .is_some_and(|group| group.members().len() > 0);
        if has_members && !leaving.is_empty() {
            let (rows, members) = leaving.into_iter().unzip();
            let purpose = Purpose::Leave {
                ticket,
                results,
                rows,
                repeated: false,
            };
            let command = Command {
                group: id.clone(),
                action: Action::Leave(members),
            };
            self.propose(now, command, purpose);
        } else {
            self.answer(ticket, GroupReply::Leave(Ok(results)));
        }
        // Whoever was only waiting for an id that is given back need wait no longer.
        self.settle(now, &id, &NOBODY, metadata);
    }
}

fn accepts(group: Option<&Group>, protocol_type: &str, protocols: &[Protocol]) -> bool {
    group.map_or_else(
        || Group::default().accepts(protocol_type, protocols),
        |group| group.accepts(protocol_type, protocols),
    )
}
