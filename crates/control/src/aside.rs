//! Whether a node that leads is of use to anybody: one that no agent reaches gives up the lead, so that a node that agents do
//! reach can take it (three regions, rules L1 and L2). Sans-IO; it must not know how agents are heard, nor how others are asked.
//!
//! No tug of war comes of it: a node that hears from others that agents do not reach them either keeps the lead, and each further time
//! within ten minutes that the lead is given up for this reason, by whomever, doubles the wait.

use std::time::Duration;

use host::clock::Instant;

use crate::presence::SLEPT;

/// How long no agent has called before the lead is given up: an agent that reaches the leader calls again every second.
const UNREACHED_MAX: Duration = Duration::from_secs(2);
/// How long it is remembered that a lead was given up.
const REMEMBERED_FOR: Duration = Duration::from_secs(600);
/// The most often that the wait is doubled: to eight and a half minutes, so that the time before is still remembered.
const DOUBLINGS_MAX: u32 = 8;
/// The pause before the others are asked again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(500);

/// What a node that leads knows of others.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Surroundings {
    /// Agents are registered.
    pub(crate) are_agents: bool,
    /// Other control nodes are.
    pub(crate) are_others: bool,
    /// When one of these agents last called this node straight.
    pub(crate) called_at: Option<Instant>,
}

/// What other control nodes say of themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Others {
    /// None of them answers.
    Silent,
    /// They answer, and agents ask none of them for a leader.
    Unasked,
    /// Agents that do not reach the leader ask one of them.
    Asked,
}

/// Memory of leads that were given up, and since when this node is not reached.
#[derive(Debug, Default)]
pub(crate) struct Aside {
    /// How often in a row, each within [`REMEMBERED_FOR`] of the one before.
    given_up: u32,
    given_up_at: Option<Instant>,
    leads_since: Option<Instant>,
    asked_at: Option<Instant>,
    looked_at: Instant,
}

impl Aside {
    /// Whether the others are to be asked now if agents reach them. It is to be called often, with whether this node leads.
    pub(crate) fn look(&mut self, now: Instant, leads: bool, seen: Surroundings) -> bool {
        let slept = now.since(self.looked_at);
        self.looked_at = now;
        if !leads || host::trial::leaves_out("unreached-leaders-stand-aside") {
            self.leads_since = None;
            self.asked_at = None;
            return false;
        }
        let since = match self.leads_since {
            // What it did not hear while it slept says nothing about others.
            Some(since) if slept <= SLEPT => since,
            _ => now,
        };
        self.leads_since = Some(since);
        let unreached_for = now.since(since.max(seen.called_at.unwrap_or_default()));
        let is_asking = self
            .asked_at
            .is_some_and(|at| now.since(at) < ASK_AGAIN_AFTER);
        let is_due = seen.are_agents && seen.are_others && unreached_for >= self.patience(now);
        if is_due && !is_asking {
            self.asked_at = Some(now);
        }
        is_due && !is_asking
    }

    /// Whether the lead is to be given up, by what the others have said.
    pub(crate) fn gives_up(others: Others) -> bool {
        match others {
            // This node is cut off from everybody.
            Others::Silent => true,
            Others::Asked => true,
            Others::Unasked => false,
        }
    }

    /// This node has given up the lead. Yields how often that has happened in a row.
    pub(crate) fn has_given_up(&mut self, now: Instant) -> u32 {
        let times = self.times(now).saturating_add(1);
        self.note(now, times);
        times
    }

    /// Another has given up the lead, which has happened so often in a row.
    pub(crate) fn note(&mut self, now: Instant, times: u32) {
        if times > self.times(now) {
            self.given_up = times;
            self.given_up_at = Some(now);
        }
    }

    /// How often the lead was given up in a row.
    pub(crate) fn times(&self, now: Instant) -> u32 {
        let is_fresh = |at| now.since(at) < REMEMBERED_FOR;
        match self.given_up_at.is_some_and(is_fresh) {
            true => self.given_up,
            false => 0,
        }
    }

    fn patience(&self, now: Instant) -> Duration {
        UNREACHED_MAX * (1 << self.times(now).min(DOUBLINGS_MAX))
    }
}

#[cfg(test)]
mod tests;
