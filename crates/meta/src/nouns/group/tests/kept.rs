//! State that outlives members: offsets, their expiry, snapshots; and bytes that no version wrote.

use super::super::Expiry;
use super::*;
use crate::bytes::group::Malformed;

#[test]
fn who_may_commit_depends_on_the_phase() {
    let mut rig = Rig::default();
    assert_eq!(rig.commit("", 3), Err(Refusal::GroupIdNotFound), "no group");
    assert!(rig.groups.is_empty());
    assert_eq!(
        rig.commit("", -1),
        Ok(()),
        "a client that manages its own partitions"
    );
    assert_eq!(rig.phase(), Phase::Empty);
    assert_eq!(rig.commit("a", 0), Err(Refusal::UnknownMemberId));

    rig.form(&["a"]);
    assert_eq!(
        rig.commit("", -1),
        Err(Refusal::UnknownMemberId),
        "only members from here on"
    );
    assert_eq!(
        rig.commit("a", 1),
        Err(Refusal::RebalanceInProgress),
        "it has nothing assigned"
    );
    rig.sync("a", &[]).expect("syncs");
    assert_eq!(rig.commit("a", 1), Ok(()));
    assert_eq!(rig.commit("a", 2), Err(Refusal::IllegalGeneration));
    assert_eq!(rig.commit("z", 1), Err(Refusal::UnknownMemberId));
    rig.join(new("b")).expect("joins");
    assert_eq!(
        rig.commit("a", 1),
        Ok(()),
        "what it has processed before it rejoins"
    );
    rig.leave("a", None).expect("leaves");
    rig.leave("b", None).expect("leaves");
    assert_eq!(rig.commit("", -1), Ok(()), "empty again");
}

#[test]
fn offsets_are_committed_each_on_its_own() {
    let mut rig = Rig::default();
    let long = OffsetEntry {
        metadata: "x".repeat(4097),
        ..offset(2, 9)
    };
    let longest = OffsetEntry {
        metadata: "x".repeat(4096),
        ..offset(3, 9)
    };
    let elsewhere = OffsetEntry {
        topic: TopicId(8),
        ..offset(0, 9)
    };
    let entries = [offset(0, 5), offset(4, 5), long, longest, elsewhere];
    let results = rig
        .commit_as("", None, -1, &entries)
        .expect("a simple consumer may");
    let unknown = Err(Refusal::UnknownTopicOrPartition);
    let expected = [
        Ok(()),
        unknown,
        Err(Refusal::OffsetMetadataTooLarge),
        Ok(()),
        unknown,
    ];
    assert_eq!(results, expected);
    let offsets = rig.group().offsets();
    assert_eq!(offsets.get(TOPIC, 0).map(|offset| offset.offset), Some(5));
    assert_eq!(offsets.get(TOPIC, 2), None);
    assert_eq!(
        offsets.get(TOPIC, 3).map(|offset| offset.metadata.len()),
        Some(4096)
    );
}

#[test]
fn notes_are_as_long_as_they_have_units_of_utf16() {
    let mut rig = Rig::default();
    let mut commit = |note: String| {
        let noted = OffsetEntry {
            metadata: note,
            ..offset(0, 5)
        };
        let results = rig.commit_as("", None, -1, &[noted]);
        results.expect("a simple consumer may")[0]
    };
    let too_long = Err(Refusal::OffsetMetadataTooLarge);
    assert_eq!(commit("\u{e4}".repeat(4096)), Ok(()));
    assert_eq!(commit("\u{e4}".repeat(4097)), too_long);
    assert_eq!(commit("\u{1f980}".repeat(2048)), Ok(()), "two units each");
    assert_eq!(commit("\u{1f980}".repeat(2049)), too_long);
}

#[test]
fn a_deleted_topic_takes_its_offsets_along() {
    let mut rig = Rig::stable(&["a"]);
    rig.commit("a", 1).expect("commits");
    let expiry = Expiry {
        level: &ONE,
        ticks: 0,
        retention_millis: u64::MAX,
        is_topic: &|_| false,
    };
    rig.groups.sweep(&expiry, 10);
    assert!(rig.group().offsets().is_empty());
    rig.groups.assert_invariants();
}

#[test]
fn offsets_expire_only_while_the_group_is_empty() {
    let mut rig = Rig::stable(&["a"]);
    rig.commit("a", 1).expect("commits");
    let expire = |rig: &mut Rig| {
        let expiry = Expiry {
            level: &ONE,
            ticks: rig.ticks_millis,
            retention_millis: 100 * MINUTE,
            is_topic: &|_| true,
        };
        rig.groups.sweep(&expiry, 10).len()
    };
    rig.ticks_millis = 500 * MINUTE;
    assert_eq!(expire(&mut rig), 0);
    assert!(!rig.group().offsets().is_empty(), "members are there");
    rig.leave("a", None).expect("leaves");
    rig.ticks_millis = 599 * MINUTE;
    assert_eq!(expire(&mut rig), 0);
    assert!(
        !rig.group().offsets().is_empty(),
        "the group has not been empty for long enough"
    );
    rig.commit_as("", None, -1, &[offset(1, 1)])
        .expect("a simple consumer may");
    rig.ticks_millis = 600 * MINUTE;
    assert_eq!(expire(&mut rig), 0);
    let offsets = rig.group().offsets();
    assert!(offsets.get(TOPIC, 0).is_none(), "old enough");
    assert!(offsets.get(TOPIC, 1).is_some(), "committed since");
    rig.ticks_millis = 700 * MINUTE;
    assert_eq!(expire(&mut rig), 1, "nothing is left of the group");
    assert!(rig.groups.is_empty());
}

