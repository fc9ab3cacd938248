//! The notices of one node, as they come. It must not know what they mean.

use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;
use rpc::encoding;
use rpc::notice::Told;

use crate::message::Frames;

/// A stream of notices without even a beat for so long is given up.
pub(crate) const SILENCE: Duration = Duration::from_secs(2);

pub(crate) struct Stream {
    body: Incoming,
    frames: Frames,
}

impl Stream {
    pub(crate) fn of(body: Incoming) -> Self {
        Stream {
            body,
            frames: Frames::default(),
        }
    }

    /// The next message, a beat too; the error says why there is none any more.
    pub(crate) async fn next(&mut self) -> Result<Told, String> {
        loop {
            if let Some(message) = self.frames.next().map_err(|error| error.to_string())? {
                let told = encoding::decode_told(message);
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
