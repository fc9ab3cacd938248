//! Why commands are refused. It must not know who asked.

/// Why a change of topics or configs was refused, in Kafka's terms. Nothing changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicRefusal {
    #[error("topic '{name}' already exists")]
    Exists { name: String },
    #[error("there is no such topic")]
    Unknown,
    #[error("{reason}")]
    InvalidName { reason: String },
    #[error("{reason}")]
    InvalidPartitions { reason: String },
    #[error("{reason}")]
    InvalidConfig { reason: String },
    /// POLICY_VIOLATION: a limit of this cluster, or an id that is not fit for use.
    #[error("{reason}")]
    Policy { reason: String },
}

/// Why a command about members or features was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The cluster is at a level that the process does not support.
    #[error(
        "the cluster is at feature level {level}, which this process does not support: run a newer version"
    )]
    LevelUnsupported { level: u32 },
    /// Levels are never taken back.
    #[error("the cluster is at feature level {level} already")]
    LevelBehind { level: u32 },
    /// A registered process does not support the level.
    #[error("{name} supports feature levels only up to {supported}: upgrade or remove it first")]
    LevelAhead {
        /// The agent or control node.
        name: String,
        supported: u32,
    },
    /// The incarnation was never registered, or is forgotten.
    #[error("there is no such incarnation")]
    UnknownIncarnation,
    /// There is no such run of a control node.
    #[error("there is no such run of a control node")]
    UnknownControlNode,
    /// What was to be replaced is not what is in force.
    #[error("{what} changed meanwhile, and have version {version} now: look at them again")]
    Outdated {
        what: &'static str,
        /// The version in force.
        version: u64,
    },
    /// The nonce belongs to an earlier run of this agent that was fenced since.
    #[error("this run of the agent was fenced: start again with a new nonce")]
    Fenced,
    /// A name is empty or too long, or a bucket's number or the number of copies is out of range.
    #[error("{what}")]
    Invalid {
        /// What is wrong, for people.
        what: &'static str,
    },
    /// A counter has come to its end: more than 2^47 of something were made.
    #[error("no more {what} can be numbered")]
    Exhausted { what: &'static str },
}
