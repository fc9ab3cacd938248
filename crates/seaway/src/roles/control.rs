//! `seaway control`: one of the control nodes of a cluster. It leads the journal or follows whoever does, and answers agents.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use host::task::Task;
use link::process::{Process, Role};
use link::watch::Sign;
use link::{Caller, Cluster, Lines};
use meta::State;
use meta::level::Levels;
use rpc::peer::PeerRequest;
use rpc::{Answer, Call, Return};
use store::bucket::Bucket;
use store::nodes::{self, Announced, Tidying};
use tokio::sync::watch;

use super::discovery;
use super::others::Others;
use super::reception::{self, Received};
use super::zones::{Place, tell_if_alone};
use crate::admission::{self, Admitted, Whose};
use crate::config::Configured;
use crate::health::{Health, Parts, following_obstacle};
use crate::journals::Journal;
use crate::links::Links;
use crate::places::Places;
use crate::running::{Broken, Running};
use crate::settings::{REGION, ZONE_DEFAULT};
use crate::spending::Spending;
use crate::tuning;

/// How often the reason for a slow start is updated.
const TELL_EVERY: Duration = Duration::from_millis(200);

/// How often the one that leads tidies up after control nodes that are gone. One that is there and was not registered makes its
/// object again within a minute.
const TIDY_EVERY: Duration = Duration::from_secs(60);
/// How long another control node of the same name may take to answer.
const NAMESAKE_LIMIT: Duration = Duration::from_secs(1);
/// How long the lead may take to be handed over.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(4);

/// What it means for a control node to be alone in its zone.
const ALONE: &str = "nothing goes by the zone of a control node but what is shown of it";

pub struct Plan {
    pub configured: Configured,
    pub name: String,
    pub buckets: Places,
    pub journal: Journal,
    /// Where agents and other control nodes reach this one, host:port.
    pub address: String,
    pub listener: host::net::TcpListener,
    /// How it talks to agents and to other control nodes.
    pub links: Links,
}

pub struct Control {
    admitted: Admitted,
    /// How it talks to others that are to take the lead.
    lines: Arc<Lines>,
    node: Arc<control::Node>,
    tasks: control::start::Tasks,
    /// Why it never leads again, once that is so.
    refused: watch::Receiver<Option<String>>,
    _others: Vec<Task<()>>,
}

/// Starts the control node; it is ready once it has read the journal.
pub async fn start(plan: Plan, health: &Health) -> Result<Control> {
    let admitted = admit(&plan, health).await?;
    let settings = settings(&plan, &admitted);
    let caller = caller(&plan, &admitted);
    health.waiting("asking the other control nodes");
    reception::be_received(&admitted.buckets, &caller, &plan.address).await?;
    refuse_namesake(&plan, &admitted, &caller).await?;
    health.waiting("reading the journal");
    let bucket = &admitted.bucket();
    let engine = admitted.engine(settings.journal.shard);
    let (node, tasks) = control::Node::start(&settings, engine, Arc::clone(bucket));
    reach_others(&node, &admitted, &caller)?;
    let served: Arc<dyn rpc::Served> = Arc::<control::Node>::clone(&node);
    let calls_bytes = plan.configured.shares.bytes("calls that arrive");
    let (cluster_id, security) = (admitted.cluster_id.clone(), plan.links.security());
    let serving = link::serve(plan.listener, cluster_id, served, security, calls_bytes);
    let mut others = vec![host::task::spawn("link", serving)];
    let announced = Announced {
        role: nodes::CONTROL.to_owned(),
        name: plan.name,
        address: plan.address,
        region: settings.identity.region,
        zone: settings.identity.zone,
    };
    let (cluster, found) = Cluster::new(&caller, Levels::KNOWN).context("the cluster's id")?;
    let looking =
        discovery::keep_looking(Arc::clone(bucket), vec![announced.address.clone()], found);
    let announcing = nodes::keep_announced(Arc::clone(bucket), announced);
    others.push(forever("announcement", announcing));
    others.push(forever("discovery", looking));
    let registering = keep_registered(Arc::clone(&node), cluster, caller.clone());
    others.push(forever("registration", registering));
    let tidying = keep_tidy(Arc::clone(&node), Arc::clone(bucket));
    others.push(forever("tidying", tidying));
    let aside = stand_aside(Arc::clone(&node), caller.clone());
    others.push(forever("standing aside", aside));
    let comparing = compare_clocks(Arc::clone(&node), caller.clone());
    others.push(forever("clocks", comparing));
    let lines = Arc::new(Lines::new(&caller, Levels::KNOWN).context("the cluster's id")?);
    let choosing = choose_region(&node, &admitted, &lines);
    others.push(forever("choice of region", choosing));
    let watching = keep_watching(Arc::clone(&node), caller);
    others.push(forever("leader watch", watching));
    others.extend(mark_buckets(&plan.configured, &admitted, &node));
    let (leading, refused) = keep_leading(&node);
    others.push(leading);
    others.extend(hint_of_zone(&plan.configured, &node));
    follows(&node, health).await?;
    health.serving(Parts {
        control: Some(Arc::clone(&node)),
        agent: None,
        spending: Spending::watch(Arc::clone(&admitted.counters), admitted.is_billed()),
        bucket: Arc::clone(&admitted.counters),
        buckets: Arc::clone(&admitted.buckets),
    });
    Ok(Control {
        admitted,
        lines,
        node,
        tasks,
        refused,
        _others: others,
    })
}

