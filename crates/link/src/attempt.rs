//! One call, until it has an answer: whom to ask, whom next, whom all at once, and when to give up. Sans-IO: an event goes in
//! with the time, effects come out. It must not know how nodes are reached, nor what the call means.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::clock::Instant;
use host::trial::leaves_out;
use rpc::{Answer, Error};

use crate::directory::{Directory, NodeId};

/// A call that takes no longer than an entry of the journal and may be repeated is asked of all nodes if there is no answer for so
/// long: the leader may be gone, or cut off from its caller (three regions, rule L2).
pub const ALL_AFTER: Duration = Duration::from_millis(500);
/// The others are asked again so often meanwhile, since one of them takes the lead.
const ALL_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// The pause after nobody could answer, doubled each time.
const PAUSE_MIN: Duration = Duration::from_millis(20);
const PAUSE_MAX: Duration = Duration::from_millis(160);

/// How a call may be asked.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// The node that leads is to answer.
    pub needs_leader: bool,
    /// Whoever answers leads. (What is current can be read elsewhere too, when the leader cannot be reached.)
    pub shows_leader: bool,
    /// Asking twice has the effect of once.
    pub may_repeat: bool,
    /// It is asked of all nodes, if it may be repeated, once there was no answer for so long: who is silent for longer than the call
    /// takes may be gone. `None` if it may take any time.
    pub all_after: Option<Duration>,
    /// How long a leader, or any node that answers, is sought.
    pub seek_for: Duration,
    /// How long the whole may take; `None`: as long as the caller waits.
    pub limit: Option<Duration>,
}

#[derive(Debug, PartialEq)]
pub enum Event {
    Begun,
    /// The node's own answer.
    Answered(NodeId, Result<Answer, Error>),
    /// The call did not reach the node.
    NotSent(NodeId, String),
    /// It may have reached the node, and no answer will come.
    Broken(NodeId, String),
    /// Another call has found out who leads.
    LeaderFound(NodeId),
    Timer,
}

#[derive(Debug, PartialEq)]
pub enum Effect {
    Ask {
        node: NodeId,
        /// The node that leads could not be reached.
        is_leader_away: bool,
    },
    Done(Result<Answer, Error>),
}

/// A call that is not answered yet.
#[derive(Debug)]
pub struct Attempt {
    manner: Manner,
    begun_at: Instant,
    /// Asked in this round.
    asked: BTreeSet<NodeId>,
    /// Asked and not answered.
    open: BTreeSet<NodeId>,
    all_at: Option<Instant>,
    retry_at: Option<Instant>,
    rounds: u32,
    /// Some node may have acted upon it.
    in_doubt: bool,
    is_leader_away: bool,
    /// Why each node could not answer, the last time that it was asked.
    whys: BTreeMap<NodeId, String>,
}

impl Attempt {
    pub fn new(manner: Manner, now: Instant) -> Self {
        let all_after = manner.all_after.filter(|_| manner.may_repeat);
        let all_after = all_after.filter(|_| !leaves_out("silence-asks-all"));
        Attempt {
            manner,
            begun_at: now,
            asked: BTreeSet::new(),
            open: BTreeSet::new(),
            all_at: all_after.map(|after| now + after),
            retry_at: None,
            rounds: 0,
            in_doubt: false,
            is_leader_away: false,
            whys: BTreeMap::new(),
        }
    }

    /// When to give [`Event::Timer`].
    pub fn deadline(&self) -> Option<Instant> {
        let all_at = self.all_at.filter(|_| !self.open.is_empty());
        let limit = self.manner.limit.map(|limit| self.begun_at + limit);
        [all_at, self.retry_at, limit].into_iter().flatten().min()
    }

    pub fn handle(
        &mut self,
        now: Instant,
        event: Event,
        directory: &mut Directory,
        out: &mut Vec<Effect>,
    ) {
        match event {
            Event::Begun => self.ask_next(now, directory, out),
            Event::Answered(node, outcome) => {
                self.open.remove(&node);
                directory.answered(node);
                self.answered(now, node, outcome, directory, out);
            }
            Event::NotSent(node, why) => {
                self.lost(now, node, why, directory);
                self.ask_next(now, directory, out);
            }
            Event::Broken(node, why) => {
                self.lost(now, node, why, directory);
                self.in_doubt = true;
                self.go_on_in_doubt(now, directory, out);
            }
            Event::LeaderFound(node) => self.leader_found(node, out),
            Event::Timer => self.timer(now, directory, out),
        }
    }

    /// Whether it is worth knowing that another call has found out who leads.
    pub fn seeks_leader(&self) -> bool {
        let is_lost = self.is_leader_away || self.retry_at.is_some();
        let may_ask = self.open.is_empty() || self.manner.may_repeat;
        self.manner.needs_leader && is_lost && may_ask
    }

    fn leader_found(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        if self.seeks_leader() && !self.open.contains(&node) {
            self.ask(node, out);
        }
    }

