//! Memory is one setting, `memory.bytes`; every cache and every buffer takes its share of it (docs/memory.md). It must not
//! know how a budget is kept, nor read how large the machine is.

pub mod family;

use std::collections::BTreeMap;

use anyhow::{Result, bail};
use host::memory::{Limit, Whose};

use family::Counts;

use crate::origin::Origin;
use crate::settings::Settings;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

pub const MEMORY: &str = "memory.bytes";
const PRODUCE: &str = "produce.buffer.bytes";
/// What connections have, and the setting that says how many there may be.
const CONNECTIONS: &str = "connections";
const CONNECTIONS_MAX: &str = "max.connections";
const REQUEST: &str = "socket.request.max.bytes";
const ENTRY: &str = "journal.entry.max.bytes";
const QUEUE: &str = "queue of the journal";
const CALLS: &str = "calls that arrive";

/// Of all memory, this part is shared out by default; the rest is for code, stacks, what the cluster knows of topics and
/// files, the kernel's buffers of connections, and gaps between allocations.
const PERCENT: u64 = 60;
/// What a whole cluster in one process takes at most by default: it runs beside other things, on laptops.
const DEV_MAX: u64 = 2 * GIB;
/// Where neither the machine nor a container tells how much there is.
const UNKNOWN: u64 = GIB;
/// The first bytes of a frame, before it takes memory from a budget: each connection has room for them.
const CONNECTION_BYTES: u64 = 4 * KIB;
const OF_CONNECTIONS: (u64, u64) = (MIB, 10_000 * CONNECTION_BYTES);

/// What a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Process {
    /// Both, for one machine.
    Dev,
    Agent,
    Control,
    /// Processes of both kinds beside each other, and in itself nothing that takes memory.
    Family(Counts),
}

/// A cache or a buffer.
struct Part {
    /// Its setting, if it has one; else what it is for.
    name: &'static str,
    /// The processes that have it.
    of: &'static [Process],
    /// How much it gets beside the others, as long as that is within its bounds.
    weight: u64,
    min: u64,
    max: u64,
}

const fn part(of: &'static [Process], name: &'static str, weight: u64, bounds: (u64, u64)) -> Part {
    let (min, max) = bounds;
    Part {
        name,
        of,
        weight,
        min,
        max,
    }
}

/// Whoever runs an agent, and whoever runs a control node.
const OF_AGENTS: &[Process] = &[Process::Dev, Process::Agent];
const OF_AGENTS_ALONE: &[Process] = &[Process::Agent];
const OF_CONTROL: &[Process] = &[Process::Dev, Process::Control];
/// In `dev`, agent and control node pass each other values.
const OF_CONTROL_ALONE: &[Process] = &[Process::Control];

/// Every cache and buffer, as docs/memory.md explains them. A least size is what the largest request, batch or entry that is
/// allowed needs; a greatest one, what no load that one process can serve goes beyond. The cache alone has none.
const PARTS: &[Part] = &[
    part(OF_AGENTS, "fetch.cache.bytes", 300, (16 * MIB, u64::MAX)),
    part(OF_AGENTS, PRODUCE, 200, (16 * MIB, GIB)),
    part(OF_AGENTS, "fetch.buffer.bytes", 120, (16 * MIB, GIB)),
    part(OF_AGENTS, "decompressing", 90, (32 * MIB, 256 * MIB)),
    part(OF_AGENTS, "waiting members", 40, (16 * MIB, 256 * MIB)),
    part(OF_AGENTS, "fetch sessions", 40, (8 * MIB, 256 * MIB)),
    part(OF_AGENTS, "tails of partitions", 10, (2 * MIB, 64 * MIB)),
    part(
        OF_AGENTS,
        "beginnings of requests",
        30,
        (14 * MIB, 64 * MIB),
    ),
    part(OF_AGENTS, "answers", 60, (16 * MIB, 128 * MIB)),
    part(
        OF_AGENTS,
        "requests without records",
        20,
        (16 * MIB, 64 * MIB),
    ),
    part(OF_AGENTS, "decoded requests", 20, (16 * MIB, 64 * MIB)),
    part(
        OF_AGENTS,
        "answers to produce requests",
        40,
        (8 * MIB, 64 * MIB),
    ),
    // So that an agent in a container of 512 MiB takes all 10,000.
    part(OF_AGENTS_ALONE, CONNECTIONS, 180, OF_CONNECTIONS),
    part(&[Process::Dev], CONNECTIONS, 22, OF_CONNECTIONS),
    part(OF_AGENTS, "indexes of large files", 3, (3 * MIB, 3 * MIB)),
    part(OF_CONTROL, "groups.max.bytes", 50, (16 * MIB, GIB)),
    part(OF_CONTROL, QUEUE, 50, (16 * MIB, 64 * MIB)),
    part(OF_CONTROL, "requests to groups", 20, (16 * MIB, 64 * MIB)),
    part(OF_CONTROL, "awaited members", 15, (4 * MIB, 32 * MIB)),
    part(OF_CONTROL, "notices", 15, (2 * MIB, 16 * MIB)),
    part(OF_CONTROL_ALONE, CALLS, 50, (16 * MIB, 192 * MIB)),
];

