//! Taking the lead: settle what others left, claim the slot after it, and make sure by the floor
//! that the settled slots are what they seem. A leader whose tenure has ended renews its lead in
//! the same way. It must not know how slots are settled.

use host::clock::Instant;

use super::accept::look_over;
use super::context::{Cx, Lasting, Question, Request};
use super::flight::Flight;
use super::leading::{Leading, Mandate};
use super::quarantining::Quarantining;
use super::retention::Accepted;
use super::{ANSWER_FROM_MEMORY_FOR, Effect, Event, Following, Purpose, Slot, State};
use crate::chain::{Chain, Verdict};
use crate::engine::{self, Append, TakeError, WINDOW};
use crate::entry::{Body, Entry, EntryId, FORMAT, Header};
use crate::rule::Rule;

/// How many claims in a row may lose their slot to something that is no claim. Entries of a dead
/// writer are shut out by the first take; if more come, the writer is alive.
const ATTEMPTS: u32 = 4;

/// A take is under way.
pub(super) struct Taking {
    question: Question,
    /// The promises that this node has made as a leader, if it is one.
    pub(super) mandate: Option<Box<Mandate>>,
    /// Claims of this attempt that lost their slot, or may have.
    claims: Vec<EntryId>,
}

impl Taking {
    /// Takes the lead from others. As many slots as may be in flight are closed to them, if the engine does not shut them out.
    pub(super) fn begin(cx: &mut Cx<'_>) -> Self {
        let from = cx.lasting.chain.next();
        // In an empty journal nobody can have sent more than a claim.
        let is_open = from > 1 && !cx.lasting.settings.takes_seal;
        let through = if is_open { from + WINDOW } else { from };
        Taking::again(cx, through, None, Vec::new())
    }

    /// Renews the lead; entries of this node may still be on their way to slots below `through`.
    pub(super) fn renew(cx: &mut Cx<'_>, through: u64, mandate: Box<Mandate>) -> Self {
        Taking::again(cx, through, Some(mandate), Vec::new())
    }

    fn again(
        cx: &mut Cx<'_>,
        through: u64,
        mandate: Option<Box<Mandate>>,
        claims: Vec<EntryId>,
    ) -> Self {
        let from = cx.lasting.chain.next();
        Taking {
            question: Question::ask(cx, Purpose::Lead, Request::Take { from, through }),
            mandate,
            claims,
        }
    }

    pub(super) fn deadline(&self, lasting: &Lasting) -> Option<Instant> {
        let expiry = mandate_deadline(self.mandate.as_deref(), lasting);
        self.question.deadline().into_iter().chain(expiry).min()
    }

    pub(super) fn handle(mut self, cx: &mut Cx<'_>, event: Event) -> State {
        match event {
            Event::Taken(ask, result) if self.question.is(ask) => match result {
                Ok(slots) => return self.taken(cx, slots),
                Err(TakeError::Superseded) => return State::Taking(self).stand_down(cx),
                Err(TakeError::Trimmed(_)) => return State::Taking(self).reload(cx),
                Err(TakeError::Unavailable(_)) => self.question.failed(cx),
            },
            Event::Timer => {
                self.question.timer(cx);
                mandate_timer(self.mandate.as_deref_mut(), cx);
            }
            event => mandate_event(self.mandate.as_deref_mut(), cx, event),
        }
        State::Taking(self)
    }

    fn taken(self, cx: &mut Cx<'_>, slots: Vec<Slot>) -> State {
        let mut trial = cx.lasting.chain.clone();
        let outlook = match look_over(&mut trial, &slots) {
            Ok(outlook) => outlook,
            Err(stop) => return State::Taking(self).stop(cx, stop),
        };
        // Where the take has shut the claim's owner out, there is nobody to follow. Who has led until now has made promises that
        // do not outlast another's claim.
        let is_shut_out = cx.lasting.settings.takes_seal && self.mandate.is_none();
        let foreign = |(id, _): &(EntryId, String)| !self.claims.contains(id) && !is_shut_out;
        if outlook.claim.as_ref().is_some_and(foreign) {
            // Another node leads: waiting callers are refused, and the slots are accepted as a
            // follower's.
            State::Taking(self).abandon(cx, &super::not_leader());
            cx.lasting.deposed = true;
            return State::Following(Following::with(cx, slots));
        }
        if self.mandate.is_some() && !cx.lasting.rules.hold(Rule::OneTenureOneClaim) {
            return self.go_on_without_claim(cx, &slots);
        }
        let flight = claim(cx, &trial);
        State::Claiming(Claiming {
            flight,
            settled: slots,
            mandate: self.mandate,
            claims: self.claims,
        })
    }

    /// Goes on in the new tenure with the old claim, which the rule forbids.
    fn go_on_without_claim(self, cx: &mut Cx<'_>, slots: &[Slot]) -> State {
        if let Err(stop) = cx.accept(slots) {
            return State::Taking(self).stop(cx, stop);
        }
        cx.out.push(Effect::Confirmed);
        match self.mandate {
            Some(mandate) => Leading::begin(cx, mandate, cx.now.boot),
            None => State::Following(Following::begin(cx)),
        }
    }
}

/// A claim for the slot after all that were settled.
fn claim(cx: &mut Cx<'_>, trial: &Chain) -> Flight {
    let id = EntryId {
        index: trial.next(),
        nonce: cx.lasting.nonce(),
    };
    let stamp = cx.stamp(trial.stamp().ticks_millis, trial.stamp());
    let header = Header {
        shard: cx.lasting.settings.shard,
        id,
        claim: trial.claim(),
        predecessor: trial.last(),
        stamp,
    };
    let body = Body::Claim {
        node: cx.lasting.settings.name.clone(),
        reads: FORMAT,
    };
    let entry = Entry { header, body };
    let flight = Flight::new(id, entry.encode(), stamp, cx.now.boot);
    cx.out.push(flight.effect());
    flight
}

