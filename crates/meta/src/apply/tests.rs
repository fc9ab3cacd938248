//! Tests with offsets that hold no record, inside a partition and at its end. No command makes such
//! holes yet, but all code that reads a partition must work with them, so that one may.

use crate::invariants::check_all;
use crate::state::State;
use crate::terms::command::{Command, CreateTopic, RegisterAgent};
use crate::terms::commit::{Batch, CommitFile};
use crate::terms::ids::{EntryId, FileId, Incarnation, PartitionId, Stamp, TopicId};
use crate::terms::places::{Bounds, Located, TimeQuery};

const PARTITION: PartitionId = PartitionId(1);

struct Holed {
    state: State,
    files: u64,
}

impl Holed {
    /// A partition with records at offsets 0 to 9 and 25 to 29, and the high watermark 40.
    fn new() -> Self {
        let mut holed = Holed {
            state: State::genesis("kHbeVPd4TfyZX0fDXsVpRA".to_owned()),
            files: 0,
        };
        holed.apply(&Command::CreateTopic(CreateTopic {
            id: TopicId(7),
            name: "t".to_owned(),
            partitions: 1,
            configs: [("retention.bytes", "100"), ("retention.ms", "-1")]
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .into(),
            replication_factor: 0,
        }));
        holed.apply(&Command::RegisterAgent(RegisterAgent {
            name: "a".to_owned(),
            nonce: 1,
            listeners: crate::terms::endpoint::Endpoint::alone("localhost", 9092),
            region: "r".to_owned(),
            zone: "z".to_owned(),
            neighbour_address: String::new(),
            level: 1,
        }));
        holed.commit(10, 1_000);
        holed.void_up_to(25);
        holed.commit(5, 2_000);
        holed.void_up_to(40);
        holed
    }

    fn apply(&mut self, command: &Command) {
        let now = Stamp {
            wall_millis: 1_764_000_000_000,
            ticks_millis: 1_000,
        };
        self.state.apply(EntryId::default(), now, command);
        check_all(&self.state).expect("holes are no violation");
    }

    fn commit(&mut self, records: u32, max_timestamp: i64) {
        let mut file = CommitFile {
            file: FileId {
                incarnation: Incarnation(1),
                number: self.files,
            },
            length: 116,
            placement: vec![0],
            ..CommitFile::default()
        };
        self.files += 1;
        file.push_slice(PARTITION, 16);
        file.push_batch(Batch {
            records,
            bytes: 100,
            max_timestamp,
            time_source: crate::commit::TimeSource::Records,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
        });
        self.apply(&Command::CommitFile(file));
    }

    fn void_up_to(&mut self, offset: i64) {
        let partition = self.state.partitions.get_mut(PARTITION.0);
        partition.expect("created").high_watermark = offset;
    }

    /// First and last offsets of the slices from an offset on; `None` outside of the partition.
    fn located(&self, offset: i64) -> Option<Vec<(i64, i64)>> {
        match self.state.locate(PARTITION, offset, u64::MAX, 10) {
            Located::Found { places, .. } => {
                let ends = places.iter().map(|at| (at.base_offset, at.last_offset));
                Some(ends.collect())
            }
            _ => None,
        }
    }

    fn bounds(&self) -> (i64, i64) {
        let bounds = self.state.bounds(PARTITION);
        let Bounds {
            log_start,
            high_watermark,
        } = bounds.expect("created");
        (log_start, high_watermark)
    }
}

#[test]
fn a_reader_in_a_hole_is_led_to_what_comes_next_and_at_the_end_waits() {
    let holed = Holed::new();
    assert_eq!(holed.bounds(), (0, 40));
    assert_eq!(holed.located(3), Some(vec![(0, 9), (25, 29)]));
    for inside in [10, 24, 25, 29] {
        assert_eq!(holed.located(inside), Some(vec![(25, 29)]), "{inside}");
    }
    for end in [30, 39, 40] {
        assert_eq!(holed.located(end), Some(Vec::new()), "{end}");
    }
    assert_eq!(holed.located(41), None);
}

#[test]
fn times_are_found_across_a_hole() {
    let holed = Holed::new();
    let found = |query| {
        let place = holed.state.find_time(PARTITION, query);
        place.map(|place| place.base_offset)
    };
    assert_eq!(found(TimeQuery::AtOrAfter(1_000)), Some(0));
    assert_eq!(found(TimeQuery::AtOrAfter(1_001)), Some(25));
    assert_eq!(found(TimeQuery::AtOrAfter(2_001)), None);
    assert_eq!(found(TimeQuery::Largest), Some(25));
}

#[test]
fn retention_moves_the_log_start_over_a_hole_and_writing_goes_on_after_it() {
    let mut holed = Holed::new();
    holed.apply(&Command::Housekeep);
    assert_eq!(holed.bounds(), (25, 40));
    assert_eq!(holed.located(24), None);
    holed.commit(2, 3_000);
    assert_eq!(holed.located(30), Some(vec![(40, 41)]));
    holed.void_up_to(50);
    holed.apply(&Command::SetTopicConfigs {
        id: TopicId(7),
        changes: crate::terms::command::ConfigChanges {
            set: [("retention.bytes".to_owned(), "0".to_owned())].into(),
            ..Default::default()
        },
    });
    holed.apply(&Command::Housekeep);
    assert_eq!(holed.bounds(), (50, 50), "the hole at the end is gone too");
    assert_eq!(holed.located(50), Some(Vec::new()));
}

#[test]
fn a_snapshot_keeps_holes() {
    let holed = Holed::new();
    let chunks = holed.state.capture().encode_chunks();
    let restored = State::restore(&chunks).expect("holes are no violation");
    assert_eq!(restored.digest(), holed.state.digest());
    assert_eq!(restored.bounds(PARTITION), holed.state.bounds(PARTITION));
}
