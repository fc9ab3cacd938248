//! One call, until it has an answer: whom to ask, whom next, whom all at once, and when to give up. Sans-IO: an event goes in
//! with the time, effects come out. It must not know how nodes are reached, nor what the call means.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::clock::Instant;
use host::trial::leaves_out;
use rpc::{Answer, Error, Leader, LedBy};

use crate::directory::{Directory, NodeId};

/// A call that takes no longer than an entry of the journal and may be repeated is asked of all nodes if there is no answer for so
/// long: the leader may be gone, or cut off from its caller (three regions, rule L2).
pub const ALL_AFTER: Duration = Duration::from_millis(500);
/// The others are asked again so often meanwhile, since one of them takes the lead.
const ALL_AGAIN_AFTER: Duration = Duration::from_millis(250);
/// A leader that is reached and has no answer says after a second that it may lead no more. If it has not said so by now, and others
/// reach it, it is not reached.
const SILENT_MAX: Duration = Duration::from_millis(1_500);
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
    /// It is asked of all nodes once there was no answer for so long, or, if it may not be repeated, they are asked who leads: who is
    /// silent for longer than the call takes may be gone. `None` if it may take any time.
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
    /// The answer of the node that leads, to which the one that was asked has passed the call on.
    Relayed(NodeId, LedBy, Result<Answer, Error>),
    /// The node led, and says that it may lead no more; its answer may still come.
    Doubted(NodeId),
    /// The call did not reach the node.
    NotSent(NodeId, String),
    /// It may have reached the node, and no answer will come.
    Broken(NodeId, String),
    /// What the node has said to [`Effect::AskWhoLeads`].
    Named(NodeId, Result<Answer, Error>),
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
        /// The call is to be passed on to it.
        relays: bool,
    },
    /// Ask the node [`rpc::Call::WhoLeads`]: the call may not be asked of another while one may have acted upon it.
    AskWhoLeads(NodeId),
    /// Look whether the node, which leads, answers again; nobody waits for that.
    Try(NodeId),
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
    /// Asked who leads, and not answered.
    questioned: BTreeSet<NodeId>,
    /// Asked to pass the call on at this time, and not answered.
    relay: Option<(NodeId, Instant)>,
    all_at: Option<Instant>,
    /// There was no answer for so long, or the leader was in doubt, that the others were turned to.
    has_turned_to_all: bool,
    retry_at: Option<Instant>,
    rounds: u32,
    /// Some node may have acted upon it.
    in_doubt: bool,
    is_leader_away: bool,
    /// The node that leads, or led, has answered that it may lead no more: it is reached, and of no use.
    is_leader_doubtful: bool,
    /// Why each node could not answer, the last time that it was asked.
    whys: BTreeMap<NodeId, String>,
}

impl Attempt {
    pub fn new(manner: Manner, now: Instant) -> Self {
        let all_after = manner.all_after.filter(|_| !leaves_out("silence-asks-all"));
        Attempt {
            manner,
            begun_at: now,
            asked: BTreeSet::new(),
            open: BTreeSet::new(),
            questioned: BTreeSet::new(),
            relay: None,
            all_at: all_after.map(|after| now + after),
            has_turned_to_all: false,
            retry_at: None,
            rounds: 0,
            in_doubt: false,
            is_leader_away: false,
            is_leader_doubtful: false,
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
            Event::Begun => self.begin(now, directory, out),
            Event::Answered(node, outcome) => {
                self.closed(node);
                directory.answered(node, now);
                if outcome.is_ok() && self.manner.shows_leader {
                    directory.leads(node);
                }
                self.answered(now, node, outcome, directory, out);
            }
            Event::Relayed(node, by, outcome) => {
                let asked_at = self.closed(node);
                directory.answered(node, now);
                if !matches!(outcome, Err(Error::Unknown { .. }))
                    && let Some(asked_at) = asked_at
                {
                    directory.relays(node, &by, asked_at);
                }
                self.answered(now, node, outcome, directory, out);
            }
            Event::Doubted(node) => self.doubted(now, node, directory, out),
            Event::NotSent(node, why) => {
                self.lost(now, node, why, directory);
                self.ask_next(now, directory, out);
            }
            Event::Broken(node, why) => {
                self.lost(now, node, why, directory);
                self.in_doubt = true;
                self.go_on_in_doubt(now, directory, out);
            }
            Event::Named(node, outcome) => self.named(node, outcome, directory, out),
            Event::LeaderFound(node) => self.leader_found(now, node, out),
            Event::Timer => self.timer(now, directory, out),
        }
    }

    fn begin(&mut self, now: Instant, directory: &mut Directory, out: &mut Vec<Effect>) {
        if self.manner.needs_leader && directory.relay().is_some() {
            self.is_leader_away = true;
            out.extend(directory.leader_to_try(now).map(Effect::Try));
        }
        self.ask_next(now, directory, out);
    }

    /// Nothing more is to come of what the node was asked; yields when it was asked to pass the call on, if it was.
    fn closed(&mut self, node: NodeId) -> Option<Instant> {
        self.open.remove(&node);
        let relay = self.relay.take_if(|(relay, _)| *relay == node);
        relay.map(|(_, asked_at)| asked_at)
    }

