//! Following the journal, and claiming it. It must not know how slots are read.

use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;

use super::retention::Accepted;
use super::{
    Effect, Flight, Node, ProposeError, Refusal, Request, Slot, State, Takeover, Turn, lose,
};
use crate::chain::Verdict;
use crate::engine;
use crate::entry::{self, Body, Entry, EntryId, Header, Stamp};
use crate::object::slot_name;
use crate::rule::Rule;

/// How old a follower's certainty that it has read to the end may grow.
const CONFIRM_EVERY: Duration = Duration::from_secs(5);

/// What a follower remembers besides the chain.
pub(super) struct Following {
    /// When the journal last grew, as far as is known here.
    grew_at: Instant,
    /// How much silence it takes to claim.
    patience: Duration,
    /// The pause before the next look.
    poll: Duration,
    /// When to look again; `None` while a look is under way.
    poll_at: Option<Instant>,
    /// Slots that wait until the floor is known to lie below them.
    doubtful: Vec<Slot>,
}

impl Following {
    pub(super) fn poll_at(&self) -> Option<Instant> {
        self.poll_at
    }
}

impl Node {
    /// Reads on from the end of the chain.
    pub(super) fn follow(&mut self, turn: &mut Turn<'_>) {
        self.looks = 0;
        let silence = match self.settings.takeover {
            Takeover::AtOnce if !self.deposed => Duration::ZERO,
            Takeover::AtOnce => self.settings.return_after,
            Takeover::AfterSilence => self.settings.takeover_after,
        };
        // Not the same for all, so that they do not all claim at one time.
        let patience = silence + self.jitter(silence / 2);
        self.state = State::Following(Following {
            grew_at: turn.now.boot,
            patience,
            poll: self.settings.poll_min,
            poll_at: None,
            doubtful: Vec::new(),
        });
        self.look(turn);
    }

    fn look(&mut self, turn: &mut Turn<'_>) {
        let from = self.chain.next();
        self.ask(turn, Request::Scan { from });
    }

    pub(super) fn scanned(
        &mut self,
        turn: &mut Turn<'_>,
        from: u64,
        result: Result<Vec<Slot>, engine::Error>,
    ) {
        if !self.answers(Request::Scan { from }) {
            return;
        }
        match result {
            Err(_) => self.ask_later(turn, Request::Scan { from }),
            Ok(slots) if slots.is_empty() => self.at_the_end(turn),
            Ok(slots) => self.judge(turn, slots),
        }
    }

    /// Takes slots that carry on a chain beyond doubt; asks for the floor if others are among
    /// them. A claim or a void entry may have been put by a sleeper where a slot was trimmed;
    /// valid commands cannot, since whoever writes them holds the last claim.
    fn judge(&mut self, turn: &mut Turn<'_>, slots: Vec<Slot>) {
        let mut trial = self.chain.clone();
        let mut doubtful = false;
        for slot in &slots {
            match trial.feed(&slot.bytes) {
                Err(error) => {
                    let why = damaged(self.settings.shard, slot.index, &error);
                    return self.halt(turn, why);
                }
                Ok(Verdict::Valid { entry, .. }) => {
                    doubtful |= matches!(entry.body, Body::Claim { .. });
                }
                Ok(Verdict::Void(_)) => doubtful = true,
            }
        }
        if !doubtful || !self.rules.hold(Rule::ReaderReadsFloor) {
            return self.accept(turn, slots);
        }
        if let State::Following(following) = &mut self.state {
            following.doubtful = slots;
        }
        self.ask(turn, Request::ReadFloor);
    }

    /// The floor, read after doubtful slots or at the end.
    pub(super) fn following_floor(&mut self, turn: &mut Turn<'_>, floor: u64) {
        if floor > self.chain.next() {
            return self.reload(turn);
        }
        let State::Following(following) = &mut self.state else {
            return;
        };
        let slots = std::mem::take(&mut following.doubtful);
        if !slots.is_empty() {
            return self.accept(turn, slots);
        }
        self.confirmed_at = Some(self.looked_at);
        if self.may_claim(turn) {
            self.claim(turn);
        } else {
            self.look_later(turn);
        }
    }

    fn accept(&mut self, turn: &mut Turn<'_>, slots: Vec<Slot>) {
        for slot in slots {
            if let Err(why) = self.accept_one(turn, &slot) {
                return self.halt(turn, why);
            }
        }
        if let State::Following(following) = &mut self.state {
            following.grew_at = turn.now.boot;
            following.poll = self.settings.poll_min;
        }
        self.look(turn);
    }

    fn accept_one(&mut self, turn: &mut Turn<'_>, slot: &Slot) -> Result<(), String> {
        let verdict = self.chain.feed(&slot.bytes);
        let shard = self.settings.shard;
        let verdict = verdict.map_err(|error| damaged(shard, slot.index, &error))?;
        self.leave_limbo(turn, slot.index);
        let kind = match verdict {
            Verdict::Void(_) => Accepted::ClaimOrVoid,
            Verdict::Valid { entry, stamp } => match entry.body {
                Body::Claim { node } => {
                    self.claimant = Some(node);
                    self.contested |= self.deposed;
                    Accepted::ClaimOrVoid
                }
                Body::Commands(items) => {
                    apply(turn, entry.header.id, stamp, items);
                    Accepted::Commands
                }
                Body::Elsewhere(reference) => {
                    let nonce = entry.header.id.nonce;
                    let items = body_of(slot, nonce, &reference)?;
                    apply(turn, entry.header.id, stamp, items);
                    Accepted::CommandsElsewhere(reference.sha256)
                }
            },
        };
        let length = slot.bytes.len() + slot.body.as_ref().map_or(0, Bytes::len);
        self.retention.accepted(slot.index, length, &kind);
        Ok(())
    }

