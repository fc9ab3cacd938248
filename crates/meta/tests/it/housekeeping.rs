//! Retention, expiry, tombstones and collection.

use meta::commit::Batch;
use meta::commit::{BatchOutcome, TimeSource};
use meta::group::{self, Action, CommitOffsets, OffsetEntry};
use meta::ids::{EntryId, PartitionId};
use meta::level::one::LEVEL as ONE;
use meta::places::{Fate, Located};
use meta::reply::{Event, Reply};
use meta::{Command, State};

use crate::support::{
    Cluster, GRACE, WALL, accepted, create, file, file_id, idempotent, plain, topic_id,
};

const DAY: u64 = 86_400_000;

fn at(time: u64, records: u32) -> Batch {
    Batch {
        max_timestamp: i64::try_from(time).expect("small"),
        ..plain(records)
    }
}

/// A topic with a file per batch.
fn filled(batches: &[Batch]) -> (Cluster, PartitionId) {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    for (number, batch) in (0..).zip(batches) {
        cluster.commit(&file(file_id(run, number), &[(partition, &[*batch])]));
    }
    (cluster, partition)
}

fn pass_in_steps(cluster: &mut Cluster, millis: u64) {
    let mut left = millis;
    while left > 0 {
        let step = left.min(ONE.jump_millis);
        cluster.pass(step);
        cluster.apply(&Command::SetFeatureLevel { level: 1 });
        left -= step;
    }
}

#[test]
fn slices_go_by_time_from_the_oldest_as_a_whole() {
    let (mut cluster, partition) = filled(&[at(WALL, 2), at(WALL + 500, 3), at(WALL + 100, 1)]);
    cluster.configure("t", "retention.ms", "1000");
    cluster.pass(1_000);
    assert_eq!(cluster.housekeep(), [], "nothing is older than its time");
    cluster.pass(1);
    let events = cluster.housekeep();
    let moved = Event::LogStart {
        partition,
        log_start: 2,
    };
    assert_eq!(events, [moved, Event::FilesTombstoned]);
    assert_eq!(cluster.bounds(partition), (2, 6));
    let located = cluster.state.locate(partition, 1, 1, 1);
    assert_eq!(
        located,
        Located::OutOfRange {
            log_start: 2,
            high_watermark: 6
        }
    );
    cluster.pass(400);
    assert_eq!(
        cluster.housekeep(),
        [],
        "the second holds back the third, which is older"
    );
    cluster.pass(101);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (6, 6), "everything may go");
    let located = cluster.state.locate(partition, 6, 1, 1);
    assert_eq!(
        located,
        Located::Found {
            log_start: 6,
            high_watermark: 6,
            places: vec![]
        }
    );
    let run = meta::ids::Incarnation(1);
    let next = file(file_id(run, 3), &[(partition, &[plain(1)])]);
    let outcome = BatchOutcome::Accepted {
        base_offset: 6,
        log_start: 6,
    };
    assert_eq!(*cluster.outcomes(&next), [outcome], "offsets go on");
}

#[test]
fn slices_go_by_size_while_the_rest_is_enough() {
    let (mut cluster, partition) = filled(&[plain(1); 5]);
    cluster.configure("t", "retention.bytes", "250");
    cluster.housekeep();
    assert_eq!(
        cluster.bounds(partition),
        (2, 5),
        "300 bytes are left: 200 would be too few"
    );
    cluster.configure("t", "retention.bytes", "0");
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (5, 5));
    let retained = cluster.state.partition(partition).expect("it exists");
    assert_eq!((retained.bytes(), retained.slices()), (0, 0));
}

#[test]
fn records_without_a_timestamp_are_as_old_as_their_file() {
    let (mut cluster, partition) = filled(&[Batch {
        max_timestamp: -1,
        ..plain(1)
    }]);
    cluster.configure_cluster("log.retention.ms", "1000");
    cluster.pass(1_000);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (0, 1));
    cluster.pass(1);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (1, 1));
}

/// A header that nobody compared with the records may say that all are old while some are new.
#[test]
fn records_whose_timestamps_are_only_claimed_are_as_old_as_their_file_at_most() {
    let claimed = |time| Batch {
        time_source: TimeSource::Header,
        ..at(time, 1)
    };
    let (mut cluster, partition) = filled(&[at(WALL - 5_000, 1), claimed(WALL - 5_000)]);
    cluster.configure_cluster("log.retention.ms", "1000");
    cluster.pass(1_000);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (1, 2), "what was compared goes");
    cluster.pass(1);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (2, 2));
    // A claim to be young is believed.
    let (mut cluster, partition) = filled(&[claimed(WALL + 5_000)]);
    cluster.configure_cluster("log.retention.ms", "1000");
    cluster.pass(6_000);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (0, 1));
    cluster.pass(1);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (1, 1));
}

