//! The end of the control node that leads, or of a way to it, while all else is well: how long clients of each agent wait until
//! they are acknowledged again, records and offsets of groups, and until readers see what others have written since. It must not know how another takes the lead.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock;
use host::seeded::{self, Place};
use meta::ids::Incarnation;
use wire::text::Str;

use super::client::{Broken, Client, Positions};
use super::{Book, KEYS, Town, consumer, nemesis, probe};

/// The clients that measure are at places from here on.
const FIRST_GAUGE: u16 = 300;
/// Those that commit offsets.
const FIRST_COMMITTER: u16 = 400;
/// Those that read.
const FIRST_READER: u16 = 500;
/// All processes serve within this time once all is healed.
const ALL_SERVE_WITHIN: Duration = Duration::from_secs(20);
/// How long all is well before the end of the leader.
const BEFORE: Duration = Duration::from_millis(300);
/// Once all is healed, callers find out by themselves that the leader is reached again within this time.
const UNTIL_CALM: Duration = Duration::from_secs(4);
/// How long it is looked on afterwards.
const CALM: Duration = Duration::from_secs(3);
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
    /// One agent and it do not reach each other; all else is as it was.
    CutFromOneAgent,
    /// All but the bucket reach it.
    CutFromBucket,
    /// It leads on: the others reach agents alone, which they go on telling of what they know.
    OthersBehind,
}

impl End {
    /// What is to become of a leader. One that knows of leads that were given up lately waits longer before it does that.
    fn draw(leader: &control::Node) -> Self {
        let waits_longer = leader.leads_given_up() > 0;
        let drawn = seeded::draw(|rng| rng.below(11));
        match drawn {
            0 => End::Lost,
            1 => End::Paused,
            2 if !waits_longer => End::CutFromAgents,
            3 if !waits_longer => End::CutOff,
            4 => End::CutFromOneAgent,
            5 => End::CutFromBucket,
            6 => End::OthersBehind,
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
            End::CutFromOneAgent => "cut from one agent",
            End::CutFromBucket => "cut from the bucket",
            End::OthersBehind => "left alone by the others",
        }
    }

    /// There is service again within this time.
    fn bound(self) -> Duration {
        match self {
            End::Killed => Duration::from_secs(2),
            End::Paused => Duration::from_secs(3),
            // Connections to it are not refused either: each takes a while to fail.
            End::Lost => Duration::from_secs(4),
            // Others pass calls on to it; what may not be repeated waits until it is clear that its answer is lost.
            End::CutFromOneAgent => Duration::from_secs(2),
            // Nothing that writers need is gone.
            End::OthersBehind => Duration::from_secs(2),
            // It says so itself to those who wait.
            End::CutFromBucket => Duration::from_secs(3),
            // It has to notice that itself, since it appends.
            End::CutFromAgents => Duration::from_secs(4),
            End::CutOff => Duration::from_secs(6),
        }
    }

    /// Readers see within this time what was written since. Agents that are told by a node which does not see the end of the journal
    /// leave it once that is three seconds old, and pause before they follow another; one that was the leader's is found out sooner.
    fn readers_bound(self) -> Duration {
        self.bound().max(Duration::from_secs(4)) + Duration::from_secs(1)
    }

