//! An agent over three buckets, of which one may be away or have lost what it held.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use agent::{Agent, Settings};
use host::task::Task;
use meta::Command;
use meta::command::{Bucket as Placed, Placement};
use meta::reply::Reply;
use rpc::Control;
use store::bucket::{Bucket, Key};
use store::buckets::{Buckets, Member, Standing};
use store::layout::FILES;
use store::memory::Memory;

use crate::client::{Client, batch, values_of};
use crate::control::{Fake, configs};
use crate::stand::{listener, settings};

const GRACE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(30);

/// Three buckets, a control plane that knows them, and an agent.
struct Stand {
    control: Arc<Fake>,
    memories: [Arc<Memory>; 3],
    is_away: [Arc<AtomicBool>; 3],
    agent: Agent,
    _looking: Task<()>,
}

fn eager() -> Settings {
    Settings {
        collect_interval: Duration::from_millis(20),
        collect_list_interval: Duration::from_secs(3_600),
        file_delete_grace: GRACE,
        ..settings()
    }
}

impl Stand {
    async fn new(settings: Settings) -> Self {
        let control = Fake::new();
        control.configure("file.delete.grace.ms", &GRACE.as_millis().to_string());
        let placed = |domain| {
            let generation = 1;
            (domain, Placed { domain, generation })
        };
        let placement = Placement {
            number: 1,
            copies: 2,
            buckets: [placed(0), placed(1), placed(2)].into(),
        };
        assert_eq!(control.lead(&Command::SetPlacement(placement)), Reply::Done);
        let memories = std::array::from_fn(|_| Arc::new(Memory::new()));
        Stand::over(settings, control, memories).await
    }

    async fn over(settings: Settings, control: Arc<Fake>, memories: [Arc<Memory>; 3]) -> Self {
        let member = |(number, memory): (u32, &Arc<Memory>)| Member {
            number,
            name: number.to_string(),
            bucket: Arc::<Memory>::clone(memory),
            counters: Arc::default(),
        };
        let members = (0..).zip(&memories).map(member).collect();
        let buckets = Arc::new(Buckets::new(members, 2).unwrap());
        let is_away: [Arc<AtomicBool>; 3] = std::array::from_fn(|_| Arc::default());
        let looking = look(Arc::clone(&buckets), is_away.clone());
        let local: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let socket = host::net::listen(local).await.unwrap();
        let bound = vec![(listener(meta::endpoint::PLAINTEXT), socket)];
        let as_control: Arc<dyn Control> = control.clone();
        let agent = Agent::start(settings, bound, buckets, as_control, None)
            .await
            .unwrap();
        Stand {
            control,
            memories,
            is_away,
            agent,
            _looking: looking,
        }
    }

    async fn client(&self) -> Client {
        Client::connect(self.agent.addresses()[0]).await
    }

    async fn files(&self, bucket: usize) -> Vec<Key> {
        let listed = self.memories[bucket].list(FILES, None, 100).await.unwrap();
        listed.into_iter().map(|object| object.key).collect()
    }

    async fn until(&self, what: &str, mut is_so: impl AsyncFnMut(&Self) -> bool) {
        let begun = host::clock::now();
        while !is_so(self).await {
            let waited = host::clock::now().since(begun);
            assert!(
                waited < PATIENCE,
                "{what}: {}",
                self.agent.probe().metrics()
            );
            self.control.housekeep();
            host::clock::sleep(Duration::from_millis(10)).await;
        }
    }

    fn mark(&self, bucket: u32, is_away: bool) {
        let mark = Command::MarkBucket { bucket, is_away };
        assert_eq!(self.control.lead(&mark), Reply::Done);
    }
}

/// Looks at each bucket, unless it is away.
fn look(buckets: Arc<Buckets>, is_away: [Arc<AtomicBool>; 3]) -> Task<()> {
    let look = move || {
        for (number, is_away) in (0..).zip(&is_away) {
            let standing = match is_away.load(Relaxed) {
                true => Standing::Unproven,
                false => Standing::Proven,
            };
            buckets.looked(number, host::clock::now(), standing);
        }
    };
    look();
    host::task::spawn("looks", async move {
        loop {
            host::clock::sleep(Duration::from_millis(10)).await;
            look();
        }
    })
}

#[tokio::test]
async fn a_file_is_read_from_the_only_bucket_that_has_it_whatever_the_others_say() {
    for only in 0..3 {
        let stand = Stand::new(settings()).await;
        stand.control.create_topic("t", 1, configs(&[])).await;
        let mut client = stand.client().await;
        client.produce("t", 0, batch(&["kept"])).await;
        stand
            .until("all copies", async |stand| {
                stand.files(0).await.len() + stand.files(1).await.len() + stand.files(2).await.len()
                    == 3
            })
            .await;
        let (control, memories) = (stand.control.clone(), stand.memories.clone());
        stand.agent.stop().await;
        for other in (0..3).filter(|other| *other != only) {
            let listed = memories[other].list(FILES, None, 100).await.unwrap();
            memories[other].delete(&listed[0].key).await.unwrap();
        }
        let fresh = Stand::over(settings(), control, memories).await;
        let read = fresh.client().await.fetch("t", 0, 0).await;
        assert_eq!(values_of(&read), [(0, "kept".to_owned())], "only {only}");
    }
}

#[tokio::test]
async fn a_bucket_that_is_away_keeps_no_other_from_deleting_and_is_rid_of_the_rest_once_it_is_back()
{
    let stand = Stand::new(eager()).await;
    stand.control.create_topic("t", 1, configs(&[])).await;
    let mut client = stand.client().await;
    for text in ["a", "b", "c"] {
        client.produce("t", 0, batch(&[text])).await;
    }
    stand
        .until("all copies", async |stand| stand.files(2).await.len() == 3)
        .await;
    stand.is_away[2].store(true, Relaxed);
    host::clock::sleep(Duration::from_millis(50)).await;
    let id = stand.control.find("t").id;
    let delete = Command::DeleteTopic { id };
    stand.control.client().change(delete).await.unwrap();
    stand
        .until("the others are rid of them", async |stand| {
            stand.files(0).await.is_empty() && stand.files(1).await.is_empty()
        })
        .await;
    assert_eq!(stand.control.files(), 3, "the third has not deleted them");
    stand.mark(2, true);
    stand
        .until("they are forgotten", async |stand| {
            stand.control.files() == 0
        })
        .await;
    assert_eq!(stand.files(2).await.len(), 3);
    stand.is_away[2].store(false, Relaxed);
    stand.mark(2, false);
    stand
        .until("the third is rid of them", async |stand| {
            stand.files(2).await.is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_copy_that_comes_late_is_told() {
    let stand = Stand::new(settings()).await;
    stand.control.create_topic("t", 1, configs(&[])).await;
    let mut client = stand.client().await;
    client.produce("t", 0, batch(&["a"])).await;
    stand
        .until("nothing is short", async |stand| stand.control.short() == 0)
        .await;
}
