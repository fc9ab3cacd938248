//! By what a process shows who it is, and by what it knows others: a certificate with its key, and the CAs that are believed. They are
//! read from PEM, and can be exchanged while the process runs. It must not know where they are kept.

use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::ClientCertVerifier;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{CertificateError, ClientConfig, Error, RootCertStore, ServerConfig};
use tokio::sync::watch;

use crate::process::{Process, Role};
use crate::verify::{self, Called};

/// HTTP/2, as TLS names it.
const PROTOCOL: &[u8] = b"h2";
const DAY_S: u64 = 86_400;

/// Why certificates and keys cannot be used, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

/// Certificates and a key as files have them.
#[derive(Clone, Copy, Debug)]
pub struct Pem<'a> {
    /// The CAs whose certificates are believed, one or several.
    pub ca: &'a [u8],
    /// The certificate of the process, then those that lead from it to a CA, if any.
    pub certificate: &'a [u8],
    pub key: &'a [u8],
}

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    pub process: Process,
    /// The second since 1970 up to which it holds.
    pub expires_s: u64,
}

/// A certificate with its key, and the CAs that are believed, ready for use.
pub struct Credentials {
    named: Named,
    to_control: Arc<ClientConfig>,
    to_agents: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    trust: Trust,
}

/// Who is believed.
struct Trust {
    control: Arc<Called>,
    agents: Arc<Called>,
    callers: Arc<dyn ClientCertVerifier>,
}

/// The other end of a connection.
pub(crate) struct Peer {
    /// Its certificate, then those that lead to a CA.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// What it was called as; `None` if it has called.
    pub(crate) called_as: Option<Role>,
    /// When its certificate was found to hold.
    pub(crate) since: UnixTime,
}

/// The credentials in force, shared by all connections of a process.
#[derive(Clone)]
pub struct Keys {
    current: Arc<watch::Sender<Arc<Credentials>>>,
}

/// How a process talks to others.
#[derive(Clone)]
pub enum Security {
    /// Unencrypted: whoever reaches it is believed.
    Plaintext,
    Tls(Keys),
}

/// Time for rustls.
#[derive(Debug)]
struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(now())
    }
}

pub(crate) fn now() -> UnixTime {
    let since = Duration::from_millis(host::clock::wall_millis());
    UnixTime::since_unix_epoch(since)
}

impl Named {
    /// Whole days until the certificate expires, negative once it has.
    pub fn days_left(&self) -> i64 {
        let now = now().as_secs();
        let days = |seconds: u64| i64::try_from(seconds / DAY_S).unwrap_or(i64::MAX);
        if self.expires_s >= now {
            days(self.expires_s - now)
        } else {
            -1 - days(now - self.expires_s)
        }
    }

    /// Reads a certificate that a CA has issued, whether it has expired or not.
    pub fn read(ca: &[u8], certificate: &[u8]) -> Result<Self, Refused> {
        let chain = certificates(certificate, "the certificate's file")?;
        Trust::read(ca, &provider())?.named(&chain)
    }
}

impl Credentials {
    /// Reads what `process` is to show, if it can be used now.
    pub fn read(process: &Process, pem: &Pem<'_>) -> Result<Self, Refused> {
        let provider = provider();
        let trust = Trust::read(pem.ca, &provider)?;
        let chain = certificates(pem.certificate, "the certificate's file")?;
        let named = trust.named(&chain)?;
        if named.process != *process {
            return Err(Refused(format!(
                "the certificate is that of {}, and this is {process}: issue one with `seaway certs issue --role {} --name {}`",
                named.process,
                process.role.word(),
                process.name
            )));
        }
        trust.check_own(&chain, process.role)?;
        let key = PrivateKeyDer::from_pem_slice(pem.key).map_err(|error| {
            Refused(format!(
                "the key's file holds no private key in PEM: {error}"
            ))
        })?;
        let unusable = |error: Error| match error {
            Error::InconsistentKeys(_) => Refused(
                "the key is not the certificate's: take both from one `seaway certs issue`"
                    .to_owned(),
            ),
            error => Refused(format!("certificate and key cannot be used: {error}")),
        };
        let clock: Arc<dyn TimeProvider> = Arc::new(WallClock);
        let client = |called: &Arc<Called>| {
            let builder =
                ClientConfig::builder_with_details(Arc::clone(&provider), Arc::clone(&clock))
                    .with_protocol_versions(&[&TLS13])
                    .map_err(unusable)?
                    .dangerous()
                    .with_custom_certificate_verifier(Arc::<Called>::clone(called))
                    .with_client_auth_cert(chain.clone(), key.clone_key());
            let mut client = builder.map_err(unusable)?;
            client.alpn_protocols = vec![PROTOCOL.to_vec()];
            client.enable_sni = false;
            // A session that goes on would pass by the check of the certificates.
            client.resumption = Resumption::disabled();
            Ok::<_, Refused>(Arc::new(client))
        };
        let (to_control, to_agents) = (client(&trust.control)?, client(&trust.agents)?);
        let server = ServerConfig::builder_with_details(provider, clock)
            .with_protocol_versions(&[&TLS13])
            .map_err(unusable)?
            .with_client_cert_verifier(Arc::clone(&trust.callers))
            .with_single_cert(chain, key);
        let mut server = server.map_err(unusable)?;
        server.alpn_protocols = vec![PROTOCOL.to_vec()];
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        Ok(Credentials {
            named,
            to_control,
            to_agents,
            server: Arc::new(server),
            trust,
        })
    }
}