/// An agent an hour ahead or behind changes nothing about what goes when, though records show its time.
#[test]
fn records_that_have_an_agents_time_are_as_old_as_their_commit() {
    const HOUR: u64 = 3_600_000;
    let appended = |time| Batch {
        time_source: TimeSource::Agent,
        ..at(time, 1)
    };
    let agents = [WALL - HOUR, WALL, WALL + HOUR].map(appended);
    let (mut cluster, partition) = filled(&agents);
    cluster.configure_cluster("log.retention.ms", "1000");
    cluster.pass(1_000);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (0, 3));
    cluster.pass(1);
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (3, 3));
}

/// Batches that are in one file, of one partition, while its topic's timestamps change their type.
#[test]
fn slices_that_tell_their_age_otherwise_are_not_put_together() {
    let appended = Batch {
        time_source: TimeSource::Agent,
        ..at(WALL - 5_000, 1)
    };
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    let batches = [at(WALL - 5_000, 1), appended, appended];
    cluster.commit(&file(file_id(run, 0), &[(partition, &batches)]));
    cluster.configure_cluster("log.retention.ms", "1000");
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (1, 3));
    let state = cluster.state.partition(partition).expect("it exists");
    assert_eq!(state.slices(), 1);
}

#[test]
fn retention_without_limits_keeps_everything() {
    let (mut cluster, partition) = filled(&[at(0, 1), plain(1)]);
    cluster.configure("t", "retention.ms", "-1");
    pass_in_steps(&mut cluster, 400 * DAY);
    assert_eq!(cluster.housekeep(), []);
    assert_eq!(cluster.bounds(partition), (0, 2));
}

#[test]
fn a_jump_of_the_wall_clock_holds_retention_by_time_but_not_by_size() {
    let (mut cluster, partition) = filled(&[plain(1); 3]);
    cluster.configure("t", "retention.ms", "1000");
    cluster.now.wall_millis += ONE.jump_millis + 1;
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (0, 3));
    assert_eq!(
        cluster.state.retention_hold().map(|hold| hold.since),
        Some(cluster.now)
    );
    cluster.configure("t", "retention.bytes", "200");
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (1, 3));
    pass_in_steps(&mut cluster, ONE.jump_confirmed_millis);
    cluster.housekeep();
    assert_eq!(cluster.state.retention_hold(), None);
    assert_eq!(cluster.bounds(partition), (3, 3));
}

/// Stamps ran a year ahead, and an operator has set the time right: what was written meanwhile is as old as that.
#[test]
fn records_that_were_stamped_ahead_go_when_they_are_old_by_the_time_that_was_set() {
    const YEAR: u64 = 365 * DAY;
    let appended = Batch {
        time_source: TimeSource::Agent,
        ..plain(1)
    };
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    cluster.configure("t", "retention.ms", "1000");
    cluster.now.wall_millis += YEAR;
    cluster.commit(&file(file_id(run, 0), &[(partition, &[appended])]));
    assert!(cluster.state.retention_hold().is_some());
    let refused = cluster.apply(&Command::SetTime {
        wall_millis: WALL + YEAR,
    });
    assert!(matches!(refused, Reply::Refused(_)), "{refused:?}");
    let set = Command::SetTime { wall_millis: WALL };
    assert_eq!(cluster.apply(&set), Reply::Done);
    assert_eq!(cluster.state.retention_hold(), None);
    assert_eq!(cluster.state.stamp().wall_millis, WALL);
    // Stamps do not go back, so they stand still: time goes on by ticks.
    cluster.now.ticks_millis += 500;
    cluster.commit(&file(file_id(run, 1), &[(partition, &[appended])]));
    cluster.now.ticks_millis += 500;
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (0, 2));
    cluster.now.ticks_millis += 1;
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (1, 2));
    cluster.now.ticks_millis += 500;
    cluster.housekeep();
    assert_eq!(cluster.bounds(partition), (2, 2));
}

