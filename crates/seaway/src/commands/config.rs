//! `seaway config check`: what a node would be configured with, and where each value comes from. It starts nothing.

use anyhow::{Context, Result, anyhow, bail};
use clap::Command;
use serde_json::{Value, json};

use super::dev::check_of_several;
use crate::address::Address;
use crate::config::shares::family::Counts;
use crate::config::shares::{MEMORY, Process, Share};
use crate::config::{Configured, Given, Sources, command_line, names};
use crate::journals;
use crate::origin::Origin;
use crate::output::say;
use crate::settings::{self, Settings};

/// What to do with a configuration.
#[derive(clap::Subcommand)]
pub enum Verb {
    /// Judge the configuration and show what is in force and where it comes from.
    Check(Arguments),
}

/// What to judge, and how to print it.
#[derive(clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    given: Given,
    /// The verb that would be started with it.
    #[arg(long, default_value = "dev")]
    verb: String,
    /// Show what is as it is by default, too.
    #[arg(long)]
    all: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// A setting or a flag with its value.
struct Row {
    name: String,
    value: String,
    default: String,
    origin: Origin,
}

impl Row {
    fn as_json(&self) -> Value {
        json!({
            "name": self.name,
            "value": self.value,
            "default": self.default,
            "from": self.origin.to_string(),
        })
    }
}

pub fn run(verb: &Verb, program: &Command) -> Result<()> {
    let Verb::Check(arguments) = verb;
    let known: Vec<&Command> = names::node_verbs(program).collect();
    let Some(verb) = known.iter().find(|verb| verb.get_name() == arguments.verb) else {
        let known: Vec<&str> = known.iter().map(|verb| verb.get_name()).collect();
        bail!(
            "--verb {}: write one of {}",
            arguments.verb,
            known.join(", ")
        );
    };
    let given = &arguments.given;
    let sources = command_line::sources_of(program, verb, given, std::env::vars_os())?;
    let process = process(verb, &sources)?;
    let mut configured = sources.configure(given, process, host::memory::limit())?;
    take_flags(verb, process, &sources, &mut configured.settings)?;
    let mut rows = flags(verb, &sources);
    rows.extend(settings_of(&configured));
    rows.retain(|row| arguments.all || row.origin.is_given() && row.value != row.default);
    if arguments.json {
        let page = as_json(verb.get_name(), &rows, &configured);
        say!("{page:#}");
        return Ok(());
    }
    print(&rows, &configured)
}

/// Enters among the settings what flags mean for them, as the verb does.
fn take_flags(
    verb: &Command,
    process: Process,
    sources: &Sources,
    settings: &mut Settings,
) -> Result<()> {
    let said = |name: &str| {
        let mut flags = command_line::in_force(sources, verb);
        flags.find(|(flag, _)| flag.name == name)
    };
    if let Process::Family(_) = process {
        let zones = said("zones").map_or("", |(flag, _)| &flag.value);
        let zones = zones.split(',').filter(|zone| !zone.is_empty());
        let zones: Vec<String> = zones.map(str::to_owned).collect();
        check_of_several(settings, &zones, &sources.origin_of_flag("zones"))?;
    }
    if let Some((flag, _)) = said("journal") {
        journals::location(&flag.value)?;
    }
    let kafka = said("kafka").map(|(flag, _)| flag.value.parse::<Address>());
    let kafka = kafka.transpose().map_err(|why| anyhow!("--kafka: {why}"))?;
    sources.listen_at(kafka.as_ref(), settings)
}

/// What the verb would run, by the flags that the environment and the file give.
fn process(verb: &Command, sources: &Sources) -> Result<Process> {
    let count = |name: &str| {
        let flag = command_line::in_force(sources, verb).find(|(flag, _)| flag.name == name);
        let count = flag.map(|(flag, _)| flag.value.parse::<u32>());
        count.transpose().with_context(|| format!("--{name}"))
    };
    match verb.get_name() {
        "agent" => return Ok(Process::Agent),
        "control" => return Ok(Process::Control),
        _ => {}
    }
    match (count("agents")?, count("control")?) {
        (Some(agents), Some(control)) => Ok(Process::Family(Counts { agents, control })),
        (None, None) => Ok(Process::Dev),
        _ => bail!("--agents and --control of dev go together: give both, or neither"),
    }
}

/// The flags of the verb, but for those that are on no command line and have no default.
fn flags(verb: &Command, sources: &Sources) -> Vec<Row> {
    let flags = names::flags_of(verb).map(|(name, arg)| {
        let defaults = arg.get_default_values().iter();
        let defaults: Vec<_> = defaults.map(|value| value.to_string_lossy()).collect();
        let default = defaults.join(",");
        let assigned = command_line::in_force(sources, verb).find(|(flag, _)| flag.name == name);
        let (value, origin) = match assigned {
            Some((flag, _)) => (flag.value.clone(), flag.origin.clone()),
            None => (default.clone(), Origin::Default),
        };
        Row {
            name: format!("--{name}"),
            value,
            default,
            origin,
        }
    });
    flags.collect()
}

fn settings_of(configured: &Configured) -> impl Iterator<Item = Row> {
    let settings = &configured.settings;
    settings::all().into_iter().map(move |setting| Row {
        name: setting.name.to_owned(),
        value: settings.text(setting.name).to_owned(),
        default: setting.default.to_owned(),
        origin: settings.origin(setting.name).clone(),
    })
}

fn as_json(verb: &str, rows: &[Row], configured: &Configured) -> Value {
    let Configured { settings, shares } = configured;
    let parts = shares
        .parts()
        .map(|(name, share)| json!({ "of": name, "bytes": share.bytes, "from": from(share) }));
    json!({
        "verb": verb,
        "values": rows.iter().map(Row::as_json).collect::<Vec<_>>(),
        "memory": {
            "bytes": shares.total_bytes,
            "from": settings.origin(MEMORY).to_string(),
            "shares": parts.collect::<Vec<_>>(),
            "warning": shares.warning(),
        },
    })
}

fn print(rows: &[Row], configured: &Configured) -> Result<()> {
    let Configured { settings, shares } = configured;
    if rows.is_empty() {
        say!("Everything is as it is by default.");
    } else {
        let width = |of: fn(&Row) -> &str| rows.iter().map(|row| shown(of(row)).len()).max();
        let name = width(|row| &row.name).unwrap_or(0);
        let value = width(|row| &row.value).unwrap_or(0);
        say!("{:name$}  {:value$}  FROM", "NAME", "VALUE");
        for row in rows {
            let (text, origin) = (shown(&row.value), &row.origin);
            say!("{:name$}  {text:value$}  {origin}", row.name);
        }
    }
    let mut parts: Vec<_> = shares.parts().collect();
    parts.sort_by_key(|(name, share)| (std::cmp::Reverse(share.bytes), *name));
    let width = parts.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    let total = shares.total_bytes;
    say!("");
    say!("{:width$}  {:>14}  FROM", "MEMORY", "BYTES");
    say!("{MEMORY:width$}  {total:>14}  {}", settings.origin(MEMORY));
    for (name, share) in parts {
        say!("{name:width$}  {:>14}  {}", share.bytes, from(share));
    }
    if let Some(warning) = shares.warning() {
        say!("");
        say!("Warning: {warning}.");
    }
    Ok(())
}

/// Where what a cache or buffer has comes from.
fn from(share: &Share) -> String {
    let given = share.given.as_ref();
    given.map_or("share".to_owned(), Origin::to_string)
}

/// A value as a table shows it.
fn shown(value: &str) -> &str {
    if value.is_empty() { "-" } else { value }
}
