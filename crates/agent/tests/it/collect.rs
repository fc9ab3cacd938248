//! What the collector deletes, and what it never does, on a bucket that fails.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agent::Settings;
use async_trait::async_trait;
use bytes::Bytes;
use meta::Command;
use meta::ids::{FileId, Incarnation};
use meta::places::{Fate, FileRef};
use store::bucket::{Bucket, Error, Key, ObjectMeta, Op, Payload, Put};
use store::faulty::{Fault, FaultRule, Faulty};
use store::layout::{FILES, file_key, parse_file_key};
use store::memory::Memory;

use crate::client::{batch, values_of};
use crate::control::Fake;
use crate::stand::{Stand, settings};

/// The longest that a test waits for the collector.
const PATIENCE: Duration = Duration::from_secs(60);
const GRACE: Duration = Duration::from_millis(50);

/// A bucket that checks, at every deletion of a file, what the control plane says of it.
struct Witness {
    inner: Memory,
    control: Arc<Fake>,
    deleted: Mutex<Vec<(Key, Fate)>>,
}

#[async_trait]
impl Bucket for Witness {
    async fn put_new(&self, key: &Key, body: Payload) -> Result<Put, Error> {
        self.inner.put_new(key, body).await
    }

    async fn get(&self, key: &Key) -> Result<Option<Bytes>, Error> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Option<Bytes>, Error> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<Option<u64>, Error> {
        self.inner.head(key).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<ObjectMeta>, Error> {
        self.inner.list(prefix, start_after, limit).await
    }

    async fn delete(&self, key: &Key) -> Result<(), Error> {
        let file = file_of(key).expect("only files are deleted");
        let fate = self.control.client().fates(vec![file]).await.unwrap()[0];
        self.deleted.lock().unwrap().push((key.clone(), fate));
        self.inner.delete(key).await
    }
}

fn file_of(key: &Key) -> Option<FileRef> {
    let (id, nonce) = parse_file_key(key)?;
    let file = FileId {
        incarnation: Incarnation(id.incarnation),
        number: id.number,
    };
    Some(FileRef { file, nonce })
}

struct Scene {
    stand: Stand,
    witness: Arc<Witness>,
}

fn eager() -> Settings {
    Settings {
        collect_interval: Duration::from_millis(10),
        collect_list_interval: GRACE / 2,
        file_delete_grace: GRACE,
        version: "0.1.0".to_owned(),
        tells_presence: false,
        ..settings()
    }
}

impl Scene {
    /// An agent whose collector runs almost all the time.
    async fn new() -> Self {
        let control = Fake::new();
        control.configure("file.delete.grace.ms", &GRACE.as_millis().to_string());
        let witness = Arc::new(Witness {
            inner: Memory::new(),
            control: Arc::clone(&control),
            deleted: Mutex::default(),
        });
        let as_bucket: Arc<dyn Bucket> = witness.clone();
        let bucket = Arc::new(Faulty::new(as_bucket, 1));
        let stand = Stand::over(eager(), control, bucket).await;
        stand.topic("kept", 1, &[]).await;
        stand.topic("gone", 1, &[]).await;
        let mut client = stand.client().await;
        for text in ["a", "b", "c"] {
            // Two requests, so that each has a file of its own.
            client.produce("kept", 0, batch(&[text])).await;
            client.produce("gone", 0, batch(&[text])).await;
        }
        Scene { stand, witness }
    }

