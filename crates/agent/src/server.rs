//! Starts and stops an agent: listeners, registration, the tasks that all connections share. It
//! must not know what is said on a connection.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use host::backoff::Backoff;
use host::log_limit::LogLimit;
use host::net::{TcpListener, TcpStream};
use host::task::Task;
use meta::command::RegisterAgent;
use meta::endpoint::Endpoint;
use meta::ids::{AgentId, Incarnation};
use meta::level::Levels;
use rpc::call::Registered;
use rpc::notice::{Notice, Notices};
use rpc::{Client, Control, Position};
use store::bucket::Bucket;
use store::buckets::Buckets;
use tokio::sync::watch;

use crate::api::fetch::sessions::Sessions;
use crate::api::groups::heartbeats::Heartbeats;
use crate::context::Context;
use crate::counted::Counted;
use crate::data::cache::Cache;
use crate::data::copies::report::Reports;
use crate::data::fetch::hub::Hub;
use crate::data::fetch::neighbours::Neighbours;
use crate::data::fetch::prefetch::Prefetch;
use crate::data::fetch::read::Reader;
use crate::data::produce::pipeline::Parts;
use crate::data::produce::upload::Uploader;
use crate::data::produce::{Limits, Pipeline};
use crate::data::reserve::Reserve;
use crate::drain::Traffic;
use crate::edge::admission::Admission;
use crate::edge::connection::Limits as ConnectionLimits;
use crate::edge::memory::Memory;
use crate::edge::service::{Peer, Service};
use crate::edge::session::{self, Edge};
use crate::losses::Losses;
use crate::metrics::{Metrics, Origin};
use crate::pauses::{self, Pauses};
use crate::settings::{Budgets, Listener, OTHER_BYTES_MAX, Settings};
use crate::view::Views;

mod copies;
mod drain;

/// How long connections are given to end when the agent stops.
const STOP_GRACE: Duration = Duration::from_secs(3);
/// How often a stopping agent checks whether its connections have ended.
const STOP_POLL: Duration = Duration::from_millis(10);
/// The pauses before a failed step of the start is tried again.
const START: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));
/// The pauses before the leader is told again that this agent is there.
const PRESENCE: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(200));
/// How often it is logged that a step of the start failed.
const START_LOG_EVERY: Duration = Duration::from_secs(10);
/// Connections of one listener are numbered from its own number, shifted by so many bits.
const LISTENER_SHIFT: u32 = 48;
/// This part of the cache may be filled before readers ask: half of what those have who lag behind.
const AHEAD_PART: u64 = 8;
/// The pause after a connection could not be accepted, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The listener's address is not known.
    #[error("the listener has no address: {0}")]
    Listener(#[from] io::Error),
    /// The control plane will never take this agent.
    #[error("the control plane refuses this agent: {reason}")]
    Refused { reason: String },
}

/// How an agent reaches the other agents of its zone, and they it.
pub struct Zone {
    /// Where they are told to ask this one.
    pub address: String,
    pub others: Arc<dyn rpc::part::Neighbours>,
}

pub struct Agent {
    context: Arc<Context>,
    addresses: Vec<SocketAddr>,
    advertised: Vec<Endpoint>,
    cluster_id: String,
    stop: watch::Sender<bool>,
    accepting: Vec<Task<()>>,
    tasks: Vec<Task<()>>,
}

