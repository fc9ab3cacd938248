//! Reads slots for scans, and for takes, which leave others who take the time for it. A bucket that is late is passed over, and
//! everything ends in bounded time. It must not know what entries mean.

use std::sync::Arc;
use std::time::Duration;

use host::clock;
use host::rng::Rng;

use super::super::BUCKETS;
use super::super::context::{Event, Outcome};
use super::super::judge::{Proven, Reading};
use super::courtesy;
use super::{Shared, Waiting, lock};
use crate::engine::{Content, TakeError, WINDOW};

/// Slots that one scan reads at the same time at most.
const READS_AT_ONCE: u64 = 64;
/// Scans in a row that ended undecided at one slot beyond which the next waits no longer for the last bucket: as long as a scan
/// may take.
const DOUBTS_MAX: u32 = 8;
/// Roughly how many bytes one scan reads.
const SCAN_BYTES: usize = 32 << 20;
/// How long a taker reads on without coming to an end: it follows then, rather than chase an owner that is at work.
const CHASE_MAX: Duration = Duration::from_secs(1);
/// For how long after its beginning a scan that found nothing more saves a taker another: it takes a round trip, and a decision.
const ENDED_COUNTS_FOR: Duration = Duration::from_millis(250);
/// How long a scan may take. Callers mostly wait less.
const SCAN_FOR: Duration = Duration::from_secs(5);

impl Shared {
    /// Reads slots for a scan of a follower: widely while a bucket fails, as it does when the leader's region is lost.
    pub(super) async fn read_for_scan(
        self: &Arc<Self>,
        from: u64,
        slots: u64,
        limit: u64,
    ) -> Reading {
        let is_failing = self.lanes.iter().any(|lane| lane.rank().1);
        match slots < WINDOW && is_failing {
            true => self.read_wide(from, WINDOW.min(limit)).await,
            false => self.read(from, slots, self.order()).await,
        }
    }

    /// Reads slots: a bucket that is late is passed over, and the whole ends in bounded time.
    pub(super) async fn read(
        self: &Arc<Self>,
        from: u64,
        slots: u64,
        order: [usize; BUCKETS],
    ) -> Reading {
        self.read_so(from, slots, order, false).await
    }

    /// Reads as many slots as a leader may have had in flight in two buckets at once: whoever waits for what is left of a leader that
    /// is gone has no time to read one after the other.
    async fn read_wide(self: &Arc<Self>, from: u64, slots: u64) -> Reading {
        self.read_so(from, slots, self.order(), true).await
    }

    async fn read_so(
        self: &Arc<Self>,
        from: u64,
        slots: u64,
        order: [usize; BUCKETS],
        is_wide: bool,
    ) -> Reading {
        let mut waiting = self.wait(|ask| Event::Scan {
            ask,
            from,
            slots,
            order,
            is_wide,
        });
        let reading = self.read_in_time(&mut waiting, from, order).await;
        let mut doubts = lock(&self.doubts);
        *doubts = match reading.slots.is_empty() && !reading.is_free {
            true if doubts.0 == from => (from, (doubts.1 + 1).min(DOUBTS_MAX)),
            true => (from, 1),
            false => (0, 0),
        };
        reading
    }

    async fn read_in_time(
        self: &Arc<Self>,
        waiting: &mut Waiting<'_>,
        from: u64,
        order: [usize; BUCKETS],
    ) -> Reading {
        let until = clock::now() + SCAN_FOR;
        let doubts = *lock(&self.doubts);
        let mut late = order.into_iter();
        loop {
            // Two buckets that have answered are enough: asking them again settles more than to wait for one that is late. It
            // is waited for longer each time that this has settled nothing.
            let wait = match late.next() {
                Some(bucket) => self.lanes[bucket].hurry(),
                None => {
                    let count = if doubts.0 == from { doubts.1 } else { 0 };
                    self.lanes[order[BUCKETS - 1]].hurry() * (1 << count)
                }
            };
            let wait = wait.min(until.since(clock::now()));
            if let Some(Outcome::Read(reading)) = waiting.within(wait).await {
                return reading;
            }
            if clock::now() >= until {
                break;
            }
            self.feed(Event::Hurry(waiting.ask));
        }
        self.feed(Event::Enough(waiting.ask));
        match waiting.within(SCAN_FOR).await {
            Some(Outcome::Read(reading)) => reading,
            _ => Reading {
                slots: Vec::new(),
                is_free: false,
                answered: 0,
                seen: 0,
            },
        }
    }

