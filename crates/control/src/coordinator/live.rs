//! What the leader keeps of one group in memory: deadlines and requests that wait, brought in line
//! with the group's state after every change. Must not know proposals, or what is decided when a
//! deadline is over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::clock::Instant;
use meta::group::{Action, Group, Member, Phase, Refusal, Silent, Touched};
use rpc::group::{GroupReply, JoinRefusal, JoinedGroup};

use super::awaited::Serial;
use super::silence::{self, Hearing, Look, News};
use super::timed::Timed;
use super::{Settings, Ticket};

/// A member that has just joined may be gone before it learns that it is a member, and then
/// sends no heartbeats that could stop: it is out after this time without an answer, as in Kafka.
const FRESH_MEMBER_TIMEOUT: Duration = Duration::from_secs(5 * 60);

/// Time after which what was proposed because a deadline was over is proposed again.
pub(super) const RETRY: Duration = Duration::from_secs(1);

/// The memory of one group.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Phase and generation that timers and waiting requests were last brought in line with.
    seen: Option<(Phase, i32)>,
    /// By member id, for every member.
    sessions: Timed<Session>,
    /// Member ids that were given out and are awaited to join.
    pub(super) awaited: Timed<Serial>,
    /// Joins that wait for the joining phase to complete, by member id.
    pub(super) joins: BTreeMap<String, Parked>,
    /// Syncs that wait for the leader's assignments, by member id.
    pub(super) syncs: BTreeMap<String, Parked>,
    /// Members of the generation that have not synced.
    unsynced: BTreeSet<String>,
    /// When those are out.
    sync_deadline: Option<Instant>,
    /// The joining phase that goes on.
    joining: Option<Joining>,
    /// The completion of the joining phase is proposed.
    completing: bool,
    /// When it is looked next which members are silent.
    look_at: Option<Instant>,
    /// Where the group is filed among those that are due.
    pub(super) filed: Option<Instant>,
}

/// The session of a member.
#[derive(Debug)]
struct Session {
    /// The member has not been told yet that it is one, so it may be gone without a trace; not
    /// even a request that waits proves that it lives.
    fresh: bool,
    hearing: Hearing,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) ticket: Ticket,
    pub(super) instance: Option<String>,
    pub(super) generation: i32,
}

/// The deadline of a joining phase.
#[derive(Debug)]
struct Joining {
    deadline: Instant,
    /// The group was empty: it waits for more members even if all have joined.
    initial: Option<InitialDelay>,
}

/// How the delay of a first joining phase goes on.
#[derive(Debug)]
struct InitialDelay {
    /// What is left of the rebalance timeout after this delay.
    remaining: Duration,
    /// A member came during this delay.
    grew: bool,
}

/// A request that need wait no longer, and its answer.
pub(super) type Answered = (Ticket, GroupReply);

impl Live {
    /// The memory of a new leader: all members have their full session before them, but for those of which it is noted that
    /// they were silent already.
    pub(super) fn taken_over(now: Instant, ticks_millis: u64, group: &Group) -> Live {
        let mut live = Live {
            look_at: Some(silence::next_look(now)),
            ..Live::default()
        };
        for (id, member) in group.members() {
            let silent_for = member.silent_since.map(|since| {
                let silent_millis = ticks_millis.saturating_sub(since);
                Duration::from_millis(silent_millis)
            });
            let left = silence::left(session_timeout(member), silent_for);
            let session = Session {
                fresh: false,
                hearing: Hearing::listening(now),
            };
            live.sessions.insert(id, now + left, session);
        }
        live
    }

