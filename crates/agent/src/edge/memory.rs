//! Memory for requests on their way in, and who has to give it back. Connections take it in steps,
//! so that what a frame announces costs nothing until bytes of it have come:
//!
//! 1. [`PREFIX_ROOM`] bytes, which every connection has;
//! 2. a *beginning*, up to [`BEGINNING_BYTES`], once the first step is full;
//! 3. the *whole* frame, once its beginning is full, or at once while memory is ample.
//!
//! Each step has a budget of its own, and whoever waits for one holds memory of earlier steps only.
//! So a holder of the last step waits for nothing but its client, or for the pipeline, which waits
//! for no connection: nobody waits in a circle. A client that keeps its memory waiting while others
//! wait for it loses its connection: see [`Pace`].
//!
//! Frames above [`LARGE_BYTES`] have beginnings of their own, and no more than a share of the whole
//! while they arrive: whoever announces those keeps only those from coming.
//!
//! It must not know sockets, or what is in a frame.

mod unpacking;

use std::sync::Arc;
use std::time::Duration;

use host::budget::{Budget, Held};
use host::clock::Instant;

pub(crate) use unpacking::{Room, Unpacking};

/// What a connection may read without taking memory: enough for most requests that are not
/// Produce, and at `max.connections` of 10,000 no more than 40 MiB.
pub(crate) const PREFIX_ROOM: usize = 4 << 10;
/// What a frame's memory begins with: a sixteenth of the batch that clients send at most by
/// default, so that to hold memory costs a client at least a sixteenth of it in bytes sent.
pub(crate) const BEGINNING_BYTES: usize = 64 << 10;
/// Frames above this are large: twice the largest request that clients send by default.
const LARGE_BYTES: usize = 2 << 20;
/// Memory for beginnings of produce requests: 256 that arrive at one time.
const PRODUCE_BEGINNINGS_BYTES: u64 = 16 << 20;
/// Memory for beginnings of others, few of which are larger than what every connection has.
const OTHER_BEGINNINGS_BYTES: u64 = 4 << 20;
/// Memory for beginnings of large frames, of which few arrive at one time.
const LARGE_BEGINNINGS_BYTES: u64 = 4 << 20;
/// Memory for whole requests other than Produce: they are small.
const OTHER_BYTES: u64 = 16 << 20;
/// The largest request other than Produce: half of the memory for them, so that two fit.
const OTHER_BYTES_MAX: u64 = OTHER_BYTES / 2;

/// Memory for what is decoded from them.
const DECODED_BYTES: u64 = 16 << 20;
/// The most that one may come to: half of it, so that two fit. That is 170,000 names.
pub(crate) const DECODED_BYTES_MAX: usize = DECODED_BYTES as usize / 2;

/// Memory for answers to produce requests: 32,000 partitions in flight.
const PRODUCE_ANSWERS_BYTES: u64 = 16 << 20;

/// The budgets of an agent.
pub(crate) struct Memory {
    produce: Gates,
    other: Gates,
    /// For what is decoded from requests other than Produce, beside their frames. Whoever waits for
    /// it holds a frame; whoever holds it waits for the journal, for other answers, or yields.
    decoded: Budget,
    /// For answers to produce requests, from before they are written until they are sent. It is the
    /// last that a request takes: whoever holds it waits for the pipeline, and for its client, alone.
    produce_answers: Budget,
    pub(crate) unpacking: Unpacking,
}

/// The budgets of one kind of requests.
struct Gates {
    usual: Arc<Gate>,
    large: Arc<Gate>,
    frame_bytes_max: u64,
}

/// How much the budgets of one kind of requests have.
struct Sizes {
    /// For beginnings of frames that are not large.
    beginnings_bytes: u64,
    whole_bytes: u64,
    /// What large frames that arrive may take of that.
    large_bytes: u64,
    frame_bytes_max: u64,
}

