//! The end of the control node that leads, while all else is well: how long clients of each agent wait until they are
//! acknowledged again. It must not know how another takes the lead.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock;
use host::seeded::{self, Place};
use meta::ids::Incarnation;

use super::client::Client;
use super::{Town, nemesis, probe};

/// The clients that measure are at places from here on.
const FIRST_GAUGE: u16 = 300;
/// All processes serve within this time once all is healed.
const ALL_SERVE_WITHIN: Duration = Duration::from_secs(20);
/// How long all is well before the end of the leader.
const BEFORE: Duration = Duration::from_millis(300);
/// Between two records of one client.
const BETWEEN: Duration = Duration::from_millis(5);
/// How long the answer to one record is waited for, and how long it is measured at most.
const PATIENCE: Duration = Duration::from_secs(10);

/// What becomes of a leader.
#[derive(Clone, Copy, Debug)]
enum End {
    /// Its process is killed: the machine resets its connections, and refuses others.
    Killed,
    /// Its machine is gone: nobody is told, and there is no answer.
    Lost,
    /// Its process stands still.
    Paused,
    /// It reaches no agent, and none reaches it.
    CutFromAgents,
    /// The bucket alone reaches it.
    CutOff,
}

impl End {
    /// What is to become of a leader. One that knows of leads that were given up lately waits longer before it does that.
    fn draw(leader: &control::Node) -> Self {
        let waits_longer = leader.leads_given_up() > 0;
        let drawn = seeded::draw(|rng| rng.below(8));
        match drawn {
            0 => End::Lost,
            1 => End::Paused,
            2 if !waits_longer => End::CutFromAgents,
            3 if !waits_longer => End::CutOff,
            _ => End::Killed,
        }
    }

    fn name(self) -> &'static str {
        match self {
            End::Killed => "killed",
            End::Lost => "lost",
            End::Paused => "paused",
            End::CutFromAgents => "cut from agents",
            End::CutOff => "cut off",
        }
    }

    /// There is service again within this time.
    fn bound(self) -> Duration {
        match self {
            End::Killed => Duration::from_secs(2),
            End::Paused => Duration::from_secs(3),
            // Connections to it are not refused either: each takes a while to fail.
            End::Lost => Duration::from_secs(4),
            // It has to notice that itself, since it appends.
            End::CutFromAgents => Duration::from_secs(4),
            End::CutOff => Duration::from_secs(6),
        }
    }

    fn befall(self, town: &Town, leader: Place) {
        nemesis::tell(town, format!("leader {} {}", leader.0, self.name()));
        match self {
            End::Killed | End::Lost => {
                town.dies(leader);
                seeded::kill(leader, matches!(self, End::Lost));
            }
            End::Paused => seeded::pause(leader),
            End::CutFromAgents | End::CutOff => {}
        }
        let cut_from = match self {
            End::Killed | End::Paused => Vec::new(),
            End::CutFromAgents => town.servers.clone(),
            End::Lost | End::CutOff => town.places(),
        };
        if !cut_from.is_empty() {
            for other in cut_from {
                seeded::cut(leader, other, u64::MAX);
                seeded::cut(other, leader, u64::MAX);
            }
        }
    }

    fn is_over(self, town: &Arc<Town>, leader: Place) {
        seeded::heal();
        seeded::resume(leader);
        if town.comes_back(leader) {
            town.start(leader);
        }
    }
}

/// What is measured.
#[derive(Default)]
struct Measured {
    /// Agents that have acknowledged a record.
    ready: usize,
    /// When the leader ended.
    ended_us: Option<u64>,
    /// For each agent that has acknowledged what was sent since, when that was.
    served_us: Vec<u64>,
    /// Nothing more is to be written.
    is_over: bool,
    /// How many clients write no more.
    done: usize,
}

type Measure = Arc<Mutex<Measured>>;

/// Ends the leader, once all is well, and measures how long clients wait.
pub(super) async fn try_one(town: &Arc<Town>) {
    let measure = Measure::default();
    for agent in &town.servers {
        let writing = write(Arc::clone(town), *agent, Arc::clone(&measure));
        seeded::spawn_at(Place(FIRST_GAUGE + agent.0), "gauge", writing);
    }
    if let Ok(leader) = clock::timeout(ALL_SERVE_WITHIN, well(town, &measure)).await {
        end_it(town, leader, &measure).await;
    } else {
        let within = ALL_SERVE_WITHIN.as_secs();
        town.violation(format!("not all processes serve {within} s after healing"));
    }
    lock(&measure).is_over = true;
    // Whatever is acknowledged is read at the end.
    while lock(&measure).done < town.servers.len() {
        clock::sleep(BETWEEN).await;
    }
}