    /// Looks for another leader at once, while the one in doubt may still answer.
    fn doubted(
        &mut self,
        now: Instant,
        node: NodeId,
        directory: &mut Directory,
        out: &mut Vec<Effect>,
    ) {
        if self.manner.needs_leader && self.open.contains(&node) {
            self.is_leader_away = true;
            self.is_leader_doubtful = true;
            self.all_at = Some(now);
            self.timer(now, directory, out);
        }
    }

    /// Whether it is worth knowing that another call has found out who leads.
    pub fn seeks_leader(&self) -> bool {
        self.manner.needs_leader && (self.is_leader_away || self.retry_at.is_some())
    }

    fn leader_found(&mut self, now: Instant, node: NodeId, out: &mut Vec<Effect>) {
        if !self.seeks_leader() || self.open.contains(&node) {
            return;
        }
        match self.open.is_empty() || self.manner.may_repeat {
            true => self.ask(now, node, out),
            false if self.has_turned_to_all => self.give_up_for_another(out),
            // Whoever was asked has time to answer.
            false => {}
        }
    }

    /// A node has said who leads.
    fn named(
        &mut self,
        node: NodeId,
        outcome: Result<Answer, Error>,
        directory: &mut Directory,
        out: &mut Vec<Effect>,
    ) {
        self.questioned.remove(&node);
        let named = match outcome {
            Ok(_) => {
                directory.leads(node);
                Some(node)
            }
            Err(Error::NotLeader { leader }) => told(leader, directory),
            Err(_) => None,
        };
        if named.is_some_and(|node| !self.open.contains(&node)) {
            self.give_up_for_another(out);
        }
    }

    /// Another leads by now than the nodes that were asked, any of which may have acted upon the call before: nobody can tell, and it
    /// may not be repeated.
    fn give_up_for_another(&mut self, out: &mut Vec<Effect>) {
        self.give_up(
            "another control node leads, and this one has not answered",
            out,
        );
    }

    /// The leader does not answer here, and does elsewhere.
    fn give_up_on_silent(&mut self, out: &mut Vec<Effect>) {
        self.give_up("it does not answer, and is reached by way of others", out);
    }

    fn give_up(&mut self, why: &str, out: &mut Vec<Effect>) {
        self.in_doubt = true;
        for node in self.open.clone() {
            self.whys.insert(node, why.to_owned());
        }
        out.push(Effect::Done(Err(self.failure())));
    }

    fn lost(&mut self, now: Instant, node: NodeId, why: String, directory: &mut Directory) {
        self.closed(node);
        if directory.leader() == Some(node) {
            self.is_leader_away = true;
            // Any of the others may take the lead: they are asked together, at once, and later at their pace.
            if self.manner.may_repeat && !self.has_turned_to_all {
                self.all_at = self.all_at.map(|_| now);
            }
        }
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
            Ok(answer) => return out.push(Effect::Done(Ok(answer))),
            Err(error) => error,
        };
        self.note(node, &error.to_string(), directory);
        match error {
            Error::NotLeader { leader } => {
                directory.leads_not(node);
                match told(leader, directory) {
                    // One that could not be reached a moment ago comes last.
                    Some(told) if directory.is_shunned(told, now) => self.is_leader_away = true,
                    Some(told) if !self.asked.contains(&told) => return self.ask(now, told, out),
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
            self.has_turned_to_all = true;
            let is_silent = !self.is_leader_doubtful && now >= self.begun_at + SILENT_MAX;
            if !self.manner.may_repeat && is_silent && directory.relay().is_some() {
                return self.give_up_on_silent(out);
            }
            self.is_leader_away |= self
                .open
                .iter()
                .any(|node| directory.leader() == Some(*node));
            let order = directory.order(self.manner.needs_leader, now);
            let others = order.into_iter().filter(|node| !self.open.contains(node));
            for node in others.collect::<Vec<_>>() {
                match self.manner.may_repeat {
                    true => self.ask(now, node, out),
                    false if self.questioned.insert(node) => out.push(Effect::AskWhoLeads(node)),
                    false => {}
                }
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
        // What may not be repeated would hang on a leader that is known not to be reached here.
        let spared =
            (directory.relay().and(directory.leader())).filter(|_| !self.manner.may_repeat);
        let may_be_asked = |node: &NodeId| !self.asked.contains(node) && spared != Some(*node);
        let next = order.into_iter().find(may_be_asked);
        if let Some(node) = next {
            return self.ask(now, node, out);
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

    fn ask(&mut self, now: Instant, node: NodeId, out: &mut Vec<Effect>) {
        self.asked.insert(node);
        self.open.insert(node);
        let is_away = self.is_leader_away && !self.is_leader_doubtful;
        let relays = self.manner.needs_leader && is_away && self.relay.is_none();
        if relays {
            self.relay = Some((node, now));
        }
        out.push(Effect::Ask {
            node,
            is_leader_away: self.is_leader_away,
            relays,
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

/// The node that is said to lead, if that is to be believed.
fn told(leader: Option<Leader>, directory: &mut Directory) -> Option<NodeId> {
    let leader = leader?;
    let node = directory.find(&leader.address?);
    let is_believed = directory.is_said_to_lead(node, leader.claim);
    is_believed.then_some(node)
}

#[cfg(test)]
mod tests;
