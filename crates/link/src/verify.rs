//! Checks the certificates of others: who has issued them, until when they hold, and what process they name. At which address a
//! process is reached is not asked: a control node may move, and every one may answer everything.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};

use crate::process::{Process, Role};

/// The certificate of whoever answers is not that of a process of the role that was called.
#[derive(Debug, thiserror::Error)]
enum WrongRole {
    #[error(
        "its certificate is {0}: a control node needs one that was issued with --role control, and an address of control nodes must \
         lead to one"
    )]
    NoControlNode(String),
    #[error("its certificate is {0}: an agent needs one that was issued with --role agent")]
    NoAgent(String),
}

/// The process that a certificate names; `None` if it names none.
pub(crate) fn process(certificate: &CertificateDer<'_>) -> Option<Process> {
    let parsed = webpki::EndEntityCert::try_from(certificate).ok()?;
    parsed.valid_uri_names().find_map(Process::of_uri)
}

/// Accepts, of those who are called, the processes of one role, as their certificate says it.
#[derive(Debug)]
pub(crate) struct Called {
    role: Role,
    roots: Arc<RootCertStore>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl Called {
    pub(crate) fn new(role: Role, roots: Arc<RootCertStore>, provider: &CryptoProvider) -> Self {
        Called {
            role,
            roots,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<(), Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        match process(leaf) {
            Some(process) if process.role == self.role => Ok(()),
            named => {
                let whose = named.map_or_else(
                    || "of no process of Seaway".to_owned(),
                    |process| format!("that of {process}"),
                );
                let why = match self.role {
                    Role::Control => WrongRole::NoControlNode(whose),
                    Role::Agent => WrongRole::NoAgent(whose),
                };
                let why = OtherError(Arc::new(why));
                Err(CertificateError::Other(why).into())
            }
        }
    }
}

impl ServerCertVerifier for Called {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verify(leaf, intermediates, now)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Accepts as callers those that show a certificate of a CA; which process one names is checked with each request.
pub(crate) fn callers(
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    WebPkiClientVerifier::builder_with_provider(roots, provider)
        .build()
        .map_err(|error| error.to_string())
}
