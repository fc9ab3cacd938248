//! Snapshots as users of a replica see them: cut, verified, loaded, refused.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

#[tokio::test]
async fn snapshots_are_cut_and_the_journal_is_trimmed() {
    let mut world = World::new();
    world.settings.snapshot.entries = 10;
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        add_all(&handle, 0..200).await;
        while world.keys("journal/0000/").await.len() > 60
            || world.keys("snapshots/").await.len() > 3
        {
            add(&handle, 0).await.expect("added");
        }
    }
    let kept = world.keys("journal/0000/").await;
    assert_eq!(
        kept[0].as_str(),
        "journal/0000/00000000000000000001",
        "the claim stays"
    );
    // Two chunks each, of which the first may be shared; a write may have been cut short.
    assert!(world.keys("chunks/").await.len() <= 8);
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|sum| sum.sum), (0..200).sum::<u64>());
}

#[tokio::test]
async fn a_snapshot_that_cannot_be_restored_is_removed_with_its_chunks() {
    let mut world = World::new();
    world.settings.snapshot.entries = 10;
    let state = Sum {
        writes_wrongly: true,
        ..Sum::default()
    };
    let engine = Box::new(Object::new(world.bucket(), 0));
    let (handle, _replica) = start(world.parts(engine), state);
    role(&handle, Role::Leader).await;
    for prefix in ["snapshots/", "chunks/"] {
        let mut seen: Vec<Key> = Vec::new();
        let one_goes = async {
            loop {
                add(&handle, 3).await.expect("added");
                let there = world.keys(prefix).await;
                if seen.iter().any(|key| !there.contains(key)) {
                    break;
                }
                seen = there;
            }
        };
        let gone = clock::timeout(Duration::from_secs(60), one_goes).await;
        assert!(gone.is_ok(), "nothing below {prefix} is removed");
    }
}

#[tokio::test]
async fn a_damaged_chunk_is_not_named_again() {
    let mut world = World::new();
    world.settings.snapshot.entries = 10;
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    add(&handle, 7).await.expect("added");
    // The sum stays as it is, so that each snapshot shares its chunk with the one before.
    let until = async |is_there: &dyn Fn(Vec<Key>) -> bool| {
        while !is_there(world.keys("chunks/").await) {
            add(&handle, 0).await.expect("added");
        }
    };
    until(&|chunks| chunks.len() > 2).await;
    let damaged = world.keys("chunks/").await;
    for key in &damaged {
        world.damage(key, false).await;
    }
    let is_gone = |chunks: Vec<Key>| chunks.iter().all(|key| !damaged.contains(key));
    let gone = clock::timeout(Duration::from_secs(60), until(&is_gone)).await;
    assert!(gone.is_ok(), "one of {damaged:?} is kept");
}

/// A world with two snapshots and a trimmed journal, and its sum.
async fn trimmed() -> (World, u64) {
    let mut world = World::new();
    world.settings.snapshot.entries = 10;
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    while world.keys("journal/0000-floor/").await.len() < 3 {
        add(&handle, 1).await.expect("added");
    }
    // Whatever is being written comes to its end before the next one is cut.
    world.settings.snapshot.entries = u64::MAX;
    let sum = handle.with_state(|sum| sum.sum);
    // Those before the last two go with the next snapshot, if they have not gone yet. Each would be read several times if damaged.
    let snapshots = world.keys("snapshots/").await;
    for older in snapshots.iter().rev().skip(2) {
        world.bucket.delete(older).await.expect("deleted");
    }
    (world, sum)
}

#[tokio::test]
async fn a_damaged_snapshot_gives_way_to_the_one_before() {
    for remove in [false, true] {
        let (world, sum) = trimmed().await;
        let snapshots = world.keys("snapshots/").await;
        let newest = snapshots.last().expect("a snapshot");
        world.damage(newest, remove).await;
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        assert_eq!(handle.with_state(|sum| sum.sum), sum);
    }
}

#[tokio::test]
async fn without_snapshots_a_trimmed_journal_is_refused() {
    let (world, _) = trimmed().await;
    for key in world.keys("snapshots/").await {
        world.damage(&key, false).await;
    }
    let (handle, _replica) = world.start();
    role(&handle, Role::Halted).await;
    let why = handle.status().halted.expect("a reason");
    assert!(
        why.contains("snapshots/") && why.contains("restore"),
        "{why}"
    );
    assert!(matches!(
        add(&handle, 1).await,
        Err(ProposeError::Definite(Refusal::Halted(_)))
    ));
}

