//! Gathers requests until a file is worth cutting. Pure: time comes in as an argument. It must
//! not know what becomes of a file.
//!
//! A file is cut when it is full of bytes or batches, or `interval` after its first request came.
//! While no upload is under way it is cut after a small part of the interval, or as soon as every
//! request is here that could be: as many as the pipeline lately held at most. These rules pace
//! themselves: while one PUT is on its way the next file fills, so a slow bucket gets large files
//! and a lone producer a quick answer, and they never cause more than one PUT beyond those that the
//! interval allows. A file that is not full also waits until it can be paid for, but not for ever
//! ([`host::thrift`]), and not once everyone is here with a file that is worth it.

use std::collections::VecDeque;
use std::time::Duration;

use host::clock::Instant;
use host::thrift::{self, Thrift};

use super::batch::Write;

/// The part of the interval that a file waits for more requests while no upload is under way: long
/// enough for the requests that a client sends back to back, short beside any PUT to an object
/// store.
const IDLE_SHARE: u32 = 8;
/// The number of files over which the largest number of requests in the pipeline is remembered.
/// Producers send again after an answer, but not all at once, so that one file is too few; and
/// producers that left are waited for no longer than so many files.
const CROWDS: usize = 8;
/// What a file costs, in thousandths of a request: itself, the entry of the journal that its commit
/// causes, and for each the second copy that one slow request in ten gets.
const FILE_PRICE: u64 = 2_200;
/// A file of so many bytes does not wait for its price once everyone is here and nobody comes any
/// more: producers whose requests in flight hold that much would only become slower.
const WORTH_BYTES: u64 = 64 << 10;
/// Nobody comes any more after a silence of so many times the usual one between two requests of the
/// file: requests that come by themselves, whether or not earlier ones are answered, leave so long
/// a gap once in 3,000 at random.
const SILENCE: u32 = 8;
/// Nor is the silence shorter than this share of the time that the last file took until its
/// producers were answered: so little more makes them hardly slower.
const SILENCE_SHARE: u32 = 8;
/// A timer does not tell shorter times, so a silence that would be shorter is not waited for.
const SHORTEST: Duration = Duration::from_millis(1);

#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file with so many bytes of batches is full.
    pub flush_bytes: u64,
    /// A file has no more batches than this, unless one request has: its commit must fit into a
    /// journal entry. At least 1.
    pub batches_max: usize,
    pub flush_interval: Duration,
    /// How many requests files may cost, and how long a file waits for them at most.
    pub thrift: thrift::Limits,
    /// Files being uploaded at one time; while there are so many, none is cut.
    pub uploads_max: usize,
}

#[derive(Debug)]
pub struct Batcher<T, M> {
    limits: Limits,
    waiting: VecDeque<Write<T, M>>,
    bytes: u64,
    batches: usize,
    draining: bool,
    /// Requests in the pipeline when each of the last files was cut.
    crowds: [usize; CROWDS],
    /// Index of the oldest of `crowds`.
    oldest_crowd: usize,
    /// From the cut of the file that was committed last to its commit.
    took: Duration,
    thrift: Thrift,
}

impl<T, M> Batcher<T, M> {
    pub fn new(limits: Limits) -> Self {
        Batcher {
            limits,
            waiting: VecDeque::new(),
            bytes: 0,
            batches: 0,
            draining: false,
            // Unknown at first, so no file counts as complete.
            crowds: [usize::MAX; CROWDS],
            oldest_crowd: 0,
            took: limits.flush_interval,
            thrift: Thrift::new(limits.thrift, FILE_PRICE),
        }
    }

    pub fn add(&mut self, write: Write<T, M>) {
        self.bytes += write.batch_bytes();
        self.batches += write.batches.len();
        self.waiting.push_back(write);
    }

    /// From now on every request is cut at once.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// True if no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next file is to be cut, given the number of uploads under way; `None` if it waits
    /// for something other than time. An instant in the past means now.
    pub fn due(&self, uploads: usize) -> Option<Instant> {
        let first = self.waiting.front()?;
        if uploads >= self.limits.uploads_max {
            return None;
        }
        if self.draining || self.is_full() {
            return Some(Instant::default());
        }
        let interval = self.limits.flush_interval;
        if uploads > 0 {
            return Some(self.thrift.due(first.at, first.at + interval));
        }
        if !self.is_everyone_here() {
            let at = first.at + interval / IDLE_SHARE;
            return Some(self.thrift.due(first.at, at));
        }
        let paid = self.thrift.due(first.at, Instant::default());
        if self.bytes < WORTH_BYTES {
            return Some(paid);
        }
        Some(paid.min(self.silent_at()?))
    }

    /// From when on nobody comes any more, if nobody does until then.
    fn silent_at(&self) -> Option<Instant> {
        let (first, last) = (self.waiting.front()?, self.waiting.back()?);
        let gaps = u32::try_from(self.waiting.len() - 1).unwrap_or(u32::MAX);
        let usual = last.at.since(first.at) / gaps.max(1);
        let silence = (usual * SILENCE).max(self.took / SILENCE_SHARE);
        Some(match silence < SHORTEST {
            true => last.at,
            false => last.at + silence,
        })
    }

    /// Notes that a file was committed, `took` after its cut.
    pub fn committed(&mut self, took: Duration) {
        self.took = took;
    }

    /// True if the waiting requests fill a file.
    fn is_full(&self) -> bool {
        self.bytes >= self.limits.flush_bytes || self.batches >= self.limits.batches_max
    }

    /// True if waiting would bring no further request: each producer that could send one waits for
    /// the answer to a request that is here.
    fn is_everyone_here(&self) -> bool {
        let crowd = self.crowds.iter().max();
        crowd.is_some_and(|crowd| self.waiting.len() >= *crowd)
    }

    /// Takes the requests of the next file, which is due, oldest first. `unsettled` is the number
    /// of requests in files cut before.
    pub fn cut(&mut self, now: Instant, unsettled: usize) -> Vec<Write<T, M>> {
        self.crowds[self.oldest_crowd] = self.waiting.len() + unsettled;
        self.oldest_crowd = (self.oldest_crowd + 1) % CROWDS;
        let mut taken = Vec::new();
        let (mut bytes, mut batches) = (0, 0);
        while bytes < self.limits.flush_bytes {
            let batches_max = self.limits.batches_max.saturating_sub(batches);
            let fits = |write: &mut Write<T, M>| batches == 0 || write.batches.len() <= batches_max;
            let Some(write) = self.waiting.pop_front_if(fits) else {
                break;
            };
            bytes += write.batch_bytes();
            batches += write.batches.len();
            taken.push(write);
        }
        self.bytes -= bytes;
        self.batches -= batches;
        self.thrift.done(now, bytes);
        taken
    }

    /// Takes back every waiting request for which `unwanted` holds, oldest first.
    pub fn withdraw(&mut self, mut unwanted: impl FnMut(&Write<T, M>) -> bool) -> Vec<Write<T, M>> {
        let (out, kept): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|write| unwanted(write));
        self.waiting = kept.into();
        self.bytes = self.waiting.iter().map(Write::batch_bytes).sum();
        self.batches = self.waiting.iter().map(|write| write.batches.len()).sum();
        out
    }
}
