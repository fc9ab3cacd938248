//! Every setting that an operator can give a process: its own, declared here, and those of the
//! cluster, which only its first process sets. Kafka's names where Kafka has them. It parses and
//! checks values; it must not know what they are used for.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use journal::quarantine::Word;
use meta::level::Levels;
use meta::setting::{Kind, Setting};

use crate::address::{Address, check_host};

/// Other names for some settings: Kafka's, where ours differs.
const ALIASES: &[(&str, &str)] = &[
    ("advertised.host.name", "advertised.host"),
    ("zone", "broker.rack"),
];
/// Kafka's setting that holds host and port in one.
const ADVERTISED_LISTENERS: &str = "advertised.listeners";

const MAX: i64 = i64::MAX;
const INT_MAX: i64 = i32::MAX as i64;
const KIB: i64 = 1 << 10;
const MIB: i64 = 1 << 20;
const GIB: i64 = 1 << 30;

const fn integer(
    name: &'static str,
    default: &'static str,
    unit: &'static str,
    (min, max): (i64, i64),
    meaning: &'static str,
) -> Setting {
    Setting::new(name, Kind::Integer { min, max }, default, unit, meaning)
}

/// A setting without a unit.
const fn plain(
    name: &'static str,
    default: &'static str,
    kind: Kind,
    meaning: &'static str,
) -> Setting {
    Setting::new(name, kind, default, "", meaning)
}

