//! How a call to the control plane fails: what the caller may conclude, and which node to ask
//! instead.

use std::fmt;

use meta::refusal::TopicRefusal;

/// The failure of a call. The distinction decides what a Kafka client may be told: only what is
/// definite may lead to a non-retriable answer (safety.md, rule 25).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The node that was asked does not lead; the call had no effect and never will.
    #[error("this control node does not lead{}", Elsewhere(.leader.as_ref()))]
    NotLeader {
        /// The leader, as far as this node knows.
        leader: Option<Leader>,
    },
    /// The control node has too much to do; the call had no effect and never will.
    #[error("the control node is overloaded")]
    Busy,
    /// The control node cannot answer just now; the call had no effect and never will.
    #[error("the control node cannot answer now: {reason}")]
    Unavailable { reason: String },
    /// The call may or may not have taken effect; only repeating the same call settles it.
    #[error("the outcome is not known: {reason}")]
    Unknown { reason: String },
    /// A change of topics or configs was refused; nothing changed.
    #[error("{0}")]
    Topic(TopicRefusal),
    /// The control plane will never do this; the message says why and what to do.
    #[error("{reason}")]
    Refused { reason: String },
}

/// A control node that leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leader {
    /// The name in its claim.
    pub name: String,
    /// The leader's address, host:port; `None` if it is not known.
    pub address: Option<String>,
    /// The slot of its claim: of two nodes that are said to lead, the one with the higher claim leads, or has led later.
    pub claim: u64,
}

impl Error {
    /// True if the call certainly had no effect.
    pub fn is_definite(&self) -> bool {
        !matches!(self, Error::Unknown { .. })
    }
}

/// Names the leader, as the end of a sentence.
struct Elsewhere<'a>(Option<&'a Leader>);

impl fmt::Display for Elsewhere<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => formatter.write_str(", nor does any that it knows of"),
            Some(Leader { name, address, .. }) => {
                write!(formatter, ": {name} does")?;
                address
                    .as_ref()
                    .map_or(Ok(()), |address| write!(formatter, ", at {address}"))
            }
        }
    }
}
