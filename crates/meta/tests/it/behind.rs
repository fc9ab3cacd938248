//! Safe offsets: up to where a bucket holds all records of a partition, against a recomputation from all slices and files.

use std::collections::BTreeMap;

use meta::behind::{Held, Lag, SafeOffset};
use meta::command::{BucketCompared, Command, DropCopies};
use meta::commit::CommitFile;
use meta::ids::{FileId, Incarnation, PartitionId};
use meta::places::Located;
use meta::reply::Reply;
use meta::short::Only;
use meta::{State, invariants};

use crate::support::{Cluster, file, file_id, named, plain, three_buckets};

/// The first offset of which a bucket lacks the file; the end if it lacks none.
fn recomputed(state: &State, bucket: u32, id: PartitionId) -> Option<i64> {
    let partition = state.partition(id)?;
    let is_suspect = state
        .suspect_buckets()
        .any(|(suspect, _)| suspect == bucket);
    if is_suspect || !state.placement().buckets.contains_key(&bucket) {
        return None;
    }
    let located = state.locate(id, partition.log_start(), u64::MAX, usize::MAX);
    let Located::Found {
        places,
        high_watermark,
        ..
    } = located
    else {
        panic!("{located:?}");
    };
    let lacked = places.iter().find(|place| {
        let file = state.file(place.file).expect("it is there");
        file.placement().all(|held| held != bucket)
    });
    Some(lacked.map_or(high_watermark, |place| {
        place.base_offset.max(partition.log_start())
    }))
}

/// Asserts that each safe offset is what all slices and files say, and that no partition is left out that is behind. How many are.
pub(crate) fn assert_safe_offsets(state: &State) -> usize {
    let buckets: Vec<u32> = state.placement().buckets.keys().copied().collect();
    let mut behind = Vec::new();
    let topics = state.topics().iter();
    let mut partitions: Vec<PartitionId> =
        topics.flat_map(|topic| topic.partitions.clone()).collect();
    partitions.sort();
    for id in partitions {
        let partition = state.partition(id).expect("its topic is there");
        let mut is_behind = false;
        for bucket in buckets.iter().copied().chain([60]) {
            let safe = state.safe_offset(bucket, id);
            assert_eq!(
                safe.map(|safe| safe.offset),
                recomputed(state, bucket, id),
                "{id:?} in {bucket}"
            );
            assert!(safe.is_none_or(|safe| safe.is_exact));
            is_behind |= safe.is_some_and(|safe| safe.offset < partition.high_watermark());
        }
        behind.extend(is_behind.then_some(id));
    }
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = state.behind(after, 2);
        assert!(page.partitions.len() <= 2);
        for held in &page.partitions {
            assert_eq!(state.held(held.id).as_ref(), Some(held));
        }
        paged.extend(page.partitions.iter().map(|held| held.id));
        match page.more_after {
            Some(more) => assert!(after.replace(more) < Some(more), "pages go on"),
            None => break,
        }
    }
    assert_eq!(paged, behind);
    behind.len()
}

struct Case {
    cluster: Cluster,
    partitions: Vec<PartitionId>,
    run: Incarnation,
    next: u64,
}

impl Case {
    /// Three buckets, a topic of three partitions, and an agent.
    fn new() -> Self {
        let mut cluster = Cluster::new();
        let partitions = cluster.topic("t", 3);
        let run = cluster.agent("a", 1);
        let set = cluster.apply(&Command::SetPlacement(three_buckets()));
        assert_eq!(set, Reply::Done);
        Case {
            cluster,
            partitions,
            run,
            next: 0,
        }
    }

    /// Commits a file that two buckets hold, with so many records of some of the partitions.
    fn commit(&mut self, held: [u32; 2], records: &[(usize, u32)]) -> FileId {
        let id = file_id(self.run, self.next);
        self.next += 1;
        let batches: Vec<_> = records
            .iter()
            .map(|(at, records)| (self.partitions[*at], [plain(*records)]))
            .collect();
        let slices: Vec<_> = batches
            .iter()
            .map(|(id, batch)| (*id, &batch[..]))
            .collect();
        let commit = CommitFile {
            placement: held.to_vec(),
            ..file(id, &slices)
        };
        self.cluster.outcomes(&commit);
        assert_safe_offsets(&self.cluster.state);
        id
    }

