//! Which agent of a zone keeps a part of a file for all of them: rendezvous hashing, as for partitions, so that agents agree
//! without talking. Pure. It must not know how an agent is asked.

use meta::ids::{AgentId, Incarnation};
use meta::view::Agent;

use crate::data::cache::Part;
use crate::route;

/// An agent of the zone that offers what it keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) agent: AgentId,
    pub(super) address: String,
    incarnation: Incarnation,
}

/// The agents of one zone, this one among them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ring {
    own: AgentId,
    members: Vec<Member>,
}

impl Ring {
    /// Those of all agents that are in the zone of `own`, are not about to end and reach the buckets; nobody if it offers nothing, or is not among them.
    pub(super) fn of(agents: &[Agent], own: AgentId) -> Self {
        let this = agents.iter().find(|agent| agent.id == own);
        let Some(this) = this.filter(|this| !this.neighbour_address.is_empty()) else {
            return Ring::default();
        };
        let is_near = |agent: &&Agent| {
            (&agent.region, &agent.zone) == (&this.region, &this.zone)
                && !agent.neighbour_address.is_empty()
                && (agent.takes_clients() || agent.id == own)
        };
        let members = agents.iter().filter(is_near).map(|agent| Member {
            agent: agent.id,
            address: agent.neighbour_address.clone(),
            incarnation: agent.incarnation,
        });
        Ring {
            own,
            members: members.collect(),
        }
    }

    /// True if there is nobody to ask.
    pub(super) fn is_alone(&self) -> bool {
        self.members.len() < 2
    }

    pub(super) fn has(&self, agent: AgentId) -> bool {
        self.members.iter().any(|member| member.agent == agent)
    }

    /// Whom to ask for a part; `None` if that is this agent. A file that an agent of the zone has written lately lies in its
    /// memory.
    pub(super) fn keeper(&self, part: Part, is_recent: bool) -> Option<&Member> {
        if self.is_alone() {
            return None;
        }
        let is_writer = |member: &&Member| member.incarnation == part.file.incarnation;
        let writer = self.members.iter().find(is_writer);
        let key = key(part);
        let weight = |member: &&Member| (route::weight(key, member.agent.0), member.agent);
        let keeper = writer
            .filter(|_| is_recent)
            .or_else(|| self.members.iter().max_by_key(weight))?;
        (keeper.agent != self.own).then_some(keeper)
    }
}

/// A number for a part, the same in every build.
fn key(part: Part) -> u64 {
    let Part { file, nonce, slice } = part;
    let slice = slice.map_or(0, |position| position + 1);
    [file.number, u64::from(nonce), slice]
        .into_iter()
        .fold(file.incarnation.0, |key, next| {
            (key.rotate_left(21) ^ next).wrapping_mul(0x9e37_79b9_7f4a_7c15)
        })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meta::ids::FileId;

    use super::*;

    fn agent(id: i32, zone: &str) -> Agent {
        Agent {
            id: AgentId(id),
            name: format!("agent-{id}"),
            listeners: meta::endpoint::Endpoint::alone("h", 1),
            region: "r".to_owned(),
            zone: zone.to_owned(),
            neighbour_address: format!("h:{id}"),
            level: 1,
            incarnation: Incarnation(100 + u64::from(id.unsigned_abs())),
            drains: false,
            cut_off: false,
        }
    }

    fn part(incarnation: u64, number: u64) -> Part {
        Part {
            file: FileId {
                incarnation: Incarnation(incarnation),
                number,
            },
            nonce: 7,
            slice: None,
        }
    }

    /// Whom each of these agents takes for the keeper.
    fn keepers(agents: &[Agent], part: Part, is_recent: bool) -> Vec<AgentId> {
        let each = agents.iter().map(|own| {
            let ring = Ring::of(agents, own.id);
            let other = ring.keeper(part, is_recent).map(|member| member.agent);
            other.unwrap_or(own.id)
        });
        each.collect()
    }

    #[test]
    fn the_agents_of_a_zone_agree_and_each_keeps_its_share() {
        let agents = [agent(1, "a"), agent(2, "a"), agent(3, "a")];
        let mut shares = BTreeMap::<AgentId, u32>::new();
        for number in 0..3_000 {
            let keepers = keepers(&agents, part(5, number), false);
            assert!(keepers.iter().all(|keeper| *keeper == keepers[0]));
            *shares.entry(keepers[0]).or_default() += 1;
        }
        let is_fair = |share: &u32| (800..1_200).contains(share);
        assert!(
            shares.len() == 3 && shares.values().all(is_fair),
            "{shares:?}"
        );
    }

    #[test]
    fn only_what_an_agent_kept_moves_when_it_goes() {
        let all = [agent(1, "a"), agent(2, "a"), agent(3, "a")];
        for number in 0..500 {
            let before = keepers(&all, part(5, number), false)[0];
            let after = keepers(&all[..2], part(5, number), false)[0];
            assert!(before == after || before == AgentId(3));
        }
    }

    #[test]
    fn what_was_written_lately_is_asked_of_its_writer_if_that_is_in_the_zone() {
        let agents = [agent(1, "a"), agent(2, "a"), agent(3, "b")];
        for number in 0..50 {
            let of = |incarnation, is_recent| {
                keepers(&agents[..2], part(incarnation, number), is_recent)[0]
            };
            assert_eq!(of(102, true), AgentId(2));
            assert_eq!(of(103, true), of(103, false), "its writer is elsewhere");
        }
    }

    #[test]
    fn whoever_is_alone_or_offers_nothing_asks_nobody() {
        let mut agents = [agent(1, "a"), agent(2, "b"), agent(3, "a")];
        assert!(Ring::of(&agents, AgentId(2)).is_alone());
        assert!(Ring::of(&agents, AgentId(4)).is_alone());
        assert!(!Ring::of(&agents, AgentId(1)).is_alone());
        agents[0].neighbour_address.clear();
        assert!(Ring::of(&agents, AgentId(1)).is_alone());
        assert!(Ring::of(&agents, AgentId(3)).is_alone());
    }
}
