//! Whose three buckets they are. Each has a marker, which names the generations of all three, so that two of them say what the
//! third has to be. A new cluster's markers are made when all three are empty; one that is missing later is made only as long as
//! the journal has certainly not begun, and else the bucket has lost what it held and counts for nothing. It must not know who
//! asks, nor where the buckets lie.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use host::clock;
use store::bucket::Bucket;
use store::buckets::Standing;
use store::marker::{self, Marker};

use super::BUCKETS;
use super::configuration::Configuration;
use super::engine::prepare;
use super::name;
use super::record::Place;

/// How long one look at a bucket may take.
const LOOK_FOR: Duration = Duration::from_secs(5);
/// The number of a cluster's first configuration.
const FIRST: u32 = 1;

/// Three buckets of one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    pub configuration: Configuration,
    /// The number of each bucket, in the order in which they were given.
    pub numbers: [u32; BUCKETS],
    /// Whether each may be used, in the same order. Two may.
    pub standings: [Standing; BUCKETS],
}

/// Why buckets cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Somebody has to do something about it.
    #[error("{0}")]
    Refused(String),
    /// It may pass by itself.
    #[error("{0}")]
    Waits(String),
}

/// What one look at a bucket found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Look {
    Marked(Marker),
    Empty,
    /// Something else is there.
    Strange(String),
    Away(String),
}

/// A bucket of a cluster that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Found {
    number: u32,
    look: Look,
}

/// Admits three buckets, which are given in an order on which all processes of a cluster agree. With a cluster's id, empty
/// buckets become that cluster's.
pub async fn admit(
    buckets: &[Arc<dyn Bucket>; BUCKETS],
    shard: u16,
    new_cluster: Option<&str>,
) -> Result<Known, Error> {
    let looks = join_all(buckets.iter().map(|bucket| look(&**bucket))).await;
    let looks: [Look; BUCKETS] = looks
        .try_into()
        .unwrap_or_else(|_| unreachable!("as many looks as buckets"));
    let Some((marker, places)) = judge(looks)? else {
        let Some(cluster) = new_cluster else {
            let why = "the buckets hold no cluster yet: a control node makes one (seaway control)";
            return Err(Error::Waits(why.to_owned()));
        };
        return Err(found(buckets, cluster).await);
    };
    let configuration = Configuration {
        cluster: marker.cluster.clone(),
        shard,
        number: FIRST,
        generations: generations(&marker)
            .ok_or_else(|| Error::Refused("the markers do not name three buckets".to_owned()))?,
    };
    let is_begun = is_begun(buckets, &places, &configuration).await;
    let mut standings = [const { Standing::Unproven }; BUCKETS];
    for (at, place) in places.iter().enumerate() {
        standings[at] = match (&place.look, is_begun) {
            (Look::Marked(_), _) => Standing::Proven,
            (Look::Strange(why), _) => Standing::Refused(why.clone()),
            (Look::Away(_), _) | (Look::Empty, Begun::Unknown) => Standing::Unproven,
            (Look::Empty, Begun::Yes) => Standing::Refused(
                "it is empty, and was the cluster's: it was wiped, or another is named".to_owned(),
            ),
            (Look::Empty, Begun::No) if new_cluster.is_none() => Standing::Unproven,
            (Look::Empty, Begun::No) => {
                let wanted = Marker {
                    bucket: place.number,
                    generation: configuration.generations[place.number as usize],
                    ..marker.clone()
                };
                claim(&*buckets[at], &wanted).await?;
                ready(&*buckets[at], &configuration).await?;
                Standing::Proven
            }
        };
    }
    // A bucket gets its first floor with its marker; who made the marker may have ended in between.
    for (bucket, standing) in buckets.iter().zip(&mut standings) {
        match is_begun {
            _ if *standing != Standing::Proven => {}
            Begun::No if new_cluster.is_some() => ready(&**bucket, &configuration).await?,
            _ if !is_ready(&**bucket, &configuration).await => *standing = Standing::Unproven,
            _ => {}
        }
    }
    let usable = standings
        .iter()
        .filter(|standing| **standing == Standing::Proven);
    if usable.count() < 2 {
        return Err(too_few(&places));
    }
    Ok(Known {
        configuration,
        numbers: std::array::from_fn(|at| places[at].number),
        standings,
    })
}

