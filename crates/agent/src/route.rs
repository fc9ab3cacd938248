//! Which agents clients of a listener are told of, and which of them, by region and zone, they are sent to for a partition:
//! rendezvous hashing, so that agents agree without talking, and a partition moves only when its agent comes or goes. Pure.
//! It must not know how a client says where it is.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::OnceLock;

use meta::endpoint::Endpoint;
use meta::ids::{AgentId, PartitionId};
use meta::view::Agent;

/// The most replicas that are shown of a partition: the answer to a request for all partitions has each of them twice, and
/// what a topic asks for has no bound of its own.
pub(crate) const REPLICAS_MAX: usize = 16;

/// A zone of a region that some agent is in, by its number among those of one set of agents, and the region by its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Zone {
    number: u32,
    region: u32,
}

/// Where a client is, as far as agents are there: in a region, and in a zone of it if it names one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    region: u32,
    zone: Option<Zone>,
}

impl Place {
    fn holds(self, zone: Zone) -> bool {
        self.region == zone.region && self.zone.is_none_or(|own| own == zone)
    }
}

impl From<Zone> for Place {
    fn from(zone: Zone) -> Self {
        Place {
            region: zone.region,
            zone: Some(zone),
        }
    }
}

/// An agent as clients of one listener are told of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Broker {
    pub id: AgentId,
    pub endpoint: Endpoint,
    /// Empty if the cluster spans none.
    pub region: String,
    /// `None` if the agent does not say.
    pub zone: Option<String>,
}

impl Broker {
    /// An agent as clients of a listener are told of it; `None` if it does not have that.
    pub(crate) fn at(listener: &str, agent: &Agent) -> Option<Broker> {
        let endpoint = agent.listeners.get(listener)?.clone();
        let zone = (!agent.zone.is_empty()).then(|| agent.zone.clone());
        Some(Broker {
            id: agent.id,
            endpoint,
            region: agent.region.clone(),
            zone,
        })
    }
}

/// The agents of a cluster, by the listeners that they have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Routes {
    by_listener: BTreeMap<String, Reach>,
    /// Agents that can be reached by one listener or another; most clusters have one such set.
    sets: Vec<Set>,
}

/// What clients of one listener can reach.
#[derive(Debug, PartialEq, Eq)]
struct Reach {
    brokers: Vec<Broker>,
    /// Its agents' place in [`Routes::sets`].
    set: usize,
}

/// Agents among which partitions are divided.
#[derive(Debug, PartialEq, Eq)]
struct Set {
    /// Each with the number of its zone.
    agents: Vec<(AgentId, Zone)>,
    /// The regions of the agents and the zones that they name in them, sorted; agents without one count as of one more, the empty
    /// one of their region.
    zones: Vec<(String, String)>,
}

/// Partitions of a topic that are placed together, once one of them is asked for: with a hundred agents that takes about a
/// millisecond.
const PIECE: usize = 256;

/// The replicas of a topic's partitions, piece by piece, each for every set of agents.
#[derive(Debug)]
pub(crate) struct Placed {
    /// How many replicas are wanted of each partition.
    wanted: usize,
    pieces: Box<[OnceLock<Vec<PlacedIn>>]>,
}

/// The partitions of a topic, and where agents put them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Places<'a> {
    routes: &'a Routes,
    partitions: &'a [PartitionId],
    placed: &'a Placed,
}

/// The replicas within one set: so many of each partition, one partition after another.
#[derive(Debug)]
struct PlacedIn {
    width: usize,
    replicas: Box<[Replica]>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Replica {
    agent: AgentId,
    zone: Zone,
}

/// The replicas of one partition, as clients of one place see them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replicas<'a> {
    all: &'a [Replica],
    /// Which of them clients of the place are sent to.
    leader: usize,
}

impl Routes {
    pub(crate) fn new(agents: &[Agent]) -> Self {
        let mut routes = Routes::default();
        let names = agents.iter().flat_map(|agent| agent.listeners.keys());
        for name in names {
            if !routes.by_listener.contains_key(name) {
                let reach = routes.reach_of(name, agents);
                routes.by_listener.insert(name.clone(), reach);
            }
        }
        routes
    }

    fn reach_of(&mut self, listener: &str, agents: &[Agent]) -> Reach {
        let broker = |agent: &Agent| Broker::at(listener, agent);
        let brokers: Vec<Broker> = agents.iter().filter_map(broker).collect();
        // An agent that drains is shown until it has ended, with nothing to ask it for: clients take a partition from an agent
        // in order, but drop what is under way to one that is not shown any more. They stay with it if they reach no other. So it
        // is with one that is cut off from the buckets, which is better than one that ends.
        let sets: [fn(&Agent) -> bool; 3] = [Agent::takes_clients, |agent| !agent.drains, |_| true];
        let named = sets.into_iter().map(|takes| {
            let agents = agents.iter().filter(|agent| takes(agent));
            agents.filter_map(broker).collect::<Vec<Broker>>()
        });
        let named = named.into_iter().find(|named| !named.is_empty());
        let set = Set::of(&named.unwrap_or_default());
        let known = self.sets.iter().position(|other| *other == set);
        let set = known.unwrap_or_else(|| {
            self.sets.push(set);
            self.sets.len() - 1
        });
        Reach { brokers, set }
    }

