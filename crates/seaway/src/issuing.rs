//! Makes the certificates by which the processes of a cluster know each other: a CA, and what it issues. It must not know who uses them.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::net::IpAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use link::keys::Named;
use link::process::Process;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType,
};

use crate::links::CA;

/// The key of the CA, in a directory of certificates.
const CA_KEY: &str = "ca.key";
/// Certificates hold from so long before they were issued, since clocks differ.
const BACKDATED: Duration = Duration::from_secs(86_400);
const DAY: Duration = Duration::from_secs(86_400);
/// Who may read a key, and who a certificate.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// What may be written in place of a file that is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Keep,
    Replace,
}

/// A CA with its key, in a directory.
pub struct Ca {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: String,
}

/// What a certificate is to say.
pub struct Wanted {
    pub process: Process,
    /// Names and IP addresses of its machine, for programs that compare them.
    pub hosts: Vec<String>,
    pub days: u32,
}

impl Ca {
    /// Makes a CA, and a directory for it.
    pub fn make(directory: &Path, days: u32, existing: Existing) -> Result<Self> {
        let [certificate_file, key_file] = [CA, CA_KEY].map(|name| directory.join(name));
        if existing == Existing::Keep {
            refuse_existing(
                &[&certificate_file, &key_file],
                "every certificate of this CA has to be issued again then",
            )?;
        }
        fs::create_dir_all(directory)
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let key = KeyPair::generate()?;
        let mut params = of_ca(&key);
        hold(&mut params, days);
        let certificate = params.self_signed(&key)?.pem();
        write(&key_file, &key.serialize_pem(), KEY_MODE)?;
        write(&certificate_file, &certificate, CERTIFICATE_MODE)?;
        Ok(Ca {
            directory: directory.to_owned(),
            issuer: Issuer::new(params, key),
            certificate,
        })
    }

    /// The CA that [`make`](Self::make) left in the directory.
    pub fn read(directory: &Path) -> Result<Self> {
        let read = |name: &str| {
            let path = directory.join(name);
            fs::read_to_string(&path).with_context(|| {
                format!(
                    "cannot read {}: `seaway certs init` makes a CA, and --dir says where it is",
                    path.display()
                )
            })
        };
        let (certificate, key) = (read(CA)?, read(CA_KEY)?);
        let key = KeyPair::from_pem(&key)
            .with_context(|| format!("{}/{CA_KEY} is damaged", directory.display()))?;
        Ok(Ca {
            directory: directory.to_owned(),
            issuer: Issuer::new(of_ca(&key), key),
            certificate,
        })
    }

    /// Issues a certificate and writes it beside the CA; yields its file and that of its key.
    pub fn issue(&self, wanted: &Wanted, existing: Existing) -> Result<(PathBuf, PathBuf)> {
        let name = &wanted.process.name;
        let files = ["pem", "key"].map(|kind| self.directory.join(format!("{name}.{kind}")));
        let [certificate_file, key_file] = &files;
        if files
            .iter()
            .any(|file| file.ends_with(CA) || file.ends_with(CA_KEY))
        {
            bail!("{name} cannot be the name of a process here: its files are those of the CA");
        }
        if existing == Existing::Keep {
            refuse_existing(
                &[certificate_file, key_file],
                "a process that runs takes the new one within seconds",
            )?;
        }
        let key = KeyPair::generate()?;
        let certificate = of_process(wanted)?.signed_by(&key, &self.issuer)?.pem();
        // A CA of another make has another name than is written into what it issues here.
        Named::read(self.certificate.as_bytes(), certificate.as_bytes()).with_context(|| {
            format!(
                "{0}/{CA_KEY} is not the key of {0}/{CA}, or not one that `seaway certs init` has made",
                self.directory.display()
            )
        })?;
        write(key_file, &key.serialize_pem(), KEY_MODE)?;
        write(certificate_file, &certificate, CERTIFICATE_MODE)?;
        let [certificate_file, key_file] = files;
        Ok((certificate_file, key_file))
    }
}

