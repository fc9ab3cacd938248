//! The marker object: whose bucket this is. It is created before anything else and verified at
//! every start, so that a swapped bucket, a second cluster or a directory full of somebody's
//! photographs is refused. It must not know what the rest of the bucket holds.
//!
//! The object is a few lines of text, so that a person who finds the bucket can read it
//! (docs/formats/bucket.md).

use std::time::Duration;

use crate::bucket::{self, Bucket, Op, Payload, Put};
use crate::checksum::crc32c;
use crate::layout::{PROBE, marker_key};

/// The newest bucket format that this build writes, and the only one it reads.
pub const FORMAT_VERSION: u32 = 1;
const TITLE: &str = "seaway bucket";
/// A marker is some 100 bytes; a longer object is not one.
const MAX_BYTES: usize = 4_096;
/// How often a marker that looks wrong is read before that is believed: bytes may be altered on the
/// way, and another process may be creating the marker just now.
const READS: u32 = 4;
/// The pause between two such reads.
const PAUSE: Duration = Duration::from_millis(250);
/// How many looks in a row must find the same wrong marker before a running process ends.
const LOOKS: u32 = 3;
/// The lines between the format and the checksum, in this order.
const FIELDS: [&str; 4] = ["cluster", "created", "bucket", "generation"];
/// The line after them in the buckets of a cluster that has several. Nobody may take one of them for a whole cluster's bucket.
const SIBLINGS: &str = "siblings!";
/// The line after that of a cluster whose journal is not in its buckets. Nobody may take the journal for empty.
const ELSEWHERE: &str = "journal!";
/// The longest cluster id: Kafka's are 22 characters.
const MAX_CLUSTER_BYTES: usize = 64;

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// The cluster's id: 1 to 64 of `A-Z a-z 0-9 _ -`, as Kafka's are.
    pub cluster: String,
    /// When the bucket was claimed, in milliseconds since 1970, by the claiming process's wall
    /// clock.
    pub created_ms: u64,
    /// Which of the cluster's buckets it is, from 0.
    pub bucket: u32,
    /// Drawn when the bucket was claimed, so that a bucket that was emptied and claimed again
    /// differs.
    pub generation: u64,
    /// Of a cluster with several buckets: the generation of each, by number. So two of them say what the third has to be.
    pub siblings: Vec<u64>,
    /// What keeps the cluster's journal, if not its buckets: a word of small letters. Whoever does not know it stays away.
    pub journal: Option<String>,
}