#[test]
fn a_dead_file_is_collectable_only_after_the_grace_and_forgotten_only_once_deleted() {
    let (mut cluster, _) = filled(&[plain(1), plain(1)]);
    let run = meta::ids::Incarnation(1);
    let (dead, live) = (file_id(run, 0), file_id(run, 1));
    cluster.configure("t", "retention.bytes", "100");
    cluster.housekeep();
    assert_eq!(cluster.fate(dead), Fate::Tombstoned);
    assert_eq!(cluster.fate(live), Fate::Live);
    cluster.pass(GRACE - 1);
    cluster.housekeep();
    assert_eq!(cluster.state.collectable(0, 9), []);
    assert_eq!(
        cluster.forget([dead, live]),
        [dead, live].into(),
        "neither may be deleted"
    );
    cluster.pass(1);
    cluster.housekeep();
    let collectable: Vec<_> = cluster
        .state
        .collectable(0, 9)
        .iter()
        .map(|r| r.file)
        .collect();
    assert_eq!(collectable, [dead]);
    assert_eq!(
        cluster.fate(dead),
        Fate::Tombstoned,
        "it may be there still"
    );
    assert_eq!(cluster.forget([dead, live]), [live].into());
    assert_eq!(cluster.fate(dead), Fate::Dead);
    assert_eq!(cluster.state.collectable(0, 9), []);
    assert_eq!(cluster.state.totals().files, 1);
}

#[test]
fn the_grace_counts_ticks_not_the_wall_clock() {
    let (mut cluster, _) = filled(&[plain(1), plain(1)]);
    cluster.configure("t", "retention.bytes", "100");
    cluster.housekeep();
    cluster.now.wall_millis += 10 * DAY;
    cluster.housekeep();
    assert_eq!(cluster.state.collectable(0, 9), []);
    cluster.now.ticks_millis += GRACE;
    cluster.housekeep();
    assert_eq!(cluster.state.collectable(0, 9).len(), 1);
}

#[test]
fn an_upload_that_was_skipped_is_dead_only_after_the_grace() {
    let mut cluster = Cluster::new();
    let run = cluster.agent("a", 1);
    cluster.skip(file_id(run, 0));
    assert_eq!(
        cluster.fate(file_id(run, 0)),
        Fate::Undecided,
        "its PUT may be on its way"
    );
    assert_eq!(cluster.fate(file_id(run, 1)), Fate::Undecided);
    cluster.pass(GRACE);
    cluster.housekeep();
    assert_eq!(cluster.fate(file_id(run, 0)), Fate::Dead);
    assert_eq!(cluster.fate(file_id(run, 1)), Fate::Undecided);
}

#[test]
fn idle_producers_are_forgotten_after_a_day_of_ticks() {
    let (mut cluster, partition) = filled(&[idempotent(3, 0, 0, 5)]);
    let run = meta::ids::Incarnation(1);
    cluster.configure("t", "retention.ms", "-1");
    pass_in_steps(&mut cluster, DAY);
    cluster.housekeep();
    let gap = file(file_id(run, 1), &[(partition, &[idempotent(3, 0, 50, 1)])]);
    assert_eq!(
        *cluster.outcomes(&gap),
        [BatchOutcome::OutOfOrder],
        "a day exactly is kept"
    );
    pass_in_steps(&mut cluster, 1);
    cluster.housekeep();
    let again = file(file_id(run, 2), &[(partition, &[idempotent(3, 0, 50, 1)])]);
    assert_eq!(
        *cluster.outcomes(&again),
        [accepted(5)],
        "any sequence begins anew"
    );
}

#[test]
fn housekeeping_does_a_bounded_step_at_a_time_and_ends() {
    let mut cluster = Cluster::new();
    let partitions = cluster.topic("t", 60);
    let run = cluster.agent("a", 1);
    for number in 0..1_000 {
        let mut commit = file(file_id(run, number), &[]);
        let mut position = 16;
        for partition in &partitions {
            commit.push_slice(*partition, position);
            commit.push_batch(plain(1));
            position += 100;
        }
        commit.length = position;
        // Checking everything each time would take most of a minute.
        let _ = cluster.state.apply(
            EntryId::default(),
            cluster.now,
            &Command::CommitFile(commit),
        );
    }
    cluster.apply(&Command::DeleteTopic { id: topic_id("t") });
    let mut steps = 0;
    let mut left = cluster.state.totals().doomed_partitions;
    assert_eq!(left, 60);
    while cluster.apply(&Command::Housekeep) == (Reply::Housekept { more: true }) {
        let now = cluster.state.totals().doomed_partitions;
        assert!(left - now <= 20, "20,000 slices in a step at most");
        left = now;
        steps += 1;
    }
    assert_eq!(steps, 2);
    let totals = cluster.state.totals();
    assert_eq!(
        (totals.doomed_partitions, totals.tombstoned_files),
        (0, 1_000)
    );
}

