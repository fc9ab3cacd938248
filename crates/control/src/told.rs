//! What a control node is told by the one that leads, and of which build it is itself, as its tasks share it. It must not judge what was told.

use std::sync::{Mutex, MutexGuard, PoisonError};

use host::clock::Instant;

use crate::roll::{SILENT_AFTER, Word};

pub(crate) struct Told {
    version: String,
    /// Of the node that leads; of this one's own while that is it.
    word: Mutex<Option<Word>>,
    /// How far the journal goes, and when the node that leads said so.
    end: Mutex<Option<(u64, Instant)>>,
}

impl Told {
    pub(crate) fn new(version: String) -> Self {
        Told {
            version,
            word: Mutex::default(),
            end: Mutex::default(),
        }
    }

    /// Of this node's own build.
    pub(crate) fn version(&self) -> &str {
        &self.version
    }

    /// The node that leads says whom it has heard.
    pub(crate) fn hear(&self, word: Word) {
        *lock(&self.word) = Some(word);
    }

    /// The last that it said.
    pub(crate) fn word(&self) -> Option<Word> {
        lock(&self.word).clone()
    }

    /// The node that leads has said how far the journal goes.
    pub(crate) fn goes_to(&self, now: Instant, end: u64) {
        *lock(&self.end) = Some((end, now));
    }

    /// How far that is; `None` if it has not said so lately.
    pub(crate) fn end(&self, now: Instant) -> Option<u64> {
        let told = *lock(&self.end);
        let lately = told.filter(|(_, at)| now.since(*at) < SILENT_AFTER);
        lately.map(|(end, _)| end)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
