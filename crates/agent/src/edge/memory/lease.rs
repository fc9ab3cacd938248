//! The memory of one request, from its frame to its answer, in named parts. It must not know what
//! the parts hold.

use std::sync::Arc;

use host::budget::Held;
use host::clock::Instant;

use super::{Grant, Memory};

/// Memory that a request holds until it is settled, in the order in which it is taken.
#[derive(Debug)]
pub(crate) struct Lease {
    /// For the frame, or for the chunk that it shares with others.
    frame: Arc<Grant>,
    pub(crate) decoded: Option<Held>,
    /// For decompressed records.
    pub(crate) unpacked: Option<Held>,
}

/// Memory that an answer holds until it is sent, in the order in which it is taken.
#[derive(Default)]
pub(crate) struct Kept {
    /// For the answer to a request with records.
    pub(crate) bulk_answer: Option<Held>,
    /// For another answer, as far as there was memory.
    pub(crate) answer: Option<Held>,
    /// For batches that were copied.
    pub(crate) records: Option<Held>,
    /// The chunks in which the other batches lie.
    pub(crate) chunks: Option<Box<dyn Send>>,
}

impl Lease {
    /// The lease of a request whose frame has arrived.
    pub(crate) fn of_frame(mut frame: Arc<Grant>) -> Self {
        // A frame that took a share while it arrived has a chunk to itself, so nobody else holds
        // the grant.
        if let Some(frame) = Arc::get_mut(&mut frame) {
            frame.arrived();
        }
        Lease {
            frame,
            decoded: None,
            unpacked: None,
        }
    }

    /// Exchanges this memory for some of the budget of waiting members, if that has some free.
    pub(crate) fn park(self, memory: &Memory) -> Option<Held> {
        let decoded = self.decoded.as_ref().map_or(0, Held::bytes);
        memory.members.try_hold(self.frame.held.bytes() + decoded)
    }
}

impl Kept {
    /// True if others wait for memory that it holds, or did since `since`.
    pub(super) fn is_wanted(&self, memory: &Memory, since: Instant) -> bool {
        self.bulk_answer.is_some() && memory.bulk_answers.is_wanted_since(since)
            || self.answer.is_some() && memory.answers.is_wanted(since)
            || (self.records.is_some() || self.chunks.is_some())
                && memory.records.is_wanted_since(since)
    }
}
