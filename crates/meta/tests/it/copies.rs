//! Copies that come after a commit: who is told lacks a file no more, and what is short is known at any time.

use meta::command::{BucketCompared, Command, DropCopies};
use meta::commit::{CommitFile, FileReply};
use meta::ids::{FileId, Incarnation, PartitionId};
use meta::places::{StoredFile, WantedFiles};
use meta::reply::Reply;
use meta::{State, invariants};

use crate::support::{Cluster, file, file_id, named, plain, three_buckets};

struct Case {
    cluster: Cluster,
    partition: PartitionId,
    files: Vec<FileId>,
}

impl Case {
    /// Three buckets, and files that the first and the third of them hold.
    fn with(files: u64) -> Self {
        let mut cluster = Cluster::new();
        let partition = cluster.topic("t", 1)[0];
        let run = cluster.agent("a", 1);
        let set = cluster.apply(&Command::SetPlacement(three_buckets()));
        assert_eq!(set, Reply::Done);
        let mut case = Case {
            cluster,
            partition,
            files: Vec::new(),
        };
        for number in 0..files {
            case.commit(file_id(run, number));
        }
        case
    }

    fn commit(&mut self, id: FileId) {
        self.cluster.now.wall_millis += 1_000;
        let commit = CommitFile {
            placement: vec![0, 2],
            ..file(id, &[(self.partition, &[plain(1)])])
        };
        self.cluster.outcomes(&commit);
        self.files.push(id);
    }

    fn add(&mut self, bucket: u32, files: &[FileId]) -> Reply {
        let files = files.iter().copied().map(named).collect();
        self.cluster.apply(&Command::AddCopies { bucket, files })
    }

    fn short(&self) -> Vec<StoredFile> {
        self.cluster.state.short_of(1, None, 100)
    }

    fn counted(&self) -> Vec<u64> {
        let shortages = self.cluster.state.shortages();
        shortages.map(|(_, short)| short.files).collect()
    }
}

#[test]
fn a_file_is_short_where_no_copy_is_told_and_the_oldest_is_named_first() {
    let mut case = Case::with(4);
    assert_eq!(case.counted(), [0, 4, 0]);
    let short = case.short();
    let named: Vec<FileId> = short.iter().map(|short| short.file.file).collect();
    assert_eq!(named, case.files);
    assert_eq!(short[0].held, [0, 2]);
    let first = Some((short[0].committed_wall_millis, short[0].file.file));
    let after = case.cluster.state.short_of(1, first, 2);
    assert_eq!(after, short[1..3]);
    let told = [case.files[1], case.files[2]];
    assert_eq!(case.add(1, &told), Reply::Done);
    assert_eq!(case.counted(), [0, 2, 0]);
    let held = case.cluster.state.file(case.files[1]).expect("it is there");
    assert_eq!(held.placement().collect::<Vec<_>>(), [0, 1, 2]);
}

#[test]
fn a_bucket_that_the_cluster_has_not_is_refused() {
    let mut case = Case::with(1);
    let files = case.files.clone();
    for bucket in [3, 63, 64, u32::MAX] {
        assert!(
            matches!(case.add(bucket, &files), Reply::Refused(_)),
            "{bucket}"
        );
    }
    assert_eq!(case.counted(), [0, 1, 0]);
}

#[test]
fn what_is_to_be_deleted_is_not_short_and_a_late_copy_revives_nothing() {
    let mut case = Case::with(2);
    let topic = case.cluster.state.topics().iter().next().expect("one").id;
    case.cluster.apply(&Command::DeleteTopic { id: topic });
    case.cluster.housekeep();
    assert_eq!(case.counted(), [0, 0, 0]);
    let files = case.files.clone();
    assert_eq!(case.add(1, &files), Reply::Done);
    let file = case
        .cluster
        .state
        .file(files[0])
        .expect("not forgotten yet");
    assert!(file.is_tombstoned());
    assert_eq!(file.placement().collect::<Vec<_>>(), [0, 2]);
}

#[test]
fn a_snapshot_keeps_what_is_short() {
    let mut case = Case::with(5);
    let told = case.files[3];
    case.add(1, &[told]);
    let chunks = case.cluster.state.capture().encode_chunks();
    let restored = State::restore(&chunks).expect("it is whole");
    assert_eq!(restored.digest(), case.cluster.state.digest());
    assert_eq!(restored.short_of(1, None, 100), case.short());
    invariants::check_all(&restored).expect("nothing contradicts itself");
}

impl Case {
    /// Has nothing of what was written be read any more, for longer than a grace.
    fn expire(&mut self) {
        let topic = self.cluster.state.topics().iter().next().expect("one").id;
        self.cluster.apply(&Command::DeleteTopic { id: topic });
        self.cluster.housekeep();
        self.cluster.now.ticks_millis += self.cluster.state.grace_ticks();
        self.cluster.housekeep();
    }

