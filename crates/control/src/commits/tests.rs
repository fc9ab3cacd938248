//! Calls of one agent that overtake each other on their way to the leader.

use std::sync::Arc;

use futures::future::join_all;
use meta::command::RegisterAgent;
use meta::endpoint::Endpoint;
use meta::ids::Incarnation;
use rpc::{Call, Control, Return};
use store::bucket::Bucket;
use store::faulty::Faulty;

use super::*;
use crate::node::Node;
use crate::start::tests::{bucket, settings};

/// An agent that has registered.
pub(crate) async fn registered(node: &Node) -> Incarnation {
    let at = Endpoint {
        host: "localhost".to_owned(),
        port: 9092,
    };
    let register = Command::RegisterAgent(RegisterAgent {
        nonce: 1,
        name: "a".to_owned(),
        listeners: BTreeMap::from([("PLAINTEXT".to_owned(), at)]),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        neighbour_address: String::new(),
        level: 1,
    });
    let registered = node.call(Call::Propose(Box::new(register))).await;
    match registered.map(|answer| answer.value) {
        Ok(Return::Registered(registered)) => registered.incarnation,
        other => panic!("{other:?}"),
    }
}

async fn skip(node: &Node, incarnation: Incarnation, number: u64) -> FileReply {
    let file = FileId {
        incarnation,
        number,
    };
    let skip = Call::Propose(Box::new(Command::SkipFile { file }));
    match node.call(skip).await.map(|answer| answer.value) {
        Ok(Return::File(reply)) => reply,
        other => panic!("{other:?}"),
    }
}

/// An agent in the same process may have stood still with a call in its hands as any other.
#[tokio::test]
async fn what_a_client_awaited_long_ago_changes_nothing() {
    let bucket = bucket();
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    let engine = Box::new(journal::object::Object::new(Arc::clone(&shared), 0));
    let (node, _tasks) = Node::start(&settings(&[], None), engine, shared);
    assert_eq!(node.lead().await, Ok(()));
    let file = FileId {
        incarnation: registered(&node).await,
        number: 1,
    };
    let skip = Call::Propose(Box::new(Command::SkipFile { file }));
    let now = host::clock::now();
    let long_ago = Instant::from_micros(now.as_micros() - rpc::LATE_AFTER.as_micros() as u64);
    let late = node.call_for(skip.clone(), Some(long_ago)).await;
    assert!(
        matches!(late, Err(rpc::Error::Unavailable { .. })),
        "{late:?}"
    );
    assert!(node.call_for(skip, Some(now)).await.is_ok());
}

/// What waits while nobody leads comes in any order, all at once; answered one by one it would take an entry each.
#[tokio::test]
async fn calls_that_overtake_each_other_share_two_entries_and_none_is_sent_back() {
    let bucket = bucket();
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    let engine = Box::new(journal::object::Object::new(Arc::clone(&shared), 0));
    let (node, _tasks) = Node::start(&settings(&[], None), engine, shared);
    assert_eq!(node.lead().await, Ok(()));
    let incarnation = registered(&node).await;
    let before = node.journal_status().entries_appended;
    let replies = join_all((0..16).rev().map(|n| skip(&node, incarnation, n))).await;
    assert_eq!(replies, vec![FileReply::Skipped; 16]);
    let entries = node.journal_status().entries_appended - before;
    assert!(entries <= 2, "{entries} entries");
    // One whose predecessor does not come is told so, after a moment.
    let early = skip(&node, incarnation, 18).await;
    assert_eq!(early, FileReply::Gap { expected: 16 });
    // Of an incarnation that is not known nothing is waited for.
    let unknown = skip(&node, Incarnation(incarnation.0 + 1), 3).await;
    assert_eq!(unknown, FileReply::UnknownIncarnation);
    assert!(node.commits.desk().waiters.is_empty());
}

#[tokio::test]
async fn a_call_whose_caller_has_gone_holds_up_nobody_for_long() {
    let bucket = bucket();
    let shared: Arc<dyn Bucket> = Arc::<Faulty>::clone(&bucket);
    let engine = Box::new(journal::object::Object::new(Arc::clone(&shared), 0));
    let (node, _tasks) = Node::start(&settings(&[], None), engine, shared);
    assert_eq!(node.lead().await, Ok(()));
    let incarnation = registered(&node).await;
    let early = skip(&node, incarnation, 1);
    let gone = host::clock::timeout(std::time::Duration::from_millis(20), early).await;
    assert!(gone.is_err(), "it is held");
    assert!(node.commits.desk().waiters.is_empty());
    assert_eq!(skip(&node, incarnation, 0).await, FileReply::Skipped);
    assert_eq!(skip(&node, incarnation, 1).await, FileReply::Skipped);
}
