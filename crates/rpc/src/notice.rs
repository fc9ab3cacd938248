//! What an agent is told without asking: hints to look again, never facts to rest on.

use futures::stream::BoxStream;
use meta::ids::PartitionId;
use meta::places::SlicePlace;

use crate::position::Position;

/// What a control node tells, as it applies it; what one entry brought comes together.
pub type Notices = BoxStream<'static, Told>;

/// All that the entries after `from`, up to and including `to`, brought. Whoever has not come to exactly `from` by this stream
/// has missed something, and looks at everything again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    pub from: Position,
    pub to: Position,
    /// How long ago, in milliseconds, the node last saw the end of the journal, with everything before it known there.
    pub age_millis: u64,
    pub notices: Vec<Notice>,
}

/// Something that was applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Records were added to a partition.
    Advanced {
        partition: PartitionId,
        /// The offset after the last record.
        high_watermark: i64,
        place: SlicePlace,
    },
    /// The first offset that can be read has moved.
    LogStart {
        partition: PartitionId,
        /// The first offset that can be read.
        log_start: i64,
    },
    /// Topics, configs or agents changed.
    View {
        /// The version of the view that has the change.
        version: u64,
    },
    /// Anything may have changed: notices were left out, or the node loaded a snapshot.
    Anything,
}
