//! How calls, notices and parts of files lie in HTTP messages (docs/formats/rpc.md): paths, headers, and the lengths between what a stream tells. Pure.

use bytes::{Buf, Bytes, BytesMut};
use hyper::header::{HeaderMap, HeaderName, HeaderValue, InvalidHeaderValue};
use rpc::LedBy;

/// POST: a call; the answer is what came of it.
pub(crate) const CALL: &str = "/1/call";
/// GET: notices, for as long as the connection lasts.
pub(crate) const NOTICES: &str = "/1/notices";
/// GET, of a control node: how the journal grows, for as long as the connection lasts.
pub(crate) const GROWTH: &str = "/1/growth";

/// POST: a part of a file, of an agent; the answer is its bytes, or nothing (204) if it has none to give.
pub(crate) const PART: &str = "/1/part";

/// The cluster that the caller means.
pub(crate) const CLUSTER: HeaderName = HeaderName::from_static("seaway-cluster");
/// Who calls. By TLS it is what the caller's certificate says.
pub(crate) const NAME: HeaderName = HeaderName::from_static("seaway-name");
/// In requests the newest feature level that the caller knows; in answers the level for which they are written.
pub(crate) const LEVEL: HeaderName = HeaderName::from_static("seaway-level");
/// In requests: the caller cannot reach the node that leads.
pub(crate) const LEADER_AWAY: HeaderName = HeaderName::from_static("seaway-leader-away");

/// In requests: the call is to be passed on to the node that leads. In answers: that node has given it, with this address and claim.
pub(crate) const RELAY: HeaderName = HeaderName::from_static("seaway-relay");
/// In requests of control nodes: the agent whose call is passed on.
pub(crate) const RELAYED_FOR: HeaderName = HeaderName::from_static("seaway-relayed-for");
/// In requests: for how many milliseconds the caller waits.
pub(crate) const WITHIN: HeaderName = HeaderName::from_static("seaway-within");
/// In requests: what the node's clock showed when the client was found to wait for which this is asked, or `?` if the caller does not know
/// that clock.
pub(crate) const AWAITED_AT: HeaderName = HeaderName::from_static("seaway-awaited-at");
/// In answers: what the node's clock shows as they begin.
pub(crate) const CLOCK: HeaderName = HeaderName::from_static("seaway-clock");
/// In answers, which begin with it before they are known: the node led, and may lead no more.
pub(crate) const DOUBT: HeaderName = HeaderName::from_static("seaway-doubt");

/// The most bytes of a call or an answer: an entry of the journal has at most 64 MiB.
pub(crate) const MESSAGE_BYTES_MAX: usize = 80 << 20;

/// A level as a header has it.
pub(crate) fn level(headers: &HeaderMap) -> Option<u32> {
    headers.get(LEVEL)?.to_str().ok()?.parse().ok()
}

/// The node that has given an answer as a header has it; an address that no header can have is an error.
pub(crate) fn led_by_text(by: &LedBy) -> Result<HeaderValue, InvalidHeaderValue> {
    HeaderValue::from_str(&format!("{} {}", by.address, by.claim))
}

/// The node that has given an answer to the one that was asked, if it was passed on; the error is what the header has instead.
pub(crate) fn led_by(headers: &HeaderMap) -> Result<Option<LedBy>, String> {
    let Some(value) = headers.get(RELAY) else {
        return Ok(None);
    };
    let parse = || {
        let (address, claim) = value.to_str().ok()?.rsplit_once(' ')?;
        Some(LedBy {
            address: address.to_owned(),
            claim: claim.parse().ok()?,
        })
    };
    match parse() {
        Some(by) => Ok(Some(by)),
        None => Err(format!("{RELAY}: {value:?}")),
    }
}

/// What a stream begins each of its messages with: their length in bytes, little end first.
const LENGTH_BYTES: usize = 4;

/// One message of a stream.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    let mut framed = BytesMut::with_capacity(LENGTH_BYTES + message.len());
    framed.extend_from_slice(&length.to_le_bytes());
    framed.extend_from_slice(message);
    framed.freeze()
}

/// The messages of a stream, taken from pieces of any size.
#[derive(Debug, Default)]
pub(crate) struct Frames {
    left: BytesMut,
}

/// A message of a stream that is too long to be one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a message of {0} bytes")]
pub(crate) struct TooLong(usize);

impl Frames {
    pub(crate) fn add(&mut self, piece: &[u8]) {
        self.left.extend_from_slice(piece);
    }

    /// The next message that is whole.
    pub(crate) fn next(&mut self) -> Result<Option<Bytes>, TooLong> {
        let Some(length) = self.left.first_chunk::<LENGTH_BYTES>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(TooLong(length));
        }
        if self.left.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        self.left.advance(LENGTH_BYTES);
        Ok(Some(self.left.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_given_an_answer_is_told_or_an_error_and_never_nobody() {
        let by = LedBy {
            address: "control-2.example:7071".to_owned(),
            claim: 42,
        };
        let mut headers = HeaderMap::new();
        assert_eq!(led_by(&headers), Ok(None));
        headers.insert(RELAY, led_by_text(&by).expect("a header"));
        assert_eq!(led_by(&headers), Ok(Some(by)));
        for flawed in ["yes", "a:1 x", ""] {
            headers.insert(RELAY, HeaderValue::from_static(flawed));
            assert!(led_by(&headers).is_err(), "{flawed:?}");
        }
    }

    #[test]
    fn messages_come_back_from_pieces_of_any_size() {
        let messages: [&[u8]; 4] = [b"one", b"", b"three", &[7; 300]];
        let stream: Vec<u8> = messages
            .iter()
            .flat_map(|message| framed(message))
            .collect();
        for size in [1, 2, 3, 5, 100, stream.len()] {
            let mut frames = Frames::default();
            let mut found = Vec::new();
            for piece in stream.chunks(size) {
                frames.add(piece);
                while let Some(message) = frames.next().expect("short ones") {
                    found.push(message);
                }
            }
            assert_eq!(found, messages, "in pieces of {size}");
        }
    }

    #[test]
    fn a_message_that_is_too_long_takes_no_memory() {
        let mut frames = Frames::default();
        frames.add(&[0xff; 8]);
        assert_eq!(frames.next(), Err(TooLong(u32::MAX as usize)));
    }
}