async fn end_it(town: &Arc<Town>, leader: Place, measure: &Measure) {
    let Some(node) = town.with(|book| book.nodes.get(&leader).cloned()) else {
        return;
    };
    let end = End::draw(&node);
    let agents = incarnations(town);
    town.with(|book| book.agents = agents);
    let ended_us = seeded::now_us();
    lock(measure).ended_us = Some(ended_us);
    end.befall(town, leader);
    let all = async {
        while lock(measure).served_us.len() < town.servers.len() {
            clock::sleep(BETWEEN).await;
        }
    };
    let waited = match clock::timeout(PATIENCE, all).await {
        Ok(()) => {
            let last_us = lock(measure).served_us.iter().copied().max();
            Duration::from_micros(last_us.unwrap_or(ended_us) - ended_us)
        }
        Err(_) => PATIENCE,
    };
    end.is_over(town, leader);
    // An entry that had been held back since before is a sign of life of a leader that is not there.
    if town.with(|book| book.last_fault_us) <= ended_us {
        judge(town, end, waited);
    }
}

fn judge(town: &Town, end: End, waited: Duration) {
    let (name, waited_ms, bound_ms) = (end.name(), waited.as_millis(), end.bound().as_millis());
    seeded::note(format_args!("leader {name}: service after {waited_ms} ms"));
    town.with(|book| book.waits.push((name, waited)));
    if waited > end.bound() {
        town.violation(format!(
            "clients waited {waited_ms} ms, not {bound_ms}, after the leader was {name}"
        ));
    }
}

/// Waits until every process serves, every agent is known and has acknowledged something, and for a while one node leads; yields
/// that one.
async fn well(town: &Arc<Town>, measure: &Measure) -> Place {
    loop {
        let before = leader(town);
        clock::sleep(BEFORE).await;
        let leader = leader(town).filter(|leader| before == Some(*leader));
        let all_serve = town.processes().into_iter().all(|p| town.is_serving(p));
        let agents = town.servers.len();
        let are_known = incarnations(town).len() == agents && lock(measure).ready == agents;
        if let Some(leader) = leader
            && all_serve
            && are_known
        {
            return leader;
        }
    }
}

/// Nobody was fenced since all was well, for all agents were there.
pub(super) fn check_agents(town: &Town) {
    let (before, now) = (town.with(|book| book.agents.clone()), incarnations(town));
    if !before.is_empty() && before != now {
        town.violation(format!(
            "an agent was fenced that was there: {before:?}, then {now:?}"
        ));
    }
}

/// The runs of agents that the newest state knows.
fn incarnations(town: &Town) -> Vec<Incarnation> {
    let agents = town.newest(|state| state.agents().map(|agent| agent.incarnation).collect());
    agents.unwrap_or_default()
}

/// The node that leads; `None` if there is none, or more than one says so.
fn leader(town: &Town) -> Option<Place> {
    town.with(|book| {
        let mut leading = book.nodes.iter().filter(|(_, node)| node.leads());
        let leader = leading.next().map(|(place, _)| *place);
        leader.filter(|_| leading.next().is_none())
    })
}

/// Writes one record after the other at one agent, until one is acknowledged that was sent since the leader's end.
async fn write(town: Arc<Town>, agent: Place, measure: Measure) {
    let mut client = Client::new(vec![agent]);
    let mut is_ready = false;
    for count in 0_u64.. {
        let had_ended = lock(&measure).ended_us.is_some();
        let process = format!("g{}.{count}", agent.0);
        let written = probe::produce(&town, &mut client, &process, PATIENCE).await;
        if written.is_ok() && !is_ready {
            is_ready = true;
            lock(&measure).ready += 1;
        }
        if written.is_ok() && had_ended {
            lock(&measure).served_us.push(seeded::now_us());
            break;
        }
        if lock(&measure).is_over {
            break;
        }
        clock::sleep(BETWEEN).await;
    }
    lock(&measure).done += 1;
}

fn lock(measure: &Measure) -> MutexGuard<'_, Measured> {
    measure.lock().unwrap_or_else(PoisonError::into_inner)
}
