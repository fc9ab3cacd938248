//! Nodes of two builds on one journal: one that has applied an entry, and one that cannot and is to leave it out.

use journal::node::Role;
use journal::quarantine::Order;
use meta::level::{Level, Levels, one::LEVEL as ONE};
use rpc::{Asked, Served, Speaker};
use store::bucket::Bucket;
use store::faulty::Faulty;

use super::*;
use crate::attendance;
use crate::presence;
use crate::start::tests::{bucket, settings};
use crate::start::{Settings, Tasks};

const LATER: Levels = Levels::new(&[ONE, Level { number: 2, ..ONE }]);
/// Nobody answers there.
const AWAY: &str = "away:1";
/// Somebody answers there, and does not say what is asked.
const DUMB: &str = "dumb:1";

/// One of several nodes.
fn one_of_several(name: &str, levels: Levels) -> Settings {
    let mut settings = settings(&[], None);
    name.clone_into(&mut settings.identity.name);
    settings.identity.address = format!("{name}:1");
    settings.levels = levels;
    settings.version = format!("0.{}.0", levels.newest().number);
    settings.journal.name = format!("{name}, process 7");
    let within = presence::Settings {
        silence_max: Duration::from_secs(600),
        lost_for: Duration::from_secs(600),
    };
    settings.presence = Some(attendance::Settings {
        agents: within,
        followers: within,
    });
    settings
}

fn start(bucket: &Arc<Faulty>, settings: &Settings) -> (Arc<Node>, Tasks) {
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(bucket);
    let engine = Box::new(journal::object::Object::new(Arc::clone(&shared), 0));
    Node::start(settings, engine, shared)
}

/// Ways to these nodes, and to addresses at which there are none.
struct Ways {
    nodes: Vec<Arc<Node>>,
    beside: Vec<&'static str>,
}

#[async_trait]
impl Links for Ways {
    async fn announced(&self) -> Result<Vec<String>, String> {
        if self.nodes.is_empty() {
            return Err("the bucket is away".to_owned());
        }
        let nodes = self.nodes.iter();
        let nodes = nodes.map(|node| node.registration.address.clone());
        let beside = self.beside.iter().map(|address| (*address).to_owned());
        Ok(nodes.chain(beside).collect())
    }

    async fn ask(&self, address: String, call: Call) -> Result<Answer, Error> {
        let mut nodes = self.nodes.iter();
        let reason = "nobody listens there".to_owned();
        match nodes.find(|node| node.registration.address == address) {
            Some(node) => {
                let asked = Asked::by(Speaker::ControlNode("b".to_owned()));
                node.serve(call, asked).await.outcome
            }
            None if address == DUMB => Err(Error::Busy),
            None => Err(Error::Unavailable { reason }),
        }
    }
}

/// A node that leads and has raised the level, and the word by which one of an earlier build, which cannot apply that, has it left out.
async fn raised(bucket: &Arc<Faulty>) -> ((Arc<Node>, Tasks), Order) {
    let (later, later_tasks) = start(bucket, &one_of_several("a", LATER));
    assert_eq!(later.lead().await, Ok(()));
    assert_eq!(later.with_state(|state| state.level().number), 2);
    let (earlier, _tasks) = start(bucket, &one_of_several("b", Levels::KNOWN));
    let why = told(&earlier, "journal.quarantine=").await;
    let (_, word) = why.split_once("journal.quarantine=").expect("a word");
    ((later, later_tasks), word.parse().expect("a word"))
}

/// Waits until a node that is stuck says this.
async fn told(node: &Node, wanted: &str) -> String {
    let since = host::clock::now();
    loop {
        let told = node.journal_status().stuck.unwrap_or_default();
        if told.contains(wanted) {
            return told;
        }
        let waited = host::clock::now().since(since);
        assert!(waited < Duration::from_secs(20), "{told:?}");
        host::clock::sleep(LOOK_EVERY).await;
    }
}

#[tokio::test]
async fn an_entry_that_a_node_of_another_build_has_applied_is_left_out_only_by_force() {
    let bucket = bucket();
    let ((later, _later_tasks), order) = raised(&bucket).await;
    let mut settings = one_of_several("b", Levels::KNOWN);
    settings.journal.quarantine = Some(order);
    let ways = |beside| -> Arc<dyn Links> {
        let nodes = vec![Arc::clone(&later)];
        Arc::new(Ways { nodes, beside })
    };
    let (earlier, tasks) = start(&bucket, &settings);
    told(&earlier, "It is being left out").await;
    earlier.ask_others_by(ways(vec![]));
    let why = told(&earlier, "It is not left out").await;
    assert!(why.contains("a, of version 0.2.0, has applied it"), "{why}");
    assert!(later.leads(), "nobody has taken the lead from it");
    drop((earlier, tasks));

    settings.journal.quarantine = Some(Order {
        is_forced: true,
        ..order
    });
    let (earlier, _tasks) = start(&bucket, &settings);
    earlier.ask_others_by(ways(vec![]));
    earlier.reach(&[Role::Leader]).await;
    assert_eq!(earlier.with_state(|state| state.level().number), 1);
}

#[tokio::test]
async fn each_says_how_far_it_has_come_also_one_that_is_stuck_and_who_is_away_says_nothing() {
    let bucket = bucket();
    let ((later, _later_tasks), order) = raised(&bucket).await;
    let slot = order.word.slot;
    let (stuck, _stuck_tasks) = start(&bucket, &one_of_several("c", Levels::KNOWN));
    told(&stuck, "cannot be applied").await;
    let (asks, _tasks) = start(&bucket, &one_of_several("b", Levels::KNOWN));
    let reached = |nodes: Vec<&Arc<Node>>, beside| Reached {
        node: Arc::downgrade(&asks),
        links: Arc::new(Ways {
            nodes: nodes.into_iter().cloned().collect(),
            beside,
        }),
    };
    let all = reached(vec![&later, &stuck, &asks], vec![AWAY, DUMB]);
    let mut said = all.applied(slot).await.expect("it is known who is there");
    said.sort_by(|one, other| one.name.cmp(&other.name));
    let says = |name: &str, version: Option<&str>, applied| Said {
        name: name.to_owned(),
        version: version.map(str::to_owned),
        applied,
    };
    let (at_a, at_c) = (said[0].applied, said[1].applied);
    assert_eq!(
        said,
        [
            says("a", Some("0.2.0"), at_a),
            says("c", Some("0.1.0"), at_c),
            says("the process at dumb:1", None, None),
        ]
    );
    assert!(
        at_a >= Some(slot) && at_c.is_some_and(|at| at < slot),
        "{said:?}"
    );
    let unknown = reached(vec![], vec![]);
    assert!(unknown.applied(slot).await.is_err());
}
