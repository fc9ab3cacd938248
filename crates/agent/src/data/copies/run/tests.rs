//! Repair of a bucket in simulated time, beside the real state machine: three buckets in memory, whose answers may be late, may never
//! come, or may be wrong.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use control::answer::{Freshness, Step, conclude, step};
use host::clock::Instant;
use meta::command::{Bucket as Placed, Command, CreateTopic, DropCopies, Placement, RegisterAgent};
use meta::commit::{Batch, CommitFile};
use meta::endpoint::Endpoint;
use meta::ids::{EntryId, FileId, Incarnation, PartitionId, Stamp, TopicId};
use meta::places::FileRef;
use meta::reply::Reply;
use meta::{State, invariants};
use rpc::notice::Notices;
use rpc::{Answer, Call, Control, Error, Position};
use store::bucket::Op;
use store::buckets::{Member, Standing};
use store::checksum::crc32c;
use store::faulty::{Fault, FaultRule, Faulty};
use store::memory::Memory;

use super::*;
use crate::data::copies::report::TELL_AFTER;
use crate::data::copies::watch::{Own, Watcher};

/// The bucket that lacks files.
const LACKS: u32 = 2;
const LIMITS: Limits = Limits {
    bytes_per_second: 200 << 20,
    files_per_second: 2_000,
    grace: Duration::from_secs(40),
};

/// A control node without a journal.
struct Fake(Mutex<State>);

impl Fake {
    fn apply(&self, command: &Command) -> Reply {
        let stamp = Stamp {
            wall_millis: 1_764_000_000_000 + host::clock::now().as_millis(),
            ticks_millis: host::clock::now().as_millis(),
        };
        let mut state = self.0.lock().unwrap();
        state.apply(EntryId::default(), stamp, command).reply
    }

    fn short(&self) -> u64 {
        self.short_in(LACKS)
    }

    fn short_in(&self, bucket: u32) -> u64 {
        let state = self.0.lock().unwrap();
        invariants::check_all(&state).unwrap();
        let mut shortages = state.shortages();
        shortages
            .find(|(number, _)| *number == bucket)
            .map_or(0, |(_, short)| short.files)
    }

    fn are_suspect(&self) -> usize {
        self.0.lock().unwrap().suspect_buckets().count()
    }

    fn drop_copies(&self, bucket: u32, files: impl Iterator<Item = u64>) {
        let dropped = self.apply(&Command::DropCopies(DropCopies {
            by: Incarnation(1),
            bucket,
            is_missing: false,
            files: files.map(file).collect(),
        }));
        assert_eq!(dropped, Reply::Done);
    }
}

#[async_trait]
impl Control for Fake {
    async fn call_for(&self, call: Call, _: Option<Instant>) -> Result<Answer, Error> {
        host::clock::sleep(Duration::from_millis(2)).await;
        let told = step(&self.0.lock().unwrap(), call, Freshness::Current)?;
        let value = match told {
            Step::Now(value) => value,
            Step::Propose(command) => {
                let reply = self.apply(&command);
                conclude(&self.0.lock().unwrap(), reply)?
            }
            other => panic!("{other:?}"),
        };
        let at = Position::default();
        Ok(Answer { at, value })
    }

    fn notices(&self) -> Notices {
        futures::stream::pending().boxed()
    }
}

/// What a run came to.
struct Ran {
    took: Duration,
    /// Files that still lack a copy.
    short: u64,
    metrics: Arc<Metrics>,
}

struct Case {
    fake: Arc<Fake>,
    memories: [Arc<Memory>; 3],
    faulty: [Arc<Faulty>; 3],
    buckets: Arc<Buckets>,
}

fn content(number: u64, length: usize) -> Bytes {
    let mut content = vec![number as u8; length];
    content[..8].copy_from_slice(&number.to_le_bytes());
    content.into()
}

fn file(number: u64) -> FileRef {
    let incarnation = Incarnation(1);
    let file = FileId {
        incarnation,
        number,
    };
    FileRef { file, nonce: 7 }
}

fn key(number: u64) -> Key {
    key_of(file(number))
}

