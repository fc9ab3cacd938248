//! The ballots that a process has met, and so the lowest with which it may lead next (R2). It must not know what was
//! chosen under them.

use super::ballot::Ballot;
use super::rule::{Mutation, Rules};

/// It never falls in the life of a process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Seen {
    /// The highest of all: read in a chain, refused by, learned of a slot, or in a mark that was adopted.
    highest: Ballot,
    /// The last ballot of this process's own.
    own: Ballot,
    /// The highest that stood against a record of this process.
    refused: Ballot,
    /// The ballot of the highest slot that is known; what it decides where a mutation lets it.
    of_last_slot: (u64, Ballot),
}

impl Seen {
    /// Notes a ballot that was met anywhere.
    pub(crate) fn met(&mut self, ballot: Ballot) {
        self.highest = self.highest.max(ballot);
    }

    /// Notes a ballot that stands against this process's own.
    pub(crate) fn refused(&mut self, ballot: Ballot) {
        self.met(ballot);
        self.refused = self.refused.max(ballot);
    }

    /// Notes the ballot under which a slot was chosen.
    pub(crate) fn learned(&mut self, slot: u64, ballot: Ballot) {
        self.met(ballot);
        if slot >= self.of_last_slot.0 {
            self.of_last_slot = (slot, ballot);
        }
    }

    /// A ballot for the next attempt to lead: higher than every one that was met.
    pub(crate) fn fresh(&mut self, nonce: u128, rules: Rules) -> Ballot {
        if rules.broken(Mutation::BallotReuse) && self.own != Ballot::default() {
            return self.own;
        }
        let below = match () {
            () if rules.broken(Mutation::NoBallotRule) => self.own,
            () if rules.broken(Mutation::BallotOfLastSlot) => {
                self.own.max(self.refused).max(self.of_last_slot.1)
            }
            () => self.highest,
        };
        self.own = below.above(nonce);
        self.met(self.own);
        self.own
    }

    /// The highest ballot that was met, and whether it is this process's own.
    pub(crate) fn highest(&self) -> (Ballot, bool) {
        (self.highest, self.highest == self.own)
    }

    /// What a snapshot must carry: a ballot at least as high as every one under which a slot was learned (R16).
    pub(crate) fn mark(&self, rules: Rules) -> Ballot {
        match () {
            () if rules.broken(Mutation::RestartNoBallot) => Ballot::default(),
            () if rules.broken(Mutation::RestartLastSlot) => self.of_last_slot.1,
            () => self.highest,
        }
    }
}
