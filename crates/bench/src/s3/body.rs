//! Bodies: requests are kept in the frames in which they come, and answers sent in the frames that
//! are kept. It must not know what the bytes mean.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// No answer: the connection is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dropped;

impl std::fmt::Display for Dropped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the connection is dropped")
    }
}

impl std::error::Error for Dropped {}

/// Reads a request's body without joining its frames.
pub(super) async fn read(mut body: Incoming) -> Result<Vec<Bytes>, Dropped> {
    let mut frames = Vec::new();
    while let Some(frame) = body.frame().await {
        // The client went away in the middle: nothing may be stored.
        if let Ok(data) = frame.map_err(|_| Dropped)?.into_data() {
            frames.push(data);
        }
    }
    Ok(frames)
}

/// What follows the last frame of a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum End {
    #[default]
    Proper,
    BreaksOff,
    /// Nothing follows, and the body never ends.
    Stalls,
}

#[derive(Debug, Default)]
pub(super) struct Frames {
    frames: VecDeque<Bytes>,
    /// Bytes that were announced and not sent yet.
    left: u64,
    end: End,
}

impl Frames {
    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        let text = text.into();
        Frames {
            left: text.len() as u64,
            frames: [text].into(),
            end: End::Proper,
        }
    }

    /// The bytes of `range` out of `frames`.
    pub(super) fn cut(frames: &[Bytes], range: Range<u64>) -> Self {
        let mut start = 0;
        let mut cut = VecDeque::new();
        for frame in frames {
            let end = start + frame.len() as u64;
            let from = range.start.max(start);
            let to = range.end.min(end);
            if from < to {
                cut.push_back(frame.slice((from - start) as usize..(to - start) as usize));
            }
            start = end;
        }
        Frames {
            frames: cut,
            left: range.end - range.start,
            end: End::Proper,
        }
    }

    /// The same body with one bit flipped in the middle of its first frame.
    pub(super) fn corrupted(mut self) -> Self {
        if let Some(first) = self.frames.front_mut() {
            let mut bytes = BytesMut::from(first.as_ref());
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            *first = bytes.freeze();
        }
        self
    }

    /// The same body without its last byte: its full length is announced, then the connection
    /// breaks.
    pub(super) fn truncated(mut self) -> Self {
        if let Some(last) = self.frames.back_mut() {
            last.truncate(last.len() - 1);
            self.end = End::BreaksOff;
        }
        self
    }

    /// The first half of the same body: its full length is announced, and the rest never comes.
    pub(super) fn stalled(mut self) -> Self {
        let mut left = self.left / 2;
        for frame in &mut self.frames {
            frame.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= frame.len() as u64;
        }
        self.frames.retain(|frame| !frame.is_empty());
        self.end = End::Stalls;
        self
    }

    /// Bytes announced.
    pub(super) fn len(&self) -> u64 {
        self.left
    }
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Dropped;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Dropped>>> {
        match self.frames.pop_front() {
            Some(frame) => {
                self.left -= frame.len() as u64;
                Poll::Ready(Some(Ok(Frame::data(frame))))
            }
            None => match self.end {
                End::Proper => Poll::Ready(None),
                End::BreaksOff => Poll::Ready(Some(Err(Dropped))),
                End::Stalls => Poll::Pending,
            },
        }
    }

    fn is_end_stream(&self) -> bool {
        self.frames.is_empty() && self.end == End::Proper
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
