//! Rules of the state machine by name, so that its tests and the simulator can remove one and show
//! that it is missed (docs/safety.md). In a product's build all of them hold. It must not know where
//! they are obeyed.

/// A rule without which offsets or files go wrong unnoticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A repeated commit gets the outcome of the first (4).
    CommitsAreIdempotent,
    /// What tells a repeated batch from a new one changes in the entry of the batch (5).
    DedupInTheEntry,
    /// Of an incarnation's files only the next is committed (10).
    CommitsInOrder,
    /// What is tombstoned is deleted once the grace has passed (14).
    GraceBeforeDeletion,
    /// Offsets are added with a check; where they end nothing is appended (18).
    CheckedOffsets,
    /// A file of which nothing was appended is a tombstone at once (14).
    UselessFilesAreTombstones,
    /// The last copy of a file that is known is never dropped (C5).
    LastCopyIsKept,
    /// What a suspect bucket holds counts for no commit (C2).
    SuspectBucketsDoNotCount,
    /// Invariants are asserted after every command, in debug builds (28).
    AssertedInvariants,
}

/// The rules in force.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rules {
    #[cfg(any(test, feature = "mutations"))]
    removed: [Option<Rule>; 2],
}

impl Rules {
    #[cfg(any(test, feature = "mutations"))]
    pub(crate) const fn without(removed: [Option<Rule>; 2]) -> Self {
        Rules { removed }
    }

    /// Whether `rule` is in force.
    #[cfg(any(test, feature = "mutations"))]
    pub(crate) fn hold(self, rule: Rule) -> bool {
        !self.removed.contains(&Some(rule))
    }

    /// Whether `rule` is in force.
    #[cfg(not(any(test, feature = "mutations")))]
    pub(crate) const fn hold(self, _: Rule) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;
    use crate::state::State;
    use crate::terms::command::{Command, CreateTopic, DropCopies, RegisterAgent};
    use crate::terms::commit::{Batch, BatchOutcome, CommitFile, FileReply};
    use crate::terms::ids::{EntryId, FileId, Incarnation, PartitionId, Stamp, TopicId};
    use crate::terms::reply::Reply;

    const NOW: Stamp = Stamp {
        wall_millis: 1_764_000_000_000,
        ticks_millis: 1_000,
    };
    const FILE: FileId = FileId {
        incarnation: Incarnation(1),
        number: 0,
    };

    /// A topic of one partition and an agent; without some rules.
    fn state(removed: [Option<Rule>; 2]) -> State {
        let mut state = State::genesis("kHbeVPd4TfyZX0fDXsVpRA".to_owned());
        state.rules = Rules::without(removed);
        let topic = CreateTopic {
            id: TopicId(7),
            name: "t".to_owned(),
            partitions: 1,
            configs: std::collections::BTreeMap::new(),
            replication_factor: 0,
        };
        let agent = RegisterAgent {
            name: "a".to_owned(),
            nonce: 1,
            listeners: crate::terms::endpoint::Endpoint::alone("localhost", 9092),
            region: "r".to_owned(),
            zone: "z".to_owned(),
            neighbour_address: String::new(),
            level: 1,
        };
        state.apply(EntryId::default(), NOW, &Command::CreateTopic(topic));
        state.apply(EntryId::default(), NOW, &Command::RegisterAgent(agent));
        state
    }

    /// A file with a batch of `records` for a partition.
    fn file(partition: PartitionId, records: u32) -> Command {
        let mut file = CommitFile {
            file: FILE,
            nonce: 1,
            length: 116,
            placement: vec![0],
            ..CommitFile::default()
        };
        file.push_slice(partition, 16);
        file.push_batch(Batch {
            records,
            bytes: 100,
            max_timestamp: 1,
            time_source: crate::commit::TimeSource::Records,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        });
        Command::CommitFile(file)
    }

    /// What became of ten records where two more offsets exist, and the end of the partition then;
    /// what the assertions said if they did not let it pass.
    fn at_the_last_offsets(removed: [Option<Rule>; 2]) -> Result<(BatchOutcome, i64), String> {
        let mut state = state(removed);
        let end = i64::MAX - 2;
        let partition = state.partitions.get_mut(1).expect("created");
        (partition.high_watermark, partition.log_start) = (end, end);
        let reply = apply(&mut state, &file(PartitionId(1), 10))?;
        let Reply::File(FileReply::Committed { outcomes }) = reply else {
            return Err(format!("{reply:?}"));
        };
        let partition = state.partition(PartitionId(1)).expect("created");
        Ok((outcomes[0], partition.high_watermark()))
    }

