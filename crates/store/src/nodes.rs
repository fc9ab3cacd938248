//! Where processes of the cluster can be reached: an object for each start, a few lines of text (docs/formats/bucket.md). It is
//! a hint where to look, for those who know no journal; nothing rests on it.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use host::backoff::Backoff;

use crate::bucket::{Bucket, Error, Key, Op, Payload};
use crate::layout::NODES;

const TITLE: &str = "seaway node";
/// The lines after the title, in this order.
const FIELDS: [&str; 5] = ["role", "name", "address", "region", "zone"];
/// An object has some 150 bytes; a longer one is none of these.
const BYTES_MAX: u64 = 4_096;
/// The most objects that are looked at: starts that nobody has tidied up included.
const LISTED_MAX: usize = 1_000;

/// The most objects that are removed at one look.
const REMOVED_MAX: usize = 100;

/// How often a process makes sure that the bucket tells where it is.
const ANNOUNCED_CHECK: Duration = Duration::from_secs(60);
/// The pauses before that is tried again.
const ANNOUNCE_AGAIN: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// The role by which control nodes tell of themselves.
pub const CONTROL: &str = "control";

/// A process, as it tells others of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announced {
    /// [`CONTROL`]; agents have no need to be found.
    pub role: String,
    pub name: String,
    /// HOST:PORT, as others of the cluster reach it.
    pub address: String,
    pub region: String,
    pub zone: String,
}

impl Announced {
    fn text(&self) -> String {
        let values = [
            &self.role,
            &self.name,
            &self.address,
            &self.region,
            &self.zone,
        ];
        let lines = FIELDS.iter().zip(values);
        let lines = lines.map(|(field, value)| format!("{field} {value}\n"));
        format!("{TITLE}\n{}", lines.collect::<String>())
    }

    /// `None` if it is none that this build knows.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return None;
        }
        let mut next = FIELDS.iter().map(|field| {
            let value = lines.next()?.strip_prefix(field)?.strip_prefix(' ')?;
            Some(value.to_owned())
        });
        Some(Announced {
            role: next.next()??,
            name: next.next()??,
            address: next.next()??,
            region: next.next()??,
            zone: next.next()??,
        })
    }
}

/// Tells others of this start of a process, and tidies up after earlier starts of the same name. `started_ms` is the start by
/// the wall clock, in milliseconds since 1970.
pub async fn announce(bucket: &dyn Bucket, node: &Announced, started_ms: u64) -> Result<(), Error> {
    let prefix = format!("{NODES}{}/", node.name);
    let key = format!("{prefix}{started_ms:013}-{:08x}", host::rng::nonce() as u32);
    let key = Key::new(&*key).map_err(|error| Error::definite(Op::PutNew, &key, error))?;
    let earlier = bucket.list(&prefix, None, LISTED_MAX).await?;
    let payload = Payload::from(node.text().into_bytes());
    // Nobody else has this name, so an object that is there is this one.
    bucket.put_new(&key, payload).await?;
    for object in earlier {
        // One that stays is only asked in vain.
        drop(bucket.delete(&object.key).await);
    }
    Ok(())
}

/// All processes of a role that have told of themselves, the latest start of each name.
pub async fn find(bucket: &dyn Bucket, role: &str) -> Result<Vec<Announced>, Error> {
    let mut found: Vec<Announced> = Vec::new();
    let listed = bucket.list(NODES, None, LISTED_MAX).await?.into_iter();
    for object in listed.filter(|object| object.size <= BYTES_MAX) {
        let Some(bytes) = bucket.get(&object.key).await? else {
            continue;
        };
        let Some(node) = Announced::parse(&bytes).filter(|node| node.role == role) else {
            continue;
        };
        // Keys of one name come in the order of the starts.
        found.retain(|earlier| earlier.name != node.name);
        found.push(node);
    }
    Ok(found)
}

/// Where all processes of a role are said to be.
pub async fn addresses(bucket: &dyn Bucket, role: &str) -> Result<Vec<String>, Error> {
    let found = find(bucket, role).await?.into_iter();
    Ok(found.map(|node| node.address).collect())
}

/// Tidies up after processes that have ended and whose names do not come back. Whoever is there after all makes its object again.
#[derive(Debug, Default)]
pub struct Tidying {
    /// Objects whose process was not known at the last look.
    doubted: BTreeSet<String>,
}

