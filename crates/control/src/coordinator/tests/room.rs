//! Room for groups: what would let them take more memory than they may is refused, and nothing else.

use bytes::Bytes;
use meta::group::Refusal;
use rpc::group::{
    CommitOffsets, CommitPartition, FetchGroup, FetchedGroup, GroupError, GroupReply, GroupRequest,
    JoinGroup, TopicName,
};

use super::rig::{Rig, back, modern, new, settings};
use crate::coordinator::Settings;

fn rig(bytes_max: u64) -> Rig {
    Rig::with(Settings {
        bytes_max,
        ..settings()
    })
}

/// Commits offsets of topic "t" in a group of no members.
fn commit_all(rig: &mut Rig, group: &str, partitions: Vec<CommitPartition>) -> GroupReply {
    let ticket = rig.ask(GroupRequest::Commit(CommitOffsets {
        by: None,
        group: group.to_owned(),
        generation: -1,
        member: String::new(),
        instance: None,
        topics: vec![(TopicName::Name("t".to_owned()), partitions)],
    }));
    rig.answer(ticket)
}

fn at(partition: i32, offset: i64, note: &str) -> CommitPartition {
    CommitPartition {
        partition,
        offset,
        leader_epoch: 1,
        metadata: note.to_owned(),
    }
}

/// Commits an offset for partition 0.
fn commit(rig: &mut Rig, group: &str, offset: i64, note: &str) -> Result<(), GroupError> {
    match commit_all(rig, group, vec![at(0, offset, note)]) {
        GroupReply::Commit(results) => results[0],
        other => panic!("not an answer to a commit: {other:?}"),
    }
}

#[test]
fn offsets_are_refused_once_there_is_no_room_and_those_that_exist_go_on() {
    let mut rig = rig(10_000);
    let note = "n".repeat(1_000);
    let groups: Vec<String> = (0..100).map(|number| format!("group-{number}")).collect();
    let fits = groups
        .iter()
        .take_while(|group| commit(&mut rig, group, 1, &note) == Ok(()))
        .count();
    assert!((4..10).contains(&fits), "{fits} groups of some 1,700 bytes");
    assert_eq!(
        commit(&mut rig, "another", 1, &note),
        Err(GroupError::NoRoom)
    );
    assert!(rig.world.groups.bytes() <= 10_000 + 600);
    assert_eq!(commit(&mut rig, &groups[0], 2, &note), Ok(()));
    assert_eq!(
        commit(&mut rig, &groups[0], 3, &"n".repeat(4_000)),
        Err(GroupError::NoRoom)
    );
    // Whoever attaches less makes room.
    assert_eq!(commit(&mut rig, &groups[0], 3, ""), Ok(()));
    assert_eq!(commit(&mut rig, &groups[1], 3, ""), Ok(()));
    assert_eq!(commit(&mut rig, "another", 1, &note), Ok(()));
}

#[test]
fn members_are_refused_once_there_is_no_room_for_what_they_say_of_themselves() {
    let large = |join: JoinGroup| {
        let mut join = join;
        join.join.protocols[0].metadata = Bytes::from(vec![0; 5_000]);
        join
    };
    let mut rig = rig(10_000);
    let first = rig.join(large(new("a")));
    let second = rig.join(large(new("b")));
    assert_eq!(rig.joined(second), Err(GroupError::NoRoom));
    rig.pass(super::rig::DELAY * 2);
    let generation = rig.joined(first).expect("joins").generation;
    let sync = rig.sync("a", generation, &["a"]);
    rig.synced(sync).expect("syncs");
    // Who is a member comes back.
    let again = rig.join(large(back("a")));
    rig.joined(again).expect("joins again");
}

/// A member comes back with so much metadata.
fn grown(member: &str, metadata_bytes: usize) -> JoinGroup {
    let mut join = back(member);
    join.join.protocols[0].metadata = Bytes::from(vec![0; metadata_bytes]);
    join
}

#[test]
fn a_member_that_comes_back_with_a_little_more_each_time_finds_no_room_in_the_end() {
    let mut rig = rig(10_000);
    rig.settle(&["a"]);
    for metadata_bytes in (0..20_000).step_by(100) {
        let join = rig.join(grown("a", metadata_bytes));
        if !rig.waits(join) && rig.joined(join) == Err(GroupError::NoRoom) {
            assert!(rig.world.groups.bytes() > 9_000, "refused early");
            return;
        }
        assert!(rig.world.groups.bytes() <= 10_000, "at {metadata_bytes}");
    }
    panic!("never refused");
}

