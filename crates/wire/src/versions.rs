//! Which APIs and versions there are, and what `ApiVersions` says of them.
//!
//! The table itself is generated (`messages::SERVED`): what is not in it is not advertised.

use crate::errors::ErrorCode;
use crate::messages::api_versions::{ApiVersion, ApiVersionsResponse};
use crate::messages::{ApiKey, KNOWN, SERVED};

/// An API and its versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    pub key: ApiKey,
    /// The least version that is understood.
    pub min: i16,
    /// The greatest version that is understood.
    pub max: i16,
    /// The least version that clients are told of. For Produce it is lower than `min`: librdkafka
    /// takes a broker without Produce 0 for an old one and drops compression (KAFKA-18659).
    pub advertised_min: i16,
    /// The first version with compact types and tagged fields (KIP-482), if any.
    pub flexible_from: Option<i16>,
}

impl Api {
    /// Whether a version is understood.
    pub fn has(&self, version: i16) -> bool {
        (self.min..=self.max).contains(&version)
    }

    /// Whether a version has compact types and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible_from.is_some_and(|from| version >= from)
    }
}

impl ApiKey {
    /// The number on the wire.
    pub const fn code(self) -> i16 {
        self as i16
    }

    /// The API of this key.
    pub fn api(self) -> &'static Api {
        static TABLE: [Api; KNOWN.len()] = KNOWN;
        let index = TABLE.binary_search_by_key(&self, |api| api.key);
        &TABLE[index.expect("every key is in the table")]
    }

    /// The API if this server answers it.
    pub fn served(self) -> Option<&'static Api> {
        static TABLE: [Api; SERVED.len()] = SERVED;
        let index = TABLE.binary_search_by_key(&self, |api| api.key).ok()?;
        Some(&TABLE[index])
    }
}

/// The list of APIs for an `ApiVersions` answer; features are the server's to add.
pub fn api_versions() -> ApiVersionsResponse {
    ApiVersionsResponse {
        api_keys: SERVED.iter().map(advertise).collect(),
        ..ApiVersionsResponse::default()
    }
}

/// The answer to an `ApiVersions` request of an unknown version, to be sent as version 0: the error,
/// and the versions of `ApiVersions` itself (KIP-511).
pub fn unsupported_api_versions() -> ApiVersionsResponse {
    ApiVersionsResponse {
        error_code: ErrorCode::UnsupportedVersion.code(),
        api_keys: ApiKey::ApiVersions
            .served()
            .into_iter()
            .map(advertise)
            .collect(),
        ..ApiVersionsResponse::default()
    }
}

fn advertise(api: &Api) -> ApiVersion {
    ApiVersion {
        api_key: api.key.code(),
        min_version: api.advertised_min,
        max_version: api.max,
    }
}

/// Whether a client may call itself, or its version, this (KIP-511); INVALID_REQUEST otherwise.
pub fn is_software_name(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.';
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().last()) else {
        return false;
    };
    first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() && text.bytes().all(inner)
}
