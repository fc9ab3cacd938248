//! From a URL to a bucket. It must not know what the bucket is for.
//!
//! ```text
//! DIR, file:///DIR         a local directory
//! mem:                     this process's memory
//! s3://BUCKET[/PREFIX]     S3 and what speaks it; ?endpoint=URL&region=NAME&allow_http=true ...
//! gs://BUCKET[/PREFIX]     Google Cloud Storage
//! az://CONTAINER[/PREFIX]  Azure Blob Storage; ?account=NAME
//! ```
//! Credentials never stand in a URL: they come from the environment, as each cloud's tools take
//! them, or from the machine's identity.

use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey, Checksum};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{BackoffConfig, ClientConfigKey, ClientOptions, RetryConfig};

use crate::bucket::{self, Bucket};
use crate::cloud::http::is_true;
use crate::cloud::sign::Signer;
use crate::cloud::witness::Connector;
use crate::cloud::{Client, Cloud};
use crate::directory::Directory;
use crate::memory::Memory;

mod check;
mod url;

use url::{Parameters, Url};

/// Why a URL names no bucket that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the bucket {bucket:?} cannot be opened: {why}")]
pub struct Error {
    bucket: String,
    why: String,
}

/// How to reach a bucket, beside its URL.
#[derive(Clone, Debug)]
pub struct Options {
    /// The longest that one request may take, a body of any size included. When a request is given
    /// up is decided by `hedge`, which is to come first.
    pub request_timeout: Duration,
    pub connect_timeout: Duration,
    /// Environment variables in which credentials and cloud settings are looked for.
    pub environment: Vec<(String, String)>,
}

impl Options {
    /// This process's environment, and timeouts beyond those of `hedge`, which waits for an upload as
    /// long as its bytes move.
    pub fn from_environment() -> Self {
        let variables = std::env::vars_os().filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let clouds = ["AWS_", "GOOGLE_", "AZURE_"];
            let wanted = clouds.iter().any(|cloud| name.starts_with(cloud));
            wanted.then_some((name, value.into_string().ok()?))
        });
        Options {
            request_timeout: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(3),
            environment: variables.collect(),
        }
    }
}

/// Opens the bucket that `url` names. A local directory is created if it is missing; a cloud is not
/// asked anything yet, so this works while the bucket is away.
pub async fn open(url: &str, options: &Options) -> Result<Arc<dyn Bucket>, Error> {
    let url = Url::parse(url).map_err(|detail| refuse(url, detail))?;
    match url {
        Url::Memory => Ok(Arc::new(Memory::new())),
        Url::Directory(path) => {
            let shown = path.to_string_lossy().into_owned();
            let opened = host::task::spawn_blocking(move || Directory::open(path)).await;
            Ok(Arc::new(
                opened.map_err(|error| refuse(&shown, cause(error)))?,
            ))
        }
        Url::Cloud {
            scheme,
            bucket,
            prefix,
            parameters,
        } => {
            let name = format!("{scheme}://{bucket}");
            let cloud = match scheme.as_str() {
                "s3" => s3(&bucket, prefix, parameters, options),
                "gs" => gcs(&bucket, parameters, options).map(|gcs| Cloud::new(gcs, prefix)),
                _ => azure(&bucket, parameters, options).map(|azure| Cloud::new(azure, prefix)),
            };
            Ok(Arc::new(cloud.map_err(|detail| refuse(&name, detail))?))
        }
    }
}

fn refuse(bucket: &str, why: String) -> Error {
    Error {
        bucket: bucket.to_owned(),
        why,
    }
}

/// An error's text without the request in which it showed.
fn cause(error: bucket::Error) -> String {
    match error {
        bucket::Error::Definite { detail, .. }
        | bucket::Error::Unknown { detail, .. }
        | bucket::Error::Throttled { detail, .. } => detail,
    }
}