    fn deleted(&mut self, bucket: u32, files: &[FileId]) {
        let files = files.iter().copied().map(named).collect();
        match self.cluster.apply(&Command::FilesDeleted { bucket, files }) {
            Reply::Forgotten { refused } => assert_eq!(refused, []),
            other => panic!("{other:?}"),
        }
    }

    fn mark(&mut self, bucket: u32, is_away: bool) {
        let marked = self.cluster.apply(&Command::MarkBucket { bucket, is_away });
        assert_eq!(marked, Reply::Done);
    }

    fn to_delete(&self) -> [usize; 3] {
        std::array::from_fn(|bucket| {
            let bucket = u32::try_from(bucket).expect("few");
            self.cluster.state.collectable(bucket, 100).len()
        })
    }
}

#[test]
fn each_bucket_deletes_at_its_own_pace_and_a_file_is_forgotten_once_all_have() {
    let mut case = Case::with(3);
    case.expire();
    // A copy may have come to the second bucket that nobody was told of.
    assert_eq!(case.to_delete(), [3, 3, 3]);
    let files = case.files.clone();
    case.deleted(0, &files);
    case.deleted(2, &files[..1]);
    assert_eq!(case.to_delete(), [0, 3, 2]);
    assert_eq!(case.cluster.state.totals().files, 3);
    case.deleted(1, &files[..1]);
    assert_eq!(case.cluster.state.totals().files, 2);
    let chunks = case.cluster.state.capture().encode_chunks();
    let restored = State::restore(&chunks).expect("it is whole");
    assert_eq!(restored.digest(), case.cluster.state.digest());
    assert_eq!(
        restored.collectable(2, 9),
        case.cluster.state.collectable(2, 9)
    );
}

#[test]
fn a_bucket_that_is_away_holds_up_nothing_and_waits_again_once_it_is_back() {
    let mut case = Case::with(4);
    case.expire();
    let files = case.files.clone();
    case.deleted(0, &files[..2]);
    case.deleted(2, &files[..2]);
    assert_eq!(case.cluster.state.totals().files, 4);
    case.mark(1, true);
    case.cluster.housekeep();
    assert_eq!(case.cluster.state.totals().files, 2, "only that one lacked");
    case.deleted(0, &files[2..3]);
    case.deleted(2, &files[2..3]);
    assert_eq!(case.cluster.state.totals().files, 1);
    case.mark(1, false);
    case.deleted(0, &files[3..]);
    case.deleted(2, &files[3..]);
    assert_eq!(case.cluster.state.totals().files, 1, "it is back");
    assert_eq!(case.to_delete(), [0, 1, 0]);
    case.deleted(1, &files[3..]);
    assert_eq!(case.cluster.state.totals().files, 0);
    // What it still holds of the others is dead for whoever lists it.
    assert_eq!(case.cluster.fate(files[0]), meta::places::Fate::Dead);
}

#[test]
fn a_file_that_is_read_is_not_deleted_whoever_says_so() {
    let mut case = Case::with(1);
    let files: std::collections::BTreeSet<_> = case.files.iter().copied().map(named).collect();
    for bucket in [0, 1, 2, 64] {
        let files = files.clone();
        let reply = case.cluster.apply(&Command::FilesDeleted { bucket, files });
        assert!(matches!(reply, Reply::Forgotten { refused } if refused.len() == 1));
    }
    assert_eq!(case.cluster.state.totals().files, 1);
}

impl Case {
    fn drop_copies(&mut self, by: Incarnation, bucket: u32, files: &[FileId], is_missing: bool) {
        let command = Command::DropCopies(DropCopies {
            by,
            bucket,
            is_missing,
            files: files.iter().copied().map(named).collect(),
        });
        assert_eq!(self.cluster.apply(&command), Reply::Done);
    }

    fn held(&self, file: FileId) -> Vec<u32> {
        let file = self.cluster.state.file(file).expect("it is there");
        file.placement().collect()
    }

    fn suspects(&self) -> Vec<u32> {
        let suspects = self.cluster.state.suspect_buckets();
        suspects.map(|(bucket, _)| bucket).collect()
    }

    /// What becomes of a file in these buckets.
    fn try_commit(&mut self, number: u64, placement: &[u32]) -> FileReply {
        let commit = CommitFile {
            placement: placement.to_vec(),
            ..file(
                file_id(Incarnation(1), number),
                &[(self.partition, &[plain(1)])],
            )
        };
        self.cluster.commit(&commit)
    }
}

