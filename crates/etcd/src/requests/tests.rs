//! Requests carry the conditions that make them safe, and no answer is taken for more than it says.

use journal::engine::Content;

use super::*;
use crate::proto::ResponseOp;

fn requests() -> Requests {
    Requests::new("p", 0, "c")
}

fn kv(key: &Bytes, value: &'static str) -> KeyValue {
    KeyValue {
        key: key.clone(),
        create_revision: 7,
        value: Bytes::from_static(value.as_bytes()),
    }
}

fn answer(succeeded: bool, reads: Vec<Vec<KeyValue>>) -> TxnResponse {
    let responses = reads.into_iter().map(|kvs| ResponseOp {
        response: Some(Response::Range(RangeResponse { kvs })),
    });
    TxnResponse {
        header: None,
        succeeded,
        responses: responses.collect(),
    }
}

const OURS: &str = "seaway journal\nformat 1\ncluster c\n";
const FLOOR: &str = "00000000000000000005";

#[test]
fn every_request_has_the_condition_that_the_prefix_is_the_clusters() {
    let requests = requests();
    for request in [
        requests.verify(),
        requests.read(3, 9),
        requests.look(3),
        requests.read_floor(),
        requests.create(3, Bytes::from_static(b"x")),
        requests.raise(3, &[]),
        requests.delete(3, &[]),
    ] {
        assert_eq!(request.compare[0], requests.is_ours());
        assert_eq!(request.failure[0], get(requests.keys.cluster()));
    }
}

#[test]
fn a_slot_is_created_only_where_it_is_free_and_not_below_the_floor() {
    let requests = requests();
    let request = requests.create(9, Bytes::from_static(b"x"));
    assert_eq!(request.compare[1], is_absent(requests.keys.slot(9)));
    let floor = is_value(CompareResult::Less, requests.keys.floor(), floor_text(10));
    assert_eq!(
        request.compare[2], floor,
        "a floor of 9 does not forbid slot 9"
    );
    assert_eq!(request.success.len(), 1);
}

#[test]
fn what_came_of_a_create_is_read_from_the_slot() {
    let requests = requests();
    let value = Bytes::from_static(b"x");
    let (cluster, floor, slot) = (
        requests.keys.cluster(),
        requests.keys.floor(),
        requests.keys.slot(9),
    );
    let created = |slots: Vec<KeyValue>| {
        let reads = vec![vec![kv(&cluster, OURS)], vec![kv(&floor, FLOOR)], slots];
        requests.created(&answer(false, reads), &value)
    };
    let done = requests.created(&answer(true, Vec::new()), &value);
    assert_eq!(done, Ok(Created::Ours));
    assert_eq!(created(vec![kv(&slot, "x")]), Ok(Created::Ours));
    let other = Created::Held(Bytes::from_static(b"y"));
    assert_eq!(created(vec![kv(&slot, "y")]), Ok(other));
    assert_eq!(created(Vec::new()), Ok(Created::Trimmed(5)));
}

#[test]
fn an_answer_of_another_clusters_prefix_tells_nothing() {
    let requests = requests();
    let value = Bytes::from_static(b"x");
    let theirs = kv(&requests.keys.cluster(), "theirs");
    for found in [vec![theirs], Vec::new()] {
        let wrong = answer(false, vec![found, Vec::new(), Vec::new()]);
        let foreign = |unfit| matches!(unfit, Unfit::Foreign(_));
        assert!(requests.created(&wrong, &value).is_err_and(foreign));
        assert!(requests.slots(&wrong).is_err_and(foreign));
        assert!(requests.floor(&wrong).is_err_and(foreign));
        assert!(requests.looked(&wrong).is_err_and(foreign));
        assert!(requests.raised(&wrong, 3).is_err_and(foreign));
        assert!(requests.deleted(&wrong).is_err_and(foreign));
        assert!(requests.verified(&wrong).is_err_and(foreign));
        assert!(requests.founded(&wrong).is_err_and(foreign));
    }
}

#[test]
fn a_read_that_is_not_answered_is_no_absence() {
    let requests = requests();
    let nothing = answer(true, Vec::new());
    assert!(requests.slots(&nothing).is_err());
    assert!(requests.looked(&nothing).is_err());
    assert!(requests.floor(&nothing).is_err());
    let no_floor = answer(true, vec![Vec::new(), Vec::new()]);
    let damaged = |unfit| matches!(unfit, Unfit::Damaged(_));
    assert!(requests.floor(&no_floor).is_err_and(damaged));
    assert!(requests.slots(&no_floor).is_err_and(damaged));
}

#[test]
fn slots_are_read_with_their_fillers_and_nothing_else_is_one() {
    let requests = requests();
    let floor = vec![kv(&requests.keys.floor(), FLOOR)];
    let filler = KeyValue {
        value: requests.filler(8),
        ..kv(&requests.keys.slot(8), "")
    };
    let slots = vec![kv(&requests.keys.slot(6), "x"), filler];
    let read = requests.slots(&answer(true, vec![floor.clone(), slots]));
    let entry = Content::Entry(Bytes::from_static(b"x"));
    assert_eq!(read, Ok((5, vec![(6, entry), (8, Content::Filler)])));
    let strange = kv(&Bytes::from_static(b"p/journal/0000/6"), "x");
    let read = requests.slots(&answer(true, vec![floor, vec![strange]]));
    assert!(matches!(read, Err(Unfit::Damaged(_))), "{read:?}");
}

#[test]
fn a_prefix_is_founded_only_where_nothing_is() {
    let requests = requests();
    let request = requests.found();
    let condition = &request.compare[0];
    assert_eq!(
        (&condition.key[..], &condition.range_end[..]),
        (&b"p/"[..], &b"p0"[..])
    );
    assert_eq!(requests.founded(&answer(true, Vec::new())), Ok(()));
    let ours = kv(&requests.keys.cluster(), OURS);
    let again = answer(false, vec![vec![ours.clone()], vec![ours]]);
    assert_eq!(requests.founded(&again), Ok(()));
    let strange = kv(&Bytes::from_static(b"p/photo"), "");
    let strange = answer(false, vec![Vec::new(), vec![strange]]);
    let refused = requests.founded(&strange).expect_err("it is not empty");
    assert!(refused.to_string().contains("p/photo"), "{refused}");
}

#[test]
fn slots_are_deleted_only_together_with_a_higher_floor_or_below_one() {
    let requests = requests();
    let run = Deletion { first: 2, end: 5 };
    let raise = requests.raise(9, &[run]);
    let lower = is_value(CompareResult::Less, requests.keys.floor(), floor_text(9));
    assert_eq!(raise.compare[1], lower);
    assert_eq!(raise.success.len(), 2);
    let delete = requests.delete(9, &[run]);
    let high = is_value(CompareResult::Greater, requests.keys.floor(), floor_text(8));
    assert_eq!(delete.compare[1], high);
    let ours = vec![kv(&requests.keys.cluster(), OURS)];
    let as_it_was = answer(false, vec![ours, vec![kv(&requests.keys.floor(), FLOOR)]]);
    assert_eq!(requests.raised(&as_it_was, 5), Ok(Raised::Before));
    assert!(requests.raised(&as_it_was, 6).is_err());
    assert!(requests.deleted(&as_it_was).is_err());
}