    fn apply(state: &mut State, command: &Command) -> Result<Reply, String> {
        let applied = catch_unwind(AssertUnwindSafe(|| {
            state.apply(EntryId::default(), NOW, command).reply
        }));
        applied.map_err(|panic| match panic.downcast::<String>() {
            Ok(message) => *message,
            Err(_) => "a panic without a message".to_owned(),
        })
    }

    #[test]
    fn offsets_end_where_they_end() {
        let refused = Ok((BatchOutcome::OffsetsExhausted, i64::MAX - 2));
        assert_eq!(at_the_last_offsets([None, None]), refused);
        let wrapped = at_the_last_offsets([Some(Rule::CheckedOffsets), None]);
        assert_ne!(wrapped, refused);
    }

    /// A file that two of three buckets hold, two agents, and what becomes of reports by them that a bucket has lost it.
    fn reported(removed: Option<Rule>, reports: &[(u64, u32)]) -> State {
        let mut state = state([removed, None]);
        let bucket = |domain| {
            let generation = 1;
            (domain, crate::command::Bucket { domain, generation })
        };
        let placement = crate::command::Placement {
            number: 1,
            copies: 2,
            buckets: [bucket(0), bucket(1), bucket(2)].into(),
        };
        let Command::CommitFile(file) = file(PartitionId(1), 1) else {
            panic!("it commits a file")
        };
        let mut commands = vec![
            Command::SetPlacement(placement),
            Command::CommitFile(CommitFile {
                placement: vec![0, 1],
                ..file
            }),
            Command::RegisterAgent(RegisterAgent {
                name: "b".to_owned(),
                nonce: 2,
                listeners: crate::terms::endpoint::Endpoint::alone("localhost", 9092),
                region: "r".to_owned(),
                zone: "z".to_owned(),
                neighbour_address: String::new(),
                level: 1,
            }),
        ];
        let lost = |&(by, bucket): &(u64, u32)| {
            Command::DropCopies(DropCopies {
                by: Incarnation(by),
                bucket,
                is_missing: true,
                files: [crate::places::FileRef {
                    file: FILE,
                    nonce: 1,
                }]
                .into(),
            })
        };
        commands.extend(reports.iter().map(lost));
        for command in &commands {
            assert!(apply(&mut state, command).is_ok());
        }
        state
    }

    #[test]
    fn the_last_copy_that_is_known_stays_known() {
        let held = |removed| -> Vec<u32> {
            let state = reported(removed, &[(1, 0), (1, 1)]);
            let file = state.file(FILE).expect("it is there");
            file.placement().collect()
        };
        assert_eq!(held(None), [1]);
        assert_eq!(held(Some(Rule::LastCopyIsKept)), [0_u32; 0]);
    }

    #[test]
    fn a_commit_that_rests_on_a_suspect_bucket_is_refused() {
        let are_enough = |removed| {
            let state = reported(removed, &[(1, 0), (2, 0)]);
            assert_eq!(state.suspect_buckets().count(), 1);
            state.are_enough(0b011)
        };
        assert!(!are_enough(None));
        assert!(are_enough(Some(Rule::SuspectBucketsDoNotCount)));
    }

    #[cfg(debug_assertions)]
    #[test]
    fn without_assertions_a_broken_state_would_be_built_upon() {
        let broken = Some(Rule::UselessFilesAreTombstones);
        let unknown = file(PartitionId(999), 1);
        apply(&mut state([None, None]), &unknown).expect("nothing is wrong with it");
        let noticed = apply(&mut state([broken, None]), &unknown);
        assert!(
            noticed
                .clone()
                .is_err_and(|why| why.contains("broke an invariant")),
            "{noticed:?}"
        );
        let mut unwatched = state([broken, Some(Rule::AssertedInvariants)]);
        apply(&mut unwatched, &unknown).expect("nobody looks");
        assert!(crate::invariants::check_all(&unwatched).is_err());
        // Nor can a state that is wrong be handed on by a snapshot.
        assert!(State::restore(&unwatched.capture().encode_chunks()).is_err());
    }
}
