//! How a process of several talks to the others: the flags that say it, and the certificate files, which are read again when they change. It must
//! not know what is said.

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use host::log_limit::LogLimit;
use link::keys::{Credentials, Keys, Named, Pem, Security};
use link::process::Process;

/// How often the files are looked at. What has changed is taken once two looks saw the same, since files are written one after the other.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// With fewer days left the log warns that the certificate expires.
const WARN_DAYS: i64 = 30;
const WARN_EVERY: Duration = Duration::from_secs(86_400);
/// The certificates of the CAs that are believed, in a directory of certificates.
pub const CA: &str = "ca.pem";

/// Flags of an agent and of a control node. They are encrypted to each other unless the operator says otherwise.
#[derive(clap::Args)]
pub struct Arguments {
    /// Directory with the certificates by which the processes of the cluster know each other: ca.pem, NAME.pem and NAME.key, as `seaway certs
    /// issue` writes them. They are read again when they change.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["tls_ca", "tls_cert", "tls_key", "plaintext_links"])]
    tls_dir: Option<PathBuf>,
    /// In place of --tls-dir: the certificates of the CAs that are believed.
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,
    /// In place of --tls-dir: the certificate of this process.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// In place of --tls-dir: the key of that certificate.
    #[arg(long, value_name = "FILE", requires = "tls_ca")]
    tls_key: Option<PathBuf>,
    /// Encrypt nothing between the processes of the cluster, and believe whoever connects. Only where nobody else reaches their network.
    #[arg(long, conflicts_with_all = ["tls_ca", "tls_cert", "tls_key"])]
    plaintext_links: bool,
}

/// How a process talks to the others of its cluster.
#[derive(Clone)]
pub enum Links {
    Plaintext,
    Tls(Arc<Certificates>),
}

impl Arguments {
    /// Reads what the flags name.
    pub fn open(&self, process: Process) -> Result<Links> {
        let files = match (&self.tls_dir, &self.tls_ca, &self.tls_cert, &self.tls_key) {
            (Some(directory), ..) => Files {
                ca: directory.join(CA),
                certificate: directory.join(format!("{}.pem", process.name)),
                key: directory.join(format!("{}.key", process.name)),
            },
            (None, Some(ca), Some(certificate), Some(key)) => Files {
                ca: ca.clone(),
                certificate: certificate.clone(),
                key: key.clone(),
            },
            _ if self.plaintext_links => {
                tracing::warn!(
                    "nothing is encrypted between this process and the others of the cluster, and whoever connects is believed (--plaintext-links)"
                );
                return Ok(Links::Plaintext);
            }
            _ => bail!(
                "the processes of a cluster know each other by certificates: make them with `seaway certs init` and `seaway certs issue --role {} --name \
                 {}`, and name their directory with --tls-dir DIR; where nobody else reaches the network, --plaintext-links does without",
                process.role.word(),
                process.name
            ),
        };
        Ok(Links::Tls(Arc::new(Certificates::open(files, process)?)))
    }
}

impl Links {
    pub fn security(&self) -> Security {
        match self {
            Links::Plaintext => Security::Plaintext,
            Links::Tls(certificates) => Security::Tls(certificates.keys.clone()),
        }
    }
}

/// Where certificates and key are kept.
struct Files {
    ca: PathBuf,
    certificate: PathBuf,
    key: PathBuf,
}

