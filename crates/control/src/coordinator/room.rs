//! Room for groups: what clients may let the cluster remember is bounded, so that none of them
//! fills its memory. What takes no more than before always has room: consumers of groups that exist
//! go on committing. Must not decide anything else of a request, nor know how bytes are counted.

use meta::group::{Action, Command};

use super::{Coordinator, Metadata};

/// Part of the room that is kept for groups and members that exist already.
const RESERVE_SHARE: u64 = 8;

impl Coordinator {
    /// True if the groups may take the memory that a command needs.
    pub(super) fn has_room(&self, metadata: &dyn Metadata, command: &Command) -> bool {
        let groups = metadata.groups();
        let growth = groups.growth_of(command);
        if growth == 0 {
            return true;
        }
        let group = groups.get(&command.group);
        let exists = group.is_some_and(|group| match &command.action {
            Action::Join(join) => group.place_of(join).is_some(),
            _ => true,
        });
        let max = self.settings.bytes_max;
        let reserve = if exists { 0 } else { max / RESERVE_SHARE };
        groups.bytes().saturating_add(growth) <= max - reserve
    }
}
