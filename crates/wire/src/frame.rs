//! Frames: four bytes of length, a header, a body.
//!
//! It splits a stream into frames, reads requests and writes responses, and the reverse for clients.
//! It must not know sockets, and keeps no state between frames.
//!
//! Headers: requests of flexible versions have header version 2, others 1; responses 1 and 0, but an
//! `ApiVersions` response always has 0, because a client must read it before it knows versions.

use bytes::{Buf, Bytes, BytesMut};

use crate::codec::{DecodeError, Decoder, EncodeError, Encoder};
use crate::message::{Body, RequestBody};
use crate::messages::{ApiKey, Request, Response};
use crate::rope::Rope;
use crate::text::Str;
use crate::versions::Api;

/// Kafka's `socket.request.max.bytes` by default.
pub const FRAME_BYTES_MAX: usize = 100 << 20;
/// A buffer grows by no more than this at once because of a stated length.
const RESERVE_BYTES: usize = 1 << 20;

/// A length that no frame may have; the connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a frame of {length} bytes; between 0 and {max_bytes} are allowed")]
pub struct FrameError {
    /// The length that the frame states.
    pub length: i32,
    pub max_bytes: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Split {
    /// A whole frame without its length, taken out of the buffer.
    Frame(Bytes),
    /// The frame is incomplete: make room for at least `reserve_bytes` more and read again. That is
    /// bounded by what has come already, so that a large length costs its sender as many bytes.
    More {
        /// Room to make, at least 1.
        reserve_bytes: usize,
    },
}

/// Takes the first frame out of `buffer`; frames longer than `max_bytes` are refused unread.
pub fn split_frame(buffer: &mut BytesMut, max_bytes: usize) -> Result<Split, FrameError> {
    let Some(prefix) = buffer.first_chunk::<4>() else {
        return Ok(Split::More {
            reserve_bytes: 4 - buffer.len(),
        });
    };
    let length = i32::from_be_bytes(*prefix);
    let bytes = usize::try_from(length)
        .ok()
        .filter(|bytes| *bytes <= max_bytes);
    let bytes = bytes.ok_or(FrameError { length, max_bytes })?;
    let missing = (bytes + 4).saturating_sub(buffer.len());
    if missing > 0 {
        let reserve_bytes = missing.min(buffer.len().max(RESERVE_BYTES));
        return Ok(Split::More { reserve_bytes });
    }
    buffer.advance(4);
    Ok(Split::Frame(buffer.split_to(bytes).freeze()))
}

/// The header of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub key: ApiKey,
    /// The version of body and response.
    pub version: i16,
    /// The number that the response repeats.
    pub correlation_id: i32,
    /// The name that the client gives itself.
    pub client_id: Option<Str>,
}

/// Why a frame is not a request that can be served.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// `ApiVersions` in an unknown version. Answer `versions::unsupported_api_versions()` as version 0
    /// and go on: the client tries again.
    #[error("ApiVersions {version} is not known")]
    UnsupportedApiVersions { version: i16, correlation_id: i32 },
    /// An API or a version that is not served. Close the connection, as Kafka does.
    #[error("API {key} version {version} is not served")]
    Unsupported { key: i16, version: i16 },
    /// Not a valid message. Close the connection.
    #[error("a malformed request: {0}")]
    Malformed(#[from] DecodeError),
}

/// Reads a request from a frame without its length. Byte fields are slices of the frame.
pub fn decode_request(frame: &Bytes) -> Result<(RequestHeader, Request), RequestError> {
    let (header, request, _) = decode_request_within(frame, usize::MAX)?;
    Ok((header, request))
}

