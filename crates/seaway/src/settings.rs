//! Every setting that an operator can give a process: its own, declared here, and those of the
//! cluster, which only its first process sets. Kafka's names where Kafka has them. It parses and
//! checks values; it must not know what they are used for.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use journal::quarantine::Order;
use meta::level::Levels;
use meta::setting::{Kind, Setting};

use crate::address::{Address, check_reachable};
use crate::listeners::{self, LISTENERS, Planned, Said};
use crate::origin::{Assigned, Origin};

/// Other names for some settings: Kafka's, where ours differs.
const ALIASES: &[(&str, &str)] = &[("advertised.host.name", "advertised.host"), ("zone", ZONE)];

/// The setting of a process's zone, by Kafka's name.
pub const ZONE: &str = "broker.rack";
/// The zone of a process that is given none.
pub const ZONE_DEFAULT: &str = "local";
/// Names the setting that says in which region a process is.
pub const REGION: &str = "region";

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

/// Memory of which there is a share by default.
const fn share(name: &'static str, (min, max): (i64, i64), meaning: &'static str) -> Setting {
    Setting::new(name, Kind::Share { min, max }, "0", "bytes", meaning)
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
        "Host that clients are told to connect to, by default that on which a node with one listener listens.",
    ),
    plain(
        "advertised.listeners",
        "",
        Kind::Text,
        "Where clients of each of the listeners are told to connect, as NAME://HOST:PORT with commas between them; by default where it listens.",
    ),
    integer(
        "advertised.port",
        "0",
        "",
        (0, 65_535),
        "Port that clients are told to connect to; 0: the one on which a node with one listener listens.",
    ),
    integer(
        "agent.drain.max.ms",
        "15000",
        "ms",
        (0, 3_600_000),
        "How long an agent that is to end, by SIGTERM, lets its clients take to go to other agents before it closes their connections; it does not wait if there are none.",
    ),
    integer(
        "agent.silence.max.ms",
        "6000",
        "ms",
        (1_000, MAX),
        "An agent of which the leader hears nothing for this long is fenced: what it uploads is not committed any more, and clients are sent to others. It registers again by itself.",
    ),
    plain(
        ZONE,
        ZONE_DEFAULT,
        Kind::Label { may_be_empty: true },
        "The zone this node says it is in; may be set as zone too.",
    ),
    integer(
        "bucket.away.after.ms",
        "600000",
        "ms",
        (1_000, MAX),
        "A bucket of several that cannot be used for this long is away: files are forgotten without it, and it is rid of them once it is back.",
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
        "control.silence.max.ms",
        "600000",
        "ms",
        (30_000, MAX),
        "A control node of which the leader hears nothing for this long is forgotten: it is not shown any more, and holds no feature level back. It registers again by itself.",
    ),
    integer(
        "feature.level.max",
        "0",
        "",
        (0, 1_000_000),
        "The feature level is raised no further than this, so that the release before can come back. 0: as far as every process supports.",
    ),
    share(
        "fetch.buffer.bytes",
        (16 * MIB, GIB * 1024),
        "Bytes of responses to fetches that may wait to be sent, over all connections; 0: a share of memory.bytes.",
    ),
    share(
        "fetch.cache.bytes",
        (16 * MIB, GIB * 1024),
        "Memory for parts of files that readers share; 0: a share of memory.bytes.",
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
    share(
        "groups.max.bytes",
        (MIB, GIB * 1024),
        "Memory for groups: offsets, what is attached to them, what members say of themselves; 0: a share of memory.bytes. Requests that need more have to wait; an eighth of it is kept for groups and members that exist.",
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
        "Leaves out the entry of the journal of this name, as /readyz gives it, if this process cannot apply it: for all processes, and for ever. \
         With -forced after it also if another process has applied it.",
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
        "listener.zones",
        "",
        Kind::Text,
        "Zones that clients are in who come by a listener and name no zone in their client id, as NAME:ZONE with commas between them.",
    ),
    plain(
        "listeners",
        "PLAINTEXT://127.0.0.1:9092",
        Kind::Text,
        "Where to listen for Kafka clients, as NAME://HOST:PORT with commas between them; --kafka HOST:PORT means PLAINTEXT://HOST:PORT.",
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
        "Most connections at one time; fewer if the limit of open files (ulimit -Hn) leaves no more, or, unless it is set, if memory.bytes is little.",
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
    share(
        "memory.bytes",
        (16 * MIB, GIB * 1024 * 64),
        "Memory for all caches and buffers together, of which each has a share; 0: 60 % of what the container or the machine has, with dev at most 2 GiB.",
    ),
    integer(
        "num.network.threads",
        "0",
        "",
        (0, 1024),
        "Threads that serve clients; 0 for half of the cores, and at least one. More of them serve more at one time, at a higher cost each.",
    ),
    share(
        "produce.buffer.bytes",
        (16 * MIB, GIB * 1024),
        "Bytes of produce requests that may be in flight, over all connections; 0: a share of memory.bytes. More waits, and who sends too slowly then is closed.",
    ),
    plain(
        REGION,
        "local",
        Kind::Label {
            may_be_empty: false,
        },
        "The region this node says it is in.",
    ),
    integer(
        "repair.bytes.per.second",
        "209715200",
        "bytes",
        (KIB, GIB * 64),
        "The most that is copied in a second to a bucket of several that lacks files, by the agent that sees to it.",
    ),
    integer(
        "repair.files.per.second",
        "2000",
        "",
        (1, 1_000_000),
        "The most files that are copied in a second to a bucket of several that lacks them, by the agent that sees to it.",
    ),
    integer(
        "socket.request.max.bytes",
        "104857600",
        "bytes",
        (KIB, 1 << 31),
        "Largest request; a connection that announces a larger one is closed. Unless it is set, at most produce.buffer.bytes.",
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

/// Every name by which a setting may be given a value.
pub fn names() -> impl Iterator<Item = &'static str> {
    let names = all().into_iter().map(|setting| setting.name);
    let others = ALIASES.iter().map(|(alias, _)| *alias);
    names.chain(others)
}

#[derive(Clone, Debug)]
pub struct Settings {
    values: BTreeMap<&'static str, InForce>,
}

#[derive(Clone, Debug)]
struct InForce {
    text: String,
    origin: Origin,
}

impl InForce {
    fn new(text: &str, origin: &Origin) -> InForce {
        InForce {
            text: text.to_owned(),
            origin: origin.clone(),
        }
    }
}

impl Settings {
    /// The defaults, changed by assignments in their order: the last one of a name holds. Of what the file or the
    /// environment say, each setting has one.
    pub fn of(assigned: &[Assigned]) -> Result<Self> {
        let default = |setting: &Setting| InForce::new(setting.default, &Origin::Default);
        let mut settings = Settings {
            values: all()
                .into_iter()
                .map(|setting| (setting.name, default(setting)))
                .collect(),
        };
        for Assigned {
            name,
            value,
            origin,
        } in assigned
        {
            let set = settings.assign(name, value, origin);
            set.map_err(|why| origin.blame(why))?;
        }
        settings.check_together()?;
        Ok(settings)
    }

    /// The settings by `--set` alone.
    #[cfg(test)]
    pub fn parse<S: AsRef<str>>(assignments: &[S]) -> Result<Self> {
        Self::of(&crate::origin::of_flags(assignments)?)
    }

    fn assign(&mut self, name: &str, value: &str, origin: &Origin) -> Result<()> {
        let setting = find(own_name(name))?;
        check(setting, value)?;
        let before = self
            .values
            .insert(setting.name, InForce::new(value, origin));
        if let Some(before) = before.filter(|before| before.origin.is_beside(origin)) {
            bail!("{} is set already, by {}", setting.name, before.origin);
        }
        Ok(())
    }

    /// Listens at one address, as `--kafka` or its twin says it.
    pub fn listen_at(&mut self, address: &Address, from: &Origin) -> Result<()> {
        let value = format!("{}://{address}", meta::endpoint::PLAINTEXT);
        self.take_flag(&format!("--kafka {address}"), from, LISTENERS, &value)
    }

    /// Is in a zone, as `--zone` or `--zones` says it.
    pub fn be_in(&mut self, zone: &str, from: &Origin) -> Result<()> {
        self.take_flag(&format!("--zone {zone}"), from, ZONE, zone)
    }

    /// Is in a region, as `--region` says it.
    pub fn be_in_region(&mut self, region: &str, from: &Origin) -> Result<()> {
        self.take_flag(&format!("--region {region}"), from, REGION, region)
    }

    /// Gives a setting the value that a flag means, unless what comes before the flag's source says another; if the same
    /// source does, that is refused.
    fn take_flag(&mut self, flag: &str, from: &Origin, name: &str, value: &str) -> Result<()> {
        let setting = find(name)?;
        check(setting, value).map_err(|why| from.blame(why))?;
        let now = self.in_force(setting.name);
        if now.origin.rank() > from.rank() || now.text == value {
            return Ok(());
        }
        if now.origin.rank() == from.rank() {
            let now = &now.text;
            return Err(from.blame(format!("{flag} and {name}={now}: give one of them")));
        }
        self.values.insert(setting.name, InForce::new(value, from));
        self.check_together()
    }

    /// Gives a number to a setting that nobody gave one.
    pub fn derive(&mut self, name: &'static str, value: u64, from: String) {
        let derived = InForce::new(&value.to_string(), &Origin::Derived(from));
        self.values.insert(name, derived);
    }

    /// Whether there is a setting of this name.
    pub fn has(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    /// Whether a setting has another value than its default.
    ///
    /// # Panics
    /// If there is no such setting: a mistake of ours.
    pub fn is_changed(&self, name: &str) -> bool {
        let setting = find(name).expect("only settings of the table are asked for");
        self.text(name) != setting.default
    }

    /// Where the value comes from.
    ///
    /// # Panics
    /// If there is no such setting: a mistake of ours.
    pub fn origin(&self, name: &str) -> &Origin {
        &self.in_force(name).origin
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
        &self.in_force(name).text
    }

    fn in_force(&self, name: &str) -> &InForce {
        self.values
            .get(name)
            .expect("only settings of the table are asked for")
    }

    pub fn all(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.values
            .iter()
            .map(|(name, value)| (*name, value.text.as_str()))
    }

    /// What operators gave, each as NAME=VALUE: what makes another process have the same, but for the settings named here.
    pub fn given_but(&self, but: &[&str]) -> Vec<String> {
        let given = self.values.iter().filter(|(name, value)| {
            let is_other = !but.contains(*name);
            is_other && value.origin.is_given()
        });
        let given = given.map(|(name, value)| format!("{name}={}", value.text));
        given.collect()
    }

    /// Refuses values that do not go together.
    pub fn check_together(&self) -> Result<()> {
        self.check_order(
            "group.min.session.timeout.ms",
            "group.max.session.timeout.ms",
        )?;
        let request = "socket.request.max.bytes";
        self.check_order("message.max.bytes", request)?;
        // As long as the memory is not shared out, it is 0; the largest request follows it, unless it is set.
        let produce = "produce.buffer.bytes";
        if self.integer(produce) > 0 && self.origin(request).is_given() {
            self.check_order(request, produce)?;
        }
        // Who sets the first alone wants no shorter time than that.
        let latest = "flush.interval.max.ms";
        if self.origin(latest).is_given() {
            self.check_order("flush.interval.ms", latest)?;
        }
        self.listeners()?;
        if !self.text("journal.quarantine").is_empty() {
            self.quarantine()
                .map_err(|why| anyhow!("journal.quarantine={why}"))?;
        }
        Ok(())
    }

    /// Where to listen for Kafka clients, and where they are told to connect.
    pub fn listeners(&self) -> Result<Vec<Planned>> {
        listeners::plan(Said {
            listeners: self.text(LISTENERS),
            advertised_listeners: self.text("advertised.listeners"),
            zones: self.text("listener.zones"),
            advertised_host: self.text("advertised.host"),
            advertised_port: u16::try_from(self.integer("advertised.port")).unwrap_or(0),
        })
    }

    /// Refuses a setting that is greater than another.
    fn check_order(&self, less: &str, more: &str) -> Result<()> {
        if self.integer(less) <= self.integer(more) {
            return Ok(());
        }
        let shown = |name: &str| match self.origin(name) {
            Origin::Default | Origin::Flag(_) => name.to_owned(),
            origin => format!("{name} ({origin})"),
        };
        let (less, more) = (shown(less), shown(more));
        bail!("{less} is greater than {more}; lower the first or raise the second")
    }

    /// How far the feature level may be raised.
    pub fn level_max(&self) -> u32 {
        let wanted = u32::try_from(self.integer("feature.level.max")).unwrap_or(u32::MAX);
        if wanted == 0 { u32::MAX } else { wanted }
    }

    /// The entry of the journal that is to be left out.
    pub fn quarantine(&self) -> Result<Order, String> {
        self.text("journal.quarantine").parse()
    }
}

/// Our own name for a setting.
fn own_name(name: &str) -> &str {
    let alias = ALIASES.iter().find(|(alias, _)| *alias == name);
    alias.map_or(name, |(_, name)| name)
}

fn find(name: &str) -> Result<&'static Setting> {
    if let Some(setting) = all().into_iter().find(|setting| setting.name == name) {
        return Ok(setting);
    }
    match nearest(name, names()) {
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
        check_reachable(value).map_err(|why| anyhow!("{}={value}: {why}", setting.name))?;
    }
    if setting.name == ZONE {
        listeners::check_zone(value).map_err(|why| anyhow!("{}={value}: {why}", setting.name))?;
    }
    Ok(())
}

/// The name that is the fewest edits away, if it is near enough to be what was meant.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (edits(name, known), known)).min()?;
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
mod tests;
