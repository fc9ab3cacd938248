//! The partitions of a fetch, or of a session of fetches, each in a slot, indexed by the step that
//! each needs, so that a fetch costs as much as has changed and not as much as it names. Pure. It
//! must not know the reader.

use std::collections::BTreeSet;
use std::sync::Arc;

use meta::ids::PartitionId;
use meta::places::{Located, SlicePlace};
use rpc::call::Locate;

use super::hub::Changes;
use super::item::{Bounds, Change, Item, Known, Need, Slot};
use super::plan::Want;

/// Places asked for in one look, beyond one for each partition: they take a MiB.
const PLACES_MAX: usize = 16_384;
/// Places asked for of one partition.
const PLACES_OF_PARTITION_MAX: usize = 1_024;

/// What is known of a partition's bounds at the end of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The wanted offset is within the bounds, or at their end.
    Within(Bounds),
    Outside(Bounds),
    /// The partition does not exist any more.
    Gone,
    Failed(Arc<rpc::Error>),
    /// The fetch ended before it was known.
    Unknown,
    /// The caller refused the partition.
    Refused,
}

#[derive(Debug, Default)]
pub struct Items {
    slots: Vec<Option<Filed>>,
    free: Vec<Slot>,
    /// Slots with records to read, in the order of their turns.
    readable: BTreeSet<(u64, Slot)>,
    /// Slots that make the answer due at once.
    to_tell: BTreeSet<Slot>,
    /// Slots to locate; some may not need it any more.
    to_locate: Vec<Slot>,
    /// Slots to locate with a current answer.
    to_confirm: Vec<Slot>,
    /// Slots of which something new became known since [`Items::take_news`].
    news: Vec<Slot>,
    turns: u64,
}

/// An item, and the lists that it is in.
#[derive(Debug)]
struct Filed {
    item: Item,
    need: Need,
    turn: u64,
    is_news: bool,
}

impl Items {
    /// Adds a partition, whose turn comes after the others'.
    pub fn add(&mut self, partition: PartitionId, want: Want) -> Slot {
        self.insert(partition, want, Known::Nothing)
    }

    /// Adds a partition that cannot be read, for a reason that the caller knows.
    pub fn add_refused(&mut self, want: Want, ends_wait: bool) -> Slot {
        let known = Known::Refused { ends_wait };
        self.insert(PartitionId::default(), want, known)
    }

