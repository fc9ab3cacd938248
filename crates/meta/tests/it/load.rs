//! A source of random commands, valid and not, that touch everything; the same seed gives the
//! same commands.

use std::collections::BTreeMap;

use meta::command::{Bucket, BucketCompared, ConfigChanges, CreateTopic, DropCopies, Placement};
use meta::commit::Batch;
use meta::commit::CommitFile;
use meta::group;
use meta::ids::Stamp;
use meta::ids::{FileId, Incarnation, PartitionId, ProducerId, TopicId};
use meta::places::{FileRef, WantedFiles};
use meta::reply::Reply;
use meta::{Command, State};

use crate::support::{WALL, agent, control_node, file, set};

pub(crate) struct Load {
    random: u64,
    pub(crate) now: Stamp,
    /// Next numbers by incarnation, as far as this load believes.
    numbers: BTreeMap<u64, u64>,
    sequences: BTreeMap<(u64, i64), i32>,
    topics: u128,
}

impl Load {
    pub(crate) fn new(seed: u64) -> Self {
        Load {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            now: Stamp {
                wall_millis: WALL,
                ticks_millis: 5,
            },
            numbers: BTreeMap::new(),
            sequences: BTreeMap::new(),
            topics: 0,
        }
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) % bound
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    /// The next command, for a state that applied all before it.
    pub(crate) fn next(&mut self, state: &State) -> (Stamp, Command) {
        let step = if self.one_in(50) {
            900_000
        } else {
            self.below(20_000)
        };
        self.now.wall_millis += step;
        self.now.ticks_millis += if self.one_in(40) { 0 } else { step };
        let command = match self.below(100) {
            0..=3 => Command::RegisterAgent(self.any_agent()),
            4 => Command::FenceAgent {
                incarnation: Incarnation(self.below(20)),
            },
            5..=10 => self.create_topic(),
            11..=12 => Command::DeleteTopic {
                id: self.any_topic(state),
            },
            13..=14 => {
                let total = u32::try_from(self.below(12)).expect("small");
                Command::CreatePartitions {
                    id: self.any_topic(state),
                    total,
                }
            }
            15..=18 => Command::SetTopicConfigs {
                id: self.any_topic(state),
                changes: self.any_retention("retention.ms", "retention.bytes"),
            },
            19 => Command::SetClusterConfigs {
                replaces: state.configs_version(),
                changes: self.any_retention("log.retention.ms", "log.retention.bytes"),
            },
            20 => Command::SetClusterConfigs {
                replaces: state.configs_version().saturating_sub(self.below(2)),
                changes: set("file.delete.grace.ms", "30000"),
            },
            21..=23 => self.allocate_producer(),
            24..=31 => Command::Housekeep,
            32..=35 => self.files_deleted(state),
            36 => self.any_control_node(),
            37 => Command::RemoveControlNode {
                name: format!("c{}", self.below(3)),
                nonce: 7,
            },
            38 => Command::SetFeatureLevel { level: 1 },
            39 if self.one_in(3) => Command::MarkBucket {
                bucket: u32::try_from(self.below(3)).expect("small"),
                is_away: self.one_in(2),
            },
            39 => self.any_placement(state),
            40..=47 => self.any_group(state),
            48 => self.add_copies(state),
            49 if self.one_in(3) => self.bucket_compared(state),
            49 => self.drop_copies(state),
            50..=52 => Command::SkipFile {
                file: self.any_file(state),
            },
            _ => self.commit(state),
        };
        (self.now, command)
    }

    /// Learns from a reply what comes next.
    pub(crate) fn learn(&mut self, command: &Command, reply: &Reply) {
        if let Reply::Registered { incarnation, .. } = reply {
            self.numbers.entry(incarnation.0).or_insert(0);
        }
        let settled = matches!(
            reply,
            Reply::File(
                meta::commit::FileReply::Committed { .. } | meta::commit::FileReply::Skipped
            )
        );
        let file = match command {
            Command::CommitFile(commit) => commit.file,
            Command::SkipFile { file } => *file,
            _ => return,
        };
        if settled && let Some(next) = self.numbers.get_mut(&file.incarnation.0) {
            *next = (*next).max(file.number + 1);
        }
    }

    fn any_agent(&mut self) -> meta::command::RegisterAgent {
        let nonce = if self.one_in(3) {
            u128::from(self.below(30))
        } else {
            0
        };
        agent(&format!("agent-{}", self.below(4)), nonce)
    }

