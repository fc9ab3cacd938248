//! Floors within each crate: which modules stand on which, that no files lean on each other in a circle, and what pure
//! modules may not name. `arrows` says the same of whole crates.

use std::collections::{BTreeMap, BTreeSet};

use super::tree::{Allowed, Tree, is_generated, is_test_file};

/// Crate by crate its floors, the lowest first, each with the modules on it: those directly below the crate's root. A
/// module may use its own floor and those below. Crates that are not here have a single floor.
const FLOORS: &[(&str, &[&[&str]])] = &[
    (
        "meta",
        &[
            &["rule", "terms"],
            &["nouns"],
            &["state"],
            &["invariants"],
            &["apply", "query"],
            &["bytes"],
        ],
    ),
    (
        "journal",
        &[
            &["page", "rule", "entry"],
            &["chain", "engine", "quarantine", "snapshot"],
            &["memory", "object", "node"],
            &["three", "replica", "conformance"],
        ],
    ),
    (
        "control",
        &[
            &[
                "asking",
                "beats",
                "choice",
                "clocks",
                "configs",
                "lead",
                "losing",
                "membership",
                "coordinator",
                "namesake",
                "notices",
                "presence",
                "reach",
                "relaying",
                "roll",
                "storing",
                "turns",
            ],
            &["machine", "answer", "aside", "permission"],
            &[
                "groups",
                "attendance",
                "commits",
                "leading",
                "refusing",
                "told",
                "weight",
            ],
            &["node"],
            &[
                "attend",
                "away",
                "doubt",
                "housekeeping",
                "interregnum",
                "registration",
                "relay",
                "roster",
                "weighing",
            ],
            &["service", "setting_time", "preferring", "succession"],
            &["choosing", "comparing", "progress"],
            &["start"],
        ],
    ),
    (
        "link",
        &[
            &[
                "beginnings",
                "directory",
                "message",
                "process",
                "reckoning",
                "runtime",
            ],
            &["attempt", "stream", "verify"],
            &["keys"],
            &["caller", "handshake"],
            &["connection", "front"],
            &[
                "ask",
                "cluster",
                "lines",
                "neighbours",
                "offers",
                "reception",
                "relay",
                "server",
                "watch",
            ],
            &["discovery"],
        ],
    ),
    (
        "agent",
        &[
            &[
                "metrics", "settings", "route", "departed", "drain", "pauses",
            ],
            &["counted", "data", "edge"],
            &["view"],
            &["losses"],
            &["api", "context"],
            &["server"],
        ],
    ),
    (
        "etcd",
        &[
            &["proto", "keys", "location", "roster", "run"],
            &["grpc"],
            &["requests", "course", "security"],
            &["connection"],
            &["client"],
            &["engine"],
            &["founding"],
        ],
    ),
    (
        "seaway",
        &[
            &[
                "address",
                "data_dir",
                "fail_points",
                "journals",
                "links",
                "listeners",
                "origin",
                "output",
                "runtime",
                "settings",
                "spending",
                "version",
            ],
            &["config", "health", "http", "issuing", "logging", "tuning"],
            &["leading", "timing"],
            &["admission", "pages", "places", "running"],
            &["listening"],
            &["cluster", "family"],
            &["roles"],
            &["client", "commands"],
        ],
    ),
];

/// Files and folders, below `crates/`, that decide and do nothing else.
const PURE: &[&str] = &[
    "wire/src/",
    "meta/src/",
    "host/src/allowance.rs",
    "host/src/thrift.rs",
    "rpc/src/call.rs",
    "rpc/src/encoding",
    "rpc/src/error.rs",
    "rpc/src/group.rs",
    "rpc/src/notice.rs",
    "rpc/src/position.rs",
    "rpc/src/speaker.rs",
    "etcd/src/course.rs",
    "etcd/src/grpc.rs",
    "etcd/src/keys.rs",
    "etcd/src/location.rs",
    "etcd/src/requests.rs",
    "etcd/src/roster.rs",
    "etcd/src/run.rs",
    "journal/src/chain.rs",
    "journal/src/entry.rs",
    "journal/src/node/",
    "journal/src/node.rs",
    "journal/src/three/ballot.rs",
    "journal/src/three/call.rs",
    "journal/src/three/cell.rs",
    "journal/src/three/context.rs",
    "journal/src/three/core.rs",
    "journal/src/three/floors.rs",
    "journal/src/three/judge.rs",
    "journal/src/three/pace.rs",
    "journal/src/three/read.rs",
    "journal/src/three/record.rs",
    "journal/src/three/seen.rs",
    "journal/src/three/tenure.rs",
    "journal/src/three/tenure/",
    "journal/src/three/trim.rs",
    "link/src/attempt/",
    "link/src/attempt.rs",
    "link/src/directory.rs",
    "link/src/message.rs",
    "link/src/process.rs",
    "link/src/reckoning.rs",
    "control/src/answer/",
    "control/src/answer.rs",
    "control/src/aside.rs",
    "control/src/aside/",
    "control/src/choice.rs",
    "control/src/choice/",
    "control/src/clocks.rs",
    "control/src/clocks/",
    "control/src/coordinator/",
    "control/src/coordinator.rs",
    "control/src/lead.rs",
    "control/src/membership.rs",
    "control/src/namesake.rs",
    "control/src/permission.rs",
    "control/src/presence.rs",
    "control/src/roll.rs",
    "control/src/storing.rs",
    "control/src/turns.rs",
    "control/src/turns/",
    "agent/src/departed.rs",
    "agent/src/data/produce/batch.rs",
    "agent/src/data/produce/batcher.rs",
    "agent/src/data/produce/commit.rs",
    "agent/src/data/produce/event.rs",
    "agent/src/data/produce/file.rs",
    "agent/src/data/produce/sequence.rs",
    "agent/src/data/fetch/ahead.rs",
    "agent/src/data/fetch/item.rs",
    "agent/src/data/fetch/items.rs",
    "agent/src/data/fetch/neighbours/pace.rs",
    "agent/src/data/fetch/neighbours/ring.rs",
    "agent/src/data/fetch/plan.rs",
    "agent/src/data/fetch/poll.rs",
    "agent/src/data/fetch/tail.rs",
    "agent/src/data/fetch/tails.rs",
    "agent/src/edge/connection.rs",
    "agent/src/edge/connection/",
    "seaway/src/config/shares.rs",
    "seaway/src/origin.rs",
];

