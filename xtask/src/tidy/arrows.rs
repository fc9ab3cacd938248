//! Which crate may depend on which: ARCHITECTURE.md's arrows. A new arrow is a decision on the architecture.

use super::tree::Tree;

/// A crate and what it may depend on among ours; then what its tests, examples and build may, beyond that.
const ARROWS: &[(&str, &[&str], &[&str])] = &[
    ("host", &[], &[]),
    ("wire", &[], &[]),
    ("meta", &[], &[]),
    // The conformance suite of buckets also runs against the in-memory S3 server.
    ("store", &["host"], &["bench"]),
    ("journal", &["host", "store"], &["bench"]),
    ("rpc", &["host", "meta"], &[]),
    (
        "agent",
        &["host", "meta", "rpc", "store", "wire"],
        &["control", "journal"],
    ),
    (
        "control",
        &["host", "journal", "meta", "rpc", "store"],
        &["bench"],
    ),
    ("etcd", &["host", "journal"], &[]),
    ("link", &["host", "meta", "rpc"], &[]),
    (
        "seaway",
        &[
            "agent", "control", "etcd", "host", "journal", "link", "meta", "rpc", "store", "wire",
        ],
        &["bench"],
    ),
    (
        "sim",
        &[
            "agent", "control", "host", "journal", "link", "meta", "rpc", "store", "wire",
        ],
        &[],
    ),
    ("bench", &["host", "wire"], &[]),
    ("xtask", &[], &[]),
];

/// Edges between our crates that [`ARROWS`] does not have, and crates that it does not know.
pub(crate) fn between_crates(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let mut found = Vec::new();
    for (name, manifest) in tree.manifests() {
        if name.ends_with("/fuzz") || name == "Cargo.toml" {
            continue;
        }
        let Some((_, normal, development)) = ARROWS.iter().find(|(known, ..)| *known == name)
        else {
            found.push(format!(
                "{name}: a crate that xtask/src/tidy/arrows.rs does not know"
            ));
            continue;
        };
        for (section, dependency) in dependencies(manifest) {
            if !ARROWS.iter().any(|(known, ..)| *known == dependency) {
                continue;
            }
            let may = normal.contains(&dependency)
                || section != "dependencies" && development.contains(&dependency);
            if !may {
                found.push(format!(
                    "{name}: may not depend on {dependency} ({section})"
                ));
            }
        }
    }
    Ok(found)
}

/// (section, name) of every dependency of a manifest, `dependencies` standing for those of the target sections too.
pub(crate) fn dependencies(manifest: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut section = None;
    for line in manifest.lines() {
        let line = line.trim();
        if let Some(head) = line.strip_prefix('[') {
            section = section_of(head.trim_end_matches(']'));
            if let Some(section) = section
                && let Some(name) = table_of(head.trim_end_matches(']'))
            {
                found.push((section, name));
            }
            continue;
        }
        let Some(section) = section else { continue };
        let name: &str = line.split(['.', '=', ' ']).next().unwrap_or_default();
        if !name.is_empty() && !name.starts_with('#') {
            found.push((section, name));
        }
    }
    found
}

/// The kind of dependencies that follow a section's head, if any do.
fn section_of(head: &str) -> Option<&'static str> {
    ["dev-dependencies", "build-dependencies", "dependencies"]
        .into_iter()
        .find(|kind| {
            head == *kind || head.ends_with(&format!(".{kind}")) && head.starts_with("target.")
        })
}

/// The dependency that has a section of its own (`[dependencies.name]`).
fn table_of(head: &str) -> Option<&str> {
    let (_, name) = head.split_once("dependencies.")?;
    (!head.starts_with("workspace")).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_of_all_sections_are_found() {
        let manifest = "[package]\nname = \"x\"\n[dependencies]\nhost.workspace = true\nbytes = \"1\"\n\n\
            [dev-dependencies]\nbench = { path = \"y\" }\n[target.'cfg(unix)'.dependencies]\nrustix = \"1\"\n";
        assert_eq!(
            dependencies(manifest),
            [
                ("dependencies", "host"),
                ("dependencies", "bytes"),
                ("dev-dependencies", "bench"),
                ("dependencies", "rustix"),
            ]
        );
    }
}