/// The settings of a process, sorted by name; those of the cluster are in [`meta::level`].
const PROCESS: &[Setting] = &[
    plain(
        "advertised.host",
        "",
        Kind::Host,
        "Host that clients are told to connect to, that of --kafka by default; advertised.listeners=PLAINTEXT://HOST:PORT sets the port too.",
    ),
    integer(
        "advertised.port",
        "0",
        "",
        (0, 65_535),
        "Port that clients are told to connect to; 0: that of --kafka.",
    ),
    integer(
        "agent.silence.max.ms",
        "6000",
        "ms",
        (1_000, MAX),
        "An agent of which the leader hears nothing for this long is fenced: what it uploads is not committed any more, and clients are sent to others. It registers again by itself.",
    ),
    plain(
        "broker.rack",
        "local",
        Kind::Label { may_be_empty: true },
        "The zone this node says it is in; may be set as zone too.",
    ),
    integer(
        "bucket.reserve.bytes",
        "0",
        "bytes",
        (0, MAX),
        "No records are taken while less is free under a bucket that is a directory; 0 is a twentieth of its file system, 256 MiB to 4 GiB, a quarter at most.",
    ),
    integer(
        "cluster.configs.replace",
        "-1",
        "",
        (-1, MAX),
        "Makes the cluster's configs what this process is started with, if they are of this version; -1: they stay.",
    ),
    integer(
        "collect.interval.ms",
        "60000",
        "ms",
        (100, MAX),
        "Time between two runs of the collector of expired and never-committed files.",
    ),
    integer(
        "collect.list.interval.ms",
        "3600000",
        "ms",
        (100, MAX),
        "Least time between two listings of the bucket in search of never-committed files.",
    ),
    integer(
        "connections.max.idle.ms",
        "600000",
        "ms",
        (1_000, MAX),
        "A connection on which nothing was asked for this long is closed.",
    ),
    integer(
        "fetch.buffer.bytes",
        "67108864",
        "bytes",
        (16 * MIB, GIB * 1024),
        "Bytes of responses to fetches that may wait to be sent, over all connections.",
    ),
    integer(
        "fetch.cache.bytes",
        "134217728",
        "bytes",
        (16 * MIB, GIB * 1024),
        "Memory for parts of files that readers share.",
    ),
    integer(
        "fetch.max.bytes",
        "57671680",
        "bytes",
        (1_024, 1 << 31),
        "Most bytes in one answer to a fetch, whatever the client asks for.",
    ),
    integer(
        "flush.bytes",
        "4194304",
        "bytes",
        (KIB, 256 * MIB),
        "A file is cut and uploaded as soon as it holds this much.",
    ),
    integer(
        "flush.interval.max.ms",
        "250",
        "ms",
        (0, 60_000),
        "The same at the latest, while flush.requests.per.second are spent; and how long a command waits for its entry of the journal then.",
    ),
    integer(
        "flush.interval.ms",
        "25",
        "ms",
        (0, 60_000),
        "A file is cut and uploaded this long after its first batch came in, if not before, and if flush.requests.per.second allow it.",
    ),
    integer(
        "flush.requests.per.second",
        "8",
        "",
        (0, 1_000_000),
        "Requests to the bucket that an agent spends on files and their entries of the journal, and one more for each MiB; a leader spends twice as many on entries. What is not spent is saved up for 4 s. 0: as many as it takes; nor are they counted if the bucket is a directory.",
    ),
    integer(
        "groups.max.bytes",
        "67108864",
        "bytes",
        (MIB, GIB * 1024),
        "Memory for groups: offsets, what is attached to them, what members say of themselves. Requests that need more have to wait; an eighth of it is kept for groups and members that exist.",
    ),
    integer(
        "journal.entry.max.bytes",
        "4194304",
        "bytes",
        (64 * KIB, 64 * MIB),
        "Most bytes of commands in one entry of the journal.",
    ),
    integer(
        "journal.heartbeat.ms",
        "300",
        "ms",
        (10, 60_000),
        "Longest time between two entries of the journal while the cluster is in use.",
    ),
    plain(
        "journal.quarantine",
        "",
        Kind::Text,
        "Leaves out the entry of the journal of this name, as /readyz gives it, if this process cannot apply it: for all processes, and for ever.",
    ),
    integer(
        "journal.snapshot.bytes",
        "8388608",
        "bytes",
        (64 * KIB, GIB * 64),
        "A snapshot of the metadata is taken after this many bytes of journal, or a quarter of the last snapshot if that is \
         more. A start reads again what the journal holds since then.",
    ),
    integer(
        "journal.snapshot.entries",
        "10000",
        "",
        (10, MAX),
        "A snapshot of the metadata is taken after this many entries of the journal; in proportion later if a quarter of the \
         last snapshot is more than journal.snapshot.bytes.",
    ),
    plain(
        "log.format",
        "text",
        Kind::Choice(&["text", "json"]),
        "Form of the log lines on standard error.",
    ),
    plain(
        "log.level",
        "info",
        Kind::Text,
        "What is logged: error, warn, info, debug or trace, also by part (info,agent=debug).",
    ),
    integer(
        "log.retention.check.interval.ms",
        "300000",
        "ms",
        (100, MAX),
        "Time between two checks for records, producers and offsets that have expired.",
    ),
    integer(
        "max.connections",
        "10000",
        "",
        (1, 1_000_000),
        "Most connections at one time; fewer if the limit of open files (ulimit -Hn) leaves no more.",
    ),
    integer(
        "max.connections.per.ip",
        "2147483647",
        "",
        (1, INT_MAX),
        "Most connections from one address at one time.",
    ),
    integer(
        "max.incremental.fetch.session.cache.slots",
        "1000",
        "",
        (0, INT_MAX),
        "Fetch sessions kept for consumers. Consumers without one name all their partitions in every request.",
    ),
    integer(
        "num.network.threads",
        "0",
        "",
        (0, 1024),
        "Threads that serve clients; 0 for half of the cores, and at least one. More of them serve more at one time, at a higher cost each.",
    ),
    integer(
        "produce.buffer.bytes",
        "134217728",
        "bytes",
        (16 * MIB, GIB * 1024),
        "Bytes of produce requests that may be in flight, over all connections; more waits, and who sends too slowly then is closed.",
    ),
    plain(
        "region",
        "local",
        Kind::Label {
            may_be_empty: false,
        },
        "The region this node says it is in.",
    ),
    integer(
        "socket.request.max.bytes",
        "104857600",
        "bytes",
        (KIB, 1 << 31),
        "Largest request; a connection that announces a larger one is closed.",
    ),
    integer(
        "upload.concurrency",
        "16",
        "",
        (1, 1_024),
        "Files that may be on their way to the bucket at one time.",
    ),
    integer(
        "upload.timeout.ms",
        "30000",
        "ms",
        (100, 600_000),
        "A file that is not in the bucket after this long is given up; its producers retry.",
    ),
];

/// All settings, sorted by name.
pub fn all() -> Vec<&'static Setting> {
    let mut all: Vec<&Setting> = PROCESS
        .iter()
        .chain(Levels::KNOWN.newest().cluster_configs)
        .collect();
    all.sort_by_key(|setting| setting.name);
    all
}

#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, String>,
}

impl Settings {
    /// The defaults, changed by `NAME=VALUE` assignments; the last assignment of a name holds.
    pub fn parse<S: AsRef<str>>(assignments: &[S]) -> Result<Self> {
        let mut values: BTreeMap<_, _> = all()
            .into_iter()
            .map(|setting| (setting.name, setting.default.to_owned()))
            .collect();
        for assignment in assignments {
            let assignment = assignment.as_ref();
            let Some((name, value)) = assignment.split_once('=') else {
                bail!("--set {assignment}: write it as NAME=VALUE");
            };
            for (name, value) in expand(name.trim(), value.trim())? {
                let setting = find(name)?;
                check(setting, &value)?;
                values.insert(setting.name, value);
            }
        }
        let settings = Settings { values };
        settings.check_together()?;
        Ok(settings)
    }