    async fn files(&self) -> BTreeSet<Key> {
        let listed = self.witness.list(FILES, None, 100).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    /// Deletes the topic "gone"; yields the files of which nothing can be read any more.
    async fn expire(&self) -> Vec<FileRef> {
        let control = &self.stand.control;
        let all: Vec<FileRef> = self.files().await.iter().filter_map(file_of).collect();
        let id = control.find("gone").id;
        let deleted = control.client().change(Command::DeleteTopic { id }).await;
        deleted.unwrap();
        control.housekeep();
        let fates = control.client().fates(all.clone()).await.unwrap();
        let expired = all.into_iter().zip(fates);
        let expired = expired.filter(|(_, fate)| *fate != Fate::Live);
        let expired: Vec<FileRef> = expired.map(|(file, _)| file).collect();
        assert_eq!(expired.len(), 3);
        expired
    }

    /// Waits until the control plane has forgotten some files.
    async fn until_forgotten(&self, files: &[FileRef]) {
        let forgotten = async || {
            !files
                .iter()
                .any(|file| self.stand.control.remembers(file.file))
        };
        self.until("they are forgotten", forgotten).await;
    }

    /// Lets the control plane's time pass until `done`.
    async fn until(&self, what: &str, mut done: impl AsyncFnMut() -> bool) {
        let start = host::clock::now();
        while !done().await {
            assert!(
                host::clock::now().since(start) < PATIENCE,
                "waited in vain: {what}; deleted {:?}; {}",
                self.witness.deleted.lock().unwrap(),
                self.stand.agent.probe().metrics()
            );
            self.stand.control.housekeep();
            host::clock::sleep(Duration::from_millis(5)).await;
        }
    }

    fn counted(&self, line: &str) -> bool {
        let metrics = self.stand.agent.probe().metrics();
        metrics.lines().any(|found| found == line)
    }

    /// Checks that an agent with an empty cache can read the kept records, and that no live file
    /// was deleted.
    async fn check(self) {
        for (key, fate) in self.witness.deleted.lock().unwrap().iter() {
            let over = matches!(fate, Fate::Tombstoned | Fate::Dead);
            assert!(over, "{key} was deleted while {fate:?}");
        }
        let (control, bucket) = (self.stand.control.clone(), self.stand.bucket.clone());
        bucket.faults().clear();
        self.stand.agent.stop().await;
        let fresh = Stand::over(settings(), control, bucket).await;
        let read = fresh.client().await.fetch("kept", 0, 0).await;
        let expected = [(0, "a"), (1, "b"), (2, "c")].map(|(at, text)| (at, text.to_owned()));
        assert_eq!(values_of(&read), expected);
    }
}

#[tokio::test]
async fn expired_files_go_whatever_the_bucket_answers_and_live_ones_stay() {
    for fault in [
        Fault::Definite,
        Fault::Unknown,
        Fault::Throttled,
        Fault::LoseReply,
        Fault::Hold,
    ] {
        let scene = Scene::new().await;
        let faults = Arc::clone(scene.stand.bucket.faults());
        faults.add(FaultRule::on(Op::Delete, fault).times(4));
        let expired = scene.expire().await;
        scene.until_forgotten(&expired).await;
        if fault != Fault::Hold {
            assert_eq!(scene.files().await.len(), 3, "{fault:?}");
        }
        assert_eq!(faults.injected(), 4, "{fault:?}");
        // Held writes come late, for names that nobody uses again.
        scene.stand.bucket.apply_held().await;
        scene.check().await;
    }
}

#[tokio::test]
async fn a_file_that_is_gone_already_is_as_good_as_deleted() {
    let scene = Scene::new().await;
    let expired = scene.expire().await;
    // Somebody else deletes the files first: another agent, or this one, whose answer was lost.
    for key in scene.files().await {
        if expired.contains(&file_of(&key).unwrap()) {
            scene.witness.inner.delete(&key).await.unwrap();
        }
    }
    scene.until_forgotten(&expired).await;
    scene
        .until("they are counted", async || {
            scene.counted("seaway_agent_files_deleted_total 3")
        })
        .await;
    assert!(scene.counted("seaway_agent_collect_errors_total 0"));
    scene.check().await;
}

#[tokio::test]
async fn two_collectors_of_one_bucket_do_no_harm() {
    let scene = Scene::new().await;
    let second = Settings {
        name: "agent-2".to_owned(),
        ..eager()
    };
    let (control, bucket) = (scene.stand.control.clone(), scene.stand.bucket.clone());
    let faults = Arc::clone(bucket.faults());
    faults.add(FaultRule::on(Op::Delete, Fault::LoseReply).one_in(2));
    faults.add(FaultRule::on(Op::Delete, Fault::Throttled).one_in(3));
    let other = Stand::over(second, control, bucket).await;
    let expired = scene.expire().await;
    scene.until_forgotten(&expired).await;
    assert_eq!(scene.files().await.len(), 3);
    other.agent.stop().await;
    scene.check().await;
}

#[tokio::test]
async fn what_can_never_be_committed_goes_and_what_still_may_be_stays() {
    let scene = Scene::new().await;
    let run = scene.files().await.iter().filter_map(file_of).max();
    let FileId {
        incarnation,
        number,
    } = run.unwrap().file;
    let stored = |incarnation: Incarnation, number| store::layout::FileId {
        shard: 0,
        incarnation: incarnation.0,
        number,
    };
    // The collector leaves files that this run may yet commit, and objects that are no files of
    // ours. A second object with a committed number is deleted, since only one of them is ever
    // committed.
    let second = file_key(stored(incarnation, number), 7);
    let undecided = file_key(stored(incarnation, number + 1_000), 7);
    let dead = file_key(stored(Incarnation(0), 5), 7);
    let stranger = Key::new(format!("{FILES}00/readme")).unwrap();
    for key in [&undecided, &dead, &second, &stranger] {
        let body = Payload::from(Bytes::from_static(b"x"));
        scene.witness.inner.put_new(key, body).await.unwrap();
    }
    let faults = Arc::clone(scene.stand.bucket.faults());
    // A listing that fails or is empty says nothing about any file.
    faults.add(FaultRule::on(Op::List, Fault::Throttled).times(1));
    faults.add(FaultRule::on(Op::List, Fault::Missing).times(1));
    faults.add(FaultRule::on(Op::List, Fault::Unknown).times(1));
    faults.add(FaultRule::on(Op::Delete, Fault::Definite).times(2));
    scene
        .until("the orphans go", async || {
            let files = scene.files().await;
            !files.contains(&dead) && !files.contains(&second)
        })
        .await;
    assert_eq!(faults.injected(), 5);
    let before = faults.calls(Op::List);
    scene
        .until("it is looked again", async || {
            faults.calls(Op::List) > before + 3
        })
        .await;
    let files = scene.files().await;
    assert!(files.contains(&undecided) && files.contains(&stranger));
    assert_eq!(files.len(), 6 + 2);
    assert!(scene.counted("seaway_agent_orphans_deleted_total 2"));
    scene.check().await;
}
