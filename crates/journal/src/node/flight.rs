//! One entry on its way into its slot, and how it is settled there: an append of unknown outcome
//! by reading the slot, a free slot by the same bytes again. It must not know what entries hold,
//! nor what follows from a slot that is taken.

use bytes::Bytes;
use host::clock::Instant;

use super::{Effect, Node, State, Ticket, Turn};
use crate::engine::{self, Append};
use crate::entry::{Entry, EntryId, Item, Stamp};
use crate::rule::Rule;

/// An entry that is being appended.
pub(super) struct Flight {
    pub(super) id: EntryId,
    pub(super) bytes: Bytes,
    /// The object that the entry refers to, with its SHA-256.
    pub(super) body: Option<([u8; 32], Bytes)>,
    /// The time that it carries.
    pub(super) stamp: Stamp,
    /// The start of the first attempt.
    pub(super) started: Instant,
    pub(super) items: Vec<Item>,
    /// One per item; empty once they have been told that it takes too long.
    pub(super) tickets: Vec<Ticket>,
    pub(super) barriers: Vec<Ticket>,
    stage: Stage,
    failures: u32,
}

/// How an append stands.
enum Stage {
    /// It was asked for and not answered.
    Appending,
    /// Its slot is being read.
    Reading,
    /// It is asked for again then, with the same bytes.
    AppendAt(Instant),
    /// Its slot is read again then.
    ReadAt(Instant),
    /// It is in its slot.
    Landed,
    /// Its slot holds this instead, for ever.
    Taken(Bytes),
}

impl Flight {
    pub(super) fn new(id: EntryId, bytes: Bytes, stamp: Stamp, started: Instant) -> Self {
        Flight {
            id,
            bytes,
            body: None,
            stamp,
            started,
            items: Vec::new(),
            tickets: Vec::new(),
            barriers: Vec::new(),
            stage: Stage::Appending,
            failures: 0,
        }
    }

    pub(super) fn effect(&self) -> Effect {
        Effect::Append {
            id: self.id,
            bytes: self.bytes.clone(),
            body: self.body.clone(),
        }
    }

    pub(super) fn has_landed(&self) -> bool {
        matches!(self.stage, Stage::Landed)
    }

    /// What its slot holds instead of it.
    pub(super) fn taken_by(&self) -> Option<&Bytes> {
        match &self.stage {
            Stage::Taken(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// When it is asked for or read again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::AppendAt(at) | Stage::ReadAt(at) => Some(at),
            _ => None,
        }
    }

    /// Everybody who waits for it.
    pub(super) fn waiting(&mut self) -> Vec<Ticket> {
        let mut tickets = std::mem::take(&mut self.tickets);
        tickets.append(&mut self.barriers);
        tickets
    }
}

/// Which entry a slot holds; `None` if it holds none.
pub(super) fn entry_id(slot: &Bytes) -> Option<EntryId> {
    Some(Entry::decode(slot).ok()?.header.id)
}

impl Node {
    fn flights_mut(&mut self) -> impl Iterator<Item = &mut Flight> {
        let (one, many) = match &mut self.state {
            State::Claiming(flight) => (Some(flight), None),
            State::Leading(leading) => (None, Some(leading.flights.iter_mut())),
            _ => (None, None),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    /// The engine answered an append.
    pub(super) fn append_done(&mut self, turn: &mut Turn<'_>, id: EntryId, outcome: Append) {
        let settles = self.rules.hold(Rule::SettleByReading);
        let is_ours = |flight: &&mut Flight| flight.id == id;
        let Some(flight) = self.flights_mut().find(is_ours) else {
            return;
        };
        if !matches!(flight.stage, Stage::Appending) {
            return;
        }
        match outcome {
            Append::Appended => flight.stage = Stage::Landed,
            Append::Occupied(bytes) => return self.found(turn, id, Some(bytes)),
            Append::Unknown(_) if settles => {
                flight.stage = Stage::Reading;
                turn.out.push(Effect::ReadSlot { index: id.index });
                return;
            }
            Append::Unknown(_) => return self.append_anew(turn, id),
        }
        self.advance(turn);
    }

    /// The slot of an entry in flight was read.
    pub(super) fn flight_slot_read(
        &mut self,
        turn: &mut Turn<'_>,
        index: u64,
        result: Result<Option<Bytes>, engine::Error>,
    ) {
        let reads = |flight: &&mut Flight| {
            flight.id.index == index && matches!(flight.stage, Stage::Reading)
        };
        let Some(flight) = self.flights_mut().find(reads) else {
            return;
        };
        let id = flight.id;
        match result {
            Ok(slot) => self.found(turn, id, slot),
            Err(_) => self.again(turn, id, Stage::ReadAt),
        }
    }

    /// What the slot of an entry in flight holds.
    fn found(&mut self, turn: &mut Turn<'_>, id: EntryId, slot: Option<Bytes>) {
        // It may still be filled, by ourselves or by another: only the same bytes are safe.
        let Some(bytes) = slot else {
            return self.again(turn, id, Stage::AppendAt);
        };
        let is_ours = entry_id(&bytes) == Some(id) && self.rules.hold(Rule::OccupiedMayBeOurs);
        if let Some(flight) = self.flights_mut().find(|flight| flight.id == id) {
            flight.stage = if is_ours {
                Stage::Landed
            } else {
                Stage::Taken(bytes)
            };
        }
        self.advance(turn);
    }

    /// Goes on after a pause that grows.
    fn again(&mut self, turn: &mut Turn<'_>, id: EntryId, stage: fn(Instant) -> Stage) {
        let Some(flight) = self.flights_mut().find(|flight| flight.id == id) else {
            return;
        };
        flight.failures = flight.failures.saturating_add(1);
        let failures = flight.failures;
        let at = turn.now.boot + self.pause_after(failures);
        if let Some(flight) = self.flights_mut().find(|flight| flight.id == id) {
            flight.stage = stage(at);
        }
    }

    /// Asks and reads again whatever is due.
    pub(super) fn flights_timer(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now.boot;
        let restart = !self.rules.hold(Rule::LeadFromFirstAttempt);
        for flight in self.flights_mut() {
            match flight.stage {
                Stage::AppendAt(at) if at <= now => {
                    flight.stage = Stage::Appending;
                    // What the rule forbids: counting the lead from a later attempt.
                    flight.started = if restart { now } else { flight.started };
                    turn.out.push(flight.effect());
                }
                Stage::ReadAt(at) if at <= now => {
                    flight.stage = Stage::Reading;
                    let index = flight.id.index;
                    turn.out.push(Effect::ReadSlot { index });
                }
                _ => {}
            }
        }
    }

    /// What [`Rule::SettleByReading`] forbids: the same commands as other entries, though the
    /// first may land.
    fn append_anew(&mut self, turn: &mut Turn<'_>, id: EntryId) {
        if let State::Leading(leading) = &mut self.state {
            leading.take_back();
            return self.pack(turn, true);
        }
        self.again(turn, id, Stage::AppendAt);
    }
}