#[test]
fn a_part_of_the_room_is_kept_for_groups_and_members_that_exist() {
    let mut rig = rig(10_000);
    rig.settle(&["a"]);
    let note = "n".repeat(1_000);
    let others: Vec<String> = (0..100).map(|number| format!("group-{number}")).collect();
    let taken = others
        .iter()
        .take_while(|group| commit(&mut rig, group, 1, &note) == Ok(()))
        .count();
    // Whatever a new group asks for now is more than what it may have.
    let small = (0..100).map(|number| format!("small-{number}"));
    let refused = small
        .map(|group| commit(&mut rig, &group, 1, ""))
        .find(Result::is_err);
    assert_eq!(refused, Some(Err(GroupError::NoRoom)));
    let fresh = rig.join(JoinGroup {
        group: "another".to_owned(),
        ..new("b")
    });
    assert_eq!(rig.joined(fresh), Err(GroupError::NoRoom));
    let member = rig.join(new("b"));
    assert_eq!(rig.joined(member), Err(GroupError::NoRoom));
    assert!(rig.world.groups.bytes() < 8_800 && taken > 2);
    let partitions = vec![at(1, 1, "")];
    let known = commit_all(&mut rig, &others[0], partitions);
    assert_eq!(known, GroupReply::Commit(vec![Ok(())]));
    let again = rig.join(grown("a", 500));
    rig.joined(again).expect("the leader joins again");
}

#[test]
fn ids_that_are_awaited_take_no_room_from_groups_and_the_oldest_are_given_up() {
    let mut rig = rig(10_000);
    let group_of = |number: usize| format!("{number:0>1000}");
    let given = 12_000;
    for number in 0..given {
        let mut join = modern(&format!("member-{number}"));
        join.group = group_of(number);
        let asked = rig.join(join);
        assert_eq!(rig.joined(asked), Err(GroupError::MemberIdRequired));
        assert!(rig.coordinator.awaited_bytes() <= super::rig::AWAITED_BYTES_MAX);
    }
    let come_back = |number: usize| JoinGroup {
        group: group_of(number),
        id_required: true,
        ..back(&format!("member-{number}"))
    };
    let newest = rig.join(come_back(given - 1));
    assert!(rig.waits(newest), "it has joined");
    let oldest = rig.join(come_back(0));
    let unknown = Err(GroupError::Refused(Refusal::UnknownMemberId));
    assert_eq!(rig.joined(oldest), unknown);
    rig.pass(super::rig::SESSION * 2);
    assert_eq!(rig.coordinator.awaited_bytes(), 0, "nobody came");
}

#[test]
fn an_answer_with_offsets_of_many_groups_ends_and_the_others_are_asked_for_again() {
    let mut rig = rig(u64::MAX);
    let mut wanted: Vec<String> = (0..1_100).map(|number| format!("group-{number}")).collect();
    let note = "n".repeat(4_000);
    for group in &wanted {
        let all = (0..4).map(|partition| at(partition, 1, &note));
        commit_all(&mut rig, group, all.collect());
    }
    let mut asked = 0;
    while !wanted.is_empty() {
        asked += 1;
        let groups = wanted.iter().map(|group| FetchGroup {
            group: group.clone(),
            topics: None,
        });
        let groups = groups.collect();
        let ticket = rig.ask(GroupRequest::Fetch(groups));
        let GroupReply::Fetch(fetched) = rig.answer(ticket) else {
            panic!("not an answer to a fetch")
        };
        assert_eq!(fetched.len(), wanted.len());
        let full = |group: &&FetchedGroup| group.topics == Err(GroupError::AnswerFull);
        let left: Vec<String> = fetched
            .iter()
            .filter(full)
            .map(|group| group.group.clone())
            .collect();
        let told = wanted.len() - left.len();
        assert!((1..1_100).contains(&told), "{told} groups of 16 KB");
        wanted = left;
    }
    assert_eq!(asked, 2);
}

#[test]
fn an_answer_that_describes_many_groups_ends_too() {
    let mut rig = rig(u64::MAX);
    let names: Vec<String> = (0..5).map(|number| format!("group-{number}")).collect();
    for name in &names {
        let mut join = new("a");
        join.group = name.clone();
        join.join.client_id = "c".repeat(6 << 20);
        rig.join(join);
    }
    let ticket = rig.ask(GroupRequest::Describe(names));
    let GroupReply::Describe(Ok(described)) = rig.answer(ticket) else {
        panic!("is described")
    };
    let told = described
        .iter()
        .map(|group| (group.error, group.members.len()));
    let full = (Some(GroupError::AnswerFull), 0);
    assert_eq!(
        told.collect::<Vec<_>>(),
        [(None, 1), (None, 1), (None, 1), full, full]
    );
}
