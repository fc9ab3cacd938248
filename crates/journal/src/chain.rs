//! Decides which entries count. Slots are fed in order; each entry is valid or void by the entries
//! it names, and every reader decides alike. It must not know of time, engines or roles.

use bytes::Bytes;

use crate::entry::{Body, DecodeError, Entry, EntryId, Header, Stamp};
use crate::rule::{Rule, Rules};

#[cfg(test)]
mod tests;

/// How far a reader has come, and which entries the next one must name.
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
    /// The entry does not name the last valid entry.
    WrongPredecessor,
    /// The entry has commands, and there is no claim yet.
    Unclaimed,
}

/// What a slot turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The entry counts. Its stamp is never below an earlier one.
    Valid {
        entry: Entry,
        /// The time at which it applies.
        stamp: Stamp,
    },
    /// The entry counts for nobody.
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

    /// The same chain with some rules removed, to show that tests notice.
    pub(crate) fn under(mut self, rules: Rules) -> Self {
        self.rules = rules;
        self
    }

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

    /// Takes the next slot. Bytes that are not an entry are an error and leave the chain where it
    /// was; so does an entry that no writer can have put into this slot.
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

    /// Checks that the entry was made for this slot: otherwise no writer of ours put it there.
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
