//! Commits: offsets, idempotence, order, repeats, and where records are found afterwards.

use meta::commit::Batch;
use meta::commit::{BatchOutcome, FileReply};
use meta::ids::PartitionId;
use meta::level::one::LEVEL as ONE;
use meta::places::{Fate, Located, SlicePlace};
use meta::reply::Event;

use crate::support::{Cluster, accepted, duplicate, file, file_id, idempotent, plain};

fn places(cluster: &Cluster, partition: PartitionId, offset: i64) -> Vec<SlicePlace> {
    match cluster
        .state
        .locate(partition, offset, u64::MAX, usize::MAX)
    {
        Located::Found { places, .. } => places,
        other => panic!("{offset} is in range: {other:?}"),
    }
}

fn ranges(places: &[SlicePlace]) -> Vec<(u64, u64, u32, i64, i64)> {
    let range = |place: &SlicePlace| {
        let number = place.file.number;
        (
            number,
            place.position,
            place.length,
            place.base_offset,
            place.last_offset,
        )
    };
    places.iter().map(range).collect()
}

#[test]
fn batches_take_offsets_in_file_order_and_are_found_by_them() {
    let mut cluster = Cluster::new();
    let partitions = cluster.topic("t", 2);
    let (a, b) = (partitions[0], partitions[1]);
    let run = cluster.agent("a", 1);
    let first = file(
        file_id(run, 0),
        &[(a, &[plain(3), plain(2)]), (b, &[plain(1)])],
    );
    assert_eq!(
        *cluster.outcomes(&first),
        [accepted(0), accepted(3), accepted(0)]
    );
    let advanced: Vec<_> = cluster.events.clone();
    let second = file(file_id(run, 1), &[(a, &[plain(5)])]);
    assert_eq!(*cluster.outcomes(&second), [accepted(5)]);

    assert_eq!(cluster.bounds(a), (0, 10));
    assert_eq!(
        ranges(&places(&cluster, a, 0)),
        [(0, 16, 200, 0, 4), (1, 16, 100, 5, 9)]
    );
    assert_eq!(
        ranges(&places(&cluster, a, 4)),
        [(0, 16, 200, 0, 4), (1, 16, 100, 5, 9)]
    );
    assert_eq!(ranges(&places(&cluster, a, 5)), [(1, 16, 100, 5, 9)]);
    assert_eq!(places(&cluster, a, 10), []);
    assert_eq!(ranges(&places(&cluster, b, 0)), [(0, 216, 100, 0, 0)]);
    let place = places(&cluster, b, 0)[0];
    assert_eq!((place.nonce, place.file_length), (77, first.length));
    let event = Event::Advanced {
        partition: b,
        high_watermark: 1,
        place,
    };
    assert_eq!(advanced.get(1), Some(&event));
    for offset in [-1, 11] {
        let located = cluster.state.locate(a, offset, 1, 1);
        assert_eq!(
            located,
            Located::OutOfRange {
                log_start: 0,
                high_watermark: 10
            }
        );
    }
    let nowhere = cluster.state.locate(PartitionId(99), 0, 1, 1);
    assert_eq!(nowhere, Located::UnknownPartition);
}

#[test]
fn the_first_slice_is_given_however_large_and_no_more_than_asked_for() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    for number in 0..5 {
        cluster.commit(&file(file_id(run, number), &[(partition, &[plain(1)])]));
    }
    let count = |bytes, slices| match cluster.state.locate(partition, 1, bytes, slices) {
        Located::Found { places, .. } => places.len(),
        other => panic!("{other:?}"),
    };
    assert_eq!(count(0, 9), 1);
    assert_eq!(count(100, 9), 1);
    assert_eq!(count(101, 9), 2);
    assert_eq!(count(u64::MAX, 3), 3);
    assert_eq!(count(u64::MAX, 0), 1);
    assert_eq!(count(u64::MAX, 9), 4);
}

