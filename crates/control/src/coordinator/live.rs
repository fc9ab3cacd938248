//! What the leader keeps of one group in memory: deadlines and requests that wait. Must not know
//! what is decided when they are over.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::clock::Instant;
use meta::group::{Group, Member, Phase};

use super::Ticket;
use super::room::Awaited;

/// Part of its session that a member is listened for after a change of leaders before it counts
/// as silent, and that one gets which was silent under an earlier leader already. Clients send
/// at least three heartbeats in a session.
const SILENCE_SHARE: u32 = 3;

/// The memory of one group.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// Phase and generation that timers and waiting requests were last brought in line with.
    pub(super) seen: Option<(Phase, i32)>,
    /// By member id, for every member.
    pub(super) sessions: BTreeMap<String, Session>,
    /// Member ids that were given out and are awaited to join (KIP-394), with their deadlines.
    pub(super) awaited: BTreeMap<String, Awaited>,
    /// Joins that wait for the joining phase to complete, by member id.
    pub(super) joins: BTreeMap<String, Parked>,
    /// Syncs that wait for the leader's assignments, by member id.
    pub(super) syncs: BTreeMap<String, Parked>,
    /// Members of the generation that have not synced.
    pub(super) unsynced: BTreeSet<String>,
    /// When those are out.
    pub(super) sync_deadline: Option<Instant>,
    /// The joining phase that goes on.
    pub(super) joining: Option<Joining>,
    /// The completion of the joining phase is proposed.
    pub(super) completing: bool,
    /// When it is noted which members are silent.
    pub(super) listen_until: Option<Instant>,
    /// Where the group is filed among those that are due.
    pub(super) filed: Option<Instant>,
}

/// The session of a member.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) deadline: Instant,
    /// The member has not been told yet that it is one, so it may be gone without a trace; not
    /// even a request that waits proves that it lives.
    pub(super) fresh: bool,
    /// It was heard by this leader.
    pub(super) heard: bool,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct Parked {
    pub(super) ticket: Ticket,
    pub(super) instance: Option<String>,
    pub(super) generation: i32,
}

/// The deadline of a joining phase.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) deadline: Instant,
    /// The group was empty: it waits for more members even if all have joined.
    pub(super) initial: Option<InitialDelay>,
}

/// How the delay of a first joining phase goes on.
#[derive(Debug)]
pub(super) struct InitialDelay {
    /// What is left of the rebalance timeout after this delay.
    pub(super) remaining: Duration,
    /// A member came during this delay.
    pub(super) grew: bool,
}

impl Live {
    /// The memory of a new leader: all members have their full session before them, but for
    /// those that an earlier leader has not heard either.
    pub(super) fn taken_over(now: Instant, group: &Group) -> Live {
        let sessions = group.members().map(|(id, member)| {
            let full = session_timeout(member);
            let left = if member.silent {
                full / SILENCE_SHARE
            } else {
                full
            };
            (
                id.to_owned(),
                Session {
                    deadline: now + left,
                    fresh: false,
                    heard: false,
                },
            )
        });
        let shortest = group
            .members()
            .map(|(_, member)| session_timeout(member))
            .min();
        Live {
            sessions: sessions.collect(),
            listen_until: shortest.map(|shortest| now + shortest / SILENCE_SHARE),
            ..Live::default()
        }
    }

    /// The next time at which something is due.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        let sessions = self.sessions.values().map(|session| session.deadline);
        let joining = self.joining.iter().map(|joining| joining.deadline);
        sessions
            .chain(self.awaited.values().map(|awaited| awaited.deadline))
            .chain(joining)
            .chain(self.sync_deadline)
            .chain(self.listen_until)
            .min()
    }

    /// True if there is nothing to remember.
    pub(super) fn is_idle(&self) -> bool {
        self.next_deadline().is_none() && self.joins.is_empty() && self.syncs.is_empty()
    }
}

/// A member's session timeout.
pub(super) fn session_timeout(member: &Member) -> Duration {
    Duration::from_millis(member.session_timeout_millis.into())
}

/// The time that members have to join, or to sync: the longest that one of them asks for.
pub(super) fn rebalance_timeout(group: &Group) -> Duration {
    Duration::from_millis(group.rebalance_timeout_millis().into())
}