/// Why a bucket is not the cluster's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another cluster lives here.
    #[error(
        "the bucket belongs to cluster {found}, not to {expected}: give this cluster a bucket or \
         prefix of its own"
    )]
    OtherCluster { found: String, expected: String },
    /// A newer release laid the bucket out.
    #[error(
        "the bucket has format version {0}; this release knows version {FORMAT_VERSION}: use the \
         release that wrote it, or a newer one"
    )]
    NewerFormat(u32),
    /// A newer release wrote a line that older releases must not ignore.
    #[error(
        "the bucket's marker has a line {0:?}, which this release must know and does not: use the \
         release that wrote it, or a newer one"
    )]
    NewerField(String),
    /// There are objects, but no marker.
    #[error(
        "the bucket holds objects but no {marker} (for example {example:?}): use an empty bucket \
         or prefix; if the marker was deleted, restore it",
        marker = crate::layout::MARKER
    )]
    NotOurs { example: String },
    /// There is no marker and no object.
    #[error("the bucket is empty: it was never a cluster's, or it was wiped")]
    Empty,
    /// The marker cannot be read.
    #[error("the bucket's marker is damaged ({0}): restore {marker}", marker = crate::layout::MARKER)]
    Damaged(&'static str),
    /// A cluster id that cannot be written.
    #[error("{0:?} is no cluster id: 1 to 64 letters, digits, '_' and '-' are")]
    BadClusterId(String),
    /// The bucket gave no answer.
    #[error(transparent)]
    Bucket(#[from] bucket::Error),
}

impl Marker {
    pub fn encode(&self) -> Vec<u8> {
        let mut text = format!(
            "{TITLE}\nformat {FORMAT_VERSION}\ncluster {}\ncreated {}\nbucket {}\ngeneration {:016x}\n",
            self.cluster, self.created_ms, self.bucket, self.generation
        );
        if !self.siblings.is_empty() {
            let siblings = self
                .siblings
                .iter()
                .map(|generation| format!("{generation:016x}"));
            let siblings: Vec<String> = siblings.collect();
            text.push_str(&format!("{SIBLINGS} {}\n", siblings.join(",")));
        }
        if let Some(journal) = &self.journal {
            text.push_str(&format!("{ELSEWHERE} {journal}\n"));
        }
        let checksum = crc32c(text.as_bytes());
        format!("{text}crc32c {checksum:08x}\n").into_bytes()
    }

    /// Reads a marker: what [`Marker::encode`] writes, and lines that this release does not know,
    /// unless their names say that they must be known.
    pub fn decode(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > MAX_BYTES {
            return Err(Error::Damaged("it is too long"));
        }
        let text = std::str::from_utf8(bytes).map_err(|_| Error::Damaged("it is not text"))?;
        let mut lines = text.lines();
        if lines.next() != Some(TITLE) {
            return Err(Error::Damaged("it does not begin with its title"));
        }
        // The version comes first: a newer format may differ in everything after it.
        let format = lines.next().and_then(|line| line.strip_prefix("format "));
        let format: u32 = format
            .and_then(|digits| digits.parse().ok())
            .ok_or(Error::Damaged("it has no format version"))?;
        if format > FORMAT_VERSION {
            return Err(Error::NewerFormat(format));
        }
        let (fields, checksum) = text
            .strip_suffix('\n')
            .and_then(|text| text.rsplit_once("\ncrc32c "))
            .ok_or(Error::Damaged("it has no checksum"))?;
        if format!("{:08x}", crc32c(format!("{fields}\n").as_bytes())) != checksum {
            return Err(Error::Damaged("its checksum does not match"));
        }
        let lines: Vec<(&str, &str)> = fields
            .lines()
            .skip(2)
            .filter_map(|line| line.split_once(' '))
            .collect();
        let field = |name: &str| {
            lines
                .iter()
                .find(|(of, _)| *of == name)
                .map(|(_, text)| *text)
        };
        let is_known = |name: &str| FIELDS.contains(&name) || name == SIBLINGS || name == ELSEWHERE;
        let others = lines.iter().filter(|(name, _)| !is_known(name));
        if let Some((name, _)) = others.clone().find(|(name, _)| name.ends_with('!')) {
            return Err(Error::NewerField((*name).to_owned()));
        }
        let number = |name: &str| field(name).and_then(|digits| digits.parse::<u64>().ok());
        let generation = field("generation").and_then(|hex| u64::from_str_radix(hex, 16).ok());
        let (cluster, created_ms, bucket, generation) = field("cluster")
            .zip(number("created"))
            .zip(number("bucket").and_then(|number| u32::try_from(number).ok()))
            .zip(generation)
            .map(|(((cluster, created), bucket), generation)| {
                (cluster, created, bucket, generation)
            })
            .ok_or(Error::Damaged("a line is missing"))?;
        let siblings = siblings(field(SIBLINGS), bucket, generation)?;
        let journal = journal(field(ELSEWHERE))?;
        let marker = Marker {
            cluster: cluster.to_owned(),
            created_ms,
            bucket,
            generation,
            siblings,
            journal,
        };
        if others.count() == 0 && marker.encode() != bytes {
            return Err(Error::Damaged("it would be written in another way"));
        }
        check_cluster_id(cluster).map_err(|_| Error::Damaged("the cluster id is none"))?;
        Ok(marker)
    }
}

/// The generations of all buckets of a cluster that has several, of which one is the bucket's own.
fn siblings(line: Option<&str>, bucket: u32, generation: u64) -> Result<Vec<u64>, Error> {
    let Some(line) = line else {
        return Ok(Vec::new());
    };
    let numbers = line.split(',').map(|hex| u64::from_str_radix(hex, 16));
    let siblings: Result<Vec<u64>, _> = numbers.collect();
    let siblings = siblings.map_err(|_| Error::Damaged("its siblings are none"))?;
    match siblings.get(bucket as usize) {
        Some(own) if *own == generation => Ok(siblings),
        _ => Err(Error::Damaged("it is not among its siblings")),
    }
}

/// What keeps the journal, if not the buckets.
fn journal(line: Option<&str>) -> Result<Option<String>, Error> {
    let is_word =
        |word: &str| !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_lowercase());
    match line {
        Some(word) if !is_word(word) => Err(Error::Damaged("its journal is nowhere")),
        line => Ok(line.map(str::to_owned)),
    }
}