#[test]
fn a_slice_is_parted_at_every_batch_that_is_not_accepted() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    cluster.commit(&file(
        file_id(run, 0),
        &[(partition, &[idempotent(7, 0, 0, 2)])],
    ));
    let batches = [
        plain(1),
        idempotent(7, 0, 0, 2),
        plain(1),
        idempotent(7, 0, 2, 2),
        idempotent(7, 0, 9, 1),
        idempotent(7, 0, 4, 1),
    ];
    let second = file(file_id(run, 1), &[(partition, &batches)]);
    let expected = [
        accepted(2),
        duplicate(0),
        accepted(3),
        accepted(4),
        BatchOutcome::OutOfOrder,
        accepted(6),
    ];
    assert_eq!(*cluster.outcomes(&second), expected);
    let found = ranges(&places(&cluster, partition, 2));
    assert_eq!(
        found,
        [(1, 16, 100, 2, 2), (1, 216, 200, 3, 5), (1, 516, 100, 6, 6)]
    );
    let file = cluster.state.file(second.file).expect("it is committed");
    assert_eq!((file.live_slices, file.live_bytes), (3, 400));
}

#[test]
fn a_file_of_which_nothing_was_accepted_is_dead_from_the_start() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    cluster.commit(&file(
        file_id(run, 0),
        &[(partition, &[idempotent(7, 0, 0, 2)])],
    ));
    let again = file(file_id(run, 1), &[(partition, &[idempotent(7, 0, 0, 2)])]);
    assert_eq!(*cluster.outcomes(&again), [duplicate(0)]);
    assert_eq!(cluster.events, [Event::FilesTombstoned]);
    assert_eq!(cluster.fate(again.file), Fate::Tombstoned);
    let elsewhere = file(file_id(run, 2), &[(PartitionId(50), &[plain(1), plain(1)])]);
    assert_eq!(
        *cluster.outcomes(&elsewhere),
        [BatchOutcome::UnknownPartition; 2]
    );
    assert_eq!(cluster.fate(elsewhere.file), Fate::Tombstoned);
}

#[test]
fn commits_apply_in_number_order_whatever_happens_to_the_messages() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    let commit = |number| file(file_id(run, number), &[(partition, &[plain(1)])]);
    assert_eq!(cluster.commit(&commit(1)), FileReply::Gap { expected: 0 });
    assert_eq!(*cluster.outcomes(&commit(0)), [accepted(0)]);
    assert_eq!(*cluster.outcomes(&commit(1)), [accepted(1)]);
    assert_eq!(
        *cluster.outcomes(&commit(0)),
        [accepted(0)],
        "a repeat gets the first outcome"
    );
    assert_eq!(cluster.skip(file_id(run, 1)), {
        FileReply::Committed {
            outcomes: [accepted(1)].into(),
        }
    });
    assert_eq!(
        cluster.skip(file_id(run, 3)),
        FileReply::Gap { expected: 2 }
    );
    assert_eq!(cluster.skip(file_id(run, 2)), FileReply::Skipped);
    assert_eq!(cluster.skip(file_id(run, 2)), FileReply::Skipped);
    assert_eq!(
        cluster.commit(&commit(2)),
        FileReply::Skipped,
        "what is skipped stays so"
    );
    assert_eq!(*cluster.outcomes(&commit(3)), [accepted(2)]);
    assert_eq!(cluster.bounds(partition), (0, 3));
}

#[test]
fn outcomes_are_kept_for_the_last_files_only() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    let commit = |number| file(file_id(run, number), &[(partition, &[plain(1)])]);
    let kept = u64::try_from(ONE.outcomes_kept).expect("few");
    for number in 0..=kept {
        cluster.commit(&commit(number));
    }
    assert_eq!(cluster.commit(&commit(0)), FileReply::Decided);
    assert_eq!(*cluster.outcomes(&commit(1)), [accepted(1)]);
    let other = meta::commit::CommitFile {
        nonce: 1,
        ..commit(1)
    };
    assert_eq!(
        cluster.commit(&other),
        FileReply::Decided,
        "it is not what was committed"
    );
}

#[test]
fn a_fenced_incarnation_commits_nothing_more_but_hears_what_it_had_committed() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    let commit = |number| file(file_id(run, number), &[(partition, &[plain(1)])]);
    cluster.commit(&commit(0));
    cluster.agent("a", 2);
    assert_eq!(cluster.commit(&commit(1)), FileReply::Fenced);
    assert_eq!(cluster.commit(&commit(9)), FileReply::Fenced);
    assert_eq!(*cluster.outcomes(&commit(0)), [accepted(0)]);
    assert_eq!(cluster.bounds(partition), (0, 1));
}

