//! Room for groups: what clients may let the cluster remember is bounded, so that none of them
//! fills its memory. What takes no more than before always has room: consumers of groups that exist
//! go on committing. Must not decide anything else of a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use host::clock::Instant;
use meta::group::{CommitOffsets, Group, Join, Sync, protocols_bytes};
use meta::offset::offset_bytes;

use super::{Coordinator, Metadata};

/// What an id that is awaited takes beside its length, and its group's.
const AWAITED_BYTES: u64 = 256;

/// A number of bytes, shared by those who count into it.
#[derive(Debug, Default)]
pub(super) struct Counter(Arc<AtomicU64>);

/// A member id that was given out.
#[derive(Debug)]
pub(super) struct Awaited {
    /// When it is awaited no longer.
    pub(super) deadline: Instant,
    bytes: u64,
    counter: Arc<AtomicU64>,
}

impl Counter {
    /// Counts an id of a group until it is dropped.
    pub(super) fn awaited(&self, group_id: &str, member_id: &str, deadline: Instant) -> Awaited {
        let bytes = awaited_bytes(group_id, member_id);
        self.0.fetch_add(bytes, Relaxed);
        Awaited {
            deadline,
            bytes,
            counter: Arc::clone(&self.0),
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        self.counter.fetch_sub(self.bytes, Relaxed);
    }
}

fn awaited_bytes(group_id: &str, member_id: &str) -> u64 {
    AWAITED_BYTES + (group_id.len() + member_id.len()) as u64
}

impl Coordinator {
    /// True if the groups may take so much more memory.
    fn has_room(&self, metadata: &dyn Metadata, growth_bytes: u64) -> bool {
        let taken = metadata.groups().bytes() + self.awaited_bytes.0.load(Relaxed);
        growth_bytes == 0 || taken + growth_bytes <= self.settings.bytes_max
    }

    /// True if an id may be given out.
    pub(super) fn has_room_for_id(
        &self,
        metadata: &dyn Metadata,
        group_id: &str,
        member_id: &str,
    ) -> bool {
        self.has_room(metadata, awaited_bytes(group_id, member_id))
    }

    /// True if a member may join, with what it says of itself.
    pub(super) fn has_room_for_member(
        &self,
        metadata: &dyn Metadata,
        group: Option<&Group>,
        join: &Join,
    ) -> bool {
        let before = group.and_then(|group| group.member(&join.member));
        let texts = join.client_id.len() + join.client_host.len() + 3 * join.member.len();
        let instance = join
            .instance
            .as_ref()
            .map_or(0, |instance| 2 * instance.len());
        let after = AWAITED_BYTES + (texts + instance) as u64 + protocols_bytes(&join.protocols);
        let before = before.map_or(0, |member| member.bytes());
        self.has_room(metadata, after.saturating_sub(before))
    }

    /// True if members may be assigned what their leader says.
    pub(super) fn has_room_for_assignments(
        &self,
        metadata: &dyn Metadata,
        group: &Group,
        sync: &Sync,
    ) -> bool {
        let growth = sync.assignments.iter().map(|(member, assignment)| {
            let before = group
                .member(member)
                .map_or(0, |member| member.assignment.len());
            assignment.len().saturating_sub(before) as u64
        });
        self.has_room(metadata, growth.sum())
    }

    /// True if offsets may be kept, with what is attached to them.
    pub(super) fn has_room_for_offsets(
        &self,
        metadata: &dyn Metadata,
        group: Option<&Group>,
        commit: &CommitOffsets,
    ) -> bool {
        let growth = commit.offsets.iter().map(|entry| {
            let before = group.and_then(|group| group.offsets().get(entry.topic, entry.partition));
            let before = before.map_or(0, |offset| offset.bytes());
            offset_bytes(entry.metadata.len()).saturating_sub(before)
        });
        self.has_room(metadata, growth.sum())
    }
}