/// Makes a bucket's first floor.
async fn ready(bucket: &dyn Bucket, configuration: &Configuration) -> Result<(), Error> {
    let prepared = prepare(bucket, configuration).await;
    prepared.map_err(|error| Error::Waits(error.to_string()))
}

/// Whether a bucket certainly has its first floor.
async fn is_ready(bucket: &dyn Bucket, configuration: &Configuration) -> bool {
    let floors = name::floors(configuration.shard, configuration.number);
    let first = name::key(format!("{floors}{:020}", 1));
    let held = clock::timeout(LOOK_FOR, bucket.head(&first)).await;
    matches!(held, Ok(Ok(Some(_))))
}

async fn look(bucket: &dyn Bucket) -> Look {
    let read = clock::timeout(LOOK_FOR, marker::read_again(bucket, false)).await;
    match read {
        Ok(Ok(marker)) => Look::Marked(marker),
        Ok(Err(marker::Error::Empty)) => Look::Empty,
        Ok(Err(marker::Error::Bucket(error))) => Look::Away(error.to_string()),
        Ok(Err(error)) => Look::Strange(error.to_string()),
        Err(_) => Look::Away("the bucket does not answer".to_owned()),
    }
}

/// A marker on which the buckets agree, and what each of them is; `None` if all are empty. Pure.
fn judge(looks: [Look; BUCKETS]) -> Result<Option<(Marker, [Found; BUCKETS])>, Error> {
    let looks = looks.map(|look| match look {
        Look::Marked(marker) if generations(&marker).is_none() => Look::Strange(format!(
            "it is the only bucket of cluster {}: give it by --bucket",
            marker.cluster
        )),
        look => look,
    });
    let markers = || {
        looks.iter().filter_map(|look| match look {
            Look::Marked(marker) => Some(marker),
            _ => None,
        })
    };
    let is_of = |one: &Marker, other: &Marker| {
        one.cluster == other.cluster && one.siblings == other.siblings
    };
    let most =
        markers().max_by_key(|marker| markers().filter(|other| is_of(marker, other)).count());
    let Some(most) = most.cloned() else {
        return nobodys(&looks).map(|()| None);
    };
    let own = markers().filter(|marker| is_of(marker, &most));
    let numbers: Vec<u32> = own.map(|marker| marker.bucket).collect();
    if let Some(other) = markers().find(|marker| !is_of(marker, &most))
        && numbers.len() < 2
    {
        return Err(Error::Refused(format!(
            "the buckets belong to different clusters, {} and {}: give the three buckets of one cluster",
            most.cluster, other.cluster
        )));
    }
    let distinct: BTreeSet<u32> = numbers.iter().copied().collect();
    if distinct.len() != numbers.len() {
        return Err(Error::Refused(
            "two of the buckets are one and the same: give three different ones".to_owned(),
        ));
    }
    let mut free = (0..BUCKETS as u32).filter(|number| !distinct.contains(number));
    let places = looks.map(|look| match look {
        Look::Marked(marker) if is_of(&marker, &most) => Found {
            number: marker.bucket,
            look: Look::Marked(marker),
        },
        Look::Marked(other) => Found {
            number: free.next().unwrap_or_default(),
            look: Look::Strange(format!(
                "it belongs to cluster {}, not to {}",
                other.cluster, most.cluster
            )),
        },
        look => Found {
            number: free.next().unwrap_or_default(),
            look,
        },
    });
    Ok(Some((most, places)))
}

/// Whether buckets of which none has a cluster's marker are all empty.
fn nobodys(looks: &[Look; BUCKETS]) -> Result<(), Error> {
    let mut away = None;
    for look in looks {
        match look {
            Look::Strange(why) => return Err(Error::Refused(why.clone())),
            Look::Away(why) => away = Some(why),
            Look::Empty | Look::Marked(_) => {}
        }
    }
    match away {
        None => Ok(()),
        Some(why) => Err(Error::Waits(format!(
            "a cluster is made only while all three buckets answer: {why}"
        ))),
    }
}

