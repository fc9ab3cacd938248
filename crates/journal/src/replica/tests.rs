//! Replicas as their users see them: over real engines, with restarts and faults.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::clock;
use store::bucket::{Bucket, Key, Op, Payload};
use store::faulty::{Fault, FaultRule, Faulty};

use super::{
    Alone, Capture, Handle, Others, Part, PartId, Parts, Poison, Replica, StateMachine, start,
};
use crate::engine::Engine;
use crate::entry::{ClusterNumber, EntryId, Position, Stamp};
use crate::memory;
use crate::node::{ProposeError, Refusal, Role, Said, Settings};
use crate::object::Object;
use crate::snapshot::Unreadable;
use crate::snapshot::manifest::Seal;

mod claims;
mod damage;
mod quarantine;
mod regions;
mod snapshots;

/// Adds up numbers; refuses to apply "poison", and panics at "panic".
#[derive(Default)]
pub(super) struct Sum {
    /// True in a build that can apply "ten".
    knows_ten: bool,
    /// True in a build that cannot read snapshots of later ones.
    is_old: bool,
    /// True in a build that writes other snapshots than it should.
    writes_wrongly: bool,
    commands: u64,
    sum: u64,
    stamp: Stamp,
    /// How often it was told that an entry is left out.
    left_out: u64,
}

impl StateMachine for Sum {
    type Reply = u64;

    fn apply(
        &mut self,
        _: EntryId,
        stamp: Stamp,
        _: ClusterNumber,
        command: &[u8],
    ) -> Result<u64, Poison> {
        let text = std::str::from_utf8(command).map_err(|e| Poison(e.to_string()))?;
        assert_ne!(text, "panic", "at this command");
        let text = if text == "ten" && self.knows_ten {
            "10"
        } else {
            text
        };
        let number: u64 = text.parse().map_err(|_| Poison(format!("{text:?}")))?;
        assert!(stamp >= self.stamp, "time went back");
        self.stamp = stamp;
        self.commands += 1;
        self.sum += number;
        Ok(self.sum)
    }

    fn left_out(&mut self, _: EntryId, _: Stamp) {
        self.left_out += 1;
    }

    fn kind(command: &[u8]) -> String {
        format!("of {} bytes", command.len())
    }

    fn lost_with(&self, _: ClusterNumber, command: &[u8]) -> Option<Vec<String>> {
        let text = std::str::from_utf8(command).ok()?;
        let lost = |at| format!("{text} in place {at}, after {}", self.sum);
        (text != "poison").then(|| (0..LOST_AT_ONCE).map(lost).collect())
    }

    fn capture(&self) -> Box<dyn Capture> {
        Box::new(Captured {
            commands: self.commands,
            sum: self.sum,
            written: self.sum + u64::from(self.writes_wrongly),
        })
    }

    fn genesis(&self) -> Self {
        Sum {
            knows_ten: self.knows_ten,
            is_old: self.is_old,
            ..Sum::default()
        }
    }

    fn restore(&mut self, chunks: Vec<Bytes>) -> Result<(), Unreadable> {
        let number = |at: usize| {
            let text = chunks
                .get(at)
                .and_then(|chunk| std::str::from_utf8(chunk).ok());
            text.and_then(|text| text.parse().ok())
                .ok_or_else(|| Unreadable::Damaged("not two numbers".to_owned()))
        };
        if self.is_old {
            return Err(Unreadable::Newer("it has feature level 2".to_owned()));
        }
        (self.commands, self.sum) = (number(0)?, number(1)?);
        Ok(())
    }

    fn seal(&self) -> Seal {
        seal_of(self.sum)
    }
}

fn seal_of(sum: u64) -> Seal {
    let mut digest = [0; 32];
    digest[..8].copy_from_slice(&sum.to_le_bytes());
    Seal { level: 1, digest }
}

/// How many commands there were, their sum, and what is written of it.
struct Captured {
    commands: u64,
    sum: u64,
    written: u64,
}

impl Capture for Captured {
    fn seal(&self) -> Seal {
        seal_of(self.sum)
    }

    fn encode(self: Box<Self>, _: &dyn Fn(PartId) -> bool) -> Vec<Part> {
        let part = |number: u64| Part::Encoded(None, Bytes::from(number.to_string()));
        vec![part(self.commands), part(self.written)]
    }
}