impl Credentials {
    /// How a process of a role is called.
    pub(crate) fn client_to(&self, role: Role) -> &Arc<ClientConfig> {
        match role {
            Role::Control => &self.to_control,
            Role::Agent => &self.to_agents,
        }
    }
}

impl Trust {
    fn read(ca: &[u8], provider: &Arc<CryptoProvider>) -> Result<Self, Refused> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(ca, "the CA's file")? {
            roots
                .add(certificate)
                .map_err(|error| Refused(format!("the CA's file holds no CA: {error}")))?;
        }
        let roots = Arc::new(roots);
        let called = |role| Arc::new(Called::new(role, Arc::clone(&roots), provider));
        let (control, agents) = (called(Role::Control), called(Role::Agent));
        let callers = verify::callers(roots, Arc::clone(provider)).map_err(Refused)?;
        Ok(Trust {
            control,
            agents,
            callers,
        })
    }

    /// What a certificate of one of the CAs says.
    fn named(&self, chain: &[CertificateDer<'_>]) -> Result<Named, Refused> {
        let Some(process) = verify::process(&chain[0]) else {
            return Err(Refused(
                "the certificate names no process: it needs the URI seaway://control/NAME or seaway://agent/NAME among its alternative \
                 names, as `seaway certs issue` makes it"
                    .to_owned(),
            ));
        };
        let check = |at_s: u64| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(at_s));
            self.callers.verify_client_cert(&chain[0], &chain[1..], at)
        };
        // What is checked at the end of time is first of all found to have expired, and when. A CA on the way may expire sooner.
        let mut expires_s = u64::MAX;
        for _ in 0..=chain.len() {
            match check(expires_s) {
                Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                    not_after,
                    ..
                })) if not_after.as_secs() < expires_s => expires_s = not_after.as_secs(),
                Err(error) => return Err(unfit(&error)),
                Ok(_) => return Ok(Named { process, expires_s }),
            }
        }
        Err(Refused(
            "the certificate and those after it never hold at one time".to_owned(),
        ))
    }

    /// Refuses an own certificate that the others would refuse.
    fn check_own(&self, chain: &[CertificateDer<'_>], role: Role) -> Result<(), Refused> {
        let (leaf, intermediates) = (&chain[0], &chain[1..]);
        let called = self
            .callers
            .verify_client_cert(leaf, intermediates, now())
            .map(drop);
        let answered = self.called(role).verify(leaf, intermediates, now());
        called.and(answered).map_err(|error| unfit(&error))
    }

    fn believes(&self, peer: &Peer) -> bool {
        let Some((leaf, intermediates)) = peer.chain.split_first() else {
            return false;
        };
        // A certificate that has expired meanwhile ends no connection (docs/security.md).
        let checked = match peer.called_as {
            None => self
                .callers
                .verify_client_cert(leaf, intermediates, peer.since)
                .map(drop),
            Some(role) => self.called(role).verify(leaf, intermediates, peer.since),
        };
        checked.is_ok()
    }

    fn called(&self, role: Role) -> &Called {
        match role {
            Role::Control => &self.control,
            Role::Agent => &self.agents,
        }
    }
}

/// Why a certificate of one's own is of no use.
fn unfit(error: &Error) -> Refused {
    Refused(match error {
        Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature,
        ) => "the certificate is of another CA than that of the CA's file: issue it with `seaway certs issue` in the directory of this \
             cluster's CA"
            .to_owned(),
        Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => "the certificate has expired: issue another with `seaway certs issue ... --force`; or this machine's clock is wrong".to_owned(),
        Error::InvalidCertificate(
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. },
        ) => "the certificate does not hold yet: this machine's clock is wrong, or that of the one on which it was issued".to_owned(),
        error => format!("the certificate cannot be used: {error}"),
    })
}

impl Keys {
    pub fn new(credentials: Credentials) -> Self {
        let (current, _) = watch::channel(Arc::new(credentials));
        Keys {
            current: Arc::new(current),
        }
    }

    /// Puts others in force. New connections are made by them; those that stand go on, unless their other end's certificate is not of a CA
    /// that is believed now.
    pub fn replace(&self, credentials: Credentials) {
        self.current.send_replace(Arc::new(credentials));
    }

    /// What the certificate in force says.
    pub fn named(&self) -> Named {
        self.current().named.clone()
    }

    pub(crate) fn current(&self) -> Arc<Credentials> {
        Arc::clone(&self.current.borrow())
    }

    /// Waits until the other end is not believed any more.
    pub(crate) async fn disbelieved(&self, peer: &Peer) {
        let mut changes = self.current.subscribe();
        while changes.borrow_and_update().trust.believes(peer) {
            if changes.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
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