fn generations(marker: &Marker) -> Option<[u64; BUCKETS]> {
    marker.siblings.clone().try_into().ok()
}

/// Makes empty buckets a cluster's. The first bucket's marker decides between several that do so at the same time, so whoever
/// has made it, all look again.
async fn found(buckets: &[Arc<dyn Bucket>; BUCKETS], cluster: &str) -> Error {
    let siblings: Vec<u64> = (0..BUCKETS).map(|_| host::rng::nonce() as u64).collect();
    let wanted = Marker {
        cluster: cluster.to_owned(),
        created_ms: clock::wall_millis(),
        bucket: 0,
        generation: siblings[0],
        siblings,
        journal: None,
    };
    match marker::claim(&*buckets[0], &wanted).await {
        Ok(_) | Err(marker::Error::OtherCluster { .. }) => {
            Error::Waits("the buckets are being made a cluster's".to_owned())
        }
        Err(error) => error_of(error),
    }
}

async fn claim(bucket: &dyn Bucket, wanted: &Marker) -> Result<(), Error> {
    match marker::claim(bucket, wanted).await {
        Ok(found) if found == *wanted => Ok(()),
        Ok(_) => Err(Error::Waits(
            "another process makes the same bucket another one's".to_owned(),
        )),
        Err(error) => Err(error_of(error)),
    }
}

fn error_of(error: marker::Error) -> Error {
    match error {
        marker::Error::Bucket(error) => Error::Waits(error.to_string()),
        error => Error::Refused(error.to_string()),
    }
}

/// Whether anything was ever written to the journal. Whoever takes it first writes to its first slot in two buckets, and that
/// stays for ever, so it is in one of any two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Begun {
    No,
    Yes,
    Unknown,
}

async fn is_begun(
    buckets: &[Arc<dyn Bucket>; BUCKETS],
    places: &[Found; BUCKETS],
    configuration: &Configuration,
) -> Begun {
    let first = Place {
        shard: configuration.shard,
        configuration: configuration.number,
        slot: 1,
    };
    let key = name::link(first, 0);
    let mut without = 0;
    let mut is_begun = false;
    let asked = buckets.iter().zip(places).map(|(bucket, place)| {
        let key = &key;
        async move {
            match place.look {
                // What is empty does not hold it.
                Look::Empty => Some(false),
                Look::Marked(_) => {
                    let held = clock::timeout(LOOK_FOR, bucket.head(key)).await;
                    held.ok()?.ok().map(|held| held.is_some())
                }
                Look::Strange(_) | Look::Away(_) => None,
            }
        }
    });
    for held in join_all(asked).await.into_iter().flatten() {
        is_begun |= held;
        without += usize::from(!held);
    }
    match (is_begun, without) {
        (true, _) => Begun::Yes,
        // A bucket that lost the slot counts as one without it, so all three have to say so.
        (false, BUCKETS) => Begun::No,
        (false, _) => Begun::Unknown,
    }
}

fn too_few(places: &[Found; BUCKETS]) -> Error {
    let told = places.iter().filter_map(|place| match &place.look {
        Look::Marked(_) => None,
        Look::Empty => Some(format!("bucket {} is empty", place.number)),
        Look::Strange(why) | Look::Away(why) => Some(format!("bucket {}: {why}", place.number)),
    });
    let told: Vec<String> = told.collect();
    Error::Waits(format!(
        "two of the three buckets are needed: {}",
        told.join("; ")
    ))
}

#[cfg(test)]
mod tests {
    use store::bucket::{Key, Op};
    use store::faulty::{Fault, FaultRule, Faulty};
    use store::layout::marker_key;
    use store::memory::Memory;

    use super::*;
    use crate::engine::{Append, Engine};
    use crate::three::Three;

    const ONE: &str = "one";

    struct Case {
        faulty: [Arc<Faulty>; BUCKETS],
    }

    impl Case {
        fn empty() -> Self {
            let bucket = |seed| Arc::new(Faulty::new(Arc::new(Memory::new()), seed));
            Case {
                faulty: [bucket(0), bucket(1), bucket(2)],
            }
        }

