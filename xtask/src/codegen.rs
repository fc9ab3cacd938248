//! `codegen`: turns the protocol's facts in `crates/wire/schema` into `crates/wire/src/messages`,
//! and `proto/` into the messages of the crates `meta` and `etcd`.
//!
//! It must not know what a message is for; special cases belong into the schema's notation.

mod emit;
mod proto;
mod schema;

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};

/// Whether generated files are written, or only compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Write,
    /// Fail if anything differs.
    Check,
}

/// Generates every message module, and the messages of `proto/`.
pub(crate) fn run(mode: Mode) -> anyhow::Result<()> {
    proto::run(mode)?;
    let wire = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates/wire");
    let apis = read_schemas(&wire.join("schema"))?;
    let target = wire.join("src/messages");
    fs::create_dir_all(&target)?;
    let mut expected: Vec<PathBuf> = Vec::new();
    for api in &apis {
        let path = target.join(format!("{}.rs", api.module));
        settle(&path, &format_source(&emit::module(api))?, mode)?;
        expected.push(path);
    }
    let index = wire.join("src/messages.rs");
    settle(&index, &format_source(&emit::index(&apis))?, mode)?;
    for entry in fs::read_dir(&target)? {
        let path = entry?.path();
        if !expected.contains(&path) {
            bail!("{} has no schema: delete it", path.display());
        }
    }
    Ok(())
}

fn read_schemas(directory: &Path) -> anyhow::Result<Vec<schema::Api>> {
    let mut apis = Vec::new();
    for entry in fs::read_dir(directory).context("reading the schema directory")? {
        let path = entry?.path();
        let module = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .context("a file name")?;
        let text = fs::read_to_string(&path)?;
        let api = schema::parse(module, &text).with_context(|| format!("in {}", path.display()))?;
        apis.push(api);
    }
    apis.sort_by_key(|api| api.key);
    Ok(apis)
}

fn settle(path: &Path, source: &str, mode: Mode) -> anyhow::Result<()> {
    if fs::read_to_string(path).is_ok_and(|present| present == source) {
        return Ok(());
    }
    if mode == Mode::Check {
        bail!(
            "{} is not what the schema says: run `cargo xtask codegen`",
            path.display()
        );
    }
    fs::write(path, source).with_context(|| format!("writing {}", path.display()))
}

fn format_source(source: &str) -> anyhow::Result<String> {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--config-path"])
        .arg(config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("starting rustfmt")?;
    // It reads everything before it writes anything, so this cannot block on both pipes.
    let mut input = rustfmt.stdin.take().context("rustfmt's input")?;
    input.write_all(source.as_bytes())?;
    drop(input);
    let output = rustfmt.wait_with_output()?;
    if !output.status.success() {
        bail!("rustfmt refused the generated source");
    }
    Ok(String::from_utf8(output.stdout)?)
}
