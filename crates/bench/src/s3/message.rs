//! Requests taken apart, answers and S3's errors, as values. It must not know how any request is answered.

use bytes::Bytes;
use http::{HeaderMap, Method, Response, StatusCode};

use super::body::{Dropped, Frames};
use super::faults::Kind;
use super::objects::{Condition, Refusal};

pub(super) type Answer = Result<Response<Frames>, Dropped>;

/// A request, taken apart.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) bucket: String,
    pub(super) key: String,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: HeaderMap,
    pub(super) method: Method,
    pub(super) frames: Vec<Bytes>,
}

impl Request {
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(given, _)| given == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    pub(super) fn kind(&self) -> Kind {
        match self.method {
            Method::HEAD => Kind::Head,
            Method::GET if self.key.is_empty() => Kind::List,
            Method::GET => Kind::Get,
            Method::DELETE if self.parameter("uploadId").is_none() => Kind::Delete,
            Method::POST if self.parameter("delete").is_some() => Kind::Delete,
            _ => Kind::Put,
        }
    }

    /// What the headers demand of a write; an error for what no client of ours sends.
    pub(super) fn condition(&self) -> Result<Condition, Error> {
        match (self.header("if-none-match"), self.header("if-match")) {
            (None, None) => Ok(Condition::None),
            (Some("*"), None) => Ok(Condition::Absent),
            (None, Some(etag)) => Ok(Condition::Matches(etag.trim_matches('"').to_owned())),
            // A quoted asterisk among them: some stores take it for an ETag and overwrite.
            _ => Err(Error::NOT_IMPLEMENTED),
        }
    }
}

/// An error as S3 words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Error {
    pub(super) status: u16,
    pub(super) code: &'static str,
}

impl Error {
    pub(super) const NO_SUCH_KEY: Error = Error::new(404, "NoSuchKey");
    pub(super) const NO_SUCH_UPLOAD: Error = Error::new(404, "NoSuchUpload");
    pub(super) const NOT_IMPLEMENTED: Error = Error::new(501, "NotImplemented");
    pub(super) const MALFORMED: Error = Error::new(400, "MalformedXML");
    pub(super) const NO_SUCH_BUCKET: Error = Error::new(404, "NoSuchBucket");
    pub(super) const PRECONDITION: Error = Error::new(412, "PreconditionFailed");
    pub(super) const RANGE: Error = Error::new(416, "InvalidRange");
    pub(super) const FULL: Error = Error::new(507, "InsufficientStorage");
    pub(super) const BAD_DIGEST: Error = Error::new(400, "BadDigest");

    pub(super) const fn new(status: u16, code: &'static str) -> Self {
        Error { status, code }
    }

    pub(super) fn answer(self) -> Answer {
        let code = self.code;
        let text = format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
             <Error><Code>{code}</Code><Message>{code}</Message></Error>"
        );
        respond(
            self.status,
            &[("content-type", "application/xml")],
            Frames::text(text),
        )
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Precondition => Error::PRECONDITION,
            Refusal::Missing => Error::NO_SUCH_KEY,
            Refusal::Full => Error::FULL,
        }
    }
}

/// An answer with headers.
pub(super) fn respond(status: u16, headers: &[(&str, &str)], body: Frames) -> Answer {
    let mut builder = Response::builder()
        .status(StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR))
        .header("x-amz-request-id", "bench");
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    builder.body(body).map_err(|_| Dropped)
}
