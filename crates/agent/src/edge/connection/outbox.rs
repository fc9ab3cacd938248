//! Answers on their way to the client, in order, with whatever each keeps alive until it is sent.
//! Pure. It must not know sockets.

use std::collections::VecDeque;
use std::io::IoSlice;
use std::time::Duration;

use bytes::{Buf, Bytes};
use host::clock::Instant;
use wire::rope::Rope;

use super::Others;
use super::pace::Pace;

/// A client that reads nothing is not hurried while nobody waits for memory: the idle limit covers
/// it.
const HALT_MAX: Duration = Duration::MAX;

pub(super) struct Outbox<K> {
    pieces: VecDeque<Bytes>,
    bytes: usize,
    /// For each answer, the bytes that are left and what they keep alive.
    answers: VecDeque<(usize, K)>,
    /// Bytes sent since the outbox was last empty, and how quickly.
    sent_bytes: usize,
    pace: Pace,
}

impl<K> Outbox<K> {
    pub(super) fn new(now: Instant) -> Self {
        Outbox {
            pieces: VecDeque::new(),
            bytes: 0,
            answers: VecDeque::new(),
            sent_bytes: 0,
            pace: Pace::begin(now, 0),
        }
    }

    pub(super) fn push(&mut self, now: Instant, frame: Rope, kept: K) {
        if self.is_empty() {
            self.sent_bytes = 0;
            self.pace = Pace::begin(now, 0);
        }
        self.bytes += frame.len();
        self.answers.push_back((frame.len(), kept));
        self.pieces.extend(frame.into_pieces());
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    pub(super) fn pieces<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        for (slice, piece) in slices.iter_mut().zip(&self.pieces) {
            *slice = IoSlice::new(piece);
        }
        self.pieces.len().min(slices.len())
    }

    /// Notes that so many bytes were written.
    pub(super) fn written(&mut self, mut bytes: usize) {
        self.bytes -= bytes;
        self.sent_bytes = self.sent_bytes.saturating_add(bytes);
        let mut left = bytes;
        while let Some((answer, _)) = self.answers.front_mut() {
            if left < *answer {
                *answer -= left;
                break;
            }
            left -= *answer;
            self.answers.pop_front();
        }
        while let Some(piece) = self.pieces.front_mut() {
            if bytes < piece.len() {
                piece.advance(bytes);
                return;
            }
            bytes -= piece.len();
            self.pieces.pop_front();
        }
    }

    /// When to check whether the client reads too slowly.
    pub(super) fn look_at(&self) -> Option<Instant> {
        (!self.is_empty()).then(|| self.pace.look_at(HALT_MAX))
    }

    /// True if the client reads its answers too slowly while others wait for their memory.
    pub(super) fn is_read_too_slowly(&mut self, now: Instant, others: &impl Others<K>) -> bool {
        let since = self.pace.since();
        let mut answers = self.answers.iter();
        let is_wanted = answers.any(|(_, kept)| others.want_answer(kept, since));
        let bytes = self.sent_bytes.saturating_add(self.bytes);
        self.pace
            .is_too_slow(now, (self.sent_bytes, bytes), is_wanted, HALT_MAX)
    }
}
