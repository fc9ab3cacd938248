//! Agents with their incarnations, and control nodes: the members of the cluster, and which of them
//! may still commit. It must not know what is committed.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::kept::Kept;
use crate::terms::command::{ControlNode, RegisterAgent};
use crate::terms::ids::{AgentId, Incarnation};
use crate::terms::level::Level;
use crate::terms::reply::{Refusal, Reply};

pub use crate::terms::view::Agent;

/// One incarnation of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) agent: AgentId,
    /// The nonce with which its agent registered it.
    pub(crate) nonce: u128,
    /// The only number that can be committed or skipped now.
    pub(crate) next_number: u64,
    /// When it was fenced, in ticks.
    pub(crate) fenced_ticks: Option<u64>,
    /// Skipped numbers and when they were, in ticks, until the grace is over.
    pub(crate) skipped: BTreeMap<u64, u64>,
    /// The outcomes of the last numbers; the last is that of `next_number - 1`.
    pub(crate) kept: VecDeque<Kept>,
}

impl Run {
    /// The outcome of a number below the next, if it is still kept.
    pub(crate) fn kept(&self, number: u64) -> Option<&Kept> {
        let behind = usize::try_from(self.next_number.checked_sub(number)?).ok()?;
        self.kept.get(self.kept.len().checked_sub(behind)?)
    }

    /// Keeps the outcome of the next number and moves on.
    pub(crate) fn settle(&mut self, level: &Level, outcome: Kept) {
        if self.kept.len() >= level.outcomes_kept {
            self.kept.pop_front();
        }
        self.kept.push_back(outcome);
        self.next_number = self.next_number.saturating_add(1);
    }
}

/// All agents and control nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Members {
    pub(crate) agents: BTreeMap<AgentId, Agent>,
    pub(crate) names: BTreeMap<String, AgentId>,
    pub(crate) runs: BTreeMap<Incarnation, Arc<Run>>,
    pub(crate) control_nodes: BTreeMap<String, ControlNode>,
    /// The last id given to an agent; 0 at first.
    pub(crate) last_agent: i32,
    /// The last incarnation given; 0 at first.
    pub(crate) last_incarnation: u64,
}

impl Members {
    /// Whether an agent may commit: its last incarnation is not fenced.
    pub(crate) fn is_alive(&self, agent: &Agent) -> bool {
        self.may_commit(agent.incarnation)
    }

    /// Whether what an agent passes on in this run counts: it was given out, and is not fenced.
    pub(crate) fn may_commit(&self, run: Incarnation) -> bool {
        let run = self.runs.get(&run);
        run.is_some_and(|run| run.fenced_ticks.is_none())
    }

    pub(crate) fn run_mut(&mut self, incarnation: Incarnation) -> Option<&mut Run> {
        self.runs.get_mut(&incarnation).map(Arc::make_mut)
    }

    /// Registers a run of an agent; true if anything changed.
    pub(crate) fn register(
        &mut self,
        level: &Level,
        ticks: u64,
        request: &RegisterAgent,
    ) -> (Reply, bool) {
        if let Err(refusal) = check_agent(level, request) {
            return (Reply::Refused(refusal), false);
        }
        let known = self
            .names
            .get(&request.name)
            .and_then(|id| self.agents.get(id));
        if let Some(agent) = known
            && let Some(run) = self.runs.get(&agent.incarnation)
            && run.nonce == request.nonce
        {
            if run.fenced_ticks.is_some() {
                return (Reply::Refused(Refusal::Fenced), false);
            }
            return (
                Reply::Registered {
                    agent: agent.id,
                    incarnation: agent.incarnation,
                },
                false,
            );
        }
        let id = match known {
            Some(agent) => agent.id,
            None => AgentId(self.last_agent.saturating_add(1)),
        };
        if id.0 == i32::MAX || self.last_incarnation >= level.counter_max {
            return (Reply::Refused(Refusal::Exhausted { what: "agents" }), false);
        }
        if let Some(earlier) = known.map(|agent| agent.incarnation) {
            self.fence(earlier, ticks);
        }
        self.last_agent = self.last_agent.max(id.0);
        self.last_incarnation += 1;
        let incarnation = Incarnation(self.last_incarnation);
        self.names.insert(request.name.clone(), id);
        self.agents.insert(id, agent(id, incarnation, request));
        let run = Run::starting(id, request.nonce);
        self.runs.insert(incarnation, Arc::new(run));
        (
            Reply::Registered {
                agent: id,
                incarnation,
            },
            true,
        )
    }

    /// Fences an incarnation; true if it was not fenced before.
    pub(crate) fn fence(&mut self, incarnation: Incarnation, ticks: u64) -> bool {
        let alive = |run: &&mut Run| run.fenced_ticks.is_none();
        let Some(run) = self.run_mut(incarnation).filter(alive) else {
            return false;
        };
        run.fenced_ticks = Some(ticks);
        true
    }

    /// Notes that an incarnation is about to end; true if it was not known.
    pub(crate) fn drain(&mut self, incarnation: Incarnation) -> bool {
        let mut agents = self.agents.values_mut();
        let agent = agents.find(|agent| agent.incarnation == incarnation && !agent.drains);
        agent.map(|agent| agent.drains = true).is_some()
    }

    /// Notes whether an incarnation reaches too few buckets; true if that was not known.
    pub(crate) fn set_cut_off(&mut self, incarnation: Incarnation, cut_off: bool) -> bool {
        let mut agents = self.agents.values_mut();
        let agent =
            agents.find(|agent| agent.incarnation == incarnation && agent.cut_off != cut_off);
        agent.map(|agent| agent.cut_off = cut_off).is_some()
    }

