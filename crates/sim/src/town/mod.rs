//! The town: control nodes and agents, each a process of its own, or all in one as `seaway dev` starts them, with all their
//! shells, on simulated machines, over a simulated network and a bucket of single objects, with Kafka
//! clients around them; and the judgement of what clients saw and what lies in the bucket.
//!
//! One seed is one run. Everything that runs in a process is production's code; what is ours is the
//! machine below it ([`host::seeded`]), the bucket and the clients. Must not reach around production.

mod apart;
mod bucket;
mod client;
mod consumer;
mod failover;
mod late;
mod lister;
mod member;
mod nemesis;
mod probe;
mod producer;
mod server;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use host::clock;
use host::rng::Rng;
use host::seeded::{self, Place};
use meta::ids::{FileId, Incarnation};
use meta::places::{Fate, FileRef};
use store::bucket::{Key, Op};

use crate::checker::{self, Report};
use crate::faults::{Fault, Faults};
use crate::mutation::Mutation;
use crate::recorder::Recorder;
use crate::scheduler::Trace;
use crate::world::{Outcome, Settings};

/// Partitions, as histories name them: one topic is kept for ever, one is kept short.
const KEYS: [&str; 3] = [SHORT, "t/0", "t/1"];
const SHORT: &str = "short/0";
const STORE: Place = Place(1);
const FIRST_SERVER: u16 = 11;
const FIRST_CONTROL: u16 = 51;
const FIRST_CLIENT: u16 = 101;
/// Before the first fault.
const QUIET: Duration = Duration::from_secs(2);
/// Load under faults lasts so long at least, and up to twice as long.
const LOAD_US: u64 = 5_000_000;
/// After the last fault there is service again within this time.
const SERVICE_WITHIN: Duration = Duration::from_secs(5);
/// After healing, clients may take so long to finish.
const FINISH_WITHIN: Duration = Duration::from_secs(60);
/// A consumer that lags for longer than this after healing is stuck.
const LAG_BOUND_US: u64 = 20_000_000;

/// Topic and partition of a key.
fn key_parts(key: &str) -> (&str, i32) {
    let (topic, partition) = key.split_once('/').unwrap_or((key, ""));
    (topic, partition.parse().unwrap_or(-1))
}

/// The file that an object is by its name.
fn file_of(key: &str) -> Option<FileRef> {
    let (id, nonce) = store::layout::parse_file_key(&Key::new(key).ok()?)?;
    let file = FileId {
        incarnation: Incarnation(id.incarnation),
        number: id.number,
    };
    Some(FileRef { file, nonce })
}

/// What is written down of a run.
struct Book {
    history: Recorder,
    next_value: i64,
    violations: Vec<String>,
    faults: Faults,
    /// By entry: what replicas digest to there.
    digests: BTreeMap<u64, Vec<u8>>,
    /// The last control node of each process, dead or not, and whether its process is up and serves.
    nodes: BTreeMap<Place, Arc<control::Node>>,
    /// Of those before them the one that had come furthest: a start begins behind it.
    furthest: Option<Arc<control::Node>>,
    up: BTreeMap<Place, bool>,
    serving: BTreeMap<Place, bool>,
    has_enough: bool,
    /// The bucket refuses everything until then, unless all is healed.
    away_until_us: u64,
    /// How long clients waited for service after the end of a leader, by what it came to.
    waits: Vec<(&'static str, Duration)>,
    /// The runs of agents once all was well.
    agents: Vec<Incarnation>,
    /// When all was healed, or when a put that had been held back brought an entry after that: to followers it is a
    /// leader's sign of life.
    last_fault_us: u64,
    /// The clock of a control node has gone a year ahead.
    is_year_lost: bool,
}

/// How a run's processes are shaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    /// Each has an agent and a control node.
    Together,
    /// Each is an agent or a control node.
    Apart,
}