/// Gives the node its ways to the others: those on which it passes calls on, and those on which it asks whether they have applied an entry.
fn reach_others(node: &Arc<control::Node>, admitted: &Admitted, caller: &Caller) -> Result<()> {
    let relay = link::Relay::new(caller, Levels::KNOWN).context("the cluster's id")?;
    node.relay_by(Arc::new(relay));
    node.ask_others_by(Arc::new(Others {
        buckets: Arc::clone(&admitted.buckets),
        caller: caller.clone(),
    }));
    Ok(())
}

/// Tells once if this node is alone in the zone that it was given; one that was given none need not be in any.
fn hint_of_zone(configured: &Configured, node: &Arc<control::Node>) -> Option<Task<()>> {
    let own = Place::of(&configured.settings);
    if own.zone == ZONE_DEFAULT {
        return None;
    }
    let node = Arc::clone(node);
    let others = async move || {
        let place = |region: &String, zone: &String| Place {
            region: region.clone(),
            zone: zone.clone(),
        };
        let others = node.with_state(|state| {
            let control = state.control_nodes();
            let control = control.filter(|other| other.name != node.name());
            let control = control.map(|other| place(&other.region, &other.zone));
            let agents = state.agents();
            let agents = agents.map(|agent| place(&agent.region, &agent.zone));
            control.chain(agents).collect()
        });
        Some(others)
    };
    let hint = tell_if_alone(own, ALONE, others);
    Some(host::task::spawn("zones", hint))
}

/// As whom the node talks to others.
fn caller(plan: &Plan, admitted: &Admitted) -> Caller {
    Caller {
        cluster_id: admitted.cluster_id.clone(),
        process: Process {
            role: Role::Control,
            name: plan.name.clone(),
        },
        security: plan.links.security(),
    }
}

/// Says in the journal which of several buckets are away.
fn mark_buckets(
    configured: &Configured,
    admitted: &Admitted,
    node: &Arc<control::Node>,
) -> Option<Task<()>> {
    let after = configured.settings.millis("bucket.away.after.ms");
    let buckets = Arc::clone(&admitted.buckets);
    (buckets.numbers().len() > 1).then(|| {
        let marking = Arc::clone(node).keep_marking(buckets, after);
        forever("bucket marks", marking)
    })
}

/// Waits until the node has read the journal, unless another process has its name.
async fn follows(node: &control::Node, health: &Health) -> Result<()> {
    let reading = async {
        while let Some(why) = following_obstacle(node) {
            health.waiting(&why);
            host::clock::sleep(TELL_EVERY).await;
        }
    };
    tokio::select! {
        () = reading => Ok(()),
        address = node.name_taken() => Err(name_is_taken(node, &address)),
    }
}

/// Opens the buckets, and the journal if it is elsewhere.
async fn admit(plan: &Plan, health: &Health) -> Result<Admitted> {
    let region = plan.configured.settings.text(REGION);
    let (whose, journal) = (Whose::Expected(None), Some(&plan.journal));
    admission::admit(&plan.buckets, region, &whose, journal, health).await
}

/// Leads whenever it can; the receiver tells why it never does again, once that is so.
fn keep_leading(node: &Arc<control::Node>) -> (Task<()>, watch::Receiver<Option<String>>) {
    let node = Arc::clone(node);
    let (refuse, refused) = watch::channel(None);
    let leading = host::task::spawn("lead", async move {
        let Err(error) = node.keep_leading().await;
        // Nobody listens only while the process ends.
        drop(refuse.send(Some(error.to_string())));
    });
    (leading, refused)
}

