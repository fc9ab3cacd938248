//! Where a value comes from, for people. It must not know which values there are.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow, bail};

/// The flag that sets settings.
const SET: &str = "--set";

/// Where a value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Default,
    /// The process chose it, from what is said here.
    Derived(String),
    File {
        path: Arc<Path>,
        line: usize,
    },
    /// The variable of this name.
    Environment(String),
    /// The flag of this name, with its dashes.
    Flag(String),
}

/// A name, of a setting or a flag, with the value that somebody gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned {
    pub name: String,
    pub value: String,
    pub origin: Origin,
}

impl Origin {
    /// Whether an operator gave the value.
    pub fn is_given(&self) -> bool {
        !matches!(self, Origin::Default | Origin::Derived(_))
    }

    /// Which of two values is in force: that of the greater rank.
    pub fn rank(&self) -> u8 {
        match self {
            Origin::Default | Origin::Derived(_) => 0,
            Origin::File { .. } => 1,
            Origin::Environment(_) => 2,
            Origin::Flag(_) => 3,
        }
    }

    /// Whether both come from the same place, of which each name may have one value.
    pub fn is_beside(&self, other: &Origin) -> bool {
        matches!(
            (self, other),
            (Origin::File { .. }, Origin::File { .. })
                | (Origin::Environment(_), Origin::Environment(_))
        )
    }

    /// The error that something is wrong with a value from here. A value on the command line is there to be seen.
    pub fn blame(&self, why: impl fmt::Display) -> anyhow::Error {
        match self {
            Origin::File { .. } | Origin::Environment(_) => anyhow!("{self}: {why}"),
            Origin::Default | Origin::Derived(_) | Origin::Flag(_) => anyhow!("{why}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::Derived(how) => f.write_str(how),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) | Origin::Flag(name) => f.write_str(name),
        }
    }
}

/// What `--set NAME=VALUE` assigns.
pub fn of_flags<S: AsRef<str>>(assignments: &[S]) -> Result<Vec<Assigned>> {
    let split = |assignment: &S| {
        let assignment = assignment.as_ref();
        let Some((name, value)) = assignment.split_once('=') else {
            bail!("{SET} {assignment}: write it as NAME=VALUE");
        };
        Ok(Assigned {
            name: name.trim().to_owned(),
            value: value.trim().to_owned(),
            origin: Origin::Flag(SET.to_owned()),
        })
    };
    assignments.iter().map(split).collect()
}
