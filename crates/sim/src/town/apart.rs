//! Control nodes and agents of the town as processes of their own: what `seaway control` and `seaway agent` start, in the
//! order in which they do. They reach each other by `link` alone, over the town's network, without TLS, and find each other by
//! the bucket. It must not decide anything that production decides.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use host::backoff::Backoff;
use host::seeded::Place;
use host::task::Task;
use journal::node::Role as InJournal;
use journal::object::Object;
use link::keys::Security;
use link::process::{Process, Role};
use link::watch::Sign;
use link::{Caller, Cluster, Found, discovery};
use meta::level::Levels;
use rpc::{Answer, Call, Control, Error, Served};
use store::bucket::Bucket;
use store::buckets::Buckets;
use store::nodes::{self, Announced};

use super::Town;
use super::client::address;
use super::server::{self, CLUSTER};

/// Where control nodes listen.
const PORT: u16 = 7071;
/// Memory for calls that arrive.
const CALLS_BYTES: u64 = 16 << 20;
/// How often it is looked whether a control node has read the journal.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The pauses before the leader is looked for again.
const RETRY: Backoff = Backoff::new(Duration::from_millis(20), Duration::from_millis(500));

/// The address at which a control node listens.
fn control_address(place: Place) -> SocketAddr {
    SocketAddr::new(place.ip().into(), PORT)
}

fn caller(role: Role, place: Place) -> Caller {
    Caller {
        cluster_id: CLUSTER.to_owned(),
        process: Process {
            role,
            name: format!("town-{}", place.0),
        },
        security: Security::Plaintext,
    }
}

fn forever(
    name: &'static str,
    work: impl Future<Output = Infallible> + Send + 'static,
) -> Task<()> {
    host::task::spawn(name, async move { match work.await {} })
}

/// Keeps `found` told of the control nodes that the bucket tells of.
async fn keep_looking(bucket: Arc<dyn Bucket>, named: Vec<String>, found: Found) -> Infallible {
    let told = || nodes::addresses(&*bucket, nodes::CONTROL);
    discovery::keep_looking(told, named, found).await
}

/// A control node.
pub(super) async fn control(town: &Arc<Town>, place: Place) -> Result<Infallible, String> {
    let at = control_address(place);
    let listener = host::net::listen(at).await;
    let listener = listener.map_err(|error| error.to_string())?;
    let (bucket, _) = server::bucket(town, place);
    server::admit(&bucket).await?;
    let settings = town.plan.control(place, Some(at));
    let engine = Object::new(Arc::clone(&bucket), settings.journal.shard);
    let (node, _tasks) = control::Node::start(&settings, Box::new(engine), Arc::clone(&bucket));
    town.started(place, &node);
    let caller = caller(Role::Control, place);
    let relay = link::Relay::new(&caller, Levels::KNOWN).map_err(|error| error.to_string())?;
    node.relay_by(Arc::new(relay));
    let served: Arc<dyn Served> = Arc::<control::Node>::clone(&node);
    let cluster_id = CLUSTER.to_owned();
    let serving = link::serve(
        listener,
        cluster_id,
        served,
        Security::Plaintext,
        CALLS_BYTES,
    );
    let _serving = host::task::spawn("link", serving);
    let cluster = Cluster::new(&caller, Levels::KNOWN);
    let (cluster, found) = cluster.map_err(|error| error.to_string())?;
    let announced = Announced {
        role: nodes::CONTROL.to_owned(),
        name: settings.identity.name,
        address: settings.identity.address.clone(),
        region: settings.identity.region,
        zone: settings.identity.zone,
    };
    let announcing = nodes::keep_announced(Arc::clone(&bucket), announced);
    let named = vec![settings.identity.address];
    let (registered, watched) = (Arc::clone(&node), Arc::clone(&node));
    let aside = stand_aside(Arc::clone(&node), caller.clone());
    let comparing = compare_clocks(Arc::clone(&node), caller.clone());
    let _others = [
        forever("announcement", announcing),
        forever("discovery", keep_looking(bucket, named, found)),
        forever(
            "registration",
            keep_registered(registered, cluster, caller.clone()),
        ),
        forever("standing aside", aside),
        forever("clocks", comparing),
        forever("leader watch", keep_watching(watched, caller)),
    ];
    let reading = async {
        while !has_read(&node) {
            host::clock::sleep(LOOK_EVERY).await;
        }
        town.serves(place);
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        biased;
        refused = node.keep_leading() => refused.map_err(|error| error.to_string()),
        why = node.halted() => Err(why),
        why = node.stuck() => Err(why),
        other = node.name_taken() => Err(format!("another run of this node is at {other}")),
        never = reading => match never {},
    }
}

/// Whether it leads, or has read the journal that another leads.
fn has_read(node: &control::Node) -> bool {
    let journal = node.journal_status();
    node.leads() || journal.role == InJournal::Follower && journal.confirmed_at.is_some()
}

async fn keep_watching(node: Arc<control::Node>, caller: Caller) -> Infallible {
    let tell = |address: &str, sign| match sign {
        Sign::Grew(growth) => node.hear(growth),
        Sign::Gone => node.leader_is_gone(address),
    };
    link::watch::keep_watching(|| node.leader_to_watch(), &caller, Levels::KNOWN, tell).await
}

/// Calls another control node.
async fn ask(
    node: &control::Node,
    caller: &Caller,
    address: String,
    call: Call,
) -> Result<Answer, Error> {
    let level = node.with_state(meta::State::level);
    link::ask(address, caller, Levels::KNOWN, level, &call).await
}

async fn keep_registered(node: Arc<control::Node>, cluster: Cluster, caller: Caller) -> Infallible {
    let ask = |address, call| ask(&node, &caller, address, call);
    node.keep_registered(&cluster, ask).await
}

async fn stand_aside(node: Arc<control::Node>, caller: Caller) -> Infallible {
    let ask = |address, call| ask(&node, &caller, address, call);
    node.stand_aside(ask).await
}

async fn compare_clocks(node: Arc<control::Node>, caller: Caller) -> Infallible {
    let ask = |address, call| ask(&node, &caller, address, call);
    node.compare_clocks(ask).await
}

/// An agent.
pub(super) async fn agent(town: &Arc<Town>, place: Place) -> Result<Infallible, String> {
    let listener = host::net::listen(address(place)).await;
    let listener = listener.map_err(|error| error.to_string())?;
    let (bucket, counters) = server::bucket(town, place);
    let starting = async {
        server::admit(&bucket).await?;
        let cluster = Cluster::new(&caller(Role::Agent, place), Levels::KNOWN);
        let (cluster, found) = cluster.map_err(|error| error.to_string())?;
        let looking = keep_looking(Arc::clone(&bucket), Vec::new(), found);
        let discovery = forever("discovery", looking);
        wait_for_leader(&cluster).await;
        Ok::<_, String>((cluster, discovery))
    };
    let (cluster, _discovery) = tokio::select! {
        biased;
        started = starting => started?,
        never = server::send_away(&listener) => match never {},
    };
    let settings = town.plan.agent(place, true);
    let listeners = server::listeners(listener);
    let buckets = Arc::new(Buckets::one(bucket, counters));
    let agent = agent::Agent::start(settings, listeners, buckets, Arc::new(cluster), None).await;
    let _agent = agent.map_err(|error| error.to_string())?;
    town.serves(place);
    std::future::pending().await
}

/// Waits until a control node leads, however long that takes.
async fn wait_for_leader(cluster: &Cluster) {
    let mut pauses = RETRY.start();
    while cluster.call(Call::Barrier).await.is_err() {
        pauses.pause().await;
    }
}
