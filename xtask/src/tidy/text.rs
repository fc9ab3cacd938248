//! Rules on all committed files: their names, and what none of them may mention.

use super::tree::Tree;

/// Names that say nothing of what is inside.
const EMPTY_NAMES: &[&str] = &[
    "util", "utils", "common", "types", "misc", "helper", "helpers", "manager", "impl",
];

/// Registry hosts, spelled in two halves so that this file may hold them: where packages come from is the affair of
/// the machine that builds.
const HOSTS: &[(&str, &str)] = &[
    ("crates", ".io/"),
    ("index.crates", ".io"),
    ("static.crates", ".io"),
    ("pypi", ".org"),
    ("files.python", "hosted.org"),
    ("registry.npm", "js.org"),
    ("repo.maven", ".apache.org"),
    ("repo1.maven", ".org"),
    ("proxy.gol", "ang.org"),
    ("sum.gol", "ang.org"),
    ("deb.deb", "ian.org"),
];

/// The first directories of absolute paths that exist on one machine only, in two halves for the same reason.
const MACHINE_PATHS: &[(&str, &str)] = &[
    ("/wo", "rk/"),
    ("/ro", "ot/"),
    ("/ho", "me/"),
    ("/Use", "rs/"),
];

/// Files and directories with a name that says nothing.
pub(crate) fn file_names(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for path in tree.files.keys() {
        for part in path.split('/') {
            let stem = part.split('.').next().unwrap_or(part);
            if EMPTY_NAMES.contains(&stem) || stem.ends_with("_v2") || stem.starts_with("new_") {
                found.push(format!(
                    "{path}: the name {stem} says nothing of what is inside"
                ));
            }
        }
    }
    found
}

/// Mentions of registry hosts and of places on one machine.
pub(crate) fn places(tree: &Tree) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in &tree.files {
        if path == "Cargo.lock" || path.ends_with("/Cargo.lock") {
            continue; // written by cargo, in its own words
        }
        for (index, line) in text.lines().enumerate() {
            for (one, other) in HOSTS {
                if line.contains(&format!("{one}{other}")) {
                    found.push(format!(
                        "{path}:{}: names the registry {one}{other}",
                        index + 1
                    ));
                }
            }
            for (one, other) in MACHINE_PATHS {
                if mentions_path(line, &format!("{one}{other}")) {
                    found.push(format!(
                        "{path}:{}: a path on one machine: {one}{other}",
                        index + 1
                    ));
                }
            }
        }
    }
    found
}

/// Whether `line` holds an absolute path that starts with `start`: not one that merely goes through such a directory.
fn mentions_path(line: &str, start: &str) -> bool {
    line.match_indices(start).any(|(at, _)| {
        line[..at]
            .chars()
            .next_back()
            .is_none_or(|before| !before.is_alphanumeric() && !"_-./~}*".contains(before))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_absolute_paths_count() {
        let start = format!("{}{}", "/ro", "ot/");
        assert!(mentions_path(&format!("see {start}x"), &start));
        assert!(mentions_path(&format!("\"{start}x\""), &start));
        assert!(!mentions_path(&format!("docs{start}x"), &start));
        assert!(!mentions_path(&format!("${{DIR}}{start}x"), &start));
    }
}
