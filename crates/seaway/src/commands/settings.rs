//! `seaway settings`: every setting with its default, unit and meaning.

use anyhow::Result;
use meta::setting::{Kind, Scope, Setting};
use serde_json::json;

use crate::output::say;
use crate::settings;

/// What to print, and how.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only settings whose name contains this.
    filter: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let filter = arguments.filter.as_deref().unwrap_or("");
    let mut chosen = settings::all();
    chosen.retain(|setting| setting.name.contains(filter));
    if chosen.is_empty() {
        anyhow::bail!("no setting's name contains {filter}");
    }
    if arguments.json {
        let rows: Vec<_> = chosen.iter().map(|spec| as_json(spec)).collect();
        say!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let width = |of: fn(&Setting) -> usize| chosen.iter().map(|spec| of(spec)).max().unwrap_or(0);
    let (name, default) = (
        width(|spec| spec.name.len()),
        width(|spec| spec.default.len()),
    );
    say!(
        "{:name$}  {:>default$}  {:5}  {:7}  MEANING",
        "NAME",
        "DEFAULT",
        "UNIT",
        "SCOPE"
    );
    for spec in chosen {
        let shown = if spec.default.is_empty() {
            "-"
        } else {
            spec.default
        };
        say!(
            "{:name$}  {shown:>default$}  {:5}  {:7}  {}",
            spec.name,
            spec.unit,
            scope(spec),
            spec.meaning
        );
    }
    Ok(())
}

fn as_json(spec: &Setting) -> serde_json::Value {
    let allowed = match spec.kind {
        Kind::Integer { min, max } => json!({ "min": min, "max": max }),
        Kind::Share { min, max } => json!({ "min": min, "max": max, "or": 0 }),
        Kind::Boolean => json!(["true", "false"]),
        Kind::Choice(words) => json!(words),
        Kind::Host => json!("host"),
        Kind::Fraction => json!({ "min": 0, "max": 1 }),
        Kind::Only(only, _) => json!([only]),
        Kind::Label { .. } | Kind::Text => json!("text"),
    };
    json!({
        "name": spec.name,
        "default": spec.default,
        "unit": spec.unit,
        "scope": scope(spec),
        "allowed": allowed,
        "meaning": spec.meaning,
    })
}

fn scope(setting: &Setting) -> &'static str {
    match setting.scope {
        Scope::Process => "process",
        Scope::Cluster => "cluster",
        Scope::Topic => "topic",
    }
}
