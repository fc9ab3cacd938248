//! Proposals that await their outcome, and what is answered then. Must not know how they are
//! appended.

use std::time::Duration;

use host::clock::Instant;
use meta::group::{
    Action, Command, Completion, Join, JoinOutcome, Refusal, Reply, SyncOutcome, Touched,
};
use rpc::group::{GroupError, GroupReply, JoinedGroup};

use super::live::{Parked, RETRY, rebalance_timeout};
use super::{Coordinator, Effect, Metadata, ProposalId, Ticket};

/// How often one command is proposed again while its outcome stays unknown.
const REPEATS_MAX: u32 = 3;

/// After this time without an outcome the journal counts as stalled.
const STALL: Duration = Duration::from_secs(2);

/// A proposal that awaits its outcome.
#[derive(Debug)]
pub(super) struct Proposed {
    command: Command,
    pub(super) purpose: Purpose,
    repeats: u32,
    since: Instant,
}

/// Why something was proposed.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A member joins; `member` is that of the request.
    Join { ticket: Ticket, member: String },
    /// The leader of the group brings its assignments.
    Sync { member: String, parked: Parked },
    /// Members leave: `rows` says which results the outcomes belong to.
    Leave {
        ticket: Ticket,
        results: Vec<Result<(), GroupError>>,
        rows: Vec<usize>,
        repeated: bool,
    },
    /// Offsets are committed: `rows` says which results the outcomes belong to.
    Commit {
        ticket: Ticket,
        results: Vec<Result<(), GroupError>>,
        rows: Vec<usize>,
    },
    /// A joining phase ends.
    CompleteJoin,
    /// Members' time ran out, or it is noted who is silent.
    Upkeep,
}

impl Proposed {
    /// True if a request waits for it.
    pub(super) fn has_ticket(&self) -> bool {
        !matches!(self.purpose, Purpose::CompleteJoin | Purpose::Upkeep)
    }
}

impl Coordinator {
    pub(super) fn propose(&mut self, now: Instant, command: Command, purpose: Purpose) {
        self.submit(Proposed {
            command,
            purpose,
            repeats: 0,
            since: now,
        });
    }

    fn submit(&mut self, proposed: Proposed) {
        let proposal = ProposalId(self.next_proposal);
        self.next_proposal += 1;
        let command = proposed.command.clone();
        self.proposed.insert(proposal, proposed);
        self.effects.push(Effect::Propose { proposal, command });
    }