#[test]
fn a_sweep_looks_at_no_more_than_it_may_and_comes_to_all_groups() {
    let mut groups = Groups::default();
    let rules = OffsetRules {
        partitions: &|_| Some(1_000),
        ..RULES
    };
    for number in 0..100 {
        let commit = CommitOffsets {
            by: None,
            member: String::new(),
            instance: None,
            generation: -1,
            offsets: (0..(number % 30 + 1) * 5)
                .map(|nth| OffsetEntry {
                    topic: TopicId(u128::from(nth % 5)),
                    ..offset(nth / 5, 1)
                })
                .collect(),
        };
        let command = Command {
            group: format!("group-{number}"),
            action: Action::Commit(commit),
        };
        groups.apply(Stamp::default(), rules, &command);
    }
    let offsets = |groups: &Groups| -> usize {
        let topics = groups
            .iter()
            .flat_map(|(_, group)| group.offsets().topics());
        topics.map(|(_, offsets)| offsets.count()).sum()
    };
    let expiry = Expiry {
        level: &ONE,
        ticks: 9,
        retention_millis: u64::MAX,
        is_topic: &|topic| topic != TopicId(2),
    };
    let (mut steps, mut before) = (1, offsets(&groups));
    let all = before;
    while groups.sweep(&expiry, 50).is_empty() && groups.is_being_swept() {
        let now = offsets(&groups);
        assert!(before - now <= 50 + 30, "step {steps}: {before} to {now}");
        (steps, before) = (steps + 1, now);
        groups.assert_invariants();
    }
    assert_eq!(offsets(&groups), all * 4 / 5);
    assert!(steps > 20, "{steps}");
}

#[test]
fn a_group_is_deleted_only_when_it_is_empty() {
    let mut rig = Rig::default();
    assert_eq!(
        rig.apply(Action::Delete),
        Reply::Delete(Err(Refusal::GroupIdNotFound))
    );
    let mut rig = Rig::stable(&["a"]);
    assert_eq!(
        rig.apply(Action::Delete),
        Reply::Delete(Err(Refusal::NonEmptyGroup))
    );
    rig.leave("a", None).expect("leaves");
    assert_eq!(rig.apply(Action::Delete), Reply::Delete(Ok(())));
    assert!(rig.groups.is_empty());
}

#[test]
fn a_snapshot_restores_every_group() {
    let mut rig = Rig::stable(&["a", "b"]);
    rig.commit("a", 1).expect("commits");
    rig.join(fixed("c", "i1")).expect("joins");
    let rules = OffsetRules {
        partitions: &|_| Some(30_000),
        ..RULES
    };
    for number in 0..200 {
        let count = if number == 7 { 25_000 } else { 3 };
        let commit = CommitOffsets {
            by: None,
            member: String::new(),
            instance: None,
            generation: -1,
            offsets: (0..count).map(|index| offset(index, 1)).collect(),
        };
        let command = Command {
            group: format!("group-{number}"),
            action: Action::Commit(commit),
        };
        rig.groups.apply(Stamp::default(), rules, &command);
    }
    let before: Vec<_> = rig.groups.sections().collect();
    let mut restored = Groups::default();
    for section in before.iter().cloned() {
        restored.restore(section).expect("restores");
    }
    restored.bytes = restored.count_bytes();
    assert_eq!(restored, rig.groups);

    rig.leave("a", None).expect("leaves");
    let changed = rig
        .groups
        .sections()
        .zip(&before)
        .filter(|(now, then)| now != *then)
        .count();
    assert_eq!(changed, 1, "one group changed: one section differs");
}

#[test]
fn malformed_bytes_are_refused() {
    let commit = CommitOffsets {
        by: None,
        member: String::new(),
        instance: None,
        generation: -1,
        offsets: vec![offset(0, 1), offset(1, 1)],
    };
    let good = crate::bytes::proto::CommitOffsets::from(&commit);
    let read = |message: crate::bytes::proto::CommitOffsets| CommitOffsets::try_from(message);
    assert_eq!(read(good.clone()), Ok(commit));
    let mut short = good.clone();
    short.offset.pop();
    assert_eq!(read(short), Err(Malformed::Columns));
    let mut dangling = good.clone();
    dangling.topic[0] = 9;
    assert_eq!(read(dangling), Err(Malformed::TopicId));
    let mut cut = good;
    cut.topics[0].pop();
    assert_eq!(read(cut), Err(Malformed::TopicId));
    let empty = crate::bytes::proto::GroupCommand {
        group: "g".to_owned(),
        kind: None,
    };
    assert_eq!(Command::try_from(empty), Err(Malformed::NoKind));

    let twice = crate::bytes::proto::GroupState {
        group: "g".to_owned(),
        ..Default::default()
    };
    let section = crate::bytes::proto::Groups {
        groups: vec![twice.clone(), twice],
        offsets: Vec::new(),
    };
    assert_eq!(Groups::default().restore(section), Err(Malformed::Identity));
}