    fn create_topic(&mut self) -> Command {
        self.topics += 1;
        let name = format!(
            "topic{}{}",
            if self.one_in(2) { "." } else { "_" },
            self.below(12)
        );
        let partitions = u32::try_from(self.below(6)).expect("small");
        let id = TopicId(if self.one_in(20) { 1 } else { self.topics });
        Command::CreateTopic(CreateTopic {
            id,
            name,
            partitions,
            configs: Default::default(),
            replication_factor: 0,
        })
    }

    fn any_topic(&mut self, state: &State) -> TopicId {
        let count = u64::try_from(state.topics().len()).expect("few") + 1;
        let nth = usize::try_from(self.below(count)).expect("few");
        state
            .topics()
            .iter()
            .nth(nth)
            .map_or(TopicId(404), |topic| topic.id)
    }

    fn any_retention(&mut self, time: &str, size: &str) -> ConfigChanges {
        match self.below(4) {
            0 => set(time, &format!("{}", self.below(2_000_000))),
            1 => set(size, &format!("{}", self.below(5_000))),
            2 => set(size, "nonsense"),
            _ => ConfigChanges {
                remove: [time.to_owned(), size.to_owned()].into(),
                ..ConfigChanges::default()
            },
        }
    }

    fn allocate_producer(&mut self) -> Command {
        let id = i64::try_from(self.below(20)).expect("small");
        let epoch = i16::try_from(self.below(3)).expect("small");
        let known = self.one_in(2).then_some((ProducerId(id), epoch));
        Command::AllocateProducer { known }
    }

    fn files_deleted(&mut self, state: &State) -> Command {
        let bucket = u32::try_from(self.below(3)).expect("small");
        let mut files: std::collections::BTreeSet<FileRef> =
            state.collectable(bucket, 5).into_iter().collect();
        if self.one_in(3) {
            let nonce = 76 + u32::from(self.one_in(2));
            let file = self.any_file(state);
            files.insert(FileRef { file, nonce });
        }
        Command::FilesDeleted { bucket, files }
    }

    fn add_copies(&mut self, state: &State) -> Command {
        let bucket = u32::try_from(self.below(3)).expect("small");
        let short = state.short_of(bucket, None, 5);
        let mut files: std::collections::BTreeSet<FileRef> =
            short.into_iter().map(|short| short.file).collect();
        if self.one_in(3) {
            let nonce = 76 + u32::from(self.one_in(2));
            let file = self.any_file(state);
            files.insert(FileRef { file, nonce });
        }
        Command::AddCopies { bucket, files }
    }

    fn drop_copies(&mut self, state: &State) -> Command {
        let by = Incarnation(self.below(20));
        let bucket = u32::try_from(self.below(3)).expect("small");
        let last = state.stored(WantedFiles::LastIn { bucket }, 5).files;
        let mut files: std::collections::BTreeSet<FileRef> =
            last.into_iter().map(|stored| stored.file).collect();
        if self.one_in(2) {
            let (nonce, file) = (77, self.any_file(state));
            files.insert(FileRef { file, nonce });
        }
        Command::DropCopies(DropCopies {
            by,
            bucket,
            is_missing: self.one_in(2),
            files,
        })
    }

    fn bucket_compared(&mut self, state: &State) -> Command {
        let by = Incarnation(self.below(20));
        let suspect = state.suspect_buckets().next();
        let (bucket, since_ticks) = suspect.unwrap_or((1, self.now.ticks_millis));
        Command::BucketCompared(BucketCompared {
            by,
            bucket,
            since_ticks,
        })
    }

    fn any_control_node(&mut self) -> Command {
        let name = format!("c{}", self.below(3));
        let level = u32::try_from(self.below(3)).expect("small");
        Command::RegisterControlNode(control_node(&name, level))
    }

    fn any_placement(&mut self, state: &State) -> Command {
        let copies = u32::try_from(self.below(3)).expect("small");
        let generation = 1 + self.below(2);
        let bucket = |domain| Bucket { domain, generation };
        Command::SetPlacement(Placement {
            number: state.placement().number + self.below(2),
            copies,
            buckets: [(0, bucket(0)), (1, bucket(1))].into(),
        })
    }