    fn befall(self, town: &Town, leader: Place) {
        nemesis::tell(town, format!("leader {} {}", leader.0, self.name()));
        match self {
            End::Killed | End::Lost => {
                town.dies(leader);
                seeded::kill(leader, matches!(self, End::Lost));
            }
            End::Paused => seeded::pause(leader),
            _ => {}
        }
        let cut_from = match self {
            End::Killed | End::Paused | End::OthersBehind => Vec::new(),
            End::CutFromAgents => town.servers.clone(),
            End::Lost | End::CutOff => town.places(),
            End::CutFromOneAgent => {
                let agents = town.servers.len() as u64;
                vec![town.servers[seeded::draw(|rng| rng.below(agents)) as usize]]
            }
            End::CutFromBucket => vec![town.store.place()],
        };
        for other in cut_from {
            cut(leader, other);
        }
        if matches!(self, End::OthersBehind) {
            leave_behind(town, leader);
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

/// Two places do not reach each other any more.
fn cut(one: Place, other: Place) {
    seeded::cut(one, other, u64::MAX);
    seeded::cut(other, one, u64::MAX);
}

/// Cuts the control nodes that follow from the bucket, from the one that leads and from each other.
fn leave_behind(town: &Town, leader: Place) {
    for place in town.controls.iter().filter(|place| **place != leader) {
        cut(*place, town.store.place());
        for other in town.controls.iter().filter(|other| *other != place) {
            cut(*place, *other);
        }
    }
}

/// What is measured.
#[derive(Default)]
struct Measured {
    /// Clients that something was acknowledged to.
    ready: usize,
    /// When the leader ended.
    ended_us: Option<u64>,
    /// For each client to which something was acknowledged that was sent since, when that was.
    served_us: Vec<u64>,
    /// The same of those that read.
    read_us: Vec<u64>,
    /// Records that were acknowledged since: where they were written, and their offsets.
    written: Vec<(Place, i64)>,
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
        for what in [What::Record, What::Offset, What::Reading] {
            let asking = ask_on(Arc::clone(town), *agent, what, Arc::clone(&measure));
            let first = match what {
                What::Record => FIRST_GAUGE,
                What::Offset => FIRST_COMMITTER,
                What::Reading => FIRST_READER,
            };
            seeded::spawn_at(Place(first + agent.0), "gauge", asking);
        }
    }
    if let Ok(leader) = clock::timeout(ALL_SERVE_WITHIN, well(town, &measure)).await {
        end_it(town, leader, &measure).await;
    } else {
        let within = ALL_SERVE_WITHIN.as_secs();
        town.violation(format!("not all processes serve {within} s after healing"));
    }
    lock(&measure).is_over = true;
    // Whatever is acknowledged is read at the end.
    while lock(&measure).done < gauges(town) {
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
    let are_served =
        |measured: &Measured| measured.served_us.len() + measured.read_us.len() == gauges(town);
    let all = async {
        while !are_served(&lock(measure)) {
            clock::sleep(BETWEEN).await;
        }
    };
    // Who is not served by then has waited so long.
    let _ended = clock::timeout(PATIENCE, all).await;
    let waited = |times_us: &[u64], count: usize| match times_us.iter().max() {
        Some(last_us) if times_us.len() == count => Duration::from_micros(last_us - ended_us),
        _ => PATIENCE,
    };
    let agents = town.servers.len();
    let (written, read) = {
        let measured = lock(measure);
        (
            waited(&measured.served_us, 2 * agents),
            waited(&measured.read_us, agents),
        )
    };
    end.is_over(town, leader);
    stays_calm(town, end).await;
    // An entry that had been held back since before is a sign of life of a leader that is not there.
    if town.with(|book| book.last_fault_us) <= ended_us {
        judge(town, end, written);
        judge_readers(town, end, read);
    }
}

/// All is well again: every agent reaches the leader by itself, and nobody gives up the lead.
async fn stays_calm(town: &Arc<Town>, end: End) {
    // A successor is told how often.
    let given_up = || {
        let of = |book: &mut Book| book.nodes.values().map(|node| node.leads_given_up()).max();
        town.with(of)
    };
    let passed_on = || {
        let of = |book: &mut Book| {
            book.nodes
                .values()
                .map(|node| node.relayed_calls())
                .sum::<u64>()
        };
        town.with(of)
    };
    clock::sleep(UNTIL_CALM).await;
    let before = (given_up(), passed_on(), leader(town));
    clock::sleep(CALM).await;
    let name = end.name();
    if given_up() > before.0 {
        town.violation(format!(
            "a lead was given up as if no agent reached the leader, when all was well after one was {name}"
        ));
    }
    // While the lead is handed over, by one whose clock is wrong, calls may be.
    if passed_on() > before.1 && leader(town) == before.2 {
        town.violation(format!(
            "calls to the leader were passed on by others, when all was well after one was {name}"
        ));
    }
}

fn judge_readers(town: &Town, end: End, waited: Duration) {
    let (name, waited_ms) = (end.name(), waited.as_millis());
    let bound_ms = end.readers_bound().as_millis();
    seeded::note(format_args!(
        "leader {name}: readers go on after {waited_ms} ms"
    ));
    if waited_ms > bound_ms {
        town.violation(format!(
            "readers waited {waited_ms} ms, not {bound_ms}, after the leader was {name}"
        ));
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
        let are_all = incarnations(town).len() == town.servers.len();
        let are_known = are_all && lock(measure).ready == gauges(town);
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

/// What a client asks of its agent, again and again.
#[derive(Clone, Copy, Debug)]
enum What {
    /// To write a record.
    Record,
    /// To commit an offset of a group, by itself.
    Offset,
    /// To read on from where the records ended at first.
    Reading,
}

/// How many clients measure.
fn gauges(town: &Town) -> usize {
    3 * town.servers.len()
}

/// Takes note that a client is served that was since the leader's end; false if it reads, and has not seen yet what another agent has
/// taken since.
fn note_served(
    town: &Town,
    agent: Place,
    what: What,
    positions: &Positions,
    measure: &Measure,
) -> bool {
    let now_us = seeded::now_us();
    let mut measured = lock(measure);
    if !matches!(what, What::Reading) {
        measured.served_us.push(now_us);
        return true;
    }
    let Some(position) = positions.get(KEYS[1]) else {
        return false;
    };
    let is_alone = town.servers.len() == 1;
    let mut others = measured.written.iter();
    let sees_another = others.any(|(at, offset)| (is_alone || *at != agent) && offset < position);
    if sees_another {
        measured.read_us.push(now_us);
    }
    sees_another
}

/// Reads on, at first from the end of what is there.
async fn read_on(
    town: &Town,
    client: &mut Client,
    positions: &mut Positions,
) -> Result<(), Broken> {
    if positions.is_empty() {
        *positions = consumer::list(client, consumer::LATEST).await?;
        positions.retain(|key, _| *key == KEYS[1]);
        return Ok(());
    }
    let fetched = consumer::fetch(town, client, positions).await?;
    if !fetched.reset.is_empty() {
        positions.clear();
    }
    Ok(())
}

/// Asks one thing after the other of one agent, until one is acknowledged that was sent since the leader's end.
async fn ask_on(town: Arc<Town>, agent: Place, what: What, measure: Measure) {
    let mut client = Client::new(vec![agent]);
    let mut positions = Positions::new();
    let mut is_ready = false;
    for count in 0_u32.. {
        let had_ended = lock(&measure).ended_us.is_some();
        let process = format!("g{}.{count}", agent.0);
        let done = match what {
            What::Record => {
                let written = probe::produce(&town, &mut client, &process, PATIENCE).await;
                if had_ended && let Ok(offset) = written {
                    lock(&measure).written.push((agent, offset));
                }
                written.map(drop)
            }
            What::Offset => {
                let group = Str::from(format!("gauge-{}", agent.0));
                consumer::commit(&mut client, group, count.into(), PATIENCE).await
            }
            What::Reading => read_on(&town, &mut client, &mut positions).await,
        };
        if done.is_ok() && !is_ready {
            is_ready = true;
            lock(&measure).ready += 1;
        }
        if done.is_ok() && had_ended && note_served(&town, agent, what, &positions, &measure) {
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