/// Refuses to start while another control node of the same name answers where the bucket says that it is. One that has ended does not answer,
/// and costs nothing. Two that start at one moment find each other by the journal.
async fn refuse_namesake(plan: &Plan, admitted: &Admitted, caller: &Caller) -> Result<()> {
    // A bucket that does not answer is waited for elsewhere.
    let announced = nodes::find(&*admitted.buckets, nodes::CONTROL).await;
    let mut announced = announced.unwrap_or_default().into_iter();
    let Some(earlier) = announced.find(|node| node.name == plan.name) else {
        return Ok(());
    };
    // At the own address nobody answers yet, or somebody whose connections others get.
    let (levels, call) = (Levels::KNOWN, Call::Peer(PeerRequest::Name));
    let asked = link::ask(
        earlier.address.clone(),
        caller,
        levels,
        levels.first(),
        &call,
    );
    let answer = host::clock::timeout(NAMESAKE_LIMIT, asked).await;
    match answer {
        Ok(Ok(answer)) => match answer.value {
            Return::Named(named) if named.name == plan.name => {
                bail!(runs_already(&plan.name, &earlier.address))
            }
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn runs_already(name: &str, address: &str) -> String {
    format!(
        "a control node named {name} runs already, at {address}: stop it, or give this one another name with --name"
    )
}

/// Why a node ends whose name another has.
fn name_is_taken(node: &control::Node, address: &str) -> anyhow::Error {
    anyhow!(runs_already(node.name(), address))
}

fn settings(plan: &Plan, admitted: &Admitted) -> control::Settings {
    let identity = tuning::Identity {
        name: &plan.name,
        address: &plan.address,
        is_alone: false,
    };
    let is_billed = admitted.is_journal_billed();
    let Configured { settings, shares } = &plan.configured;
    let cluster_id = &admitted.cluster_id;
    let mut settings = tuning::control(settings, shares, cluster_id, &identity, is_billed);
    settings.cluster_configs.placement = admitted.placement();
    settings
}

fn forever(
    name: &'static str,
    work: impl Future<Output = Infallible> + Send + 'static,
) -> Task<()> {
    host::task::spawn(name, async move { match work.await {} })
}

/// Follows what the node that leads shows: entries, to read them at once; and that it is gone, to take its place.
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
) -> Result<Answer, rpc::Error> {
    let (level, levels) = (node.with_state(State::level), Levels::KNOWN);
    link::ask(address, caller, levels, level, &call).await
}

/// Calls another control node, over the connection that earlier calls to it have left.
async fn ask_again(
    node: &control::Node,
    lines: &Lines,
    address: String,
    call: Call,
) -> Result<Answer, rpc::Error> {
    lines
        .ask(&address, node.with_state(State::level), &call)
        .await
}

/// Sees to it that this node is known to all, unless they turn it away, and that no other has its name.
async fn keep_registered(node: Arc<control::Node>, cluster: Cluster, caller: Caller) -> Infallible {
    let received = Received::new(cluster, caller.clone(), Arc::clone(&node));
    let ask = |address, call| ask(&node, &caller, address, call);
    node.keep_registered(&received, ask).await
}

/// Removes from the bucket what tells of control nodes that are forgotten, while this node leads.
async fn keep_tidy(node: Arc<control::Node>, bucket: Arc<dyn Bucket>) -> Infallible {
    let mut tidying = Tidying::default();
    loop {
        host::clock::sleep(TIDY_EVERY).await;
        if !node.leads() {
            tidying = Tidying::default();
            continue;
        }
        let known: BTreeSet<String> = node.with_state(|state| {
            let nodes = state.control_nodes();
            nodes.map(|node| node.name.clone()).collect()
        });
        match tidying.look(&*bucket, |name| known.contains(name)).await {
            Ok(0) => {}
            Ok(removed) => tracing::info!(
                removed,
                "the bucket tells no more of control nodes that are forgotten"
            ),
            Err(error) => {
                tracing::debug!(%error, "what tells of control nodes that are gone stays for now");
            }
        }
    }
}

/// Gives up the lead whenever no agent reaches this node.
async fn stand_aside(node: Arc<control::Node>, caller: Caller) -> Infallible {
    let ask = |address, call| ask(&node, &caller, address, call);
    node.stand_aside(ask).await
}

/// Keeps the node's wall clock compared with those of the others.
async fn compare_clocks(node: Arc<control::Node>, caller: Caller) -> Infallible {
    let ask = |address, call| ask(&node, &caller, address, call);
    node.compare_clocks(ask).await
}

/// Hands the lead over whenever it is to go to another region.
fn choose_region(
    node: &Arc<control::Node>,
    admitted: &Admitted,
    lines: &Arc<Lines>,
) -> impl Future<Output = Infallible> + use<> {
    let (node, lines) = (Arc::clone(node), Arc::clone(lines));
    let buckets = Arc::clone(&admitted.buckets);
    async move {
        let ask = |address, call| ask_again(&node, &lines, address, call);
        node.choose_region(&buckets, ask).await
    }
}

impl Control {
    pub fn cluster_id(&self) -> &str {
        &self.admitted.cluster_id
    }
}

impl Running for Control {
    async fn broken(&self) -> Broken {
        let mut refused = self.refused.clone();
        let refused = async {
            match refused.wait_for(Option::is_some).await {
                Ok(why) => why.clone().unwrap_or_default(),
                Err(_) => std::future::pending().await,
            }
        };
        tokio::select! {
            why = self.node.halted() => Broken::Journal(self.admitted.explained(anyhow!("the journal stopped: {why}")).await),
            why = refused => Broken::Journal(self.admitted.explained(anyhow!("the journal: {why}")).await),
            why = self.admitted.lost() => Broken::Bucket(anyhow!(why)),
            address = self.node.name_taken() => Broken::Journal(name_is_taken(&self.node, &address)),
        }
    }

    async fn drain(&self) {
        let ask = |address, call| ask_again(&self.node, &self.lines, address, call);
        let handed_over = host::clock::timeout(HAND_OVER_LIMIT, self.node.hand_over(ask));
        if handed_over.await.is_err() {
            tracing::warn!("the lead is not handed over in time; another control node takes it");
        }
    }

    async fn stop(self) {
        drop(self.tasks);
    }
}