impl Agent {
    /// Registers and serves, on sockets that each belong to a listener. Waits as long as the control
    /// plane gives no answer: a missing dependency means not ready, never an end. Dropping the
    /// future stops the start.
    pub async fn start(
        settings: Settings,
        listeners: Vec<(Listener, TcpListener)>,
        buckets: Arc<Buckets>,
        control: Arc<dyn Control>,
        zone: Option<Zone>,
    ) -> Result<Agent, StartError> {
        let (listeners, sockets): (Vec<_>, Vec<_>) = listeners.into_iter().unzip();
        let addresses = sockets.iter().map(TcpListener::local_addr);
        let addresses = addresses.collect::<io::Result<Vec<SocketAddr>>>()?;
        let both = listeners.iter().zip(&addresses);
        let advertised: Vec<Endpoint> = both.map(|(one, at)| advertised(one, *at)).collect();
        let names = listeners.iter().map(|listener| listener.name.clone());
        let (address, others) = zone.map(|zone| (zone.address, zone.others)).unzip();
        let mut registration = registration(&settings, names.zip(advertised.clone()).collect());
        registration.neighbour_address = address.unwrap_or_default();
        let metrics = Arc::new(Metrics::zero());
        let control = Counted::of(control, &metrics);
        // Subscribed before anything is read, so that no notice is missed.
        let notices = control.notices();
        let registered = register(&control, registration.clone()).await?;
        let budgets = &settings.budgets;
        let hub = Arc::new(Hub::new(budgets.tails_bytes));
        let views = open_views(&control, settings.levels, &registered.cluster_id, &hub).await;
        let frame_bytes_max = u64::from(settings.socket_request_max_bytes);
        let memory = Arc::new(Memory::new(budgets, frame_bytes_max));
        let reads = Reads::by(&buckets, &control, others, &memory, budgets, &metrics);
        reads
            .neighbours
            .take(&views.latest().agents, registered.agent);
        let pipeline = Arc::new(Pipeline::new(limits(&settings), registered.incarnation));
        let (stop, stopping) = watch::channel(false);
        let (heartbeats, inbox) = Heartbeats::new();
        let beating = host::task::spawn("heartbeats", inbox.run(control.clone()));
        let context = Arc::new(Context {
            agent: registered.agent,
            cache: reads.cache,
            reader: reads.reader,
            prefetch: reads.prefetch,
            neighbours: reads.neighbours,
            reserve: Reserve::new(settings.bucket_reserve_bytes),
            sessions: Sessions::new(settings.fetch_sessions_max, budgets.sessions_bytes),
            hub,
            heartbeats,
            memory,
            log: LogLimit::default(),
            pauses: Pauses::since(host::clock::now()),
            traffic: Traffic::default(),
            losses: Losses::default(),
            cut_off: Arc::default(),
            settings,
            listeners,
            control,
            views,
            pipeline,
            metrics,
        });
        let mut tasks = start_tasks(&context, &buckets, registration, notices);
        tasks.push(beating);
        let accepting = start_accepting(&context, sockets, &stopping);
        Ok(Agent {
            context,
            addresses,
            advertised,
            cluster_id: registered.cluster_id,
            stop,
            accepting,
            tasks,
        })
    }

    /// Where it listens, listener by listener.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Where clients are told to connect, listener by listener.
    pub fn advertised(&self) -> impl Iterator<Item = (&Listener, &Endpoint)> {
        self.context.listeners.iter().zip(&self.advertised)
    }

    pub fn id(&self) -> AgentId {
        self.context.agent
    }

    /// What other agents of the zone ask it for.
    pub fn offer(&self) -> Arc<dyn rpc::part::Offers> {
        // Half of what readers may hold is for its own.
        let bytes = self.context.settings.budgets.fetch_bytes / 2;
        Arc::new(self.context.reader.offer(bytes))
    }

    pub fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// A handle for pages that show the agent's state.
    pub fn probe(&self) -> Probe {
        Probe {
            context: Arc::clone(&self.context),
        }
    }
}

/// By what records are read.
struct Reads {
    cache: Arc<Cache>,
    neighbours: Arc<Neighbours>,
    reader: Arc<Reader>,
    prefetch: Arc<Prefetch>,
}

impl Reads {
    fn by(
        buckets: &Arc<Buckets>,
        control: &Client,
        others: Option<Arc<dyn rpc::part::Neighbours>>,
        memory: &Memory,
        budgets: &Budgets,
        metrics: &Arc<Metrics>,
    ) -> Self {
        let records = memory.records.clone();
        let cache = Cache::new(budgets.cache_bytes, records, Arc::clone(metrics));
        let cache = Arc::new(cache);
        let neighbours = Arc::new(Neighbours::new(others, Arc::clone(metrics)));
        let reader = Arc::new(Reader::new(
            Arc::clone(buckets),
            Arc::clone(&neighbours),
            Arc::clone(&cache),
            Arc::clone(metrics),
        ));
        let ahead_bytes = budgets.cache_bytes / AHEAD_PART;
        let prefetch = Prefetch::new(control.clone(), Arc::clone(&reader), ahead_bytes);
        Reads {
            cache,
            neighbours,
            reader,
            prefetch: Arc::new(prefetch),
        }
    }
}

