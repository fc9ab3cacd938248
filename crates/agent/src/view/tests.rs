//! Views that follow one another, and who shares a barrier.

use std::sync::atomic::AtomicUsize;

use async_trait::async_trait;
use futures::StreamExt;
use host::clock::Instant;
use meta::endpoint::PLAINTEXT;
use meta::ids::Incarnation;
use rpc::notice::Notices;
use rpc::{Answer, Call, Control, Return};
use tokio::sync::Semaphore;

use super::*;

const ONE: &Level = &meta::level::one::LEVEL;

fn topic(id: u128, partitions: u64) -> Arc<meta::topic::Topic> {
    Arc::new(meta::topic::Topic {
        version: 0,
        id: TopicId(id),
        name: format!("t{id}"),
        partitions: (1..=partitions).map(PartitionId).collect(),
        configs: Configs::new(),
        replication_factor: 0,
    })
}

fn agents(ids: &[i32]) -> Option<Vec<Agent>> {
    let agent = |id: &i32| Agent {
        id: AgentId(*id),
        name: "a".to_owned(),
        level: 1,
        listeners: meta::endpoint::Endpoint::alone("h", 9092),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        neighbour_address: String::new(),
        incarnation: Incarnation(1),
        drains: false,
        cut_off: false,
    };
    Some(ids.iter().map(agent).collect())
}

fn whole(version: u64, topics: Vec<Arc<meta::topic::Topic>>) -> ViewChange {
    ViewChange {
        version,
        level: 1,
        whole: true,
        topics,
        deleted: Vec::new(),
        agents: agents(&[1, 2]),
        cluster_configs: None,
    }
}

fn change(version: u64, topics: Vec<Arc<meta::topic::Topic>>) -> ViewChange {
    ViewChange {
        whole: false,
        agents: None,
        ..whole(version, topics)
    }
}

fn nothing() -> View {
    View::nothing(Levels::KNOWN, "c".to_owned())
}

fn names(view: &View) -> Vec<&str> {
    view.topics()
        .map(|topic| topic.topic.name.as_str())
        .collect()
}

#[test]
fn a_difference_changes_what_it_names_and_nothing_else() {
    let all = (1..=1_000).map(|id| topic(id, 1)).collect();
    let first = nothing().follow(ONE, whole(1, all));
    let mut differs = change(2, vec![topic(7, 2), topic(2_000, 1)]);
    differs.deleted = vec![TopicId(8)];
    let second = first.follow(ONE, differs);
    assert_eq!(second.topic("t7").unwrap().topic.partitions.len(), 2);
    assert_eq!(first.topic("t7").unwrap().topic.partitions.len(), 1);
    assert!(second.topic("t8").is_none() && second.topic_by_id(TopicId(8)).is_none());
    assert_eq!(second.topics().count(), 1_000);
    for id in [TopicId(9), TopicId(2_000), TopicId(7)] {
        let by_id = second.topic_by_id(id).unwrap();
        let by_name = second.topic(&by_id.topic.name).unwrap();
        assert!(Arc::ptr_eq(by_id, by_name));
    }
    let kept = first.topic("t9").unwrap();
    assert!(
        Arc::ptr_eq(kept, second.topic("t9").unwrap()),
        "it is shared"
    );
    let third = second.follow(ONE, whole(3, vec![topic(1, 1)]));
    assert_eq!(names(&third), ["t1"]);
}

#[test]
fn a_topic_that_was_made_again_has_its_new_id_alone() {
    let first = nothing().follow(ONE, whole(1, vec![topic(1, 1)]));
    let again = Arc::new(meta::topic::Topic {
        id: TopicId(9),
        ..(*topic(1, 1)).clone()
    });
    let mut differs = change(3, vec![again]);
    differs.deleted = vec![TopicId(1)];
    let second = first.follow(ONE, differs);
    assert_eq!(names(&second), ["t1"]);
    assert_eq!(second.topic("t1").unwrap().topic.id, TopicId(9));
    assert!(second.topic_by_id(TopicId(1)).is_none());
}

#[test]
fn what_follows_from_agents_and_configs_is_worked_out_anew_when_they_change() {
    let first = nothing().follow(ONE, whole(1, vec![topic(1, 100)]));
    let leaders = |view: &View| -> Vec<AgentId> {
        let places = view.places(view.topic("t1").unwrap());
        let replicas = places.replicas(PLAINTEXT, None);
        replicas.map(|replicas| replicas.leader()).collect()
    };
    let before = leaders(&first);
    assert!(before.contains(&AgentId(1)) && before.contains(&AgentId(2)));
    let mut differs = change(2, Vec::new());
    differs.agents = agents(&[2]);
    let second = first.follow(ONE, differs);
    assert_eq!(leaders(&second), [AgentId(2); 100]);
    // Another run of an agent changes nothing for clients.
    let mut differs = change(3, Vec::new());
    let restarted = agents(&[2]).unwrap().into_iter().map(|agent| Agent {
        incarnation: Incarnation(9),
        ..agent
    });
    differs.agents = Some(restarted.collect());
    let restarted = second.follow(ONE, differs);
    assert_eq!(restarted.agents[0].incarnation, Incarnation(9));
    assert!(Arc::ptr_eq(
        second.topic("t1").unwrap(),
        restarted.topic("t1").unwrap()
    ));
    let mut differs = change(3, Vec::new());
    let limit = ("message.max.bytes".to_owned(), "77777".to_owned());
    differs.cluster_configs = Some(Arc::new([limit].into()));
    let third = second.follow(ONE, differs);
    assert_eq!(third.topic("t1").unwrap().rules.batch_bytes_max, 77_777);
}