    /// True if the journal has kept something waiting for long. Members cannot get through then,
    /// so their silence says nothing.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let proposed = self.proposed.values().map(|proposed| proposed.since);
        let deferred = self.deferred.values().map(|deferred| deferred.since);
        proposed
            .chain(deferred)
            .any(|since| now.since(since) >= STALL)
    }

    /// A proposal was applied: whoever waits for it is answered, or waits for the next step.
    pub(super) fn applied(
        &mut self,
        now: Instant,
        proposal: ProposalId,
        reply: Reply,
        metadata: &dyn Metadata,
    ) {
        let Some(proposed) = self.proposed.remove(&proposal) else {
            return;
        };
        let Command { group: id, action } = proposed.command;
        let waiting = who_may_wait(&action);
        match (proposed.purpose, action, reply) {
            (Purpose::Join { ticket, member }, Action::Join(join), Reply::Join(result)) => {
                self.join_applied(now, &id, (ticket, member), join, result, metadata);
            }
            (Purpose::Sync { member, parked }, _, Reply::Sync(result)) => {
                self.sync_applied(&id, member, parked, result);
            }
            (
                Purpose::Leave {
                    ticket,
                    results,
                    rows,
                    repeated,
                },
                _,
                Reply::Leave(outcomes),
            ) => {
                let results = left(results, &rows, &outcomes, repeated);
                self.answer(ticket, GroupReply::Leave(Ok(results)));
            }
            (
                Purpose::Commit {
                    ticket,
                    mut results,
                    rows,
                },
                _,
                Reply::Commit(result),
            ) => {
                let outcomes = match result {
                    Ok(outcomes) => outcomes,
                    Err(refusal) => vec![Err(refusal); rows.len()],
                };
                for (row, outcome) in rows.iter().zip(outcomes) {
                    results[*row] = outcome.map_err(GroupError::from);
                }
                self.answer(ticket, GroupReply::Commit(results));
            }
            (Purpose::CompleteJoin, _, Reply::CompleteJoin(completion)) => {
                self.completed(now, &id, completion, metadata);
            }
            (Purpose::Upkeep, ..) => {}
            // A reply of another kind than the command: nothing is known of the outcome.
            (purpose, ..) => self.refuse(purpose, GroupError::CoordinatorNotAvailable),
        }
        self.settle(now, &id, &Touched::Members(waiting), metadata);
    }

    fn join_applied(
        &mut self,
        now: Instant,
        id: &str,
        (ticket, member): (Ticket, String),
        join: Join,
        result: Result<JoinOutcome, Refusal>,
        metadata: &dyn Metadata,
    ) {
        self.stop_awaiting(id, &join.member);
        match result {
            Ok(JoinOutcome::Waits { generation }) => {
                let parked = Parked {
                    ticket,
                    instance: join.instance,
                    generation,
                };
                self.wait_for_join(now, id, join.member, parked, join.admitted, metadata);
            }
            Ok(JoinOutcome::Joined(joined)) => {
                let member = join.member;
                let reply = JoinedGroup { member, joined };
                self.answer(ticket, GroupReply::Join(Ok(reply)));
            }
            Err(refusal) => self.answer_join_error(ticket, refusal.into(), &member),
        }
    }

    fn sync_applied(
        &mut self,
        id: &str,
        member: String,
        parked: Parked,
        result: Result<SyncOutcome, Refusal>,
    ) {
        let reply = match result {
            Ok(SyncOutcome::Waits) => return self.park_sync(id, member, parked),
            Ok(SyncOutcome::Synced(synced)) => Ok(synced),
            Err(refusal) => Err(refusal.into()),
        };
        self.answer(parked.ticket, GroupReply::Sync(reply));
    }

    /// A join waits for the joining phase to complete.
    fn wait_for_join(
        &mut self,
        now: Instant,
        id: &str,
        member: String,
        parked: Parked,
        admitted: bool,
        metadata: &dyn Metadata,
    ) {
        let live = self.groups.entry(id.to_owned()).or_default();
        // Where one entry completes the phase too, the member is answered at once, and has the
        // session of whoever has been.
        if let Some(group) = metadata.groups().get(id)
            && group.generation() == parked.generation
        {
            live.has_joined(now, &member, group, admitted);
        }
        self.effects.push(Effect::Parked {
            ticket: parked.ticket,
        });
        if let Some(older) = live.joins.insert(member.clone(), parked) {
            self.answer_join_error(
                older.ticket,
                GroupError::Refused(Refusal::RebalanceInProgress),
                &member,
            );
        }
    }

    fn completed(
        &mut self,
        now: Instant,
        id: &str,
        completion: Completion,
        metadata: &dyn Metadata,
    ) {
        let Some(live) = self.groups.get_mut(id) else {
            return;
        };
        match metadata.groups().get(id) {
            Some(group) if completion == Completion::Postponed => {
                live.completion_was_postponed(now + rebalance_timeout(group).max(RETRY));
            }
            _ => live.completion_was_applied(),
        }
    }

    /// A proposal failed. One that may have been applied is proposed again, the same: applied
    /// twice it has the effect of once. Not so offsets, which might overwrite later ones.
    pub(super) fn failed(&mut self, now: Instant, proposal: ProposalId, ambiguous: bool) {
        let Some(mut proposed) = self.proposed.remove(&proposal) else {
            return;
        };
        let error = if ambiguous {
            GroupError::CoordinatorNotAvailable
        } else {
            GroupError::NotCoordinator
        };
        match &mut proposed.purpose {
            Purpose::CompleteJoin => {
                if let Some(live) = self.groups.get_mut(&proposed.command.group) {
                    live.completion_failed(now);
                }
                self.file(&proposed.command.group);
            }
            // Deadlines that are still over come up again.
            Purpose::Upkeep => {}
            Purpose::Commit { .. } => self.refuse(proposed.purpose, error),
            Purpose::Join { .. } | Purpose::Sync { .. } | Purpose::Leave { .. } => {
                if let Purpose::Leave { repeated, .. } = &mut proposed.purpose {
                    *repeated |= ambiguous;
                }
                if ambiguous && proposed.repeats < REPEATS_MAX {
                    proposed.repeats += 1;
                    self.submit(proposed);
                } else {
                    self.refuse(proposed.purpose, error);
                }
            }
        }
    }

    /// The journal does not take a proposal of this size. Whoever made it is told something final,
    /// as by Kafka where a record is too large: a repeat would be as large.
    pub(super) fn too_large(&mut self, now: Instant, proposal: ProposalId) {
        let error = match self.proposed.get(&proposal).map(|found| &found.purpose) {
            Some(Purpose::CompleteJoin | Purpose::Upkeep) | None => {
                return self.failed(now, proposal, false);
            }
            Some(_) => GroupError::TooLarge,
        };
        if let Some(proposed) = self.proposed.remove(&proposal) {
            self.refuse(proposed.purpose, error);
        }
    }

    /// Answers whoever waits for a proposal that comes to nothing, or whose outcome stays
    /// unknown.
    pub(super) fn refuse(&mut self, purpose: Purpose, error: GroupError) {
        match purpose {
            Purpose::Join { ticket, member } => {
                self.answer_join_error(ticket, error, &member);
            }
            Purpose::Sync { parked, .. } => {
                self.answer(parked.ticket, GroupReply::Sync(Err(error)));
            }
            Purpose::Leave { ticket, .. } => self.answer(ticket, GroupReply::Leave(Err(error))),
            Purpose::Commit {
                ticket,
                mut results,
                rows,
            } => {
                for row in rows {
                    results[row] = Err(error);
                }
                self.answer(ticket, GroupReply::Commit(results));
            }
            Purpose::CompleteJoin | Purpose::Upkeep => {}
        }
    }
}

/// Who may wait once a command is applied. Others that it touched are named by the event that tells
/// of it.
fn who_may_wait(action: &Action) -> Vec<String> {
    match action {
        Action::Join(join) => vec![join.member.clone()],
        Action::Sync(sync) => vec![sync.member.clone()],
        _ => Vec::new(),
    }
}

/// The results of leaving. Whoever is not there when a departure is repeated has left the first
/// time.
fn left(
    mut results: Vec<Result<(), GroupError>>,
    rows: &[usize],
    outcomes: &[Result<(), Refusal>],
    repeated: bool,
) -> Vec<Result<(), GroupError>> {
    for (row, outcome) in rows.iter().zip(outcomes) {
        results[*row] = match outcome {
            Err(Refusal::UnknownMemberId) if repeated => Ok(()),
            outcome => outcome.map_err(GroupError::from),
        };
    }
    results
}