    /// The next time at which something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let joining = self.joining.as_ref().map(|joining| joining.deadline);
        let deadlines = [
            self.sessions.next_deadline(),
            self.awaited.next_deadline(),
            joining,
            self.sync_deadline,
            self.look_at,
        ];
        deadlines.into_iter().flatten().min()
    }

    /// True if there is nothing to remember.
    pub(super) fn is_idle(&self) -> bool {
        self.next_deadline().is_none() && self.joins.is_empty() && self.syncs.is_empty()
    }

    /// Brings sessions and timers in line with the group, and gives the requests that need wait no
    /// longer. It looks at the members touched alone, but at all of them in another phase or
    /// generation: so thousands can join one after the other.
    pub(super) fn follow(
        &mut self,
        now: Instant,
        group: &Group,
        touched: &Touched,
        settings: &Settings,
    ) -> Vec<Answered> {
        let phase = Some((group.phase(), group.generation()));
        match touched {
            Touched::Members(members) if self.seen == phase => {
                for member in members {
                    self.follow_member(now, member, group);
                }
                self.release_all(members, group)
            }
            _ => {
                self.follow_all(now, group);
                if self.seen != phase {
                    self.seen = phase;
                    self.enter_phase(now, group, settings);
                }
                let waiting = self.joins.keys().chain(self.syncs.keys());
                let waiting: Vec<String> = waiting.cloned().collect();
                self.release_all(&waiting, group)
            }
        }
    }

    fn follow_all(&mut self, now: Instant, group: &Group) {
        let known = self.sessions.iter().map(|(id, _)| id);
        let gone: Vec<String> = known
            .filter(|id| group.member(id).is_none())
            .map(str::to_owned)
            .collect();
        for member in gone {
            self.follow_member(now, &member, group);
        }
        for (id, _) in group.members() {
            self.follow_member(now, id, group);
        }
    }

    /// A member has a session, and who is none has not.
    fn follow_member(&mut self, now: Instant, id: &str, group: &Group) {
        match group.member(id) {
            None => {
                self.sessions.remove(id);
                self.unsynced.remove(id);
            }
            Some(member) if !self.sessions.contains(id) => {
                let session = Session {
                    fresh: false,
                    hearing: Hearing::heard(now),
                };
                self.sessions
                    .insert(id, now + session_timeout(member), session);
                self.look_at.get_or_insert(silence::next_look(now));
            }
            Some(_) => {}
        }
    }

    /// The timers of the phase start, those of the one before stop.
    fn enter_phase(&mut self, now: Instant, group: &Group, settings: &Settings) {
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
                        session.fresh = false;
                    }
                    let deadline = now + session_timeout(member);
                    self.sessions.reschedule(id, |_| deadline);
                }
            }
        }
    }

    fn release_all(&mut self, members: &[String], group: &Group) -> Vec<Answered> {
        let release = |member: &String| self.release(member, group);
        members.iter().flat_map(release).flatten().collect()
    }

    /// The requests of a member that need wait no longer.
    fn release(&mut self, member: &str, group: &Group) -> [Option<Answered>; 2] {
        let join = self.joins.get(member);
        let join = join.and_then(|parked| {
            let reply = joined(member, parked, group)?;
            Some((parked.ticket, GroupReply::Join(reply)))
        });
        if join.is_some() {
            self.joins.remove(member);
        }
        let sync = self.syncs.get(member);
        let sync = sync.and_then(|parked| Some((parked.ticket, synced(member, parked, group)?)));
        if sync.is_some() {
            self.syncs.remove(member);
        }
        [join, sync]
    }

    /// True, once in a joining phase, if that is over before its deadline: everybody has joined,
    /// and no id that was given out is awaited.
    pub(super) fn completes(&mut self, group: &Group) -> bool {
        let joining = self.joining.as_ref();
        let complete = joining.is_some_and(|joining| joining.initial.is_none())
            && !self.completing
            && self.awaited.is_empty()
            && group.all_joined();
        self.completing |= complete;
        complete
    }

    /// The completion was proposed and did nothing: nobody has joined who could lead.
    pub(super) fn completion_was_postponed(&mut self, deadline: Instant) {
        self.completing = false;
        self.joining = Some(Joining {
            deadline,
            initial: None,
        });
    }

    /// The completion was proposed and applied.
    pub(super) fn completion_was_applied(&mut self) {
        self.completing = false;
    }

    /// The completion was proposed in vain.
    pub(super) fn completion_failed(&mut self, now: Instant) {
        self.completing = false;
        if let Some(joining) = &mut self.joining {
            joining.deadline = now + RETRY;
            joining.initial = None;
        }
    }

    /// A member is part of the joining phase that goes on; it was `admitted` if it is new.
    pub(super) fn has_joined(&mut self, now: Instant, id: &str, group: &Group, admitted: bool) {
        let Some(member) = group.member(id) else {
            return;
        };
        let timeout = if admitted {
            FRESH_MEMBER_TIMEOUT
        } else {
            session_timeout(member)
        };
        let session = Session {
            fresh: admitted,
            hearing: Hearing::heard(now),
        };
        self.sessions.insert(id, now + timeout, session);
        let joining = self.joining.as_mut();
        if let Some(delay) = joining.and_then(|joining| joining.initial.as_mut()) {
            delay.grew |= admitted && group.members().len() > 1;
        }
    }

    /// A member asks for its assignment.
    pub(super) fn has_synced(&mut self, member: &str) {
        self.unsynced.remove(member);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
    }

    /// A sign of life: the member's session begins anew.
    pub(super) fn hear(&mut self, now: Instant, id: &str, member: &Member) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.hearing.hear(now);
        let until = now + session_timeout(member);
        self.sessions.reschedule(id, |deadline| deadline.max(until));
    }

    /// Moves every deadline before `until` to it, but for ids that are awaited. Nobody was heard meanwhile, which says nothing.
    pub(super) fn put_off(&mut self, until: Instant) {
        for (_, session) in self.sessions.iter_mut() {
            session.hearing.listen_from(until);
        }
        for member in self.sessions.over(until) {
            self.sessions.reschedule(&member, |_| until);
        }
        let joining = self.joining.iter_mut().map(|joining| &mut joining.deadline);
        let others = self.sync_deadline.iter_mut().chain(self.look_at.iter_mut());
        for deadline in joining.chain(others) {
            *deadline = (*deadline).max(until);
        }
    }

    /// Members whose time is over. Their deadlines are put off, so that they come up again if
    /// the proposal fails.
    pub(super) fn expired(&mut self, now: Instant, group: &Group) -> Vec<String> {
        let mut expired = BTreeSet::new();
        for id in self.sessions.over(now) {
            let waits = self.joins.contains_key(&*id) || self.syncs.contains_key(&*id);
            let fresh = self
                .sessions
                .get_mut(&id)
                .is_some_and(|session| session.fresh);
            let timeout = if waits && !fresh {
                group.member(&id).map_or(RETRY, session_timeout)
            } else {
                expired.insert(id.to_string());
                RETRY
            };
            self.sessions.reschedule(&id, |_| now + timeout);
        }
        if self.sync_deadline.is_some_and(|deadline| deadline <= now) {
            self.sync_deadline = (!self.unsynced.is_empty()).then_some(now + RETRY);
            expired.extend(self.unsynced.iter().cloned());
        }
        expired.into_iter().collect()
    }

    /// True if the joining phase is to be completed now. A first one is prolonged as long as
    /// members keep coming, up to the rebalance timeout.
    pub(super) fn joining_is_over(&mut self, now: Instant, initial_delay: Duration) -> bool {
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
        !std::mem::replace(&mut self.completing, true)
    }

    /// Who is silent, and who was and is not, of which the journal is to know; nothing if it knows. Looked for once a second, and
    /// by a leader that hands over, which notes even short silence.
    pub(super) fn silence(&mut self, now: Instant, group: &Group, look: Look) -> Option<Action> {
        if look == Look::Due {
            self.look_at.take_if(|at| *at <= now)?;
            self.look_at = Some(silence::next_look(now));
        }
        let (mut silent, mut heard) = (Vec::new(), Vec::new());
        for (id, session) in self.sessions.iter_mut() {
            let Some(member) = group.member(id) else {
                continue;
            };
            if self.joins.contains_key(id) || self.syncs.contains_key(id) {
                session.hearing.hear(now);
            }
            let is_noted = member.silent_since.is_some();
            let full = session_timeout(member);
            match session.hearing.news(now, look, full, is_noted) {
                Some(News::Silent(for_millis)) => silent.push(Silent {
                    member: id.to_owned(),
                    for_millis,
                }),
                Some(News::Heard) => heard.push(id.to_owned()),
                None => {}
            }
        }
        let is_news = !silent.is_empty() || !heard.is_empty();
        is_news.then_some(Action::MarkSilence { silent, heard })
    }
}

