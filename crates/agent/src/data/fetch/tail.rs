//! The end of one partition, as notices tell it: its bounds, and where its last records are. Pure. It must not know who reads.

use std::collections::VecDeque;

use host::clock::Instant;
use host::trial::leaves_out;
use meta::ids::PartitionId;
use meta::places::{Located, SlicePlace};
use rpc::Position;
use rpc::call::Locate;
use rpc::notice::Notice;

use super::item::Bounds;

/// Slices of one partition that are kept: a reader that is no further behind needs no control node. At most some forty are
/// committed a second by each agent.
const PLACES_MAX: usize = 64;
/// Slices for which there is room at least, if there is for any.
const PLACES_LEAST: usize = 4;
/// Memory that a tail takes beside its slices, with its entry in a map.
const TAIL_BYTES: u64 = 192;

/// A partition's end. It begins without bounds, takes note of what is told from then on, and has its bounds from an answer that
/// knows at least what was told before it began.
#[derive(Debug)]
pub(super) struct Tail {
    /// All that entries after this one brought is noted here.
    since: Position,
    bounds: Option<Bounds>,
    /// The last slices, each of which begins where the one before ends.
    places: VecDeque<SlicePlace>,
    /// The partition is known to go on up to here, by another way.
    end_elsewhere: i64,
    /// When somebody read here last.
    pub(super) read_at: Instant,
}

impl Tail {
    /// Takes note of what entries after `since` bring.
    pub(super) fn since(since: Position, now: Instant) -> Self {
        Tail {
            since,
            bounds: None,
            places: VecDeque::new(),
            end_elsewhere: 0,
            read_at: now,
        }
    }

    /// Memory that it takes.
    pub(super) fn bytes(&self) -> u64 {
        TAIL_BYTES + (self.places.capacity() * size_of::<SlicePlace>()) as u64
    }

    /// Answers nobody before it knows of this end.
    pub(super) fn reaches(&mut self, end: i64) {
        self.end_elsewhere = self.end_elsewhere.max(end);
    }

    /// Whether it has its bounds.
    pub(super) fn is_known(&self) -> bool {
        self.bounds.is_some()
    }

    /// The offset after the last record that it knows of.
    fn end(&self) -> Option<i64> {
        let last = self.places.back().map(|last| last.last_offset + 1);
        self.bounds.map(|bounds| bounds.high_watermark).or(last)
    }

    /// Takes what was told of the partition, of slices no more than fit into `room` bytes beside those that are kept. False if
    /// that does not join what is known: then it is of no use any more.
    pub(super) fn note(&mut self, notice: &Notice, room: u64) -> bool {
        match *notice {
            Notice::Advanced {
                high_watermark,
                place,
                ..
            } => self.advance(high_watermark, place, room),
            Notice::LogStart { log_start, .. } => self.begin_at(log_start),
            Notice::View { .. } | Notice::Anything => true,
        }
    }

    fn advance(&mut self, high_watermark: i64, place: SlicePlace, room: u64) -> bool {
        let end = self.end();
        if end.is_some_and(|end| high_watermark <= end) {
            return true;
        }
        let joins = end.is_none_or(|end| end == place.base_offset);
        if !joins && !leaves_out("the-tail-joins") {
            return false;
        }
        let is_kept = self.keep(place, room);
        match &mut self.bounds {
            Some(bounds) => bounds.high_watermark = high_watermark,
            None => return is_kept,
        }
        true
    }

    /// Keeps a slice, in place of the first one if there is no more room. False if there is none at all.
    fn keep(&mut self, place: SlicePlace, room: u64) -> bool {
        let growth = self.places.capacity().max(PLACES_LEAST) * size_of::<SlicePlace>();
        let grows = self.places.len() == self.places.capacity();
        let is_full = self.places.len() >= PLACES_MAX || grows && growth as u64 > room;
        if is_full && self.places.pop_front().is_none() {
            return false;
        }
        if self.places.capacity() == 0 {
            self.places.reserve_exact(PLACES_LEAST);
        }
        self.places.push_back(place);
        true
    }

    fn begin_at(&mut self, log_start: i64) -> bool {
        let Some(bounds) = &mut self.bounds else {
            return false;
        };
        bounds.log_start = bounds.log_start.max(log_start);
        let is_gone = |place: &SlicePlace| place.last_offset < log_start;
        while self.places.front().is_some_and(is_gone) {
            self.places.pop_front();
        }
        log_start <= bounds.high_watermark
    }

    /// Takes its bounds from an answer to `wanted` that knows all entries up to `at`. False if that does not join what was told
    /// since it began, or comes from before it.
    pub(super) fn begin(&mut self, wanted: &Locate, located: &Located, at: Position) -> bool {
        if self.is_known() {
            return true;
        }
        let Located::Found {
            log_start,
            high_watermark,
            places,
        } = located
        else {
            return false;
        };
        let (log_start, high_watermark) = (*log_start, *high_watermark);
        // A reader that is further behind is not at the tail.
        let last = places.last().map(|last| last.last_offset + 1);
        let reaches_end = last.unwrap_or(wanted.offset) == high_watermark;
        if at < self.since || !reaches_end {
            return false;
        }
        match (self.places.front(), self.end()) {
            (Some(first), Some(end)) if end >= high_watermark => {
                if first.base_offset > high_watermark && !leaves_out("the-tail-joins") {
                    return false;
                }
            }
            // The rest is still to be told, and brings nothing new.
            _ => self.places.clear(),
        }
        let high_watermark = self.end().unwrap_or(high_watermark);
        self.bounds = Some(Bounds {
            log_start,
            high_watermark,
        });
        true
    }

    /// Where the records are that a reader wants; `None` if it is not known here.
    pub(super) fn locate(&self, wanted: &Locate) -> Option<Located> {
        let Bounds {
            log_start,
            high_watermark,
        } = self.bounds?;
        if high_watermark < self.end_elsewhere {
            return None;
        }
        let first = self.places.front();
        let first = first.map_or(high_watermark, |first| first.base_offset);
        if !(first.max(log_start)..=high_watermark).contains(&wanted.offset) {
            return None;
        }
        let before = |place: &SlicePlace| place.last_offset < wanted.offset;
        let from = self.places.partition_point(before);
        let mut bytes = 0;
        let within = |place: &&SlicePlace| {
            let is_wanted = bytes < wanted.max_bytes.max(1);
            bytes += u64::from(place.length);
            is_wanted
        };
        let places = self.places.range(from..).take_while(within);
        Some(Located::Found {
            log_start,
            high_watermark,
            places: places.copied().collect(),
        })
    }
}

/// The partition that a notice is about.
pub(super) fn partition_of(notice: &Notice) -> Option<PartitionId> {
    match notice {
        Notice::Advanced { partition, .. } | Notice::LogStart { partition, .. } => Some(*partition),
        Notice::View { .. } | Notice::Anything => None,
    }
}
