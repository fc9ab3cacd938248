//! Who asks a control node, as far as that is proved. It must not know by what.

use std::fmt;

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// Whoever it is: nothing proves who asks, and everybody who can is believed.
    Believed,
    /// The agent of this name.
    Agent(String),
    /// The control node of this name.
    ControlNode(String),
    /// The agent of this name, as another control node says, which passes the call on.
    Relayed { agent: String, by: String },
}

impl fmt::Display for Speaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Speaker::Believed => write!(f, "somebody"),
            Speaker::Agent(name) => write!(f, "agent {name}"),
            Speaker::ControlNode(name) => write!(f, "control node {name}"),
            Speaker::Relayed { agent, by } => {
                write!(f, "agent {agent}, by way of control node {by}")
            }
        }
    }
}