/// What everything of a run shares.
struct Town {
    /// Those to which clients connect.
    servers: Vec<Place>,
    /// Control nodes that are processes of their own.
    controls: Vec<Place>,
    clients: Vec<Place>,
    plan: server::Plan,
    store: Arc<bucket::Store>,
    book: Mutex<Book>,
}

impl Town {
    fn draw(shape: Shape, rng: &mut Rng) -> Self {
        let mut faults = Faults::draw_of(&Fault::TOWN, rng);
        faults.hold();
        let (controls, servers) = match shape {
            Shape::Together => (0, 1 + rng.below(3)),
            Shape::Apart if rng.once_in(4) => (1 + rng.below(3), 1 + rng.below(3)),
            Shape::Apart => (3, 3),
        };
        let grace = if faults.has(Fault::ShortGrace) {
            Duration::from_millis(rng.below(20))
        } else {
            Duration::from_millis(1_000 + rng.below(4_000))
        };
        let is_alone = (controls, servers) == (0, 1);
        let plan = server::Plan::draw(rng, is_alone, grace);
        let clients = 3 + rng.below(5);
        Town {
            servers: (0..servers)
                .map(|n| Place(FIRST_SERVER + n as u16))
                .collect(),
            controls: (0..controls)
                .map(|n| Place(FIRST_CONTROL + n as u16))
                .collect(),
            clients: (0..clients)
                .map(|n| Place(FIRST_CLIENT + n as u16))
                .collect(),
            plan,
            store: Arc::new(bucket::Store::new(STORE)),
            book: Mutex::new(Book {
                history: Recorder::default(),
                next_value: 0,
                violations: Vec::new(),
                faults,
                digests: BTreeMap::new(),
                nodes: BTreeMap::new(),
                furthest: None,
                up: BTreeMap::new(),
                serving: BTreeMap::new(),
                has_enough: false,
                away_until_us: 0,
                waits: Vec::new(),
                agents: Vec::new(),
                last_fault_us: 0,
                is_year_lost: false,
            }),
        }
    }

