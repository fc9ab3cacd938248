//! Brings the memory of a group in line with its state after any change: who waits is answered,
//! timers start and stop. It looks at the state alone, not at how it came about; events only say
//! which members need be looked at. Must not know who caused it.

use host::clock::Instant;
use meta::group::{Action, Command, Phase, Refusal, Touched};
use rpc::group::GroupReply;

use super::live::Live;
use super::proposals::Purpose;
use super::{Coordinator, Metadata};

/// No member is touched: the group is looked at as a whole.
pub(super) const NOBODY: Touched = Touched::Members(Vec::new());

impl Coordinator {
    pub(super) fn settle(
        &mut self,
        now: Instant,
        id: &str,
        touched: &Touched,
        metadata: &dyn Metadata,
    ) {
        if !self.leading {
            return;
        }
        match metadata.groups().get(id) {
            Some(group) if group.phase() != Phase::Empty => {
                let live = self.groups.entry(id.to_owned()).or_default();
                let answers = live.follow(now, group, touched, &self.settings);
                let complete = live.completes(group);
                for (ticket, reply) in answers {
                    self.answer(ticket, reply);
                }
                if complete {
                    let generation = group.generation();
                    let command = Command {
                        group: id.to_owned(),
                        action: Action::CompleteJoin { generation },
                    };
                    self.propose(now, command, Purpose::CompleteJoin);
                }
            }
            _ => self.settle_empty(id),
        }
        self.file(id);
        if self.groups.get(id).is_some_and(Live::is_idle) {
            self.forget(id);
        }
    }

    /// The groups may have become any others.
    pub(super) fn settle_all(&mut self, now: Instant, metadata: &dyn Metadata) {
        let known = self.groups.keys().cloned();
        let active = metadata.groups().iter();
        let active = active.filter(|(_, group)| group.members().len() > 0);
        let mut ids: Vec<String> = known.chain(active.map(|(id, _)| id.to_owned())).collect();
        ids.sort();
        ids.dedup();
        for id in ids {
            self.settle(now, &id, &Touched::All, metadata);
        }
    }

    /// Nobody is a member: nobody can wait, but for ids that are awaited.
    fn settle_empty(&mut self, id: &str) {
        let Some(live) = self.groups.get_mut(id) else {
            return;
        };
        let error = Refusal::UnknownMemberId.into();
        let gone = std::mem::take(live);
        live.awaited = gone.awaited;
        live.filed = gone.filed;
        for (member, parked) in gone.joins {
            self.answer_join_error(parked.ticket, error, &member);
        }
        for parked in gone.syncs.into_values() {
            self.answer(parked.ticket, GroupReply::Sync(Err(error)));
        }
    }
}