/// What the files held.
#[derive(Clone, PartialEq, Eq)]
struct Read {
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

/// The certificate files of a process, and what of them is in force.
pub struct Certificates {
    process: Process,
    files: Files,
    keys: Keys,
    /// What the files hold now or held last.
    seen: Mutex<Seen>,
}

struct Seen {
    /// What was judged last: it is in force, unless there is an obstacle.
    judged: Option<Read>,
    /// What the last look saw.
    last: Option<Read>,
    /// Why what the files hold now is not in force.
    obstacle: Option<String>,
}

impl Files {
    fn read(&self) -> Result<Read> {
        let read = |path: &Path| {
            std::fs::read(path).with_context(|| {
                format!(
                    "cannot read {}; `seaway certs issue` makes it, and --tls-dir says where it is",
                    path.display()
                )
            })
        };
        Ok(Read {
            ca: read(&self.ca)?,
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }

    fn judge(&self, process: &Process, read: &Read) -> Result<Credentials> {
        let pem = Pem {
            ca: &read.ca,
            certificate: &read.certificate,
            key: &read.key,
        };
        Credentials::read(process, &pem)
            .with_context(|| format!("{} and its key", self.certificate.display()))
    }
}

impl Certificates {
    fn open(files: Files, process: Process) -> Result<Self> {
        let read = files.read()?;
        let keys = Keys::new(files.judge(&process, &read)?);
        let seen = Seen {
            judged: Some(read.clone()),
            last: Some(read),
            obstacle: None,
        };
        Ok(Certificates {
            process,
            files,
            keys,
            seen: Mutex::new(seen),
        })
    }

    /// What the certificate in force says.
    pub fn named(&self) -> Named {
        self.keys.named()
    }

    /// Why what the files hold now is not in force; `None` if it is.
    pub fn obstacle(&self) -> Option<String> {
        self.seen().obstacle.clone()
    }

    /// Puts in force what the files hold whenever they change, for ever.
    pub async fn keep_fresh(self: Arc<Self>) -> Infallible {
        let expiry = LogLimit::every(WARN_EVERY);
        loop {
            let days = self.named().days_left();
            if days < WARN_DAYS && expiry.pass(host::clock::now()).is_some() {
                tracing::warn!(
                    days,
                    file = %self.files.certificate.display(),
                    "the certificate of this process expires in so many days; after that no new connection can be made: issue another with `seaway certs issue ... --force`"
                );
            }
            host::clock::sleep(LOOK_EVERY).await;
            let looking = Arc::clone(&self);
            host::task::spawn_blocking(move || looking.look()).await;
        }
    }

    /// One look at the files.
    fn look(&self) {
        let read = match self.files.read() {
            Ok(read) => Some(read),
            Err(error) => return self.cannot_use(None, format!("{error:#}")),
        };
        {
            let mut seen = self.seen();
            let is_settled = seen.last == read;
            seen.last.clone_from(&read);
            // What does not hold yet may hold now.
            if !is_settled || seen.judged == read && seen.obstacle.is_none() {
                return;
            }
        }
        let Some(read) = read else {
            return;
        };
        match self.files.judge(&self.process, &read) {
            Ok(credentials) => {
                self.keys.replace(credentials);
                let days = self.named().days_left();
                tracing::info!(days, file = %self.files.certificate.display(), "another certificate is in force, for so many days");
                let mut seen = self.seen();
                seen.judged = Some(read);
                seen.obstacle = None;
            }
            Err(error) => self.cannot_use(Some(read), format!("{error:#}")),
        }
    }

    fn cannot_use(&self, read: Option<Read>, why: String) {
        let mut seen = self.seen();
        let is_known = seen.obstacle.as_ref() == Some(&why);
        seen.judged = read;
        if !is_known {
            tracing::warn!(
                why,
                "the certificate files cannot be used; those that were read before stay in force"
            );
            seen.obstacle = Some(why);
        }
    }

    fn seen(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use link::process::Role;

    use super::*;
    use crate::issuing::{Ca, Existing, Wanted};

    fn agent(name: &str) -> Process {
        Process {
            role: Role::Agent,
            name: name.to_owned(),
        }
    }

    fn issue(directory: &Path, days: u32) {
        let wanted = Wanted {
            process: agent("a"),
            hosts: Vec::new(),
            days,
        };
        let ca = Ca::read(directory).expect("the CA");
        ca.issue(&wanted, Existing::Replace).expect("issued");
    }

    fn open(directory: &Path) -> Result<Links> {
        let arguments = Arguments {
            tls_dir: Some(directory.to_owned()),
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            plaintext_links: false,
        };
        arguments.open(agent("a"))
    }

    fn opened(directory: &Path) -> Arc<Certificates> {
        match open(directory).expect("good files") {
            Links::Tls(certificates) => certificates,
            Links::Plaintext => panic!("certificates were named"),
        }
    }

    fn directory() -> tempfile::TempDir {
        let home = tempfile::tempdir().expect("a directory");
        Ca::make(home.path(), 3_650, Existing::Keep).expect("a CA");
        issue(home.path(), 50);
        home
    }

    #[test]
    fn a_certificate_that_is_issued_again_is_taken_and_a_bad_one_is_not() {
        let home = directory();
        let certificates = opened(home.path());
        let is_for = |days: i64| (days - 1..=days).contains(&certificates.named().days_left());
        certificates.look();
        assert!(is_for(50));
        issue(home.path(), 90);
        certificates.look();
        assert!(is_for(50), "it may be written half so far");
        certificates.look();
        assert!(is_for(90));
        assert_eq!(certificates.obstacle(), None);
        // The key of another certificate.
        let key = home.path().join("a.key");
        let old = std::fs::read(&key).expect("the key");
        std::fs::copy(home.path().join("ca.key"), &key).expect("exchanged");
        certificates.look();
        assert_eq!(certificates.obstacle(), None);
        certificates.look();
        let why = certificates.obstacle().expect("refused");
        assert!(why.contains("the key is not the certificate's"), "{why}");
        assert!(is_for(90));
        // No file at all, then the right ones again.
        std::fs::remove_file(&key).expect("removed");
        certificates.look();
        let why = certificates.obstacle().expect("refused");
        assert!(why.contains("cannot read"), "{why}");
        std::fs::write(&key, old).expect("restored");
        certificates.look();
        certificates.look();
        assert_eq!(certificates.obstacle(), None);
    }

    #[test]
    fn a_start_with_what_nobody_would_believe_is_refused_with_what_to_do() {
        let home = directory();
        let other = directory();
        std::fs::copy(other.path().join(CA), home.path().join(CA)).expect("exchanged");
        let why = format!("{:#}", open(home.path()).err().expect("refused"));
        assert!(why.contains("a.pem") && why.contains("another CA"), "{why}");
        let none = tempfile::tempdir().expect("a directory");
        let why = format!("{:#}", open(none.path()).err().expect("refused"));
        assert!(why.contains("seaway certs issue"), "{why}");
    }

    #[test]
    fn a_process_without_certificates_starts_only_if_its_operator_says_so() {
        let mut arguments = Arguments {
            tls_dir: None,
            tls_ca: None,
            tls_cert: None,
            tls_key: None,
            plaintext_links: false,
        };
        let why = format!("{:#}", arguments.open(agent("a")).err().expect("refused"));
        assert!(
            why.contains("--tls-dir") && why.contains("--plaintext-links"),
            "{why}"
        );
        arguments.plaintext_links = true;
        assert!(matches!(arguments.open(agent("a")), Ok(Links::Plaintext)));
    }
}
