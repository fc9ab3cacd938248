//! How a call looks in HTTP/2, as gRPC has it: a message behind its length, and a status that comes last. It must not know what is
//! called.

use bytes::{BufMut, Bytes, BytesMut};
use hyper::header::HeaderMap;
use prost::Message;

/// What stands before a message: whether it is compressed, and its length.
const HEAD_BYTES: usize = 5;

/// gRPC's names for how a call ended, as far as they are told apart.
const OK: u32 = 0;
const INVALID_ARGUMENT: u32 = 3;
const PERMISSION_DENIED: u32 = 7;
const RESOURCE_EXHAUSTED: u32 = 8;
const FAILED_PRECONDITION: u32 = 9;
const OUT_OF_RANGE: u32 = 11;
const UNIMPLEMENTED: u32 = 12;
const UNAUTHENTICATED: u32 = 16;

/// What etcd says to a caller without a login, and when a login is of no use any more: users or roles have changed since.
const NO_LOGIN: [&str; 2] = ["user name is empty", "revision of auth store is old"];
/// What it says of a revision that is compacted.
const COMPACTED: &str = "revision has been compacted";
/// What it says when it is as full as its operator allows.
const FULL: &str = "database space exceeded";

/// Why a call has no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// It may have had an effect or not; another member may answer, or the same one soon.
    Silent(String),
    /// etcd refuses it, as any other member would.
    Refused(String),
    /// The login is not known, or not any more.
    LoggedOut(String),
    /// The answer is longer than the caller takes.
    TooLong,
    /// The revision that is named is compacted already.
    Past,
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Failure::Silent(why) | Failure::Refused(why) | Failure::LoggedOut(why) => {
                f.write_str(why)
            }
            Failure::TooLong => f.write_str("the answer is too long"),
            Failure::Past => f.write_str("it is compacted already"),
        }
    }
}

/// A message as the body of a request.
pub(crate) fn body(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEAD_BYTES + length);
    out.put_u8(0);
    out.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message
        .encode(&mut out)
        .expect("a buffer that grows has room");
    out.freeze()
}

/// The message of an answer's body.
pub(crate) fn message(body: &Bytes) -> Result<Bytes, Failure> {
    let strange = |why: &str| Failure::Silent(format!("its answer is not gRPC's: {why}"));
    let Some((head, rest)) = body.split_first_chunk::<HEAD_BYTES>() else {
        return Err(strange("it is cut off"));
    };
    let [compressed, length @ ..] = *head;
    if compressed != 0 {
        return Err(strange("it is compressed"));
    }
    if rest.len() != u32::from_be_bytes(length) as usize {
        return Err(strange("its length is another"));
    }
    Ok(body.slice(HEAD_BYTES..))
}

/// How the call ended, by the headers that say so; `None` if none of them do.
pub(crate) fn status(headers: &HeaderMap) -> Option<Result<(), Failure>> {
    let code = headers.get("grpc-status")?;
    let code = code.to_str().ok().and_then(|digits| digits.parse().ok());
    let why = headers.get("grpc-message").map(|text| text.as_bytes());
    let why = decoded(why.unwrap_or_default());
    Some(match code {
        Some(OK) => Ok(()),
        Some(code) => Err(failure(code, why)),
        None => Err(Failure::Silent("its answer has no status".to_owned())),
    })
}

fn failure(code: u32, why: String) -> Failure {
    match code {
        UNAUTHENTICATED => Failure::LoggedOut(why),
        INVALID_ARGUMENT if NO_LOGIN.iter().any(|said| why.contains(said)) => {
            Failure::LoggedOut(why)
        }
        OUT_OF_RANGE if why.contains(COMPACTED) => Failure::Past,
        RESOURCE_EXHAUSTED if why.contains(FULL) => Failure::Refused(format!(
            "{why}: compact it, `etcdctl defrag` each member, then `etcdctl alarm disarm`; or raise its --quota-backend-bytes"
        )),
        INVALID_ARGUMENT | PERMISSION_DENIED | FAILED_PRECONDITION | OUT_OF_RANGE
        | UNIMPLEMENTED => Failure::Refused(why),
        // Too many requests, among others: it may pass.
        _ => Failure::Silent(why),
    }
}

/// A status's text, in which gRPC writes some bytes as `%` and two hex digits.
fn decoded(text: &[u8]) -> String {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        let hex = after.get(..2).and_then(|hex| std::str::from_utf8(hex).ok());
        let escaped = hex.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match escaped {
            Some(escaped) if *byte == b'%' => {
                out.push(escaped);
                rest = &after[2..];
            }
            _ => {
                out.push(*byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;
    use crate::proto::CompactionRequest;

    #[test]
    fn a_message_is_read_back_and_what_is_cut_off_is_none() {
        let request = CompactionRequest { revision: 300 };
        let whole = body(&request);
        assert_eq!(whole[..HEAD_BYTES], [0, 0, 0, 0, 3]);
        let read = CompactionRequest::decode(message(&whole).expect("it is whole"));
        assert_eq!(read, Ok(request));
        for end in 0..whole.len() {
            assert!(message(&whole.slice(..end)).is_err(), "cut at {end}");
        }
        let mut compressed = whole.to_vec();
        compressed[0] = 1;
        assert!(message(&compressed.into()).is_err());
    }

    fn ended(code: &'static str, why: &'static str) -> Option<Result<(), Failure>> {
        let mut headers = HeaderMap::new();
        headers.insert("grpc-status", HeaderValue::from_static(code));
        headers.insert("grpc-message", HeaderValue::from_static(why));
        status(&headers)
    }

    #[test]
    fn a_status_says_whether_to_ask_again() {
        assert_eq!(status(&HeaderMap::new()), None);
        assert_eq!(ended("0", ""), Some(Ok(())));
        let silent = |why: &str| Some(Err(Failure::Silent(why.to_owned())));
        assert_eq!(ended("14", "no%20leader%"), silent("no leader%"));
        assert_eq!(ended("8", "too many requests"), silent("too many requests"));
        assert_eq!(ended("x", ""), silent("its answer has no status"));
        let refused = |ended| matches!(ended, Some(Err(Failure::Refused(_))));
        assert!(refused(ended("3", "request is too large")));
        assert!(refused(ended("8", "mvcc: database space exceeded")));
        let compacted = "etcdserver: mvcc: required revision has been compacted";
        assert_eq!(ended("11", compacted), Some(Err(Failure::Past)));
        let logged_out = |ended| matches!(ended, Some(Err(Failure::LoggedOut(_))));
        assert!(logged_out(ended("16", "invalid auth token")));
        assert!(logged_out(ended("3", "revision of auth store is old")));
        assert!(logged_out(ended("3", "user name is empty")));
    }
}
