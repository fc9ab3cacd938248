//! `seaway settings`: every setting with its default, unit and meaning.

use anyhow::Result;
use serde_json::json;

use crate::output::say;
use crate::settings::{Kind, SPECS, Spec};

/// What to print, and how.
#[derive(clap::Args)]
pub struct Arguments {
    /// Only settings whose name contains this.
    filter: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Prints the table.
pub fn run(arguments: &Arguments) -> Result<()> {
    let filter = arguments.filter.as_deref().unwrap_or("");
    let chosen: Vec<&Spec> = SPECS
        .iter()
        .filter(|spec| spec.name.contains(filter))
        .collect();
    if chosen.is_empty() {
        anyhow::bail!("no setting's name contains {filter}");
    }
    if arguments.json {
        let rows: Vec<_> = chosen.iter().map(|spec| as_json(spec)).collect();
        say!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    let width = |of: fn(&Spec) -> usize| chosen.iter().map(|spec| of(spec)).max().unwrap_or(0);
    let (name, default) = (
        width(|spec| spec.name.len()),
        width(|spec| spec.default.len()),
    );
    say!(
        "{:name$}  {:>default$}  {:5}  MEANING",
        "NAME",
        "DEFAULT",
        "UNIT"
    );
    for spec in chosen {
        let shown = if spec.default.is_empty() {
            "-"
        } else {
            spec.default
        };
        say!(
            "{:name$}  {shown:>default$}  {:5}  {}",
            spec.name,
            spec.unit,
            spec.meaning
        );
    }
    Ok(())
}

fn as_json(spec: &Spec) -> serde_json::Value {
    let allowed = match spec.kind {
        Kind::Integer { min, max } => json!({ "min": min, "max": max }),
        Kind::Boolean => json!(["true", "false"]),
        Kind::Choice(words) => json!(words),
        Kind::Host => json!("host"),
        Kind::Label { .. } | Kind::Text => json!("text"),
    };
    json!({
        "name": spec.name,
        "default": spec.default,
        "unit": spec.unit,
        "allowed": allowed,
        "meaning": spec.meaning,
    })
}