    /// Settles what was in flight when the lead was lost, if it was for this slot: the slot is
    /// another's for ever, so our entry can never appear in it.
    fn leave_limbo(&mut self, turn: &mut Turn<'_>, index: u64) {
        if let Some(limbo) = self.limbo.take_if(|limbo| limbo.index <= index) {
            let leader = self.claimant.clone();
            let why = ProposeError::Definite(Refusal::NotLeader { leader });
            lose(turn, limbo.tickets, why);
        }
    }

    /// The next slot looks free. It may have been trimmed instead, so now and then, and before a
    /// claim, which would only be litter there, the floor is read.
    fn at_the_end(&mut self, turn: &mut Turn<'_>) {
        let unsure = self
            .confirmed_at
            .is_none_or(|at| turn.now.boot.since(at) >= CONFIRM_EVERY);
        if unsure || self.may_claim(turn) {
            self.looked_at = self.asked_at;
            return self.ask(turn, Request::ReadFloor);
        }
        self.look_later(turn);
    }

    fn look_later(&mut self, turn: &mut Turn<'_>) {
        let longest = self.settings.poll_max;
        let pause = match &mut self.state {
            State::Following(following) => {
                let pause = following.poll;
                following.poll = (following.poll * 2).min(longest);
                pause
            }
            _ => return,
        };
        let poll_at = turn.now.boot + self.jitter(pause);
        if let State::Following(following) = &mut self.state {
            following.poll_at = Some(poll_at);
        }
    }

    fn may_claim(&self, turn: &Turn<'_>) -> bool {
        let State::Following(following) = &self.state else {
            return false;
        };
        let now = turn.now.boot;
        let in_use = self
            .used_at
            .is_some_and(|used| now.since(used) < self.settings.in_use_for);
        let alone = self.settings.takeover == Takeover::AtOnce;
        let wanted = in_use || alone || self.chain.next() == 1;
        wanted && now.since(following.grew_at) >= following.patience
    }

    /// Looks again if it is time, or if the silence has lasted long enough to claim.
    pub(super) fn following_timer(&mut self, turn: &mut Turn<'_>) {
        let may_claim = self.may_claim(turn);
        let State::Following(following) = &mut self.state else {
            return;
        };
        let due = following.poll_at.is_some_and(|at| at <= turn.now.boot);
        if due || (may_claim && following.poll_at.is_some()) {
            following.poll_at = None;
            self.look(turn);
        }
    }

    fn claim(&mut self, turn: &mut Turn<'_>) {
        let id = EntryId {
            index: self.chain.next(),
            nonce: (self.entropy)(),
        };
        let now = Stamp {
            wall_millis: turn.now.wall_millis,
            ticks_millis: self.chain.stamp().ticks_millis,
        };
        let stamp = self.growing(now, self.chain.stamp());
        let header = Header {
            shard: self.settings.shard,
            id,
            claim: self.chain.claim(),
            predecessor: self.chain.last(),
            stamp,
        };
        let node = self.settings.name.clone();
        let entry = Entry {
            header,
            body: Body::Claim { node },
        };
        let flight = Flight::new(id, entry.encode(), stamp, turn.now.boot);
        turn.out.push(flight.effect());
        self.state = State::Claiming(flight);
    }

    /// `stamp`, or that of the entry before if that is later.
    pub(super) fn growing(&self, stamp: Stamp, before: Stamp) -> Stamp {
        if self.rules.hold(Rule::StampsGrow) {
            stamp.max(before)
        } else {
            stamp
        }
    }
}

fn apply(turn: &mut Turn<'_>, id: EntryId, stamp: Stamp, items: Vec<entry::Item>) {
    turn.out.push(Effect::Apply {
        id,
        stamp,
        items,
        tickets: Vec::new(),
    });
}

fn body_of(
    slot: &Slot,
    nonce: u128,
    reference: &entry::Reference,
) -> Result<Vec<entry::Item>, String> {
    let index = slot.index;
    let missing = Bytes::new();
    let object = slot.body.as_ref().unwrap_or(&missing);
    entry::take_from_elsewhere(nonce, reference, object).map_err(|error| {
        let found = match slot.body {
            None => "is missing".to_owned(),
            Some(_) => format!("is damaged ({error})"),
        };
        let name: String = reference
            .sha256
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        format!(
            "the body bodies/{name} of journal entry {index} {found}. Restore that object from a \
             copy of the bucket and start again"
        )
    })
}

fn damaged(shard: u16, index: u64, error: &entry::DecodeError) -> String {
    let name = slot_name(shard, index);
    match error {
        entry::DecodeError::NewerFormat(_) => {
            format!("entry {index} of the journal: {error}. Run a newer version")
        }
        entry::DecodeError::Corrupt(_) => format!(
            "entry {index} of the journal is damaged: {error}. Restore the object {name} from a copy \
             of the bucket and start again"
        ),
    }
}
