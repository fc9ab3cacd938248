//! Reads by way of other agents of the zone that are late, silent, gone or wrong: each is as good as one from the bucket.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use async_trait::async_trait;
use futures::StreamExt;
use meta::ids::{FileId, Incarnation, PartitionId};
use meta::places::SlicePlace;
use store::bucket::{Bucket, Op, Payload};
use store::buckets::Buckets;
use store::faulty::{Fault, FaultRule, Faulty};
use store::file::{Counts, FileBuilder};
use store::layout::file_key;
use store::memory::Memory;
use wire::builder::BatchBuilder;
use wire::compression::Compression;

use super::*;
use crate::data::cache::{Cache, LoadError, Segment, stored_id};
use crate::data::fetch::plan::part_of;
use crate::data::fetch::read::{Reader, check_place};

const PARTITION: PartitionId = PartitionId(3);
/// How long the bucket takes.
const BUCKET: Duration = Duration::from_millis(30);
/// How long another agent takes that has the part.
const NEAR: Duration = Duration::from_millis(2);
/// One answer in so many comes seconds late.
const LATE_ONE_IN: u64 = 33;
/// One in so many never comes.
const NEVER_ONE_IN: u64 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Gives what is in the bucket, at times late, at times never.
    Sound,
    /// Has none of it.
    Empty,
    /// Gives a part of which one bit is wrong.
    Damages,
    /// Gives another file.
    Mistakes,
    Gone,
}

/// The other agents of a zone, with all files in their memory.
struct Near {
    memory: Arc<Memory>,
    manner: Manner,
    rng: Mutex<Rng>,
    asked: AtomicU64,
}

fn file(number: u64) -> FileId {
    FileId {
        incarnation: Incarnation(9),
        number,
    }
}

/// Stores a file with a batch of one record; where it lies.
async fn store(bucket: &Memory, number: u64) -> SlicePlace {
    let mut batch = BatchBuilder::new(Compression::None);
    let value = vec![7; 1_000];
    batch.append(1, None, Some(&value), &[]);
    let mut file_of = FileBuilder::new(stored_id(file(number)));
    let counts = Counts {
        batches: 1,
        records: 1,
        max_timestamp_ms: 1,
    };
    file_of.push(PARTITION.0, [batch.build()], counts).unwrap();
    let built = file_of.finish().unwrap();
    let slice = built.index.slices[0];
    let nonce = 5;
    let key = file_key(stored_id(file(number)), nonce);
    bucket.put_new(&key, built.payload).await.unwrap();
    SlicePlace {
        file: file(number),
        nonce,
        file_length: built.length,
        position: slice.position,
        length: slice.length,
        base_offset: 0,
        last_offset: 0,
        max_timestamp: 1,
    }
}

#[async_trait]
impl Network for Near {
    async fn ask(&self, _: &str, wanted: &Wanted, bytes: u64) -> Result<Bytes, NotGiven> {
        self.asked.fetch_add(1, Relaxed);
        let (is_late, is_lost) = {
            let mut rng = self.rng.lock().unwrap();
            (rng.once_in(LATE_ONE_IN), rng.once_in(NEVER_ONE_IN))
        };
        if self.manner == Manner::Sound && is_lost {
            std::future::pending::<()>().await;
        }
        let is_late = self.manner == Manner::Sound && is_late;
        let pause = if is_late {
            Duration::from_secs(3)
        } else {
            NEAR
        };
        host::clock::sleep(pause).await;
        let mut named = wanted.place.file;
        match self.manner {
            Manner::Empty => return Err(NotGiven::Missing),
            Manner::Gone => return Err(NotGiven::Failed("nobody is there".to_owned())),
            Manner::Mistakes => named.number = 0,
            Manner::Sound | Manner::Damages => {}
        }
        let key = file_key(stored_id(named), wanted.place.nonce);
        let found = self.memory.get(&key).await.unwrap().unwrap();
        assert_eq!(found.len() as u64, bytes);
        let mut found = found.to_vec();
        if self.manner == Manner::Damages {
            found[bytes as usize / 2] ^= 1;
        }
        Ok(found.into())
    }
}

fn agents() -> Vec<Agent> {
    let agent = |id: i32| Agent {
        id: AgentId(id),
        name: id.to_string(),
        listeners: meta::endpoint::Endpoint::alone("h", 1),
        region: "r".to_owned(),
        zone: "z".to_owned(),
        neighbour_address: format!("h:{id}"),
        level: 1,
        incarnation: Incarnation(id.unsigned_abs().into()),
        drains: false,
        cut_off: false,
    };
    (1..=3).map(agent).collect()
}

/// What came of many reads, most of whose parts another agent keeps.
#[derive(Debug)]
struct Ran {
    asked: u64,
    gets: u64,
    longest: Duration,
    failed: u64,
    corrupt: u64,
}

const READS: u64 = 600;