    fn add(&mut self, bucket: u32, files: &[FileId]) {
        let files = files.iter().copied().map(named).collect();
        let added = self.cluster.apply(&Command::AddCopies { bucket, files });
        assert_eq!(added, Reply::Done);
        assert_safe_offsets(&self.cluster.state);
    }

    fn drop_copies(&mut self, bucket: u32, files: &[FileId], is_missing: bool) {
        let dropped = self.cluster.apply(&Command::DropCopies(DropCopies {
            by: self.run,
            bucket,
            is_missing,
            files: files.iter().copied().map(named).collect(),
        }));
        assert_eq!(dropped, Reply::Done);
        assert_safe_offsets(&self.cluster.state);
    }

    /// The safe offset of each partition in a bucket.
    fn safe(&self, bucket: u32) -> Vec<Option<i64>> {
        let safe = |id: &PartitionId| self.cluster.state.safe_offset(bucket, *id);
        let all = self.partitions.iter().map(safe);
        all.map(|safe| safe.map(|safe| safe.offset)).collect()
    }

    fn lag(&self, bucket: u32) -> Lag {
        let mut lag = Lag::default();
        lag.add(bucket, &self.cluster.state.behind(None, 100).partitions, 2);
        lag
    }
}

#[test]
fn a_record_is_safe_where_every_file_up_to_it_has_a_copy() {
    let mut case = Case::new();
    let first = case.commit([0, 1], &[(0, 10), (1, 5)]);
    let second = case.commit([0, 1], &[(0, 7)]);
    let third = case.commit([1, 2], &[(0, 3), (1, 1)]);
    assert_eq!(case.safe(1), [Some(20), Some(6), Some(0)]);
    assert_eq!(case.safe(0), [Some(17), Some(5), Some(0)]);
    assert_eq!(case.safe(2), [Some(0), Some(0), Some(0)]);
    case.add(2, &[second]);
    assert_eq!(case.safe(2)[0], Some(0), "the first is lacked all the same");
    case.add(2, &[first]);
    assert_eq!(case.safe(2), [Some(20), Some(6), Some(0)]);
    case.add(0, &[third]);
    assert_eq!(case.cluster.state.behind(None, 9).partitions, []);
}

#[test]
fn what_would_be_missing_without_the_others_is_counted_in_records() {
    let mut case = Case::new();
    case.commit([0, 1], &[(0, 10), (1, 5)]);
    case.commit([1, 2], &[(1, 4), (2, 1)]);
    assert_eq!(case.lag(1), Lag::default());
    let lag = case.lag(2);
    assert_eq!((lag.partitions, lag.records, lag.records_max), (2, 19, 10));
    assert_eq!(
        lag.furthest,
        [(10, case.partitions[0]), (9, case.partitions[1])]
    );
    assert!(!lag.is_at_most);
    let lag = case.lag(0);
    assert_eq!((lag.partitions, lag.records, lag.records_max), (2, 5, 4));
}

#[test]
fn a_copy_that_is_lost_later_takes_the_safe_offset_back() {
    let mut case = Case::new();
    let files = [0, 1, 2].map(|_| case.commit([0, 2], &[(0, 10)]));
    case.add(1, &files);
    assert_eq!(case.safe(1)[0], Some(30));
    case.drop_copies(1, &files[1..2], false);
    assert_eq!(case.safe(1)[0], Some(10));
    let only = |case: &Case| -> BTreeMap<u32, Only> { case.cluster.state.only_copies().collect() };
    assert!(only(&case).values().all(|only| *only == Only::default()));
    case.drop_copies(0, &files[1..2], false);
    let bytes = case
        .cluster
        .state
        .file(files[1])
        .expect("it is there")
        .length;
    assert_eq!(only(&case)[&2], Only { files: 1, bytes });
    case.add(1, &files[1..2]);
    assert_eq!(case.safe(1)[0], Some(30));
    assert_eq!(only(&case)[&2], Only::default());
}