const CLUSTER: ClusterNumber = ClusterNumber(1);
/// How many things are lost with a command, as it is told.
const LOST_AT_ONCE: usize = 600;

pub(super) struct World {
    pub(super) bucket: Arc<Faulty>,
    pub(super) settings: Settings,
}

impl World {
    pub(super) fn new() -> Self {
        let memory = Arc::new(store::memory::Memory::new());
        let mut settings = Settings::alone("c1");
        settings.retry_min = Duration::from_millis(1);
        settings.retry_max = Duration::from_millis(5);
        settings.takeover_after = Duration::from_millis(40);
        settings.poll_min = Duration::from_millis(1);
        settings.poll_max = Duration::from_millis(10);
        settings.snapshot.first_after = Duration::ZERO;
        World {
            bucket: Arc::new(Faulty::new(memory, 1)),
            settings,
        }
    }

    fn bucket(&self) -> Arc<dyn Bucket> {
        Arc::<Faulty>::clone(&self.bucket)
    }

    pub(super) fn start(&self) -> (Handle<Sum>, Replica) {
        self.start_on(Box::new(Object::new(self.bucket(), 0)))
    }

    fn start_on(&self, engine: Box<dyn Engine>) -> (Handle<Sum>, Replica) {
        start(self.parts(engine), Sum::default())
    }

    fn parts(&self, engine: Box<dyn Engine>) -> Parts {
        Parts {
            engine,
            bucket: self.bucket(),
            others: Arc::new(Alone),
            settings: self.settings.clone(),
        }
    }

    async fn keys(&self, prefix: &str) -> Vec<Key> {
        let listed = self.bucket.list(prefix, None, 100_000).await;
        let listed = listed.expect("a listing");
        listed.into_iter().map(|object| object.key).collect()
    }

    /// Changes a byte of an object, or removes it.
    async fn damage(&self, key: &Key, remove: bool) {
        let bytes = self
            .bucket
            .get(key)
            .await
            .expect("readable")
            .expect("there");
        self.bucket.delete(key).await.expect("deleted");
        if !remove {
            let mut bytes = bytes.to_vec();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            let put = self.bucket.put_new(key, Payload::from(bytes)).await;
            put.expect("put back");
        }
    }
}

pub(super) async fn role(handle: &Handle<Sum>, role: Role) {
    let mut roles = handle.roles();
    let wait = roles.wait_for(|now| *now == role);
    let waited = clock::timeout(Duration::from_secs(20), wait).await;
    if waited.is_err() {
        panic!("never {role:?}: {:?}", handle.status());
    }
}

/// Waits until an entry cannot be applied; what is told of it.
pub(super) async fn stuck(handle: &Handle<Sum>) -> String {
    let since = clock::now();
    loop {
        if let Some(why) = handle.status().stuck {
            return why;
        }
        let waited = clock::now().since(since);
        assert!(waited < Duration::from_secs(20), "{:?}", handle.status());
        clock::sleep(Duration::from_millis(1)).await;
    }
}

pub(super) async fn add(handle: &Handle<Sum>, number: u64) -> Result<u64, ProposeError> {
    let command = Bytes::from(number.to_string());
    handle.propose(CLUSTER, command).await
}

async fn add_all(handle: &Handle<Sum>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        add(handle, number).await.expect("added");
    }
}

#[tokio::test]
async fn what_was_answered_is_there_after_a_restart() {
    let world = World::new();
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        assert_eq!(add(&handle, 5).await, Ok(5));
        assert_eq!(add(&handle, 7).await, Ok(12));
        assert!(handle.leading_until().is_some());
        let unread = handle.with_state(|sum| sum.sum);
        assert_eq!(unread, 12);
    }
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|sum| sum.sum), 12);
    assert_eq!(add(&handle, 1).await, Ok(13));
}

/// A number as a command of so many bytes.
fn padded(number: u64, bytes: usize) -> Bytes {
    Bytes::from(format!("{number:0bytes$}"))
}