/// What a frame has to pass.
#[derive(Debug)]
pub(crate) struct Gate {
    beginnings: Budget,
    /// What frames that arrive may take of `whole`, if that is limited.
    share: Option<Budget>,
    whole: Budget,
}

/// A step of a frame's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Step {
    /// What every connection has.
    Prefix,
    /// Room for a beginning.
    Beginning,
    /// Room for the whole frame.
    Whole,
}

/// Memory that was taken for a step.
#[derive(Debug)]
pub(crate) struct Grant {
    /// For as long as the bytes are in memory.
    pub(crate) held: Held,
    /// While the frame arrives.
    _share: Option<Held>,
}

impl Memory {
    /// All of it is free.
    pub(crate) fn new(produce_bytes: u64, frame_bytes_max: u64) -> Self {
        Memory {
            produce: Gates::new(&Sizes {
                beginnings_bytes: PRODUCE_BEGINNINGS_BYTES,
                whole_bytes: produce_bytes,
                // Half, unless one frame may be larger.
                large_bytes: frame_bytes_max.max(produce_bytes / 2),
                frame_bytes_max,
            }),
            other: Gates::new(&Sizes {
                beginnings_bytes: OTHER_BEGINNINGS_BYTES,
                whole_bytes: OTHER_BYTES,
                large_bytes: OTHER_BYTES_MAX,
                frame_bytes_max: OTHER_BYTES_MAX,
            }),
            decoded: Budget::of_bytes(DECODED_BYTES),
            produce_answers: Budget::of_bytes(PRODUCE_ANSWERS_BYTES),
            unpacking: Unpacking::new(),
        }
    }

    /// What a frame of so many bytes has to pass; the largest size allowed if it is larger.
    pub(crate) fn gate(&self, is_produce: bool, bytes: usize) -> Result<&Arc<Gate>, u64> {
        let gates = if is_produce {
            &self.produce
        } else {
            &self.other
        };
        if bytes as u64 > gates.frame_bytes_max {
            return Err(gates.frame_bytes_max);
        }
        Ok(if bytes > LARGE_BYTES {
            &gates.large
        } else {
            &gates.usual
        })
    }

    /// True if requests other than Produce wait for memory.
    pub(crate) fn is_other_wanted(&self) -> bool {
        let now = host::clock::now();
        self.other.usual.is_wanted(Step::Whole, now) || self.decoded.is_wanted_since(now)
    }

    /// Memory for what is decoded from requests other than Produce.
    pub(crate) fn decoded(&self) -> &Budget {
        &self.decoded
    }

    /// Memory for answers to produce requests.
    pub(crate) fn produce_answers(&self) -> &Budget {
        &self.produce_answers
    }

    /// Bytes left for produce requests.
    pub(crate) fn produce_free_bytes(&self) -> u64 {
        self.produce.usual.whole.free_bytes()
    }
}

impl Gates {
    fn new(sizes: &Sizes) -> Self {
        let whole = Budget::of_bytes(sizes.whole_bytes);
        Gates {
            usual: Arc::new(Gate {
                beginnings: Budget::of_bytes(sizes.beginnings_bytes),
                share: None,
                whole: whole.clone(),
            }),
            large: Arc::new(Gate {
                beginnings: Budget::of_bytes(LARGE_BEGINNINGS_BYTES),
                share: Some(Budget::of_bytes(sizes.large_bytes)),
                whole,
            }),
            frame_bytes_max: sizes.frame_bytes_max,
        }
    }
}

impl Gate {
    /// Takes memory for a step of a frame of so many bytes, if it is free.
    pub(crate) fn try_take(&self, step: Step, bytes: usize) -> Option<Grant> {
        if step <= Step::Beginning {
            return self.try_take_beginning();
        }
        let _share = match &self.share {
            Some(share) => Some(share.try_hold(bytes as u64)?),
            None => None,
        };
        let held = self.whole.try_hold(bytes as u64)?;
        Some(Grant { held, _share })
    }

