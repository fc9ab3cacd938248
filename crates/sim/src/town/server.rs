//! A process of the town that is all in one: what `seaway dev` starts, in the order in which it does, on a simulated
//! machine: the bucket behind its counters and hedges, the marker, a control node, an agent. It must not decide
//! anything that production decides.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agent::settings::{Budgets, FailPoints};
use control::configs::Wanted;
use control::presence;
use host::net::TcpListener;
use host::rng::Rng;
use host::seeded::Place;
use journal::object::Object;
use rpc::Control;
use rpc::call::Call;
use store::bucket::Bucket;
use store::buckets::Buckets;
use store::hedge::Hedged;
use store::marker::{self, Marker};
use store::meter::{Counters, Meter};
use store::probe;

use crate::thrift;

use super::Town;
use super::bucket::Reached;
use super::client::address;

/// Kafka's id of the cluster.
pub(super) const CLUSTER: &str = "AAAAAAAAAAAAAAAAAAAAAA";
/// Pause after the bucket did not answer at the start.
const ADMIT_AGAIN: Duration = Duration::from_millis(200);
/// When an agent is fenced of which nothing is heard, or whose connection is lost: the first sooner than by default in
/// production, since runs are short.
const PRESENCE: presence::Settings = presence::Settings {
    silence_max: Duration::from_secs(3),
    lost_for: Duration::from_millis(200),
};
/// When a control node is forgotten that does not follow any more: while runs last, so that it happens, and after some of the
/// calls by which it says that it does.
const FORGOTTEN_AFTER: presence::Settings = presence::Settings {
    silence_max: Duration::from_secs(25),
    lost_for: Duration::from_secs(25),
};
/// The version of the builds of all processes.
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Time between two questions to a control node that does not lead.
const WANT_AGAIN: Duration = Duration::from_millis(500);
/// How long clients wait for a start to end before they are sent away, as in `seaway dev`.
const CLIENTS_WAIT: Duration = Duration::from_secs(1);

/// What all processes of a run are started with.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    pub(super) journal: journal::node::Settings,
    pub(super) flush_bytes: u64,
    pub(super) flush_interval: Duration,
    pub(super) thrift: host::thrift::Limits,
    pub(super) upload_concurrency: usize,
    pub(super) upload_timeout: Duration,
    pub(super) fetch_cache_bytes: u64,
    pub(super) grace: Duration,
    pub(super) collect_interval: Duration,
}

impl Plan {
    pub(super) fn draw(rng: &mut Rng, is_alone: bool, grace: Duration) -> Self {
        let mut journal = match is_alone {
            true => journal::node::Settings::alone("town"),
            false => journal::node::Settings::one_of_several("town"),
        };
        let thrift = thrift::draw(rng);
        journal.append_thrift = thrift;
        journal.snapshot.entries = 20 + rng.below(200);
        journal.snapshot.first_after = Duration::from_millis(rng.below(3_000));
        journal.proposal_deadline = Duration::from_millis(200 + rng.below(10_000));
        journal.scan_limit = 5 + rng.below(200) as usize;
        journal.slot_bytes_max = 300 + rng.below(20_000) as usize;
        Plan {
            journal,
            flush_bytes: 500 + rng.below(20_000),
            flush_interval: Duration::from_millis(1 + rng.below(100)),
            thrift,
            upload_concurrency: 1 + rng.below(8) as usize,
            upload_timeout: Duration::from_millis(1_000 + rng.below(9_000)),
            fetch_cache_bytes: [0, 4 << 10, 256 << 10][rng.below(3) as usize],
            grace,
            collect_interval: Duration::from_millis(500 + rng.below(2_000)),
        }
    }

    /// The settings of a control node that others find at `address`, or of one that is all there is in its process.
    pub(super) fn control(&self, place: Place, address: Option<SocketAddr>) -> control::Settings {
        let mut journal = self.journal.clone();
        journal.name = match address {
            None => format!("claims of town-{}", place.0),
            // As in production the name tells this run of the process from others.
            Some(_) => format!("town-{} {:08x}", place.0, host::rng::nonce() as u32),
        };
        let grace = self.grace.as_millis().to_string();
        control::Settings {
            cluster_id: CLUSTER.to_owned(),
            levels: meta::level::Levels::KNOWN,
            level_max: u32::MAX,
            version: VERSION.to_owned(),
            identity: control::membership::Identity {
                name: format!("town-{}", place.0),
                address: address.map_or_else(|| format!("town-{}:1", place.0), |at| at.to_string()),
                region: "r".to_owned(),
                zone: "z".to_owned(),
            },
            journal,
            groups: control::coordinator::Settings {
                initial_rebalance_delay: Duration::from_millis(100),
                session_timeout_min: Duration::from_millis(100),
                session_timeout_max: Duration::from_secs(600),
                members_max: 100,
                bytes_max: 1 << 20,
                awaited_bytes_max: 32 << 20,
            },
            group_requests_bytes: 16 << 20,
            notices_bytes: 16 << 20,
            metadata_bytes_max: u64::MAX,
            housekeeping_interval: Duration::from_millis(500),
            cluster_configs: Wanted {
                configs: BTreeMap::from([("file.delete.grace.ms".to_owned(), grace)]),
                replaces: None,
                placement: None,
            },
            presence: address.map(|_| control::attendance::Settings {
                agents: PRESENCE,
                followers: FORGOTTEN_AFTER,
            }),
        }
    }