/// What one cache or buffer has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    pub bytes: u64,
    /// Where an operator said so.
    pub given: Option<Origin>,
}

/// How a process shares out its memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shares {
    /// All of it.
    pub total_bytes: u64,
    /// What is left of the process's memory, where the system says how much that is.
    pub rest_bytes: Option<u64>,
    parts: BTreeMap<&'static str, Share>,
    warning: Option<String>,
}

/// A part that gets what is left, and its bounds.
struct Open {
    name: &'static str,
    weight: u64,
    min: u64,
    max: u64,
}

impl Shares {
    /// Shares out the memory of a process, as far as the settings do not, and gives the settings of caches and buffers
    /// their values.
    pub fn of(settings: &mut Settings, process: Process, limit: Option<Limit>) -> Result<Shares> {
        let most = match process {
            Process::Family(counts) => return family::divide(settings, counts, limit),
            Process::Dev => Some(DEV_MAX),
            Process::Agent | Process::Control => None,
        };
        let (total_bytes, from) = total(settings, most, limit);
        let (mut parts, open) = parts_of(settings, process);
        check(total_bytes, &from, &parts, &open)?;
        let given_bytes: u64 = parts.values().map(|share| share.bytes).sum();
        for (name, bytes) in share_out(total_bytes - given_bytes, open) {
            parts.insert(name, Share { bytes, given: None });
        }
        let shares = Shares {
            total_bytes,
            rest_bytes: limit.map(|limit| limit.bytes.saturating_sub(total_bytes)),
            parts,
            warning: warning(settings, total_bytes, limit),
        };
        shares.tell(settings, from);
        Ok(shares)
    }

    /// What the part of this name has; none if this process has no such part.
    pub fn bytes(&self, name: &str) -> u64 {
        self.parts.get(name).map_or(0, |share| share.bytes)
    }

    /// Every part, by name.
    pub fn parts(&self) -> impl Iterator<Item = (&'static str, &Share)> {
        self.parts.iter().map(|(name, share)| (*name, share))
    }

    /// What an operator should know who asks for so much.
    pub fn warning(&self) -> Option<&str> {
        self.warning.as_deref()
    }

    /// Gives the settings that follow from the memory their values.
    fn tell(&self, settings: &mut Settings, from: String) {
        if settings.unsigned(MEMORY) == 0 {
            settings.derive(MEMORY, self.total_bytes, from);
        }
        let share = || format!("share of {MEMORY}");
        for (name, has) in self.parts() {
            if name == CONNECTIONS {
                let connections = has.bytes / CONNECTION_BYTES;
                if connections < settings.unsigned(CONNECTIONS_MAX) {
                    settings.derive(CONNECTIONS_MAX, connections, share());
                }
            } else if has.given.is_none() && settings.has(name) {
                settings.derive(name, has.bytes, share());
            }
        }
        // The largest request must fit into the memory for requests.
        let produce = self.parts.get(PRODUCE);
        if let Some(produce) = produce
            && !settings.origin(REQUEST).is_given()
            && produce.bytes < settings.unsigned(REQUEST)
        {
            settings.derive(REQUEST, produce.bytes, format!("as {PRODUCE}"));
        }
    }
}

impl Open {
    /// Another setting may ask for more than the least.
    fn of(part: &Part, settings: &Settings) -> Open {
        let at_least = match part.name {
            PRODUCE if settings.origin(REQUEST).is_given() => settings.unsigned(REQUEST),
            QUEUE => settings.unsigned(ENTRY),
            // A call is little larger than the command in it.
            CALLS => settings.unsigned(ENTRY) + MIB,
            _ => 0,
        };
        let min = part.min.max(at_least);
        Open {
            name: part.name,
            weight: part.weight,
            min,
            max: part.max.max(min),
        }
    }
}

/// The parts of a process: those that the settings give memory to, and the others.
fn parts_of(settings: &Settings, process: Process) -> (BTreeMap<&'static str, Share>, Vec<Open>) {
    let (mut parts, mut open) = (BTreeMap::new(), Vec::new());
    for part in PARTS.iter().filter(|part| part.of.contains(&process)) {
        match given(settings, part.name) {
            Some(share) => {
                parts.insert(part.name, share);
            }
            None => open.push(Open::of(part, settings)),
        }
    }
    (parts, open)
}