#[test]
fn a_copy_that_is_gone_or_damaged_makes_the_file_short_and_the_last_one_is_never_dropped() {
    let mut case = Case::with(2);
    let (run, files) = (Incarnation(1), case.files.clone());
    case.drop_copies(run, 2, &files[..1], false);
    case.drop_copies(run, 1, &files, false);
    assert_eq!(case.counted(), [0, 2, 1]);
    let short = case.cluster.state.short_of(2, None, 9);
    assert_eq!((short.len(), &short[0].held[..]), (1, &[0][..]));
    assert!(!short[0].is_held_enough, "nothing of it may be deleted");
    case.drop_copies(run, 0, &files[..1], true);
    assert_eq!(case.held(files[0]), [0], "it is the last");
    case.add(1, &files[..1]);
    let short = case.cluster.state.short_of(2, None, 9);
    assert!(short[0].is_held_enough);
    case.drop_copies(run, 0, &files[..1], true);
    assert_eq!(case.held(files[0]), [1]);
    let other = meta::places::FileRef {
        nonce: 78,
        ..named(files[1])
    };
    let command = Command::DropCopies(DropCopies {
        by: run,
        bucket: 0,
        is_missing: true,
        files: [other].into(),
    });
    assert_eq!(case.cluster.apply(&command), Reply::Done);
    assert_eq!(case.held(files[1]), [0, 2], "another object of that number");
}

#[test]
fn who_is_fenced_or_tells_of_no_bucket_drops_nothing() {
    let mut case = Case::with(1);
    let files = [named(case.files[0])];
    let mut refused = |by, bucket| {
        let command = Command::DropCopies(DropCopies {
            by: Incarnation(by),
            bucket,
            is_missing: true,
            files: files.into(),
        });
        matches!(case.cluster.apply(&command), Reply::Refused(_))
    };
    assert!(refused(1, 3) && refused(1, 64) && refused(2, 0));
    let incarnation = Incarnation(1);
    case.cluster.apply(&Command::FenceAgent { incarnation });
    let compared = Command::BucketCompared(BucketCompared {
        by: incarnation,
        bucket: 0,
        since_ticks: 0,
    });
    assert!(matches!(case.cluster.apply(&compared), Reply::Refused(_)));
    assert_eq!(case.held(case.files[0]), [0, 2]);
}

#[test]
fn a_bucket_in_which_two_agents_miss_files_counts_for_no_commit_until_it_is_compared() {
    let mut case = Case::with(3);
    let (first, files) = (Incarnation(1), case.files.clone());
    let second = case.cluster.agent("b", 2);
    case.drop_copies(first, 2, &files[..1], true);
    case.drop_copies(second, 2, &files[1..2], false);
    assert_eq!(case.suspects(), [0_u32; 0], "damage is no sign of it");
    // It was told before by the other one.
    case.drop_copies(second, 2, &files[..1], true);
    assert_eq!(case.suspects(), [2]);
    assert_eq!(case.try_commit(3, &[0, 2]), FileReply::PlacementRefused);
    assert!(!case.cluster.state.are_enough(0b101));
    let chunks = case.cluster.state.capture().encode_chunks();
    let restored = State::restore(&chunks).expect("it is whole");
    assert_eq!(restored.digest(), case.cluster.state.digest());
    let committed = |reply| matches!(reply, FileReply::Committed { .. });
    assert!(committed(case.try_commit(3, &[0, 1, 2])));
    let during = file_id(first, 3);
    assert_eq!(case.held(during), [0, 1], "it may have been lost since");
    let short = case.cluster.state.short_of(2, None, 9);
    assert!(short.iter().any(|short| short.file.file == during));
    let since = case.cluster.state.suspect_buckets().next().expect("one").1;
    for since_ticks in [since + 1, since] {
        let command = Command::BucketCompared(BucketCompared {
            by: second,
            bucket: 2,
            since_ticks,
        });
        assert_eq!(case.cluster.apply(&command), Reply::Done);
        assert_eq!(case.suspects().is_empty(), since_ticks == since);
    }
    assert!(committed(case.try_commit(4, &[0, 2])));
}

#[test]
fn what_a_bucket_is_known_to_hold_is_named_in_pieces_and_the_last_of_it_by_itself() {
    let mut case = Case::with(5);
    let files = case.files.clone();
    case.drop_copies(Incarnation(1), 2, &files[4..], true);
    let state = &case.cluster.state;
    let last = state.stored(WantedFiles::LastIn { bucket: 2 }, 9).files;
    assert_eq!(last[0].file, named(files[3]));
    let none = state.stored(WantedFiles::LastIn { bucket: 1 }, 9).files;
    assert_eq!(none, []);
    let (mut named_so_far, mut after) = (Vec::new(), None);
    loop {
        let part = state.stored(WantedFiles::In { bucket: 2, after }, 2);
        named_so_far.extend(part.files.into_iter().map(|stored| stored.file));
        after = part.more_after;
        if after.is_none() {
            break;
        }
    }
    let held: Vec<_> = files[..4].iter().copied().map(named).collect();
    assert_eq!(named_so_far, held);
    let one = state.stored(WantedFiles::File(named(files[1])), 9).files;
    assert_eq!(one[0].held, [0, 2]);
}