/// When files are cut.
fn limits(settings: &Settings) -> Limits {
    Limits {
        flush_bytes: settings.flush_bytes,
        batches_max: settings.file_batches_max,
        flush_interval: settings.flush_interval,
        thrift: host::thrift::Limits {
            per_second: settings.flush_requests_per_second,
            per_mib: 1,
            wait_max: settings.flush_interval_max,
        },
        uploads_max: settings.upload_concurrency,
    }
}

/// Reads a running agent's state without keeping the agent running.
#[derive(Clone)]
pub struct Probe {
    context: Arc<Context>,
}

impl Probe {
    /// The agent's metrics, for Prometheus.
    pub fn metrics(&self) -> String {
        let metrics = &self.context.metrics;
        metrics
            .produce_buffer_free_bytes
            .set(self.context.memory.bulk_free_bytes());
        let sessions = self.context.sessions.count();
        metrics.fetch_sessions.set(sessions as u64);
        let tails = self.context.hub.tails().count();
        metrics.fetch_tails.set(tails as u64);
        metrics.render()
    }

    /// Its Kafka node id.
    pub fn id(&self) -> AgentId {
        self.context.agent
    }

    /// The region and the zone of each other agent that it knows of.
    pub fn whereabouts_of_others(&self) -> Vec<(String, String)> {
        let view = self.context.views.latest();
        let others = view.agents.iter();
        let others = others.filter(|agent| agent.id != self.context.agent);
        let places = others.map(|agent| (agent.region.clone(), agent.zone.clone()));
        places.collect()
    }

    /// A few of the numbers, for people.
    pub fn status(&self) -> Vec<(&'static str, u64)> {
        let metrics = &self.context.metrics;
        let sent = &metrics.fetch_bytes;
        let gauge = |gauge: &crate::metrics::Gauge| u64::try_from(gauge.get()).unwrap_or(0);
        vec![
            ("node_id", u64::try_from(self.context.agent.0).unwrap_or(0)),
            ("connections", gauge(&metrics.connections)),
            ("produce_requests", metrics.produce_requests.get()),
            ("produce_bytes", metrics.produce_bytes.get()),
            ("fetch_requests", metrics.fetch_requests.get()),
            ("fetch_bytes", sent.sum()),
            ("fetch_bytes_from_memory", sent.from(Origin::Memory)),
            ("fetch_bytes_from_neighbour", sent.from(Origin::Neighbour)),
            ("fetch_bytes_from_bucket", sent.from(Origin::Bucket)),
            ("fetch_bytes_to_other_zones", sent.to_other_zones()),
            (
                "loaded_bytes_neighbour",
                metrics.loaded_bytes.neighbour.get(),
            ),
            ("loaded_bytes_bucket", metrics.loaded_bytes.bucket.get()),
            ("uploads", gauge(&metrics.uploads)),
            ("repaired_files", metrics.repaired_files.get()),
            (
                "repair_files_per_second",
                gauge(&metrics.repair_files_per_second),
            ),
            (
                "repair_bytes_per_second",
                gauge(&metrics.repair_bytes_per_second),
            ),
            ("repair_unmendable", metrics.repair_unmendable.get()),
            ("cache_bytes", gauge(&metrics.cache_bytes)),
        ]
    }

    /// Why it cannot serve clients now; `None` if it can.
    pub fn obstacle(&self) -> Option<String> {
        let waits = !self.context.pipeline.is_registered();
        let waits = waits.then(|| "the agent waits to be registered again".to_owned());
        waits.or_else(|| self.context.reserve.obstacle())
    }
}