#[tokio::test]
async fn a_release_that_is_older_than_all_snapshots_says_so_and_stays_up() {
    let (world, _) = trimmed().await;
    let state = Sum {
        is_old: true,
        ..Sum::default()
    };
    let engine = Box::new(Object::new(world.bucket(), 0));
    let (handle, _replica) = start(world.parts(engine), state);
    let why = stuck(&handle).await;
    assert!(
        why.contains("feature level 2") && why.contains("Run a newer version"),
        "{why}"
    );
    assert_eq!(handle.status().halted, None);
    let refused = add(&handle, 1).await;
    assert!(
        matches!(refused, Err(ProposeError::Definite(_))),
        "{refused:?}"
    );
}

#[tokio::test]
async fn a_journal_older_than_its_snapshots_is_refused() {
    let (world, _) = trimmed().await;
    for key in world.keys("journal/0000/").await {
        world.bucket.delete(&key).await.expect("deleted");
    }
    for key in world.keys("journal/0000-floor/").await {
        world.bucket.delete(&key).await.expect("deleted");
    }
    let (handle, _replica) = world.start();
    role(&handle, Role::Halted).await;
    let why = handle.status().halted.expect("a reason");
    assert!(why.contains("older than its snapshots"), "{why}");
}

/// A snapshot whose chunks are whole and which restores to another state than it says.
#[tokio::test]
async fn a_snapshot_that_restores_to_another_state_is_not_used() {
    let (world, sum) = trimmed().await;
    let bucket = world.bucket();
    let archive = crate::snapshot::archive::Archive::new(Arc::clone(&bucket));
    let newest = archive.list(0).await.expect("a listing")[0].clone();
    let read = archive.read(&newest).await.expect("read");
    let crate::snapshot::archive::Read::Whole(mut manifest, _) = read else {
        panic!("{read:?}");
    };
    manifest.seal.digest[9] ^= 1;
    bucket.delete(&newest.key).await.expect("deleted");
    let put = bucket.put_new(&newest.key, Payload::from(manifest.encode()));
    put.await.expect("put");
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|sum| sum.sum), sum, "from the one before");
}

/// A sum that is restored only once somebody has read the one in use.
struct Patient {
    sum: Sum,
    read: Arc<AtomicBool>,
    patient: bool,
}

impl StateMachine for Patient {
    type Reply = u64;

    fn apply(
        &mut self,
        entry: EntryId,
        stamp: Stamp,
        cluster: ClusterNumber,
        bytes: &[u8],
    ) -> Result<u64, Poison> {
        self.sum.apply(entry, stamp, cluster, bytes)
    }

    fn left_out(&mut self, _: EntryId, _: Stamp) {}

    fn kind(command: &[u8]) -> String {
        Sum::kind(command)
    }

    fn lost_with(&self, cluster: ClusterNumber, command: &[u8]) -> Option<Vec<String>> {
        self.sum.lost_with(cluster, command)
    }

    fn capture(&self) -> Box<dyn Capture> {
        self.sum.capture()
    }

    fn genesis(&self) -> Self {
        Patient {
            sum: Sum::default(),
            read: Arc::clone(&self.read),
            patient: true,
        }
    }

    fn restore(&mut self, chunks: Vec<Bytes>) -> Result<(), Unreadable> {
        let since = clock::now();
        while self.patient && !self.read.load(Ordering::Acquire) {
            if clock::now().since(since) > Duration::from_secs(20) {
                return Err(Unreadable::Damaged("nobody can read meanwhile".to_owned()));
            }
            std::thread::yield_now();
        }
        self.sum.restore(chunks)
    }

    fn seal(&self) -> Seal {
        self.sum.seal()
    }
}

#[tokio::test]
async fn readers_go_on_while_a_snapshot_is_restored() {
    let (world, sum) = trimmed().await;
    let read = Arc::new(AtomicBool::new(false));
    let parts = Parts {
        engine: Box::new(Object::new(world.bucket(), 0)),
        bucket: world.bucket(),
        others: Arc::new(Alone),
        settings: world.settings.clone(),
    };
    let machine = Patient {
        sum: Sum::default(),
        read: Arc::clone(&read),
        patient: false,
    };
    let (handle, _replica) = start(parts, machine);
    let loads = || world.bucket.faults().calls(Op::Get);
    while loads() < 3 {
        clock::sleep(Duration::from_millis(1)).await;
    }
    // It is being restored, or soon will be, and waits for this.
    assert_eq!(handle.with_state(|machine| machine.sum.sum), 0);
    read.store(true, Ordering::Release);
    while !handle.is_leader() {
        assert_eq!(handle.status().halted, None);
        clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(handle.with_state(|machine| machine.sum.sum), sum);
}