/// What a pure module may not name: it waits for nothing, reads no clock, shares nothing, holds no memory for others.
const IMPURE: &[&str] = &[
    "tokio::",
    "async fn",
    "clock::now",
    "clock::wall_millis",
    "rng::nonce",
    "Atomic",
    "Mutex",
    "budget::",
];

/// Modules that use a floor above theirs.
pub(crate) fn between_floors(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (name, floors) in FLOORS {
        let floor_of = |module: &str| floors.iter().position(|floor| floor.contains(&module));
        let files = Files::of(tree, name);
        for (path, used) in files.uses() {
            let Some(own) = module_of(name, path) else {
                continue;
            };
            let Some(floor) = floor_of(own) else {
                found.push(format!(
                    "{path}: its module is on no floor of xtask/src/tidy/floors.rs"
                ));
                continue;
            };
            for other in used {
                if let Some(module) = module_of(name, other)
                    && floor_of(module).is_some_and(|above| above > floor)
                {
                    found.push(format!("{path}: uses {other}, which is a floor above it"));
                }
            }
        }
    }
    found
}

/// Files of a crate that lean on each other in a circle. A file may use its parent, whose part it is.
pub(crate) fn circles(tree: &Tree, allowed: &Allowed) -> Vec<String> {
    let mut found = Vec::new();
    for name in tree.manifests().keys() {
        let files = Files::of(tree, name);
        let uses = files.uses();
        let circles = circles_of(&uses).into_iter();
        for circle in circles.filter(|files| !allowed.permits(&format!("{}#circle", files[0]))) {
            found.push(format!("these files use each other: {}", circle.join(", ")));
        }
    }
    found
}

/// Pure modules that name what only a shell may.
pub(crate) fn purity(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let Some(below) = path.strip_prefix("crates/") else {
            continue;
        };
        if is_test_file(path) || !PURE.iter().any(|pure| below.starts_with(pure)) {
            continue;
        }
        for (index, line) in code(text).lines().enumerate() {
            for word in IMPURE.iter().filter(|word| line.contains(**word)) {
                found.push(format!(
                    "{path}:{}: {word} in a module that only decides",
                    index + 1
                ));
            }
        }
    }
    found
}

/// The sources of one crate by path, without tests and generated files.
struct Files<'a> {
    source: String,
    texts: BTreeMap<&'a str, &'a str>,
}

impl<'a> Files<'a> {
    fn of(tree: &'a Tree, name: &str) -> Self {
        let source = match name {
            "xtask" => "xtask/src/".to_owned(),
            _ => format!("crates/{name}/src/"),
        };
        let texts = tree
            .rust()
            .filter(|(path, text)| {
                path.starts_with(&source) && !is_test_file(path) && !is_generated(text)
            })
            .collect();
        Files { source, texts }
    }

    /// For each file the others that it names by path; its parents left out, since it is a part of them.
    fn uses(&self) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
        let mut uses = BTreeMap::new();
        for (path, text) in &self.texts {
            let own = self.module_path(path);
            let named = paths(&code(text), &own);
            let others = named
                .iter()
                .filter_map(|named| self.file_of(named))
                .filter(|other| other != path && !own.starts_with(&self.module_path(other)))
                .collect();
            uses.insert(*path, others);
        }
        uses
    }

    /// `crates/agent/src/data/fetch.rs` -> `["data", "fetch"]`.
    fn module_path(&self, path: &str) -> Vec<String> {
        let inner = path[self.source.len()..].trim_end_matches(".rs");
        let mut parts: Vec<String> = inner.split('/').map(str::to_owned).collect();
        if matches!(
            parts.last().map(String::as_str),
            Some("mod" | "lib" | "main")
        ) {
            parts.pop();
        }
        parts
    }

    /// The file that holds what `named` begins with: the longest part of it that is a file.
    fn file_of(&self, named: &[String]) -> Option<&'a str> {
        (1..=named.len()).rev().find_map(|length| {
            let stem = format!("{}{}", self.source, named[..length].join("/"));
            [format!("{stem}.rs"), format!("{stem}/mod.rs")]
                .iter()
                .find_map(|path| self.texts.get_key_value(path.as_str()))
                .map(|(path, _)| *path)
        })
    }
}