    /// How many slots a scan from here reads at once.
    pub(super) fn stride(&self, from: u64) -> u64 {
        let (next, stride) = *lock(&self.stride);
        if next == from { stride } else { 1 }
    }

    /// Notes how a scan went: one that saw a value in all slots that it asked for is followed by one of twice as many. Only those are
    /// proven that lie behind what was in flight, so that few of few would always be.
    pub(super) fn note_stride(&self, from: u64, asked: u64, reading: &Reading) {
        let found = reading.slots.len() as u64;
        let bytes: usize = reading
            .slots
            .iter()
            .map(|proven| match &proven.content {
                Content::Entry(bytes) => bytes.len(),
                Content::Filler => 0,
            })
            .sum();
        let is_long = reading.seen >= asked && found > 0;
        let stride = match (is_long, bytes * 2 > SCAN_BYTES) {
            (true, false) => (asked * 2).min(READS_AT_ONCE),
            (true, true) => (asked / 2).max(1),
            (false, _) => 1,
        };
        *lock(&self.stride) = (from + found, stride);
    }

    /// Reads on from a slot to the first that is not proven; the slots, and the one after them.
    async fn read_on(self: &Arc<Self>, from: u64) -> Result<(Vec<Proven>, u64), TakeError> {
        let until = clock::now() + CHASE_MAX;
        let (mut slots, mut next) = (Vec::new(), from);
        loop {
            let asked = self.stride(next).max(WINDOW);
            let reading = match asked > WINDOW {
                true => self.read(next, asked, self.order()).await,
                false => self.read_wide(next, WINDOW).await,
            };
            self.note_stride(next, asked, &reading);
            if reading.slots.is_empty() && asked == WINDOW {
                // Who reaches fewer than two buckets promises nowhere: it could only depose a leader (R3).
                return match reading.answered >= 2 {
                    true => Ok((slots, next)),
                    false => Err(TakeError::Unavailable(self.silent())),
                };
            }
            next += reading.slots.len() as u64;
            slots.extend(reading.slots);
            // Its owner goes on, or there is more than a taker should catch up with.
            if clock::now() > until {
                return Err(TakeError::Superseded);
            }
        }
    }

    /// True if two buckets have shown just now that nothing is proven in this slot: the caller's own scan need not be repeated.
    fn has_just_ended_at(&self, slot: u64) -> bool {
        let ended = *lock(&self.ended);
        ended.is_some_and(|(at, began)| at == slot && clock::now().since(began) < ENDED_COUNTS_FOR)
    }

    /// Reads on to the end, and until others who take have had their time. A caller that has not heard of the owner of what is
    /// there follows it, rather than take the lead from it.
    pub(super) async fn read_to_take(
        self: &Arc<Self>,
        from: u64,
    ) -> Result<(Vec<(u64, Content)>, u64), TakeError> {
        let began = clock::now();
        let drawn = Rng::from_entropy().below(courtesy::MILLION);
        let (mut slots, mut next) = (Vec::new(), from);
        let mut is_read = self.has_just_ended_at(from);
        loop {
            let (run, end) = match std::mem::take(&mut is_read) {
                true => (Vec::new(), next),
                false => self.read_on(next).await?,
            };
            // Of two buckets that have to answer, the slower one counts.
            let usual = self.lanes[self.order()[1]].usual();
            let left = {
                let courtesy = lock(&self.courtesy);
                courtesy.left(courtesy.patience(usual, drawn), began, clock::now())
            };
            let newest = run.iter().map(|one| one.ballot).max();
            if newest.is_some_and(|ballot| lock(&self.courtesy).tell(ballot)) {
                return Err(TakeError::Superseded);
            }
            slots.extend(run.into_iter().map(|one| (one.slot, one.content)));
            next = end;
            if left.is_zero() {
                return Ok((slots, next));
            }
            clock::sleep(left.min(self.lanes[self.order()[1]].hurry())).await;
        }
    }
}
