//! The chunks that are kept for later, in three segments that evict each other only down to a share: so neither a reader who
//! lags behind nor copies of what other agents keep drive out what readers at the tail read. It must not know who loads.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::{Chunk, Part};

/// Memory of a kept chunk beside its bytes: map nodes and list heads.
pub(super) const CHUNK_OVERHEAD_BYTES: u64 = 512;
/// To make room, this many of a segment's oldest chunks are tried; a chunk that a reader holds frees
/// nothing. Held chunks were used lately and are seldom among the oldest.
const EVICT_LOOKS: usize = 64;

/// For whom a chunk is kept. Each segment may take all the memory that the others leave; when there is not enough, one that
/// has more than its share gives way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Segment {
    /// For readers at the tail: files that this agent wrote, and those written lately. It has what the shares of the others
    /// leave, five eighths.
    Hot,
    /// For readers who lag behind. Its share is a quarter.
    Cold,
    /// Of what another agent of the zone keeps. Its share is an eighth: such a chunk is soon had again.
    Copied,
}

const SEGMENTS: usize = 3;

#[derive(Debug)]
pub(super) struct Kept {
    chunks: HashMap<Part, One>,
    /// Segment by segment, from the least recently used.
    used: [BTreeMap<u64, Part>; SEGMENTS],
    bytes: [u64; SEGMENTS],
    clock: u64,
    capacity_bytes: u64,
}

#[derive(Debug)]
struct One {
    chunk: Arc<Chunk>,
    used: u64,
    segment: Segment,
}

impl Segment {
    fn share_bytes(self, capacity_bytes: u64) -> u64 {
        match self {
            Segment::Hot => capacity_bytes / 8 * 5,
            Segment::Cold => capacity_bytes / 4,
            Segment::Copied => capacity_bytes / 8,
        }
    }
}

impl Kept {
    pub(super) fn of_bytes(capacity_bytes: u64) -> Self {
        Kept {
            chunks: HashMap::new(),
            used: Default::default(),
            bytes: [0; SEGMENTS],
            clock: 0,
            capacity_bytes,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes.iter().sum()
    }

    /// The chunk of a part, which counts as used now.
    pub(super) fn touch(&mut self, part: Part) -> Option<Arc<Chunk>> {
        let one = self.chunks.get_mut(&part)?;
        // Most reads hit the chunk that was read last; the order needs no change then.
        if one.used != self.clock {
            self.clock += 1;
            let used = &mut self.used[one.segment as usize];
            used.remove(&one.used);
            one.used = self.clock;
            used.insert(self.clock, part);
        }
        Some(Arc::clone(&one.chunk))
    }

    /// Keeps a chunk, and evicts others until all fit; not one that would not fit alone.
    pub(super) fn keep(&mut self, part: Part, segment: Segment, chunk: Arc<Chunk>) {
        let bytes = bytes_of(&chunk);
        if bytes > self.capacity_bytes {
            return;
        }
        drop(self.remove(part));
        self.clock += 1;
        let used = self.clock;
        self.bytes[segment as usize] += bytes;
        self.used[segment as usize].insert(used, part);
        let one = One {
            chunk,
            used,
            segment,
        };
        self.chunks.insert(part, one);
        while self.bytes() > self.capacity_bytes {
            let oldest = self.yielding().find_map(|segment| {
                let (_, part) = self.used[segment as usize].first_key_value()?;
                Some(*part)
            });
            match oldest {
                Some(part) => drop(self.remove(part)),
                None => return,
            }
        }
    }

    pub(super) fn remove(&mut self, part: Part) -> Option<Arc<Chunk>> {
        let one = self.chunks.remove(&part)?;
        self.used[one.segment as usize].remove(&one.used);
        self.bytes[one.segment as usize] -= bytes_of(&one.chunk);
        Some(one.chunk)
    }

    /// Removes all parts of a file, whatever its name's random part is.
    pub(super) fn remove_file(&mut self, file: meta::ids::FileId) {
        let parts = self.chunks.keys().filter(|part| part.file == file);
        for part in parts.copied().collect::<Vec<Part>>() {
            drop(self.remove(part));
        }
    }

    /// Evicts the least recently used chunk that nobody else holds, of the segment that is to give way first.
    pub(super) fn evict_idle(&mut self) -> Option<Arc<Chunk>> {
        self.yielding()
            .find_map(|segment| self.evict_idle_of(segment))
    }

    fn evict_idle_of(&mut self, segment: Segment) -> Option<Arc<Chunk>> {
        for _ in 0..self.used[segment as usize].len().min(EVICT_LOOKS) {
            let part = *self.used[segment as usize].first_key_value()?.1;
            let one = self.chunks.get_mut(&part)?;
            // While the map is locked nobody else can get the chunk from it.
            if Arc::strong_count(&one.chunk) == 1 {
                return self.remove(part);
            }
            // A reader holds it, so it counts as used now.
            self.clock += 1;
            let used = &mut self.used[segment as usize];
            used.remove(&one.used);
            one.used = self.clock;
            used.insert(self.clock, part);
        }
        None
    }

    /// The segments in the order in which they give way: first those with more than their share. One chunk alone is never
    /// too much, lest a small memory keeps none.
    fn yielding(&self) -> impl Iterator<Item = Segment> + use<> {
        let order = [Segment::Copied, Segment::Cold, Segment::Hot];
        let is_over = order.map(|segment| {
            let at = segment as usize;
            self.bytes[at] > segment.share_bytes(self.capacity_bytes) && self.used[at].len() > 1
        });
        let with = order.into_iter().zip(is_over);
        let over = with.clone().filter(|(_, is_over)| *is_over);
        let others = with.filter(|(_, is_over)| !*is_over).rev();
        over.chain(others).map(|(segment, _)| segment)
    }
}

fn bytes_of(chunk: &Chunk) -> u64 {
    chunk.held_bytes() + CHUNK_OVERHEAD_BYTES
}