    /// Gives none of the next ids, and every agent an incarnation in place of its last one, which nobody has: so it registers
    /// anew once it learns of that, and is in the view until then.
    pub(crate) fn pass_over(&mut self, level: &Level, ticks: u64) {
        let last = self.last_agent.saturating_add(level.left_out_agents);
        self.last_agent = last.min(i32::MAX - 1);
        let last = self.last_incarnation.saturating_add(level.left_out_numbers);
        self.last_incarnation = last.min(level.counter_max);
        let alive: Vec<AgentId> = self
            .agents
            .values()
            .filter(|agent| self.is_alive(agent))
            .map(|agent| agent.id)
            .collect();
        for id in alive {
            let Some(earlier) = self.agents.get(&id).map(|agent| agent.incarnation) else {
                continue;
            };
            self.fence(earlier, ticks);
            let nonce = self.runs.get(&earlier).map(|run| run.nonce);
            if let Some(nonce) = nonce
                && self.last_incarnation < level.counter_max
                && let Some(agent) = self.agents.get_mut(&id)
            {
                self.last_incarnation += 1;
                agent.incarnation = Incarnation(self.last_incarnation);
                let run = Run::starting(id, nonce);
                self.runs.insert(agent.incarnation, Arc::new(run));
            }
        }
    }

    pub(crate) fn register_control_node(&mut self, level: &Level, node: &ControlNode) -> Reply {
        let names = [&node.name, &node.claims_as, &node.address, &node.region];
        let checked =
            check_names(level, &names, &node.zone).and_then(|()| level.check_supported(node.level));
        if let Err(refusal) = checked {
            return Reply::Refused(refusal);
        }
        self.control_nodes.insert(node.name.clone(), node.clone());
        Reply::Done
    }

    pub(crate) fn remove_control_node(&mut self, name: &str, nonce: u128) -> Reply {
        let found = self.control_nodes.get(name);
        if found.is_none_or(|node| node.nonce != nonce) {
            return Reply::Refused(Refusal::UnknownControlNode);
        }
        self.control_nodes.remove(name);
        Reply::Done
    }

    /// The first member that does not support a feature level.
    pub(crate) fn find_behind(&self, level: u32) -> Option<(String, u32)> {
        let agents = self.agents.values().filter(|agent| self.is_alive(agent));
        let agents = agents.map(|agent| (&agent.name, agent.level));
        let nodes = self
            .control_nodes
            .values()
            .map(|node| (&node.name, node.level));
        agents
            .chain(nodes)
            .find(|(_, supported)| *supported < level)
            .map(|(name, supported)| (name.clone(), supported))
    }

    /// Forgets what is not needed after the grace: kept outcomes and skips, then the incarnation
    /// once none of its files is left, then its agent if it was the last one.
    pub(crate) fn expire(&mut self, until_ticks: u64, has_files: impl Fn(Incarnation) -> bool) {
        let past = |ticks: &u64| *ticks <= until_ticks;
        let mut gone = Vec::new();
        for (incarnation, run) in &mut self.runs {
            if run.skipped.values().any(&past) {
                Arc::make_mut(run).skipped.retain(|_, ticks| !past(ticks));
            }
            if !run.fenced_ticks.as_ref().is_some_and(&past) {
                continue;
            }
            if !run.kept.is_empty() {
                Arc::make_mut(run).kept.clear();
            }
            if run.skipped.is_empty() && !has_files(*incarnation) {
                gone.push(*incarnation);
            }
        }
        for incarnation in gone {
            let Some(run) = self.runs.remove(&incarnation) else {
                continue;
            };
            let last = |agent: &Agent| agent.incarnation == incarnation;
            if self.agents.get(&run.agent).is_some_and(last)
                && let Some(agent) = self.agents.remove(&run.agent)
            {
                self.names.remove(&agent.name);
            }
        }
    }
}

impl Run {
    fn starting(agent: AgentId, nonce: u128) -> Self {
        Run {
            agent,
            nonce,
            next_number: 0,
            fenced_ticks: None,
            skipped: BTreeMap::new(),
            kept: VecDeque::new(),
        }
    }
}

fn agent(id: AgentId, incarnation: Incarnation, request: &RegisterAgent) -> Agent {
    Agent {
        id,
        name: request.name.clone(),
        listeners: request.listeners.clone(),
        region: request.region.clone(),
        zone: request.zone.clone(),
        neighbour_address: request.neighbour_address.clone(),
        level: request.level,
        incarnation,
        drains: false,
        cut_off: false,
    }
}

fn check_agent(level: &Level, request: &RegisterAgent) -> Result<(), Refusal> {
    let count = request.listeners.len();
    if count == 0 || count > level.listeners_max {
        return Err(Refusal::Invalid {
            what: "an agent must have between 1 and 16 listeners",
        });
    }
    if request.neighbour_address.len() > level.texts.name_bytes_max {
        return Err(Refusal::Invalid {
            what: "the address for other agents of the zone must have at most 255 bytes",
        });
    }
    let listeners = request.listeners.iter();
    let names = listeners.flat_map(|(name, endpoint)| [name, &endpoint.host]);
    let names: Vec<&String> = names.chain([&request.name, &request.region]).collect();
    check_names(level, &names, &request.zone)?;
    level.check_supported(request.level)
}

fn check_names(level: &Level, names: &[&String], zone: &str) -> Result<(), Refusal> {
    let most = level.texts.name_bytes_max;
    let fits = |name: &&String| (1..=most).contains(&name.len());
    if names.iter().all(fits) && zone.len() <= most {
        return Ok(());
    }
    Err(Refusal::Invalid {
        what: "names, address and region must have between 1 and 255 bytes each, a zone at most 255",
    })
}
