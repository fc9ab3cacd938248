//! Chooses the agent to which clients are sent for a partition: rendezvous hashing, so that agents
//! agree without talking, and a partition moves only when its agent comes or goes. Pure.

use meta::ids::PartitionId;
use meta::view::Agent;

/// The agent for a partition; `None` if there are no agents.
pub fn agent_for(partition: PartitionId, agents: &[Agent]) -> Option<&Agent> {
    agents
        .iter()
        .max_by_key(|agent| (weight(partition, agent.id.0), agent.id))
}

/// Hashes both numbers (the finaliser of MurmurHash3, public domain). Every build must compute the
/// same, which the standard library's hasher does not promise.
fn weight(partition: PartitionId, agent: i32) -> u64 {
    let mut x =
        partition.0 ^ (u64::from(agent.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests {
    use meta::ids::{AgentId, Incarnation};

    use super::*;

    fn agents(ids: impl IntoIterator<Item = i32>) -> Vec<Agent> {
        ids.into_iter()
            .map(|id| Agent {
                id: AgentId(id),
                name: String::new(),
                host: String::new(),
                port: 0,
                region: String::new(),
                zone: String::new(),
                level: 1,
                incarnation: Incarnation(1),
            })
            .collect()
    }

    fn routes(agents: &[Agent]) -> Vec<AgentId> {
        (0..1_000)
            .filter_map(|partition| agent_for(PartitionId(partition), agents))
            .map(|agent| agent.id)
            .collect()
    }

    #[test]
    fn partitions_spread_evenly() {
        let four = agents(1..=4);
        let routes = routes(&four);
        for agent in &four {
            let share = routes.iter().filter(|id| **id == agent.id).count();
            assert!(
                (150..350).contains(&share),
                "{share} of 1000 for {:?}",
                agent.id
            );
        }
    }

    #[test]
    fn only_the_partitions_of_a_lost_agent_move() {
        let (before, after) = (routes(&agents(1..=4)), routes(&agents([1, 2, 4])));
        for (before, after) in before.iter().zip(&after) {
            assert!(before == after || *before == AgentId(3));
        }
        assert!(agent_for(PartitionId(1), &[]).is_none());
    }
}
