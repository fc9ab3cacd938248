//! Whose turn it is to see to a bucket: of all agents exactly one, of the bucket's own region if there is one. Two that do not
//! know of each other do the same work twice, which harms nobody. Pure.

use meta::ids::AgentId;
use meta::view::Agent;
use store::buckets::State;

/// The numbers of the buckets that an agent sees to, as it knows the others.
pub(crate) fn sees_to(own: AgentId, agents: &[Agent], buckets: &[State]) -> Vec<u32> {
    let is_own = |bucket: &&State| whose(agents, &bucket.name) == Some(own);
    let seen_to = buckets.iter().filter(is_own);
    seen_to.map(|bucket| bucket.number).collect()
}

/// Who sees to the bucket of a region: one who stays before one who leaves, one of the region before others.
fn whose(agents: &[Agent], region: &str) -> Option<AgentId> {
    let rank = |agent: &&Agent| (!agent.takes_clients(), agent.region != region, agent.id);
    agents.iter().min_by_key(rank).map(|agent| agent.id)
}

#[cfg(test)]
mod tests {
    use meta::endpoint::Endpoint;
    use meta::ids::Incarnation;
    use store::buckets::Standing;

    use super::*;

    fn agent(id: i32, region: &str, drains: bool) -> Agent {
        Agent {
            id: AgentId(id),
            name: format!("agent-{id}"),
            listeners: Endpoint::alone("localhost", 9_092),
            region: region.to_owned(),
            zone: String::new(),
            neighbour_address: String::new(),
            level: 1,
            incarnation: Incarnation(1),
            drains,
            cut_off: false,
        }
    }

    #[test]
    fn each_bucket_is_seen_to_by_one_agent_of_its_region_if_there_is_one() {
        let bucket = |(number, name): (u32, &str)| State {
            number,
            name: name.to_owned(),
            standing: Standing::Proven,
            answers: true,
        };
        let buckets = [(0, "x"), (1, "y"), (2, "z")].map(bucket);
        let agents = [
            agent(1, "y", true),
            agent(2, "x", false),
            agent(3, "x", false),
            agent(4, "y", false),
        ];
        let of = |own| sees_to(AgentId(own), &agents, &buckets);
        assert_eq!(of(1), [0_u32; 0]);
        assert_eq!(of(2), [0, 2], "no agent is in z");
        assert_eq!(of(3), [0_u32; 0]);
        assert_eq!(of(4), [1]);
        assert_eq!(sees_to(AgentId(1), &agents[..1], &buckets), [0, 1, 2]);
        assert!(sees_to(AgentId(1), &[], &buckets).is_empty());
    }
}
