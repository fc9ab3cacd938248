//! Agents that end: where their clients are sent, and what the leader is told.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use agent::Settings;
use rpc::Position;
use store::faulty::Faulty;
use store::memory::Memory;
use wire::errors::ErrorCode;
use wire::messages::fetch::FetchRequest;
use wire::messages::find_coordinator::FindCoordinatorRequest;
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::metadata::MetadataRequest;
use wire::messages::produce::ProduceRequest;

use crate::client::{Client, batch, fetch_request, only, produce_request, values_of};
use crate::control::Fake;
use crate::stand::{Stand, settings};

/// Longer than any drain takes.
const NO_LIMIT: Duration = Duration::from_secs(600);

/// So many agents of one cluster, which tell the leader that they are there.
async fn agents(count: usize) -> Vec<Stand> {
    let control = Fake::new();
    let bucket = Arc::new(Faulty::new(Arc::new(Memory::new()), 1));
    let mut agents = Vec::new();
    for number in 1..=count {
        let settings = Settings {
            name: format!("agent-{number}"),
            tells_presence: true,
            ..settings()
        };
        agents.push(Stand::over(settings, control.clone(), bucket.clone()).await);
    }
    agents[0].topic("t", 1, &[]).await;
    agents
}

/// Asks until clients are sent to these agents only, of all that are `shown`.
async fn sent_to(client: &mut Client, agents: &[i32], shown: &[i32]) {
    let all = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    loop {
        let told = client.call(&all, 12).await;
        let brokers: Vec<i32> = told.brokers.iter().map(|broker| broker.node_id).collect();
        let partitions = told.topics.iter().flat_map(|topic| &topic.partitions);
        let led: Vec<i32> = partitions.map(|partition| partition.leader_id).collect();
        if brokers == shown && led.len() == 1 && agents.contains(&led[0]) {
            return;
        }
        host::clock::sleep(Duration::from_millis(5)).await;
    }
}

/// Agents that the control plane sends clients to.
async fn alive(stand: &Stand) -> Vec<i32> {
    let view = stand.control.client().view(None, Position::default()).await;
    let view = view.unwrap().expect("there is something");
    let agents = view.agents.expect("all are told").into_iter();
    agents.map(|agent| agent.id.0).collect()
}

#[tokio::test]
async fn clients_of_an_agent_that_drains_are_sent_to_another_in_order() {
    let mut agents = agents(2).await;
    let ids: Vec<i32> = agents.iter().map(|stand| stand.agent.id().0).collect();
    let (mut here, mut there) = (agents[0].client().await, agents[1].client().await);
    sent_to(&mut here, &ids, &ids).await;
    assert_eq!(here.produce("t", 0, batch(&["a"])).await.error_code, 0);
    let sent_away = async {
        sent_to(&mut here, &ids[1..], &ids).await;
        sent_to(&mut there, &ids[1..], &ids).await;
        let away = ErrorCode::NotLeaderOrFollower.code();
        assert_eq!(here.produce("t", 0, batch(&["b"])).await.error_code, away);
        let fetched = here.fetch("t", 0, 0).await;
        assert_eq!((fetched.error_code, values_of(&fetched)), (away, vec![]));
        let of_session = FetchRequest {
            session_id: 7,
            session_epoch: 3,
            ..fetch_request("t", &[])
        };
        let answer = here.call(&of_session, 11).await;
        assert_eq!(
            answer.error_code,
            ErrorCode::FetchSessionIdNotFound.code(),
            "it begins anew, and names its partitions"
        );
        let find = FindCoordinatorRequest {
            key: "g".into(),
            ..FindCoordinatorRequest::default()
        };
        assert_eq!(here.call(&find, 3).await.node_id, ids[1]);
        let heartbeat = HeartbeatRequest {
            group_id: "g".into(),
            ..HeartbeatRequest::default()
        };
        let answer = here.call(&heartbeat, 4).await;
        assert_eq!(answer.error_code, ErrorCode::NotCoordinator.code());
        assert!(agents[0].control.asked_of_groups.lock().unwrap().is_empty());
        // Who waits for no answers would not hear of it.
        let unanswered = ProduceRequest {
            acks: 0,
            ..produce_request("t", 0, batch(&["b"]))
        };
        here.send(&unanswered, 9).await;
        let from_end = FetchRequest {
            max_wait_ms: 10_000,
            ..fetch_request("t", &[(0, 1)])
        };
        let fetched = only(there.call(&from_end, 11).await);
        assert_eq!(values_of(&fetched), [(1, "b".to_owned())]);
        let produced = there.produce("t", 0, batch(&["c"])).await;
        assert_eq!((produced.error_code, produced.base_offset), (0, 2));
    };
    tokio::join!(agents[0].agent.drain(NO_LIMIT), sent_away);
    assert_eq!(alive(&agents[1]).await, ids);
    let first = agents.remove(0);
    first.agent.stop().await;
    assert_eq!(here.frame().await, None, "its connection is closed");
    assert_eq!(alive(&agents[0]).await, ids[1..], "it has ended");
    sent_to(&mut there, &ids[1..], &ids[1..]).await;
    assert_eq!(there.produce("t", 0, batch(&["d"])).await.base_offset, 3);
}

#[tokio::test]
async fn an_agent_without_another_does_not_wait_for_its_clients() {
    let agents = agents(2).await;
    let ids: Vec<i32> = agents.iter().map(|stand| stand.agent.id().0).collect();
    let mut client = agents[1].client().await;
    sent_to(&mut client, &ids, &ids).await;
    // Both end at one time: neither waits for the other to take its clients.
    tokio::join!(
        agents[0].agent.drain(NO_LIMIT),
        agents[1].agent.drain(NO_LIMIT)
    );
    sent_to(&mut client, &ids, &ids).await;
    assert_eq!(client.produce("t", 0, batch(&["a"])).await.error_code, 0);
}

/// What a whole cluster takes that is told to end at once must be little more than what one agent takes.
#[tokio::test]
async fn an_agent_that_finds_no_leader_ends_soon_whether_it_has_told_one_or_not() {
    for has_told in [false, true] {
        let mut agents = agents(2).await;
        let ids: Vec<i32> = agents.iter().map(|stand| stand.agent.id().0).collect();
        let mut here = agents[0].client().await;
        sent_to(&mut here, &ids, &ids).await;
        let control = Arc::clone(&agents[0].control);
        let away = ErrorCode::NotLeaderOrFollower.code();
        let begun = host::clock::now();
        let leader_ends = async {
            // Its clients stay whatever they are told.
            while has_told && here.produce("t", 0, batch(&["a"])).await.error_code != away {}
            control.leaderless.store(true, Relaxed);
            loop {
                drop(here.produce("t", 0, batch(&["a"])).await);
                host::clock::sleep(Duration::from_millis(100)).await;
            }
        };
        tokio::select! {
            biased;
            () = leader_ends => {}
            () = agents[0].agent.drain(NO_LIMIT) => {}
        }
        agents.remove(0).agent.stop().await;
        let took = host::clock::now().since(begun);
        assert!(took < Duration::from_secs(6), "{took:?}, told: {has_told}");
    }
}
