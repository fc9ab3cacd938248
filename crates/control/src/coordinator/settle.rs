//! Brings the memory of a group in line with its state after any change: who waits is answered,
//! timers start and stop. It looks at the state alone, not at how it came about, so that no
//! sequence of commands can leave a request or a group behind. Must not know who caused it.

use host::clock::Instant;
use meta::group::{Action, Group, Phase, Refusal};
use rpc::group::{GroupReply, JoinRefusal, JoinedGroup};

use super::live::{InitialDelay, Joining, Live, Session, rebalance_timeout, session_timeout};
use super::proposals::Purpose;
use super::{Coordinator, Metadata, Settings, Ticket};

impl Coordinator {
    pub(super) fn settle(&mut self, now: Instant, id: &str, metadata: &dyn Metadata) {
        if !self.leading {
            return;
        }
        match metadata.groups().get(id) {
            Some(group) if group.phase() != Phase::Empty => {
                let live = self.groups.entry(id.to_owned()).or_default();
                live.follow(now, group, &self.settings);
                let answers = live.take_answers(group);
                let complete = live.is_complete(group);
                live.completing |= complete;
                for (ticket, reply) in answers {
                    self.answer(ticket, reply);
                }
                if complete {
                    self.propose_completion(now, id, group.generation());
                }
            }
            _ => self.settle_empty(id),
        }
        self.file(id);
        if self.groups.get(id).is_some_and(Live::is_idle) {
            self.forget(id);
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

    fn propose_completion(&mut self, now: Instant, id: &str, generation: i32) {
        let action = Action::CompleteJoin { generation };
        self.propose(now, id.to_owned(), action, Purpose::CompleteJoin);
    }
}

impl Live {
    /// Sessions, and the timers of the phase.
    fn follow(&mut self, now: Instant, group: &Group, settings: &Settings) {
        self.sessions
            .retain(|member, _| group.member(member).is_some());
        self.unsynced
            .retain(|member| group.member(member).is_some());
        for (id, member) in group.members() {
            if !self.sessions.contains_key(id) {
                let deadline = now + session_timeout(member);
                let session = Session {
                    deadline,
                    fresh: false,
                    heard: true,
                };
                self.sessions.insert(id.to_owned(), session);
            }
        }
        let phase = (group.phase(), group.generation());
        if self.seen == Some(phase) {
            return;
        }
        self.seen = Some(phase);
        self.joining = None;
        self.completing = false;
        match group.phase() {
            Phase::Empty | Phase::Stable => {}
            Phase::PreparingRebalance => {
                self.unsynced.clear();
                self.sync_deadline = None;
                self.joining = Some(begin_joining(now, group, settings));
            }
            Phase::CompletingRebalance => {
                self.unsynced = group.members().map(|(id, _)| id.to_owned()).collect();
                self.sync_deadline = Some(now + rebalance_timeout(group));
                for (id, member) in group.members() {
                    if let Some(session) = self.sessions.get_mut(id) {
                        session.deadline = now + session_timeout(member);
                        session.fresh = false;
                    }
                }
            }
        }
    }

    /// Requests that need wait no longer, with their answers.
    fn take_answers(&mut self, group: &Group) -> Vec<(Ticket, GroupReply)> {
        let mut answers = Vec::new();
        self.joins.retain(|member, parked| {
            let reply = match group.member(member) {
                None => Err(JoinRefusal {
                    error: departed(group, parked.instance.as_deref()).into(),
                    member: member.clone(),
                }),
                Some(_) if group.generation() == parked.generation => return true,
                Some(_) => Ok(JoinedGroup {
                    member: member.clone(),
                    joined: group.joined(member),
                }),
            };
            answers.push((parked.ticket, GroupReply::Join(reply)));
            false
        });
        self.syncs.retain(|member, parked| {
            let reply = match group.phase() {
                _ if group.member(member).is_none() => {
                    Err(departed(group, parked.instance.as_deref()).into())
                }
                _ if group.generation() != parked.generation => {
                    Err(Refusal::RebalanceInProgress.into())
                }
                Phase::CompletingRebalance => return true,
                Phase::Stable => Ok(group.synced(member)),
                Phase::Empty | Phase::PreparingRebalance => {
                    Err(Refusal::RebalanceInProgress.into())
                }
            };
            answers.push((parked.ticket, GroupReply::Sync(reply)));
            false
        });
        answers
    }

    /// True if the joining phase is over before its deadline: everybody has joined, and no id
    /// that was given out is awaited.
    fn is_complete(&self, group: &Group) -> bool {
        let joining = self.joining.as_ref();
        joining.is_some_and(|joining| joining.initial.is_none())
            && !self.completing
            && self.awaited.is_empty()
            && group.all_joined()
    }
}

/// Why a member that waits is none any more.
fn departed(group: &Group, instance: Option<&str>) -> Refusal {
    let replaced = instance.is_some_and(|instance| group.instance_holder(instance).is_some());
    if replaced {
        Refusal::FencedInstanceId
    } else {
        Refusal::UnknownMemberId
    }
}

fn begin_joining(now: Instant, group: &Group, settings: &Settings) -> Joining {
    let timeout = rebalance_timeout(group);
    let delay = settings.initial_rebalance_delay.min(timeout);
    if !group.is_initial() || delay.is_zero() {
        return Joining {
            deadline: now + timeout,
            initial: None,
        };
    }
    let remaining = timeout.saturating_sub(delay);
    let grew = false;
    Joining {
        deadline: now + delay,
        initial: Some(InitialDelay { remaining, grew }),
    }
}
