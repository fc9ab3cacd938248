//! Which agents reach too few buckets to serve clients, as the leader hears it from them, and when that is noted for all. Pure. It
//! must not know how they say it, nor how it is noted.
//!
//! An agent that reaches too few is left out only while another reaches enough: buckets that are away for everybody move nobody.
//! One that is back has to stay so for a while, so that a bucket that comes and goes does not send clients to and fro.

use std::collections::BTreeMap;
use std::time::Duration;

use host::clock::Instant;
use meta::ids::Incarnation;
use meta::view::Agent;

/// An agent says what it reaches once a second; what it said longer ago is not known to be so any more.
const TOLD_FOR: Duration = Duration::from_secs(4);
/// An agent that was cut off is named again if it has reached enough for so long.
const BACK_AFTER: Duration = Duration::from_secs(3);

/// What the leader keeps of an agent.
#[derive(Clone, Copy, Debug)]
struct Told {
    is_enough: bool,
    /// Since when it has said the same.
    since: Instant,
    at: Instant,
}

/// What agents reach, by their incarnations.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    told: BTreeMap<Incarnation, Told>,
}

/// An agent whose place in the metadata is to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Change {
    pub(crate) incarnation: Incarnation,
    pub(crate) cut_off: bool,
}

impl Reach {
    /// An agent says whether it reaches enough buckets.
    pub(crate) fn says(&mut self, now: Instant, run: Incarnation, is_enough: bool) {
        let told = self.told.entry(run).or_insert(Told {
            is_enough,
            since: now,
            at: now,
        });
        if told.is_enough != is_enough {
            told.since = now;
        }
        (told.is_enough, told.at) = (is_enough, now);
    }

    /// This node does not lead: what it was told is of no use to it.
    pub(crate) fn forget(&mut self) {
        self.told.clear();
    }

    /// What is to be noted of the agents that are alive.
    pub(crate) fn changes(&mut self, now: Instant, agents: &[&Agent]) -> Vec<Change> {
        self.told.retain(|run, told| {
            let is_fresh = now.since(told.at) < TOLD_FOR;
            is_fresh && agents.iter().any(|agent| agent.incarnation == *run)
        });
        let stay = agents.iter().filter(|agent| !agent.drains);
        let told = stay.map(|agent| self.told.get(&agent.incarnation));
        let told: Vec<Option<bool>> = told.map(|told| Some(told?.is_enough)).collect();
        let somebody_does = told.contains(&Some(true));
        let nobody_does = told.iter().all(|told| *told == Some(false));
        let change = |agent: &&Agent| {
            let told = self.told.get(&agent.incarnation)?;
            let is_back = told.is_enough && now.since(told.since) >= BACK_AFTER;
            let changes = match agent.cut_off {
                false => !told.is_enough && somebody_does,
                true => is_back || nobody_does,
            };
            changes.then_some(Change {
                incarnation: agent.incarnation,
                cut_off: !agent.cut_off,
            })
        };
        agents.iter().filter_map(change).collect()
    }
}

#[cfg(test)]
mod tests;
