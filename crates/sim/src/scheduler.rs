//! A deterministic discrete-event core: simulated time, a heap of events, one seeded generator, one trace.
//!
//! Events at the same time come in the order in which they were scheduled. Whatever happens is a function of the seed: the
//! same seed twice gives the same trace, byte for byte. Must not know what the events are.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::fmt::{self, Write as _};
use std::io::Write;

use host::rng::Rng;

/// What happened, line by line, as a running hash and, where asked for, as text.
pub struct Trace {
    hash: u64,
    lines: u64,
    sink: Option<Box<dyn Write>>,
    line: String,
}

impl Trace {
    /// A trace that keeps only its hash.
    pub fn hashed() -> Self {
        // FNV-1a, 64 bits: the offset basis.
        Trace {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            sink: None,
            line: String::new(),
        }
    }

    /// A trace that also goes to `sink`, as far as that takes it.
    pub fn written(sink: Box<dyn Write>) -> Self {
        Trace {
            sink: Some(sink),
            ..Trace::hashed()
        }
    }

    pub fn line(&mut self, now_us: u64, what: fmt::Arguments<'_>) {
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = writeln!(self.line, "{now_us} {what}");
        for &byte in self.line.as_bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines += 1;
        if let Some(sink) = &mut self.sink
            && sink.write_all(self.line.as_bytes()).is_err()
        {
            // The trace explains a run; a full disk must not change it.
            self.sink = None;
        }
    }

    /// (lines, hash of all their bytes): equal for equal runs.
    pub fn digest(&self) -> (u64, u64) {
        (self.lines, self.hash)
    }
}

struct Scheduled<E> {
    time_us: u64,
    number: u64,
    event: E,
}

impl<E> PartialEq for Scheduled<E> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<E> Eq for Scheduled<E> {}

impl<E> PartialOrd for Scheduled<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Scheduled<E> {
    /// Reversed: the heap gives the earliest first.
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time_us, other.number).cmp(&(self.time_us, self.number))
    }
}

/// The heap of what is going to happen.
pub struct Scheduler<E> {
    now_us: u64,
    next_number: u64,
    heap: BinaryHeap<Scheduled<E>>,
    /// All chance of the run.
    pub rng: Rng,
    pub trace: Trace,
}

impl<E: fmt::Debug> Scheduler<E> {
    /// An empty heap at time 0.
    pub fn new(seed: u64, trace: Trace) -> Self {
        Scheduler {
            now_us: 0,
            next_number: 0,
            heap: BinaryHeap::new(),
            rng: Rng::seeded(seed),
            trace,
        }
    }

    /// Simulated microseconds since the start.
    pub fn now_us(&self) -> u64 {
        self.now_us
    }

    /// Lets `event` happen after `delay_us`.
    pub fn after(&mut self, delay_us: u64, event: E) {
        self.at(self.now_us.saturating_add(delay_us), event);
    }

    /// Lets `event` happen at `time_us`, or now if that is past.
    pub fn at(&mut self, time_us: u64, event: E) {
        let time_us = time_us.max(self.now_us);
        self.heap.push(Scheduled {
            time_us,
            number: self.next_number,
            event,
        });
        self.next_number += 1;
    }

    /// The next event, if it happens before `end_us`; the time moves to it.
    pub fn next_before(&mut self, end_us: u64) -> Option<E> {
        if self.heap.peek().is_none_or(|next| next.time_us >= end_us) {
            return None;
        }
        let next = self.heap.pop()?;
        self.now_us = next.time_us;
        self.trace
            .line(self.now_us, format_args!("{:?}", next.event));
        Some(next.event)
    }

    /// Writes what an event led to into the trace.
    pub fn note(&mut self, what: fmt::Arguments<'_>) {
        self.trace.line(self.now_us, what);
    }
}

#[cfg(test)]
mod tests {
    use super::{Scheduler, Trace};

    #[test]
    fn events_come_by_time_and_then_by_order() {
        let mut scheduler = Scheduler::new(1, Trace::hashed());
        for (delay_us, name) in [(5, "d"), (1, "a"), (3, "b"), (3, "c")] {
            scheduler.after(delay_us, name);
        }
        let mut came = Vec::new();
        while let Some(name) = scheduler.next_before(5) {
            came.push((scheduler.now_us(), name));
        }
        assert_eq!(came, [(1, "a"), (3, "b"), (3, "c")]);
        assert_eq!(scheduler.next_before(6), Some("d"));
    }

    /// A toy run: every event schedules up to two more at random times.
    fn run(seed: u64) -> (u64, u64) {
        let mut scheduler = Scheduler::new(seed, Trace::hashed());
        scheduler.after(0, 0u64);
        let mut left = 1000;
        while let Some(number) = scheduler.next_before(u64::MAX) {
            for child in 0..=scheduler.rng.below(2) {
                if left > 0 {
                    left -= 1;
                    let delay_us = scheduler.rng.below(100);
                    scheduler.after(delay_us, number * 2 + child);
                }
            }
        }
        scheduler.trace.digest()
    }

    #[test]
    fn a_seed_gives_one_trace() {
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }
}
