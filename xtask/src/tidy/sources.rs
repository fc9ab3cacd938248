//! Rules on Rust sources: what a file says of itself, how long it is, what it re-exports, what it silences, and what
//! only `host` may do.

use super::tree::{Allowed, Tree, is_generated, is_test_file};

const FILE_LINES_MAX: usize = 800;
const FUNCTION_LINES_MAX: usize = 70;

/// What reaches for the machine's clock, entropy, sockets and tasks, and what to use instead.
const HOST_ONLY: &[(&str, &str)] = &[
    ("Instant::now", "host::clock, or a `now` that is passed in"),
    (
        "SystemTime::now",
        "host::clock, or a stamp that is passed in",
    ),
    ("tokio::time", "host::clock"),
    ("thread::sleep", "host::clock"),
    (
        "getrandom",
        "host's entropy, or a seeded generator that is passed in",
    ),
    (
        "rand::",
        "host's entropy, or a seeded generator that is passed in",
    ),
    (
        "tokio::spawn",
        "host::task: named, and a panic ends the process",
    ),
    (
        "tokio::task::spawn",
        "host::task: named, and a panic ends the process",
    ),
    (
        "thread::spawn",
        "host::task: named, and a panic ends the process",
    ),
    ("TcpListener::bind", "host::net"),
    ("TcpStream::connect", "host::net"),
];

/// Crates that meet the machine: the one that wraps it; the load generator, which measures; the chores.
const MEETS_MACHINE: &[&str] = &["crates/host/", "crates/bench/", "xtask/"];

/// Files that do not open by saying what they are for.
pub(crate) fn module_docs(tree: &Tree) -> Vec<String> {
    tree.rust()
        .filter(|(_, text)| {
            let first = text
                .lines()
                .find(|line| !line.is_empty() && !line.starts_with("// "));
            !first.unwrap_or_default().starts_with("//! ")
        })
        .map(|(path, _)| {
            format!("{path}: does not open with `//!`: what it is for, what it must not know")
        })
        .collect()
}

/// Files and functions that do not fit a screen or hold more than one idea.
pub(crate) fn lengths(tree: &Tree, allowed: &Allowed) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree.rust().filter(|(_, text)| !is_generated(text)) {
        let lines: Vec<&str> = text.lines().collect();
        if lines.len() > FILE_LINES_MAX && !allowed.permits(path) {
            found.push(format!(
                "{path}: {} lines; {FILE_LINES_MAX} hold one idea",
                lines.len()
            ));
        }
        for (line, name, length) in functions(&lines) {
            let in_tests = is_test_file(path) || in_test_module(&lines, line);
            if length > FUNCTION_LINES_MAX
                && !in_tests
                && !allowed.permits(&format!("{path}#{name}"))
            {
                found.push(format!(
                    "{path}:{}: {name} has {length} lines; {FUNCTION_LINES_MAX} fit a screen",
                    line + 1
                ));
            }
        }
    }
    found
}

/// (line, name, lines) of every function, by the indentation that rustfmt gives.
fn functions<'a>(lines: &[&'a str]) -> Vec<(usize, &'a str, usize)> {
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else {
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        let end = format!("{indent}}}");
        let declared = lines[start..]
            .iter()
            .position(|line| line.ends_with(['{', ';', '}']))
            .is_some_and(|opening| !lines[start + opening].ends_with('{'));
        if declared {
            continue; // without a body, or with one on the same line
        }
        if let Some(length) = lines[start..].iter().position(|line| *line == end) {
            found.push((start, name, length + 1));
        }
    }
    found
}

fn function_name(line: &str) -> Option<&str> {
    let mut rest = line.trim_start();
    while let Some(after) = [
        "pub(crate) ",
        "pub(super) ",
        "pub ",
        "const ",
        "async ",
        "unsafe ",
        "extern \"C\" ",
    ]
    .iter()
    .find_map(|word| rest.strip_prefix(word))
    {
        rest = after;
    }
    let name = rest.strip_prefix("fn ")?;
    Some(&name[..name.find(['(', '<'])?])
}

