//! Deadlines: which group is due when, and what is proposed when a time is over. Must not know
//! how timers work.

use std::time::Duration;

use host::clock::Instant;
use meta::group::{Action, Group};

use super::live::{InitialDelay, Live, session_timeout};
use super::proposals::{Purpose, RETRY};
use super::{Coordinator, Effect, Metadata};

impl Coordinator {
    /// Files a group under its next deadline. One that has moved back is found when the earlier
    /// time comes: heartbeats need not file at all.
    pub(super) fn file(&mut self, id: &str) {
        let Some(live) = self.groups.get_mut(id) else {
            return;
        };
        let Some(next) = live.next_deadline() else {
            return;
        };
        if let Some(filed) = live.filed {
            if filed <= next {
                return;
            }
            self.due.remove(&(filed, id.to_owned()));
        }
        live.filed = Some(next);
        self.due.insert((next, id.to_owned()));
    }

    /// Drops the memory of a group.
    pub(super) fn forget(&mut self, id: &str) {
        if let Some(filed) = self.groups.remove(id).and_then(|live| live.filed) {
            self.due.remove(&(filed, id.to_owned()));
        }
    }

    /// Sets the timer if something is due before it.
    pub(super) fn arm(&mut self) {
        let Some((at, _)) = self.due.first() else {
            return;
        };
        if self.armed.is_none_or(|armed| *at < armed) {
            self.armed = Some(*at);
            self.effects.push(Effect::SetTimer { at: *at });
        }
    }

    /// Looks at every group that is due.
    pub(super) fn timer(&mut self, now: Instant, metadata: &dyn Metadata) {
        self.armed = None;
        while let Some((at, id)) = self.due.first().cloned() {
            if at > now {
                break;
            }
            self.due.pop_first();
            if let Some(live) = self.groups.get_mut(&id) {
                live.filed = None;
            }
            self.lapse(now, &id, metadata);
            self.settle(now, &id, metadata);
        }
    }

    /// What a group's deadlines that are over ask for.
    fn lapse(&mut self, now: Instant, id: &str, metadata: &dyn Metadata) {
        let initial_delay = self.settings.initial_rebalance_delay;
        let stalled = self.is_stalled(now);
        let Some(live) = self.groups.get_mut(id) else {
            return;
        };
        live.awaited.retain(|_, awaited| awaited.deadline > now);
        let Some(group) = metadata.groups().get(id) else {
            return;
        };
        if stalled {
            live.put_off(now + RETRY);
            return;
        }
        let mut actions = Vec::new();
        let expired = live.expired(now, group);
        if !expired.is_empty() {
            actions.push((Action::Expire(expired), Purpose::Upkeep));
        }
        if live.joining_is_over(now, initial_delay) {
            live.completing = true;
            let generation = group.generation();
            actions.push((Action::CompleteJoin { generation }, Purpose::CompleteJoin));
        }
        if live.listen_until.is_some_and(|until| until <= now) {
            live.listen_until = None;
            actions.extend(live.silence(group).map(|action| (action, Purpose::Upkeep)));
        }
        for (action, purpose) in actions {
            self.propose(now, id.to_owned(), action, purpose);
        }
    }
}

impl Live {
    /// Moves every deadline before `until` to it.
    fn put_off(&mut self, until: Instant) {
        let sessions = self
            .sessions
            .values_mut()
            .map(|session| &mut session.deadline);
        let joining = self.joining.iter_mut().map(|joining| &mut joining.deadline);
        let others = self
            .sync_deadline
            .iter_mut()
            .chain(self.listen_until.iter_mut());
        for deadline in sessions.chain(joining).chain(others) {
            *deadline = (*deadline).max(until);
        }
    }

    /// Members whose time is over. Their deadlines are put off, so that they come up again if
    /// the proposal fails.
    fn expired(&mut self, now: Instant, group: &Group) -> Vec<String> {
        let mut expired = Vec::new();
        for (id, session) in &mut self.sessions {
            if session.deadline > now {
                continue;
            }
            let waits = self.joins.contains_key(id) || self.syncs.contains_key(id);
            if waits && !session.fresh {
                let timeout = group.member(id).map_or(RETRY, session_timeout);
                session.deadline = now + timeout;
            } else {
                session.deadline = now + RETRY;
                expired.push(id.clone());
            }
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.sync_deadline = (!self.unsynced.is_empty()).then_some(now + RETRY);
            expired.extend(self.unsynced.iter().cloned());
        }
        expired.sort();
        expired.dedup();
        expired
    }

    /// True if the joining phase is to be completed now. A first one is prolonged as long as
    /// members keep coming, up to the rebalance timeout.
    fn joining_is_over(&mut self, now: Instant, initial_delay: Duration) -> bool {
        let completing = self.completing;
        let Some(joining) = self
            .joining
            .as_mut()
            .filter(|joining| joining.deadline <= now)
        else {
            return false;
        };
        if let Some(InitialDelay { remaining, grew }) = &mut joining.initial
            && *grew
            && !remaining.is_zero()
        {
            let delay = initial_delay.min(*remaining);
            *remaining -= delay;
            *grew = false;
            joining.deadline = now + delay;
            return false;
        }
        joining.deadline = now + RETRY;
        !completing
    }

    /// Who is silent, and who was and is not; nothing if that is known.
    fn silence(&self, group: &Group) -> Option<Action> {
        let mut silent = Vec::new();
        let mut heard = Vec::new();
        for (id, session) in &self.sessions {
            let noted = group.member(id).is_some_and(|member| member.silent);
            match (session.heard, noted) {
                (false, false) => silent.push(id.clone()),
                (true, true) => heard.push(id.clone()),
                (true, false) | (false, true) => {}
            }
        }
        let news = !silent.is_empty() || !heard.is_empty();
        news.then_some(Action::MarkSilence { silent, heard })
    }
}
