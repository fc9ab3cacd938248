//! Entries that cannot be applied, as the users of replicas and an operator see them.

use super::*;
use crate::entry::{Body, Entry};
use crate::node::Takeover;
use crate::snapshot::Cut;
use crate::snapshot::archive::{Archive, Read};
use crate::snapshot::manifest::{Chunk, Manifest};

/// The word for an entry, from what is told of it.
fn word(why: &str) -> String {
    let (_, word) = why.split_once("journal.quarantine=").expect(why);
    word.to_owned()
}

impl World {
    /// Another node on the same bucket, that follows.
    fn other(&self, name: &str) -> World {
        let mut settings = self.settings.clone();
        settings.name = name.to_owned();
        settings.takeover = Takeover::AfterSilence;
        World {
            bucket: Arc::clone(&self.bucket),
            settings,
        }
    }

    /// A node of a build that can apply "ten".
    fn start_newer(&self) -> (Handle<Sum>, Replica) {
        let engine = Box::new(Object::new(self.bucket(), 0));
        let state = Sum {
            knows_ten: true,
            ..Sum::default()
        };
        start(self.parts(engine), state)
    }

    fn told(mut self, word: &str) -> World {
        self.settings.quarantine = Some(word.parse().expect("a word"));
        self
    }

    async fn appended(&self) -> usize {
        self.keys("journal/0000/").await.len()
    }

    /// How many entries of the journal have commands.
    async fn commands(&self) -> usize {
        let mut commands = 0;
        for key in self.keys("journal/0000/").await {
            let slot = self.bucket.get(&key).await.expect("read").expect("there");
            let entry = Entry::decode(&slot).map(|entry| entry.body);
            commands += usize::from(matches!(entry, Ok(Body::Commands(_))));
        }
        commands
    }

    /// Names a snapshot of the state in which "ten" is the fourth command.
    async fn write_late(&self, cut: Cut) {
        let parts = [b"4".as_slice(), b"16"];
        let parts = parts.map(|bytes| (Chunk::of(bytes), Some(Bytes::from_static(bytes))));
        let describe = |chunks| Manifest {
            cut: cut.clone(),
            seal: seal_of(16),
            mark: Bytes::new(),
            chunks,
        };
        let archive = Archive::new(self.bucket());
        let written = archive.write(cut.claim.index, parts.to_vec(), describe);
        written.await.expect("written");
    }

    /// Whether the newest snapshot says that an entry in this slot is left out.
    async fn newest_snapshot_leaves_out(&self, slot: u64) -> bool {
        let archive = Archive::new(self.bucket());
        let newest = archive.list(0).await.expect("a listing")[0].clone();
        match archive.read(&newest).await.expect("read") {
            Read::Whole(manifest, _) => {
                let mut quarantined = manifest.cut.quarantined.iter();
                quarantined.any(|one| one.slot == slot)
            }
            Read::Unusable(why) => panic!("{why}"),
        }
    }
}

/// Proposes a command that cannot be applied, in a world where nothing else has happened.
async fn poisoned(world: &World, poison: &'static str) -> String {
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    add_all(&handle, 1..4).await;
    let asked = handle
        .propose(CLUSTER, Bytes::from_static(poison.as_bytes()))
        .await;
    assert!(matches!(asked, Err(ProposeError::Unknown(_))), "{asked:?}");
    assert!(handle.is_void());
    stuck(&handle).await
}

#[tokio::test]
async fn an_entry_that_cannot_be_applied_is_left_out_on_an_operators_word() {
    let world = World::new();
    let why = poisoned(&world, "poison").await;
    for said in [
        "entry 5 ",
        "of cluster 1",
        "of 6 bytes",
        "ms since 1970",
        "\"poison\"",
    ] {
        assert!(why.contains(said), "{why}");
    }
    let (handle, replica) = world.start();
    assert_eq!(stuck(&handle).await, why, "the same at each start");
    assert_eq!(
        handle.with_state(|state| state.sum),
        6,
        "everything before it"
    );
    assert_eq!(handle.applied(), Position(4));
    let definite = matches!(add(&handle, 1).await, Err(ProposeError::Definite(_)));
    assert!(
        definite && handle.leading_until().is_none(),
        "it serves nothing"
    );
    drop(replica);

    let told = world.told(&word(&why));
    let (handle, replica) = told.start();
    role(&handle, Role::Leader).await;
    assert_eq!(add(&handle, 4).await, Ok(10), "all but that entry");
    assert_eq!(handle.with_state(|state| state.left_out), 1);
    assert!(!handle.is_void());
    drop(replica);

    // The word that is left in place does nothing any more.
    let before = told.commands().await;
    let (handle, replica) = told.start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|state| state.sum), 10);
    assert_eq!(told.commands().await, before);
    drop(replica);
}