/// The answer to a join, unless it has to wait on.
fn joined(
    member: &str,
    parked: &Parked,
    group: &Group,
) -> Option<Result<JoinedGroup, JoinRefusal>> {
    if group.member(member).is_none() {
        return Some(Err(JoinRefusal {
            error: departed(group, parked).into(),
            member: member.to_owned(),
        }));
    }
    let is_over = group.generation() != parked.generation;
    is_over.then(|| {
        Ok(JoinedGroup {
            member: member.to_owned(),
            joined: group.joined(member),
        })
    })
}

/// The answer to a sync, unless it has to wait on.
fn synced(member: &str, parked: &Parked, group: &Group) -> Option<GroupReply> {
    let result = match group.phase() {
        _ if group.member(member).is_none() => Err(departed(group, parked)),
        _ if group.generation() != parked.generation => Err(Refusal::RebalanceInProgress),
        Phase::CompletingRebalance => return None,
        Phase::Stable => Ok(group.synced(member)),
        Phase::Empty | Phase::PreparingRebalance => Err(Refusal::RebalanceInProgress),
    };
    Some(GroupReply::Sync(result.map_err(Into::into)))
}

/// Why a member that waits is none any more.
fn departed(group: &Group, parked: &Parked) -> Refusal {
    let instance = parked.instance.as_deref();
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

/// A member's session timeout.
fn session_timeout(member: &Member) -> Duration {
    Duration::from_millis(member.session_timeout_millis.into())
}

/// The time that members have to join, or to sync: the longest that one of them asks for.
pub(super) fn rebalance_timeout(group: &Group) -> Duration {
    Duration::from_millis(group.rebalance_timeout_millis().into())
}
