//! The shell around [`crate::presence`]: agents keep a call open at the leader, those that are gone are fenced, and names that
//! are taken refused; control nodes that follow say so, and those that do not are forgotten. It decides nothing of who is there.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use journal::node::{ProposeError, Refusal};
use meta::command::{Command, RegisterAgent};
use meta::ids::Incarnation;
use meta::reply::Reply;
use meta::view::Agent;
use rpc::call::PRESENT_HELD_FOR;
use rpc::peer::Follower;
use rpc::{Error, Return};

use crate::answer::Reached;
use crate::attendance::Attendance;
use crate::node::Node;
use crate::presence::IsHere;
use crate::reach::Change;
use crate::refusing::{all_refuse, places_of};
use crate::roster::check_version;

/// How often the leader looks who is gone.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How often the leader looks whether a process is there whose name another asks for.
const NAMESAKE_EVERY: Duration = Duration::from_millis(50);
/// So often in a row connections are refused before it counts: once may be that of a service in between.
const REFUSALS: u32 = 3;
/// The same while an agent is lost, whose addresses are tried each time.
const TRY_EVERY: Duration = Duration::from_millis(20);
/// How long such a try may take: a refusal comes from another region, too.
const TRY_LIMIT: Duration = Duration::from_millis(200);

/// An agent's call while it is open. Dropped before it is answered, it was lost.
struct Open<'a> {
    node: &'a Node,
    incarnation: Incarnation,
    is_answered: bool,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        let now = host::clock::now();
        let Some(attendance) = &self.node.attendance else {
            return;
        };
        if self.is_answered {
            attendance.lock().answered(now, self.incarnation);
            return;
        }
        attendance.lock().lost(now, self.incarnation);
        attendance.one_is_lost.notify_one();
        // Of two that are lost at one moment either wakes those that wait.
        attendance.losses.set(attendance.losses.get() + 1);
    }
}

impl Node {
    /// Keeps an agent's call open for a while, as long as this node leads, and until another agent is lost; and notes which buckets
    /// the agent reaches. One that another node has passed on does not show that agents reach this one.
    pub(crate) async fn attend(
        &self,
        incarnation: Incarnation,
        Reached(buckets): Reached,
        version: String,
        is_relayed: bool,
    ) -> Result<Return, Error> {
        check_version(&version)?;
        if let Some(attendance) = &self.attendance {
            let now = host::clock::now();
            let mut agents = attendance.lock();
            agents.calls(now, incarnation);
            if is_relayed {
                agents.was_relayed(incarnation);
            }
            agents.says(incarnation, version.into());
            drop(agents);
            let is_enough = self.with_state(|state| state.are_enough(buckets));
            attendance.reach().says(now, incarnation, is_enough);
            if !is_relayed && self.knows_agent(incarnation) {
                attendance.is_reached(now);
            }
        }
        let losses = self.attendance.as_ref().map(|here| &here.losses);
        let before = losses.map(|losses| losses.get());
        let another_is_lost = async {
            match losses {
                Some(losses) => losses.wait_for(|count| Some(*count) != before).await,
                None => std::future::pending().await,
            }
        };
        let mut open = Open {
            node: self,
            incarnation,
            is_answered: false,
        };
        let ended = tokio::select! {
            biased;
            ended = host::clock::timeout(PRESENT_HELD_FOR, self.lead_ends()) => ended,
            _ = another_is_lost => {
                open.is_answered = true;
                return Ok(Return::OneIsLost);
            }
        };
        open.is_answered = true;
        match ended {
            Err(_) => Ok(Return::Done),
            Ok(_) => {
                let leader = self.replica.status().leader;
                Err(self.failed(ProposeError::Definite(Refusal::NotLeader { leader })))
            }
        }
    }
}

impl Node {
    /// Notes that another control node is there, if this one leads, and tells it who else is.
    pub(crate) fn hear_follower(&self, said: Follower) -> Result<Return, Error> {
        if !self.leads() {
            let leader = self.replica.status().leader;
            return Err(self.failed(ProposeError::Definite(Refusal::NotLeader { leader })));
        }
        self.note_follower(said)
    }