/// A claim is on its way.
pub(super) struct Claiming {
    flight: Flight,
    settled: Vec<Slot>,
    pub(super) mandate: Option<Box<Mandate>>,
    claims: Vec<EntryId>,
}

impl Claiming {
    pub(super) fn deadline(&self, lasting: &Lasting) -> Option<Instant> {
        let expiry = mandate_deadline(self.mandate.as_deref(), lasting);
        self.flight.retry_at().into_iter().chain(expiry).min()
    }

    pub(super) fn handle(mut self, cx: &mut Cx<'_>, event: Event) -> State {
        match event {
            Event::AppendDone(id, outcome) if self.flight.awaits(id) => match outcome {
                Append::Appended => return self.landed(cx),
                Append::Superseded => return self.beaten(cx),
                Append::Unknown(_) => self.flight.failed(cx),
            },
            Event::Timer => {
                self.flight.timer(cx);
                mandate_timer(self.mandate.as_deref_mut(), cx);
            }
            event => mandate_event(self.mandate.as_deref_mut(), cx, event),
        }
        State::Claiming(self)
    }

    fn landed(self, cx: &mut Cx<'_>) -> State {
        let end = self.flight.id.index + 1;
        State::Confirming(Confirming {
            question: Question::ask(cx, Purpose::Lead, Request::Floor { end }),
            flight: self.flight,
            settled: self.settled,
            mandate: self.mandate,
        })
    }

    /// Another writer took the claim's slot. The next take tells what it holds: a claim is
    /// followed, anything else is passed.
    fn beaten(mut self, cx: &mut Cx<'_>) -> State {
        let through = self.flight.id.index + 1;
        self.claims.push(self.flight.id);
        if self.claims.len() >= ATTEMPTS as usize {
            return State::Claiming(self).stand_down(cx);
        }
        State::Taking(Taking::again(cx, through, self.mandate, self.claims))
    }
}

/// The claim is in its slot; it counts if none of the settled slots was trimmed before.
pub(super) struct Confirming {
    question: Question,
    flight: Flight,
    settled: Vec<Slot>,
    pub(super) mandate: Option<Box<Mandate>>,
}

impl Confirming {
    pub(super) fn deadline(&self, lasting: &Lasting) -> Option<Instant> {
        let expiry = mandate_deadline(self.mandate.as_deref(), lasting);
        self.question.deadline().into_iter().chain(expiry).min()
    }

    pub(super) fn handle(mut self, cx: &mut Cx<'_>, event: Event) -> State {
        match event {
            Event::FloorRead(ask, floor) if self.question.is(ask) => match floor {
                Ok(floor) => return self.floored(cx, floor),
                Err(engine::Error::Corrupt(why)) => return State::Confirming(self).halt(cx, why),
                Err(engine::Error::Unavailable(_)) => self.question.failed(cx),
            },
            Event::Timer => {
                self.question.timer(cx);
                mandate_timer(self.mandate.as_deref_mut(), cx);
            }
            event => mandate_event(self.mandate.as_deref_mut(), cx, event),
        }
        State::Confirming(self)
    }

    fn floored(self, cx: &mut Cx<'_>, floor: u64) -> State {
        let first = cx.lasting.chain.next();
        if floor > first && cx.lasting.rules.hold(Rule::ClaimantReadsFloor) {
            return State::Confirming(self).reload(cx);
        }
        if let Err(stop) = cx.accept(&self.settled) {
            return State::Confirming(self).stop(cx, stop);
        }
        let Confirming {
            flight, mandate, ..
        } = self;
        let lasting = &mut cx.lasting;
        let verdict = lasting.chain.feed(&flight.bytes);
        assert!(
            matches!(verdict, Ok(Verdict::Valid { .. })),
            "a claim made with every slot before it known is valid: {verdict:?}"
        );
        let length = flight.bytes.len();
        let kind = Accepted::ClaimOrVoid;
        lasting.retention.accepted(flight.id.index, length, &kind);
        lasting.claimant = Some(lasting.settings.name.clone());
        lasting.own_claim = Some(flight.id);
        lasting.deposed = false;
        if lasting.stuck.is_some() {
            cx.out.push(Effect::Confirmed);
            return Quarantining::go_on(cx, floor);
        }
        lasting.confirmed(flight.started);
        lasting.leading_until = Some(flight.started + ANSWER_FROM_MEMORY_FOR);
        cx.out.push(Effect::Confirmed);
        let mandate = match mandate {
            Some(mandate) => mandate,
            None => {
                let policy = &lasting.settings.snapshot;
                lasting.retention.lead(cx.now.boot, policy);
                Box::default()
            }
        };
        Leading::begin(cx, mandate, flight.started)
    }
}

/// A leader that renews its claim still accepts proposals.
fn mandate_event(mandate: Option<&mut Mandate>, cx: &mut Cx<'_>, event: Event) {
    match mandate {
        Some(mandate) => mandate.take(cx, event),
        None => cx.refuse_for_want_of_lead(event),
    }
}

fn mandate_timer(mandate: Option<&mut Mandate>, cx: &mut Cx<'_>) {
    if let Some(mandate) = mandate {
        mandate.queue.expire(cx);
    }
}

fn mandate_deadline(mandate: Option<&Mandate>, lasting: &Lasting) -> Option<Instant> {
    mandate.and_then(|mandate| mandate.queue.expires_at(&lasting.settings))
}
