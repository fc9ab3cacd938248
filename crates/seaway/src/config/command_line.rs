//! The command line, completed: for a verb that runs a node, each flag that is not on it is taken from its twin in the
//! environment or the file, and judged as if it stood there. It must not know what a verb does.

use std::error::Error as _;
use std::ffi::OsString;

use anyhow::Result;
use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgAction, Command, CommandFactory, FromArgMatches};

use super::names::{self, Names};
use super::{Given, Sources};
use crate::origin::{Assigned, Origin};

/// The arguments of the program, and what a node's verb is configured with beside them. The error is clap's own where the
/// command line itself is wrong, or asks for help.
pub fn parse<P: CommandFactory + FromArgMatches>(
    mut line: Vec<OsString>,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(P, Sources)> {
    let program = P::command();
    let mut sources = Sources::default();
    if let Some(completed) = complete(&program, &line, environment)? {
        (line, sources) = completed;
    }
    let mut matches = program.try_get_matches_from(line)?;
    Ok((P::from_arg_matches_mut(&mut matches)?, sources))
}

/// What a verb that runs a node would be configured with if it were started without flags.
pub fn sources_of(
    program: &Command,
    verb: &Command,
    given: &Given,
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Sources> {
    let names = Names::of(program, verb.get_name());
    let mut sources = Sources::read(given, &names, environment)?;
    for (flag, arg) in in_force(&sources, verb) {
        as_argument(program, verb, flag, arg)?;
    }
    settle(&mut sources, verb, |_| false);
    Ok(sources)
}

/// Leaves the flags that are in force: each gives way to itself on the command line, and to a flag that excludes it and is
/// said where more weight is.
fn settle(sources: &mut Sources, verb: &Command, is_on_line: impl Fn(&Arg) -> bool) {
    let on_line = Origin::Flag(String::new()).rank();
    let typed = verb.get_arguments().filter(|arg| is_on_line(arg));
    let typed = typed.map(|arg| (on_line, arg));
    let is_off = |flag: &Assigned, arg: &Arg| {
        matches!(arg.get_action(), ArgAction::SetTrue) && flag.value == "false"
    };
    let twins = in_force(sources, verb).filter(|(flag, arg)| !is_off(flag, arg));
    let twins = twins.map(|(flag, arg)| (flag.origin.rank(), arg));
    let said: Vec<(u8, &Arg)> = typed.chain(twins).collect();
    let excludes = |one: &Arg, other: &Arg| {
        let mut excluded = verb.get_arg_conflicts_with(one).into_iter();
        excluded.any(|excluded| excluded.get_id() == other.get_id())
    };
    let stays = |flag: &Assigned, own: &Arg| {
        !said.iter().any(|(rank, arg)| {
            let replaces = arg.get_id() == own.get_id();
            let is_before = *rank > flag.origin.rank();
            is_before && (replaces || excludes(arg, own) || excludes(own, arg))
        })
    };
    let kept = in_force(sources, verb).filter(|(flag, own)| stays(flag, own));
    sources.flags = kept.map(|(flag, _)| flag.clone()).collect();
}

/// The flags of a verb that the environment or the file give a value to.
pub fn in_force<'a>(
    sources: &'a Sources,
    verb: &'a Command,
) -> impl Iterator<Item = (&'a Assigned, &'a Arg)> {
    sources.flags.iter().filter_map(move |flag| {
        let (_, arg) = names::flags_of(verb).find(|(name, _)| *name == flag.name)?;
        Some((flag, arg))
    })
}

/// The command line with all flags, if its verb runs a node and it is not wrong by itself.
fn complete(
    program: &Command,
    line: &[OsString],
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<Option<(Vec<OsString>, Sources)>> {
    let relaxed = relaxed(program);
    let matches = match relaxed.clone().try_get_matches_from(line) {
        // What is missing may be in the file.
        Err(error) if error.kind() == ErrorKind::MissingRequiredArgument => {
            relaxed.ignore_errors(true).try_get_matches_from(line)
        }
        matches => matches,
    };
    let Ok(matches) = matches else {
        return Ok(None);
    };
    let Some((name, chosen)) = matches.subcommand() else {
        return Ok(None);
    };
    let Some(verb) = names::node_verbs(program).find(|verb| verb.get_name() == name) else {
        return Ok(None);
    };
    let Some(at) = line.iter().skip(1).position(|word| word == name) else {
        return Ok(None);
    };
    let given = Given::from_arg_matches(chosen)?;
    let mut sources = sources_of(program, verb, &given, environment)?;
    settle(&mut sources, verb, |arg| {
        chosen.value_source(arg.get_id().as_str()) == Some(ValueSource::CommandLine)
    });
    let (before, after) = line.split_at(at + 2);
    let mut completed = before.to_vec();
    for (flag, arg) in in_force(&sources, verb) {
        completed.extend(as_argument(program, verb, flag, arg)?);
    }
    completed.extend_from_slice(after);
    Ok(Some((completed, sources)))
}

/// The program without flags that must be given: they may be in the file.
fn relaxed(program: &Command) -> Command {
    let program = program.clone();
    program.mut_subcommands(|verb| verb.mut_args(|arg| arg.required(false)))
}

/// A flag as it would stand on the command line; a switch that is off does not.
fn as_argument(
    program: &Command,
    verb: &Command,
    flag: &Assigned,
    arg: &Arg,
) -> Result<Option<OsString>> {
    let Assigned {
        name,
        value,
        origin,
    } = flag;
    if matches!(arg.get_action(), ArgAction::SetTrue) {
        return match &**value {
            "true" => Ok(Some(format!("--{name}").into())),
            "false" => Ok(None),
            _ => Err(origin.blame(format!("{name}={value}: must be true or false"))),
        };
    }
    let argument = OsString::from(format!("--{name}={value}"));
    let alone = [
        program.get_name().into(),
        verb.get_name().into(),
        argument.clone(),
    ];
    let parsed = relaxed(program).try_get_matches_from(alone);
    // What must stand beside it may be elsewhere.
    if let Err(error) = parsed
        && error.kind() != ErrorKind::MissingRequiredArgument
    {
        let text = error.to_string();
        let first = text.lines().next().unwrap_or_default();
        let first = first.trim_start_matches("error: ").to_owned();
        let why = error.source().map_or(first, ToString::to_string);
        return Err(origin.blame(format!("{name}={value}: {why}")));
    }
    Ok(Some(argument))
}