impl Case {
    /// Files that two of three buckets hold.
    async fn with(files: u64, length: usize) -> Self {
        let state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
        let fake = Fake(Mutex::new(state));
        let placed = |domain| {
            let generation = 1;
            (domain, Placed { domain, generation })
        };
        fake.apply(&Command::SetPlacement(Placement {
            number: 1,
            copies: 2,
            buckets: [placed(0), placed(1), placed(2)].into(),
        }));
        fake.apply(&Command::CreateTopic(CreateTopic {
            id: TopicId(7),
            name: "t".to_owned(),
            partitions: 1,
            configs: BTreeMap::new(),
            replication_factor: 0,
        }));
        for name in ["a", "b"] {
            fake.apply(&Command::RegisterAgent(RegisterAgent {
                name: name.to_owned(),
                nonce: 1,
                listeners: Endpoint::alone("localhost", 9_092),
                region: "x".to_owned(),
                zone: String::new(),
                neighbour_address: String::new(),
                level: 1,
            }));
        }
        let memories: [Arc<Memory>; 3] = std::array::from_fn(|_| Arc::new(Memory::new()));
        for number in 0..files {
            let content = content(number, length);
            fake.apply(&Command::CommitFile(commit(number, &content)));
            for memory in &memories[..2] {
                let body = content.clone().into();
                memory.put_new(&key(number), body).await.unwrap();
            }
        }
        let faulty = std::array::from_fn(|number| {
            let memory = Arc::<Memory>::clone(&memories[number]);
            Arc::new(Faulty::new(memory, number as u64))
        });
        let member = |(number, bucket): (u32, &Arc<Faulty>)| Member {
            number,
            name: number.to_string(),
            bucket: Arc::<Faulty>::clone(bucket),
            counters: Arc::default(),
        };
        let members = (0..).zip(&faulty).map(member).collect();
        Case {
            fake: Arc::new(fake),
            memories,
            faulty,
            buckets: Arc::new(Buckets::new(members, 2).unwrap()),
        }
    }

    /// Every bucket takes so long, three of a hundred answers are seconds late, and one never comes.
    fn trouble(&self, takes: Duration) {
        for bucket in &self.faulty {
            let rules = [
                FaultRule::always(Fault::Silence).one_in(100),
                FaultRule::always(Fault::Delay(Duration::from_secs(4))).one_in(33),
                FaultRule::always(Fault::Delay(takes)),
            ];
            rules.into_iter().for_each(|rule| bucket.faults().add(rule));
        }
    }

    /// Repairs the bucket that lacks files until nothing is short there, or so long.
    async fn run(&self, most: Duration) -> Ran {
        self.run_until(most, &[LACKS], |fake| fake.short() == 0)
            .await
    }

    /// Repairs buckets until it is over, or so long; two agents watch them.
    async fn run_until(
        &self,
        most: Duration,
        sees_to: &[u32],
        is_over: impl Fn(&Fake) -> bool,
    ) -> Ran {
        let begun = host::clock::now();
        let control: Arc<dyn Control> = Arc::<Fake>::clone(&self.fake);
        let (control, metrics) = (Client::new(control), Arc::new(Metrics::zero()));
        let reports = Arc::new(Reports::default());
        let own = || Some(Incarnation(1));
        let telling = Arc::clone(&reports).run(control.clone(), own, Arc::clone(&metrics));
        let buckets = Arc::clone(&self.buckets);
        let watch = |incarnation: u64, sees_to: Vec<u32>| {
            let watcher = Watcher {
                buckets: Arc::clone(&self.buckets),
                control: control.clone(),
                reports: Arc::default(),
                doubtful: Arc::default(),
                metrics: Arc::clone(&metrics),
                files_per_second: LIMITS.files_per_second,
            };
            let (reports, control) = (Arc::clone(&watcher.reports), control.clone());
            let metrics = Arc::clone(&metrics);
            async move {
                let incarnation = move || Some(Incarnation(incarnation));
                let own = Own {
                    incarnation: &incarnation,
                    sees_to: &move || sees_to.clone(),
                };
                tokio::select! {
                    never = reports.run(control, incarnation, metrics) => match never {},
                    never = watcher.run(own) => match never {},
                }
            }
        };
        let (first, second) = (watch(1, sees_to.to_vec()), watch(2, Vec::new()));
        let repairer = Repairer::new(buckets, control.clone(), reports, Arc::clone(&metrics));
        let ends = async {
            while host::clock::now().since(begun) < most && !is_over(&self.fake) {
                for number in 0..3 {
                    self.buckets
                        .looked(number, host::clock::now(), Standing::Proven);
                }
                host::clock::sleep(Duration::from_secs(1)).await;
            }
        };
        for number in 0..3 {
            self.buckets
                .looked(number, host::clock::now(), Standing::Proven);
        }
        tokio::select! {
            never = telling => match never {},
            never = repairer.run(LIMITS, || sees_to.to_vec()) => match never {},
            () = first => {}
            () = second => {}
            () = ends => {}
        }
        Ran {
            took: host::clock::now().since(begun),
            short: self.fake.short(),
            metrics,
        }
    }

    /// How many files the bucket that lacked some holds as they were written.
    async fn copied(&self, files: u64, length: usize) -> u64 {
        self.copied_to(LACKS as usize, files, length).await
    }