    fn any_group(&mut self, state: &State) -> Command {
        let group = format!("g{}", self.below(3));
        let instance = self.one_in(3).then(|| format!("i{}", self.below(2)));
        let member = format!("m{}", self.below(3));
        let generation = i32::try_from(self.below(4)).expect("small");
        let action = match self.below(6) {
            0 | 1 => group::Action::Join(group::Join {
                member,
                admitted: true,
                instance,
                client_id: "c".to_owned(),
                client_host: "h".to_owned(),
                session_timeout_millis: 10_000,
                rebalance_timeout_millis: 10_000,
                protocol_type: "consumer".to_owned(),
                protocols: vec![group::Protocol {
                    name: "range".to_owned(),
                    metadata: vec![1, 2].into(),
                }],
                can_skip_assignment: false,
                members_max: 3,
            }),
            2 => group::Action::CompleteJoin { generation },
            3 => group::Action::Sync(group::Sync {
                member,
                instance: None,
                generation,
                protocol_type: None,
                protocol: None,
                assignments: vec![("m0".to_owned(), vec![7].into())],
            }),
            4 => group::Action::Commit(group::CommitOffsets {
                by: None,
                member: String::new(),
                instance: None,
                generation: -1,
                offsets: vec![group::OffsetEntry {
                    topic: self.any_topic(state),
                    partition: 0,
                    offset: i64::from(generation),
                    leader_epoch: -1,
                    metadata: "note".to_owned(),
                }],
            }),
            _ => group::Action::Expire(vec![member]),
        };
        Command::Group(group::Command { group, action })
    }

    fn any_file(&mut self, state: &State) -> FileId {
        let alive: Vec<u64> = state.agents().map(|agent| agent.incarnation.0).collect();
        let known: Vec<u64> = self.numbers.keys().copied().chain([99]).collect();
        let from = if alive.is_empty() || self.one_in(12) {
            known
        } else {
            alive
        };
        let nth = self.below(u64::try_from(from.len()).expect("few"));
        let incarnation = from[usize::try_from(nth).expect("few")];
        let next = self.numbers.get(&incarnation).copied().unwrap_or(0);
        let number = match self.below(16) {
            0 => next + 1,
            1 => next.saturating_sub(1),
            _ => next,
        };
        FileId {
            incarnation: Incarnation(incarnation),
            number,
        }
    }

    fn commit(&mut self, state: &State) -> Command {
        let id = self.any_file(state);
        let slices: Vec<(PartitionId, Vec<Batch>)> = (0..1 + self.below(5))
            .map(|_| self.any_slice(state))
            .collect();
        let slices: Vec<(PartitionId, &[Batch])> = slices
            .iter()
            .map(|(partition, batches)| (*partition, batches.as_slice()))
            .collect();
        let mut commit: CommitFile = file(id, &slices);
        commit.placement = if self.one_in(4) { vec![0] } else { vec![0, 1] };
        if self.one_in(30) {
            commit.slices.length.pop();
        }
        Command::CommitFile(commit)
    }

    fn any_slice(&mut self, state: &State) -> (PartitionId, Vec<Batch>) {
        let topic = self.any_topic(state);
        let partitions = state
            .topic_by_id(topic)
            .map(|topic| topic.partitions.clone());
        let partition = match partitions {
            Some(partitions) => {
                let count = u64::try_from(partitions.len()).expect("few");
                partitions[usize::try_from(self.below(count)).expect("few")]
            }
            None => PartitionId(1 + self.below(50)),
        };
        let batches = (0..1 + self.below(4))
            .map(|_| self.any_batch(partition))
            .collect();
        (partition, batches)
    }

    fn any_batch(&mut self, partition: PartitionId) -> Batch {
        let records = 1 + u32::try_from(self.below(30)).expect("small");
        let id = i64::try_from(self.below(4)).expect("small") - 1;
        let time = i64::try_from(self.now.wall_millis).expect("small");
        let max_timestamp = time - i64::try_from(self.below(100_000)).expect("small");
        let bytes = 70 + u32::try_from(self.below(500)).expect("small");
        let plain = Batch {
            records,
            bytes,
            max_timestamp,
            time_source: meta::commit::TimeSource::Records,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        };
        if id < 0 {
            return plain;
        }
        let producer_epoch = i16::from(self.one_in(30));
        let astray = self.one_in(12);
        let back = self.one_in(6);
        let next = self
            .sequences
            .entry((partition.0, id))
            .or_insert(i32::MAX - 100);
        let base_sequence = match (astray, back) {
            (true, _) => next.wrapping_add(50) & i32::MAX,
            (_, true) => next.wrapping_sub(records.cast_signed()) & i32::MAX,
            _ => {
                let sequence = *next;
                *next = next.wrapping_add(records.cast_signed()) & i32::MAX;
                sequence
            }
        };
        Batch {
            producer_id: id,
            producer_epoch,
            base_sequence,
            ..plain
        }
    }
}
