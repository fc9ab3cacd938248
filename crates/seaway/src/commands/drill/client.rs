//! What all clients of a drill have in common: which cluster they are of, and how far the drill is. It must not know what they do.

use tokio::sync::watch;

use crate::client::Client;

/// How far the drill is, as far as that is a client's business.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// All regions are there.
    Before,
    /// A region is lost, or was.
    Since,
    /// Nothing more is written.
    Over,
}

/// A client, and what it works on.
pub struct Seat {
    pub name: String,
    /// Addresses of all agents, those of its region first.
    pub addresses: Vec<String>,
    pub topic: String,
    pub partitions: i32,
    /// How many producers the drill has.
    pub producers: u32,
    pub phase: watch::Receiver<Phase>,
}

impl Seat {
    /// A connection of its own, once it is needed.
    pub fn client(&self) -> Client {
        Client::of(self.addresses.clone())
    }

    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    pub fn is_lost(&self) -> bool {
        self.phase() != Phase::Before
    }
}
