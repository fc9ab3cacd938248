//! Gathers requests until a file is worth cutting. Pure: time comes in as an argument. It must
//! not know what becomes of a file.
//!
//! A file is cut when it is full; or `interval` after its first request came; or, if nothing is
//! being uploaded, after a small part of that, and of the time that uploads take. The last rule
//! clocks itself: while a PUT is on its way the next file fills, so a slow bucket gets large files
//! and a lone producer a quick answer, and no more than one PUT in addition to those that the
//! interval allows is ever caused by it.

use std::collections::VecDeque;
use std::time::Duration;

use host::clock::Instant;

use super::batch::Write;

/// The part of the interval that a file waits for company while no upload is in flight: long
/// enough for the requests that a client sends back to back, short beside any PUT to an object
/// store.
const IDLE_SHARE: u32 = 8;
/// The part of an upload's time that a file waits at most while no upload is in flight: waiting
/// for longer would be most of what a producer waits for if the bucket is near, and this much more
/// makes hardly fewer files, since the next one fills during the upload anyway.
const UPLOAD_SHARE: u32 = 4;

/// When to cut.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// A file with so many bytes of batches is full.
    pub flush_bytes: u64,
    /// The longest that a request waits in a file that is not full.
    pub flush_interval: Duration,
    /// Files that may be uploaded at one time; with so many in flight none is cut.
    pub uploads_max: usize,
}

/// Requests that are in no file yet.
#[derive(Debug)]
pub struct Batcher<T> {
    limits: Limits,
    waiting: VecDeque<Write<T>>,
    bytes: u64,
    draining: bool,
    /// How long the last upload took; `None` before the first has succeeded.
    upload: Option<Duration>,
}

impl<T> Batcher<T> {
    /// Nothing waits.
    pub fn new(limits: Limits) -> Self {
        Batcher {
            limits,
            waiting: VecDeque::new(),
            bytes: 0,
            draining: false,
            upload: None,
        }
    }

    /// Takes note of how long a file took to become durable.
    pub fn uploaded(&mut self, took: Duration) {
        self.upload = Some(took);
    }

    /// Takes a request.
    pub fn add(&mut self, write: Write<T>) {
        self.bytes += write.batch_bytes();
        self.waiting.push_back(write);
    }

    /// From now on nothing waits for company.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// True if no request waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// When the next file is to be cut, given the number of uploads in flight; `None` if that
    /// waits for something other than time. An instant in the past means now.
    pub fn due(&self, uploads: usize) -> Option<Instant> {
        let first = self.waiting.front()?;
        if uploads >= self.limits.uploads_max {
            return None;
        }
        if self.draining || self.bytes >= self.limits.flush_bytes {
            return Some(Instant::default());
        }
        let wait = match uploads {
            0 => self.idle_wait(),
            _ => self.limits.flush_interval,
        };
        Some(first.at + wait)
    }

    fn idle_wait(&self) -> Duration {
        let wait = self.limits.flush_interval / IDLE_SHARE;
        self.upload
            .map_or(wait, |upload| wait.min(upload / UPLOAD_SHARE))
    }

    /// The requests of the next file, oldest first, if it is due.
    pub fn cut(&mut self, now: Instant, uploads: usize) -> Option<Vec<Write<T>>> {
        if self.due(uploads)? > now {
            return None;
        }
        let mut taken = Vec::new();
        let mut bytes = 0;
        while bytes < self.limits.flush_bytes {
            let Some(write) = self.waiting.pop_front() else {
                break;
            };
            bytes += write.batch_bytes();
            taken.push(write);
        }
        self.bytes -= bytes;
        Some(taken)
    }

    /// Takes back every waiting request for which `unwanted` holds, oldest first.
    pub fn withdraw(&mut self, mut unwanted: impl FnMut(&Write<T>) -> bool) -> Vec<Write<T>> {
        let (out, kept): (Vec<_>, Vec<_>) =
            self.waiting.drain(..).partition(|write| unwanted(write));
        self.waiting = kept.into();
        self.bytes = self.waiting.iter().map(Write::batch_bytes).sum();
        out
    }
}
