//! Which entries count. Slots are fed in order; each is valid or void by what it names, the same
//! for every reader. It must not know of time, engines or roles.

use bytes::Bytes;

use crate::entry::{Body, DecodeError, Entry, EntryId, Header, Stamp};
use crate::rule::{Rule, Rules};

#[cfg(test)]
mod tests;

/// How far a reader has come, and what the next entry must name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    shard: u16,
    next: u64,
    claim: EntryId,
    last: EntryId,
    stamp: Stamp,
    rules: Rules,
}

/// Why an entry does not count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    /// A claim that does not name the last valid claim, or commands under another claim.
    WrongClaim,
    /// It does not name the last valid entry.
    WrongPredecessor,
    /// Commands before any claim.
    Unclaimed,
}

/// What a slot turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It counts. Its stamp is given as it is to be used: never below an earlier one.
    Valid {
        entry: Entry,
        /// The time at which it applies.
        stamp: Stamp,
    },
    /// It counts for nobody.
    Void(Void),
}

impl Chain {
    /// The start of an empty journal.
    pub fn genesis(shard: u16) -> Self {
        Chain::resume(shard, EntryId::GENESIS, EntryId::GENESIS, Stamp::default())
    }

    /// Right after the valid entry `last` under (or being) `claim`.
    pub fn resume(shard: u16, claim: EntryId, last: EntryId, stamp: Stamp) -> Self {
        Chain {
            shard,
            next: last.index + 1,
            claim,
            last,
            stamp,
            rules: Rules::all(),
        }
    }

    /// The same with some rules removed, to show that tests notice.
    pub(crate) fn under(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

    /// The shard whose journal it is.
    pub fn shard(&self) -> u16 {
        self.shard
    }

    /// The slot that is fed next.
    pub fn next(&self) -> u64 {
        self.next
    }

    /// The last valid claim.
    pub fn claim(&self) -> EntryId {
        self.claim
    }

    /// The last valid entry.
    pub fn last(&self) -> EntryId {
        self.last
    }

    /// The time of the last valid entry.
    pub fn stamp(&self) -> Stamp {
        self.stamp
    }

    /// Takes the next slot. Bytes that are no entry leave the chain where it was; so does an entry
    /// that nobody can have put there.
    pub fn feed(&mut self, slot: &Bytes) -> Result<Verdict, DecodeError> {
        let entry = Entry::decode(slot)?;
        let is_claim = matches!(entry.body, Body::Claim { .. });
        self.check_place(&entry.header)?;
        let flaw = self.flaw(&entry.header, is_claim);
        self.next += 1;
        if let Some(flaw) = flaw {
            return Ok(Verdict::Void(flaw));
        }
        self.last = entry.header.id;
        if is_claim {
            self.claim = entry.header.id;
        }
        self.stamp = if self.rules.hold(Rule::StampsGrow) {
            self.stamp.max(entry.header.stamp)
        } else {
            entry.header.stamp
        };
        let stamp = self.stamp;
        Ok(Verdict::Valid { entry, stamp })
    }

    /// Passes a slot that will never hold an entry.
    pub fn skip(&mut self) {
        self.next += 1;
    }

    /// A slot holds an entry that was made for it: whatever else lies there was put by no writer.
    fn check_place(&self, header: &Header) -> Result<(), DecodeError> {
        if (header.shard, header.id.index) == (self.shard, self.next) {
            return Ok(());
        }
        Err(DecodeError::Corrupt("it was made for another slot"))
    }

    fn flaw(&self, header: &Header, is_claim: bool) -> Option<Void> {
        let claim_rule = if is_claim {
            Rule::ClaimNamesLastClaim
        } else {
            Rule::CommandsNameLastClaim
        };
        let predecessor_rule = if is_claim {
            Rule::ClaimNamesLastEntry
        } else {
            Rule::CommandsNameLastEntry
        };
        if header.claim != self.claim && self.rules.hold(claim_rule) {
            return Some(Void::WrongClaim);
        }
        if header.predecessor != self.last && self.rules.hold(predecessor_rule) {
            return Some(Void::WrongPredecessor);
        }
        if !is_claim && self.claim == EntryId::GENESIS {
            return Some(Void::Unclaimed);
        }
        None
    }
}