#[tokio::test]
async fn a_long_journal_is_read_in_runs_and_applied_whole() {
    // Five starts append fifteen entries, so that five times the limit of a run leaves every remainder that there is.
    for (bytes, scan_limit, starts) in [(1, 7, 35), (1, 1, 20), (2_000, 100, 100), (2_000, 13, 65)]
    {
        let mut world = World::new();
        world.settings.scan_limit = scan_limit;
        world.settings.snapshot.entries = u64::MAX;
        world.settings.snapshot.interval = Duration::from_secs(1 << 40);
        let mut sum = 0;
        for number in 0..starts {
            let (handle, _replica) = world.start();
            role(&handle, Role::Leader).await;
            assert_eq!(handle.with_state(|state| state.sum), sum, "{number}");
            for number in 0..number % 5 {
                sum += number;
                let command = padded(number, bytes);
                assert_eq!(handle.propose(CLUSTER, command).await, Ok(sum));
            }
        }
    }
}

#[tokio::test]
async fn much_is_applied_up_to_the_command_that_cannot_be() {
    let world = World::new();
    let mut sum = 0;
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        for number in 0..200 {
            sum += number;
            let command = padded(number, 2_000);
            assert_eq!(handle.propose(CLUSTER, command).await, Ok(sum));
        }
        let poison = handle.propose(CLUSTER, Bytes::from("poison")).await;
        assert!(
            matches!(poison, Err(ProposeError::Unknown(_))),
            "{poison:?}"
        );
    }
    let (handle, _replica) = world.start();
    let why = stuck(&handle).await;
    assert_eq!(handle.with_state(|state| state.sum), sum);
    assert!(why.contains("cannot be applied"), "{why}");
}

/// A sum that is applied only while another task on the async threads makes progress.
struct Watched {
    sum: Sum,
    seen: std::sync::mpsc::Receiver<()>,
}

impl StateMachine for std::sync::Mutex<Watched> {
    type Reply = u64;

    fn apply(
        &mut self,
        entry: EntryId,
        stamp: Stamp,
        cluster: ClusterNumber,
        bytes: &[u8],
    ) -> Result<u64, Poison> {
        let watched = self.get_mut().expect("nobody panics with it");
        let seen = watched.seen.recv_timeout(Duration::from_secs(20));
        seen.map_err(|_| Poison("the async threads stand still".to_owned()))?;
        watched.sum.apply(entry, stamp, cluster, bytes)
    }

    fn left_out(&mut self, _: EntryId, _: Stamp) {}

    fn kind(command: &[u8]) -> String {
        Sum::kind(command)
    }

    fn lost_with(&self, cluster: ClusterNumber, command: &[u8]) -> Option<Vec<String>> {
        let watched = self.lock().expect("nobody panics with it");
        watched.sum.lost_with(cluster, command)
    }

    fn capture(&self) -> Box<dyn Capture> {
        self.lock().expect("nobody panics with it").sum.capture()
    }

    fn genesis(&self) -> Self {
        let (_, seen) = std::sync::mpsc::channel();
        let sum = Sum::default();
        std::sync::Mutex::new(Watched { sum, seen })
    }

    fn restore(&mut self, chunks: Vec<Bytes>) -> Result<(), Unreadable> {
        let watched = self.get_mut().expect("nobody panics with it");
        watched.sum.restore(chunks)
    }

    fn seal(&self) -> Seal {
        self.lock().expect("nobody panics with it").sum.seal()
    }
}

#[tokio::test]
async fn the_process_goes_on_while_much_is_applied() {
    let mut world = World::new();
    // A state that is restored from a snapshot is another one, which nobody lets go on.
    world.settings.snapshot.entries = u64::MAX;
    world.settings.snapshot.bytes = u64::MAX;
    world.settings.snapshot.interval = Duration::from_secs(1 << 40);
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        for number in 0..100 {
            let added = handle.propose(CLUSTER, padded(number, 2_000)).await;
            added.expect("added");
        }
    }
    let (see, seen) = std::sync::mpsc::channel();
    let sum = Sum::default();
    let parts = Parts {
        engine: Box::new(Object::new(world.bucket(), 0)),
        bucket: world.bucket(),
        others: Arc::new(Alone),
        settings: world.settings.clone(),
    };
    let (handle, _replica) = start(parts, std::sync::Mutex::new(Watched { sum, seen }));
    while !handle.is_leader() {
        assert_eq!(handle.status().halted, None);
        // This task shares the test's only thread with the replica.
        see.send(()).expect("the handle holds the receiver");
        clock::sleep(Duration::from_micros(100)).await;
    }
}

