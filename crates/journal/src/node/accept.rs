//! Takes slots that others decided into the chain, the state machine and the retention, and finds
//! entries of an earlier lead of this node among them. It must not know how slots are read, nor in
//! which state the node is.

use super::context::Cx;
use super::retention::Accepted;
use super::{Effect, ProposeError, Refusal, Slot};
use crate::chain::{Chain, Verdict};
use crate::engine::Content;
use crate::entry::{self, Body, EntryId, Header, Item, Position, Stamp};
use crate::object::slot_name;
use crate::quarantine;
use crate::rule::Rule;

/// A summary of slots that were read, before they are accepted.
#[derive(Default)]
pub(super) struct Outlook {
    /// True if a sleeper may have put some of them where a slot was trimmed: claims, void entries,
    /// fillers, and entries whose body is missing. Valid commands are beyond doubt, since their
    /// writer holds the last claim.
    pub(super) is_doubtful: bool,
    /// The last claim among them that counts, and its node.
    pub(super) claim: Option<(EntryId, String)>,
}

/// Feeds slots to a chain on trial.
pub(super) fn look_over(chain: &mut Chain, slots: &[Slot]) -> Result<Outlook, Stop> {
    let mut outlook = Outlook::default();
    for slot in slots {
        let Content::Entry(bytes) = &slot.content else {
            chain.skip();
            outlook.is_doubtful = true;
            continue;
        };
        let verdict = chain.feed(bytes);
        match verdict.map_err(|error| unreadable(chain.shard(), slot.index, &error))? {
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

/// Why a node does not go on from the slots that it accepts.
pub(super) enum Stop {
    /// They are damaged; the text is for people, and the node halts.
    Damaged(String),
    /// A newer version wrote them; the text is for people.
    Newer(String),
    /// They quarantine an entry that the state holds.
    Quarantine,
}

impl From<String> for Stop {
    fn from(why: String) -> Self {
        Stop::Damaged(why)
    }
}

/// An entry that is to be applied.
struct Taken {
    id: EntryId,
    stamp: Stamp,
    items: Vec<Item>,
    quarantines: bool,
}

impl Cx<'_> {
    /// Accepts slots that are beyond doubt. All of them are read before any is applied: one may leave out an entry before it,
    /// whose callers must not get replies then.
    pub(super) fn accept(&mut self, slots: &[Slot]) -> Result<(), Stop> {
        let known = self.lasting.quarantined.len();
        let mut taken = Vec::new();
        let read = slots
            .iter()
            .try_for_each(|slot| self.accept_one(slot, &mut taken));
        let lasting = &self.lasting;
        let is_news = lasting.quarantined.len() > known;
        if is_news && (lasting.stuck.is_some() || lasting.rules.hold(Rule::QuarantineRebuilds)) {
            return Err(Stop::Quarantine);
        }
        taken.into_iter().for_each(|entry| self.apply(entry));
        read
    }

    fn accept_one(&mut self, slot: &Slot, taken: &mut Vec<Taken>) -> Result<(), Stop> {
        let Content::Entry(bytes) = &slot.content else {
            self.lasting.chain.skip();
            let kind = Accepted::ClaimOrVoid;
            self.lasting.retention.accepted(slot.index, 0, &kind);
            return Ok(());
        };
        let verdict = self.lasting.chain.feed(bytes);
        let shard = self.lasting.settings.shard;
        let verdict = verdict.map_err(|error| unreadable(shard, slot.index, &error))?;
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
                    taken.extend(self.take_in(&entry.header, bytes, stamp, items)?);
                    Accepted::Commands
                }
                Body::Elsewhere(reference) => {
                    let items = body_of(slot, entry.header.id.nonce, &reference)?;
                    taken.extend(self.take_in(&entry.header, bytes, stamp, items)?);
                    Accepted::CommandsElsewhere(reference.sha256)
                }
            },
        };
        let length = bytes.len() + slot.body.as_ref().map_or(0, bytes::Bytes::len);
        let retention = &mut self.lasting.retention;
        retention.accepted(slot.index, length, &kind);
        Ok(())
    }

    /// Takes quarantines out of a valid entry's commands. The others are to be applied, unless the entry is left out itself, or
    /// comes after one that cannot be applied.
    fn take_in(
        &mut self,
        header: &Header,
        slot: &[u8],
        stamp: Stamp,
        items: Vec<Item>,
    ) -> Result<Option<Taken>, Stop> {
        let (index, mut items) = (header.id.index, items);
        let quarantines = quarantine::take(index, &mut items);
        let lasting = &mut *self.lasting;
        if let Some(stuck) = &mut lasting.stuck {
            let only_quarantines = (items.is_empty() && !quarantines.is_empty())
                || !lasting.rules.hold(Rule::QuarantineBeforeOthersLead);
            let claimant = lasting.claimant.as_deref();
            stuck.saw(
                header,
                || quarantine::digest(slot),
                (&items, only_quarantines),
                claimant,
            );
        }
        let is_stuck = lasting
            .stuck
            .as_ref()
            .is_some_and(|stuck| index >= stuck.index);
        let is_left_out = match lasting.quarantined.get(&index) {
            Some(one) if one.sha256 != quarantine::digest(slot) => {
                let name = slot_name(lasting.settings.shard, index);
                return Err(Stop::Damaged(format!(
                    "entry {index} of the journal is not the one that entry {} quarantines. Restore the object {name} from a \
                     copy of the bucket and start again",
                    one.by
                )));
            }
            found => found.is_some(),
        };
        let taken = (!is_left_out && !is_stuck).then_some(Taken {
            id: header.id,
            stamp,
            items,
            quarantines: !quarantines.is_empty(),
        });
        for one in quarantines {
            lasting.quarantined.entry(one.slot).or_insert(one);
        }
        Ok(taken)
    }

    /// Applies an entry; if this node had sent it, its callers get the replies.
    fn apply(&mut self, taken: Taken) {
        let Taken {
            id,
            stamp,
            items,
            quarantines,
        } = taken;
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
            quarantines,
        });
        self.pass(barriers, Position(id.index));
    }

    pub(super) fn pass(&mut self, tickets: Vec<super::Ticket>, position: Position) {
        if !tickets.is_empty() {
            self.out.push(Effect::BarrierPassed { tickets, position });
        }
    }

    /// Refuses the entries in limbo once the slot of the first holds another's entry: none of them
    /// can ever count, since each names the one before.
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

fn unreadable(shard: u16, index: u64, error: &entry::DecodeError) -> Stop {
    let name = slot_name(shard, index);
    match error {
        entry::DecodeError::Corrupt(_) => Stop::Damaged(format!(
            "entry {index} of the journal is damaged: {error}. Restore the object {name} from a copy \
             of the bucket and start again"
        )),
        _ => Stop::Newer(format!("entry {index} of the journal: {error}")),
    }
}
