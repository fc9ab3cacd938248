//! What one node tells, notices or how the journal grows, as it comes. It must not know what that means.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use rpc::encoding::Malformed;

use crate::message::Frames;

/// A stream without even a beat for so long is given up: four beats.
pub(crate) const SILENCE: Duration = Duration::from_secs(1);

pub(crate) struct Stream<T> {
    body: Incoming,
    frames: Frames,
    decode: fn(Bytes) -> Result<T, Malformed>,
}

impl<T> Stream<T> {
    /// The messages of `body`, each of which `decode` can read.
    pub(crate) fn of(body: Incoming, decode: fn(Bytes) -> Result<T, Malformed>) -> Self {
        Stream {
            body,
            frames: Frames::default(),
            decode,
        }
    }

    /// The next message, a beat too; the error says why there is none any more.
    pub(crate) async fn next(&mut self) -> Result<T, String> {
        loop {
            if let Some(message) = self.frames.next().map_err(|error| error.to_string())? {
                let told = (self.decode)(message);
                return told.map_err(|malformed| malformed.to_string());
            }
            let frame = host::clock::timeout(SILENCE, self.body.frame()).await;
            match frame {
                Err(_) => return Err("it is silent".to_owned()),
                Ok(None) => return Err("it ended".to_owned()),
                Ok(Some(Err(error))) => return Err(error.to_string()),
                Ok(Some(Ok(frame))) => {
                    if let Some(piece) = frame.data_ref() {
                        self.frames.add(piece);
                    }
                }
            }
        }
    }
}