#[tokio::test]
async fn many_proposals_share_entries() {
    let world = World::new();
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    let delay = Fault::Delay(Duration::from_millis(20));
    world.bucket.faults().add(FaultRule::on(Op::PutNew, delay));
    let adds = (0..500).map(|_| add(&handle, 1));
    let sums = futures::future::join_all(adds).await;
    let mut sums: Vec<u64> = sums.into_iter().map(|sum| sum.expect("added")).collect();
    sums.sort_unstable();
    assert_eq!(sums, (1..=500).collect::<Vec<u64>>());
    let entries = handle.status().entries_appended;
    assert!(
        entries <= 5,
        "{entries} entries for 500 proposals at one time"
    );
}

#[tokio::test]
async fn a_barrier_sees_what_was_answered_before_it() {
    let world = World::new();
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    add(&handle, 3).await.expect("added");
    let before = handle.status().index;
    let barriers = futures::future::join_all((0..50).map(|_| handle.barrier())).await;
    assert!(barriers.iter().all(Result::is_ok), "{barriers:?}");
    assert!(
        handle.status().index > before,
        "a barrier needs a new entry"
    );
    assert!(
        handle.status().index <= before + 3,
        "barriers share entries"
    );
}

#[tokio::test]
async fn a_position_given_by_one_node_is_reached_on_another() {
    let world = World::new();
    let (first, first_replica) = world.start();
    role(&first, Role::Leader).await;
    let mut other = World::new();
    other.bucket = Arc::clone(&world.bucket);
    other.settings = Settings {
        name: "c2".to_owned(),
        takeover: crate::node::Takeover::AfterSilence,
        ..other.settings
    };
    let (second, second_replica) = other.start();
    for number in 1..=20 {
        add(&first, 1).await.expect("added");
        let position = first.barrier().await.expect("it leads");
        second.reach(position).await.expect("it reads on");
        assert_eq!(second.with_state(|sum| sum.sum), number);
        assert!(second.applied() >= position);
    }
    drop(first_replica);
    let beyond = Position(second.applied().0 + 100);
    let (reached, ()) = tokio::join!(second.reach(beyond), async {
        clock::sleep(Duration::from_millis(5)).await;
        drop(second_replica);
    });
    assert!(matches!(reached, Err(Refusal::Halted(_))), "{reached:?}");
}

#[tokio::test]
async fn a_bucket_that_is_away_at_the_start_is_waited_for() {
    let world = World::new();
    world.bucket.faults().add(FaultRule::always(Fault::Unknown));
    let (handle, _replica) = world.start();
    let refused = add(&handle, 1).await;
    assert!(
        matches!(
            refused,
            Err(ProposeError::Definite(Refusal::NotLeader { .. }))
        ),
        "{refused:?}"
    );
    while handle.status().trouble.is_none() {
        clock::sleep(Duration::from_millis(1)).await;
    }
    world.bucket.faults().clear();
    role(&handle, Role::Leader).await;
    assert_eq!(add(&handle, 1).await, Ok(1));
    assert_eq!(handle.status().trouble, None);
}

#[tokio::test]
async fn a_lost_slot_is_refused_and_not_taken_for_the_end() {
    let world = World::new();
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        add_all(&handle, 1..20).await;
    }
    let slots = world.keys("journal/0000/").await;
    world.damage(&slots[slots.len() / 2], true).await;
    let (handle, _replica) = world.start();
    role(&handle, Role::Halted).await;
    let why = handle.status().halted.expect("a reason");
    assert!(
        why.contains("is missing") && why.contains("Restore"),
        "{why}"
    );
}

#[tokio::test]
async fn a_slot_that_is_found_at_another_look_was_not_lost() {
    let world = World::new();
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        add_all(&handle, 1..20).await;
    }
    let slots = world.keys("journal/0000/").await;
    let middle = slots[slots.len() / 2].as_str();
    // Read once in a run, once as the next slot, and at two looks for a lost slot.
    let absent = FaultRule::on(Op::Get, Fault::Missing)
        .below(middle)
        .times(4);
    world.bucket.faults().add(absent);
    let (handle, _replica) = world.start();
    // The claim went into a slot that is taken, so the replica now waits for a caller that wants a
    // leader.
    while let Err(error) = add(&handle, 0).await {
        assert!(
            !matches!(error, ProposeError::Definite(Refusal::Halted(_))),
            "{error}"
        );
        clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(handle.with_state(|sum| sum.sum), (1..20).sum::<u64>());
}

