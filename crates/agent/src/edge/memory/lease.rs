//! The memory of one request, from its frame to its answer, in named parts. It must not know what is in them.

use std::sync::Arc;

use host::budget::Held;
use host::clock::Instant;

use super::{Grant, Memory};

/// What a request holds until it is settled, in the order in which it is taken.
#[derive(Debug)]
pub(crate) struct Lease {
    /// The frame, or the chunk that it shares with others.
    frame: Arc<Grant>,
    pub(crate) decoded: Option<Held>,
    /// What came out of codecs.
    pub(crate) unpacked: Option<Held>,
}

/// What an answer holds until it is sent, in the order in which it is taken.
#[derive(Default)]
pub(crate) struct Kept {
    /// For an answer to a request with records.
    pub(crate) bulk_answer: Option<Held>,
    /// For another answer, as far as there was memory.
    pub(crate) answer: Option<Held>,
    /// For batches that were copied.
    pub(crate) records: Option<Held>,
    /// Where other batches lie.
    pub(crate) chunks: Option<Box<dyn Send>>,
}

impl Lease {
    /// Of a request whose frame is there.
    pub(crate) fn of_frame(mut frame: Arc<Grant>) -> Self {
        // A frame that takes a share while it arrives lies in no chunk of several.
        if let Some(frame) = Arc::get_mut(&mut frame) {
            frame.arrived();
        }
        Lease {
            frame,
            decoded: None,
            unpacked: None,
        }
    }

    /// Exchanges what it holds for memory of one who waits for others, if some is free.
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
