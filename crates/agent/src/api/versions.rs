//! ApiVersions. It must not know which versions are served: `wire` does.

use wire::errors::ErrorCode;
use wire::messages::api_versions::{ApiVersionsRequest, ApiVersionsResponse};
use wire::versions::is_software_name;

/// From this version on clients state their name and version (KIP-511).
const NAMES_SINCE: i16 = 3;

pub(crate) fn api_versions(request: &ApiVersionsRequest, version: i16) -> ApiVersionsResponse {
    let is_named = is_software_name(&request.client_software_name)
        && is_software_name(&request.client_software_version);
    if version >= NAMES_SINCE && !is_named {
        return ApiVersionsResponse {
            error_code: ErrorCode::InvalidRequest.code(),
            ..ApiVersionsResponse::default()
        };
    }
    wire::versions::api_versions()
}