#[tokio::test]
async fn faults_of_every_kind_lose_and_double_nothing() {
    let mut world = World::new();
    world.settings.snapshot.entries = 16;
    let faults = [
        Fault::LoseReply,
        Fault::Unknown,
        Fault::Throttled,
        Fault::Conflict,
    ];
    for fault in faults {
        world.bucket.faults().add(FaultRule {
            one_in: 12,
            ..FaultRule::always(fault)
        });
    }
    let mut expected = 0;
    for round in 0..4 {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        assert_eq!(handle.with_state(|sum| sum.sum), expected, "round {round}");
        for number in 1..=60 {
            expected += number;
            assert_eq!(add(&handle, number).await, Ok(expected), "round {round}");
        }
    }
}

#[tokio::test]
async fn a_poison_command_stops_every_replica_at_its_entry() {
    let world = World::new();
    let (handle, replica) = world.start();
    role(&handle, Role::Leader).await;
    add(&handle, 1).await.expect("added");
    let poison = handle.propose(CLUSTER, Bytes::from_static(b"x")).await;
    assert!(
        matches!(poison, Err(ProposeError::Unknown(_))),
        "{poison:?}"
    );
    assert_eq!(handle.status().role, Role::Stuck);
    drop(replica);
    let (handle, _replica) = world.start();
    let why = stuck(&handle).await;
    assert!(
        why.contains("entry 3") && why.contains("cluster 1"),
        "{why}"
    );
    assert_eq!(handle.with_state(|sum| sum.sum), 1);
}

#[tokio::test]
async fn another_node_follows_and_takes_over() {
    let world = World::new();
    let (first, first_replica) = world.start();
    role(&first, Role::Leader).await;
    add_all(&first, 0..10).await;

    let mut other = World::new();
    other.bucket = Arc::clone(&world.bucket);
    other.settings = Settings {
        name: "c2".to_owned(),
        takeover: crate::node::Takeover::AfterSilence,
        ..other.settings
    };
    let (second, _second_replica) = other.start();
    while second.with_state(|sum| sum.sum) != 45 {
        clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(second.status().leader.as_deref(), Some("c1"));
    assert_eq!(second.status().role, Role::Follower);
    drop(first_replica);
    // Somebody has to want a leader.
    while add(&second, 1).await != Ok(46) {
        clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(second.status().leader.as_deref(), Some("c2"));
}

#[tokio::test]
async fn a_command_too_large_for_a_slot_goes_elsewhere_and_is_trimmed_too() {
    let mut world = World::new();
    world.settings.slot_bytes_max = 1_000;
    world.settings.snapshot.entries = 10;
    let long = |number: u64| Bytes::from(format!("{number:02000}"));
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        for number in [1, 2, 3, 3] {
            let sum = handle.propose(CLUSTER, long(number)).await;
            sum.expect("added");
        }
    }
    assert_eq!(
        world.keys("bodies/").await.len(),
        4,
        "equal bodies are not shared"
    );
    // Altered once on the way, it is whole in the bucket all the same.
    world.bucket.faults().add(FaultRule {
        prefix: "bodies/".to_owned(),
        times: Some(1),
        ..FaultRule::on(Op::Get, Fault::Corrupt)
    });
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|sum| sum.sum), 9);
    while !world.keys("bodies/").await.is_empty() {
        add(&handle, 0).await.expect("added");
    }
}