    fn lost(&mut self, now: Instant, node: NodeId, why: String, directory: &mut Directory) {
        self.open.remove(&node);
        self.is_leader_away |= directory.leader() == Some(node);
        self.note(node, &why, directory);
        directory.failed(node, now);
    }

    fn note(&mut self, node: NodeId, why: &str, directory: &Directory) {
        let why = format!("{}: {why}", directory.address(node));
        self.whys.insert(node, why);
    }

    fn answered(
        &mut self,
        now: Instant,
        node: NodeId,
        outcome: Result<Answer, Error>,
        directory: &mut Directory,
        out: &mut Vec<Effect>,
    ) {
        let error = match outcome {
            Ok(answer) => {
                if self.manner.shows_leader {
                    directory.leads(node);
                }
                return out.push(Effect::Done(Ok(answer)));
            }
            Err(error) => error,
        };
        self.note(node, &error.to_string(), directory);
        match error {
            Error::NotLeader { leader } => {
                directory.leads_not(node);
                let told = leader.and_then(|leader| {
                    let node = directory.find(&leader.address?);
                    let is_believed = directory.is_said_to_lead(node, leader.claim);
                    is_believed.then_some(node)
                });
                match told {
                    Some(told) if !self.asked.contains(&told) => return self.ask(told, out),
                    // Who is said to lead has said that it does not: the process that did has ended, and
                    // another has its address.
                    Some(told) if !self.open.contains(&told) => self.is_leader_away = true,
                    _ => {}
                }
                self.ask_next(now, directory, out);
            }
            Error::Unavailable { .. } if !self.manner.needs_leader => {
                // What it knows is too old, or it is of no use for another reason: others are asked before it for a while.
                directory.failed(node, now);
                self.ask_next(now, directory, out);
            }
            Error::Unknown { .. } => {
                self.in_doubt = true;
                self.go_on_in_doubt(now, directory, out);
            }
            // Another node may act upon it, or have acted.
            Error::Busy | Error::Unavailable { .. } if self.in_doubt || !self.open.is_empty() => {
                self.go_on_in_doubt(now, directory, out);
            }
            error => out.push(Effect::Done(Err(error))),
        }
    }

    fn go_on_in_doubt(&mut self, now: Instant, directory: &mut Directory, out: &mut Vec<Effect>) {
        if self.manner.may_repeat {
            self.ask_next(now, directory, out);
        } else if self.open.is_empty() {
            out.push(Effect::Done(Err(self.failure())));
        }
    }

    fn timer(&mut self, now: Instant, directory: &mut Directory, out: &mut Vec<Effect>) {
        if let Some(limit) = self.manner.limit
            && now >= self.begun_at + limit
        {
            self.in_doubt |= !self.open.is_empty();
            for node in self.open.clone() {
                self.note(node, "no answer came in time", directory);
            }
            return out.push(Effect::Done(Err(self.failure())));
        }
        if self.all_at.is_some_and(|at| at <= now) && !self.open.is_empty() {
            self.all_at = Some(now + ALL_AGAIN_AFTER);
            self.is_leader_away |= self
                .open
                .iter()
                .any(|node| directory.leader() == Some(*node));
            let order = directory.order(self.manner.needs_leader, now);
            let others = order.into_iter().filter(|node| !self.open.contains(node));
            for node in others.collect::<Vec<_>>() {
                self.ask(node, out);
            }
        }
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            self.asked.clone_from(&self.open);
            self.ask_next(now, directory, out);
        }
    }

    /// Asks the best node that was not asked in this round; if there is none and nobody is left who may answer, the next round
    /// begins after a pause.
    fn ask_next(&mut self, now: Instant, directory: &Directory, out: &mut Vec<Effect>) {
        let order = directory.order(self.manner.needs_leader, now);
        let next = order.into_iter().find(|node| !self.asked.contains(node));
        if let Some(node) = next {
            return self.ask(node, out);
        }
        if !self.open.is_empty() || self.retry_at.is_some() {
            return;
        }
        if now >= self.begun_at + self.manner.seek_for {
            return out.push(Effect::Done(Err(self.failure())));
        }
        let pause = PAUSE_MIN.saturating_mul(1 << self.rounds.min(10));
        self.rounds += 1;
        self.retry_at = Some(now + pause.min(PAUSE_MAX));
    }

    fn ask(&mut self, node: NodeId, out: &mut Vec<Effect>) {
        self.asked.insert(node);
        self.open.insert(node);
        out.push(Effect::Ask {
            node,
            is_leader_away: self.is_leader_away,
        });
    }

    fn failure(&self) -> Error {
        let whys: Vec<&str> = self.whys.values().map(String::as_str).collect();
        let reason = match whys.is_empty() {
            true => "no control node is known yet".to_owned(),
            false => whys.join("; "),
        };
        if self.in_doubt {
            Error::Unknown { reason }
        } else {
            Error::Unavailable { reason }
        }
    }
}

#[cfg(test)]
mod tests;
