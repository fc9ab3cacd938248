//! Nodes on one bucket, one after the other.

use std::time::Duration;

use meta::level::{Level, one::LEVEL as ONE};
use meta::setting::{Kind, Scope, Setting};
use store::bucket::Op;
use store::faulty::{Fault, FaultRule, Faulty};

use super::*;

pub(crate) fn settings(configs: &[(&str, &str)], replaces: Option<u64>) -> Settings {
    let mut journal = journal::node::Settings::alone("c1 at localhost:1, process 7");
    journal.proposal_deadline = Duration::from_millis(100);
    journal.retry_min = Duration::from_millis(10);
    journal.retry_max = Duration::from_millis(20);
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Settings {
        cluster_id: "c".to_owned(),
        levels: Levels::KNOWN,
        level_max: u32::MAX,
        version: "0.1.0".to_owned(),
        identity: Identity {
            name: "c1".to_owned(),
            address: "localhost:1".to_owned(),
            region: "r".to_owned(),
            zone: String::new(),
        },
        journal,
        groups: coordinator::Settings {
            initial_rebalance_delay: Duration::ZERO,
            session_timeout_min: Duration::ZERO,
            session_timeout_max: Duration::from_secs(1),
            members_max: 1,
            bytes_max: u64::MAX,
            awaited_bytes_max: 32 << 20,
        },
        group_requests_bytes: 16 << 20,
        notices_bytes: 16 << 20,
        metadata_bytes_max: u64::MAX,
        housekeeping_interval: Duration::from_secs(60),
        cluster_configs: Wanted {
            configs: configs.iter().map(owned).collect(),
            replaces,
            placement: None,
        },
        presence: None,
    }
}

pub(crate) fn bucket() -> Arc<Faulty> {
    Arc::new(Faulty::new(Arc::new(store::memory::Memory::new()), 1))
}

/// A node that leads, and what keeps it running.
pub(crate) async fn started(bucket: &Arc<Faulty>, settings: &Settings) -> (Arc<Node>, Tasks) {
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(bucket);
    let engine = Box::new(journal::object::Object::new(Arc::clone(&shared), 0));
    let (node, tasks) = Node::start(settings, engine, shared);
    assert_eq!(node.lead().await, Ok(()));
    (node, tasks)
}

fn partitions(node: &Node) -> String {
    node.with_state(|state| state.cluster_config("num.partitions").to_owned())
}

#[tokio::test]
async fn a_start_goes_on_when_the_journal_falters_as_it_sets_configs() {
    let bucket = bucket();
    // The claim goes in, and what follows does not for a while.
    bucket.faults().add(FaultRule {
        prefix: "journal/".to_owned(),
        skip: 1,
        times: Some(10),
        ..FaultRule::on(Op::PutNew, Fault::Definite)
    });
    let (node, _tasks) = started(&bucket, &settings(&[("num.partitions", "3")], None)).await;
    assert_eq!(partitions(&node), "3");
}

#[tokio::test]
async fn only_the_first_node_of_a_cluster_sets_its_configs_by_its_flags() {
    let bucket = bucket();
    let first = settings(&[("num.partitions", "3")], None);
    drop(started(&bucket, &first).await);
    let other = settings(&[("num.partitions", "4")], None);
    let (node, tasks) = started(&bucket, &other).await;
    assert_eq!(partitions(&node), "3");
    let differences = node.config_differences();
    let [differs] = differences.as_slice() else {
        panic!("{differences:?}")
    };
    assert_eq!((&*differs.in_force, &*differs.wanted), ("3", "4"));
    let version = node.with_state(State::configs_version);
    drop((node, tasks));
    // An operator's word names what it replaces.
    for (replaces, expected) in [(version + 1, "3"), (version, "4"), (version, "4")] {
        let told = settings(&[("num.partitions", "4")], Some(replaces));
        let (node, _tasks) = started(&bucket, &told).await;
        assert_eq!(partitions(&node), expected);
    }
}

#[tokio::test]
async fn a_cluster_that_was_begun_without_configs_is_not_new_later() {
    let bucket = bucket();
    let (node, tasks) = started(&bucket, &settings(&[], None)).await;
    let topic = meta::command::CreateTopic {
        id: meta::ids::TopicId(1),
        name: "t".to_owned(),
        partitions: 1,
        configs: meta::config::Configs::new(),
        replication_factor: 0,
    };
    let created = node.propose(&meta::Command::CreateTopic(topic)).await;
    assert!(created.is_ok());
    drop((node, tasks));
    let (node, _tasks) = started(&bucket, &settings(&[("num.partitions", "4")], None)).await;
    assert_ne!(partitions(&node), "4");
}