#[tokio::test]
async fn an_idle_leader_looks_for_others_and_asks_for_nothing_else() {
    let mut world = World::new();
    world.settings.in_use_for = Duration::from_millis(50);
    world.settings.heartbeat_interval = Duration::from_millis(10);
    world.settings.look_interval = Duration::from_millis(100);
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    add(&handle, 1).await.expect("added");
    let busy = handle.status().entries_appended;
    // Heartbeats while in use, then none: two looks far apart see the same.
    clock::sleep(Duration::from_millis(150)).await;
    let after = handle.status().entries_appended;
    assert!(after > busy, "no heartbeat while in use");
    let calls = || {
        let others = Op::ALL.iter().filter(|op| **op != Op::Get);
        others.map(|op| world.bucket.faults().calls(*op)).sum()
    };
    let quiet: u64 = calls();
    let looks = world.bucket.faults().calls(Op::Get);
    clock::sleep(Duration::from_millis(450)).await;
    assert_eq!(calls(), quiet);
    let looks = world.bucket.faults().calls(Op::Get) - looks;
    assert!((1..=5).contains(&looks), "{looks} looks");
}

#[tokio::test]
async fn of_two_that_were_started_alone_the_deposed_one_says_so_and_returns() {
    let mut world = World::new();
    world.settings.return_after = Duration::from_millis(400);
    world.settings.contested_heartbeat_interval = Duration::from_millis(50);
    world.settings.look_interval = Duration::from_millis(20);
    let (first, _first_replica) = world.start();
    role(&first, Role::Leader).await;
    let mut other = World::new();
    other.bucket = Arc::clone(&world.bucket);
    other.settings = Settings {
        name: "c2".to_owned(),
        ..world.settings.clone()
    };
    let (second, second_replica) = other.start();
    role(&second, Role::Leader).await;
    while first.status().deposed_by.as_deref() != Some("c2") {
        clock::sleep(Duration::from_millis(1)).await;
    }
    assert!(!first.is_leader());
    drop(second_replica);
    role(&first, Role::Leader).await;
    assert_eq!(first.status().deposed_by, None);
    add(&first, 1).await.expect("it serves again");
}

#[tokio::test]
async fn too_much_at_once_is_refused_for_good() {
    let mut world = World::new();
    world.settings.queue_bytes_max = 64 << 10;
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    let command = Bytes::from(vec![b'0'; 16 << 10]);
    let proposals = (0..20).map(|_| handle.propose(CLUSTER, command.clone()));
    let outcomes = futures::future::join_all(proposals).await;
    let refused = outcomes
        .iter()
        .filter(|o| **o == Err(ProposeError::Definite(Refusal::Busy)));
    let refused = refused.count();
    assert!((1..20).contains(&refused), "{refused} of 20 refused");
    assert_eq!(handle.with_state(|sum| sum.commands), 20 - refused as u64);
}

#[tokio::test]
async fn the_memory_engine_passes_the_suite() {
    crate::conformance::run(|| async {
        let first = memory::Memory::new();
        Box::new(move || Box::new(first.beside()) as Box<dyn Engine>) as crate::conformance::Journal
    })
    .await;
}

#[tokio::test]
async fn what_a_scan_has_read_is_kept_when_one_slot_does_not_answer() {
    let world = World::new();
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        add_all(&handle, 1..50).await;
    }
    let slots = world.keys("journal/0000/").await;
    let engine = Object::new(world.bucket(), 0);
    let stuck = slots[30].as_str();
    world
        .bucket
        .faults()
        .add(FaultRule::on(Op::Get, Fault::Definite).below(stuck));
    let scan = engine.scan(1, 1_000).await;
    assert_eq!(scan.slots.len(), 30);
    world.bucket.faults().clear();
    let rest = engine.scan(31, 1_000).await;
    assert_eq!(30 + rest.slots.len(), slots.len());
}

#[tokio::test]
async fn a_follower_confirms_what_was_answered_elsewhere_before() {
    let world = World::new();
    let (first, _first_replica) = world.start();
    role(&first, Role::Leader).await;
    let mut other = World::new();
    other.bucket = Arc::clone(&world.bucket);
    other.settings = Settings {
        name: "c2".to_owned(),
        takeover: crate::node::Takeover::AfterSilence,
        poll_max: Duration::from_secs(20),
        ..other.settings
    };
    let (second, _second_replica) = other.start();
    role(&second, Role::Follower).await;
    for number in 1..=10 {
        add(&first, 1).await.expect("added");
        let position = second.confirm().await.expect("it looks for itself");
        assert_eq!(second.with_state(|sum| sum.sum), number);
        second.reach(position).await.expect("it is there");
    }
    assert!(first.is_leader());
}
