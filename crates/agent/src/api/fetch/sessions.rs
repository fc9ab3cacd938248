//! Fetch sessions (KIP-227): the agent keeps the partitions that a consumer named, so that the next
//! request names only what changed and costs as much. Sessions live in this agent's memory alone: a
//! client whose session is not here is told so, and names everything again. It must not know what
//! is read.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use host::clock::Instant;
use wire::errors::ErrorCode;
use wire::messages::fetch::FetchRequest;

use super::named::{Named, bytes_of_request};
use crate::data::fetch::hub::Watch;
use crate::data::fetch::item::Slot;
use crate::data::fetch::items::Items;

/// A session that was not used for this long may be dropped for a new one (Kafka's
/// min.incremental.fetch.session.eviction.ms).
const IDLE: Duration = Duration::from_secs(120);
/// Epoch of a request that begins a session; -1 is that of a request that wants none.
const FIRST_EPOCH: i32 = 0;
const NO_EPOCH: i32 = -1;

/// The state of a session between two fetches.
pub(crate) struct Session {
    pub(super) items: Items,
    pub(super) named: Named,
    pub(super) watch: Watch,
}

/// The sessions of an agent.
pub(crate) struct Sessions {
    slots: usize,
    /// What all of them may take.
    bytes_max: u64,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    sessions: BTreeMap<i32, State>,
    bytes: u64,
}

struct State {
    /// The epoch that its next request must have.
    epoch: i32,
    by_id: bool,
    used_at: Instant,
    bytes: u64,
    /// `None` while a request works with it.
    session: Option<Box<Session>>,
}

/// What a request does with sessions.
pub(super) enum Begun<'a> {
    /// It has no session and begins none.
    Alone,
    New(Ticket<'a>),
    /// It continues a session.
    Next(Ticket<'a>, Box<Session>),
}

/// A request's hold on the slot of its session. If dropped, as when the connection ends, the
/// session ends.
pub(super) struct Ticket<'a> {
    sessions: &'a Sessions,
    id: i32,
}

impl Sessions {
    /// No sessions yet, and room for `slots` of them. Some 384 bytes a partition are counted: 17 consumers of 10,000
    /// partitions each fit into 64 MiB.
    pub(crate) fn new(slots: usize, bytes_max: u64) -> Self {
        Sessions {
            slots,
            bytes_max,
            kept: Mutex::default(),
        }
    }

    pub(crate) fn count(&self) -> usize {
        self.kept().sessions.len()
    }

    /// Finds or begins the session that a request asks for.
    pub(super) fn begin(
        &self,
        request: &FetchRequest,
        by_id: bool,
        now: Instant,
    ) -> Result<Begun<'_>, ErrorCode> {
        let (id, epoch) = (request.session_id, request.session_epoch);
        if epoch != FIRST_EPOCH && epoch != NO_EPOCH {
            return self.take(id, epoch, by_id);
        }
        self.drop_session(id);
        if epoch == NO_EPOCH || request.topics.is_empty() {
            return Ok(Begun::Alone);
        }
        let bytes = bytes_of_request(request);
        let ticket = self.make_room(bytes, now).map(|id| {
            let state = State {
                epoch: next_epoch(FIRST_EPOCH),
                by_id,
                used_at: now,
                bytes,
                session: None,
            };
            let mut kept = self.kept();
            kept.bytes += bytes;
            kept.sessions.insert(id, state);
            Ticket { sessions: self, id }
        });
        Ok(ticket.map_or(Begun::Alone, Begun::New))
    }

    fn take(&self, id: i32, epoch: i32, by_id: bool) -> Result<Begun<'_>, ErrorCode> {
        let mut kept = self.kept();
        let state = kept.sessions.get_mut(&id);
        let state = state.ok_or(ErrorCode::FetchSessionIdNotFound)?;
        if state.epoch != epoch {
            return Err(ErrorCode::InvalidFetchSessionEpoch);
        }
        if state.by_id != by_id {
            return Err(ErrorCode::FetchSessionTopicIdError);
        }
        // Another request has taken it, perhaps on a connection that has since ended.
        let session = state.session.take();
        let session = session.ok_or(ErrorCode::InvalidFetchSessionEpoch)?;
        state.epoch = next_epoch(epoch);
        Ok(Begun::Next(Ticket { sessions: self, id }, session))
    }

    /// Drops idle sessions until there is room for one of `bytes`; yields an id for it.
    fn make_room(&self, bytes: u64, now: Instant) -> Option<i32> {
        loop {
            let mut kept = self.kept();
            if kept.sessions.len() < self.slots && kept.bytes + bytes <= self.bytes_max {
                return std::iter::repeat_with(any_id).find(|id| !kept.sessions.contains_key(id));
            }
            let idle = |state: &State| state.session.is_some() && now.since(state.used_at) >= IDLE;
            let sessions = kept.sessions.iter();
            let idle = sessions.filter(|(_, state)| idle(state));
            let oldest = idle.min_by_key(|(_, state)| state.used_at);
            let oldest = oldest.map(|(id, _)| *id)?;
            let dropped = kept.remove(oldest);
            drop(kept);
            drop(dropped);
        }
    }

    fn drop_session(&self, id: i32) {
        // Dropped outside the lock, since dropping it takes the hub's.
        let dropped = self.kept().remove(id);
        drop(dropped);
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn remove(&mut self, id: i32) -> Option<State> {
        let state = self.sessions.remove(&id)?;
        self.bytes -= state.bytes;
        Some(state)
    }
}

impl Session {
    /// The session after a fetch whose answer had records or errors for `served`.
    pub(super) fn new(mut items: Items, served: &[Slot], mut named: Named, watch: Watch) -> Self {
        items.take_news();
        items.rest(served);
        named.own_names();
        Session {
            items,
            named,
            watch,
        }
    }
}

impl Ticket<'_> {
    /// Keeps the session for its next request and yields its id: 0 if it was dropped meanwhile, or
    /// outgrew the memory for sessions.
    pub(super) fn keep(self, session: Session, now: Instant) -> i32 {
        let bytes = session.named.bytes();
        let mut kept = self.sessions.kept();
        let all_bytes = kept.bytes;
        let Some(state) = kept.sessions.get_mut(&self.id) else {
            return 0;
        };
        let all_bytes = all_bytes - state.bytes + bytes;
        if all_bytes > self.sessions.bytes_max {
            return 0;
        }
        state.used_at = now;
        state.bytes = bytes;
        state.session = Some(Box::new(session));
        kept.bytes = all_bytes;
        drop(kept);
        let id = self.id;
        std::mem::forget(self);
        id
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.sessions.drop_session(self.id);
    }
}

fn next_epoch(epoch: i32) -> i32 {
    epoch.checked_add(1).unwrap_or(1)
}

/// A random session id, so that nobody finds another's session by counting.
fn any_id() -> i32 {
    let id = host::rng::nonce() as u32 & i32::MAX.cast_unsigned();
    id.cast_signed().max(1)
}