    fn insert(&mut self, partition: PartitionId, want: Want, known: Known) -> Slot {
        let item = Item {
            partition,
            want,
            known,
            told_end: 0,
        };
        self.turns += 1;
        let filed = Filed {
            item,
            need: Need::None,
            turn: self.turns,
            is_news: false,
        };
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            // The cast is safe: a request names fewer partitions than it has bytes.
            Slot::try_from(self.slots.len() - 1).unwrap_or(Slot::MAX)
        });
        self.slots[slot as usize] = Some(filed);
        self.file(slot);
        self.tell(slot);
        slot
    }

    pub fn remove(&mut self, slot: Slot) {
        if let Some(filed) = self.slots.get_mut(slot as usize).and_then(Option::take) {
            self.readable.remove(&(filed.turn, slot));
            self.to_tell.remove(&slot);
            self.free.push(slot);
        }
    }

    /// Changes what the reader wants of a partition.
    pub fn want(&mut self, slot: Slot, want: Want) {
        self.change(slot, |item| item.want(want));
    }

    /// Whether a slot has this partition, which is not refused.
    pub fn holds(&self, slot: Slot, partition: PartitionId) -> bool {
        let is_it = |item: &Item| {
            item.partition == partition && !matches!(item.known, Known::Refused { .. })
        };
        self.item(slot).is_some_and(is_it)
    }

    /// Puts another partition into a slot.
    pub fn replace(&mut self, slot: Slot, partition: PartitionId) {
        self.change(slot, |item| {
            item.partition = partition;
            item.known = Known::Nothing;
            item.told_end = 0;
        });
    }

    /// Marks a partition as one that cannot be read.
    pub fn refuse(&mut self, slot: Slot, ends_wait: bool) {
        self.change(slot, |item| item.known = Known::Refused { ends_wait });
    }

    pub fn partitions(&self) -> Vec<(PartitionId, Slot)> {
        let filed = (0..).zip(&self.slots);
        let filed = filed.filter_map(|(slot, filed)| Some((filed.as_ref()?, slot)));
        filed
            .filter(|(filed, _)| !matches!(filed.item.known, Known::Refused { .. }))
            .map(|(filed, slot)| (filed.item.partition, slot))
            .collect()
    }

    pub fn outcome(&self, slot: Slot) -> Outcome {
        match self.item(slot).map(|item| &item.known) {
            Some(Known::Here(bounds, _) | Known::Behind(bounds)) => Outcome::Within(*bounds),
            Some(Known::Outside(bounds)) => Outcome::Outside(*bounds),
            Some(Known::Gone) => Outcome::Gone,
            Some(Known::Failed(error)) => Outcome::Failed(Arc::clone(error)),
            Some(Known::Nothing | Known::Doubt) => Outcome::Unknown,
            Some(Known::Refused { .. }) | None => Outcome::Refused,
        }
    }

    /// Slots of which something new became known since the last call.
    pub fn take_news(&mut self) -> Vec<Slot> {
        let mut news = std::mem::take(&mut self.news);
        news.retain(|slot| match self.slots.get_mut(*slot as usize) {
            Some(Some(filed)) => std::mem::take(&mut filed.is_news),
            _ => false,
        });
        news
    }

    /// The most partitions that an answer may mention, if it mentions only news.
    pub(super) fn told_max(&self) -> usize {
        self.news.len() + self.to_tell.len()
    }

    /// Ends a fetch: partitions that were served get their next turn after the others, and those
    /// not found are looked for again by the next fetch. Places are dropped.
    pub fn rest(&mut self, served: &[Slot]) {
        for slot in served {
            self.turns += 1;
            let turn = self.turns;
            if let Some(Some(filed)) = self.slots.get_mut(*slot as usize) {
                self.readable.remove(&(filed.turn, *slot));
                filed.turn = turn;
                filed.need = Need::None;
                self.file(*slot);
            }
        }
        let again: Vec<Slot> = self.readable.iter().map(|(_, slot)| *slot).collect();
        for slot in again.into_iter().chain(self.to_tell.clone()) {
            self.change(slot, |item| item.want(item.want));
        }
    }

    /// Applies the changes that the hub has told.
    pub fn note_all(&mut self, changes: Changes) {
        if changes.all {
            self.look_at_all();
        }
        for (slot, partition, change) in changes.each() {
            self.note(slot, partition, change);
        }
    }

    /// Applies a change, if the slot still holds that partition.
    fn note(&mut self, slot: Slot, partition: PartitionId, change: Change) {
        let is_its = |item: &Item| item.partition == partition;
        if self.item(slot).is_some_and(is_its) {
            self.change(slot, |item| item.note(change));
            self.tell(slot);
        }
    }

    /// Marks every partition to be located again.
    fn look_at_all(&mut self) {
        for (_, slot) in self.partitions() {
            self.change(slot, |item| item.note(Change::Look { high_watermark: 0 }));
        }
    }

    pub(super) fn take_to_locate(&mut self) -> Vec<Slot> {
        let mut slots = std::mem::take(&mut self.to_locate);
        slots.retain(|slot| self.need(*slot) == Some(Need::Locate));
        slots
    }

    pub(super) fn take_to_confirm(&mut self) -> Vec<Slot> {
        let mut slots = std::mem::take(&mut self.to_confirm);
        slots.retain(|slot| self.need(*slot) == Some(Need::Confirm));
        slots
    }

    pub(super) fn has_to_confirm(&self) -> bool {
        !self.to_confirm.is_empty()
    }

    pub(super) fn requests(&self, slots: &[Slot]) -> Vec<Locate> {
        let items = slots.iter().filter_map(|slot| self.item(*slot));
        items.map(Item::request).collect()
    }

    /// Takes the control plane's answers for `slots`.
    pub(super) fn locate(&mut self, slots: &[Slot], located: Vec<Located>, is_current: bool) {
        let places_max = (PLACES_MAX / slots.len().max(1)).clamp(1, PLACES_OF_PARTITION_MAX);
        for (slot, located) in slots.iter().zip(located) {
            self.change(*slot, |item| item.locate(located, is_current, places_max));
            self.tell(*slot);
        }
    }

    pub(super) fn fail(&mut self, slots: &[Slot], error: rpc::Error) {
        let error = Arc::new(error);
        for slot in slots {
            self.change(*slot, |item| item.known = Known::Failed(Arc::clone(&error)));
        }
    }

    /// Items with records to read, in the order of their turns.
    pub(super) fn readable(&self) -> impl Iterator<Item = (Slot, &Item)> {
        let slots = self.readable.iter().map(|(_, slot)| *slot);
        slots.filter_map(|slot| Some((slot, self.item(slot)?)))
    }

    /// Slots that make the answer due at once, and are in every answer.
    pub fn to_tell(&self) -> impl Iterator<Item = Slot> {
        self.to_tell.iter().copied()
    }

    /// True if some partition may get records while an answer waits.
    pub(super) fn may_change(&self) -> bool {
        let mut filed = self.slots.iter().flatten();
        filed.any(|filed| !matches!(filed.item.known, Known::Refused { .. }))
    }

    pub(super) fn item(&self, slot: Slot) -> Option<&Item> {
        let filed = self.slots.get(slot as usize)?.as_ref()?;
        Some(&filed.item)
    }

    pub fn places(&self, slot: Slot) -> &[SlicePlace] {
        self.item(slot).map_or(&[], Item::places)
    }

    fn need(&self, slot: Slot) -> Option<Need> {
        let filed = self.slots.get(slot as usize)?.as_ref()?;
        Some(filed.need)
    }

    fn change(&mut self, slot: Slot, change: impl FnOnce(&mut Item)) {
        if let Some(Some(filed)) = self.slots.get_mut(slot as usize) {
            change(&mut filed.item);
            self.file(slot);
        }
    }

    /// Puts an item into the list of the step that it needs.
    fn file(&mut self, slot: Slot) {
        let Some(Some(filed)) = self.slots.get_mut(slot as usize) else {
            return;
        };
        let (before, need, turn) = (filed.need, filed.item.need(), filed.turn);
        filed.need = need;
        if before == need {
            return;
        }
        match before {
            Need::Read => drop(self.readable.remove(&(turn, slot))),
            Need::Tell => drop(self.to_tell.remove(&slot)),
            Need::None | Need::Locate | Need::Confirm => {}
        }
        match need {
            Need::Read => drop(self.readable.insert((turn, slot))),
            Need::Tell => drop(self.to_tell.insert(slot)),
            Need::Locate => self.to_locate.push(slot),
            Need::Confirm => self.to_confirm.push(slot),
            Need::None => {}
        }
    }

    fn tell(&mut self, slot: Slot) {
        if let Some(Some(filed)) = self.slots.get_mut(slot as usize)
            && !filed.is_news
        {
            filed.is_news = true;
            self.news.push(slot);
        }
    }
}
