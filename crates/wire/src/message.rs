//! What all messages have in common.
//!
//! It must not know any single message.

use crate::codec::{DecodeError, Decoder, EncodeError, Encoder};
use crate::messages::ApiKey;

/// The body of a request or a response. Fields that a version lacks are not written, and read as
/// their defaults.
pub trait Body: Sized {
    /// Reads a body in a version that its API has.
    fn decode_body(d: &mut Decoder<'_>, version: i16) -> Result<Self, DecodeError>;
    /// Writes the body in a version that its API has.
    fn encode_body(&self, e: &mut Encoder, version: i16);
}

/// The body of a request; it names its API and its answer.
pub trait RequestBody: Body {
    const KEY: ApiKey;
    type Response: Body;

    /// Refuses versions that the API does not have.
    fn check_version(version: i16) -> Result<(), EncodeError> {
        let api = Self::KEY.api();
        if (api.min..=api.max).contains(&version) {
            return Ok(());
        }
        Err(EncodeError::UnsupportedVersion(version))
    }
}