/// Whether `line` comes after a `#[cfg(test)]` that opens a module at the file's top level.
fn in_test_module(lines: &[&str], line: usize) -> bool {
    lines[..line]
        .windows(2)
        .any(|pair| pair[0] == "#[cfg(test)]" && pair[1].contains("mod ") && pair[1].ends_with('{'))
}

/// `pub use` of another crate of ours: every item has one address.
pub(crate) fn re_exports(tree: &Tree) -> Vec<String> {
    let ours = tree.manifests();
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        for (index, line) in text.lines().enumerate() {
            let Some(rest) = line.trim_start().strip_prefix("pub use ") else {
                continue;
            };
            let first = rest
                .trim_start_matches("::")
                .split([':', ';', ' '])
                .next()
                .unwrap_or_default();
            let own_module = text.contains(&format!("mod {first};"));
            if ours.contains_key(first) && !own_module {
                found.push(format!(
                    "{path}:{}: re-exports {first}; let users name it themselves",
                    index + 1
                ));
            }
        }
    }
    found
}

/// `#[allow]` and `#[expect]` without a reason.
pub(crate) fn unexplained_allows(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let mut rest = text;
        let mut line = 1;
        while let Some(at) = rest.find("#[").into_iter().chain(rest.find("#![")).min() {
            line += rest[..at].matches('\n').count();
            let commented = rest[..at]
                .rsplit('\n')
                .next()
                .unwrap_or_default()
                .contains("//");
            let attribute = &rest[at..];
            let attribute = &attribute[..attribute.find("]\n").unwrap_or(attribute.len())];
            let silences = ["allow(", "expect("].iter().any(|verb| {
                attribute
                    .match_indices(verb)
                    .any(|(at, _)| attribute[..at].ends_with(['[', ' ', ',', '(']))
            });
            if silences && !commented && !attribute.contains("reason = ") {
                found.push(format!("{path}:{line}: silences a lint without a reason"));
            }
            line += rest[at..at + 2].matches('\n').count();
            rest = &rest[at + 2..];
        }
    }
    found
}

/// Clocks, entropy, sockets and tasks outside `host`. Tests may wait for real servers; examples measure.
pub(crate) fn host_only(tree: &Tree, allowed: &Allowed) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in tree.rust() {
        let exempt = MEETS_MACHINE.iter().any(|start| path.starts_with(start));
        if exempt || is_test_file(path) || path.contains("/examples/") {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for (banned, instead) in HOST_ONLY {
                if uses(code, banned)
                    && !in_test_module(&lines, index)
                    && !allowed.permits(&format!("{path}#{banned}"))
                {
                    found.push(format!(
                        "{path}:{}: {banned} outside host; use {instead}",
                        index + 1
                    ));
                }
            }
        }
    }
    found
}

/// Whether `code` names `banned` as a path of its own, not as the end of a longer word or of host's own.
fn uses(code: &str, banned: &str) -> bool {
    code.match_indices(banned).any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(|letter: char| letter.is_alphanumeric() || letter == '_')
            && !before.ends_with("host::")
            && !before.ends_with("host::clock::")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_measured_by_their_indentation() {
        let text = "impl X {\n    pub(crate) async fn long<T>(\n        a: T,\n    ) -> u8\n    where\n        T: Y,\n    {\n        1\n    }\n\n    fn declared(&self);\n    fn short() {}\n}\n";
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(functions(&lines), [(1, "long", 8)]);
    }

    #[test]
    fn a_name_within_a_longer_one_is_no_use_of_it() {
        assert!(uses("let a = Instant::now();", "Instant::now"));
        assert!(uses("std::time::Instant::now()", "Instant::now"));
        assert!(!uses("MyInstant::now()", "Instant::now"));
        assert!(!uses("operand::x", "rand::"));
    }
}