/// The module directly below the crate's root that a file belongs to; none for the root itself.
fn module_of<'a>(name: &str, path: &'a str) -> Option<&'a str> {
    let inner = path.strip_prefix(&format!("crates/{name}/src/"))?;
    let first = inner.split('/').next()?.trim_end_matches(".rs");
    (!matches!(first, "lib" | "main" | "bin")).then_some(first)
}

/// A source without its comments and without what follows the first test module.
pub(crate) fn code(text: &str) -> String {
    let mut code = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        // Tests that are in a file of their own are only named here, above the code.
        if line == "#[cfg(test)]" && !lines.peek().is_some_and(|next| next.ends_with(';')) {
            break;
        }
        code.push_str(line.split("//").next().unwrap_or_default());
        code.push('\n');
    }
    code
}

/// Every path of the crate that `code`, in the module `own`, names: from `crate::` and `super::` on, groups in braces
/// taken apart.
fn paths(code: &str, own: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, _) in code
        .match_indices("crate::")
        .chain(code.match_indices("super::"))
    {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let mut rest = &code[at..];
        let mut base = Vec::new();
        if let Some(after) = rest.strip_prefix("crate::") {
            rest = after;
        } else {
            base = own.to_vec();
            while let Some(after) = rest.strip_prefix("super::") {
                base.pop();
                rest = after;
            }
        }
        branches(rest, &base, &mut found);
    }
    found
}

/// Follows one path, and each branch of a group of them, to its end; gives what comes after it.
fn branches<'a>(text: &'a str, base: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let mut path = base.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            rest = group;
            while !rest.trim_start().starts_with('}') && !rest.trim_start().is_empty() {
                rest = branches(rest, &path, found).trim_start();
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            return rest.trim_start().strip_prefix('}').unwrap_or_default();
        }
        let end = rest
            .find(|c: char| !c.is_alphanumeric() && c != '_')
            .unwrap_or(rest.len());
        if end > 0 {
            path.push(rest[..end].to_owned());
        }
        match rest[end..].strip_prefix("::") {
            Some(after) if end > 0 => rest = after,
            _ => {
                found.push(path);
                let after = &rest[end..];
                let renamed = after.strip_prefix(" as ");
                return renamed.map_or_else(
                    || if end == 0 { skip_one(after) } else { after },
                    |name| name.trim_start_matches(|c: char| c.is_alphanumeric() || c == '_'),
                );
            }
        }
    }
}

/// Past a character that begins no name, such as the star of a glob.
fn skip_one(text: &str) -> &str {
    let mut characters = text.chars();
    characters.next();
    characters.as_str()
}

/// The circles of a graph: its strongly connected parts of more than one node (by who reaches whom: crates are small).
fn circles_of<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> Vec<Vec<&'a str>> {
    let reaches: BTreeMap<&str, BTreeSet<&str>> = uses
        .keys()
        .map(|start| {
            let mut seen = BTreeSet::new();
            let mut open = vec![*start];
            while let Some(next) = open.pop() {
                for other in uses.get(next).into_iter().flatten() {
                    if seen.insert(*other) {
                        open.push(other);
                    }
                }
            }
            (*start, seen)
        })
        .collect();
    let mut told = BTreeSet::new();
    let mut circles = Vec::new();
    for (start, reached) in &reaches {
        if !reached.contains(start) || !told.insert(*start) {
            continue;
        }
        let mut circle = vec![*start];
        for other in reached {
            if other != start && reaches[other].contains(start) {
                told.insert(*other);
                circle.push(*other);
            }
        }
        circles.push(circle);
    }
    circles
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(code: &str, own: &[&str]) -> Vec<String> {
        let own: Vec<String> = own.iter().map(|part| (*part).to_owned()).collect();
        paths(code, &own)
            .iter()
            .map(|path| path.join("::"))
            .collect()
    }

    #[test]
    fn paths_in_groups_are_taken_apart() {
        let code = "use crate::a::{self, b::{C, d}, E as F};\nlet x = super::g::h();";
        assert_eq!(
            named(code, &["m", "n"]),
            ["a::self", "a::b::C", "a::b::d", "a::E", "m::g::h"]
        );
    }

    #[test]
    fn files_in_a_circle_are_named_once() {
        let uses: BTreeMap<&str, BTreeSet<&str>> = [
            ("a", BTreeSet::from(["b"])),
            ("b", BTreeSet::from(["c"])),
            ("c", BTreeSet::from(["a"])),
            ("d", BTreeSet::from(["a"])),
        ]
        .into();
        assert_eq!(circles_of(&uses), [["a", "b", "c"]]);
    }
}