    async fn copied_to(&self, bucket: usize, files: u64, length: usize) -> u64 {
        let mut copied = 0;
        for number in 0..files {
            let found = self.memories[bucket].get(&key(number)).await;
            copied += u64::from(found.unwrap() == Some(content(number, length)));
        }
        copied
    }

    async fn replace(&self, bucket: usize, number: u64, by: Option<&'static [u8]>) {
        self.memories[bucket].delete(&key(number)).await.unwrap();
        if let Some(by) = by {
            let body = Bytes::from_static(by).into();
            let memory = &self.memories[bucket];
            memory.put_new(&key(number), body).await.unwrap();
        }
    }
}

fn commit(number: u64, content: &Bytes) -> CommitFile {
    let mut commit = CommitFile {
        file: file(number).file,
        nonce: file(number).nonce,
        length: content.len() as u64,
        checksum: crc32c(content),
        placement: vec![0, 1],
        ..CommitFile::default()
    };
    commit.push_slice(PartitionId(1), 0);
    commit.push_batch(Batch {
        records: 1,
        bytes: 8,
        max_timestamp: 1,
        time_source: meta::commit::TimeSource::Records,
        producer_id: -1,
        producer_epoch: -1,
        base_sequence: -1,
    });
    commit
}

/// Runs a scenario in simulated time.
fn simulated<T: Send + 'static>(
    seed: u64,
    scenario: impl Future<Output = T> + Send + 'static,
) -> T {
    let ran = host::seeded::run(seed, Box::new(|_, _| {}), scenario);
    ran.expect("it ends").value
}

#[test]
fn a_bucket_is_completed_whatever_answers_are_late_or_never_come() {
    for seed in 0..5 {
        simulated(seed, async move {
            let case = Case::with(500, 1_000).await;
            case.trouble(Duration::from_millis(60));
            let ran = case.run(Duration::from_secs(600)).await;
            assert_eq!(ran.short, 0, "seed {seed}: {}", ran.metrics.render());
            assert_eq!(case.copied(500, 1_000).await, 500);
            // A copy that never ended was tried again after its minute.
            assert!(
                ran.took < Duration::from_secs(300),
                "seed {seed}: {:?}",
                ran.took
            );
        });
    }
}

#[test]
fn small_files_are_copied_by_thousands_and_large_ones_by_hundreds_of_mebibytes_a_second() {
    for (files, length, wanted_files) in [(20_000, 1_000, 1_000), (300, 1 << 20, 100)] {
        let took = simulated(1, async move {
            let case = Case::with(files, length).await;
            for bucket in &case.faulty {
                let delay = Fault::Delay(Duration::from_millis(100));
                bucket.faults().add(FaultRule::always(delay));
            }
            // They have been there for long.
            host::clock::sleep(LIMITS.grace).await;
            case.fake.apply(&Command::AllocateProducer { known: None });
            let ran = case.run(Duration::from_secs(600)).await;
            assert_eq!(ran.short, 0);
            assert_eq!(ran.metrics.repaired_files.get(), files, "each once");
            // The last of them are told a while later.
            ran.took.saturating_sub(TELL_AFTER)
        });
        let per_second = files * 1_000 / u64::try_from(took.as_millis()).unwrap();
        println!("{files} files of {length} bytes in {took:?}: {per_second} files a second");
        assert!(per_second >= wanted_files, "{per_second} files a second");
    }
}

#[test]
fn what_is_damaged_or_absent_in_one_bucket_is_copied_from_another() {
    simulated(1, async {
        let case = Case::with(30, 100).await;
        case.replace(0, 3, Some(b"damaged")).await;
        case.replace(0, 4, None).await;
        case.replace(1, 5, None).await;
        let ran = case.run(Duration::from_secs(120)).await;
        assert_eq!((ran.short, case.copied(30, 100).await), (0, 30));
    });
}

#[test]
fn no_copy_is_made_of_what_is_damaged_everywhere_and_the_others_are() {
    simulated(1, async {
        let case = Case::with(30, 100).await;
        case.replace(0, 3, Some(b"damaged")).await;
        case.replace(1, 3, Some(b"damaged, too")).await;
        let ran = case.run(Duration::from_secs(120)).await;
        assert_eq!((ran.short, case.copied(30, 100).await), (1, 29));
        let found = case.memories[LACKS as usize].get(&key(3)).await.unwrap();
        assert_eq!(found, None);
        assert!(ran.metrics.repair_unmendable.get() > 0);
    });
}