#[tokio::test]
async fn a_node_is_registered_when_it_first_leads_and_later_starts_append_nothing_for_it() {
    let bucket = bucket();
    let registered = |node: &Node| node.with_state(|state| state.control_nodes().next().cloned());
    let (node, tasks) = started(&bucket, &settings(&[], None)).await;
    let first = registered(&node).expect("it is registered");
    assert_eq!((&*first.name, first.level), ("c1", 1));
    let leader = node.journal_status().leader;
    assert_eq!(leader.as_ref(), Some(&first.claims_as));
    let elsewhere = journal::node::Refusal::NotLeader { leader };
    let elsewhere = journal::node::ProposeError::Definite(elsewhere);
    let told = node.with_state(|state| crate::answer::failed(state, 7, elsewhere));
    let Error::NotLeader {
        leader: Some(leader),
    } = told
    else {
        panic!("{told:?}")
    };
    assert_eq!(leader.address.as_deref(), Some("localhost:1"));
    assert_eq!(leader.claim, 7);
    drop((node, tasks));
    let (node, tasks) = started(&bucket, &settings(&[], None)).await;
    assert_eq!(registered(&node), Some(first.clone()));
    drop((node, tasks));
    let mut moved = settings(&[], None);
    moved.identity.address = "elsewhere:1".to_owned();
    let (node, _tasks) = started(&bucket, &moved).await;
    let again = registered(&node).expect("it is registered");
    assert_eq!(&*again.address, "elsewhere:1");
    assert_ne!(again.nonce, first.nonce);
}

/// A level with one more config of the cluster.
const LATEST: Level = Level {
    number: 2,
    cluster_configs: &WITH_ONE_MORE,
    ..ONE
};
const WITH_ONE_MORE: [Setting; ONE.cluster_configs.len() + 1] = {
    let one_more = Setting {
        scope: Scope::Cluster,
        ..Setting::new("zzz.of.level.2", Kind::Boolean, "false", "", "")
    };
    let mut all = [one_more; ONE.cluster_configs.len() + 1];
    let mut at = 0;
    while at < ONE.cluster_configs.len() {
        all[at] = ONE.cluster_configs[at];
        at += 1;
    }
    all
};

#[tokio::test]
async fn the_first_node_of_a_cluster_sets_configs_of_the_level_to_which_it_raises_it() {
    let bucket = bucket();
    let configs = [("num.partitions", "3"), ("zzz.of.level.2", "true")];
    let later = Settings {
        levels: Levels::new(&[ONE, LATEST]),
        ..settings(&configs, None)
    };
    // A process that has raised the level and then ends.
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    let engine = Box::new(journal::object::Object::new(Arc::clone(&shared), 0));
    let (node, tasks) = Node::start(&later, engine, shared);
    node.reach(&[Role::Leader]).await;
    assert_eq!(node.see_to_membership().await, Ok(()));
    assert_eq!(node.with_state(|state| state.level().number), 2);
    assert_eq!(node.with_state(State::configs_version), 0);
    drop((node, tasks));
    let (node, _tasks) = started(&bucket, &later).await;
    for (name, value) in configs {
        let set = node.with_state(|state| state.cluster_config(name).to_owned());
        assert_eq!(set, value, "{name}");
    }
}

#[tokio::test]
async fn a_later_build_raises_the_level_and_an_earlier_one_goes_no_further_than_that() {
    const LATER: Levels = Levels::new(&[ONE, Level { number: 2, ..ONE }]);
    let bucket = bucket();
    drop(started(&bucket, &settings(&[], None)).await);
    let later = Settings {
        levels: LATER,
        ..settings(&[], None)
    };
    let (node, tasks) = started(&bucket, &later).await;
    assert_eq!(node.with_state(|state| state.level().number), 2);
    drop((node, tasks));
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    let engine = Box::new(journal::object::Object::new(Arc::clone(&shared), 0));
    let (node, _tasks) = Node::start(&settings(&[], None), engine, shared);
    let why = node.stuck().await;
    assert!(why.contains("run a newer one"), "{why}");
    assert_eq!(node.with_state(|state| state.level().number), 1);
}