    /// The agents that have a listener, by id, those that drain too.
    pub(crate) fn brokers(&self, listener: &str) -> &[Broker] {
        let reach = self.by_listener.get(listener);
        reach.map_or(&[], |reach| &reach.brokers)
    }

    pub(crate) fn broker(&self, listener: &str, id: AgentId) -> Option<&Broker> {
        self.brokers(listener).iter().find(|broker| broker.id == id)
    }

    /// Whether clients of a listener are sent to an agent.
    pub(crate) fn leads_to(&self, listener: &str, id: AgentId) -> bool {
        let set = self.set(listener);
        set.is_some_and(|set| set.agents.iter().any(|(agent, _)| *agent == id))
    }

    /// One of the agents to which clients of a listener are sent, in their place if one there has it: the same for one `key`,
    /// whichever agent of a region is asked, until that one goes or a new one takes its share.
    pub(crate) fn any(&self, listener: &str, place: Option<Place>, key: u64) -> Option<&Broker> {
        let agents = self.set(listener)?.agents.iter();
        let is_there = |of: Zone| place.is_some_and(|place| place.holds(of));
        let (id, _) = agents.max_by_key(|(id, of)| (is_there(*of), weight(key, id.0), *id))?;
        self.broker(listener, *id)
    }

    /// A zone by its name, if an agent that has the listener is in it; of this region, if one is named.
    pub(crate) fn zone(&self, listener: &str, region: Option<&str>, name: &str) -> Option<Zone> {
        let set = self.set(listener).filter(|_| !name.is_empty())?;
        let is_meant = |of: &str| region.is_none_or(|region| region == of);
        let mut zones = set.zones.iter();
        let found = zones.find(|(of, zone)| zone == name && is_meant(of))?;
        set.zone(found)
    }

    /// A region, if an agent that has the listener is in it.
    pub(crate) fn region(&self, listener: &str, name: &str) -> Option<Place> {
        let set = self.set(listener).filter(|_| !name.is_empty())?;
        let found = set.zones.iter().find(|(region, _)| region == name)?;
        let region = set.zone(found)?.region;
        Some(Place { region, zone: None })
    }

    /// How many replicas clients of a listener are shown of a topic that wants so many.
    pub(crate) fn width(&self, listener: &str, wanted: usize) -> usize {
        self.set(listener).map_or(0, |set| set.width(wanted))
    }

    /// Where the partitions of a topic are, of which `placed` keeps what was asked for.
    pub(crate) fn places<'a>(
        &'a self,
        partitions: &'a [PartitionId],
        placed: &'a Placed,
    ) -> Places<'a> {
        Places {
            routes: self,
            partitions,
            placed,
        }
    }

    fn set(&self, listener: &str) -> Option<&Set> {
        self.sets.get(self.by_listener.get(listener)?.set)
    }
}

impl Placed {
    /// Nothing yet of the partitions of a topic that wants so many replicas.
    pub(crate) fn new(partitions: usize, wanted: usize) -> Self {
        let pieces = (0..partitions.div_ceil(PIECE)).map(|_| OnceLock::new());
        Placed {
            wanted,
            pieces: pieces.collect(),
        }
    }
}

impl<'a> Places<'a> {
    /// The replicas of each partition, in their order, as clients of a listener and a place see them; empty if no agent
    /// has the listener. They are worked out as they are taken.
    pub(crate) fn replicas(
        self,
        listener: &str,
        place: Option<Place>,
    ) -> impl Iterator<Item = Replicas<'a>> + use<'a> {
        let reach = self.routes.by_listener.get(listener);
        let set = reach.map(|reach| reach.set).into_iter();
        let pieces = set.flat_map(move |set| {
            (0..self.placed.pieces.len()).filter_map(move |number| self.piece(number, set))
        });
        let all = pieces.filter(|piece| piece.width > 0);
        let all = all.flat_map(|piece| piece.replicas.chunks_exact(piece.width));
        all.map(move |all| Replicas {
            all,
            leader: place.and_then(|place| in_place(all, place)).unwrap_or(0),
        })
    }

    /// The agent to which clients of a zone are sent for the partition of an index, if the zone has one that is shown as
    /// a replica.
    pub(crate) fn agent_in(self, index: usize, listener: &str, zone: Zone) -> Option<AgentId> {
        self.partitions.get(index)?;
        let set = self.routes.by_listener.get(listener)?.set;
        let piece = self.piece(index / PIECE, set)?;
        let from = (index % PIECE) * piece.width;
        let all = piece.replicas.get(from..from + piece.width)?;
        let at = all.iter().position(|replica| replica.zone == zone)?;
        Some(all[at].agent)
    }