/// The memory that there is to share out, by itself `most`, and where that comes from.
fn total(settings: &Settings, most: Option<u64>, limit: Option<Limit>) -> (u64, String) {
    let given = settings.unsigned(MEMORY);
    if given > 0 {
        return (given, settings.origin(MEMORY).to_string());
    }
    let Some(Limit { bytes, whose }) = limit else {
        let from = "neither a container nor the machine tells how much there is";
        return (UNKNOWN, from.to_owned());
    };
    let share = bytes / 100 * PERCENT;
    if let Some(most) = most.filter(|most| share > *most) {
        let from = format!("the most that dev takes by itself, {} MiB", most / MIB);
        return (most, from);
    }
    let whose = whose_limit(whose);
    (share, format!("{PERCENT} % of {whose} {} MiB", bytes / MIB))
}

fn whose_limit(whose: Whose) -> &'static str {
    match whose {
        Whose::Container => "the container's",
        Whose::Machine => "the machine's",
    }
}

/// What an operator says that a part has.
fn given(settings: &Settings, name: &str) -> Option<Share> {
    let (setting, unit_bytes) = match name {
        CONNECTIONS => (CONNECTIONS_MAX, CONNECTION_BYTES),
        name => (name, 1),
    };
    if !settings.has(setting) {
        return None;
    }
    let origin = settings.origin(setting);
    let bytes = settings.unsigned(setting).saturating_mul(unit_bytes);
    (origin.is_given() && bytes > 0).then(|| Share {
        bytes,
        given: Some(origin.clone()),
    })
}

/// Refuses memory that is too little for what is to fit into it.
fn check(
    total: u64,
    from: &str,
    given: &BTreeMap<&'static str, Share>,
    open: &[Open],
) -> Result<()> {
    let bytes = given.values().map(|share| share.bytes);
    let given_bytes = bytes.fold(0, u64::saturating_add);
    let least: u64 = open.iter().map(|part| part.min).sum();
    if given_bytes.saturating_add(least) <= total {
        return Ok(());
    }
    let explicit: Vec<String> = given
        .iter()
        .map(|(name, share)| match *name {
            CONNECTIONS => format!("{} for {CONNECTIONS_MAX}", share.bytes),
            name => format!("{name}={}", share.bytes),
        })
        .collect();
    let explicit = explicit.join(", ");
    if given_bytes > total {
        bail!(
            "{explicit}: that is {given_bytes} bytes, more than {MEMORY}, {total} ({from}): set less, or raise {MEMORY}"
        );
    }
    if given.is_empty() {
        let whole = least.div_ceil(PERCENT) * 100 / MIB + 1;
        bail!(
            "{MEMORY} is {total} ({from}), and {least} is the least that caches and buffers need: raise it, or give the \
             process {whole} MiB"
        );
    }
    bail!(
        "{MEMORY} is {total} ({from}), of which {explicit} takes {given_bytes}, and {least} is the least that the other \
         caches and buffers need: set less, or raise {MEMORY}"
    )
}

/// Shares out `rest` by weight, each part within its bounds; the least sizes together are no more than that.
fn share_out(mut rest: u64, mut open: Vec<Open>) -> Vec<(&'static str, u64)> {
    let mut shares = Vec::new();
    loop {
        let weights: u64 = open.iter().map(|part| part.weight).sum();
        let share = |part: &Open| {
            let share = u128::from(rest) * u128::from(part.weight) / u128::from(weights);
            u64::try_from(share).unwrap_or(u64::MAX)
        };
        // Those that would get too little first: what they get more, the others have less.
        let too_little = |part: &mut Open| share(part) < part.min;
        let mut bound: Vec<(&'static str, u64)> = open
            .extract_if(.., too_little)
            .map(|part| (part.name, part.min))
            .collect();
        if bound.is_empty() {
            let too_much = |part: &mut Open| share(part) > part.max;
            let most = open.extract_if(.., too_much);
            bound = most.map(|part| (part.name, part.max)).collect();
        }
        if bound.is_empty() {
            // Whole KiB, as budgets count.
            let whole = |part: &Open| (share(part) / KIB * KIB).max(part.min);
            shares.extend(open.iter().map(|part| (part.name, whole(part))));
            return shares;
        }
        rest -= bound.iter().map(|(_, bytes)| bytes).sum::<u64>();
        shares.extend(bound);
    }
}

fn warning(settings: &Settings, total: u64, limit: Option<Limit>) -> Option<String> {
    let Limit { bytes, whose } = limit?;
    let is_too_much = settings.origin(MEMORY).is_given() && total > bytes;
    is_too_much.then(|| {
        let whose = whose_limit(whose);
        format!("{MEMORY} is {total}, more than {whose} limit, {bytes}: the process may be killed for it")
    })
}

#[cfg(test)]
mod tests;