    /// Refuses to register an agent whose name another process has that is there; else two of one name would fence each other
    /// for ever in turn. What addresses they advertise tells nothing: two can be behind one. A node that leads no more hears nobody: it
    /// refuses nobody here, and does not keep who asks waiting, who is to find the leader or make the others want one.
    pub(crate) async fn refuse_namesake(
        &self,
        registration: &RegisterAgent,
        is_relayed: bool,
    ) -> Result<(), Error> {
        let Some(attendance) = &self.attendance else {
            return Ok(());
        };
        let asked_at = host::clock::now();
        let mut refused = 0;
        while self.leads()
            && let Some(namesake) = self.agent_namesake(registration)
        {
            let (now, incarnation) = (host::clock::now(), namesake.incarnation);
            if !is_relayed {
                // An agent waits here: a leader that none has registered with yet is not one that none reaches.
                attendance.is_reached(now);
            }
            let is_here = attendance.lock().is_here(now, incarnation, asked_at);
            match is_here {
                IsHere::No => break,
                IsHere::Yes => return Err(runs_already(&namesake)),
                IsHere::NotKnownYet => {}
            }
            refused = match self.is_refused_by(&namesake, registration).await {
                true => refused + 1,
                false => 0,
            };
            if refused >= REFUSALS {
                break;
            }
            host::clock::sleep(NAMESAKE_EVERY).await;
        }
        Ok(())
    }

    /// An agent of this name that is registered, if another process has registered it.
    fn agent_namesake(&self, registration: &RegisterAgent) -> Option<Agent> {
        self.with_state(|state| {
            let mut agents = state.agents();
            let namesake = agents.find(|agent| agent.name == registration.name)?;
            // A call that had no answer is repeated.
            let is_other = state.nonce_of(namesake.incarnation) != Some(registration.nonce);
            is_other.then(|| namesake.clone())
        })
    }

    /// Whether connections are refused where an agent itself was, and it keeps no call open. Where the one who asks for its name is now,
    /// that cannot be told.
    async fn is_refused_by(&self, namesake: &Agent, registration: &RegisterAgent) -> bool {
        let Some(attendance) = &self.attendance else {
            return false;
        };
        let is_elsewhere = namesake.neighbour_address != registration.neighbour_address;
        if !is_elsewhere || attendance.lock().keeps_a_call(namesake.incarnation) {
            return false;
        }
        let itself: Vec<_> = places_of(namesake).into_iter().take(1).collect();
        let tried = all_refuse(&itself, &self.registration.address, &attendance.resolver);
        // Who is silent says nothing.
        let refuses = host::clock::timeout(TRY_EVERY, tried).await;
        refuses.unwrap_or(false)
    }
}

fn runs_already(agent: &Agent) -> Error {
    let name = &agent.name;
    let at = agent.listeners.values().next();
    let at = at.map(|at| format!(", at {}:{}", at.host, at.port));
    let at = at.unwrap_or_default();
    let reason = format!(
        "an agent named {name} runs already{at}: stop it, or give this one another name with --name"
    );
    Error::Refused { reason }
}

/// Waits until it is time to look who is gone.
async fn look_is_due(attendance: &Attendance) {
    let now = host::clock::now();
    let is_one_lost = !attendance.lock().lost_ones(now).is_empty();
    if is_one_lost {
        host::clock::sleep(TRY_EVERY).await;
        return;
    }
    // The wait ends either way.
    let _ended = host::clock::timeout(LOOK_EVERY, attendance.one_is_lost.notified()).await;
}

/// Fences agents that are gone, while this node leads, for ever.
pub(crate) async fn fence(node: Arc<Node>) {
    let Some(attendance) = &node.attendance else {
        return;
    };
    loop {
        look_is_due(attendance).await;
        let leads = node.leads();
        if leads {
            try_lost_ones(&node, attendance).await;
        }
        let alive = match leads {
            true => {
                node.with_state(|state| state.agents().map(|agent| agent.incarnation).collect())
            }
            false => Vec::new(),
        };
        forget_followers(&node, attendance, leads).await;
        note_reach(&node, attendance, leads).await;
        let may_be_cut_off = !node.others().is_empty();
        let gone = attendance
            .lock()
            .gone(host::clock::now(), leads, may_be_cut_off, alive);
        for incarnation in gone {
            let name = node.with_state(|state| {
                let mut agents = state.agents();
                let found = agents.find(|agent| agent.incarnation == incarnation);
                found.map(|agent| (agent.name.clone(), agent.drains))
            });
            let drained = name.as_ref().is_some_and(|(_, drains)| *drains);
            let name = name.map(|(name, _)| name);
            // Whoever is not fenced now is looked at again in a moment.
            match node.propose(&Command::FenceAgent { incarnation }).await {
                // It has ended or registered anew meanwhile.
                Ok((_, Reply::Refused(why))) => {
                    tracing::debug!(%why, agent = name, "an agent is not fenced");
                }
                Ok(_) if drained => tracing::info!(agent = name, "an agent has ended"),
                Ok(_) => tracing::warn!(
                    agent = name,
                    "an agent is not heard any more: it is fenced, and clients are sent to others"
                ),
                Err(error) => tracing::debug!(%error, agent = name, "an agent could not be fenced"),
            }
        }
    }
}

