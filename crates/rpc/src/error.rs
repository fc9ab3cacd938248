//! How a call to the control plane fails: what the caller may conclude, and nothing else.

/// The failure of a call. The distinction decides what a Kafka client may be told: only what is
/// definite may lead to a non-retriable answer (safety.md, rule 25).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No leader answers just now; the call had no effect and never will.
    #[error("no leader of the journal is reachable: {reason}")]
    NotLeader {
        /// What is known of the cause.
        reason: String,
    },
    /// The leader has too much to do; the call had no effect and never will.
    #[error("the control node is overloaded")]
    Busy,
    /// The call may or may not have taken effect; only repeating the same call settles it.
    #[error("the outcome is not known: {reason}")]
    Unknown {
        /// What is known of the cause.
        reason: String,
    },
    /// The control plane will never do this; the message says why and what to do.
    #[error("{reason}")]
    Refused {
        /// Why, in a sentence for people.
        reason: String,
    },
}

impl Error {
    /// True if the call certainly had no effect.
    pub fn is_definite(&self) -> bool {
        !matches!(self, Error::Unknown { .. })
    }
}