fn s3(
    bucket: &str,
    prefix: String,
    mut given: Parameters,
    options: &Options,
) -> Result<Cloud, String> {
    let mut builder = AmazonS3Builder::new()
        .with_client_options(client_options(options))
        .with_retry(no_retries())
        .with_http_connector(Connector::default());
    for (name, value) in variables("AWS_", options) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AmazonS3ConfigKey>() {
            check::variable(name, value)?;
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(bucket);
    if let Some(endpoint) = given.endpoint()? {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = given.take("region") {
        check::name("the region", &region)?;
        builder = builder.with_region(region);
    }
    if given.flag("allow_http")? {
        builder = builder.with_allow_http(true);
    }
    let allow_http = AmazonS3ConfigKey::Client(ClientConfigKey::AllowHttp);
    let endpoint = builder.get_config_value(&AmazonS3ConfigKey::Endpoint);
    if endpoint.is_some_and(|endpoint| endpoint.starts_with("http:"))
        && !is_set(&builder, allow_http)
    {
        return Err("an endpoint without TLS needs allow_http=true".to_owned());
    }
    if given.flag("virtual_hosted_style")? {
        builder = builder.with_virtual_hosted_style_request(true);
    }
    if given.flag("skip_signature")? {
        builder = builder.with_skip_signature(true);
    }
    // The payload is not signed: hashing it costs ten times what the upload itself does. A CRC that
    // the store checks on arrival protects it as well, and TLS does against malice.
    builder = builder.with_unsigned_payload(true);
    let checksum = given.take("checksum");
    given.end("endpoint, region, allow_http, virtual_hosted_style, skip_signature, checksum")?;
    // Objects are deleted one by one: not every store that speaks S3 has the bulk call.
    builder = builder.with_config(AmazonS3ConfigKey::DisableBulkDelete, "true");
    let (builder, is_known) = checksummed(builder, checksum.as_deref())?;
    let client = builder.build().map_err(|error| error.to_string())?;
    let cloud = Cloud::new(Arc::new(client), prefix);
    Ok(if is_known {
        cloud.with_checksums()
    } else {
        cloud
    })
}

/// Sets the builder to the configured checksum for uploads; true if that is the CRC-32C that
/// payloads know already.
fn checksummed(
    builder: AmazonS3Builder,
    checksum: Option<&str>,
) -> Result<(AmazonS3Builder, bool), String> {
    match checksum {
        None if is_unusual(&builder) => {
            let builder = builder.with_checksum_algorithm(Checksum::CRC64NVME);
            Ok((builder, false))
        }
        Some("crc32c") if is_unusual(&builder) => Err(
            "checksum=crc32c does not go with AWS_S3_EXPRESS or AWS_REQUEST_PAYER: leave \
                 checksum out"
                .to_owned(),
        ),
        None | Some("crc32c") => {
            let builder = signed_last(builder).map_err(|error| error.to_string())?;
            Ok((builder, true))
        }
        Some("crc64nvme") => Ok((builder.with_checksum_algorithm(Checksum::CRC64NVME), false)),
        Some("sha256") => Ok((builder.with_checksum_algorithm(Checksum::SHA256), false)),
        Some("none") => Ok((builder, false)),
        Some(other) => Err(format!(
            "checksum={other} is unknown: crc32c (the default), crc64nvme, sha256 and none \
                 are possible"
        )),
    }
}

fn is_set(builder: &AmazonS3Builder, key: AmazonS3ConfigKey) -> bool {
    is_true(&builder.get_config_value(&key).unwrap_or_default())
}

/// True if the library's requests need more than a plain signature, so that we cannot sign them.
fn is_unusual(builder: &AmazonS3Builder) -> bool {
    let unusual = [
        AmazonS3ConfigKey::S3Express,
        AmazonS3ConfigKey::RequestPayer,
    ];
    unusual.into_iter().any(|key| is_set(builder, key))
}

/// The same client, except that requests are signed once all their headers are there, with the
/// credentials that the library finds.
fn signed_last(builder: AmazonS3Builder) -> object_store::Result<AmazonS3Builder> {
    if is_set(&builder, AmazonS3ConfigKey::SkipSignature) {
        return Ok(builder);
    }
    let region = builder.get_config_value(&AmazonS3ConfigKey::Region);
    let region = region.unwrap_or_else(|| "us-east-1".to_owned());
    let credentials = Arc::clone(builder.clone().build()?.credentials());
    let connector = Connector::signing(Signer::new(credentials, region));
    Ok(builder
        .with_skip_signature(true)
        .with_http_connector(connector))
}

fn gcs(bucket: &str, mut given: Parameters, options: &Options) -> Result<Arc<dyn Client>, String> {
    let mut builder = GoogleCloudStorageBuilder::new()
        .with_client_options(client_options(options))
        .with_retry(no_retries())
        .with_http_connector(Connector::default());
    for (name, value) in variables("GOOGLE_", options) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<GoogleConfigKey>() {
            check::variable(name, value)?;
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_bucket_name(bucket);
    if let Some(endpoint) = given.endpoint()? {
        builder = builder.with_config(GoogleConfigKey::BaseUrl, endpoint);
    }
    if given.flag("allow_http")? {
        let key = GoogleConfigKey::Client(ClientConfigKey::AllowHttp);
        builder = builder.with_config(key, "true");
    }
    if given.flag("skip_signature")? {
        builder = builder.with_skip_signature(true);
    }
    given.end("endpoint, allow_http, skip_signature")?;
    let built = builder.build().map_err(|error| error.to_string())?;
    Ok(Arc::new(built))
}

fn azure(
    container: &str,
    mut given: Parameters,
    options: &Options,
) -> Result<Arc<dyn Client>, String> {
    let mut builder = MicrosoftAzureBuilder::new()
        .with_client_options(client_options(options))
        .with_retry(no_retries())
        .with_http_connector(Connector::default());
    for (name, value) in variables("AZURE_", options) {
        if let Ok(key) = name.to_ascii_lowercase().parse::<AzureConfigKey>() {
            check::variable(name, value)?;
            builder = builder.with_config(key, value);
        }
    }
    builder = builder.with_container_name(container);
    if let Some(account) = given.take("account") {
        check::name("the account", &account)?;
        builder = builder.with_account(account);
    }
    if let Some(endpoint) = given.endpoint()? {
        builder = builder.with_endpoint(endpoint);
    }
    if given.flag("allow_http")? {
        builder = builder.with_allow_http(true);
    }
    if given.flag("skip_signature")? {
        builder = builder.with_skip_signature(true);
    }
    given.end("account, endpoint, allow_http, skip_signature")?;
    let built = builder.build().map_err(|error| error.to_string())?;
    Ok(Arc::new(built))
}

/// The environment variables that concern one cloud.
fn variables<'a>(cloud: &'a str, options: &'a Options) -> impl Iterator<Item = (&'a str, &'a str)> {
    let all = options.environment.iter();
    all.map(|(name, value)| (name.as_str(), value.as_str()))
        .filter(move |(name, _)| name.starts_with(cloud))
}

fn client_options(options: &Options) -> ClientOptions {
    ClientOptions::new()
        .with_timeout(options.request_timeout)
        .with_connect_timeout(options.connect_timeout)
}

/// Turns the library's retries off: only the caller knows what may be repeated, and for how long.
fn no_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refused(url: &str) -> String {
        let mut options = Options::from_environment();
        options.environment.clear();
        match open(url, &options).await {
            Ok(_) => panic!("{url} was opened"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn what_cannot_be_opened_is_refused_with_what_can() {
        for (url, hint) in [
            ("ftp://x/y", "s3://"),
            ("s3:bucket", "s3://"),
            ("s3://", "name"),
            ("s3://b?endpont=x", "endpoint, region"),
            ("s3://b?checksum=md5", "crc32c"),
            ("s3://b?endpoint=http://127.0.0.1:1", "allow_http=true"),
            ("s3://b?allow_http=maybe", "true or false"),
            ("s3://b?region=eu&region=us", "twice"),
            ("s3://b/a//c", "prefix"),
            ("s3://b/a%20c", "prefix"),
            ("az://c?endpoint=%zz", "percent"),
            ("file://host/dir", "file:///"),
            ("s3://b?endpoint=127.0.0.1:9000", "http://HOST:PORT"),
            ("gs://b?endpoint=minio", "http://HOST:PORT"),
            ("az://b?endpoint=&account=a", "http://HOST:PORT"),
            ("s3://b?endpoint=ftp://h", "http://HOST:PORT"),
            ("s3://b?region=a b", "region"),
            ("az://b?account=a b", "account"),
            ("s3://b b", "bucket"),
            ("gs://bk%ZZ", "bucket"),
            ("az://Bücket", "bucket"),
            ("mem:x", "mem:"),
            ("", "directory"),
        ] {
            let error = refused(url).await;
            assert!(error.contains(hint), "{url}: {error}");
            let named = url.split('?').next().unwrap_or_default();
            let named = named.split("/a/").next().unwrap_or_default();
            assert!(error.contains(named), "{url}: {error}");
            assert!(!error.contains("head"), "{url}: {error}");
        }
    }

    #[tokio::test]
    async fn what_stands_in_the_environment_is_looked_at_too() {
        for (url, name) in [
            ("s3://b", "AWS_ACCESS_KEY_ID"),
            ("gs://b", "GOOGLE_BASE_URL"),
            ("az://b", "AZURE_STORAGE_SAS_TOKEN"),
        ] {
            let mut options = Options::from_environment();
            options.environment = vec![(name.to_owned(), "x\n".to_owned())];
            let refused = open(url, &options).await.err().expect("refused");
            assert!(refused.to_string().contains(name), "{refused}");
        }
    }

    #[tokio::test]
    async fn a_file_of_credentials_that_cannot_be_sent_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("token");
        let mut options = Options::from_environment();
        let name = "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE";
        options.environment = vec![(name.to_owned(), file.to_string_lossy().into_owned())];
        assert!(open("s3://b", &options).await.is_ok(), "it may come later");
        for (content, is_fine) in [("hush", true), ("hush\n", false), ("hush\u{1}", false)] {
            std::fs::write(&file, content).unwrap();
            let opened = open("s3://b", &options).await;
            assert_eq!(opened.is_ok(), is_fine, "{content:?}");
            if let Err(refused) = opened.map(drop) {
                let refused = refused.to_string();
                assert!(
                    refused.contains(name) && !refused.contains("hush"),
                    "{refused}"
                );
            }
        }
    }

    /// Settings that pass every check and of which the client library can still build no request.
    #[tokio::test]
    async fn what_no_request_can_be_built_of_fails_and_ends_nothing() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("token");
        let mut options = Options::from_environment();
        let full = "AWS_CONTAINER_CREDENTIALS_FULL_URI";
        options.environment = vec![
            (full.to_owned(), "http://127.0.0.1:9".to_owned()),
            (
                "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE".to_owned(),
                file.to_string_lossy().into_owned(),
            ),
        ];
        let bucket = open("s3://b", &options).await.unwrap();
        std::fs::write(&file, "hush\n").unwrap();
        let key = bucket::Key::new("a").unwrap();
        let failed = bucket.get(&key).await.expect_err("no credentials");
        assert!(matches!(failed, bucket::Error::Definite { .. }), "{failed}");
        assert!(
            failed.to_string().contains("files that they name"),
            "{failed}"
        );
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_made_is_named_with_the_cause() {
        let error = refused("/dev/null/bucket").await;
        let expected = "the bucket \"/dev/null/bucket\" cannot be opened: cannot create the \
                        directory: Not a directory";
        assert!(error.starts_with(expected), "{error}");
    }

    #[tokio::test]
    async fn clouds_are_opened_without_being_asked() {
        let mut options = Options::from_environment();
        options.environment = vec![
            ("AWS_ACCESS_KEY_ID".into(), "id".into()),
            ("AWS_SECRET_ACCESS_KEY".into(), "secret".into()),
        ];
        for url in [
            "mem:",
            "s3://bucket",
            "s3://bucket/some/prefix?region=eu-central-1",
            "s3://bucket?endpoint=http://127.0.0.1:9000&allow_http=true&skip_signature=true",
            "gs://bucket/p?skip_signature=true",
            "az://container?account=a&skip_signature=true",
        ] {
            let opened = open(url, &options).await;
            assert!(opened.is_ok(), "{url}: {:?}", opened.err());
        }
    }
}
