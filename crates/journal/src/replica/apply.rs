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

/// An entry whose replies nobody waits for.
struct Unheard {
    id: EntryId,
    stamp: Stamp,
    items: Vec<Item>,
}

/// Entries that were read, in order; at a start there are many.
pub(super) struct Entries(Vec<Unheard>);

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
            let outcome = apply(shared, entry.id, entry.stamp, &entry.items, count);
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
    id: EntryId,
    stamp: Stamp,
    items: &[Item],
    mut told: impl FnMut(usize, S::Reply),
) -> Result<(), Event> {
    for (number, item) in items.iter().enumerate() {
        let outcome = {
            let state = shared.state.write();
            let mut state = state.unwrap_or_else(PoisonError::into_inner);
            // A state that panicked is dropped, so nobody sees what it has become.
            let apply = AssertUnwindSafe(|| state.apply(id, stamp, item.cluster, &item.command));
            let outcome = catch_unwind(apply).unwrap_or_else(|panic| Err(Poison(reason(&*panic))));
            if outcome.is_err() {
                shared.is_void.store(true, Ordering::Release);
            }
            outcome
        };
        match outcome {
            Ok(reply) => told(number, reply),
            Err(poison) => {
                let (cluster, kind) = (item.cluster.0, S::kind(&item.command));
                let why = format!(
                    "command {number} ({kind}) of cluster {cluster}, stamped {} ms since 1970 and {} ticks: {poison}",
                    stamp.wall_millis, stamp.ticks_millis
                );
                return Err(Event::Poisoned(id.index, why));
            }
        }
    }
    host::trial::tell("applied", id.index, || {
        let state = shared.state.read();
        let state = state.unwrap_or_else(PoisonError::into_inner);
        state.seal().digest.to_vec()
    });
    Ok(())
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

fn unheard(effect: Effect) -> Option<Unheard> {
    match effect {
        Effect::Apply {
            id, stamp, items, ..
        } => Some(Unheard { id, stamp, items }),
        _ => None,
    }
}