        /// Buckets of a cluster whose journal has an entry.
        async fn begun() -> Self {
            let case = Case::empty();
            let known = case.found().await;
            let engine = Three::new(case.buckets(), known.configuration);
            let tenure = engine.take(1, 1).await.expect("nobody else takes").tenure;
            let sent = tenure
                .append(1, 1, bytes::Bytes::from_static(b"claim"))
                .await;
            assert_eq!(sent, Append::Appended);
            case
        }

        fn buckets(&self) -> [Arc<dyn Bucket>; BUCKETS] {
            self.faulty.clone().map(|bucket| bucket as Arc<dyn Bucket>)
        }

        async fn admit(&self, new_cluster: Option<&str>) -> Result<Known, Error> {
            admit(&self.buckets(), 0, new_cluster).await
        }

        /// Admits again and again, as a process does that makes a cluster.
        async fn found(&self) -> Known {
            for _ in 0..5 {
                match self.admit(Some(ONE)).await {
                    Ok(known) => return known,
                    Err(Error::Waits(_)) => {}
                    Err(refused) => panic!("{refused}"),
                }
            }
            panic!("it waits for ever");
        }

        fn away(&self, bucket: usize) {
            self.faulty[bucket]
                .faults()
                .add(FaultRule::always(Fault::Unknown));
        }

        async fn refused(&self) -> String {
            match self.admit(Some(ONE)).await {
                Err(Error::Refused(why)) => why,
                other => panic!("{other:?}"),
            }
        }

        /// Empties a bucket.
        async fn wipe(&self, bucket: usize) {
            let bucket = &self.faulty[bucket];
            for object in bucket.list("", None, 1_000).await.expect("a listing") {
                bucket.delete(&object.key).await.expect("it answers");
            }
        }

        /// Copies all objects of one bucket to another, which was empty.
        async fn copy(&self, from: usize, to: &Faulty) {
            let from = &self.faulty[from];
            for object in from.list("", None, 1_000).await.expect("a listing") {
                let held = from.get(&object.key).await.expect("it answers");
                let put = to.put_new(&object.key, held.expect("it is there").into());
                put.await.expect("it answers");
            }
        }
    }

    #[tokio::test]
    async fn empty_buckets_become_one_clusters_and_two_of_them_are_enough_to_know_it() {
        let case = Case::empty();
        assert!(matches!(case.admit(None).await, Err(Error::Waits(_))));
        let known = case.found().await;
        assert_eq!(known.numbers, [0, 1, 2]);
        assert_eq!(known.configuration.cluster, ONE);
        assert_eq!(case.admit(None).await, Ok(known.clone()));
        for away in 0..BUCKETS {
            case.away(away);
            let mut expected = known.clone();
            expected.standings[away] = Standing::Unproven;
            assert_eq!(case.admit(None).await, Ok(expected));
            case.faulty[away].faults().clear();
        }
        case.away(0);
        case.away(2);
        assert!(matches!(case.admit(None).await, Err(Error::Waits(_))));
    }