    /// Gives a value to a text setting that is still empty.
    pub fn assume(&mut self, name: &'static str, value: &str) {
        if self.text(name).is_empty() {
            self.values.insert(name, value.to_owned());
        }
    }

    /// A whole number.
    ///
    /// # Panics
    /// If there is no such setting, or it is not a number: a mistake of ours.
    pub fn integer(&self, name: &str) -> i64 {
        self.text(name)
            .parse()
            .expect("numbers are checked when they are parsed")
    }

    /// A whole number that is never negative.
    pub fn unsigned(&self, name: &str) -> u64 {
        u64::try_from(self.integer(name)).unwrap_or(0)
    }

    /// A number that counts things in memory.
    pub fn size(&self, name: &str) -> usize {
        usize::try_from(self.integer(name)).unwrap_or(0)
    }

    pub fn millis(&self, name: &str) -> Duration {
        Duration::from_millis(self.unsigned(name))
    }

    pub fn boolean(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// The value as it was written.
    ///
    /// # Panics
    /// If there is no such setting: a mistake of ours.
    pub fn text(&self, name: &str) -> &str {
        self.values
            .get(name)
            .expect("only settings of the table are asked for")
    }

    pub fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (*name, value.as_str()))
    }

    fn check_together(&self) -> Result<()> {
        let (min, max) = (
            "group.min.session.timeout.ms",
            "group.max.session.timeout.ms",
        );
        if self.integer(min) > self.integer(max) {
            bail!("{min} is greater than {max}; lower the first or raise the second");
        }
        let (message, request) = ("message.max.bytes", "socket.request.max.bytes");
        if self.integer(message) > self.integer(request) {
            bail!("{message} is greater than {request}; lower the first or raise the second");
        }
        if self.integer(request) > self.integer("produce.buffer.bytes") {
            bail!(
                "{request} is greater than produce.buffer.bytes; lower the first or raise the second"
            );
        }
        if !self.text("journal.quarantine").is_empty() {
            self.quarantine()
                .map_err(|why| anyhow!("journal.quarantine={why}"))?;
        }
        Ok(())
    }

    /// The entry of the journal that is to be left out.
    pub fn quarantine(&self) -> Result<Word, String> {
        self.text("journal.quarantine").parse()
    }
}

/// What an assignment sets, under our own names.
fn expand<'a>(name: &'a str, value: &str) -> Result<Vec<(&'a str, String)>> {
    if name == ADVERTISED_LISTENERS {
        let address = value.split_once("://");
        let address = address.filter(|(listener, _)| listener.eq_ignore_ascii_case("PLAINTEXT"));
        let Some((_, address)) = address.filter(|_| !value.contains(',')) else {
            bail!("{name}={value}: write it as PLAINTEXT://HOST:PORT; there is one listener");
        };
        let address: Address = address
            .parse()
            .map_err(|why| anyhow!("{name}={value}: {why}"))?;
        return Ok(vec![
            ("advertised.host", address.host),
            ("advertised.port", address.port.to_string()),
        ]);
    }
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    let name = alias.map_or(name, |(_, name)| name);
    Ok(vec![(name, value.to_owned())])
}

fn find(name: &str) -> Result<&'static Setting> {
    if let Some(setting) = all().into_iter().find(|setting| setting.name == name) {
        return Ok(setting);
    }
    match nearest(name) {
        Some(near) => {
            bail!("there is no setting {name}; did you mean {near}? `seaway settings` lists all")
        }
        None => bail!("there is no setting {name}; `seaway settings` lists all"),
    }
}

fn check(setting: &Setting, value: &str) -> Result<()> {
    setting
        .check(&Levels::KNOWN.newest().texts, value)
        .map_err(|why| anyhow!(why))?;
    if setting.kind == Kind::Host {
        check_advertised(value).map_err(|why| anyhow!("{}={value}: {why}", setting.name))?;
    }
    Ok(())
}

fn check_advertised(host: &str) -> Result<(), String> {
    check_host(host)?;
    if host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()) {
        return Err("that is every address, and none that a client could connect to".to_owned());
    }
    Ok(())
}

/// The setting whose name is the fewest edits away, if it is near enough to be what was meant.
fn nearest(name: &str) -> Option<&'static str> {
    let near = all()
        .into_iter()
        .map(|setting| (edits(name, setting.name), setting.name))
        .min()?;
    (near.0 <= 1 + near.1.len() / 4).then_some(near.1)
}

fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replace = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = replace.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(assignment: &str) -> String {
        Settings::parse(&[assignment])
            .expect_err("must be refused")
            .to_string()
    }

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(PROCESS.is_sorted_by(|a, b| a.name < b.name));
        assert!(all().is_sorted_by(|a, b| a.name < b.name), "one row each");
        for spec in all() {
            // An empty host means "derive it", and cannot be set.
            if spec.kind != Kind::Host {
                check(spec, spec.default).expect("a default is valid");
            }
        }
        Settings::parse::<&str>(&[]).expect("the defaults agree with each other");
    }

    #[test]
    fn what_is_set_last_holds() {
        let settings = Settings::parse(&["num.partitions=3", "num.partitions = 4"]).expect("valid");
        assert_eq!(settings.integer("num.partitions"), 4);
        assert_eq!(
            settings.millis("flush.interval.ms"),
            Duration::from_millis(25)
        );
    }

    #[test]
    fn kafkas_names_are_taken() {
        let set = |assignments: &[&str], name: &str| {
            let settings = Settings::parse(assignments).expect("valid");
            settings.text(name).to_owned()
        };
        assert_eq!(set(&["broker.rack=az1"], "broker.rack"), "az1");
        assert_eq!(set(&["zone=az1"], "broker.rack"), "az1");
        assert_eq!(set(&["zone=az1", "broker.rack=az2"], "broker.rack"), "az2");
        assert_eq!(set(&["advertised.host.name=a"], "advertised.host"), "a");
        let listeners = "advertised.listeners=PLAINTEXT://kafka.example:19092";
        assert_eq!(set(&[listeners], "advertised.host"), "kafka.example");
        assert_eq!(set(&[listeners], "advertised.port"), "19092");
        let other = refusal("advertised.listeners=SASL_SSL://a:1");
        assert!(other.contains("PLAINTEXT://HOST:PORT"), "{other}");
        let two = refusal("advertised.listeners=PLAINTEXT://a:1,PLAINTEXT://b:2");
        assert!(two.contains("one listener"), "{two}");
    }

    #[test]
    fn an_advertised_host_is_one_that_clients_can_use() {
        for host in ["kafka.example", "10.0.0.1", "::1"] {
            Settings::parse(&[format!("advertised.host={host}")]).expect(host);
        }
        for (host, why) in [
            ("", "host is missing"),
            ("my host", "' ' cannot be in a host"),
            ("kafka.example:9092", "without a port"),
            ("PLAINTEXT://kafka.example", "without a port"),
            ("0.0.0.0", "none that a client could connect to"),
            ("::", "none that a client could connect to"),
        ] {
            let refused = refusal(&format!("advertised.host={host}"));
            assert!(refused.contains(why), "{refused}");
        }
        assert!(refusal("advertised.port=65536").contains("greatest value is 65535"));
    }

    #[test]
    fn what_a_node_says_of_itself_is_what_the_cluster_takes() {
        for name in ["region", "zone", "broker.rack", "advertised.host"] {
            let longest = "a".repeat(255);
            Settings::parse(&[format!("{name}={longest}")]).expect(name);
            let refused = refusal(&format!("{name}={longest}a"));
            let shown = if name == "zone" { "broker.rack" } else { name };
            assert!(refused.starts_with(shown), "{refused}");
            assert!(refused.contains("256 bytes, of which 255"), "{refused}");
        }
        assert_eq!(refusal("region="), "region=: must not be empty");
        assert!(refusal("region=a\tb").contains("control characters"));
        Settings::parse(&["broker.rack="]).expect("a node without a zone");
    }

    #[test]
    fn what_is_assumed_gives_way_to_what_is_set() {
        let mut settings = Settings::parse::<&str>(&[]).expect("valid");
        settings.assume("advertised.host", "localhost");
        settings.assume("advertised.host", "other");
        assert_eq!(settings.text("advertised.host"), "localhost");
    }

    #[test]
    fn a_refusal_says_what_to_do() {
        assert!(refusal("num.partition=3").contains("did you mean num.partitions?"));
        assert!(refusal("colour=blue").contains("`seaway settings` lists all"));
        assert!(refusal("num.partitions").contains("NAME=VALUE"));
        assert!(refusal("num.partitions=0").contains("least value is 1"));
        assert!(refusal("num.partitions=many").contains("whole number"));
        assert!(refusal("auto.create.topics.enable=yes").contains("true or false"));
        assert!(refusal("journal.quarantine=4097").contains("SLOT-DIGEST"));
        assert!(refusal("message.max.bytes=1000000000").contains("socket.request.max.bytes"));
    }
}