impl Tidying {
    /// Removes objects of names that are not known now, and were not at the look before; at most some of them, the others at later
    /// looks. Yields how many.
    pub async fn look(
        &mut self,
        bucket: &dyn Bucket,
        is_known: impl Fn(&str) -> bool,
    ) -> Result<usize, Error> {
        let listed = bucket.list(NODES, None, LISTED_MAX).await?;
        let unknown = listed.into_iter().map(|object| object.key);
        let unknown =
            unknown.filter(|key| name_in(key.as_str()).is_some_and(|name| !is_known(name)));
        let unknown: Vec<Key> = unknown.collect();
        let doubted = unknown.iter().map(|key| key.as_str().to_owned());
        let doubted_before = std::mem::replace(&mut self.doubted, doubted.collect());
        let gone = unknown
            .iter()
            .filter(|key| doubted_before.contains(key.as_str()));
        let mut removed = 0;
        for key in gone.take(REMOVED_MAX) {
            bucket.delete(key).await?;
            removed += 1;
        }
        Ok(removed)
    }
}

/// The name of the process of which the object with this key tells.
fn name_in(key: &str) -> Option<&str> {
    let (name, _start) = key.strip_prefix(NODES)?.rsplit_once('/')?;
    Some(name)
}

/// Sees to it that the bucket tells where this process is.
pub async fn keep_announced(bucket: Arc<dyn Bucket>, announced: Announced) -> Infallible {
    let started_ms = host::clock::wall_millis();
    let mut pauses = ANNOUNCE_AGAIN.start();
    loop {
        let told = match find(&*bucket, &announced.role).await {
            Ok(found) if found.contains(&announced) => Ok(()),
            Ok(_) => announce(&*bucket, &announced, started_ms).await,
            Err(error) => Err(error),
        };
        match told {
            Ok(()) => {
                pauses = ANNOUNCE_AGAIN.start();
                host::clock::sleep(ANNOUNCED_CHECK).await;
            }
            Err(error) => {
                let role = &announced.role;
                tracing::warn!(%error, role, "the bucket does not tell others where this process is; it is tried again");
                pauses.pause().await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Memory;

    fn control(name: &str, address: &str) -> Announced {
        Announced {
            role: "control".to_owned(),
            name: name.to_owned(),
            address: address.to_owned(),
            region: "eu-1".to_owned(),
            zone: String::new(),
        }
    }

    #[tokio::test]
    async fn the_latest_start_of_each_name_is_found() {
        let bucket = Memory::new();
        let found = async || find(&bucket, "control").await.expect("it answers");
        for (address, started_ms) in [("a:1", 5), ("a:2", 6)] {
            let node = control("c-1", address);
            announce(&bucket, &node, started_ms).await.expect("told");
        }
        let other = control("c-2", "b:1");
        announce(&bucket, &other, 1).await.expect("told");
        let agent = Announced {
            role: "agent".to_owned(),
            ..control("a-1", "x:1")
        };
        announce(&bucket, &agent, 1).await.expect("told");
        assert_eq!(found().await, [control("c-1", "a:2"), other]);
        let objects = bucket.list(NODES, None, 100).await.expect("it answers");
        assert_eq!(objects.len(), 3, "earlier starts are tidied up");
    }

    #[tokio::test]
    async fn what_tells_of_processes_that_nobody_knows_is_removed_at_the_second_look() {
        let bucket = Memory::new();
        let tell = async |name: &str| {
            let told = announce(&bucket, &control(name, "a:1"), 1).await;
            told.expect("told");
        };
        for number in 0..REMOVED_MAX + 5 {
            tell(&format!("gone-{number:03}")).await;
        }
        tell("there").await;
        let left = async || {
            let found = find(&bucket, CONTROL).await.expect("it answers");
            found.len()
        };
        let mut tidying = Tidying::default();
        let is_known = |name: &str| name == "there";
        let mut look = async || tidying.look(&bucket, is_known).await.expect("it answers");
        assert_eq!((look().await, left().await), (0, REMOVED_MAX + 6));
        tell("begins").await;
        assert_eq!((look().await, left().await), (REMOVED_MAX, 7));
        assert_eq!((look().await, left().await), (6, 1));
        assert_eq!(
            find(&bucket, CONTROL).await.expect("it answers")[0].name,
            "there"
        );
    }

    #[tokio::test]
    async fn what_is_no_announcement_is_passed_over() {
        let bucket = Memory::new();
        let key = Key::new("nodes/x/1").expect("a key");
        let strange = Payload::from(b"seaway node\nrole control\n".to_vec());
        bucket.put_new(&key, strange).await.expect("stored");
        assert_eq!(find(&bucket, "control").await, Ok(Vec::new()));
    }

    #[tokio::test]
    async fn a_name_that_no_object_can_have_is_refused() {
        let bucket = Memory::new();
        let refused = announce(&bucket, &control("Ä", "a:1"), 1).await;
        assert!(
            matches!(refused, Err(Error::Definite { .. })),
            "{refused:?}"
        );
    }
}
