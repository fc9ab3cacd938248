//! Where a cluster's journal is, as its control nodes are told: in its buckets, or in an etcd. It must not know how it is reached.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use etcd::location::Location;
use etcd::security::{Own, Security, Tls, User};

/// A certificate, key or password is some KiB; a longer file is another one.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Flags of a control node. Nothing else speaks with the journal.
#[derive(clap::Args)]
pub struct Arguments {
    /// Where the cluster's journal is, if not in its bucket: etcd://HOST:PORT,HOST:PORT,HOST:PORT/PREFIX. All control nodes name the
    /// same, from the cluster's first start on.
    #[arg(long, value_name = "URL")]
    journal: Option<String>,
    /// Speak with etcd by TLS: the certificates of the CAs that are believed.
    #[arg(long, value_name = "FILE", requires = "journal")]
    journal_ca: Option<PathBuf>,
    /// The certificate that is shown to etcd.
    #[arg(long, value_name = "FILE", requires_all = ["journal_ca", "journal_key"])]
    journal_cert: Option<PathBuf>,
    /// The key of that certificate.
    #[arg(long, value_name = "FILE", requires = "journal_cert")]
    journal_key: Option<PathBuf>,
    /// The name by which etcd knows this cluster, if its access control is on.
    #[arg(long, value_name = "NAME", requires_all = ["journal", "journal_password_file"])]
    journal_user: Option<String>,
    /// A file with the password of that name.
    #[arg(long, value_name = "FILE", requires = "journal_user")]
    journal_password_file: Option<PathBuf>,
}

/// Where a cluster's journal is.
pub enum Journal {
    /// In its bucket, or in its three buckets.
    Buckets,
    Etcd(Box<Place>),
}

/// An etcd, and how to speak with it.
pub struct Place {
    pub location: Location,
    pub security: Security,
}

impl Journal {
    /// How a bucket's marker says that the journal is not there.
    pub fn word(&self) -> Option<&'static str> {
        match self {
            Journal::Buckets => None,
            Journal::Etcd(_) => Some(ETCD),
        }
    }
}

/// The word of a journal in an etcd.
pub const ETCD: &str = "etcd";

impl Arguments {
    /// Reads what the flags name.
    pub fn open(&self) -> Result<Journal> {
        let Some(url) = &self.journal else {
            return Ok(Journal::Buckets);
        };
        let location = location(url)?;
        let security = Security {
            tls: self.tls()?,
            user: self.user()?,
        };
        Ok(Journal::Etcd(Box::new(Place { location, security })))
    }

    fn tls(&self) -> Result<Option<Tls>> {
        let Some(ca) = &self.journal_ca else {
            return Ok(None);
        };
        let ca = read(ca, "--journal-ca")?;
        let own = match (&self.journal_cert, &self.journal_key) {
            (Some(certificate), Some(key)) => Some((
                read(certificate, "--journal-cert")?,
                read(key, "--journal-key")?,
            )),
            _ => None,
        };
        let own = own
            .as_ref()
            .map(|(certificate, key)| Own { certificate, key });
        let tls = Tls::new(&ca, own).context("--journal-ca, --journal-cert, --journal-key")?;
        Ok(Some(tls))
    }

    fn user(&self) -> Result<Option<User>> {
        let (Some(name), Some(file)) = (&self.journal_user, &self.journal_password_file) else {
            return Ok(None);
        };
        let password = String::from_utf8(read(file, "--journal-password-file")?);
        let password = password.context("--journal-password-file is not text")?;
        Ok(Some(User {
            name: name.clone(),
            password: password.trim_end_matches(['\r', '\n']).to_owned(),
        }))
    }
}

/// The etcd that `--journal` names.
pub fn location(url: &str) -> Result<Location> {
    Location::parse(url).context("--journal")
}

fn read(file: &Path, flag: &str) -> Result<Vec<u8>> {
    let context = || format!("{flag} {}", file.display());
    let length = std::fs::metadata(file).with_context(context)?.len();
    if length > FILE_BYTES_MAX {
        anyhow::bail!("{}: it is longer than 1 MiB: name another", context());
    }
    std::fs::read(file).with_context(context)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        journal: Arguments,
    }

    fn open(arguments: &[&str]) -> Result<Journal> {
        let given = [&["control"], arguments].concat();
        Program::try_parse_from(given)?.journal.open()
    }

    #[test]
    fn a_journal_is_in_the_bucket_unless_an_etcd_is_named() {
        assert!(matches!(open(&[]), Ok(Journal::Buckets)));
        let journal = open(&["--journal", "etcd://a,b:7/x"]).expect("an etcd");
        assert_eq!(journal.word(), Some("etcd"));
        let Journal::Etcd(place) = journal else {
            panic!("it is no etcd");
        };
        assert_eq!(place.location.to_string(), "etcd://a:2379,b:7/x");
        assert!(place.security.tls.is_none() && place.security.user.is_none());
    }

    #[test]
    fn a_password_is_a_files_first_line_and_none_of_the_flags_stands_alone() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("password");
        std::fs::write(&file, "secret\n").expect("a file");
        let file = file.to_str().expect("its name is text");
        let etcd = ["--journal", "etcd://a"];
        let user = ["--journal-user", "me", "--journal-password-file", file];
        let journal = open(&[&etcd[..], &user].concat()).expect("an etcd");
        let Journal::Etcd(place) = journal else {
            panic!("it is no etcd");
        };
        let found = place.security.user.expect("a user");
        assert_eq!((&*found.name, &*found.password), ("me", "secret"));
        for alone in [&["--journal-ca", file][..], &user, &user[..2], &user[2..]] {
            assert!(open(alone).is_err(), "{alone:?}");
        }
        let no_pem = open(&[&etcd[..], &["--journal-ca", file]].concat());
        assert!(format!("{:#}", no_pem.map(drop).expect_err("no PEM")).contains("--journal-ca"));
        let gone = open(&[&etcd[..], &["--journal-ca", "/nowhere"]].concat());
        assert!(format!("{:#}", gone.map(drop).expect_err("gone")).contains("/nowhere"));
    }
}
