//! Agents that were there a moment ago: clients are told of them for a while as of brokers that have no partitions. librdkafka
//! drops its connection to a broker that it is not told of any more, and what waits for that broker; partitions that go elsewhere by the
//! same answer wait with it for up to a second, until it asks again. It must not know why an agent is gone.

use std::time::Duration;

use host::clock::Instant;
use meta::view::Agent;

/// How long an agent is shown that is gone: clients that have lost it ask a few times within a second or two.
const SHOWN_FOR: Duration = Duration::from_secs(5);

/// Agents that are gone, each with the time when it was found to be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Departed(Vec<(Instant, Agent)>);

impl Departed {
    /// Those that are gone once `before` has become `agents`. One that had sent its clients to others before is no loss to them.
    pub(crate) fn after(&self, now: Instant, before: &[Agent], agents: &[Agent]) -> Self {
        let is_there = |gone: &Agent| agents.iter().any(|agent| agent.id == gone.id);
        let earlier = self.shown(now).map(|(at, agent)| (at, agent.clone()));
        let new = before.iter().filter(|agent| !agent.drains);
        let new = new.map(|agent| (now, agent.clone()));
        let all = earlier.chain(new);
        Departed(all.filter(|(_, agent)| !is_there(agent)).collect())
    }

    /// Those that are to be shown still.
    pub(crate) fn agents(&self, now: Instant) -> impl Iterator<Item = &Agent> {
        self.shown(now).map(|(_, agent)| agent)
    }

    fn shown(&self, now: Instant) -> impl Iterator<Item = (Instant, &Agent)> {
        let shown = self.0.iter().map(|(at, agent)| (*at, agent));
        shown.filter(move |(at, _)| now.since(*at) < SHOWN_FOR)
    }
}

#[cfg(test)]
mod tests {
    use meta::endpoint::Endpoint;
    use meta::ids::{AgentId, Incarnation};

    use super::*;

    const NOW: Instant = Instant::from_millis(100_000);

    fn agent(id: i32) -> Agent {
        Agent {
            id: AgentId(id),
            name: format!("agent-{id}"),
            listeners: Endpoint::alone("h", 1),
            region: String::new(),
            zone: String::new(),
            neighbour_address: String::new(),
            level: 1,
            incarnation: Incarnation(1),
            drains: false,
            cut_off: false,
        }
    }

    fn shown(departed: &Departed, now: Instant) -> Vec<i32> {
        departed.agents(now).map(|agent| agent.id.0).collect()
    }

    #[test]
    fn who_is_gone_is_shown_for_a_while_unless_it_had_drained_or_is_back() {
        let [one, two] = [agent(1), agent(2)];
        let drained = Agent {
            drains: true,
            ..agent(3)
        };
        let all = [one.clone(), two.clone(), drained];
        let second = std::slice::from_ref(&two);
        let departed = Departed::default().after(NOW, &all, second);
        assert_eq!(shown(&departed, NOW), [1]);
        // It is not forgotten as others change, nor shown for longer.
        let later = NOW + SHOWN_FOR / 2;
        let departed = departed.after(later, second, second);
        assert_eq!(shown(&departed, later), [1]);
        let departed = departed.after(later, second, &[]);
        assert_eq!(shown(&departed, later), [1, 2]);
        assert_eq!(shown(&departed, NOW + SHOWN_FOR), [2]);
        let departed = departed.after(later, &[], &[one, two.clone()]);
        assert_eq!(shown(&departed, later), [0; 0]);
    }
}
