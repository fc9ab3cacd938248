//! What a process is configured with: flags, then the environment, then a file, then defaults; the first that names a
//! setting or a flag decides. A verb that runs a node has [`Given`] among its arguments; nothing else is needed for its
//! flags to have twins in the environment and the file. It must not know what a value is used for.

pub mod command_line;
mod environment;
mod file;
pub mod names;
pub mod shares;

use std::ffi::OsString;
use std::path::PathBuf;

use anyhow::{Context, Result};
use names::{Names, Use};
use shares::{Process, Shares};

use crate::address::Address;
use crate::logging;
use crate::origin::{self, Assigned, Origin};
use crate::settings::Settings;

/// The arguments by which every verb that runs a node is configured.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Given {
    /// Read settings and flags from this file; docs/configuration.md says what is in it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Change a setting; may be given again. `seaway settings` lists them.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

/// What the environment and the file say, sorted by what it is for.
#[derive(Debug, Default)]
pub struct Sources {
    settings: Vec<Assigned>,
    /// Flags of the verb that are not on the command line, each name once.
    flags: Vec<Assigned>,
    /// The variables of the environment that were read.
    variables: Vec<String>,
}

/// The settings in force, and how the memory is shared out by them.
pub struct Configured {
    pub settings: Settings,
    pub shares: Shares,
}

impl Sources {
    /// Reads the environment, and the file that `given` or the environment names.
    fn read(
        given: &Given,
        names: &Names,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Sources> {
        let (from_environment, file_there) = environment::read(names, environment)?;
        let path = given.config.clone().or(file_there);
        let from_file = path.map(|path| {
            let text = std::fs::read_to_string(&path);
            let text = text.with_context(|| format!("cannot read {}", path.display()))?;
            file::parse(&path, &text)
        });
        let mut sources = Sources {
            variables: environment::read_by(&from_environment),
            ..Sources::default()
        };
        for assigned in from_file.transpose()?.unwrap_or_default() {
            sources.sort_in(names, assigned)?;
        }
        for assigned in from_environment {
            sources.sort_in(names, assigned)?;
        }
        Ok(sources)
    }

    /// The variables that a process must not find which is told otherwise what they say.
    pub fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Where the value of a flag comes from that the verb has.
    pub fn origin_of_flag(&self, name: &str) -> Origin {
        let twin = self.flags.iter().find(|flag| flag.name == name);
        twin.map_or_else(
            || Origin::Flag(format!("--{name}")),
            |twin| twin.origin.clone(),
        )
    }

    /// Enters among the settings what `--kafka` or its twin says, if one of them is there.
    pub fn listen_at(&self, kafka: Option<&Address>, settings: &mut Settings) -> Result<()> {
        match kafka {
            Some(kafka) => settings.listen_at(kafka, &self.origin_of_flag("kafka")),
            None => Ok(()),
        }
    }

    fn sort_in(&mut self, names: &Names, assigned: Assigned) -> Result<()> {
        match names.find(&assigned.name) {
            Some(Use::Flag) => {
                self.flags.retain(|flag| flag.name != assigned.name);
                self.flags.push(assigned);
            }
            Some(Use::Setting) => self.settings.push(assigned),
            // One file may be for several verbs.
            Some(Use::FlagOfOthers) => {}
            None => {
                let why = names.unknown(&assigned.name);
                return Err(assigned.origin.blame(why));
            }
        }
        Ok(())
    }

    /// The settings, with those of the command line, of a process that may take `limit` of memory.
    pub fn configure(
        &self,
        given: &Given,
        process: Process,
        limit: Option<host::memory::Limit>,
    ) -> Result<Configured> {
        let mut assigned = self.settings.clone();
        assigned.extend(origin::of_flags(&given.set)?);
        let mut settings = Settings::of(&assigned)?;
        let level = settings.text("log.level");
        logging::check(level).map_err(|why| settings.origin("log.level").blame(why))?;
        let shares = Shares::of(&mut settings, process, limit)?;
        settings.check_together()?;
        Ok(Configured { settings, shares })
    }
}

impl Configured {
    /// Starts the log as the settings have it, with what an operator should know of them.
    pub fn start_log(&self) -> Result<()> {
        logging::start(&self.settings)?;
        if let Some(warning) = self.shares.warning() {
            tracing::warn!("{warning}");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
