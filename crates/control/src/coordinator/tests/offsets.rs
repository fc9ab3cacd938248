//! Offsets: committed by name or id, fetched current.

use meta::group::Refusal;
use meta::ids::TopicId;
use rpc::group::{
    CommitOffsets, CommitPartition, FetchGroup, FetchedTopic, GroupError, GroupReply, GroupRequest,
    TopicName,
};

use super::rig::{Rig, TOPIC};
use crate::coordinator::Event;

/// A topic and what is committed in it.
type Committed = (TopicName, Vec<CommitPartition>);

fn commit(member: &str, generation: i32, topics: Vec<Committed>) -> GroupRequest {
    GroupRequest::Commit(CommitOffsets {
        by: None,
        group: "g".to_owned(),
        generation,
        member: member.to_owned(),
        instance: None,
        topics,
    })
}

fn topic(topic: TopicName, partitions: &[i32], offset: i64) -> Committed {
    let partition = |partition: &i32| CommitPartition {
        partition: *partition,
        offset,
        leader_epoch: 1,
        metadata: "note".to_owned(),
    };
    (topic, partitions.iter().map(partition).collect())
}

fn named(name: &str) -> TopicName {
    TopicName::Name(name.to_owned())
}

fn committed(rig: &mut Rig, request: GroupRequest) -> Vec<Result<(), GroupError>> {
    let ticket = rig.ask(request);
    match rig.answer(ticket) {
        GroupReply::Commit(results) => results,
        other => panic!("not an answer to a commit: {other:?}"),
    }
}

fn fetch(
    rig: &mut Rig,
    group: &str,
    topics: Option<Vec<(TopicName, Vec<i32>)>>,
) -> Vec<FetchedTopic> {
    let groups = vec![FetchGroup {
        group: group.to_owned(),
        topics,
    }];
    let ticket = rig.ask(GroupRequest::Fetch(groups));
    match rig.answer(ticket) {
        GroupReply::Fetch(mut groups) => groups.remove(0).topics.expect("is answered"),
        other => panic!("not an answer to a fetch: {other:?}"),
    }
}

#[test]
fn offsets_come_back_by_name_and_by_id() {
    let mut rig = Rig::stable(&["a"]);
    let topics = vec![
        topic(named("t"), &[0, 3], 5),
        topic(TopicName::Id(TOPIC), &[1], 6),
    ];
    let results = committed(&mut rig, commit("a", 1, topics));
    assert_eq!(results, [Ok(()); 3]);

    let all = fetch(&mut rig, "g", None);
    assert_eq!(
        (all.len(), &all[0].topic, all[0].id),
        (1, &named("t"), Some(TOPIC))
    );
    let offsets: Vec<_> = all[0]
        .partitions
        .iter()
        .map(|row| (row.partition, row.offset))
        .collect();
    assert_eq!(offsets, [(0, 5), (1, 6), (3, 5)]);
    assert_eq!(all[0].partitions[0].metadata, "note");
    assert_eq!(all[0].partitions[0].leader_epoch, 1);

    let some = fetch(
        &mut rig,
        "g",
        Some(vec![(TopicName::Id(TOPIC), vec![1, 2])]),
    );
    assert_eq!(some[0].partitions[0].offset, 6);
    let none = &some[0].partitions[1];
    assert_eq!((none.offset, none.leader_epoch, none.error), (-1, -1, None));
}

#[test]
fn offsets_of_a_deleted_topic_are_gone_before_housekeeping_comes_to_them() {
    let mut rig = Rig::stable(&["a"]);
    let of_topic = vec![topic(named("t"), &[0], 5)];
    assert_eq!(committed(&mut rig, commit("a", 1, of_topic)), [Ok(())]);
    rig.world.is_topic_deleted = true;
    assert!(!rig.group().offsets().is_empty(), "kept until then");
    assert!(fetch(&mut rig, "g", None).is_empty());
    let asked = vec![(named("t"), vec![0]), (TopicName::Id(TOPIC), vec![0])];
    let topics = fetch(&mut rig, "g", Some(asked));
    let rows: Vec<_> = topics.iter().map(|topic| &topic.partitions[0]).collect();
    assert_eq!((rows[0].offset, rows[0].error), (-1, None));
    let unknown = Some(GroupError::UnknownTopicId);
    assert_eq!((rows[1].offset, rows[1].error), (-1, unknown));
}

