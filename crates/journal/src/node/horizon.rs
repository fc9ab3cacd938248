//! How a follower learns that it knows everything though the journal grows faster than it reads: a slot ahead of it that was
//! found free bounds what had been appended by then, since an entry counts only once every slot before it is known. Whoever has
//! read through the slots below it therefore knows everything that was acknowledged before. It must not know what slots hold.

use host::clock::Instant;

use super::context::{Cx, Question, Request};
use super::{Ask, Purpose, Run};
use crate::engine::{End, WINDOW};
use crate::rule::Rule;

/// How far ahead a free slot is looked for at most. A journal grows by some hundred entries a second, and a look takes some
/// ten milliseconds, rarely seconds.
const AHEAD_MAX: u64 = 64 * WINDOW;

/// A slot that was free at a time, or may have been trimmed before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FreeSlot {
    pub(super) slot: u64,
    /// The slot was read after this.
    pub(super) at: Instant,
    /// It was the next one to read then.
    pub(super) is_next: bool,
}

pub(super) struct Horizon {
    /// How far ahead the next look is.
    distance: u64,
    stage: Stage,
}

enum Stage {
    Unknown,
    Asking(Question, u64),
    Known(FreeSlot),
}

impl Horizon {
    pub(super) fn unknown() -> Self {
        Horizon {
            distance: WINDOW,
            stage: Stage::Unknown,
        }
    }

    /// Looks for a free slot ahead, unless one is known or looked for.
    pub(super) fn seek(&mut self, cx: &mut Cx<'_>) {
        if !matches!(self.stage, Stage::Unknown) {
            return;
        }
        let from = cx.lasting.chain.next() + self.distance;
        let question = Question::ask(cx, Purpose::Horizon, Request::Scan { from, limit: 1 });
        self.stage = Stage::Asking(question, from);
    }

    /// Takes the answer to the look, if it is that. A look that failed is not repeated: the next one is as good.
    pub(super) fn seen(&mut self, ask: Ask, run: &Run) {
        let Stage::Asking(question, slot) = &self.stage else {
            return;
        };
        if !question.is(ask) {
            return;
        }
        let (slot, at) = (*slot, question.asked_at);
        self.stage = Stage::Unknown;
        if !run.slots.is_empty() {
            self.distance = (self.distance * 2).min(AHEAD_MAX);
        } else if run.end == End::Free {
            self.distance = WINDOW;
            let is_next = false;
            self.stage = Stage::Known(FreeSlot { slot, at, is_next });
        }
    }

    /// The free slot, once the node has read every slot before it; it is then no longer known here.
    pub(super) fn reached(&mut self, cx: &Cx<'_>) -> Option<FreeSlot> {
        let Stage::Known(free) = self.stage else {
            return None;
        };
        if cx.lasting.chain.next() < free.slot && cx.lasting.rules.hold(Rule::HorizonIsReached) {
            return None;
        }
        self.stage = Stage::Unknown;
        Some(free)
    }
}