/// Reads a request as [`decode_request`] does, if what is decoded occupies no more than `bytes_max`
/// bytes beside the frame; the last of the three is how many it does occupy.
pub fn decode_request_within(
    frame: &Bytes,
    bytes_max: usize,
) -> Result<(RequestHeader, Request, usize), RequestError> {
    let mut decoder = Decoder::new(frame, false);
    let d = &mut decoder;
    d.limit_decoded(bytes_max);
    let allowed_bytes = d.decoded_bytes_left();
    let (code, version, correlation_id) = (d.int16()?, d.int16()?, d.int32()?);
    let key = ApiKey::from_code(code);
    let unsupported = RequestError::Unsupported { key: code, version };
    let api = key.and_then(ApiKey::served).ok_or(unsupported)?;
    if !api.has(version) {
        return Err(match api.key {
            ApiKey::ApiVersions => RequestError::UnsupportedApiVersions {
                version,
                correlation_id,
            },
            _ => unsupported,
        });
    }
    let client_id = decode_header_rest(d, api, version)?;
    // Bytes after the body are ignored, as in Kafka: librdkafka 2.16 sends three after a Metadata
    // request of version 13 for all topics.
    let request = Request::decode_body(api.key, d, version).ok_or(unsupported)??;
    let header = RequestHeader {
        key: api.key,
        version,
        correlation_id,
        client_id,
    };
    Ok((header, request, allowed_bytes - d.decoded_bytes_left()))
}

/// The client id is never compact, so that every broker can read it.
fn decode_header_rest(
    d: &mut Decoder<'_>,
    api: &Api,
    version: i16,
) -> Result<Option<Str>, DecodeError> {
    let client_id = d.nullable_string()?;
    d.set_flexible(api.is_flexible(version));
    d.skip_tags()?;
    Ok(client_id)
}

fn has_response_tags(api: &Api, version: i16) -> bool {
    api.is_flexible(version) && api.key != ApiKey::ApiVersions
}

impl Response {
    /// Encodes the whole frame, length included, in the version of the request. Large records
    /// become pieces of the rope, without a copy.
    pub fn encode(&self, correlation_id: i32, version: i16) -> Result<Rope, EncodeError> {
        let api = self.key().api();
        if !api.has(version) {
            return Err(EncodeError::UnsupportedVersion(version));
        }
        let mut e = start_response(api, correlation_id, version);
        self.encode_body(&mut e, version);
        e.finish()
    }
}

fn start_response(api: &Api, correlation_id: i32, version: i16) -> Encoder {
    let mut e = Encoder::new(has_response_tags(api, version));
    e.int32(correlation_id);
    e.tag_count(0);
    e.set_flexible(api.is_flexible(version));
    e
}

/// Encodes any known response, served or not, as `Response::encode` does.
pub fn encode_response<R: RequestBody>(
    response: &R::Response,
    correlation_id: i32,
    version: i16,
) -> Result<Rope, EncodeError> {
    R::check_version(version)?;
    let mut e = start_response(R::KEY.api(), correlation_id, version);
    response.encode_body(&mut e, version);
    e.finish()
}

/// Encodes a client's request: the whole frame, length included.
pub fn encode_request<R: RequestBody>(
    request: &R,
    correlation_id: i32,
    client_id: Option<&Str>,
    version: i16,
) -> Result<Rope, EncodeError> {
    R::check_version(version)?;
    let mut e = Encoder::new(false);
    e.int16(R::KEY.code());
    e.int16(version);
    e.int32(correlation_id);
    e.nullable_string(client_id);
    e.set_flexible(R::KEY.api().is_flexible(version));
    e.tag_count(0);
    request.encode_body(&mut e, version);
    e.finish()
}

/// Decodes the response to a client's request from a frame without its length; yields correlation
/// id and body.
pub fn decode_response<R: RequestBody>(
    frame: &Bytes,
    version: i16,
) -> Result<(i32, R::Response), DecodeError> {
    R::check_version(version).map_err(|_| DecodeError::UnsupportedVersion(version))?;
    let api = R::KEY.api();
    let mut d = Decoder::new(frame, has_response_tags(api, version));
    let correlation_id = d.int32()?;
    d.skip_tags()?;
    d.set_flexible(api.is_flexible(version));
    let response = R::Response::decode_body(&mut d, version)?;
    d.finish()?;
    Ok((correlation_id, response))
}