#[test]
fn malformed_columns_decide_nothing() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    let good = file(file_id(run, 0), &[(partition, &[plain(1), plain(2)])]);
    type Damage = fn(&mut meta::commit::CommitFile);
    let damages: [Damage; 14] = [
        |file| file.slices.partition.push(1),
        |file| file.slices.position.clear(),
        |file| file.slices.length[0] -= 1,
        |file| file.slices.batches[0] = 1,
        |file| file.slices.batches[0] = 3,
        |file| file.batches.records[1] = 0,
        |file| file.batches.records[1] = 1 << 31,
        |file| file.batches.bytes[0] = 0,
        |file| file.batches.producer_epoch[0] = 40_000,
        |file| file.batches.base_sequence.push(0),
        |file| file.length = 215,
        |file| file.slices.position[0] = u64::MAX,
        |file| {
            *file = meta::commit::CommitFile {
                file: file.file,
                placement: vec![0],
                ..Default::default()
            }
        },
        |file| file.slices.batches[0] = u32::MAX,
    ];
    for (nth, damage) in damages.iter().enumerate() {
        let mut bad = good.clone();
        damage(&mut bad);
        assert_eq!(cluster.commit(&bad), FileReply::Malformed, "damage {nth}");
        assert_eq!(cluster.bounds(partition), (0, 0));
    }
    assert_eq!(*cluster.outcomes(&good), [accepted(0), accepted(1)]);
}

#[test]
fn an_idempotent_producer_goes_on_in_another_file_of_another_agent() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let (a, b) = (cluster.agent("a", 1), cluster.agent("b", 2));
    let one = |run, number, batch: Batch| file(file_id(run, number), &[(partition, &[batch])]);
    let commit = |cluster: &mut Cluster, file| cluster.outcomes(&file)[0];
    assert_eq!(
        commit(&mut cluster, one(a, 0, idempotent(5, 0, 0, 3))),
        accepted(0)
    );
    assert_eq!(
        commit(&mut cluster, one(b, 0, idempotent(5, 0, 0, 3))),
        duplicate(0)
    );
    assert_eq!(
        commit(&mut cluster, one(b, 1, idempotent(5, 0, 3, 1))),
        accepted(3)
    );
    let stale = one(a, 1, idempotent(5, 0, 2, 3));
    assert_eq!(commit(&mut cluster, stale), BatchOutcome::OutOfOrder);
    assert_eq!(
        commit(&mut cluster, one(a, 2, idempotent(5, 1, 0, 1))),
        accepted(4)
    );
    let zombie = one(b, 2, idempotent(5, 0, 4, 1));
    assert_eq!(
        commit(&mut cluster, zombie),
        BatchOutcome::InvalidProducerEpoch
    );
    for sequence in 1..=6 {
        let number = 2 + u64::try_from(sequence).expect("small");
        let next = one(a, number, idempotent(5, 1, sequence, 1));
        assert_eq!(
            commit(&mut cluster, next),
            accepted(4 + i64::from(sequence))
        );
    }
    let forgotten = one(b, 3, idempotent(5, 1, 0, 1));
    assert_eq!(
        commit(&mut cluster, forgotten),
        BatchOutcome::DuplicateSequence
    );
    assert_eq!(cluster.bounds(partition), (0, 11));
}

#[test]
fn offsets_never_wrap() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    let huge = [plain(i32::MAX.cast_unsigned()); 3];
    let commit = file(file_id(run, 0), &[(partition, &huge)]);
    let outcomes = cluster.outcomes(&commit);
    assert_eq!(outcomes[2], accepted(2 * i64::from(i32::MAX)));
    let places = places(&cluster, partition, 0);
    assert_eq!(places.len(), 2, "a slice spans at most 2^32 - 1 offsets");
    assert_eq!(places[1].base_offset, 2 * i64::from(i32::MAX));
}

#[test]
fn records_are_found_by_time() {
    let mut cluster = Cluster::new();
    let partition = cluster.topic("t", 1)[0];
    let run = cluster.agent("a", 1);
    for (number, time) in (0..).zip([50, 40, 90, 90, 70]) {
        let batch = Batch {
            max_timestamp: time,
            ..plain(2)
        };
        cluster.commit(&file(file_id(run, number), &[(partition, &[batch])]));
    }
    let found = |time| {
        let place = cluster.state.slice_at_or_after_timestamp(partition, time);
        place.map(|place| place.base_offset)
    };
    assert_eq!(found(0), Some(0));
    assert_eq!(found(51), Some(4));
    assert_eq!(found(90), Some(4));
    assert_eq!(found(91), None);
    let largest = cluster
        .state
        .max_timestamp_slice(partition)
        .expect("there are records");
    assert_eq!((largest.base_offset, largest.max_timestamp), (4, 90));
}