    /// The settings of an agent; `tells_presence` if the leader is elsewhere.
    pub(super) fn agent(&self, place: Place, tells_presence: bool) -> agent::Settings {
        agent::Settings {
            name: format!("town-{}", place.0),
            levels: meta::level::Levels::KNOWN,
            region: "r".to_owned(),
            zone: "z".to_owned(),
            auto_create_topics_enable: false,
            num_partitions: 1,
            socket_request_max_bytes: 1 << 20,
            max_connections: 100,
            max_connections_per_ip: 100,
            connections_max_idle: Duration::from_secs(60),
            budgets: Budgets {
                produce_bytes: 1 << 20,
                fetch_bytes: 1 << 20,
                cache_bytes: self.fetch_cache_bytes,
                ..Budgets::SMALL
            },
            fetch_max_bytes: 1 << 20,
            fetch_sessions_max: 10,
            bucket_reserve_bytes: 0,
            flush_bytes: self.flush_bytes,
            file_batches_max: 1_000,
            flush_interval: self.flush_interval,
            flush_interval_max: self.thrift.wait_max,
            flush_requests_per_second: self.thrift.per_second,
            upload_concurrency: self.upload_concurrency,
            upload_timeout: self.upload_timeout,
            collect_interval: self.collect_interval,
            collect_list_interval: self.collect_interval,
            // The town is in one region.
            repair_bytes_per_second: 1,
            repair_files_per_second: 1,
            file_delete_grace: self.grace,
            tells_presence,
            version: VERSION.to_owned(),
            broker_configs: Vec::new(),
            fail_points: FailPoints::NONE,
        }
    }
}

/// The bucket as a process uses it, and the counters of what it asks.
pub(super) fn bucket(town: &Arc<Town>, place: Place) -> (Arc<dyn Bucket>, Arc<Counters>) {
    let reached = Reached::new(town, &town.store, place);
    let meter = Meter::new(Arc::new(reached));
    let counters = Arc::clone(meter.counters());
    let bucket = Hedged::new(Arc::new(meter), Arc::clone(&counters));
    (Arc::new(bucket), counters)
}

/// The one listener of an agent.
pub(super) fn listeners(listener: TcpListener) -> Vec<(agent::settings::Listener, TcpListener)> {
    let plaintext = agent::settings::Listener {
        name: meta::endpoint::PLAINTEXT.to_owned(),
        zone: None,
        advertised_host: None,
        advertised_port: None,
    };
    vec![(plaintext, listener)]
}

pub(super) async fn serve(town: &Arc<Town>, place: Place) -> Result<Infallible, String> {
    let listener = host::net::listen(address(place)).await;
    let listener = listener.map_err(|error| error.to_string())?;
    let (bucket, counters) = bucket(town, place);
    let settings = town.plan.control(place, None);
    let (node, _tasks) = tokio::select! {
        biased;
        admitted = admit(&bucket) => {
            admitted?;
            let engine = Object::new(Arc::clone(&bucket), settings.journal.shard);
            control::Node::start(&settings, Box::new(engine), Arc::clone(&bucket))
        }
        never = send_away(&listener) => match never {},
    };
    town.started(place, &node);
    tokio::select! {
        biased;
        led = node.lead() => led.map_err(|error| error.to_string())?,
        never = send_away(&listener) => match never {},
        never = want_leader(&node) => match never {},
    }
    let shared: Arc<dyn Control> = Arc::<control::Node>::clone(&node);
    let settings = town.plan.agent(place, false);
    let buckets = Arc::new(Buckets::one(bucket, counters));
    let agent = agent::Agent::start(settings, listeners(listener), buckets, shared, None).await;
    let _agent = agent.map_err(|error| error.to_string())?;
    town.serves(place);
    tokio::select! {
        biased;
        why = node.halted() => Err(why),
        why = node.stuck() => Err(why),
    }
}

/// Probes the bucket and finds out whose it is, claiming it if it is nobody's.
pub(super) async fn admit(bucket: &Arc<dyn Bucket>) -> Result<(), String> {
    let wanted = Marker {
        cluster: CLUSTER.to_owned(),
        created_ms: host::clock::wall_millis(),
        bucket: 0,
        generation: host::rng::nonce() as u64,
        siblings: Vec::new(),
        journal: None,
    };
    loop {
        match probe::run(bucket).await {
            Ok(()) => match marker::claim(&**bucket, &wanted).await {
                Ok(_) => return Ok(()),
                Err(marker::Error::Bucket(_)) => {}
                Err(error) => return Err(error.to_string()),
            },
            Err(probe::Error::Bucket(_) | probe::Error::Directory(_)) => {}
            Err(error) => return Err(error.to_string()),
        }
        host::clock::sleep(ADMIT_AGAIN).await;
    }
}

/// Asks for what only a leader can give, as agents elsewhere would: nobody claims a lead that is not wanted.
async fn want_leader(node: &control::Node) -> Infallible {
    loop {
        drop(node.call(Call::Barrier).await);
        host::clock::sleep(WANT_AGAIN).await;
    }
}

/// Closes connections of clients while nobody can serve them, for ever.
pub(super) async fn send_away(listener: &TcpListener) -> Infallible {
    host::clock::sleep(CLIENTS_WAIT).await;
    loop {
        drop(host::net::accept(listener).await);
    }
}
