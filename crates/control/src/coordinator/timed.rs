//! Values by name, each with a deadline, that can be asked for the next deadline without a walk.
//! Must not know what happens when a deadline is over.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use host::clock::Instant;

#[derive(Debug)]
pub(super) struct Timed<T> {
    values: BTreeMap<Arc<str>, (Instant, T)>,
    /// The names by deadline.
    order: BTreeSet<(Instant, Arc<str>)>,
}

impl<T> Default for Timed<T> {
    fn default() -> Self {
        Timed {
            values: BTreeMap::new(),
            order: BTreeSet::new(),
        }
    }
}

impl<T> Timed<T> {
    pub(super) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.values.contains_key(name)
    }

    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut T> {
        self.values.get_mut(name).map(|(_, value)| value)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &T)> {
        self.values
            .iter()
            .map(|(name, (_, value))| (name.as_ref(), value))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&str, &mut T)> {
        let values = self.values.iter_mut();
        values.map(|(name, (_, value))| (name.as_ref(), value))
    }

    /// Adds a value; gives back the one that had its name.
    pub(super) fn insert(&mut self, name: &str, deadline: Instant, value: T) -> Option<T> {
        let before = self.remove(name);
        let name: Arc<str> = name.into();
        self.order.insert((deadline, Arc::clone(&name)));
        self.values.insert(name, (deadline, value));
        before
    }

    pub(super) fn remove(&mut self, name: &str) -> Option<T> {
        let (name, (deadline, value)) = self.values.remove_entry(name)?;
        self.order.remove(&(deadline, name));
        Some(value)
    }

    /// Sets the deadline that follows from the one that a value has.
    pub(super) fn reschedule(&mut self, name: &str, next: impl FnOnce(Instant) -> Instant) {
        let Some((deadline, _)) = self.values.get_mut(name) else {
            return;
        };
        let (before, after) = (*deadline, next(*deadline));
        if before == after {
            return;
        }
        *deadline = after;
        if let Some((_, name)) = self.order.take(&(before, name.into())) {
            self.order.insert((after, name));
        }
    }

    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    /// The names whose deadline is over, in its order.
    pub(super) fn over(&self, now: Instant) -> Vec<Arc<str>> {
        let over = self
            .order
            .iter()
            .take_while(|(deadline, _)| *deadline <= now);
        over.map(|(_, name)| Arc::clone(name)).collect()
    }
}