/// The bucket's marker. Without one it is [`Error::Empty`] or [`Error::NotOurs`].
pub async fn read(bucket: &dyn Bucket) -> Result<Marker, Error> {
    if let Some(bytes) = bucket.get(&marker_key()).await? {
        return Marker::decode(&bytes);
    }
    match foreign(bucket).await? {
        Some(example) => Err(Error::NotOurs { example }),
        None => Err(Error::Empty),
    }
}

/// Reads the bucket's marker, several times before an answer is believed that would end a start. If
/// no marker `is_expected`, an empty bucket is not such an answer: it is about to be claimed.
pub async fn read_again(bucket: &dyn Bucket, is_expected: bool) -> Result<Marker, Error> {
    for _ in 1..READS {
        match read(bucket).await {
            Err(Error::Empty) if is_expected => {}
            Err(
                Error::NewerFormat(_)
                | Error::NewerField(_)
                | Error::NotOurs { .. }
                | Error::Damaged(_),
            ) => {}
            sure => return sure,
        }
        host::clock::sleep(PAUSE).await;
    }
    read(bucket).await
}

/// Checks that the bucket is `cluster`'s.
pub async fn verify(bucket: &dyn Bucket, cluster: &str) -> Result<Marker, Error> {
    of_cluster(read(bucket).await?, cluster)
}

/// Claims an empty bucket for a cluster, or verifies that it is already that cluster's. If several
/// processes claim at once, one wins and the others learn whose bucket it is. Safe to repeat after
/// any error.
pub async fn claim(bucket: &dyn Bucket, wanted: &Marker) -> Result<Marker, Error> {
    check_cluster_id(&wanted.cluster)?;
    match read_again(bucket, false).await {
        Err(Error::Empty) => {}
        Ok(found) => return of_cluster(found, &wanted.cluster),
        Err(error) => return Err(error),
    }
    let body = Payload::from(wanted.encode());
    match bucket.put_new(&marker_key(), body).await? {
        Put::Created => Ok(wanted.clone()),
        Put::Conflict => match read_again(bucket, true).await {
            // A store may report a conflict while the other create is still under way.
            Err(Error::Empty) => {
                let detail = "the store reported a conflict, but there is no marker";
                Err(bucket::Error::throttled(Op::PutNew, marker_key(), detail).into())
            }
            found => of_cluster(found?, &wanted.cluster),
        },
    }
}

/// Watches the marker for a running process: a single look that finds a wrong marker proves
/// nothing, several in a row that find the same do.
#[derive(Debug)]
pub struct Watch {
    cluster: String,
    suspicion: Option<(Error, u32)>,
}

impl Watch {
    /// A watch over the marker of `cluster`.
    pub fn new(cluster: &str) -> Self {
        Watch {
            cluster: cluster.to_owned(),
            suspicion: None,
        }
    }

    /// True if the last look that got an answer found the right marker.
    pub fn is_calm(&self) -> bool {
        self.suspicion.is_none()
    }

