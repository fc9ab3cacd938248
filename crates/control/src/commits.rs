//! The shell around [`crate::turns`]: calls that commit or skip files are proposed in the order of their numbers. It must not know
//! what they hold.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use host::budget::{Budget, Held};
use host::clock::Instant;
use journal::node::ProposeError;
use journal::replica::Handle;
use meta::command::Command;
use meta::commit::FileReply;
use meta::ids::FileId;
use meta::reply::Reply;
use rpc::Position;
use tokio::sync::oneshot;

use crate::machine::{CLUSTER, Machine};
use crate::turns::{Ticket, Turn, Turns};

/// Memory for calls that are held: a commit has some kilobytes, at most some MiB. One for which there is no room is not held.
const HELD_BYTES: u64 = 16 << 20;

/// Calls that are held or under way.
pub(crate) struct Commits {
    desk: Mutex<Desk>,
    room: Budget,
}

#[derive(Default)]
struct Desk {
    turns: Turns,
    tickets: Ticket,
    /// Those that are held.
    waiters: BTreeMap<Ticket, Waiter>,
}

/// A command that settles a file.
pub(crate) struct Settling {
    pub(crate) file: FileId,
    pub(crate) command: Bytes,
    /// Bytes of the file.
    pub(crate) about: u64,
}

/// What becomes of a command that is proposed.
type Proposed = BoxFuture<'static, Result<(Position, Reply), ProposeError>>;

/// A call that is held.
struct Waiter {
    settling: Settling,
    proposed: oneshot::Sender<Proposed>,
    _room: Held,
}

impl Commits {
    pub(crate) fn new() -> Self {
        Commits {
            desk: Mutex::default(),
            room: Budget::of_bytes(HELD_BYTES),
        }
    }

    // No code that can panic runs under the lock, so a poisoned value is still whole.
    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Desk {
    /// Proposes a command, and then those that are held for it, in order.
    fn propose(&mut self, replica: &Handle<Machine>, settling: Settling) -> Proposed {
        let first = settling.file;
        let proposed = enqueue(replica, settling);
        let mut released = self.turns.passed_on(first);
        while let Some(ticket) = released.pop() {
            let Some(Waiter {
                settling, proposed, ..
            }) = self.waiters.remove(&ticket)
            else {
                continue;
            };
            let file = settling.file;
            // It may have been given up.
            let _gone = proposed.send(enqueue(replica, settling));
            released.extend(self.turns.passed_on(file));
        }
        proposed
    }
}

fn enqueue(replica: &Handle<Machine>, settling: Settling) -> Proposed {
    let Settling { command, about, .. } = settling;
    replica.enqueue(CLUSTER, command, about).boxed()
}

/// A call on its way. Dropped before it is answered, nobody waits for it.
struct Call<'a> {
    commits: &'a Commits,
    file: FileId,
    ticket: Ticket,
    is_applied: bool,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let Desk { turns, waiters, .. } = &mut *self.commits.desk();
        match waiters.remove(&self.ticket) {
            Some(_) => turns.given_up(self.file, self.ticket),
            None => turns.answered(self.file, self.is_applied),
        }
    }
}

/// The file that a command settles.
pub(crate) fn settles(command: &Command) -> Option<FileId> {
    match command {
        Command::CommitFile(commit) => Some(commit.file),
        Command::SkipFile { file } => Some(*file),
        _ => None,
    }
}

/// Whether a file's fate is decided, by this command or before.
fn is_settled(reply: &Reply) -> bool {
    let Reply::File(reply) = reply else {
        return false;
    };
    matches!(
        reply,
        FileReply::Committed { .. } | FileReply::Skipped | FileReply::Decided
    )
}

impl Commits {
    /// Proposes what settles a file, once it is its number's turn or does not seem to become so.
    pub(crate) async fn settle(
        &self,
        replica: &Handle<Machine>,
        settling: Settling,
    ) -> Result<(Position, Reply), ProposeError> {
        let (call, begun) = self.begin(replica, settling);
        let proposed = match begun {
            Begun::Proposed(proposed) => proposed,
            Begun::Held(ticket, until, released) => {
                self.wait(replica, ticket, until, released).await?
            }
        };
        let outcome = proposed.await;
        if let Some(mut call) = call {
            call.is_applied = matches!(&outcome, Ok((_, reply)) if is_settled(reply));
        }
        outcome
    }

    fn begin(&self, replica: &Handle<Machine>, settling: Settling) -> (Option<Call<'_>>, Begun) {
        let (now, file) = (host::clock::now(), settling.file);
        let room = self.room.try_hold(settling.command.len() as u64);
        let desk = &mut *self.desk();
        // It is read under the lock: a call that is answered is applied before it is no longer known here.
        let run = replica.with_state(|machine| machine.state().incarnation(file.incarnation));
        let (Some((next, false)), true, Some(room)) = (run, replica.is_leader(), room) else {
            // Nothing is worth waiting for, or nothing can be held.
            return (None, Begun::Proposed(enqueue(replica, settling)));
        };
        let ticket = desk.tickets;
        desk.tickets += 1;
        let call = Call {
            commits: self,
            file,
            ticket,
            is_applied: false,
        };
        let begun = match desk.turns.comes(now, file, next, ticket) {
            Turn::Now => Begun::Proposed(desk.propose(replica, settling)),
            Turn::Held(until) => {
                let (proposed, released) = oneshot::channel();
                let waiter = Waiter {
                    settling,
                    proposed,
                    _room: room,
                };
                desk.waiters.insert(ticket, waiter);
                Begun::Held(ticket, until, released)
            }
        };
        (Some(call), begun)
    }

    /// Waits until a call that is held is proposed, or its time is over.
    async fn wait(
        &self,
        replica: &Handle<Machine>,
        ticket: Ticket,
        until: Instant,
        mut released: oneshot::Receiver<Proposed>,
    ) -> Result<Proposed, ProposeError> {
        let left = until - host::clock::now();
        let forgotten = || ProposeError::Unknown("the call was forgotten".to_owned());
        if let Ok(proposed) = host::clock::timeout(left, &mut released).await {
            return proposed.map_err(|_| forgotten());
        }
        let desk = &mut *self.desk();
        let Some(Waiter { settling, .. }) = desk.waiters.remove(&ticket) else {
            // It was proposed this moment.
            return released.try_recv().map_err(|_| forgotten());
        };
        desk.turns.is_over(settling.file, ticket);
        Ok(desk.propose(replica, settling))
    }
}

/// What a call has come to at first.
enum Begun {
    Proposed(Proposed),
    /// It is held until this time, unless it is proposed before.
    Held(Ticket, Instant, oneshot::Receiver<Proposed>),
}

#[cfg(test)]
pub(crate) mod tests;