fn start_tasks(
    context: &Arc<Context>,
    buckets: &Arc<Buckets>,
    registration: RegisterAgent,
    notices: Notices,
) -> Vec<Task<()>> {
    let settings = &context.settings;
    let reports = Arc::new(Reports::default());
    let uploader = Uploader::new(
        Arc::clone(buckets),
        settings.upload_timeout,
        Arc::clone(&context.cache),
        Arc::clone(&reports),
        Arc::clone(&context.metrics),
        Arc::clone(&context.cut_off),
    );
    let parts = Parts {
        control: context.control.clone(),
        uploader: Arc::new(uploader),
        reports: Arc::clone(&reports),
        cache: Arc::clone(&context.cache),
        hub: Arc::clone(&context.hub),
        metrics: Arc::clone(&context.metrics),
        fail_points: settings.fail_points.clone(),
        registration,
    };
    let mut tasks = vec![
        host::task::spawn("produce", Arc::clone(&context.pipeline).run(parts)),
        host::task::spawn(
            "reserve",
            watch_reserve(Arc::clone(context), Arc::<Buckets>::clone(buckets)),
        ),
        host::task::spawn("notices", follow(Arc::clone(context), notices)),
        host::task::spawn("pauses", watch_pauses(Arc::clone(context))),
    ];
    tasks.extend(copies::collect(context, buckets));
    if buckets.numbers().len() > 1 {
        tasks.extend(copies::see_to_them(context, buckets, reports));
    }
    if settings.tells_presence {
        let telling = tell_presence(Arc::clone(context), Arc::clone(buckets));
        tasks.push(host::task::spawn("presence", telling));
        let trying = Arc::clone(buckets);
        let trying = async move { match trying.try_doubtful().await {} };
        tasks.push(host::task::spawn("bucket reach", trying));
    }
    tasks
}

/// Keeps a call open at the leader, for ever, so that it knows that this agent is there, and which buckets it reaches.
async fn tell_presence(context: Arc<Context>, buckets: Arc<Buckets>) {
    let mut pauses = PRESENCE.start();
    let version = &context.settings.version;
    loop {
        let told = match context.pipeline.incarnation() {
            Some(incarnation) => {
                let reached = buckets.reached(host::clock::now());
                let told = context.control.present(incarnation, reached, version);
                told.await.ok()
            }
            None => None,
        };
        match told {
            Some(is_one_lost) => {
                pauses = PRESENCE.start();
                if is_one_lost {
                    let changes = context.views.agents_changes();
                    context.losses.note(host::clock::now(), changes);
                }
            }
            None => pauses.pause().await,
        }
    }
}

/// Where clients of a listener that listens at `address` are told to connect.
fn advertised(listener: &Listener, address: SocketAddr) -> Endpoint {
    // Clients cannot connect to the "every address" of a listener.
    let reachable = match address {
        SocketAddr::V4(address) if address.ip().is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
        SocketAddr::V6(address) if address.ip().is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
        address => address.ip().to_string(),
    };
    Endpoint {
        host: listener.advertised_host.clone().unwrap_or(reachable),
        port: listener.advertised_port.unwrap_or(address.port()),
    }
}

fn registration(settings: &Settings, listeners: BTreeMap<String, Endpoint>) -> RegisterAgent {
    RegisterAgent {
        nonce: host::rng::nonce(),
        name: settings.name.clone(),
        listeners,
        region: settings.region.clone(),
        zone: settings.zone.clone(),
        neighbour_address: String::new(),
        level: settings.levels.newest().number,
    }
}

/// Registers under a nonce, and under another one if that was refused: a call may have registered it whose answer was lost, and the
/// leader fenced a run that it did not hear. Who is refused twice is.
async fn register(
    control: &Client,
    mut registration: RegisterAgent,
) -> Result<Registered, StartError> {
    let mut pauses = START.start();
    let mut was_refused = false;
    let log = LogLimit::every(START_LOG_EVERY);
    loop {
        match control.register(registration.clone()).await {
            Ok(registered) => return Ok(registered),
            Err(rpc::Error::Refused { reason }) if was_refused => {
                return Err(StartError::Refused { reason });
            }
            Err(rpc::Error::Refused { .. }) => {
                registration.nonce = host::rng::nonce();
                was_refused = true;
            }
            Err(error) => {
                if let Some(left_out) = log.pass(host::clock::now()) {
                    tracing::info!(%error, left_out, "the agent waits to be registered");
                }
                pauses.pause().await;
            }
        }
    }
}

/// Reads the view of the cluster until this agent is in it.
async fn open_views(control: &Client, levels: Levels, cluster_id: &str, hub: &Arc<Hub>) -> Views {
    let mut pauses = START.start();
    let log = LogLimit::every(START_LOG_EVERY);
    loop {
        let hub = Arc::clone(hub);
        match Views::open(control.clone(), levels, cluster_id.to_owned(), hub).await {
            Ok(views) => return views,
            Err(error) => {
                if let Some(left_out) = log.pass(host::clock::now()) {
                    tracing::info!(%error, left_out, "the agent waits for the list of topics");
                }
                pauses.pause().await;
            }
        }
    }
}

