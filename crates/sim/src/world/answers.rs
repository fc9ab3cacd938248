//! What a control node answers to calls: replies of the state machine, and reads of its state. Pure.
//!
//! Must not know when an answer is current.

use meta::ids::PartitionId;
use meta::query;
use meta::reply::Reply;
use meta::state::State;
use rpc::view::{Bounds, FileFate, Located, Place};

use super::message::{Call, Return};

/// Most slices named in one answer about a partition.
const PLACES_MAX: usize = 64;

/// The reply to a command, for the agent that asked for it.
pub(super) fn reply(reply: Reply) -> Result<Return, rpc::Error> {
    match reply {
        Reply::Registered { incarnation, .. } => Ok(Return::Registered(incarnation)),
        Reply::File(reply) => Ok(Return::File(reply)),
        Reply::Producer { id, epoch } => Ok(Return::Producer(id, epoch)),
        Reply::Forgotten { .. } => Ok(Return::Forgotten),
        other => Err(rpc::Error::Refused {
            reason: format!("{other:?}"),
        }),
    }
}

/// The answer to a read; `None` for calls that are none. `fresh`: no replica is further.
pub(super) fn read(state: &State, call: &Call, fresh: bool) -> Option<Return> {
    Some(match call {
        Call::Locate(wants) | Call::LocateCurrent(wants) => Return::Located(
            wants
                .iter()
                .map(|want| {
                    located(state.locate(want.partition, want.offset, want.max_bytes, PLACES_MAX))
                })
                .collect(),
            fresh,
        ),
        Call::Bounds(partitions) => {
            Return::Bounds(partitions.iter().map(|&id| bounds(state, id)).collect())
        }
        Call::Collectable => Return::Collectable(state.collectable(100)),
        Call::Fates(files) => {
            Return::Fates(files.iter().map(|&file| fate(state.fate(file))).collect())
        }
        _ => return None,
    })
}

/// The bounds of a partition.
pub(super) fn bounds(state: &State, id: PartitionId) -> Option<Bounds> {
    let partition = state.partition(id)?;
    Some(Bounds {
        log_start: partition.log_start(),
        high_watermark: partition.high_watermark(),
    })
}

fn fate(fate: meta::Fate) -> FileFate {
    match fate {
        meta::Fate::Live => FileFate::Live,
        meta::Fate::Tombstoned => FileFate::Tombstoned,
        meta::Fate::Undecided => FileFate::Undecided,
        meta::Fate::Dead => FileFate::Dead,
    }
}

fn located(located: query::Located) -> Located {
    match located {
        query::Located::Found {
            log_start,
            high_watermark,
            places,
        } => Located::Found {
            log_start,
            high_watermark,
            places: places.iter().map(place).collect(),
        },
        query::Located::OutOfRange {
            log_start,
            high_watermark,
        } => Located::OutOfRange {
            log_start,
            high_watermark,
        },
        query::Located::UnknownPartition => Located::Unknown,
    }
}

fn place(place: &query::SlicePlace) -> Place {
    Place {
        file: place.file,
        nonce: place.nonce,
        file_length: place.file_length,
        position: place.position,
        length: place.length,
        base_offset: place.base_offset,
        last_offset: place.last_offset,
        max_timestamp: place.max_timestamp,
    }
}