#[test]
fn of_a_bucket_that_is_suspect_nothing_is_said() {
    let mut case = Case::new();
    let files = [0, 1].map(|_| case.commit([0, 1], &[(0, 10)]));
    for file in files {
        case.drop_copies(1, &[file], true);
    }
    let (bucket, since_ticks) = case.cluster.state.suspect_buckets().next().expect("one is");
    assert_eq!(case.safe(bucket), [None; 3]);
    let held = case
        .cluster
        .state
        .held(case.partitions[0])
        .expect("it is there");
    assert_eq!((held.safe[&bucket], held.records_behind(bucket)), (None, 0));
    let by = case.run;
    let compared = BucketCompared {
        by,
        bucket,
        since_ticks,
    };
    assert_eq!(
        case.cluster.apply(&Command::BucketCompared(compared)),
        Reply::Done
    );
    assert_eq!(case.safe(bucket)[0], Some(0));
}

#[test]
fn what_is_not_read_any_more_is_not_behind() {
    let mut case = Case::new();
    case.commit([0, 1], &[(0, 10), (1, 5)]);
    case.commit([0, 1], &[(0, 10)]);
    case.cluster.configure("t", "retention.bytes", "100");
    case.cluster.housekeep();
    assert_safe_offsets(&case.cluster.state);
    assert_eq!(
        case.safe(2)[0],
        Some(10),
        "the first slice is gone, its file is not"
    );
    let topic = case.cluster.state.topics().iter().next().expect("one").id;
    case.cluster.apply(&Command::DeleteTopic { id: topic });
    assert_eq!(case.cluster.state.behind(None, 9).partitions, []);
    case.cluster.housekeep();
    assert_eq!(case.cluster.state.held(case.partitions[0]), None);
}

#[test]
fn copies_that_come_in_any_order_and_a_snapshot_change_no_safe_offset() {
    let mut case = Case::new();
    let files: Vec<FileId> = (0..200)
        .map(|_| case.commit([0, 1], &[(0, 1), (2, 1)]))
        .collect();
    let backwards: Vec<FileId> = files[1..].iter().rev().copied().collect();
    for some in backwards.chunks(7) {
        case.add(2, some);
    }
    assert_eq!(case.safe(2), [Some(0), Some(0), Some(0)]);
    let chunks = case.cluster.state.capture().encode_chunks();
    let restored = State::restore(&chunks).expect("it is whole");
    invariants::check_all(&restored).expect("nothing contradicts itself");
    assert_eq!(assert_safe_offsets(&restored), 2);
    case.commit([0, 1], &[(0, 1), (2, 1)]);
    case.add(2, &files[..1]);
    assert_eq!(case.safe(2), [Some(200), Some(0), Some(200)]);
}

#[test]
fn what_is_not_looked_at_is_not_called_safe() {
    let mut case = Case::new();
    let first = case.commit([0, 1], &[(0, 1)]);
    for _ in 0..3_000 {
        let id = file_id(case.run, case.next);
        case.next += 1;
        let commit = CommitFile {
            placement: vec![0, 1, 2],
            ..file(id, &[(case.partitions[0], &[plain(1)])])
        };
        let applied = case.cluster.state.apply(
            Default::default(),
            case.cluster.now,
            &Command::CommitFile(commit),
        );
        assert!(matches!(applied.reply, Reply::File(_)));
    }
    case.commit([0, 1], &[(0, 1)]);
    let files = [named(first)].into();
    case.cluster.apply(&Command::AddCopies { bucket: 2, files });
    let id = case.partitions[0];
    let safe = case.cluster.state.safe_offset(2, id).expect("it is there");
    assert!(
        !safe.is_exact && (1..3_001).contains(&safe.offset),
        "{safe:?}"
    );
    assert!(case.lag(2).is_at_most);
    let held: Held = case.cluster.state.held(id).expect("it is there");
    let exact = |offset| {
        Some(SafeOffset {
            offset,
            is_exact: true,
        })
    };
    assert_eq!(held.safe[&0], exact(3_002));
}
