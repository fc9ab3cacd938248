//! The names that a file or the environment may give values to: settings, and the flags of verbs that run a node. Flags are
//! those that clap knows, so that each is declared once. It must not know values.

use clap::{Arg, ArgAction, Command};

use crate::settings;

/// The flag that names the file; who has it runs a node.
pub const CONFIG: &str = "config";
/// Flags that have no twin in a file.
const ONLY_FLAGS: [&str; 4] = [CONFIG, "set", "help", "version"];

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A flag of the verb.
    Flag,
    Setting,
    /// A flag of another verb that runs a node.
    FlagOfOthers,
}

/// All names, as one verb sees them.
pub struct Names {
    flags: Vec<String>,
    others: Vec<String>,
}

/// The verbs that run a node.
pub fn node_verbs(program: &Command) -> impl Iterator<Item = &Command> {
    let verbs = program.get_subcommands();
    verbs.filter(|verb| verb.get_arguments().any(|arg| arg.get_id() == CONFIG))
}

/// The flags of a verb that have twins, with their names. One that is called as a setting is has the setting's, and what is
/// hidden is not for operators.
pub fn flags_of(verb: &Command) -> impl Iterator<Item = (&str, &Arg)> {
    let has_value = |arg: &Arg| {
        let action = arg.get_action();
        matches!(
            action,
            ArgAction::Set | ArgAction::Append | ArgAction::SetTrue
        )
    };
    let flags = verb.get_arguments().filter(move |arg| has_value(arg));
    let named = flags.filter_map(|arg| Some((arg.get_long()?, arg)));
    named.filter(|(name, arg)| {
        let is_setting = settings::names().any(|setting| setting == *name);
        !is_setting && !arg.is_hide_set() && !ONLY_FLAGS.contains(name)
    })
}

impl Names {
    /// The names for a verb of the program.
    pub fn of(program: &Command, verb: &str) -> Names {
        let (mut flags, mut others) = (Vec::new(), Vec::new());
        for node in node_verbs(program) {
            let names = flags_of(node).map(|(name, _)| name.to_owned());
            if node.get_name() == verb {
                flags.extend(names);
            } else {
                others.extend(names);
            }
        }
        Names { flags, others }
    }

    pub fn find(&self, name: &str) -> Option<Use> {
        let has = |names: &[String]| names.iter().any(|known| known == name);
        if has(&self.flags) {
            Some(Use::Flag)
        } else if settings::names().any(|known| known == name) {
            Some(Use::Setting)
        } else {
            has(&self.others).then_some(Use::FlagOfOthers)
        }
    }

    /// Every name once or more, those that count first.
    pub fn all(&self) -> impl Iterator<Item = &str> {
        let flags = self.flags.iter().map(String::as_str);
        let others = self.others.iter().map(String::as_str);
        let settings = settings::names().map(|name| -> &str { name });
        flags.chain(settings).chain(others)
    }

    /// Says that there is no such name, and what may have been meant.
    pub fn unknown(&self, name: &str) -> String {
        not_known(name, settings::nearest(name, self.all()))
    }
}

/// Says that nothing is called so, and what may have been meant.
pub fn not_known(name: &str, near: Option<&str>) -> String {
    let near = near.map_or(String::new(), |near| format!(" did you mean {near}?"));
    format!("there is no setting and no flag {name};{near} `seaway settings` lists the settings")
}
