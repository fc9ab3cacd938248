//! Engines in this process's memory, for tests and simulators. They must not know what entries mean.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::engine::tenures::{Begun, Tenures};
use crate::engine::window::Window;
use crate::engine::{Append, Content, End, Engine, Error, Limits, Scan, TakeError, Taken, Tenure};

/// The slots of a journal without any asynchrony. Simulators use them directly.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    slots: BTreeMap<u64, Content>,
    floor: u64,
}

impl Slots {
    /// An empty journal.
    pub fn new() -> Self {
        Slots::default()
    }

    /// Puts an entry into a free slot; true if the slot holds this entry now.
    pub fn put(&mut self, index: u64, bytes: Bytes) -> bool {
        let entry = Content::Entry(bytes);
        *self.slots.entry(index).or_insert_with(|| entry.clone()) == entry
    }

    /// Closes a slot if it is free; yields what it holds now.
    pub fn fill(&mut self, index: u64) -> Content {
        self.slots.entry(index).or_insert(Content::Filler).clone()
    }

    pub fn read(&self, index: u64) -> Option<Content> {
        self.slots.get(&index).cloned()
    }

    /// The unbroken run from a slot on.
    pub fn run(&self, from: u64, limit: usize) -> Vec<(u64, Content)> {
        (from..)
            .take(limit)
            .map_while(|index| Some((index, self.read(index)?)))
            .collect()
    }

    /// The highest occupied slot, `None` in an empty journal.
    pub fn head(&self) -> Option<u64> {
        self.slots.last_key_value().map(|(index, _)| *index)
    }

    /// See [`crate::engine::Engine::floor`].
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// See [`crate::engine::Tenure::trim`].
    pub fn trim(&mut self, floor: u64, indices: &[u64]) {
        self.floor = self.floor.max(floor);
        for index in indices {
            assert!(*index < floor, "only slots below the floor are trimmed");
            self.slots.remove(index);
        }
    }

    /// See [`crate::engine::Engine::take`]: the settled slots, and the tenure's window.
    pub fn take(
        &mut self,
        from: u64,
        through: u64,
    ) -> Result<(Vec<(u64, Content)>, Books), TakeError> {
        if self.floor > from {
            return Err(TakeError::Trimmed(self.floor));
        }
        let occupied = self.head().map_or(from, |head| head + 1);
        let end = occupied.max(through).max(from);
        let settled = (from..end).map(|index| (index, self.fill(index)));
        Ok((settled.collect(), Books::starting_at(end)))
    }
}

/// The slots and entries that a tenure has sent, for users of [`Slots`].
#[derive(Clone, Debug)]
pub struct Books(Window);

impl Books {
    pub fn starting_at(first: u64) -> Self {
        Books(Window::starting_at(first))
    }

    /// Notes that the tenure sends these bytes; the error says why it may not, and the tenure is
    /// over.
    pub fn admit(&mut self, index: u64, bytes: &Bytes) -> Result<(), &'static str> {
        self.0.admit(index, bytes)
    }

    /// Turns the answer of [`Slots::put`] to an admitted entry into the outcome of the append.
    pub fn answered(&mut self, index: u64, holds: bool) -> Append {
        if holds {
            self.0.appended(index);
            return Append::Appended;
        }
        self.0.end();
        Append::Superseded
    }

    pub fn confirmed(&mut self) {
        self.0.confirm();
    }

    pub fn is_over(&self) -> bool {
        self.0.is_over()
    }
}

/// The engine of one node. Those made by [`Memory::beside`] share its slots.
#[derive(Default)]
pub struct Memory {
    slots: Arc<Mutex<Slots>>,
    /// Tenures begun by this engine.
    tenures: Tenures,
}

impl Memory {
    /// An empty journal.
    pub fn new() -> Self {
        Memory::default()
    }

    /// Another node's engine on the same journal.
    #[must_use]
    pub fn beside(&self) -> Self {
        Memory {
            slots: Arc::clone(&self.slots),
            tenures: Tenures::default(),
        }
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code that can panic runs under the lock, so poisoned slots are still whole.
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

#[async_trait]
impl Engine for Memory {
    async fn scan(&self, from: u64, limit: usize) -> Scan {
        let slots = lock(&self.slots).run(from, limit);
        let end = match slots.len() < limit {
            true => End::Free,
            false => End::More,
        };
        Scan { slots, end }
    }

    async fn above(&self, index: u64) -> Result<Option<u64>, Error> {
        Ok(lock(&self.slots).head().filter(|head| *head > index))
    }

    async fn floor(&self) -> Result<u64, Error> {
        Ok(lock(&self.slots).floor())
    }

    async fn take(&self, from: u64, through: u64) -> Result<Taken, TakeError> {
        let begun = self.tenures.begin();
        let (settled, books) = lock(&self.slots).take(from, through)?;
        let tenure = Held {
            slots: Arc::clone(&self.slots),
            begun,
            books: Mutex::new(books),
        };
        Ok(Taken {
            tenure: Arc::new(tenure),
            settled,
        })
    }

    fn mark(&self, _: u64) -> Bytes {
        Bytes::new()
    }

    fn adopt(&self, _: &[u8]) -> Result<(), Error> {
        Ok(())
    }

    fn limits(&self) -> Limits {
        Limits {
            slot_bytes_max: 256 * 1024,
            takes_give_way: false,
            takes_seal: false,
        }
    }
}

/// A tenure in memory.
struct Held {
    slots: Arc<Mutex<Slots>>,
    begun: Begun,
    books: Mutex<Books>,
}

impl Held {
    fn is_over(&self) -> bool {
        self.begun.is_over() || lock(&self.books).is_over()
    }
}

#[async_trait]
impl Tenure for Held {
    async fn append(&self, index: u64, _nonce: u128, bytes: Bytes) -> Append {
        if self.is_over() || lock(&self.books).admit(index, &bytes).is_err() {
            return Append::Superseded;
        }
        let holds = lock(&self.slots).put(index, bytes);
        lock(&self.books).answered(index, holds)
    }

    fn confirmed(&self) {
        lock(&self.books).confirmed();
    }

    async fn trim(&self, floor: u64, indices: &[u64]) -> Result<(), Error> {
        if self.is_over() {
            return Err(Error::Unavailable("the tenure is over".to_owned()));
        }
        lock(&self.slots).trim(floor, indices);
        Ok(())
    }
}
