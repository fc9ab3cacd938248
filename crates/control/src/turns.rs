//! The order in which files of one incarnation are committed or skipped, for calls that overtake each other on their way: after a
//! change of leader all that wait come at once, in any order. One that comes early is held for a moment, until those before it
//! are passed on, and all of them share an entry; else each would be refused, and sent again after the one before. Sans-IO. Safety
//! rests on none of it: whatever is passed on applies at its number's turn only.

use std::collections::BTreeMap;
use std::time::Duration;

use host::clock::Instant;
use meta::ids::{FileId, Incarnation};

/// How long a call is held. Those before it are asked of this node within 250 ms if it is not known yet who leads; after
/// half a second its caller would take this node for gone.
pub(crate) const HOLD_MAX: Duration = Duration::from_millis(400);
/// How many numbers ahead of its turn a call may be, and so how many are held of one incarnation: an agent has 16 under way.
const AHEAD_MAX: u64 = 64;
/// Calls that are held of all incarnations together.
const HELD_MAX: usize = 4_096;

/// What becomes of a call that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// It is to be passed on.
    Now,
    /// It is held: those that are released before this time are passed on then, and all others at this time.
    Held(Instant),
}

/// Identifies a call; the shell numbers them.
pub(crate) type Ticket = u64;

/// The calls of one incarnation.
#[derive(Debug, Default)]
struct Line {
    /// The number after the last one that was passed on, as long as that may be applied.
    next: u64,
    /// Calls that were passed on and are not answered.
    under_way: usize,
    /// Calls that came before their turn, by number. A call may be there twice, since who is not sure of it repeats it.
    held: BTreeMap<u64, Vec<Ticket>>,
}

/// The calls of all incarnations.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    lines: BTreeMap<Incarnation, Line>,
    held: usize,
}

impl Turns {
    /// A call for a file has come, of an incarnation whose next number is `applied` by the applied state. One that is to be
    /// passed on counts as under way from now on.
    pub(crate) fn comes(
        &mut self,
        now: Instant,
        file: FileId,
        applied: u64,
        ticket: Ticket,
    ) -> Turn {
        let line = self.lines.entry(file.incarnation).or_default();
        line.next = line.next.max(applied);
        let ahead = file.number.saturating_sub(line.next);
        let held = line.held.values().map(Vec::len).sum::<usize>();
        let has_room = self.held < HELD_MAX && (held as u64) < AHEAD_MAX;
        if (1..=AHEAD_MAX).contains(&ahead) && has_room {
            line.held.entry(file.number).or_default().push(ticket);
            self.held += 1;
            return Turn::Held(now + HOLD_MAX);
        }
        line.under_way += 1;
        Turn::Now
    }

    /// The time of a call that was held is over: it counts as under way, and is passed on. False if it was released before.
    pub(crate) fn is_over(&mut self, file: FileId, ticket: Ticket) -> bool {
        let was_held = self.forget(file, ticket);
        if was_held {
            self.lines.entry(file.incarnation).or_default().under_way += 1;
        }
        was_held
    }

    /// Nobody waits for a call any more that may be held.
    pub(crate) fn given_up(&mut self, file: FileId, ticket: Ticket) {
        self.forget(file, ticket);
        self.tidy(file.incarnation);
    }

    fn forget(&mut self, file: FileId, ticket: Ticket) -> bool {
        let Some(line) = self.lines.get_mut(&file.incarnation) else {
            return false;
        };
        let Some(tickets) = line.held.get_mut(&file.number) else {
            return false;
        };
        let before = tickets.len();
        tickets.retain(|held| *held != ticket);
        let forgotten = before - tickets.len();
        if tickets.is_empty() {
            line.held.remove(&file.number);
        }
        self.held -= forgotten;
        forgotten > 0
    }

    /// A call is where nothing overtakes it any more. Yields those whose turn it is now; they are no longer held, and count as
    /// under way.
    pub(crate) fn passed_on(&mut self, file: FileId) -> Vec<Ticket> {
        let Some(line) = self.lines.get_mut(&file.incarnation) else {
            return Vec::new();
        };
        if file.number == line.next {
            line.next += 1;
        }
        let released = line.held.remove(&line.next).unwrap_or_default();
        line.under_way += released.len();
        self.held -= released.len();
        released
    }

    /// A call that was passed on is answered, or nobody waits for the answer. Unless it `applied`, those after it may have no turn:
    /// what comes next goes by the applied state.
    pub(crate) fn answered(&mut self, file: FileId, applied: bool) {
        if let Some(line) = self.lines.get_mut(&file.incarnation) {
            line.under_way = line.under_way.saturating_sub(1);
            if !applied {
                line.next = line.next.min(file.number);
            }
        }
        self.tidy(file.incarnation);
    }

    fn tidy(&mut self, incarnation: Incarnation) {
        let is_idle = |line: &Line| line.under_way == 0 && line.held.is_empty();
        if self.lines.get(&incarnation).is_some_and(is_idle) {
            self.lines.remove(&incarnation);
        }
    }
}

#[cfg(test)]
mod tests;
