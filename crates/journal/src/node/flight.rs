//! One entry on its way into its slot: an append of unknown outcome is repeated with the same
//! bytes. It must not know what entries hold, nor what follows if another entry takes the slot.

use bytes::Bytes;
use host::clock::Instant;

use super::context::Cx;
use super::{Effect, Ticket};
use crate::engine::Append;
use crate::entry::{EntryId, Item, Stamp};
use crate::rule::Rule;

/// An entry that is being appended.
pub(super) struct Flight {
    pub(super) id: EntryId,
    pub(super) bytes: Bytes,
    /// The object that the entry refers to, with its SHA-256.
    pub(super) body: Option<([u8; 32], Bytes)>,
    pub(super) stamp: Stamp,
    /// The start of the first attempt.
    pub(super) started: Instant,
    pub(super) items: Vec<Item>,
    /// The callers, one per item; empty once they were told that it takes too long.
    pub(super) tickets: Vec<Ticket>,
    pub(super) barriers: Vec<Ticket>,
    stage: Stage,
    failures: u32,
}

/// The state of the append.
enum Stage {
    /// The append was sent and not answered.
    Asked,
    /// The outcome is unknown; the same bytes are sent again at this time.
    AgainAt(Instant),
    /// The entry is in its slot.
    Landed,
    /// The answer was that the tenure is over.
    Superseded,
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
            stage: Stage::Asked,
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

    /// What others may be told once it counts.
    pub(super) fn telling(&self) -> Effect {
        Effect::Tell {
            index: self.id.index,
            entry: self.body.is_none().then(|| self.bytes.clone()),
        }
    }

    /// True if this append waits for an answer.
    pub(super) fn awaits(&self, id: EntryId) -> bool {
        self.id == id && self.is_asked()
    }

    pub(super) fn is_asked(&self) -> bool {
        matches!(self.stage, Stage::Asked)
    }

    pub(super) fn has_landed(&self) -> bool {
        matches!(self.stage, Stage::Landed)
    }

    /// True if the entry may yet land although its tenure is over: of an attempt whose outcome is
    /// unknown, the answer to a later one says nothing.
    pub(super) fn is_in_doubt(&self) -> bool {
        self.failures > 0 && !self.has_landed()
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.tickets.is_empty() || !self.barriers.is_empty()
    }

    /// Takes the answer to the append.
    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, outcome: &Append) {
        match outcome {
            Append::Appended => self.stage = Stage::Landed,
            Append::Superseded => self.stage = Stage::Superseded,
            Append::Unknown(_) => self.failed(cx),
        }
    }

    /// Notes an unknown outcome: the same bytes are sent again after a growing pause.
    pub(super) fn failed(&mut self, cx: &mut Cx<'_>) {
        self.failures = self.failures.saturating_add(1);
        self.stage = Stage::AgainAt(cx.again_at(self.failures));
    }

    /// When the append is sent again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::AgainAt(at) => Some(at),
            _ => None,
        }
    }

    /// Sends the append again if its time has come.
    pub(super) fn timer(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.boot;
        if self.retry_at().is_some_and(|at| at <= now) {
            self.stage = Stage::Asked;
            if !cx.lasting.rules.hold(Rule::LeadFromFirstAttempt) {
                // Counts the lead from a later attempt, which the rule forbids.
                self.started = now;
            }
            cx.out.push(self.effect());
        }
    }

    /// Takes the tickets of all callers that wait for it.
    pub(super) fn waiting(&mut self) -> Vec<Ticket> {
        let mut tickets = std::mem::take(&mut self.tickets);
        tickets.append(&mut self.barriers);
        tickets
    }
}
