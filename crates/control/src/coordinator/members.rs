//! Requests of members: join, sync, heartbeat, leave. Must not decide what is true of the group.

use std::time::Duration;

use host::clock::Instant;
use meta::group::{Action, Group, Leaving, Phase, Protocol, Refusal, Sync};
use rpc::group::{GroupError, GroupReply, Heartbeat, JoinGroup};

use super::live::{Live, Parked, session_timeout};
use super::proposals::Purpose;
use super::{Coordinator, Effect, Metadata, Ticket};

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
            let accepted = accepts(group, &join.protocol_type, &join.protocols);
            let has_room = self.has_room_for_id(metadata, &id, &fresh_member);
            let refusal = match (accepted, has_room) {
                (false, _) => Some(Refusal::InconsistentGroupProtocol),
                (true, false) => Some(Refusal::GroupMaxSizeReached),
                (true, true) => None,
            };
            return match refusal {
                Some(refusal) => self.answer_join_error(ticket, refusal.into(), ""),
                None => self.give_id(now, ticket, id, fresh_member, session),
            };
        }
        if fresh {
            join.member = fresh_member;
        }
        if join.member.is_empty() {
            let error = Refusal::UnknownMemberId.into();
            return self.answer_join_error(ticket, error, "");
        }
        let live = self.groups.get(&id);
        let awaited = live.is_some_and(|live| live.awaited.contains_key(&join.member));
        if let Some(group) = group {
            self.hear(now, &id, group, &join.member);
        }
        join.admitted = fresh || awaited;
        join.members_max = self.settings.members_max;
        if !self.has_room_for_member(metadata, group, &join) {
            let error = Refusal::GroupMaxSizeReached.into();
            return self.answer_join_error(ticket, error, &member);
        }
        let purpose = Purpose::Join { ticket, member };
        self.propose(now, id, Action::Join(join), purpose);
    }

    fn session_in_range(&self, millis: u32) -> Option<Duration> {
        let session = Duration::from_millis(millis.into());
        let range = self.settings.session_timeout_min..=self.settings.session_timeout_max;
        range.contains(&session).then_some(session)
    }

    /// Gives a member an id to join with: a client that never sees its answer leaves nothing
    /// behind in the group (KIP-394).
    fn give_id(
        &mut self,
        now: Instant,
        ticket: Ticket,
        id: String,
        member: String,
        session: Duration,
    ) {
        let awaited = self.awaited_bytes.awaited(&id, &member, now + session);
        let live = self.groups.entry(id.clone()).or_default();
        if live.awaited.len() >= AWAITED_MAX {
            let error = Refusal::GroupMaxSizeReached.into();
            return self.answer_join_error(ticket, error, "");
        }
        live.awaited.insert(member.clone(), awaited);
        self.answer_join_error(ticket, GroupError::MemberIdRequired, &member);
        self.file(&id);
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
        live.unsynced.remove(&sync.member);
        if live.unsynced.is_empty() {
            live.sync_deadline = None;
        }
        if group.phase() == Phase::Stable {
            return self.answer(ticket, GroupReply::Sync(Ok(group.synced(&sync.member))));
        }
        if group.leader() == Some(sync.member.as_str()) {
            if !self.has_room_for_assignments(metadata, group, &sync) {
                let error = GroupError::Refused(Refusal::GroupMaxSizeReached);
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
        id: String,
        members: Vec<Leaving>,
        metadata: &dyn Metadata,
    ) {
        let mut results = Vec::new();
        let mut leaving = Vec::new();
        let mut live = self.groups.get_mut(&id);
        for member in members {
            let awaited = member.instance.is_none()
                && live
                    .as_deref_mut()
                    .is_some_and(|live| live.awaited.remove(&member.member).is_some());
            if awaited {
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
            self.propose(now, id.clone(), Action::Leave(members), purpose);
        } else {
            self.answer(ticket, GroupReply::Leave(Ok(results)));
        }
        // Whoever was only waiting for an id that is given back need wait no longer.
        self.settle(now, &id, metadata);
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