/// Other bytes lie under the name of a file, in a bucket that lacks it; whether they are left.
fn are_left(others_hold_it: bool, left_out: Option<&'static str>) -> bool {
    simulated(1, async move {
        if let Some(rule) = left_out {
            host::seeded::leave_out(rule);
        }
        let case = Case::with(30, 100).await;
        let other = b"something else";
        case.replace(LACKS as usize, 3, Some(other)).await;
        if !others_hold_it {
            case.fake.drop_copies(1, [3].into_iter());
        }
        let ran = case.run(Duration::from_secs(120)).await;
        let key = key(3);
        let found = case.memories[LACKS as usize].get(&key).await.unwrap();
        let are_left = found.as_deref() == Some(other);
        assert_eq!(ran.short, u64::from(are_left));
        assert_eq!(ran.metrics.copies_mended.get(), u64::from(!are_left));
        are_left
    })
}

#[test]
fn what_is_no_copy_is_replaced_only_while_enough_other_buckets_hold_the_file() {
    assert!(!are_left(true, None));
    assert!(are_left(false, None));
    assert!(!are_left(false, Some("mend-the-last-copies")));
}

#[test]
fn equal_bytes_under_the_name_count_as_a_copy() {
    simulated(1, async {
        let case = Case::with(30, 100).await;
        let (same, name) = (content(4, 100).into(), key(4));
        let put = case.memories[LACKS as usize].put_new(&name, same);
        put.await.unwrap();
        let ran = case.run(Duration::from_secs(120)).await;
        assert_eq!((ran.short, case.copied(30, 100).await), (0, 30));
        assert_eq!(ran.metrics.copies_mended.get(), 0);
    });
}

#[test]
fn a_damaged_copy_that_repair_meets_is_mended_once_enough_others_are_there() {
    simulated(1, async {
        let case = Case::with(30, 100).await;
        case.replace(0, 3, Some(b"damaged")).await;
        let mended = |fake: &Fake| (0..3).all(|bucket| fake.short_in(bucket) == 0);
        // What is damaged is found on the way to the copy.
        case.run(Duration::from_secs(120)).await;
        let both = &[0, LACKS];
        let ran = case.run_until(Duration::from_secs(120), both, mended);
        let ran = ran.await;
        assert!(mended(&case.fake), "{}", ran.metrics.render());
        assert_eq!(ran.metrics.copies_mended.get(), 1);
        for bucket in [0, 2] {
            assert_eq!(case.copied_to(bucket, 30, 100).await, 30);
        }
    });
}

/// A bucket has lost files from one number on, under its marker; how it is once it was watched and repaired.
fn lost_from(first: u64, files: u64, is_troubled: bool, seed: u64) {
    simulated(seed, async move {
        let case = Case::with(files, 100).await;
        case.run(Duration::from_secs(600)).await;
        assert_eq!(case.fake.short(), 0);
        for number in first..files {
            case.replace(0, number, None).await;
        }
        if is_troubled {
            case.trouble(Duration::from_millis(60));
        }
        let was_suspect = AtomicBool::new(false);
        let all = &[0, 1, LACKS];
        let is_over = |fake: &Fake| {
            let is_suspect = fake.are_suspect() == 1;
            let was_suspect = was_suspect.fetch_or(is_suspect, Ordering::Relaxed);
            was_suspect && !is_suspect && fake.short_in(0) == 0
        };
        let ran = case.run_until(Duration::from_secs(900), all, is_over);
        let ran = ran.await;
        assert!(
            was_suspect.into_inner(),
            "seed {seed}: {}",
            ran.metrics.render()
        );
        assert!(ran.took < Duration::from_secs(300), "{:?}", ran.took);
        assert_eq!(case.fake.are_suspect(), 0);
        assert_eq!(case.copied_to(0, files, 100).await, files);
    });
}

#[test]
fn a_bucket_that_was_emptied_under_its_marker_is_suspect_until_it_is_compared_and_is_completed() {
    (0..3).for_each(|seed| lost_from(0, 3_000, false, seed));
}

#[test]
fn so_is_one_that_comes_from_an_older_copy() {
    (0..3).for_each(|seed| lost_from(2_900, 3_000, false, seed));
}

#[test]
fn so_is_one_of_whose_answers_some_are_late_and_some_never_come() {
    (0..3).for_each(|seed| lost_from(2_000, 3_000, true, seed));
}

#[test]
fn a_bucket_that_is_away_for_long_is_completed_once_it_is_back() {
    simulated(1, async {
        let case = Case::with(2_000, 1_000).await;
        let bucket = &case.faulty[LACKS as usize];
        bucket
            .faults()
            .add(FaultRule::always(Fault::Unknown).after(1_500));
        let ran = case.run(Duration::from_secs(200)).await;
        assert!(
            (1..1_500).contains(&ran.short),
            "what was done stays: {}",
            ran.short
        );
        let asked = bucket.faults().calls(Op::PutNew);
        assert!(asked < 8_000, "it is left alone for a while: {asked}");
        bucket.faults().clear();
        let ran = case.run(Duration::from_secs(200)).await;
        assert_eq!((ran.short, case.copied(2_000, 1_000).await), (0, 2_000));
    });
}