    /// Takes what [`read`] found. Once it is certain that the bucket is no longer the cluster's,
    /// yields a sentence that says what happened and what to do.
    pub fn found(&mut self, found: Result<Marker, Error>) -> Option<String> {
        let flaw = match found.and_then(|marker| of_cluster(marker, &self.cluster)) {
            Ok(_) => {
                self.suspicion = None;
                return None;
            }
            // The bucket gave no answer: nothing is known of the marker.
            Err(Error::Bucket(_)) => return None,
            Err(flaw) => flaw,
        };
        let looks = match &self.suspicion {
            Some((before, looks)) if is_same(before, &flaw) => looks + 1,
            _ => 1,
        };
        let what = change(&flaw);
        let told =
            (looks >= LOOKS).then(|| format!("{}, and start again", no_more(&self.cluster, &what)));
        tracing::warn!(%what, looks, "the bucket is not this cluster's; it is looked at again");
        self.suspicion = Some((flaw, looks));
        told
    }
}

/// What one look at the bucket of a cluster has to do with something else that went wrong there: nothing, or a sentence without its
/// full stop.
pub fn contradiction(cluster: &str, found: Result<Marker, Error>) -> Option<String> {
    match found.and_then(|marker| of_cluster(marker, cluster)) {
        Ok(_) | Err(Error::Bucket(_)) => None,
        Err(flaw) => Some(no_more(cluster, &change(&flaw))),
    }
}

/// The bucket is the cluster's no more, since `what` was found.
fn no_more(cluster: &str, what: &str) -> String {
    format!(
        "the bucket of cluster {cluster} was exchanged, wiped or damaged while this process ran: {what}. Give --bucket the cluster's \
         own bucket, or restore what was lost from a copy"
    )
}

/// Says in words what has happened to a marker that was there.
fn change(flaw: &Error) -> String {
    match flaw {
        Error::OtherCluster { found, .. } => format!("it belongs to cluster {found} now"),
        Error::NewerFormat(version) => format!("its marker has format {version} now"),
        Error::NewerField(name) => format!("its marker has a line {name:?} now"),
        Error::Damaged(why) => format!("its marker {} is damaged: {why}", marker_key()),
        _ => format!("its marker {} is gone", marker_key()),
    }
}

/// True if two looks found the same flaw; the example keys they name may differ.
fn is_same(one: &Error, other: &Error) -> bool {
    let absent = |error: &Error| matches!(error, Error::Empty | Error::NotOurs { .. });
    one == other || (absent(one) && absent(other))
}

fn of_cluster(found: Marker, cluster: &str) -> Result<Marker, Error> {
    if found.cluster == cluster {
        return Ok(found);
    }
    Err(Error::OtherCluster {
        found: found.cluster,
        expected: cluster.to_owned(),
    })
}

fn check_cluster_id(cluster: &str) -> Result<(), Error> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if (1..=MAX_CLUSTER_BYTES).contains(&cluster.len()) && cluster.bytes().all(fits) {
        return Ok(());
    }
    Err(Error::BadClusterId(cluster.chars().take(80).collect()))
}

