//! How an etcd is believed, and believes: TLS by a CA's file, a certificate of one's own, a name with a password. It must not know
//! where files are kept.

use std::sync::Arc;

use host::net::TcpStream;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::time_provider::TimeProvider;
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::grpc::Failure;

/// HTTP/2, as TLS names it.
const PROTOCOL: &[u8] = b"h2";

/// Why files cannot be used, and which.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// A certificate and its key, as PEM.
#[derive(Clone, Copy, Debug)]
pub struct Own<'a> {
    /// The certificate, then those that lead from it to a CA, if any.
    pub certificate: &'a [u8],
    pub key: &'a [u8],
}

/// A user of etcd's own access control.
#[derive(Clone)]
pub struct User {
    pub name: String,
    pub password: String,
}

/// What a process shows to an etcd, and asks of it; by default nothing, on connections that are not encrypted.
#[derive(Clone, Default)]
pub struct Security {
    pub tls: Option<Tls>,
    pub user: Option<User>,
}

/// Encrypted connections to members whose certificates a CA has issued for their hosts.
#[derive(Clone)]
pub struct Tls(TlsConnector);

/// Time for rustls.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        let since = std::time::Duration::from_millis(host::clock::wall_millis());
        Some(UnixTime::since_unix_epoch(since))
    }
}

impl Tls {
    /// Believes the CAs of `ca`, as PEM; shows `own`, if etcd asks for a certificate.
    pub fn new(ca: &[u8], own: Option<Own<'_>>) -> Result<Self, Refused> {
        let mut roots = RootCertStore::empty();
        for root in certificates(ca, "the CA's file")? {
            let added = roots.add(root);
            added.map_err(|error| Refused(format!("a CA cannot be used: {error}")))?;
        }
        let unusable =
            |error: rustls::Error| Refused(format!("certificate and key cannot be used: {error}"));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_details(provider, Arc::new(WallClock))
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = certificates(own.certificate, "the certificate's file")?;
                let key = PrivateKeyDer::from_pem_slice(own.key).map_err(|error| {
                    Refused(format!(
                        "the key's file holds no private key in PEM: {error}"
                    ))
                })?;
                builder
                    .with_client_auth_cert(chain, key)
                    .map_err(unusable)?
            }
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    /// Begins with a member, host:port.
    pub(crate) async fn begin(
        &self,
        address: &str,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Failure> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let host = ServerName::try_from(host.to_owned());
        let host = host.map_err(|error| Failure::Refused(error.to_string()))?;
        let begun = self.0.connect(host, stream).await;
        begun.map_err(|error| Failure::Silent(format!("TLS: {error}")))
    }
}

/// The certificates of a file, at least one.
fn certificates(pem: &[u8], file: &str) -> Result<Vec<CertificateDer<'static>>, Refused> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(Refused(format!("{file} holds no certificate in PEM")))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(Refused(format!("{file} is damaged: {error}"))),
    }
}