#[test]
fn a_step_looks_at_a_part_of_many_partitions_and_goes_on_there() {
    let mut state = State::genesis("kHbeVPd4TfyZX0fDXsVpRA".to_owned());
    let now = meta::ids::Stamp {
        wall_millis: WALL,
        ticks_millis: 0,
    };
    state.apply(EntryId::default(), now, &create("t", 12_000));
    let step = |state: &mut State| {
        state
            .apply(EntryId::default(), now, &Command::Housekeep)
            .reply
    };
    assert_eq!(step(&mut state), Reply::Housekept { more: true });
    assert_eq!(step(&mut state), Reply::Housekept { more: true });
    assert_eq!(step(&mut state), Reply::Housekept { more: false });
    assert_eq!(step(&mut state), Reply::Housekept { more: true });
}

fn is_accepted(outcome: &BatchOutcome) -> bool {
    matches!(outcome, BatchOutcome::Accepted { .. })
}

/// Beyond `producer.ids.max` a producer is not let in: to forget another one could let a batch in
/// twice.
#[test]
fn producers_are_bounded_and_idle_ones_make_room() {
    let mut cluster = Cluster::new();
    let partitions = cluster.topic("t", 2);
    let run = cluster.agent("a", 1);
    cluster.configure_cluster("producer.ids.max", "1000");
    let mut number = 0;
    let mut write = |cluster: &mut Cluster, partition: usize, batches: &[Batch]| {
        let id = partitions[partition];
        let outcomes = cluster.outcomes(&file(file_id(run, number), &[(id, batches)]));
        number += 1;
        outcomes
    };
    let first: Vec<Batch> = (0..999).map(|id| idempotent(id, 0, 0, 1)).collect();
    let outcomes = write(&mut cluster, 0, &first);
    assert!(outcomes.iter().all(is_accepted));
    // One that is known in another partition counts there too.
    let outcomes = write(
        &mut cluster,
        1,
        &[idempotent(0, 0, 0, 1), idempotent(1, 0, 0, 1)],
    );
    assert!(is_accepted(&outcomes[0]));
    assert_eq!(outcomes[1], BatchOutcome::TooManyProducers);
    let totals = |cluster: &Cluster| cluster.state.totals().producers;
    assert_eq!(totals(&cluster), 1_000);
    let restored = State::restore(&cluster.state.capture().encode_chunks()).expect("restored");
    assert_eq!(restored.totals().producers, 1_000);

    // Who is known, or no idempotent producer, goes on.
    let going_on = [idempotent(5, 0, 1, 1), idempotent(5, 0, 0, 1), plain(1)];
    let outcomes = write(&mut cluster, 0, &going_on);
    assert!(is_accepted(&outcomes[0]) && is_accepted(&outcomes[2]));
    assert!(matches!(outcomes[1], BatchOutcome::Duplicate { .. }));

    cluster.pass(600_000);
    let outcomes = write(&mut cluster, 0, &[idempotent(5, 0, 2, 1)]);
    assert!(is_accepted(&outcomes[0]));
    cluster.pass(1);
    cluster.housekeep();
    // With room again, the other partition's is kept.
    assert_eq!(totals(&cluster), 2, "who is idle makes room");
    let outcomes = write(&mut cluster, 1, &[idempotent(1, 0, 0, 1)]);
    assert!(is_accepted(&outcomes[0]));
    cluster.pass(600_001);
    cluster.housekeep();
    assert_eq!(
        totals(&cluster),
        3,
        "while there is room, a day's idleness is no harm"
    );

    let id = topic_id("t");
    cluster.apply(&Command::DeleteTopic { id });
    cluster.housekeep();
    assert_eq!(totals(&cluster), 0);
}

#[test]
fn what_goes_with_an_offset_is_as_long_as_the_cluster_allows() {
    let mut cluster = Cluster::new();
    cluster.topic("t", 1);
    let commit = |bytes: usize| {
        let offset = OffsetEntry {
            topic: topic_id("t"),
            partition: 0,
            offset: 1,
            leader_epoch: -1,
            metadata: "x".repeat(bytes),
        };
        Command::Group(group::Command {
            group: "g".to_owned(),
            action: Action::Commit(CommitOffsets {
                by: None,
                member: String::new(),
                instance: None,
                generation: -1,
                offsets: vec![offset],
            }),
        })
    };
    let outcome = |result| Reply::Group(group::Reply::Commit(Ok(vec![result])));
    let too_large = outcome(Err(group::Refusal::OffsetMetadataTooLarge));
    assert_eq!(cluster.apply(&commit(4_096)), outcome(Ok(())));
    assert_eq!(cluster.apply(&commit(4_097)), too_large);
    cluster.configure_cluster("offset.metadata.max.bytes", "10");
    assert_eq!(cluster.apply(&commit(10)), outcome(Ok(())));
    assert_eq!(cluster.apply(&commit(11)), too_large);
}