#[test]
fn a_topic_shows_the_replicas_that_were_asked_for_or_that_have_to_be_in_sync() {
    let shown = |factor: u16, in_sync: &str, of_cluster: &str| {
        let config = |value: &str| -> Configs {
            let set = (!value.is_empty()).then(|| value.to_owned());
            set.map(|value| ("min.insync.replicas".to_owned(), value))
                .into_iter()
                .collect()
        };
        replicas(ONE, &config(of_cluster), &config(in_sync), factor)
    };
    assert_eq!(shown(0, "", ""), 1);
    assert_eq!(shown(3, "", ""), 3);
    assert_eq!(shown(3, "2", ""), 3);
    assert_eq!(shown(1, "2", ""), 2);
    assert_eq!(shown(1, "", "2"), 2);
    assert_eq!(shown(0, "1", "2"), 1);
    assert_eq!(shown(1, "2147483647", ""), 2_147_483_647);
}

/// Lets one barrier pass for each permit.
struct Gate {
    barriers: AtomicUsize,
    open: Semaphore,
}

#[async_trait]
impl Control for Gate {
    async fn call_for(&self, call: Call, _: Option<Instant>) -> Result<Answer, rpc::Error> {
        let value = if call == Call::Barrier {
            self.barriers.fetch_add(1, Relaxed);
            self.open.acquire().await.unwrap().forget();
            Return::Done
        } else {
            Return::View(None)
        };
        let at = Position::default();
        Ok(Answer { at, value })
    }

    fn notices(&self) -> Notices {
        futures::stream::pending().boxed()
    }
}

#[tokio::test]
async fn who_waits_shares_a_barrier_but_for_one_that_began_before() {
    let gate = Arc::new(Gate {
        barriers: AtomicUsize::new(0),
        open: Semaphore::new(0),
    });
    let control: Arc<dyn Control> = gate.clone();
    let views = Views::open(
        Client::new(control),
        Levels::KNOWN,
        "c".to_owned(),
        Arc::new(Hub::new(0)),
    )
    .await
    .unwrap();
    let begun = || gate.barriers.load(Relaxed);
    let first = async {
        views.refresh_current().await.unwrap();
        begun()
    };
    let others = async {
        while begun() == 0 {
            tokio::task::yield_now().await;
        }
        let all = (0..100).map(|_| views.refresh_current());
        let all = futures::future::join_all(all);
        let open = async {
            gate.open.add_permits(1);
            while begun() == 1 {
                tokio::task::yield_now().await;
            }
            gate.open.add_permits(100);
        };
        futures::join!(all, open)
    };
    let (first, _) = futures::join!(first, others);
    assert!(first <= 2, "the first waits for its own barrier alone");
    assert_eq!(begun(), 2, "one for the first, one for all others");
}

/// A node that is behind: it shows a version only to those who ask for the barrier's position.
struct Behind {
    version: u64,
}

const BARRIER: Position = Position(9);

#[async_trait]
impl Control for Behind {
    async fn call_for(&self, call: Call, _: Option<Instant>) -> Result<Answer, rpc::Error> {
        let value = match call {
            Call::Barrier => Return::Done,
            Call::View { at: BARRIER, .. } => {
                Return::View(Some(Box::new(whole(self.version, Vec::new()))))
            }
            _ => Return::View(None),
        };
        Ok(Answer { at: BARRIER, value })
    }

    fn notices(&self) -> Notices {
        futures::stream::pending().boxed()
    }
}

#[tokio::test]
async fn a_version_that_was_told_is_reached_though_the_node_asked_is_behind() {
    let control: Arc<dyn Control> = Arc::new(Behind { version: 5 });
    let views = Views::open(
        Client::new(control),
        Levels::KNOWN,
        "c".to_owned(),
        Arc::new(Hub::new(0)),
    )
    .await
    .unwrap();
    assert_eq!(views.latest().version, None);
    views.refresh_to(5).await.unwrap();
    assert_eq!(views.latest().version, Some(5));
    let missed = views.refresh_to(6).await;
    assert!(matches!(missed, Err(rpc::Error::Unavailable { .. })));
}
