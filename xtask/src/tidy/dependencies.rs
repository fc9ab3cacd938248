//! Every third-party dependency has its reason in deny.toml, as a comment `#: name: reason`, and no reason outlives its
//! dependency.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::arrows;
use super::tree::Tree;

const REASONS: &str = "deny.toml";

/// Dependencies without a reason, reasons without a dependency, workspace dependencies that nobody uses.
pub(crate) fn reasons(tree: &Tree) -> anyhow::Result<Vec<String>> {
    let explained = explained(tree.text(REASONS).context("no deny.toml")?)?;
    let manifests = tree.manifests();
    let used: BTreeSet<&str> = manifests
        .values()
        .flat_map(|manifest| arrows::dependencies(manifest))
        .map(|(_, name)| name)
        .filter(|name| !manifests.contains_key(name))
        .collect();
    let declared = declared(tree.text("Cargo.toml").context("no Cargo.toml")?);
    let missing = used
        .iter()
        .filter(|name| !explained.contains(*name))
        .map(|name| format!("{REASONS}: no reason for the dependency {name}"));
    let stale = explained
        .iter()
        .filter(|name| !used.contains(*name))
        .map(|name| format!("{REASONS}: a reason for {name}, on which nothing depends"));
    let unused = declared
        .iter()
        .filter(|name| !used.contains(*name) && !manifests.contains_key(*name))
        .map(|name| format!("Cargo.toml: nothing uses the workspace dependency {name}"));
    Ok(missing.chain(stale).chain(unused).collect())
}

fn explained(text: &str) -> anyhow::Result<BTreeSet<&str>> {
    text.lines()
        .filter_map(|line| line.strip_prefix("#: "))
        .map(|line| {
            let (name, reason) = line
                .split_once(": ")
                .with_context(|| format!("no reason: {line}"))?;
            anyhow::ensure!(
                reason.len() > 10,
                "{name}: a reason that says nothing: {reason}"
            );
            Ok(name)
        })
        .collect()
}

/// The names under [workspace.dependencies].
fn declared(manifest: &str) -> BTreeSet<&str> {
    manifest
        .lines()
        .skip_while(|line| *line != "[workspace.dependencies]")
        .skip(1)
        .take_while(|line| !line.starts_with('['))
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, _)| name)
        .collect()
}
