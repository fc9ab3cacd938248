//! Keeps the architecture by machine: `cargo xtask tidy`, and a test that does the same. Each rule is a function from
//! the tree to its findings; the rules' facts (arrows, bans, names) are tables beside them.
//!
//! It reads text, not syntax: rustfmt has made the text regular. It must not know what any crate does.

mod arrows;
mod dependencies;
mod floors;
mod levels;
mod sources;
mod text;
mod tree;

use std::path::Path;

use tree::Tree;

/// Exceptions to the rules on length, each with its reason: `path[#function]: reason` a line.
const ALLOWED: &str = "xtask/tidy-allowed.txt";

/// Prints what breaks a rule; fails if anything does.
pub(crate) fn run() -> anyhow::Result<()> {
    let findings = findings(&root())?;
    for finding in &findings {
        println!("{finding}");
    }
    if findings.is_empty() {
        return Ok(());
    }
    anyhow::bail!("tidy: {} findings", findings.len())
}

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("..")
        .components()
        .collect()
}

fn findings(root: &Path) -> anyhow::Result<Vec<String>> {
    let tree = Tree::load(root)?;
    let allowed = tree::Allowed::parse(tree.text(ALLOWED).unwrap_or_default())?;
    let mut found = Vec::new();
    found.extend(sources::module_docs(&tree));
    found.extend(sources::lengths(&tree, &allowed));
    found.extend(sources::re_exports(&tree));
    found.extend(sources::unexplained_allows(&tree));
    found.extend(sources::host_only(&tree, &allowed));
    found.extend(arrows::between_crates(&tree)?);
    found.extend(floors::between_floors(&tree));
    found.extend(floors::circles(&tree, &allowed));
    found.extend(floors::purity(&tree));
    found.extend(levels::bare_numbers(&tree, &allowed));
    found.extend(dependencies::reasons(&tree)?);
    found.extend(text::file_names(&tree));
    found.extend(text::places(&tree));
    found.extend(allowed.unused());
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repository_is_tidy() {
        let findings = findings(&root()).expect("the repository can be read");
        assert!(findings.is_empty(), "\n{}\n", findings.join("\n"));
    }
}