    #[tokio::test]
    async fn several_who_make_a_cluster_at_once_make_one() {
        let case = Case::empty();
        let buckets = case.buckets();
        let one = |name: &'static str| {
            let buckets = buckets.clone();
            async move {
                loop {
                    match admit(&buckets, 0, Some(name)).await {
                        Err(Error::Waits(_)) => tokio::task::yield_now().await,
                        other => return other,
                    }
                }
            }
        };
        let (first, second, third) = tokio::join!(one("one"), one("two"), one("three"));
        assert!(first.is_ok(), "{first:?}");
        assert_eq!(first, second);
        assert_eq!(second, third);
    }

    #[tokio::test]
    async fn a_cluster_is_made_only_of_three_buckets_that_answer_and_can_be_made_on_after_a_crash()
    {
        let case = Case::empty();
        case.away(2);
        assert!(matches!(case.admit(Some(ONE)).await, Err(Error::Waits(_))));
        assert_eq!(case.faulty[0].get(&marker_key()).await, Ok(None));
        case.faulty[2].faults().clear();
        // The first marker is made, the next fails.
        let fails = FaultRule::on(Op::PutNew, Fault::Definite);
        case.faulty[1].faults().add(fails);
        for _ in 0..2 {
            assert!(case.admit(Some(ONE)).await.is_err());
        }
        case.faulty[1].faults().clear();
        let known = case.found().await;
        assert_eq!(known.standings, [const { Standing::Proven }; BUCKETS]);
    }

    #[tokio::test]
    async fn no_bucket_is_used_before_its_first_floor_is_made() {
        let case = Case::empty();
        // The floor of the second bucket fails, and then the third is away: nobody knows whether the journal has begun.
        let fails = FaultRule::on(Op::PutNew, Fault::Definite).below("journal/");
        case.faulty[1].faults().add(fails);
        for _ in 0..4 {
            assert!(case.admit(Some(ONE)).await.is_err());
        }
        case.faulty[1].faults().clear();
        case.away(2);
        for _ in 0..4 {
            let waits = case.admit(Some(ONE)).await;
            assert!(matches!(waits, Err(Error::Waits(_))), "{waits:?}");
        }
        case.faulty[2].faults().clear();
        let known = case.found().await;
        assert_eq!(known.standings, [const { Standing::Proven }; BUCKETS]);
        let engine = Three::new(case.buckets(), known.configuration);
        engine.take(1, 1).await.expect("all have their floors");
    }

    #[tokio::test]
    async fn a_bucket_that_lost_what_it_held_counts_for_nothing() {
        for wiped in 0..BUCKETS {
            let case = Case::begun().await;
            case.wipe(wiped).await;
            let known = case.admit(Some(ONE)).await.expect("two are left");
            let refused =
                matches!(&known.standings[wiped], Standing::Refused(why) if why.contains("wiped"));
            assert!(refused, "{:?}", known.standings);
            assert_eq!(case.faulty[wiped].get(&marker_key()).await, Ok(None));
        }
    }

    #[tokio::test]
    async fn buckets_that_do_not_belong_together_are_refused_with_the_reason() {
        let case = Case::begun().await;
        let other = Case::begun().await;
        let mixed = Case {
            faulty: [
                Arc::clone(&case.faulty[0]),
                Arc::clone(&case.faulty[1]),
                Arc::clone(&other.faulty[2]),
            ],
        };
        let known = mixed.admit(Some(ONE)).await.expect("two are the cluster's");
        assert!(
            matches!(&known.standings[2], Standing::Refused(_)),
            "{known:?}"
        );

        let copy = Arc::new(Faulty::new(Arc::new(Memory::new()), 9));
        case.copy(0, &copy).await;
        let twice = Case {
            faulty: [
                Arc::clone(&case.faulty[0]),
                copy,
                Arc::clone(&case.faulty[2]),
            ],
        };
        assert!(twice.refused().await.contains("one and the same"));

        let strangers = Case::empty();
        for (bucket, cluster) in strangers.faulty.iter().zip(["one", "two", "three"]) {
            let marker = Marker {
                cluster: cluster.to_owned(),
                created_ms: 1,
                bucket: 0,
                generation: 1,
                siblings: vec![1, 2, 3],
                journal: None,
            };
            marker::claim(&**bucket, &marker)
                .await
                .expect("it is empty");
        }
        assert!(strangers.refused().await.contains("different clusters"));

        let photographs = Case::empty();
        let key = Key::new("wedding.jpg").expect("a key");
        let put = photographs.faulty[1].put_new(&key, bytes::Bytes::new().into());
        put.await.expect("it answers");
        assert!(photographs.refused().await.contains("wedding.jpg"));
    }

    #[tokio::test]
    async fn a_bucket_that_is_a_whole_clusters_is_refused() {
        let case = Case::empty();
        let marker = Marker {
            cluster: "alone".to_owned(),
            created_ms: 1,
            bucket: 0,
            generation: 1,
            siblings: Vec::new(),
            journal: None,
        };
        marker::claim(&*case.faulty[0], &marker)
            .await
            .expect("it is empty");
        assert!(case.refused().await.contains("--bucket"));
    }
}