    /// A piece of the partitions, as a set of agents has it.
    fn piece(self, number: usize, set: usize) -> Option<&'a PlacedIn> {
        let from = number * PIECE;
        let place = || {
            let to = self.partitions.len().min(from + PIECE);
            let partitions = self.partitions.get(from..to).unwrap_or_default();
            let sets = self.routes.sets.iter();
            sets.map(|set| set.place(partitions, self.placed.wanted))
                .collect()
        };
        let piece = self.placed.pieces.get(number)?.get_or_init(place);
        piece.get(set)
    }
}

/// The first replica of a client's zone; if none is shown, of its region.
fn in_place(all: &[Replica], place: Place) -> Option<usize> {
    let region = Place {
        zone: None,
        ..place
    };
    let first = |place: Place| all.iter().position(|replica| place.holds(replica.zone));
    first(place).or_else(|| first(region))
}

impl Set {
    fn of(brokers: &[Broker]) -> Self {
        let zone = |broker: &Broker| {
            let zone = broker.zone.clone().unwrap_or_default();
            (broker.region.clone(), zone)
        };
        let mut zones: Vec<_> = brokers.iter().map(zone).collect();
        zones.sort_unstable();
        zones.dedup();
        let mut set = Set {
            agents: Vec::new(),
            zones,
        };
        let numbered = brokers.iter();
        let numbered = numbered.filter_map(|broker| Some((broker.id, set.zone(&zone(broker))?)));
        set.agents = numbered.collect();
        set
    }

    /// The numbers of a zone and of its region, which is that of the region's first zone.
    fn zone(&self, zone: &(String, String)) -> Option<Zone> {
        let number = self.zones.binary_search(zone).ok()?;
        let region = self.zones.partition_point(|(region, _)| *region < zone.0);
        Some(Zone {
            number: u32::try_from(number).ok()?,
            region: u32::try_from(region).ok()?,
        })
    }

    /// Every partition of a topic has as many: tools take a topic whose partitions differ for one that is being moved.
    fn width(&self, wanted: usize) -> usize {
        if self.agents.is_empty() {
            return 0;
        }
        wanted.max(self.zones.len()).min(REPLICAS_MAX)
    }

    fn place(&self, partitions: &[PartitionId], wanted: usize) -> PlacedIn {
        let width = self.width(wanted);
        let mut replicas = Vec::with_capacity(partitions.len() * width);
        let mut ranking = Ranking::default();
        for partition in partitions {
            let ranked = ranking.rank(self, *partition);
            // With fewer agents than replicas some are named again: so the number is what was asked for, whoever runs.
            replicas.extend(ranked.cycle().take(width));
        }
        let replicas = replicas.into();
        PlacedIn { width, replicas }
    }
}

/// Memory for the order of agents, used for one partition after another.
#[derive(Default)]
struct Ranking {
    ranked: Vec<Ranked>,
    /// By zone: whether it has had an agent.
    seen: Vec<bool>,
}

struct Ranked {
    weight: u64,
    replica: Replica,
    is_first_of_zone: bool,
}

impl Ranking {
    /// All agents in the order in which they are shown: the first of each zone, then the others, heaviest first.
    fn rank(
        &mut self,
        set: &Set,
        partition: PartitionId,
    ) -> impl Iterator<Item = Replica> + Clone + '_ {
        self.seen.clear();
        self.seen.resize(set.zones.len(), false);
        self.ranked.clear();
        self.ranked
            .extend(set.agents.iter().map(|(agent, zone)| Ranked {
                weight: weight(partition.0, agent.0),
                replica: Replica {
                    agent: *agent,
                    zone: *zone,
                },
                is_first_of_zone: false,
            }));
        self.ranked
            .sort_unstable_by_key(|one| Reverse((one.weight, one.replica.agent)));
        for one in &mut self.ranked {
            if let Some(seen) = self.seen.get_mut(one.replica.zone.number as usize) {
                one.is_first_of_zone = !std::mem::replace(seen, true);
            }
        }
        self.ranked.sort_by_key(|one| !one.is_first_of_zone);
        self.ranked.iter().map(|one| one.replica)
    }
}

impl<'a> Replicas<'a> {
    /// The agent that clients are sent to.
    pub(crate) fn leader(&self) -> AgentId {
        self.all[self.leader].agent
    }

    /// All of them, the leader first: tools take another first one for the one that ought to lead.
    pub(crate) fn iter(&self) -> impl Iterator<Item = AgentId> + use<'a> {
        let (before, after) = self.all.split_at(self.leader);
        let (leader, after) = after.split_at(1);
        let all = leader.iter().chain(before).chain(after);
        all.map(|replica| replica.agent)
    }
}

/// Hashes both numbers (the finaliser of MurmurHash3, public domain). Every build must compute the
/// same, which the standard library's hasher does not promise.
pub(crate) fn weight(key: u64, agent: i32) -> u64 {
    let mut x = key ^ (u64::from(agent.cast_unsigned()).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

#[cfg(test)]
mod tests;