/// A CA by its key alone, which its name is made of: no two have the same.
fn of_ca(key: &KeyPair) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mark = params.key_identifier(key).into_iter().take(4);
    let mark: String = mark.map(|byte| format!("{byte:02x}")).collect();
    params.distinguished_name = named(&format!("Seaway CA {mark}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

fn of_process(wanted: &Wanted) -> Result<CertificateParams> {
    let Wanted {
        process,
        hosts,
        days,
    } = wanted;
    let mut params = CertificateParams::default();
    params.distinguished_name = named(&process.name);
    params
        .subject_alt_names
        .push(SanType::URI(process.uri().try_into()?));
    for host in [&process.name].into_iter().chain(hosts) {
        params.subject_alt_names.push(match host.parse::<IpAddr>() {
            Ok(ip) => SanType::IpAddress(ip),
            Err(_) => SanType::DnsName(host.as_str().try_into()?),
        });
    }
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![
        ExtendedKeyUsagePurpose::ServerAuth,
        ExtendedKeyUsagePurpose::ClientAuth,
    ];
    params.use_authority_key_identifier_extension = true;
    hold(&mut params, *days);
    Ok(params)
}

fn named(name: &str) -> DistinguishedName {
    let mut distinguished = DistinguishedName::new();
    distinguished.push(DnType::CommonName, name);
    distinguished
}

/// Makes it hold for so many days from now.
fn hold(params: &mut CertificateParams, days: u32) {
    let since = Duration::from_millis(host::clock::wall_millis());
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + since.saturating_sub(BACKDATED);
    params.not_after = epoch + since + DAY * days;
}

fn refuse_existing(files: &[&PathBuf], then: &str) -> Result<()> {
    match files.iter().find(|file| file.exists()) {
        Some(file) => bail!(
            "{} is there already; --force replaces it, and {then}",
            file.display()
        ),
        None => Ok(()),
    }
}

/// Writes a file so that nobody reads half of it, nor before it has its mode.
fn write(path: &Path, text: &str, mode: u32) -> Result<()> {
    let mut fresh = path.as_os_str().to_owned();
    fresh.push(".new");
    let write = || -> std::io::Result<()> {
        // What an interrupted run has left may have another mode.
        drop(fs::remove_file(&fresh));
        let mut file: File = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use link::process::Role;

    use super::*;

    fn wanted(name: &str, days: u32) -> Wanted {
        Wanted {
            process: Process {
                role: Role::Agent,
                name: name.to_owned(),
            },
            hosts: vec!["10.0.0.1".to_owned(), "agent-a.example".to_owned()],
            days,
        }
    }

    #[test]
    fn what_is_issued_says_whose_it_is_and_until_when() {
        let home = tempfile::tempdir().expect("a directory");
        Ca::make(home.path(), 3_650, Existing::Keep).expect("a CA");
        // The CA is the same one when it is read again.
        let ca = Ca::read(home.path()).expect("the CA");
        let (file, key) = ca
            .issue(&wanted("agent-a", 90), Existing::Keep)
            .expect("a certificate");
        let certificate = fs::read(&file).expect("its file");
        let found = Named::read(ca.certificate.as_bytes(), &certificate).expect("of this CA");
        assert_eq!(found.process, wanted("agent-a", 90).process);
        assert!((89..=90).contains(&found.days_left()), "{found:?}");
        let mode = |path: &Path| {
            fs::metadata(path)
                .expect("it is there")
                .permissions()
                .mode()
        };
        for key in [key, home.path().join(CA_KEY)] {
            assert_eq!(mode(&key) & 0o777, KEY_MODE, "{}", key.display());
        }
    }

    #[test]
    fn nothing_is_replaced_unasked() {
        let home = tempfile::tempdir().expect("a directory");
        let ca = Ca::make(home.path(), 10, Existing::Keep).expect("a CA");
        let again = Ca::make(home.path(), 10, Existing::Keep)
            .err()
            .expect("there is one");
        assert!(again.to_string().contains("--force"), "{again}");
        ca.issue(&wanted("a", 10), Existing::Keep).expect("issued");
        assert!(ca.issue(&wanted("a", 10), Existing::Keep).is_err());
        ca.issue(&wanted("a", 10), Existing::Replace)
            .expect("replaced");
        // Not even by force is the CA replaced by what it issues.
        assert!(ca.issue(&wanted("ca", 10), Existing::Replace).is_err());
    }

    #[test]
    fn a_key_that_is_not_the_cas_issues_nothing() {
        let home = tempfile::tempdir().expect("a directory");
        let other = tempfile::tempdir().expect("a directory");
        for place in [&home, &other] {
            Ca::make(place.path(), 10, Existing::Keep).expect("a CA");
        }
        fs::copy(other.path().join(CA_KEY), home.path().join(CA_KEY)).expect("exchanged");
        let ca = Ca::read(home.path()).expect("readable");
        let refused = ca
            .issue(&wanted("a", 10), Existing::Keep)
            .expect_err("refused");
        assert!(
            refused.to_string().contains("is not the key of"),
            "{refused}"
        );
    }
}
