//! How the nodes of a run are set: hurried, so that a run meets every case. It must not know the world.

use std::time::Duration;

use super::super::Settings;

/// Entries in flight at most.
pub(super) const IN_FLIGHT: u64 = 8;

pub(super) fn settings(number: usize, alone: bool) -> Settings {
    let name = format!("n{number}");
    let mut settings = if alone {
        Settings::alone(name)
    } else {
        Settings::one_of_several(name)
    };
    settings.takeover_after = Duration::from_millis(300);
    settings.return_after = Duration::from_millis(300);
    settings.heartbeat_interval = Duration::from_millis(200);
    settings.contested_heartbeat_interval = Duration::from_millis(250);
    settings.look_interval = Duration::from_millis(400);
    settings.poll_max = Duration::from_millis(200);
    settings.retry_max = Duration::from_millis(200);
    settings.proposal_deadline = Duration::from_secs(3);
    settings.appends_in_flight_max = IN_FLIGHT as usize;
    settings.append_spacing = Duration::from_millis(2);
    // Every second node appends no more than it can pay for.
    settings.append_thrift.per_second = 20 * (number as u64 % 2);
    settings.entry_items_max = 4;
    settings.scan_limit = 16;
    settings.snapshot.entries = 4;
    settings.snapshot.first_after = Duration::ZERO;
    // Entries of two commands and more have their body elsewhere.
    settings.slot_bytes_max = 150;
    settings
}