/// Notices, for ever, when this process stood still.
async fn watch_pauses(context: Arc<Context>) {
    loop {
        host::clock::sleep(pauses::LOOK_EVERY).await;
        if context.pauses.look(host::clock::now()) {
            tracing::warn!(
                "this agent stood still for two seconds or more: what clients asked for meanwhile is not passed on, since they may have \
                 given up; look at the machine (was it paused, moved, or short of memory or processors?)"
            );
        }
    }
}

async fn watch_reserve(context: Arc<Context>, bucket: Arc<dyn Bucket>) {
    context.reserve.watch(&*bucket).await;
}

/// Passes notices on, as long as there are any, and wakes the readers who rested meanwhile.
async fn follow(context: Arc<Context>, mut notices: Notices) {
    let mut listed = Listed::default();
    note_own_incarnation(&context, &mut listed);
    context.note_cut_off();
    let mut left_out = tell_left_out(&context, &BTreeSet::new());
    let mut rested_at = None;
    let mut followed_to = None;
    loop {
        let next = notices.next();
        let next = match rested_at {
            None => Ok(next.await),
            Some(at) => host::clock::timeout(at - host::clock::now(), next).await,
        };
        let Ok(told) = next else {
            rested_at = context.hub.wake_rested(host::clock::now());
            continue;
        };
        let Some(told) = told else {
            return;
        };
        let joins = followed_to
            .replace(told.to)
            .is_none_or(|to| to == told.from);
        let is_anything = !joins || told.notices.contains(&Notice::Anything);
        if is_anything {
            context.hub.tails().end_all();
        }
        note_files(&context.cache, &told.notices);
        let versions = told.notices.iter().filter_map(|notice| match notice {
            Notice::View { version } => Some(*version),
            Notice::Anything | Notice::Advanced { .. } | Notice::LogStart { .. } => None,
        });
        let version = versions.max().filter(|_| !is_anything);
        if is_anything || version.is_some() {
            if let Some(at) = rested_at.take() {
                // The view may take long, and nobody rests for so long.
                context.hub.wake_rested(at);
            }
            refresh(&context, version).await;
            let agents = &context.views.latest().agents;
            context.neighbours.take(agents, context.agent);
            note_own_incarnation(&context, &mut listed);
            context.note_cut_off();
            left_out = tell_left_out(&context, &left_out);
        }
        if is_anything {
            context.hub.tell_all(&told, host::clock::now());
        } else {
            rested_at = context.hub.tell(&told, host::clock::now());
        }
    }
}

/// Tells the cache which files were written. What one commit brought to many partitions lies in one file.
fn note_files(cache: &Cache, told: &[Notice]) {
    let mut last = None;
    for notice in told {
        if let Notice::Advanced { place, .. } = notice
            && last.replace(place.file) != Some(place.file)
        {
            cache.note_written(place.file);
        }
    }
}

/// Notices in what is applied that the agent was started again elsewhere, or is fenced, or that the entry by which it registered
/// is left out, before a commit fails. Whoever is not in the view is found by no client.
fn note_own_incarnation(context: &Context, listed: &mut Listed) {
    let view = context.views.latest();
    let own = view.agent(context.agent).map(|own| own.incarnation);
    if let Some(latest) = listed.look(own) {
        context.pipeline.latest_incarnation(latest);
    }
}

/// Under which incarnation the view had this agent.
#[derive(Debug, Default)]
struct Listed(Option<Incarnation>);

impl Listed {
    /// Takes what the view has now; yields the least incarnation that may commit. One that was listed and is not any more is
    /// fenced; of a later one, for which the agent has registered since, that says nothing.
    fn look(&mut self, now: Option<Incarnation>) -> Option<Incarnation> {
        let before = std::mem::replace(&mut self.0, now);
        now.or(before.map(|before| Incarnation(before.0 + 1)))
    }
}