#[tokio::test]
async fn a_panic_in_apply_names_the_entry_and_is_left_out_like_any_other() {
    let world = World::new();
    let why = poisoned(&world, "panic").await;
    for said in ["entry 5 ", "command 0", "panicked", "at this command"] {
        assert!(why.contains(said), "{why}");
    }
    let (handle, _replica) = world.told(&word(&why)).start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|state| state.sum), 6);
}

#[tokio::test]
async fn a_word_for_another_entry_leaves_nothing_out() {
    let world = World::new();
    let why = poisoned(&world, "poison").await;
    let right = word(&why);
    let before = world.appended().await;
    let (slot, digest) = right.split_once('-').expect("a word");
    let other_slot = format!("4-{digest}");
    let other_digest = format!("{slot}-0123456789abcdef");
    for wrong in [other_slot, other_digest] {
        let world = world.other("c1").told(&wrong);
        let (handle, _replica) = world.start();
        let told = stuck(&handle).await;
        assert!(told.contains(&format!("started with {wrong}")), "{told}");
        assert!(
            told.contains(&format!("journal.quarantine={right}")),
            "{told}"
        );
        clock::sleep(Duration::from_millis(100)).await;
        assert_eq!(world.appended().await, before, "not even a claim");
    }
}

#[tokio::test]
async fn a_word_for_an_entry_that_can_be_applied_leaves_nothing_out() {
    let world = World::new();
    {
        let (handle, _replica) = world.start();
        role(&handle, Role::Leader).await;
        add_all(&handle, 1..4).await;
    }
    let key = Key::new("journal/0000/00000000000000000003").expect("a key");
    let slot = world.bucket.get(&key).await.expect("read").expect("there");
    let digest = crate::quarantine::digest(&slot);
    let word = crate::quarantine::Word::of(3, &digest).to_string();
    let (handle, _replica) = world.told(&word).start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|state| state.sum), 6);
    assert_eq!(add(&handle, 4).await, Ok(10), "it serves all the same");
}

/// Others who say this.
struct Saying(Vec<Said>);

#[async_trait::async_trait]
impl Others for Saying {
    async fn applied(&self, slot: u64) -> Result<Vec<Said>, String> {
        assert_eq!(slot, 5, "the entry that cannot be applied");
        Ok(self.0.clone())
    }
}

#[tokio::test]
async fn what_another_node_has_applied_is_left_out_only_if_that_is_forced() {
    let world = World::new();
    let why = poisoned(&world, "poison").await;
    let word = word(&why);
    let start_among = |world: &World, applied| {
        let said = Said {
            name: "c9".to_owned(),
            version: Some("0.9.1".to_owned()),
            applied: Some(applied),
        };
        let parts = Parts {
            others: Arc::new(Saying(vec![said])),
            ..world.parts(Box::new(Object::new(world.bucket(), 0)))
        };
        start(parts, Sum::default())
    };
    let told = world.told(&word);
    let before = told.appended().await;
    let (handle, replica) = start_among(&told, 5);
    let refused = async {
        loop {
            let why = stuck(&handle).await;
            if why.contains("c9") {
                return why;
            }
            clock::sleep(Duration::from_millis(1)).await;
        }
    };
    let refused = clock::timeout(Duration::from_secs(20), refused).await;
    let why = refused.expect("it is refused");
    assert!(
        why.contains("c9, of version 0.9.1, has applied it"),
        "{why}"
    );
    assert_eq!(told.appended().await, before, "not even a claim");
    drop((handle, replica));

    let forced = self::word(&why);
    assert_eq!(forced, format!("{word}-forced"));
    let told = told.told(&forced);
    let (handle, _replica) = start_among(&told, 5);
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|state| state.sum), 6);
}

/// A leader whose build can apply "ten" has applied it as the last thing it did; a follower cannot.
async fn applied_by_one() -> (World, (Handle<Sum>, Replica), (World, Handle<Sum>, Replica)) {
    let world = World::new();
    let (newer, newer_replica) = world.start_newer();
    role(&newer, Role::Leader).await;
    add_all(&newer, 1..4).await;
    let other = world.other("c2");
    let (older, older_replica) = other.start();
    assert_eq!(
        newer.propose(CLUSTER, Bytes::from_static(b"ten")).await,
        Ok(16)
    );
    stuck(&older).await;
    (world, (newer, newer_replica), (other, older, older_replica))
}