#[test]
fn what_is_not_known_has_no_offset_and_no_error_unless_asked_for_by_id() {
    let mut rig = Rig::new();
    assert!(fetch(&mut rig, "nothing", None).is_empty());
    let asked = vec![
        (named("nothing"), vec![0]),
        (TopicName::Id(TopicId(9)), vec![0]),
    ];
    let topics = fetch(&mut rig, "nothing", Some(asked));
    let rows: Vec<_> = topics.iter().map(|topic| &topic.partitions[0]).collect();
    assert_eq!((rows[0].offset, rows[0].error), (-1, None));
    assert_eq!(
        (rows[1].offset, rows[1].error),
        (-1, Some(GroupError::UnknownTopicId))
    );
}

#[test]
fn each_partition_has_its_own_outcome() {
    let mut rig = Rig::stable(&["a"]);
    let topics = vec![
        topic(named("nothing"), &[0], 5),
        topic(named("t"), &[-1, 0, 4], 5),
        topic(TopicName::Id(TopicId(9)), &[0], 5),
    ];
    let results = committed(&mut rig, commit("a", 1, topics));
    let unknown = Err(GroupError::Refused(Refusal::UnknownTopicOrPartition));
    let expected = [
        unknown,
        unknown,
        Ok(()),
        unknown,
        Err(GroupError::UnknownTopicId),
    ];
    assert_eq!(results, expected);
}

#[test]
fn a_commit_that_is_refused_is_refused_for_every_partition() {
    let mut rig = Rig::stable(&["a"]);
    let results = committed(
        &mut rig,
        commit("a", 0, vec![topic(named("t"), &[0, 1], 5)]),
    );
    let refused = Err(GroupError::Refused(Refusal::IllegalGeneration));
    assert_eq!(results, [refused, refused]);
    let results = committed(&mut rig, commit("", -1, vec![topic(named("t"), &[0], 5)]));
    let refused = Err(GroupError::Refused(Refusal::UnknownMemberId));
    assert_eq!(results, [refused]);
}

#[test]
fn a_commit_whose_outcome_is_unknown_is_not_repeated() {
    let mut rig = Rig::stable(&["a"]);
    rig.held = true;
    for (ambiguous, error) in [
        (true, GroupError::CoordinatorNotAvailable),
        (false, GroupError::NotCoordinator),
    ] {
        let ticket = rig.ask(commit("a", 1, vec![topic(named("t"), &[0], 5)]));
        let (proposal, _) = rig.journal.pop_front().expect("is proposed");
        rig.handle(Event::Failed {
            proposal,
            ambiguous,
        });
        assert!(rig.journal.is_empty(), "it might overwrite a later one");
        let GroupReply::Commit(results) = rig.answer(ticket) else {
            panic!("is answered")
        };
        assert_eq!(results, [Err(error)]);
    }
}

#[test]
fn offsets_wait_for_a_current_state() {
    let mut rig = Rig::stable(&["a"]);
    rig.held = true;
    let groups = vec![FetchGroup {
        group: "g".to_owned(),
        topics: None,
    }];
    let ticket = rig.ask(GroupRequest::Fetch(groups));
    assert!(rig.waits(ticket));
    rig.handle(Event::Barrier {
        ticket,
        passed: false,
    });
    let GroupReply::Fetch(groups) = rig.answer(ticket) else {
        panic!("is answered")
    };
    assert_eq!(groups[0].topics, Err(GroupError::NotCoordinator));
}

#[test]
fn committing_is_a_sign_of_life() {
    let mut rig = Rig::stable(&["a"]);
    for offset in 0..30 {
        rig.pass(super::rig::SESSION / 2);
        let results = committed(
            &mut rig,
            commit("a", 1, vec![topic(named("t"), &[0], offset)]),
        );
        assert_eq!(results, [Ok(())]);
    }
}
