//! Deadlines: which group is due when, and what is proposed when a time is over. Must not know
//! how timers work.

use host::clock::Instant;
use meta::group::{Action, Command};

use super::live::RETRY;
use super::proposals::Purpose;
use super::settle::NOBODY;
use super::silence::Look;
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
        let stalled = self.is_stalled(now);
        while let Some((at, id)) = self.due.first().cloned() {
            if at > now {
                break;
            }
            self.due.pop_first();
            if let Some(live) = self.groups.get_mut(&id) {
                live.filed = None;
            }
            self.lapse(now, &id, stalled, metadata);
            self.settle(now, &id, &NOBODY, metadata);
        }
    }

    /// Notes which members are silent, for the next leader.
    pub(super) fn note_silence(&mut self, now: Instant, metadata: &dyn Metadata) {
        let mut commands = Vec::new();
        for (id, live) in &mut self.groups {
            let group = metadata.groups().get(id);
            if let Some(action) = group.and_then(|group| live.silence(now, group, Look::Last)) {
                let group = id.clone();
                commands.push(Command { group, action });
            }
        }
        for command in commands {
            self.propose(now, command, Purpose::Upkeep);
        }
    }

    /// What a group's deadlines that are over ask for.
    fn lapse(&mut self, now: Instant, id: &str, stalled: bool, metadata: &dyn Metadata) {
        let initial_delay = self.settings.initial_rebalance_delay;
        let Some(live) = self.groups.get_mut(id) else {
            return;
        };
        for member in live.awaited.over(now) {
            if let Some(serial) = live.awaited.remove(&member) {
                self.awaited.release(serial);
            }
        }
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
            let generation = group.generation();
            actions.push((Action::CompleteJoin { generation }, Purpose::CompleteJoin));
        }
        let silence = live.silence(now, group, Look::Due);
        actions.extend(silence.map(|action| (action, Purpose::Upkeep)));
        for (action, purpose) in actions {
            let group = id.to_owned();
            self.propose(now, Command { group, action }, purpose);
        }
    }
}
