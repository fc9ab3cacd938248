//! Which process of a cluster somebody is, as its certificate and its requests say it. Pure.

use std::fmt;
use std::str::FromStr;

/// What a process does in its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Control,
    Agent,
}

/// A process of a cluster; its name is its own within its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub role: Role,
    pub name: String,
}

/// What the name of a process in a certificate begins with.
const SCHEME: &str = "seaway://";

impl Role {
    /// The role as commands and certificates spell it.
    pub fn word(self) -> &'static str {
        match self {
            Role::Control => "control",
            Role::Agent => "agent",
        }
    }
}

/// A word that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a role is control or agent")]
pub struct NoRole;

impl FromStr for Role {
    type Err = NoRole;

    fn from_str(word: &str) -> Result<Self, NoRole> {
        let mut roles = [Role::Control, Role::Agent].into_iter();
        roles.find(|role| role.word() == word).ok_or(NoRole)
    }
}

impl Process {
    /// The process as certificates have it, a URI among their alternative names.
    pub fn uri(&self) -> String {
        format!("{SCHEME}{}/{}", self.role.word(), self.name)
    }

    /// The process of such a URI; `None` if it names none.
    pub fn of_uri(uri: &str) -> Option<Self> {
        let (role, name) = uri.strip_prefix(SCHEME)?.split_once('/')?;
        let role = role.parse().ok()?;
        Some(Process {
            role,
            name: name.to_owned(),
        })
    }
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.role {
            Role::Control => "control node",
            Role::Agent => "agent",
        };
        write!(f, "{role} {}", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_comes_back_from_its_uri_and_nothing_else_does() {
        for role in [Role::Control, Role::Agent] {
            let process = Process {
                role,
                name: "a.b-1_c".to_owned(),
            };
            assert_eq!(Process::of_uri(&process.uri()), Some(process));
        }
        for other in ["seaway://other/a", "seaway://agent", "https://agent/a", ""] {
            assert_eq!(Process::of_uri(other), None, "{other}");
        }
    }
}