/// The key of an object that is neither the marker nor left over from a probe.
async fn foreign(bucket: &dyn Bucket) -> Result<Option<String>, Error> {
    let first = bucket.list("", None, 1).await?;
    let mut found = first.into_iter().next();
    if found
        .as_ref()
        .is_some_and(|meta| meta.key.as_str().starts_with(PROBE))
    {
        // Skips objects of probes that were killed: "probe0" is the first key behind every
        // "probe/...".
        let behind = crate::layout::known(bucket::Key::new("probe0"));
        let rest = bucket.list("", Some(&behind), 1).await?;
        found = rest.into_iter().next();
    }
    Ok(found.map(|meta| meta.key.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bucket::Key;
    use crate::faulty::{Fault, FaultRule, Faulty};
    use crate::memory::Memory;
    use bytes::Bytes;

    fn marker(cluster: &str) -> Marker {
        Marker {
            cluster: cluster.to_owned(),
            created_ms: 1_790_000_000_000,
            bucket: 0,
            generation: 0x9a3f_0c11_52e7_b604,
            siblings: Vec::new(),
            journal: None,
        }
    }

    #[test]
    fn a_line_that_is_not_known_is_passed_over_unless_it_is_needed() {
        let with = |line: &str| {
            let text = String::from_utf8(marker("one").encode()).unwrap();
            let (fields, _) = text.split_once("crc32c ").unwrap();
            let fields = format!("{fields}{line}\n");
            let checksum = crc32c(fields.as_bytes());
            Marker::decode(format!("{fields}crc32c {checksum:08x}\n").as_bytes())
        };
        assert_eq!(with("colour blue"), Ok(marker("one")));
        let needed = Error::NewerField("colour!".to_owned());
        assert_eq!(with("colour! blue"), Err(needed));
    }

    #[test]
    fn only_what_was_written_is_a_marker() {
        let bytes = marker("4L6g3nShT-eMCtK--X86sw").encode();
        assert_eq!(Marker::decode(&bytes), Ok(marker("4L6g3nShT-eMCtK--X86sw")));
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1;
            assert!(Marker::decode(&damaged).is_err(), "byte {at}");
            assert!(Marker::decode(&bytes[..at]).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn the_worked_example_is_what_the_code_writes() {
        let page = include_str!("../../../docs/formats/bucket.md");
        let (_, example) = page.split_once("```text\n").unwrap();
        let (example, _) = example.split_once("```").unwrap();
        let written = marker("4L6g3nShT-eMCtK--X86sw").encode();
        assert_eq!(example.as_bytes(), written);
    }

    #[test]
    fn a_bucket_of_several_names_the_others_and_itself_among_them() {
        let siblings = vec![1, 0x9a3f_0c11_52e7_b604, 3];
        let one_of_three = Marker {
            bucket: 1,
            siblings: siblings.clone(),
            ..marker("one")
        };
        assert_eq!(
            Marker::decode(&one_of_three.encode()),
            Ok(one_of_three.clone())
        );
        let not_among_them = Marker {
            bucket: 2,
            ..one_of_three
        };
        let damaged = Marker::decode(&not_among_them.encode());
        assert!(matches!(damaged, Err(Error::Damaged(_))), "{damaged:?}");
    }

    #[test]
    fn a_journal_that_is_elsewhere_is_named() {
        let elsewhere = |word: &str| Marker {
            journal: Some(word.to_owned()),
            ..marker("one")
        };
        let etcd = elsewhere("etcd");
        assert_eq!(Marker::decode(&etcd.encode()), Ok(etcd));
        for word in ["", "ETCD", "etcd "] {
            let damaged = Marker::decode(&elsewhere(word).encode());
            assert!(
                matches!(damaged, Err(Error::Damaged(_))),
                "{word:?}: {damaged:?}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        let newer = b"seaway bucket\nformat 2\nanything else";
        assert_eq!(Marker::decode(newer), Err(Error::NewerFormat(2)));
    }

    #[tokio::test]
    async fn a_bucket_is_claimed_once_and_verified_ever_after() {
        let bucket = Memory::new();
        assert_eq!(verify(&bucket, "one").await, Err(Error::Empty));
        assert_eq!(claim(&bucket, &marker("one")).await, Ok(marker("one")));
        assert_eq!(claim(&bucket, &marker("one")).await, Ok(marker("one")));
        let other = claim(&bucket, &marker("two")).await;
        assert!(
            matches!(other, Err(Error::OtherCluster { .. })),
            "{other:?}"
        );
    }

    #[tokio::test]
    async fn a_bucket_with_foreign_content_is_refused() {
        let bucket = Memory::new();
        let put = async |key: &str| {
            let key = Key::new(key).unwrap();
            bucket.put_new(&key, Bytes::new().into()).await.unwrap();
        };
        put("probe/0123/left-over").await;
        assert_eq!(read(&bucket).await, Err(Error::Empty));
        put("wedding/001.jpg").await;
        let refused = claim(&bucket, &marker("one")).await;
        let example = "wedding/001.jpg".to_owned();
        assert_eq!(refused, Err(Error::NotOurs { example }));
    }

    #[tokio::test]
    async fn a_cluster_id_that_breaks_lines_is_refused() {
        let refused = claim(&Memory::new(), &marker("a\ncluster b")).await;
        assert!(matches!(refused, Err(Error::BadClusterId(_))));
    }

    fn faulty() -> Faulty {
        Faulty::new(std::sync::Arc::new(Memory::new()), 1)
    }

    #[tokio::test]
    async fn one_damaged_or_missing_answer_does_not_end_a_start() {
        for fault in [Fault::Corrupt, Fault::Truncate, Fault::Missing] {
            let bucket = faulty();
            claim(&bucket, &marker("one")).await.unwrap();
            bucket.faults().add(FaultRule::on(Op::Get, fault).times(2));
            let found = read_again(&bucket, true).await;
            assert_eq!(found, Ok(marker("one")), "{fault:?}");
            bucket.faults().add(FaultRule::on(Op::Get, fault).times(2));
            let claimed = claim(&bucket, &marker("one")).await;
            assert_eq!(claimed, Ok(marker("one")), "{fault:?}");
        }
    }

    #[tokio::test]
    async fn a_conflict_without_a_marker_may_pass_by_itself() {
        let bucket = faulty();
        bucket
            .faults()
            .add(FaultRule::on(Op::PutNew, Fault::Conflict).times(1));
        let refused = claim(&bucket, &marker("one")).await;
        assert!(matches!(refused, Err(Error::Bucket(_))), "{refused:?}");
        assert_eq!(claim(&bucket, &marker("one")).await, Ok(marker("one")));
    }

    #[test]
    fn one_look_tells_what_else_that_went_wrong_may_come_from() {
        let explained = |found| contradiction("one", found);
        assert_eq!(explained(Ok(marker("one"))), None);
        let away = bucket::Error::throttled(Op::Get, marker_key(), "later");
        assert_eq!(explained(Err(away.into())), None);
        let told = explained(Err(Error::Empty)).expect("it is not the cluster's");
        assert!(
            told.contains("wiped") && told.contains("--bucket"),
            "{told}"
        );
        let told = explained(Ok(marker("two"))).expect("it is not the cluster's");
        assert!(told.contains("belongs to cluster two now"), "{told}");
    }

    #[test]
    fn a_running_process_believes_what_it_finds_several_times_in_a_row() {
        let away = || Err(bucket::Error::unknown(Op::Get, marker_key(), "away").into());
        let foreign = |key: &str| {
            Err(Error::NotOurs {
                example: key.to_owned(),
            })
        };
        let mut watch = Watch::new("one");
        // A marker damaged on the way, or a bucket that is away, proves nothing.
        for found in [
            Err(Error::Damaged("a")),
            Err(Error::Empty),
            Err(Error::Damaged("a")),
            Ok(marker("one")),
            Err(Error::Empty),
            Err(Error::Empty),
            Ok(marker("one")),
            Ok(marker("two")),
            Ok(marker("three")),
            Ok(marker("two")),
            away(),
            Ok(marker("two")),
            Ok(marker("one")),
        ] {
            assert_eq!(watch.found(found), None);
        }
        assert!(watch.is_calm());
        // The bucket was emptied while this process goes on writing.
        assert_eq!(watch.found(Err(Error::Empty)), None);
        assert_eq!(watch.found(foreign("journal/0000/1")), None);
        assert_eq!(watch.found(away()), None);
        let told = watch.found(foreign("journal/0000/2")).expect("certain");
        assert!(told.contains("one") && told.contains("--bucket"), "{told}");
        let mut watch = Watch::new("one");
        let told = (0..3).filter_map(|_| watch.found(Ok(marker("two")))).last();
        assert!(
            told.expect("certain")
                .contains("belongs to cluster two now")
        );
    }
}
