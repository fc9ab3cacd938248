//! An engine in this process's memory, shared by whoever holds a clone, with faults on demand. It
//! must not know what entries mean.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;

use crate::engine::{Append, Engine, Error, Limits};

/// Slots without any asynchrony: what an engine is once everything else is taken away. The
/// simulator uses it directly.
#[derive(Clone, Debug, Default)]
pub struct Slots {
    slots: BTreeMap<u64, Bytes>,
    floor: u64,
}

impl Slots {
    /// An empty journal.
    pub fn new() -> Self {
        Slots::default()
    }

    /// See [`Engine::append`].
    pub fn append(&mut self, index: u64, bytes: Bytes) -> Append {
        match self.slots.get(&index) {
            None => {
                self.slots.insert(index, bytes);
                Append::Appended
            }
            Some(found) if *found == bytes => Append::Appended,
            Some(found) => Append::Occupied(found.clone()),
        }
    }

    /// See [`Engine::read`].
    pub fn read(&self, index: u64) -> Option<Bytes> {
        self.slots.get(&index).cloned()
    }

    /// See [`Engine::scan`].
    pub fn scan(&self, from: u64, limit: usize) -> Vec<(u64, Bytes)> {
        (from..)
            .take(limit)
            .map_while(|index| Some((index, self.read(index)?)))
            .collect()
    }

    /// The highest occupied slot, `None` in an empty journal.
    pub fn head(&self) -> Option<u64> {
        self.slots.last_key_value().map(|(index, _)| *index)
    }

    /// See [`Engine::floor`].
    pub fn floor(&self) -> u64 {
        self.floor
    }

    /// See [`Engine::trim`].
    pub fn trim(&mut self, floor: u64, indices: &[u64]) {
        self.floor = self.floor.max(floor);
        for index in indices {
            assert!(*index < floor, "only slots below the floor are trimmed");
            self.slots.remove(index);
        }
    }
}

/// What happens to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// It happens, but its answer is lost.
    LostReply,
    /// It does not happen, and that is not known.
    Dropped,
    /// An append that happens when [`Memory::release`] is called, its answer lost long before.
    Delayed,
}

/// The operations of an engine, as fault plans see them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// [`Engine::append`] at this index.
    Append(u64),
    Read,
    /// [`Engine::trim`]
    Trim,
}

type Plan = Box<dyn FnMut(Op) -> Fault + Send>;

#[derive(Default)]
struct Inner {
    slots: Slots,
    delayed: Vec<(u64, Bytes)>,
    plan: Option<Plan>,
}

/// The engine. Clones share their slots.
#[derive(Clone, Default)]
pub struct Memory {
    inner: Arc<Mutex<Inner>>,
}

impl Memory {
    /// An empty journal.
    pub fn new() -> Self {
        Memory::default()
    }

    /// From now on `plan` decides what happens to each operation.
    pub fn plan(&self, plan: impl FnMut(Op) -> Fault + Send + 'static) {
        self.lock().plan = Some(Box::new(plan));
    }

    /// From now on everything works.
    pub fn heal(&self) {
        self.lock().plan = None;
    }

    /// Lets every delayed append happen, in the order in which they were made.
    pub fn release(&self) {
        let mut inner = self.lock();
        for (index, bytes) in std::mem::take(&mut inner.delayed) {
            inner.slots.append(index, bytes);
        }
    }

    /// The slots as they are.
    pub fn slots(&self) -> Slots {
        self.lock().slots.clone()
    }

    /// Overwrites or clears a slot, as no engine would: damage, for tests.
    pub fn damage(&self, index: u64, bytes: Option<Bytes>) {
        let mut inner = self.lock();
        match bytes {
            Some(bytes) => inner.slots.slots.insert(index, bytes),
            None => inner.slots.slots.remove(&index),
        };
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // A plan that panicked has failed its test already; the slots are whole.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reading<T>(&self, read: impl FnOnce(&Slots) -> T) -> Result<T, Error> {
        let mut inner = self.lock();
        match inner.fault(Op::Read) {
            Fault::None => Ok(read(&inner.slots)),
            _ => Err(Error::Unavailable("a planned fault".to_owned())),
        }
    }
}

impl Inner {
    fn fault(&mut self, op: Op) -> Fault {
        self.plan.as_mut().map_or(Fault::None, |plan| plan(op))
    }
}

#[async_trait]
impl Engine for Memory {
    async fn append(&self, index: u64, _nonce: u128, bytes: Bytes) -> Append {
        let mut inner = self.lock();
        let fault = inner.fault(Op::Append(index));
        match fault {
            Fault::None => return inner.slots.append(index, bytes),
            Fault::LostReply => drop(inner.slots.append(index, bytes)),
            Fault::Dropped => {}
            Fault::Delayed => inner.delayed.push((index, bytes)),
        }
        Append::Unknown("a planned fault".to_owned())
    }

    async fn read(&self, index: u64) -> Result<Option<Bytes>, Error> {
        self.reading(|slots| slots.read(index))
    }

    async fn scan(&self, from: u64, limit: usize) -> Result<Vec<(u64, Bytes)>, Error> {
        self.reading(|slots| slots.scan(from, limit))
    }

    async fn above(&self, index: u64) -> Result<Option<u64>, Error> {
        self.reading(|slots| slots.head().filter(|head| *head > index))
    }

    async fn floor(&self) -> Result<u64, Error> {
        self.reading(Slots::floor)
    }

    async fn trim(&self, floor: u64, indices: &[u64]) -> Result<(), Error> {
        let mut inner = self.lock();
        let fault = inner.fault(Op::Trim);
        if matches!(fault, Fault::None | Fault::LostReply) {
            inner.slots.trim(floor, indices);
        }
        match fault {
            Fault::None => Ok(()),
            _ => Err(Error::Unavailable("a planned fault".to_owned())),
        }
    }

    fn limits(&self) -> Limits {
        Limits {
            slot_bytes_max: 256 * 1024,
        }
    }
}
