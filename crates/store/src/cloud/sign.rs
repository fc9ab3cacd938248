//! S3 signatures for requests to which we add a header. The client library signs before we can add
//! it, and S3 refuses an `x-amz-` header that is not signed: so the library is told not to sign,
//! and this module signs the finished request. It must not know what the requests are for.

use std::fmt;

use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::HttpRequest;

const SERVICE: &str = "s3";

/// Signs with whatever credentials are current.
pub(crate) struct Signer {
    credentials: AwsCredentialProvider,
    region: String,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signer")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// A signer for one region.
    pub(crate) fn new(credentials: AwsCredentialProvider, region: String) -> Self {
        Signer {
            credentials,
            region,
        }
    }

    /// Adds the headers that prove who sends `request` now; its payload is not part of the proof.
    pub(crate) async fn sign(&self, request: &mut HttpRequest) -> object_store::Result<()> {
        let credential = self.credentials.get_credential().await?;
        AwsAuthorizer::new(&credential, SERVICE, &self.region)
            .with_sign_payload(false)
            .try_authorize(request, None)
    }
}
