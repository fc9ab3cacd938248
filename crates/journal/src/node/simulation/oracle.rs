//! Records what clients were told, and checks that it is true. It must not know how nodes work.

use std::collections::{BTreeMap, BTreeSet};

use super::stores::Stores;
use super::{SECONDS, Ticket};

#[derive(Debug, Default)]
pub(super) struct Oracle {
    next_ticket: u64,
    proposed: BTreeMap<Ticket, u64>,
    /// For each value with a reply, the time of the reply, the value's place in the history, and its entry.
    acked: BTreeMap<u64, (u64, usize, u64)>,
    refused: BTreeSet<u64>,
    /// For each barrier, the length of the history that had been acknowledged when it was asked
    /// for.
    barriers: BTreeMap<Ticket, usize>,
    /// By time, the longest history that was acknowledged by then.
    acked_by: BTreeMap<u64, usize>,
    open: BTreeMap<Ticket, usize>,
    /// Those of callers that were told at once, by their shell, that nothing is known.
    told: BTreeSet<Ticket>,
    resigning: BTreeSet<Ticket>,
    pub(super) resigned: u64,
    pub(super) barriers_passed: u64,
    pub(super) lost_for_good: u64,
    pub(super) quarantined: usize,
}

impl Oracle {
    fn ticket(&mut self, place: usize) -> Ticket {
        self.next_ticket += 1;
        let ticket = Ticket(self.next_ticket);
        self.open.insert(ticket, place);
        ticket
    }

    pub(super) fn proposed(&mut self, place: usize, value: u64) -> Ticket {
        let ticket = self.ticket(place);
        self.proposed.insert(ticket, value);
        ticket
    }

    pub(super) fn barrier(&mut self, place: usize) -> Ticket {
        let ticket = self.ticket(place);
        let acked = self
            .acked_by
            .last_key_value()
            .map_or(0, |(_, length)| *length);
        self.barriers.insert(ticket, acked);
        ticket
    }

    /// A node is to resign: it promises nothing of how far it has come.
    pub(super) fn resigns(&mut self, place: usize) -> Ticket {
        let ticket = self.ticket(place);
        self.resigning.insert(ticket);
        ticket
    }

    pub(super) fn crashed(&mut self, place: usize) {
        self.open.retain(|_, of| *of != place);
    }

    /// The node's shell has told all callers that it does not know.
    pub(super) fn told_all(&mut self, place: usize) {
        let told = self.open.extract_if(.., |_, of| *of == place);
        self.told.extend(told.map(|(ticket, _)| ticket));
    }

    /// Checks that a ticket is answered only once.
    fn close(&mut self, place: usize, ticket: Ticket) -> Result<(), String> {
        match self.open.remove(&ticket) {
            Some(of) if of == place => Ok(()),
            _ => Err(format!(
                "{ticket:?} is answered by n{place} and is not open there"
            )),
        }
    }

    /// Checks the reply to a proposal, given at `now`; `length` of the history includes it, which is in entry `index`.
    pub(super) fn acked(
        &mut self,
        place: usize,
        ticket: Ticket,
        now: u64,
        (length, index): (usize, u64),
    ) -> Result<(), String> {
        self.close(place, ticket)?;
        let Some(value) = self.proposed.get(&ticket) else {
            return Err(format!("{ticket:?} is no proposal"));
        };
        self.acked.insert(*value, (now, length, index));
        let longest = self
            .acked_by
            .last_key_value()
            .map_or(0, |(_, length)| *length);
        self.acked_by.insert(now, longest.max(length));
        Ok(())
    }

    pub(super) fn lost(
        &mut self,
        place: usize,
        tickets: &[Ticket],
        definite: bool,
    ) -> Result<(), String> {
        for ticket in tickets {
            if self.told.contains(ticket) {
                continue;
            }
            self.close(place, *ticket)?;
            if definite && let Some(value) = self.proposed.get(ticket) {
                self.refused.insert(*value);
                self.lost_for_good += 1;
            }
        }
        Ok(())
    }

    /// Checks a barrier that passed: everything acknowledged before it was asked for must be
    /// applied.
    pub(super) fn passed(
        &mut self,
        place: usize,
        tickets: &[Ticket],
        applied: usize,
    ) -> Result<(), String> {
        for ticket in tickets {
            self.close(place, *ticket)?;
            if self.resigning.remove(ticket) {
                self.resigned += 1;
                continue;
            }
            let acked = self.barriers.get(ticket).copied().unwrap_or(usize::MAX);
            if applied < acked {
                return Err(format!(
                    "a barrier of n{place} passes at {applied}, but {acked} were acknowledged \
                     before it was asked for"
                ));
            }
            self.barriers_passed += 1;
        }
        Ok(())
    }

    /// Checks that a leader answering from memory is at most a second behind.
    pub(super) fn answers_from_memory(
        &self,
        place: usize,
        applied: usize,
        now: u64,
    ) -> Result<(), String> {
        let settled = self
            .acked_by
            .range(..now.saturating_sub(SECONDS))
            .next_back();
        let acked = settled.map_or(0, |(_, length)| *length);
        if applied < acked {
            return Err(format!(
                "n{place} answers from memory with {applied} applied; {acked} were acknowledged \
                 more than a second ago"
            ));
        }
        Ok(())
    }

    pub(super) fn acked_in_all(&self) -> usize {
        self.acked.len()
    }

    /// Checks, at the end, against what the journal holds.
    pub(super) fn end(&mut self, stores: &Stores) -> Result<(), String> {
        let history = &stores.history;
        self.quarantined = stores.quarantined.len();
        let kept: BTreeSet<u64> = history.iter().copied().collect();
        if kept.len() != history.len() {
            return Err("a value was applied twice".to_owned());
        }
        for (value, (_, length, index)) in &self.acked {
            if !stores.may_be_given_up(*index) && history.get(length - 1) != Some(value) {
                return Err(format!("{value} was acknowledged and is lost"));
            }
        }
        if let Some(value) = self.refused.intersection(&kept).next() {
            return Err(format!("{value} was refused for good and is applied"));
        }
        let last = self.acked.values().map(|(at, ..)| *at).max();
        if last.is_none_or(|at| at < super::STORM + super::CALM - 5 * SECONDS) {
            return Err("nothing is acknowledged after the faults are over".to_owned());
        }
        Ok(())
    }
}
