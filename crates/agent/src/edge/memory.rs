//! The memory of an agent: every budget that connections take from, in the order in which one request takes them.
//!
//! | budget | for | who holds it waits for |
//! |---|---|---|
//! | beginnings | the first 64 KiB of frames that arrive | its client; what follows |
//! | frames | whole frames, and chunks of them, until they are settled | what follows, or the pipeline |
//! | decoded | what is decoded from requests without records | what follows, the journal |
//! | members | what waits for other members, which gives back what it held before | other members |
//! | answers | answers but for records, until they are sent | what follows; its client |
//! | records | parts of files in the cache and in answers, until they are sent | unpacking; its client |
//! | unpacking | codecs, and what they compress anew until it is settled | the pipeline |
//!
//! Each kind of request has budgets of its own for beginnings, frames and answers. A request that
//! waits for one budget holds only budgets above it, and the last of them waits for nothing but its
//! own client: so requests never wait in a circle. A client that holds memory while others wait for
//! it and is too slow loses its connection (`connection::pace`).
//!
//! Frames above [`LARGE_BYTES`] have beginnings of their own, and take no more than a share of the
//! frames' budget while they arrive: a client that announces large frames holds up only other large
//! ones.
//!
//! It must not know sockets, or what is in a frame.

mod answers;
mod lease;
mod unpacking;

use std::sync::Arc;

use host::budget::{Budget, Held};
use host::clock::Instant;

pub(crate) use answers::AnswerBudget;
pub(crate) use lease::{Kept, Lease};
pub(crate) use unpacking::{LITTLE, Room, Unpacking};

use crate::settings::Budgets;

use super::connection::{Ask, BEGINNING_BYTES, Kind, Others, Step};

/// Frames above this are large: twice the largest request that clients send by default.
const LARGE_BYTES: usize = 2 << 20;
/// The memory for beginnings is cut in so many parts. Requests with records get four of them; other requests, few of
/// which are larger than a connection's own buffer, and large frames of either kind, of which few arrive at one time, get
/// one each.
const BEGINNINGS_PARTS: u64 = 7;

/// The budgets of an agent, in the order in which one request takes them.
pub(crate) struct Memory {
    bulk: Gates,
    other: Gates,
    pub(crate) decoded: Budget,
    /// Requests never wait for this budget: a member that waits for others must not keep them from
    /// coming.
    pub(crate) members: Budget,
    pub(crate) bulk_answers: Budget,
    pub(crate) answers: AnswerBudget,
    /// The cache takes from it too, and evicts chunks that nobody reads when others want memory.
    pub(crate) records: Budget,
    pub(crate) unpacking: Unpacking,
}

struct Gates {
    usual: Arc<Gate>,
    large: Arc<Gate>,
}

/// The budgets that a frame takes from as it arrives.
#[derive(Debug)]
pub(crate) struct Gate {
    beginnings: Budget,
    /// How much of `whole` arriving frames may take, if that is limited.
    share: Option<Budget>,
    whole: Budget,
}

/// Memory granted to a frame for one step.
#[derive(Debug)]
pub(crate) struct Grant {
    /// Held as long as the bytes are in memory.
    held: Held,
    /// Held while the frame arrives.
    share: Option<Held>,
}

impl Memory {
    /// The budgets of these sizes, where a request with records may have a frame of up to `bulk_frame_bytes_max`.
    pub(crate) fn new(sizes: &Budgets, bulk_frame_bytes_max: u64) -> Self {
        // Half, unless the largest allowed frame is larger.
        let (bulk_bytes, other_bytes) = (sizes.produce_bytes, sizes.other_bytes);
        let large_bytes = bulk_frame_bytes_max.max(bulk_bytes / 2);
        let part = sizes.beginnings_bytes / BEGINNINGS_PARTS;
        let bulk_beginnings = sizes.beginnings_bytes - 3 * part;
        Memory {
            bulk: Gates::new([bulk_beginnings, part], bulk_bytes, large_bytes),
            other: Gates::new([part, part], other_bytes, other_bytes / 2),
            decoded: Budget::of_bytes(sizes.decoded_bytes),
            members: Budget::of_bytes(sizes.members_bytes),
            bulk_answers: Budget::of_bytes(sizes.produce_answers_bytes),
            answers: AnswerBudget::of_bytes(sizes.answers_bytes),
            records: Budget::of_bytes(sizes.cache_bytes + sizes.fetch_bytes),
            unpacking: Unpacking::of_bytes(sizes.unpacking_bytes),
        }
    }

