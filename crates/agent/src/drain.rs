//! Leaving on purpose: what an agent that is to end does next, and whether clients still come. The decision is pure; it must not
//! know how clients are sent away, nor how the leader is told.
//!
//! Clients are told of other agents once the leader knows that this one drains. They look again only when they have a reason, so
//! each is given one by an error that it takes for a moved leader or coordinator; whoever gets it repeats what was refused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use host::clock::Instant;
use meta::ids::{AgentId, Incarnation};
use meta::view::Agent;

/// Producers and consumers have gone if none was refused for so long: a consumer at the end of its partitions asks twice a
/// second, and looks for its leader again after a tenth of one.
const QUIET: Duration = Duration::from_secs(1);
/// Members of groups have gone if none was served for so long: by default they send a heartbeat every three seconds.
const MEMBERS_QUIET: Duration = Duration::from_millis(3_500);
/// An agent that has found no leader for so long waits for nobody: the whole cluster ends, or clients have nowhere to go. Another
/// control node takes the lead sooner.
const LEADERLESS_MAX: Duration = Duration::from_secs(2);

/// When clients came last.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    /// In microseconds; 0: never.
    refused_at: AtomicU64,
    member_at: AtomicU64,
    drains_since: AtomicU64,
    is_leaderless: AtomicBool,
}

impl Traffic {
    /// From now on clients are sent away.
    pub(crate) fn drains(&self, now: Instant) {
        self.drains_since.store(now.as_micros().max(1), Relaxed);
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drains_since.load(Relaxed) != 0
    }

    /// The agent ends because nobody leads.
    pub(crate) fn finds_no_leader(&self) {
        self.is_leaderless.store(true, Relaxed);
    }

    pub(crate) fn is_leaderless(&self) -> bool {
        self.is_leaderless.load(Relaxed)
    }

    /// A producer or consumer was refused, so that it looks for another agent.
    pub(crate) fn refused(&self, now: Instant) {
        self.refused_at.store(now.as_micros(), Relaxed);
    }

    /// A member of a group was served.
    pub(crate) fn served_member(&self, now: Instant) {
        self.member_at.store(now.as_micros(), Relaxed);
    }

    /// Since when no client is known to be left, or from when on.
    fn quiet_from(&self) -> Instant {
        let at = |of: &AtomicU64, quiet| match of.load(Relaxed) {
            0 => Instant::default(),
            micros => Instant::from_micros(micros) + quiet,
        };
        at(&self.drains_since, QUIET)
            .max(at(&self.refused_at, QUIET))
            .max(at(&self.member_at, MEMBERS_QUIET))
    }
}

/// What a draining agent does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Tell the leader that this incarnation drains.
    Tell(Incarnation),
    Wait,
    /// Nobody is left who could be sent elsewhere.
    End,
}

/// What is to be done, given the agents as this one, `own`, sees them.
pub(crate) fn step(now: Instant, agents: &[Agent], own: AgentId, traffic: &Traffic) -> Step {
    let Some(this) = agents.iter().find(|agent| agent.id == own) else {
        // It is fenced: clients are told of others already.
        return wait(now, traffic);
    };
    let takes_over = |other: &Agent| {
        let mut listeners = other.listeners.keys();
        !other.drains && other.id != own && listeners.any(|name| this.listeners.contains_key(name))
    };
    match (agents.iter().any(takes_over), this.drains) {
        (false, _) => Step::End,
        (true, false) => Step::Tell(this.incarnation),
        (true, true) => wait(now, traffic),
    }
}

/// What an agent that drains knows of the leader: it asks whether there is one, again and again.
#[derive(Debug)]
pub(crate) struct Search {
    /// When that was asked first of all times that were not answered since.
    since: Instant,
}

impl Search {
    /// The leader is asked for the first time.
    pub(crate) fn begin(now: Instant) -> Self {
        Search { since: now }
    }

    /// The leader is asked again after it has answered.
    pub(crate) fn again(&mut self, now: Instant) {
        self.since = now;
    }

    /// How much longer an answer is waited for.
    pub(crate) fn patience(&self, now: Instant) -> Duration {
        LEADERLESS_MAX.saturating_sub(now.since(self.since))
    }
}

fn wait(now: Instant, traffic: &Traffic) -> Step {
    match now >= traffic.quiet_from() {
        true => Step::End,
        false => Step::Wait,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meta::endpoint::Endpoint;

    use super::*;

    const OWN: AgentId = AgentId(1);

    fn agent(id: i32, listener: &str, drains: bool) -> Agent {
        let endpoint = Endpoint {
            host: "h".to_owned(),
            port: 1,
        };
        Agent {
            id: AgentId(id),
            name: format!("agent-{id}"),
            listeners: BTreeMap::from([(listener.to_owned(), endpoint)]),
            region: "r".to_owned(),
            zone: String::new(),
            neighbour_address: String::new(),
            level: 1,
            incarnation: Incarnation(7),
            drains,
            cut_off: false,
        }
    }

    fn at(millis: u64) -> Instant {
        Instant::from_millis(1_000_000 + millis)
    }

    /// What an agent does whose drain began at 0.
    fn next(millis: u64, agents: &[Agent], traffic: &Traffic) -> Step {
        traffic.drains(at(0));
        step(at(millis), agents, OWN, traffic)
    }

    #[test]
    fn an_agent_drains_only_while_there_is_another_that_does_not_and_that_its_clients_reach() {
        let traffic = Traffic::default();
        let own = agent(1, "A", false);
        let tell = Step::Tell(Incarnation(7));
        let first =
            |others: &[Agent]| next(0, &[std::slice::from_ref(&own), others].concat(), &traffic);
        assert_eq!(first(&[]), Step::End);
        assert_eq!(first(&[agent(2, "A", false)]), tell);
        assert_eq!(first(&[agent(2, "A", true)]), Step::End, "both end");
        assert_eq!(first(&[agent(2, "B", false)]), Step::End, "out of reach");
        assert_eq!(first(&[agent(2, "B", false), agent(3, "A", false)]), tell);
    }

    #[test]
    fn an_agent_that_drains_waits_until_clients_have_gone() {
        let agents = [agent(1, "A", true), agent(2, "A", false)];
        let traffic = Traffic::default();
        assert_eq!(next(999, &agents, &traffic), Step::Wait);
        assert_eq!(next(1_000, &agents, &traffic), Step::End);
        traffic.refused(at(900));
        assert_eq!(next(1_899, &agents, &traffic), Step::Wait);
        assert_eq!(next(1_900, &agents, &traffic), Step::End);
        traffic.served_member(at(100));
        assert_eq!(next(3_599, &agents, &traffic), Step::Wait);
        assert_eq!(next(3_600, &agents, &traffic), Step::End);
    }

    #[test]
    fn an_agent_that_was_fenced_meanwhile_waits_and_one_that_registered_again_tells_it_again() {
        let traffic = Traffic::default();
        let other = agent(2, "A", false);
        let fenced = [other.clone()];
        assert_eq!(next(10, &fenced, &traffic), Step::Wait);
        let again = [agent(1, "A", false), other];
        assert_eq!(next(20, &again, &traffic), Step::Tell(Incarnation(7)));
    }

    #[test]
    fn a_leader_is_waited_for_since_it_answered_last() {
        let mut search = Search::begin(at(0));
        assert_eq!(search.patience(at(1_500)), Duration::from_millis(500));
        search.again(at(1_900));
        assert_eq!(search.patience(at(1_900)), Duration::from_secs(2));
        assert_eq!(search.patience(at(3_900)), Duration::ZERO);
        assert_eq!(search.patience(at(9_000)), Duration::ZERO);
    }
}