fn run(manner: Manner, seed: u64) -> Ran {
    let scenario = async move {
        let memory = Arc::new(Memory::new());
        let bucket = Arc::new(Faulty::new(Arc::<Memory>::clone(&memory), seed));
        bucket
            .faults()
            .add(FaultRule::on(Op::Get, Fault::Delay(BUCKET)));
        let near = Arc::new(Near {
            memory: Arc::clone(&memory),
            manner,
            rng: Mutex::new(Rng::seeded(seed)),
            asked: AtomicU64::new(0),
        });
        let metrics = Arc::new(Metrics::zero());
        let network: Arc<dyn Network> = Arc::<Near>::clone(&near);
        let neighbours = Arc::new(Neighbours::new(Some(network), Arc::clone(&metrics)));
        neighbours.take(&agents(), AgentId(1));
        let budget = host::budget::Budget::of_bytes(64 << 20);
        let cache = Arc::new(Cache::new(32 << 20, budget, Arc::clone(&metrics)));
        let buckets = Arc::new(Buckets::one(Arc::<Faulty>::clone(&bucket), Arc::default()));
        let reader = Reader::new(buckets, neighbours, cache, Arc::clone(&metrics));
        store(&memory, 0).await;
        let reads = futures::stream::iter(1..=READS).map(|number| {
            let (reader, memory) = (&reader, &memory);
            async move {
                let place = store(memory, number).await;
                let begun = host::clock::now();
                let chunk = reader.load(PARTITION, &place, false).await.unwrap();
                assert_eq!(check_place(&chunk, PARTITION, &place).unwrap().len(), 1);
                host::clock::now().since(begun)
            }
        });
        let took: Vec<Duration> = reads.buffer_unordered(4).collect().await;
        let gets = bucket.faults().calls(Op::Get);
        Ran {
            asked: near.asked.load(Relaxed),
            gets,
            longest: took.into_iter().max().unwrap(),
            failed: metrics.neighbour_failed.get(),
            corrupt: metrics.corrupt_reads.get(),
        }
    };
    let ran = host::seeded::run(seed, Box::new(|_, _| {}), scenario);
    ran.expect("it ends").value
}

#[test]
fn answers_that_are_late_or_never_come_cost_a_request_to_the_bucket_and_little_time() {
    for seed in 1..=4 {
        let ran = run(Manner::Sound, seed);
        // Two thirds are another agent's; four in a hundred of those are late.
        assert!(ran.gets < READS * 40 / 100, "seed {seed}: {ran:?}");
        assert!(ran.asked > READS * 60 / 100, "seed {seed}: {ran:?}");
        // The wait for the other agent, and then the bucket.
        let most = Duration::from_millis(250) + BUCKET;
        assert!(ran.longest <= most, "seed {seed}: {ran:?}");
        assert_eq!(ran.failed, 0);
    }
}

#[test]
fn what_another_agent_gives_wrongly_is_had_from_the_bucket_and_the_agent_left_alone() {
    for manner in [Manner::Damages, Manner::Mistakes, Manner::Gone] {
        let ran = run(manner, 1);
        assert_eq!(ran.gets, READS, "{manner:?}: {ran:?}");
        assert!(ran.failed > 0 && ran.asked == ran.failed, "{ran:?}");
        assert!(ran.asked < 100, "{manner:?}: {ran:?}");
        assert_eq!(ran.corrupt, 0, "the bucket was not at fault");
        assert!(ran.longest < 2 * BUCKET, "{ran:?}");
    }
}

#[test]
fn an_agent_that_has_nothing_is_asked_on() {
    let ran = run(Manner::Empty, 1);
    assert_eq!((ran.gets, ran.failed), (READS, 0));
    assert!(ran.asked > READS / 2, "{ran:?}");
}

#[tokio::test]
async fn without_others_nobody_is_asked() {
    let metrics = Arc::new(Metrics::zero());
    let alone = Neighbours::new(None, Arc::clone(&metrics));
    alone.take(&agents(), AgentId(1));
    let place = store(&Memory::new(), 1).await;
    for number in 0..50 {
        let part = Part {
            file: file(number),
            ..part_of(&place)
        };
        assert!(alone.begin(part, 1, false).is_none());
    }
    assert!(!alone.has_any.load(Relaxed));
}

#[tokio::test]
async fn a_damaged_file_in_the_bucket_is_a_loud_error_whoever_was_asked() {
    let memory = Arc::new(Memory::new());
    let place = store(&memory, 1).await;
    let key = file_key(stored_id(place.file), place.nonce);
    let mut bytes = memory.get(&key).await.unwrap().unwrap().to_vec();
    bytes[40] ^= 1;
    memory.delete(&key).await.unwrap();
    let damaged = Payload::from(Bytes::from(bytes));
    memory.put_new(&key, damaged).await.unwrap();
    for number in 1..=3 {
        let near: Arc<dyn Network> = Arc::new(Near {
            memory: Arc::clone(&memory),
            manner: Manner::Damages,
            rng: Mutex::new(Rng::seeded(number)),
            asked: AtomicU64::new(0),
        });
        let metrics = Arc::new(Metrics::zero());
        let neighbours = Arc::new(Neighbours::new(Some(near), Arc::clone(&metrics)));
        neighbours.take(&agents(), AgentId(i32::try_from(number).unwrap()));
        let budget = host::budget::Budget::of_bytes(64 << 20);
        let cache = Arc::new(Cache::new(32 << 20, budget, Arc::clone(&metrics)));
        assert_eq!(cache.segment_of(place.file), Segment::Cold);
        let buckets = Arc::new(Buckets::one(Arc::<Memory>::clone(&memory), Arc::default()));
        let reader = Reader::new(buckets, neighbours, cache, Arc::clone(&metrics));
        let loaded = reader.load(PARTITION, &place, false).await;
        assert!(matches!(loaded, Err(LoadError::Corrupt(_))), "{loaded:?}");
        assert_eq!(metrics.corrupt_reads.get(), 1);
    }
}
