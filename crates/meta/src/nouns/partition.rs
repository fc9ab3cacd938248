//! One partition: its bounds, its slices, its producers. It must not know how slices come to be
//! or why they go.

use super::producer::Producers;
use super::slice::Slice;
use super::slices::Slices;
use crate::terms::ids::TopicId;

/// One partition of a topic.
#[derive(Clone, Debug)]
pub struct Partition {
    pub(crate) topic: TopicId,
    pub(crate) index: u32,
    pub(crate) log_start: i64,
    pub(crate) high_watermark: i64,
    pub(crate) slices: Slices,
    pub(crate) producers: Producers,
}

impl Partition {
    pub(crate) fn new(topic: TopicId, index: u32) -> Self {
        Partition {
            topic,
            index,
            log_start: 0,
            high_watermark: 0,
            slices: Slices::default(),
            producers: Producers::default(),
        }
    }

    pub fn topic(&self) -> TopicId {
        self.topic
    }

    /// Its index in the topic.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The first offset that can be read.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// The offset after the last record.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Bytes of the batches that can be read.
    pub fn bytes(&self) -> u64 {
        self.slices.bytes()
    }

    /// How many slices it has.
    pub fn slices(&self) -> u64 {
        self.slices.len()
    }

    /// Drops the first slice; what can be read begins after it.
    pub(crate) fn drop_first(&mut self) -> Option<Slice> {
        let slice = self.slices.pop_front()?;
        let start = self
            .slices
            .first()
            .map_or(self.high_watermark, |first| first.base_offset);
        self.log_start = self.log_start.max(start);
        Some(slice)
    }
}
