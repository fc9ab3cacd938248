//! Taking slots that others decided: into the chain, the state machine and the retention. What was
//! in flight of an earlier lead is found again here. It must not know how slots are read, nor in
//! which state a node is.

use super::context::Cx;
use super::retention::Accepted;
use super::{Effect, ProposeError, Refusal, Slot};
use crate::chain::{Chain, Verdict};
use crate::engine::Content;
use crate::entry::{self, Body, EntryId, Item, Position, Stamp};
use crate::object::slot_name;
use crate::rule::Rule;

/// What a run of slots amounts to, before it is taken.
#[derive(Default)]
pub(super) struct Outlook {
    /// Some of them may have been put by a sleeper where a slot was trimmed: claims, void entries and
    /// fillers, and entries whose body is not there. Valid commands cannot, since whoever writes
    /// them holds the last claim.
    pub(super) is_doubtful: bool,
    /// The last claim among them that counts, and the node that made it.
    pub(super) claim: Option<(EntryId, String)>,
}

/// Feeds slots to a chain that is tried out; damage is an error, for people.
pub(super) fn look_over(chain: &mut Chain, slots: &[Slot]) -> Result<Outlook, String> {
    let mut outlook = Outlook::default();
    for slot in slots {
        let Content::Entry(bytes) = &slot.content else {
            chain.skip();
            outlook.is_doubtful = true;
            continue;
        };
        let verdict = chain.feed(bytes);
        match verdict.map_err(|error| damaged(chain.shard(), slot.index, &error))? {
            Verdict::Void(_) => outlook.is_doubtful = true,
            Verdict::Valid { entry, .. } => match entry.body {
                Body::Claim { node, .. } => {
                    outlook.is_doubtful = true;
                    outlook.claim = Some((entry.header.id, node));
                }
                Body::Elsewhere(_) => outlook.is_doubtful |= slot.body.is_none(),
                Body::Commands(_) => {}
            },
        }
    }
    Ok(outlook)
}

impl Cx<'_> {
    /// Takes slots that are known to be what they seem. An error is for people: the node halts.
    pub(super) fn accept(&mut self, slots: &[Slot]) -> Result<(), String> {
        slots.iter().try_for_each(|slot| self.accept_one(slot))
    }

    fn accept_one(&mut self, slot: &Slot) -> Result<(), String> {
        let Content::Entry(bytes) = &slot.content else {
            self.lasting.chain.skip();
            let kind = Accepted::ClaimOrVoid;
            self.lasting.retention.accepted(slot.index, 0, &kind);
            return Ok(());
        };
        let verdict = self.lasting.chain.feed(bytes);
        let shard = self.lasting.settings.shard;
        let verdict = verdict.map_err(|error| damaged(shard, slot.index, &error))?;
        let kind = match verdict {
            Verdict::Void(_) => Accepted::ClaimOrVoid,
            Verdict::Valid { entry, stamp } => match entry.body {
                Body::Claim { node, .. } => {
                    if node != self.lasting.settings.name {
                        self.lasting.contested |= self.lasting.deposed;
                    }
                    self.lasting.claimant = Some(node);
                    Accepted::ClaimOrVoid
                }
                Body::Commands(items) => {
                    self.apply(entry.header.id, stamp, items);
                    Accepted::Commands
                }
                Body::Elsewhere(reference) => {
                    let items = body_of(slot, entry.header.id.nonce, &reference)?;
                    self.apply(entry.header.id, stamp, items);
                    Accepted::CommandsElsewhere(reference.sha256)
                }
            },
        };
        let length = bytes.len() + slot.body.as_ref().map_or(0, bytes::Bytes::len);
        let retention = &mut self.lasting.retention;
        retention.accepted(slot.index, length, &kind);
        Ok(())
    }

    /// Applies an entry; whoever waits for it, since it was sent from here, is told.
    fn apply(&mut self, id: EntryId, stamp: Stamp, items: Vec<Item>) {
        let is_ours = self
            .lasting
            .limbo
            .front()
            .is_some_and(|flight| flight.id == id)
            && self.lasting.rules.hold(Rule::OccupiedMayBeOurs);
        let flight = is_ours.then(|| self.lasting.limbo.pop_front()).flatten();
        let (tickets, barriers) = match flight {
            Some(flight) => (flight.tickets, flight.barriers),
            None => (Vec::new(), Vec::new()),
        };
        self.out.push(Effect::Apply {
            id,
            stamp,
            items,
            tickets,
        });
        self.pass(barriers, Position(id.index));
    }

    pub(super) fn pass(&mut self, tickets: Vec<super::Ticket>, position: Position) {
        if !tickets.is_empty() {
            self.out.push(Effect::BarrierPassed { tickets, position });
        }
    }

    /// Refuses what was in flight once its first slot is known to be another's: none of it can ever
    /// count, since each names the one before.
    pub(super) fn settle_limbo(&mut self) {
        let next = self.lasting.chain.next();
        let first = self.lasting.limbo.front();
        if first.is_some_and(|flight| flight.id.index < next) {
            let leader = self.lasting.claimant.clone();
            self.lose_limbo(ProposeError::Definite(Refusal::NotLeader { leader }));
        }
    }
}

fn body_of(slot: &Slot, nonce: u128, reference: &entry::Reference) -> Result<Vec<Item>, String> {
    let index = slot.index;
    let missing = bytes::Bytes::new();
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
        entry::DecodeError::NewerFormat(_) | entry::DecodeError::NewerSection(_) => {
            format!("entry {index} of the journal: {error}. Run a newer version")
        }
        entry::DecodeError::Corrupt(_) => format!(
            "entry {index} of the journal is damaged: {error}. Restore the object {name} from a copy \
             of the bucket and start again"
        ),
    }
}
