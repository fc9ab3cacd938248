//! Applies entries to the state machine, and decides which are applied off the async threads. It
//! must not know who waits for replies.

use std::any::Any;
use std::iter::Peekable;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use super::{Poison, Shared, StateMachine};
use crate::entry::{EntryId, Item, Stamp};
use crate::node::{Effect, Event};

/// Entries with so many bytes of commands take long enough to deserve a thread of their own; for
/// fewer, finding a thread takes longer than applying.
const MANY_BYTES: usize = 128 << 10;

/// An entry to apply.
pub(super) struct Entry {
    pub(super) id: EntryId,
    pub(super) stamp: Stamp,
    pub(super) items: Vec<Item>,
    /// True if it leaves an earlier one out.
    pub(super) quarantines: bool,
}

/// Entries that were read, in order, and whose replies nobody waits for; at a start there are many.
pub(super) struct Entries(Vec<Entry>);

/// The result of applying entries.
pub(super) struct Applied {
    /// The last entry that was applied.
    pub(super) index: u64,
    pub(super) commands: u64,
    /// Set if a command could not be applied; nothing after it was.
    pub(super) poisoned: Option<Event>,
}

impl Entries {
    /// Takes the run of entries that `effect` begins, if it is long and nobody waits for replies;
    /// else the effects to perform one by one.
    pub(super) fn take(
        effect: Effect,
        more: &mut Peekable<impl Iterator<Item = Effect>>,
    ) -> Result<Entries, Vec<Effect>> {
        let mut bytes = unheard_bytes(&effect);
        let mut run = vec![effect];
        while bytes.is_some()
            && let Some(next) = more.next_if(|effect| unheard_bytes(effect).is_some())
        {
            bytes = bytes.zip(unheard_bytes(&next)).map(|(sum, one)| sum + one);
            run.push(next);
        }
        if bytes.is_none_or(|bytes| bytes < MANY_BYTES) {
            return Err(run);
        }
        Ok(Entries(run.into_iter().filter_map(unheard).collect()))
    }

    /// Applies the entries up to the first that cannot be.
    pub(super) fn apply<S: StateMachine>(self, shared: &Shared<S>) -> Applied {
        let mut applied = Applied {
            index: 0,
            commands: 0,
            poisoned: None,
        };
        for entry in self.0 {
            let count = |_, _| applied.commands += 1;
            let outcome = apply(shared, &entry, count);
            if let Err(poisoned) = outcome {
                applied.poisoned = Some(poisoned);
                break;
            }
            applied.index = entry.id.index;
        }
        applied
    }
}

/// Applies one entry; `told` gets the replies with the numbers of their commands.
pub(super) fn apply<S: StateMachine>(
    shared: &Shared<S>,
    entry: &Entry,
    mut told: impl FnMut(usize, S::Reply),
) -> Result<(), Event> {
    let (id, stamp) = (entry.id, entry.stamp);
    let poisoned = |what: String, poison: Poison| {
        let why = format!(
            "{what}, stamped {} ms since 1970 and {} ticks: {poison}",
            stamp.wall_millis, stamp.ticks_millis
        );
        Event::Poisoned(id.index, why)
    };
    if entry.quarantines {
        let told = change(shared, |state| {
            state.left_out(id, stamp);
            Ok(())
        });
        told.map_err(|poison| poisoned("what leaves an entry out".to_owned(), poison))?;
    }
    for (number, item) in entry.items.iter().enumerate() {
        let is_last = number + 1 == entry.items.len();
        let outcome = change(shared, |state| {
            let reply = state.apply(id, stamp, item.cluster, &item.command)?;
            if is_last {
                state.applied(id);
            }
            Ok(reply)
        });
        let reply = outcome.map_err(|poison| {
            let (cluster, kind) = (item.cluster.0, S::kind(&item.command));
            let what = format!("command {number} ({kind}) of cluster {cluster}");
            poisoned(what, poison)
        })?;
        told(number, reply);
    }
    host::trial::tell("applied", id.index, || {
        let state = shared.state.read();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.seal().digest.to_vec()
    });
    Ok(())
}

/// Changes the state. If that fails, it is void before anybody reads it again.
fn change<S, T>(
    shared: &Shared<S>,
    change: impl FnOnce(&mut S) -> Result<T, Poison>,
) -> Result<T, Poison> {
    let state = shared.state.write();
    let mut state = state.unwrap_or_else(PoisonError::into_inner);
    // A state that panicked is dropped, so nobody sees what it has become.
    let outcome = catch_unwind(AssertUnwindSafe(|| change(&mut state)));
    let outcome = outcome.unwrap_or_else(|panic| Err(Poison(reason(&*panic))));
    if outcome.is_err() {
        shared.is_void.store(true, Ordering::Release);
    }
    outcome
}

/// The text of a panic.
fn reason(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!(
        "the state machine panicked: {}",
        text.unwrap_or("it did not say why")
    )
}

/// Bytes of an entry's commands if the effect applies one for which nobody waits; else `None`.
fn unheard_bytes(effect: &Effect) -> Option<usize> {
    match effect {
        Effect::Apply { items, tickets, .. } if tickets.is_empty() => {
            Some(items.iter().map(|item| item.command.len()).sum())
        }
        _ => None,
    }
}

fn unheard(effect: Effect) -> Option<Entry> {
    match effect {
        Effect::Apply {
            id,
            stamp,
            items,
            quarantines,
            ..
        } => Some(Entry {
            id,
            stamp,
            items,
            quarantines,
        }),
        _ => None,
    }
}