    /// Takes memory for a beginning, if it is free.
    pub(crate) fn try_take_beginning(&self) -> Option<Grant> {
        let held = self.beginnings.try_hold(BEGINNING_BYTES as u64)?;
        Some(Grant { held, _share: None })
    }

    /// Takes memory for a step when it is free.
    pub(crate) async fn take(self: Arc<Self>, step: Step, bytes: usize) -> Grant {
        if step <= Step::Beginning {
            let held = self.beginnings.hold(BEGINNING_BYTES as u64).await;
            return Grant { held, _share: None };
        }
        let _share = match &self.share {
            Some(share) => Some(share.hold(bytes as u64).await),
            None => None,
        };
        let held = self.whole.hold(bytes as u64).await;
        Grant { held, _share }
    }

    /// True if a frame may have all its memory before its beginning is full, which saves moving it:
    /// half of the memory is left for those who have sent more than that.
    pub(crate) fn is_ample(&self, bytes: usize) -> bool {
        let needed = self.whole.total_bytes() / 2 + bytes as u64;
        self.share.is_none() && self.whole.free_bytes() >= needed
    }

    /// True if others wait for memory of a step, or did since `since`.
    pub(crate) fn is_wanted(&self, step: Step, since: Instant) -> bool {
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

/// The step that a frame of `bytes` needs as soon as `come` of them have come.
pub(crate) fn step_due(come: usize, bytes: usize) -> Step {
    if come >= bytes || come >= BEGINNING_BYTES {
        Step::Whole
    } else if come >= PREFIX_ROOM {
        Step::Beginning
    } else {
        Step::Prefix
    }
}

/// How quickly a frame comes, or goes. Pure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// When some of it came last.
    came_at: Instant,
    /// When the time began over which its bytes are counted.
    since: Instant,
    /// What had come then.
    come_then: usize,
}

/// The time over which a frame's bytes are counted: longer than a lost packet takes to be sent
/// again, and short beside the time that producers wait for an answer.
const PACE_WINDOW: Duration = Duration::from_secs(1);
/// The part of a frame that must come in that time while others wait for memory: so a frame of the
/// usual size is there after 16 seconds, or gone.
const PACE_SHARE: usize = 16;
/// What is enough of a larger one: two Mbit a second, which any path to a broker carries.
const PACE_BYTES: usize = 256 << 10;
/// How long a frame may come to a halt, whether others wait or not.
pub(crate) const HALT_MAX: Duration = Duration::from_secs(30);

impl Pace {
    /// `come` bytes have come of a frame, and more can come from now on.
    pub(crate) fn begin(now: Instant, come: usize) -> Self {
        Pace {
            came_at: now,
            since: now,
            come_then: come,
        }
    }

    /// Some bytes came.
    pub(crate) fn advance(&mut self, now: Instant) {
        self.came_at = now;
    }

    /// Since when its bytes are counted.
    pub(crate) fn since(&self) -> Instant {
        self.since
    }

    /// When to judge it next.
    pub(crate) fn look_at(&self, halt_max: Duration) -> Instant {
        (self.since + PACE_WINDOW).min(self.came_at + halt_max)
    }

    /// Whether it comes too slowly; to be asked at [`Pace::look_at`], or later. `is_wanted` says
    /// that others wait for memory that it holds, or did since [`Pace::since`]: if only those were
    /// closed that are slow at the instant when somebody waits, the next would wait for the others.
    pub(crate) fn is_too_slow(
        &mut self,
        now: Instant,
        (come, bytes): (usize, usize),
        is_wanted: bool,
        halt_max: Duration,
    ) -> bool {
        if now >= self.came_at + halt_max {
            return true;
        }
        if now < self.since + PACE_WINDOW {
            return false;
        }
        let came = come.saturating_sub(self.come_then);
        if is_wanted && came < bytes.div_ceil(PACE_SHARE).min(PACE_BYTES) {
            return true;
        }
        self.since = now;
        self.come_then = come;
        false
    }
}

#[cfg(test)]
mod tests;