/// Notes for all which agents reach too few buckets, so that clients are sent to others, and which do again.
async fn note_reach(node: &Node, attendance: &Attendance, leads: bool) {
    if !leads {
        return attendance.reach().forget();
    }
    let now = host::clock::now();
    let changes = node.with_state(|state| {
        let agents: Vec<&Agent> = state.agents().collect();
        attendance.reach().changes(now, &agents)
    });
    for Change {
        incarnation,
        cut_off,
    } in changes
    {
        let note = Command::SetAgentCutOff {
            incarnation,
            cut_off,
        };
        let agent = node.with_state(|state| {
            let mut agents = state.agents();
            let found = agents.find(|agent| agent.incarnation == incarnation);
            found.map(|agent| agent.name.clone())
        });
        // What is not noted now is looked at again in a moment.
        match node.propose(&note).await {
            // It has ended or registered anew meanwhile.
            Ok((_, Reply::Refused(why))) => {
                tracing::debug!(%why, agent, cut_off, "what an agent reaches is not noted");
            }
            Ok(_) if cut_off => tracing::warn!(
                agent,
                "an agent reaches too few buckets, and others reach enough: clients are sent to them"
            ),
            Ok(_) => tracing::info!(
                agent,
                "an agent that reached too few buckets is told to clients again"
            ),
            Err(error) => {
                tracing::debug!(%error, agent, cut_off, "what an agent reaches could not be noted");
            }
        }
    }
}

/// Forgets the control nodes that are gone: they hold back no level any more, and are shown to nobody.
async fn forget_followers(node: &Node, attendance: &Attendance, leads: bool) {
    let own = &node.registration.name;
    let others: BTreeMap<u128, String> = node.with_state(|state| {
        let others = state.control_nodes().filter(|other| other.name != *own);
        others
            .map(|other| (other.nonce, other.name.clone()))
            .collect()
    });
    let runs = others.keys().copied();
    let gone = attendance
        .followers()
        .gone(host::clock::now(), leads, false, runs);
    for nonce in gone {
        let name = others[&nonce].clone();
        let forget = Command::RemoveControlNode {
            name: name.clone(),
            nonce,
        };
        match node.propose(&forget).await {
            // A later run of it has registered meanwhile.
            Ok((_, Reply::Refused(why))) => {
                tracing::debug!(%why, name, "a control node is not forgotten");
            }
            Ok(_) => tracing::warn!(
                name,
                "a control node has not been heard for long: it is forgotten"
            ),
            Err(error) => tracing::debug!(%error, name, "a control node could not be forgotten"),
        }
    }
}

/// Tries whether somebody listens where the agents that are lost are found.
async fn try_lost_ones(node: &Node, attendance: &Attendance) {
    let lost = attendance.lock().lost_ones(host::clock::now());
    let tries = lost.into_iter().map(|incarnation| async move {
        let places = node.with_state(|state| {
            let mut agents = state.agents();
            let agent = agents.find(|agent| agent.incarnation == incarnation)?;
            Some(places_of(agent))
        })?;
        let tried = all_refuse(&places, &node.registration.address, &attendance.resolver);
        // Who is silent says nothing.
        let refuse = host::clock::timeout(TRY_LIMIT, tried).await;
        Some((incarnation, refuse.unwrap_or(false)))
    });
    let tried = futures::future::join_all(tries).await;
    let now = host::clock::now();
    for (incarnation, all_refuse) in tried.into_iter().flatten() {
        attendance.lock().tried(now, incarnation, all_refuse);
    }
}