    fn with<T>(&self, with: impl FnOnce(&mut Book) -> T) -> T {
        with(&mut self.book.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Writes into the history, at the true time.
    fn record<T>(&self, record: impl FnOnce(u64, &mut Recorder) -> T) -> T {
        self.with(|book| record(seeded::now_us(), &mut book.history))
    }

    /// Whether the fault strikes.
    fn strike(&self, fault: Fault) -> bool {
        self.with(|book| seeded::draw(|rng| book.faults.strike(fault, rng)))
    }

    fn is_healed(&self) -> bool {
        self.with(|book| book.faults.healed())
    }

    fn is_bucket_away(&self) -> bool {
        self.with(|book| !book.faults.healed() && seeded::now_us() < book.away_until_us)
    }

    fn rate(&self, fault: Fault) -> u64 {
        self.with(|book| book.faults.rate(fault))
    }

    /// Something is wrong.
    fn violation(&self, what: String) {
        let at_ms = seeded::now_us() / 1_000;
        seeded::note(format_args!("VIOLATION {what}"));
        self.with(|book| book.violations.push(format!("{what} (at {at_ms} ms)")));
    }

    /// A value that nobody has sent.
    fn value(&self) -> i64 {
        self.with(|book| {
            book.next_value += 1;
            book.next_value
        })
    }

    /// Whether producers may stop.
    fn has_enough(&self) -> bool {
        self.with(|book| book.has_enough)
    }

    /// Everything that can be cut off, the bucket excepted.
    fn places(&self) -> Vec<Place> {
        let all = self.servers.iter().chain(&self.clients);
        all.chain(&self.controls).copied().collect()
    }

    /// All processes of the cluster.
    fn processes(&self) -> Vec<Place> {
        self.servers.iter().chain(&self.controls).copied().collect()
    }

    /// Starts the process of a machine, which must not run.
    fn start(self: &Arc<Self>, place: Place) {
        let town = Arc::clone(self);
        let is_control = self.controls.contains(&place);
        let are_apart = !self.controls.is_empty();
        seeded::spawn_at(place, "server", async move {
            let ended = match (is_control, are_apart) {
                (true, _) => apart::control(&town, place).await,
                (false, true) => apart::agent(&town, place).await,
                (false, false) => server::serve(&town, place).await,
            };
            match ended {
                Ok(never) => match never {},
                Err(why) => town.violation(format!("process {} ended: {why}", place.0)),
            }
        });
    }

    fn started(&self, place: Place, node: &Arc<control::Node>) {
        self.with(|book| {
            let before = book.nodes.insert(place, Arc::clone(node));
            let known = before.into_iter().chain(book.furthest.take());
            book.furthest = known.max_by_key(|node| node.journal_status().index);
        });
    }

    fn serves(&self, place: Place) {
        seeded::note(format_args!("{} serves", place.0));
        self.with(|book| book.serving.insert(place, true));
    }

    /// Takes note that a process dies; false if it is dead.
    fn dies(&self, place: Place) -> bool {
        self.with(|book| {
            book.serving.insert(place, false);
            book.up.insert(place, false) == Some(true)
        })
    }

    /// Takes note that a process comes up; false if it is up.
    fn comes_back(&self, place: Place) -> bool {
        self.with(|book| book.up.insert(place, true) != Some(true))
    }

    fn is_serving(&self, place: Place) -> bool {
        self.with(|book| book.serving.get(&place) == Some(&true))
    }

    /// Those to which clients can connect.
    fn serving_clients(&self) -> Vec<Place> {
        let servers = self.servers.iter().copied();
        servers.filter(|place| self.is_serving(*place)).collect()
    }

    /// A request of a process is about to take effect in the bucket.
    fn before_effect(self: &Arc<Self>, from: Place, op: Op, key: &str) {
        if op == Op::Delete {
            self.check_delete(key);
        }
        if self.strike(Fault::KillBetweenEffects) {
            nemesis::strike_down(self, from);
        }
    }

    /// Nothing is deleted that the newest state calls live, may yet call so, or has tombstoned less than a grace ago
    /// (rules 13 to 16).
    fn check_delete(&self, key: &str) {
        let Some(found) = file_of(key) else { return };
        let grace_ms = u64::try_from(self.plan.grace.as_millis()).unwrap_or(u64::MAX);
        let wrong = self.newest(|state| match state.fate(found) {
            Fate::Live => Some("live"),
            Fate::Undecided => Some("undecided"),
            Fate::Tombstoned => {
                let since = state
                    .file(found.file)
                    .and_then(|file| file.tombstoned_ticks);
                let past = state
                    .stamp()
                    .ticks_millis
                    .saturating_sub(since.unwrap_or(0));
                (past < grace_ms).then_some("newly tombstoned")
            }
            Fate::Dead => None,
        });
        if let Some(wrong) = wrong.flatten() {
            self.violation(format!("the {wrong} file {key} was deleted"));
        }
    }

    /// No live file is ever absent (rule 16).
    fn check_missing(&self, key: &[u8]) {
        let found = std::str::from_utf8(key).ok().and_then(file_of);
        let fate = found.and_then(|found| self.newest(|state| state.fate(found)));
        if let (Some(Fate::Live), Some(FileRef { file, .. })) = (fate, found) {
            self.violation(format!("the live file {file} vanished under a reader"));
        }
    }

    /// Looks at the state that has applied most, wherever that is.
    fn newest<T>(&self, look: impl FnOnce(&meta::State) -> T) -> Option<T> {
        let nodes = self.with(|book| {
            let nodes = book.nodes.values().chain(&book.furthest);
            nodes.cloned().collect::<Vec<_>>()
        });
        let newest = nodes
            .iter()
            .max_by_key(|node| node.journal_status().index)?;
        Some(newest.with_state(look))
    }

    /// Replicas are alike after every entry.
    fn compare_digests(&self, index: u64, digest: &[u8]) {
        let differs = self.with(|book| {
            let first = book.digests.entry(index).or_insert_with(|| digest.to_vec());
            first != digest
        });
        if differs {
            self.violation(format!("replicas differ after entry {index}"));
        }
    }
}

/// Runs one seed: control nodes and agents are processes of their own.
pub fn run(settings: Settings, trace: Trace) -> Outcome {
    run_shaped(Shape::Apart, settings, trace)
}

/// Runs one seed: each process has an agent and a control node, as `seaway dev` starts it.
pub fn run_together(settings: Settings, trace: Trace) -> Outcome {
    run_shaped(Shape::Together, settings, trace)
}

fn run_shaped(shape: Shape, settings: Settings, trace: Trace) -> Outcome {
    let trace = Rc::new(RefCell::new(trace));
    let mut rng = Rng::seeded(settings.seed);
    let town = Arc::new(Town::draw(shape, &mut rng));
    let (log, shared) = (Rc::clone(&trace), Arc::clone(&town));
    let log = Box::new(move |now_us, what: std::fmt::Arguments<'_>| {
        log.borrow_mut().line(now_us, what);
    });
    let listening = Arc::clone(&town);
    let left_out = settings.mutation.and_then(Mutation::left_out);
    let ran = seeded::run(rng.next_u64(), log, async move {
        if let Some(rule) = left_out {
            seeded::leave_out(rule);
        }
        seeded::listen_to(move |what, number, fact| match what {
            "applied" => listening.compare_digests(number, &fact),
            "missing" => listening.check_missing(&fact),
            _ => unreachable!("{what} is not told"),
        });
        live(&shared).await;
        (seeded::panics(), seeded::disturbances())
    });
    let mut trace = trace.borrow_mut();
    let mut disturbances = 0;
    match ran {
        Ok(ran) => {
            trace.line(
                u64::MAX,
                format_args!("{} turns {:016x}", ran.turns, ran.hash),
            );
            disturbances = ran.value.1;
            town.with(|book| book.violations.extend(ran.value.0));
        }
        Err(why) => town.with(|book| book.violations.push(why)),
    }
    judge(&town, trace.digest(), disturbances)
}

async fn live(town: &Arc<Town>) {
    nemesis::set_clocks(town);
    for place in town.processes() {
        town.comes_back(place);
        town.start(place);
    }
    probe::create_topics(town).await;
    start_clients(town);
    clock::sleep(QUIET).await;
    let rage = host::task::spawn("nemesis", nemesis::rage(Arc::clone(town)));
    clock::sleep(Duration::from_micros(
        LOAD_US + seeded::draw(|rng| rng.below(LOAD_US)),
    ))
    .await;
    drop(rage);
    nemesis::heal(town);
    if !serves_in_time(town).await {
        let within = SERVICE_WITHIN.as_secs();
        town.violation(format!("no service within {within} s of the last fault"));
    }
    let last_us = town.with(|book| book.last_fault_us);
    seeded::note(format_args!(
        "service after {} us",
        seeded::now_us() - last_us
    ));
    clock::sleep(Duration::from_secs(1)).await;
    if town.controls.len() > 1 {
        failover::try_one(town).await;
    }
    late::try_one(town).await;
    if clock::timeout(FINISH_WITHIN, finish(town)).await.is_err() {
        town.violation("clients did not finish in bounded time after healing".to_owned());
    }
    failover::check_agents(town);
    nemesis::check_stamps(town);
}

/// Waits for service; false if it is not there in time after the last fault.
async fn serves_in_time(town: &Arc<Town>) -> bool {
    let mut served = pin!(probe::serves(town));
    loop {
        let last_us = town.with(|book| book.last_fault_us);
        let since = Duration::from_micros(seeded::now_us() - last_us);
        let left = SERVICE_WITHIN.saturating_sub(since);
        if clock::timeout(left, &mut served).await.is_ok() {
            return true;
        }
        if town.with(|book| book.last_fault_us) == last_us {
            return false;
        }
    }
}

fn start_clients(town: &Arc<Town>) {
    for (number, place) in town.clients.iter().copied().enumerate() {
        let shared = Arc::clone(town);
        match number {
            0 | 3 | 6 => {
                // Half of the others do not number their batches.
                let idempotent = number == 0 || seeded::draw(|rng| rng.once_in(2));
                let producer = producer::Producer::new(town, place, idempotent);
                seeded::spawn_at(place, "producer", async move {
                    producer.run().await;
                    shared.with(|book| book.up.insert(place, false));
                });
                town.with(|book| book.up.insert(place, true));
            }
            1 => seeded::spawn_at(place, "consumer", consumer::read_along(shared, place)),
            2 => seeded::spawn_at(place, "lister", lister::list_along(shared, place)),
            _ => seeded::spawn_at(place, "member", member::run(shared, place)),
        }
    }
}

/// Lets the producers end, and reads everything: anywhere first, then at every process that serves.
async fn finish(town: &Arc<Town>) {
    town.with(|book| book.has_enough = true);
    let busy = |book: &mut Book| town.clients.iter().any(|p| book.up.get(p) == Some(&true));
    while town.with(busy) {
        clock::sleep(Duration::from_millis(100)).await;
    }
    let mut ends = consumer::read_all(town, Place(FIRST_CLIENT + 100)).await;
    // A process that does not lead cannot say from where on a partition that is kept short may be read.
    ends.remove(SHORT);
    for place in town.serving_clients() {
        let mut client = client::Client::new(vec![place]);
        consumer::read_to(town, Place(place.0 + 1_000), &mut client, &ends).await;
    }
}

fn judge(town: &Town, trace: (u64, u64), disturbances: u64) -> Outcome {
    let flaws = check_files(town);
    let entries = town.newest(|_| ()).map_or(0, |()| {
        let nodes = town.with(|book| book.nodes.values().cloned().collect::<Vec<_>>());
        let indices = nodes.iter().map(|node| node.journal_status().index);
        indices.max().unwrap_or(0)
    });
    town.with(|book| {
        book.violations.extend(flaws);
        let mut injected = book.faults.injected().clone();
        if disturbances > 0 {
            injected.insert(Fault::Loss, disturbances);
        }
        let header = Recorder::header(!injected.is_empty(), LAG_BOUND_US);
        let lines = std::mem::take(&mut book.history).into_lines();
        let report = match checker::check_lines(header.clone(), lines.iter().cloned()) {
            Ok(report) => report,
            Err(error) => {
                book.violations
                    .push(format!("the history contradicts itself: {error}"));
                Report::default()
            }
        };
        Outcome {
            report,
            violations: std::mem::take(&mut book.violations),
            trace,
            injected,
            header,
            lines,
            entries,
            waits: std::mem::take(&mut book.waits),
        }
    })
}

/// What of the slices that the newest state names does not lie in a whole file in the bucket.
fn check_files(town: &Town) -> Vec<String> {
    let places = town.newest(|state| {
        let mut places = Vec::new();
        for topic in state.topics().iter() {
            for &partition in &topic.partitions {
                let Some(known) = state.partition(partition) else {
                    continue;
                };
                let located = state.locate(partition, known.log_start(), u64::MAX, usize::MAX);
                if let meta::places::Located::Found { places: found, .. } = located {
                    places.extend(found.into_iter().map(|place| (place.file, place.nonce)));
                }
            }
        }
        places
    });
    let mut files = places.unwrap_or_default();
    files.sort_unstable();
    files.dedup();
    let key = |(file, nonce)| store::layout::file_key(agent::data::cache::stored_id(file), nonce);
    let is_whole = |key: &Key| {
        let bytes = town.store.peek(key);
        bytes.is_some_and(|bytes| store::file::FileIndex::decode_whole(&bytes).is_ok())
    };
    let missing = files.into_iter().map(key).filter(|key| !is_whole(key));
    missing
        .map(|key| format!("the live file {key} is not whole in the bucket"))
        .collect()
}