/// Says of agents that have no listener of the name of one of this agent's that clients of that are not told of them, once
/// each; yields those of whom it was said.
fn tell_left_out(
    context: &Context,
    told: &BTreeSet<(usize, AgentId)>,
) -> BTreeSet<(usize, AgentId)> {
    let view = context.views.latest();
    let mut left_out = BTreeSet::new();
    for (at, listener) in context.listeners.iter().enumerate() {
        let lacks = |agent: &&meta::view::Agent| !agent.listeners.contains_key(&listener.name);
        for agent in view.agents.iter().filter(lacks) {
            left_out.insert((at, agent.id));
            if !told.contains(&(at, agent.id)) {
                tracing::warn!(
                    agent = agent.name,
                    listener = listener.name,
                    "clients of this listener are not told of an agent that has none of its name"
                );
            }
        }
    }
    left_out
}

/// Takes the view of a version that was told, or whatever the control node has.
async fn refresh(context: &Context, version: Option<u64>) {
    let refreshed = match version {
        Some(version) => context.views.refresh_to(version).await,
        None => context.views.refresh(Position::default()).await.map(drop),
    };
    if let Err(error) = refreshed {
        // A request for a topic that is not in the view looks for it itself.
        tracing::warn!(%error, "the view of topics is not up to date");
    }
}

/// Accepts connections on every socket; the limits hold for all of them together.
fn start_accepting(
    context: &Arc<Context>,
    sockets: Vec<TcpListener>,
    stopping: &watch::Receiver<bool>,
) -> Vec<Task<()>> {
    let settings = &context.settings;
    let admission = Admission::new(settings.max_connections, settings.max_connections_per_ip);
    let admission = Arc::new(admission);
    let edge = Arc::new(Edge {
        memory: Arc::clone(&context.memory),
        metrics: Arc::clone(&context.metrics),
        log: LogLimit::default(),
        limits: ConnectionLimits {
            bulk_bytes_max: settings.socket_request_max_bytes as usize,
            other_bytes_max: OTHER_BYTES_MAX.min(settings.socket_request_max_bytes as usize),
            idle_max: settings.connections_max_idle,
            kind_of: Context::kind_of,
        },
        stopping: stopping.clone(),
        service: Arc::clone(context),
    });
    let accepting = sockets.into_iter().enumerate().map(|(at, socket)| {
        let accepting = accept(socket, at, Arc::clone(&edge), Arc::clone(&admission));
        host::task::spawn("accept", accepting)
    });
    accepting.collect()
}

async fn accept<S: Service>(
    socket: TcpListener,
    listener: usize,
    edge: Arc<Edge<S>>,
    admission: Arc<Admission>,
) {
    // Each listener has numbers of its own, more than it will need.
    let mut numbers = (listener as u64) << LISTENER_SHIFT..;
    loop {
        match host::net::accept(&socket).await {
            Ok((stream, address)) => {
                let Some(connection) = numbers.next() else {
                    return;
                };
                let peer = Peer {
                    address,
                    connection,
                    listener,
                };
                admit(&edge, &admission, stream, peer);
            }
            Err(error) => {
                if let Some(left_out) = edge.log.pass(host::clock::now()) {
                    tracing::warn!(%error, left_out, "a connection could not be accepted");
                }
                host::clock::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn admit<S: Service>(
    edge: &Arc<Edge<S>>,
    admission: &Arc<Admission>,
    stream: TcpStream,
    peer: Peer,
) {
    let admitted = match admission.admit(peer.address.ip()) {
        Ok(admitted) => admitted,
        Err(limit) => {
            edge.metrics.connections_refused.increment();
            if let Some(left_out) = edge.log.pass(host::clock::now()) {
                tracing::warn!(peer = %peer.address, limit, left_out, "too many connections: one is closed");
            }
            return;
        }
    };
    edge.metrics.connections.add(1);
    let edge = Arc::clone(edge);
    host::task::spawn_detached("session", async move {
        let metrics = Arc::clone(&edge.metrics);
        session::serve(edge, stream, peer).await;
        drop(admitted);
        metrics.connections.add(-1);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_that_is_older_than_the_last_registration_fences_only_what_it_had() {
        let mut listed = Listed::default();
        assert_eq!(listed.look(None), None, "it is not in the view yet");
        let three = Some(Incarnation(3));
        assert_eq!(listed.look(three), three);
        // The agent may have registered as the fifth meanwhile.
        assert_eq!(listed.look(None), Some(Incarnation(4)));
        assert_eq!(listed.look(None), None);
        let five = Some(Incarnation(5));
        assert_eq!(listed.look(five), five);
    }
}