#[tokio::test]
async fn who_has_applied_it_already_builds_its_state_without_it() {
    let (_world, (newer, _newer_replica), (other, older, older_replica)) = applied_by_one().await;
    let why = stuck(&older).await;
    drop((older, older_replica));
    let (older, _older_replica) = other.told(&word(&why)).start();
    // Somebody has to want a leader, whoever it is.
    while add(&older, 4).await.is_err() && add(&newer, 4).await.is_err() {
        clock::sleep(Duration::from_millis(1)).await;
    }
    for handle in [&older, &newer] {
        while handle.with_state(|state| state.sum) != 10 {
            clock::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn a_node_that_is_stuck_goes_on_once_another_has_it_left_out() {
    let world = World::new();
    let why = poisoned(&world, "poison").await;
    let waiting = world.other("c2");
    let (follower, _follower_replica) = waiting.start();
    stuck(&follower).await;
    let (leader, _replica) = world.told(&word(&why)).start();
    role(&leader, Role::Leader).await;
    add_all(&leader, 4..5).await;
    role(&follower, Role::Follower).await;
    while follower.with_state(|state| state.sum) != 10 {
        clock::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(follower.status().stuck, None);
}

#[tokio::test]
async fn an_entry_beyond_which_others_have_led_is_not_left_out() {
    let (world, (newer, newer_replica), (other, older, older_replica)) = applied_by_one().await;
    let why = stuck(&older).await;
    drop((older, older_replica));
    for number in 0..20 {
        newer
            .propose(CLUSTER, Bytes::from(number.to_string()))
            .await
            .expect("added");
    }
    let sum = newer.with_state(|state| state.sum);
    drop((newer, newer_replica));
    let before = world.appended().await;
    let (older, _older_replica) = other.told(&word(&why)).start();
    let told = stuck(&older).await;
    assert!(told.contains("c1 has applied it and led on"), "{told}");
    clock::sleep(Duration::from_millis(200)).await;
    assert_eq!(world.appended().await, before, "not even a claim");
    let (newer, _newer_replica) = world.start_newer();
    role(&newer, Role::Leader).await;
    assert_eq!(newer.with_state(|state| state.sum), sum);
}

#[tokio::test]
async fn a_node_that_cannot_apply_an_entry_goes_on_from_a_snapshot_that_holds_it() {
    let world = World::new();
    poisoned(&world, "ten").await;
    let cut = cut_at(&world, 5).await;
    let (handle, _replica) = world.start();
    stuck(&handle).await;
    world.write_late(cut).await;
    let (handle, _replica) = world.start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|state| state.sum), 16);
}

#[tokio::test]
async fn snapshots_say_what_they_leave_out_and_those_that_hold_it_are_not_loaded() {
    let mut world = World::new();
    world.settings.snapshot.entries = 1_000;
    let why = poisoned(&world, "ten").await;
    let cut = cut_at(&world, 5).await;
    let told = world.told(&word(&why));
    {
        let (handle, _replica) = told.start();
        role(&handle, Role::Leader).await;
        assert_eq!(add(&handle, 4).await, Ok(10));
    }
    // A node that could apply it has cut a snapshot there, which comes to be there only now.
    told.write_late(cut).await;
    let mut told = told;
    told.settings.snapshot.entries = 3;
    let (handle, _replica) = told.start();
    role(&handle, Role::Leader).await;
    assert_eq!(handle.with_state(|state| state.sum), 10);
    while !told.newest_snapshot_leaves_out(5).await {
        add(&handle, 0).await.expect("added");
    }
}

/// The cut of a snapshot at entry `index`.
async fn cut_at(world: &World, index: u64) -> Cut {
    let key = Key::new(format!("journal/0000/{index:020}")).expect("a key");
    let slot = world.bucket.get(&key).await.expect("read").expect("there");
    let entry = Entry::decode(&slot).expect("an entry");
    assert!(matches!(entry.body, Body::Commands(_)));
    Cut {
        shard: 0,
        last: entry.header.id,
        claim: entry.header.claim,
        claimant: "c1".to_owned(),
        stamp: entry.header.stamp,
        trimmed_below: 1,
        spared: vec![1],
        bodies: Vec::new(),
        quarantined: Vec::new(),
    }
}

#[tokio::test]
async fn a_node_that_halts_beyond_an_entry_that_it_cannot_apply_says_why() {
    let mut world = World::new();
    world.settings.slot_bytes_max = 300;
    {
        let (newer, _replica) = world.start_newer();
        role(&newer, Role::Leader).await;
        let ten = newer.propose(CLUSTER, Bytes::from_static(b"ten")).await;
        assert_eq!(ten, Ok(10));
        assert_eq!(newer.propose(CLUSTER, padded(5, 2_000)).await, Ok(15));
    }
    let body = world.keys("bodies/").await.remove(0);
    world.damage(&body, true).await;
    let (older, _replica) = world.start();
    role(&older, Role::Halted).await;
    let why = older.status().halted.expect("a reason");
    assert!(
        why.contains(body.as_str()) && why.contains("is missing"),
        "{why}"
    );
    assert!(older.is_void(), "it holds a part of an entry");
}
