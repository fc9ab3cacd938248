//! One entry on its way into its slot: an append of unknown outcome is repeated with the same
//! bytes. It must not know what entries hold, nor what follows from a slot that is taken.

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
    Asked,
    /// Its outcome is unknown; it is asked for again then, with the same bytes.
    AgainAt(Instant),
    /// It is in its slot.
    Landed,
    /// Its tenure was over when it was answered.
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

    /// Whether an answer to this append is waited for.
    pub(super) fn awaits(&self, id: EntryId) -> bool {
        self.id == id && self.is_asked()
    }

    pub(super) fn is_asked(&self) -> bool {
        matches!(self.stage, Stage::Asked)
    }

    pub(super) fn has_landed(&self) -> bool {
        matches!(self.stage, Stage::Landed)
    }

    /// Whether it may land yet although its tenure is over.
    pub(super) fn is_in_doubt(&self) -> bool {
        matches!(self.stage, Stage::AgainAt(_))
    }

    pub(super) fn is_waited_for(&self) -> bool {
        !self.tickets.is_empty() || !self.barriers.is_empty()
    }

    /// Takes the answer.
    pub(super) fn answered(&mut self, cx: &mut Cx<'_>, outcome: &Append) {
        match outcome {
            Append::Appended => self.stage = Stage::Landed,
            Append::Superseded => self.stage = Stage::Superseded,
            Append::Unknown(_) => self.failed(cx),
        }
    }

    /// Its outcome is unknown: the same bytes are sent again after a pause that grows.
    pub(super) fn failed(&mut self, cx: &mut Cx<'_>) {
        self.failures = self.failures.saturating_add(1);
        self.stage = Stage::AgainAt(cx.again_at(self.failures));
    }

    /// When it is asked for again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::AgainAt(at) => Some(at),
            _ => None,
        }
    }

    /// Asks for it again if it is time.
    pub(super) fn timer(&mut self, cx: &mut Cx<'_>) {
        let now = cx.now.boot;
        if self.retry_at().is_some_and(|at| at <= now) {
            self.stage = Stage::Asked;
            if !cx.lasting.rules.hold(Rule::LeadFromFirstAttempt) {
                // What the rule forbids: counting the lead from a later attempt.
                self.started = now;
            }
            cx.out.push(self.effect());
        }
    }

    /// Everybody who waits for it.
    pub(super) fn waiting(&mut self) -> Vec<Ticket> {
        let mut tickets = std::mem::take(&mut self.tickets);
        tickets.append(&mut self.barriers);
        tickets
    }
}