    /// The gate for a frame of this kind and size.
    pub(crate) fn gate(&self, kind: Kind, bytes: usize) -> &Arc<Gate> {
        let gates = match kind {
            Kind::Bulk => &self.bulk,
            Kind::Other => &self.other,
        };
        if bytes > LARGE_BYTES {
            &gates.large
        } else {
            &gates.usual
        }
    }

    /// True if requests without records wait for memory: for their beginnings too, which connections
    /// keep that have no room for further requests as long as earlier ones wait.
    pub(crate) fn is_other_wanted(&self) -> bool {
        let now = host::clock::now();
        let gates = [&self.other.usual, &self.other.large];
        let is_wanted = |gate: &Arc<Gate>| {
            gate.is_wanted(Step::Beginning, now) || gate.is_wanted(Step::Whole, now)
        };
        gates.into_iter().any(is_wanted) || self.decoded.is_wanted_since(now)
    }

    /// Free bytes for requests with records.
    pub(crate) fn bulk_free_bytes(&self) -> u64 {
        self.bulk.usual.whole.free_bytes()
    }
}

impl Others<Kept> for Memory {
    fn want_frame(&self, kind: Kind, length: usize, step: Step, since: Instant) -> bool {
        self.gate(kind, length).is_wanted(step, since)
    }

    fn want_answer(&self, kept: &Kept, since: Instant) -> bool {
        kept.is_wanted(self, since)
    }
}

impl Gates {
    /// Budgets for one kind of request: memory for beginnings of frames that are not large, and of those that are; large
    /// frames that arrive take at most `large_bytes` of `whole_bytes`.
    fn new(beginnings: [u64; 2], whole_bytes: u64, large_bytes: u64) -> Self {
        let [usual_beginnings, large_beginnings] = beginnings;
        let whole = Budget::of_bytes(whole_bytes);
        Gates {
            usual: Arc::new(Gate {
                beginnings: Budget::of_bytes(usual_beginnings),
                share: None,
                whole: whole.clone(),
            }),
            large: Arc::new(Gate {
                beginnings: Budget::of_bytes(large_beginnings),
                share: Some(Budget::of_bytes(large_bytes)),
                whole,
            }),
        }
    }
}

impl Grant {
    /// Notes that the frame has arrived.
    fn arrived(&mut self) {
        self.share = None;
    }
}

impl Gate {
    /// Takes the memory that a frame asks for, if it is free; while memory is ample, all of it at
    /// once.
    pub(crate) fn try_take(&self, ask: &Ask) -> Option<(Step, Grant)> {
        if ask.step == Step::Whole || ask.length > BEGINNING_BYTES && self.is_ample(ask.cost) {
            let whole = self.try_take_whole(ask.cost);
            if whole.is_some() || ask.step == Step::Whole {
                return Some((Step::Whole, whole?));
            }
        }
        Some((Step::Beginning, self.try_take_beginning()?))
    }

    fn try_take_whole(&self, bytes: usize) -> Option<Grant> {
        let share = match &self.share {
            Some(share) => Some(share.try_hold(bytes as u64)?),
            None => None,
        };
        let held = self.whole.try_hold(bytes as u64)?;
        Some(Grant { held, share })
    }

    /// Takes memory for a beginning, if some is free.
    pub(crate) fn try_take_beginning(&self) -> Option<Grant> {
        let held = self.beginnings.try_hold(BEGINNING_BYTES as u64)?;
        Some(Grant { held, share: None })
    }

    /// Waits for the memory that a frame asks for and takes it.
    pub(crate) async fn take(self: Arc<Self>, ask: Ask) -> (Step, Grant) {
        if ask.step <= Step::Beginning {
            let held = self.beginnings.hold(BEGINNING_BYTES as u64).await;
            return (Step::Beginning, Grant { held, share: None });
        }
        let share = match &self.share {
            Some(share) => Some(share.hold(ask.cost as u64).await),
            None => None,
        };
        let held = self.whole.hold(ask.cost as u64).await;
        (Step::Whole, Grant { held, share })
    }

    /// True if a frame may have all its memory before its beginning is full, which saves moving it.
    /// Half of the memory is kept for clients that have sent more than a beginning.
    fn is_ample(&self, bytes: usize) -> bool {
        let needed = self.whole.total_bytes() / 2 + bytes as u64;
        self.share.is_none() && self.whole.free_bytes() >= needed
    }

    /// True if others wait for memory of this step, or did since `since`.
    fn is_wanted(&self, step: Step, since: Instant) -> bool {
        match step {
            Step::Prefix => false,
            Step::Beginning => self.beginnings.is_wanted_since(since),
            Step::Whole => {
                let share = self.share.as_ref();
                self.whole.is_wanted_since(since)
                    || share.is_some_and(|share| share.is_wanted_since(since))
            }
        }
    }
}

#[cfg(test)]
mod tests;
