//! `seaway certs`: makes the certificates by which the processes of a cluster know each other.

use std::path::PathBuf;

use anyhow::{Context, Result};
use link::keys::Named;
use link::process::{Process, Role};

use crate::address::{NodeName, check_host};
use crate::issuing::{Ca, Existing, Wanted};
use crate::links::CA;
use crate::output::say;

/// For how long a CA holds, in days: certificates are issued again every year, a CA once in a long while.
const CA_DAYS: u32 = 3_650;
const CERTIFICATE_DAYS: u32 = 365;
/// The most days that are taken: a hundred years.
const DAYS_MAX: i64 = 36_500;

#[derive(clap::Subcommand)]
pub enum Verb {
    /// Make the CA of a cluster: ca.pem, which every process is given, and ca.key, which stays where certificates are issued.
    Init {
        #[command(flatten)]
        place: Place,
        /// For how many days it holds.
        #[arg(long, value_name = "DAYS", default_value_t = CA_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: u32,
        /// Replace a CA that is there.
        #[arg(long)]
        force: bool,
    },
    /// Issue the certificate of a process: NAME.pem and NAME.key, beside the CA.
    Issue {
        #[command(flatten)]
        place: Place,
        /// What the process does: control or agent.
        #[arg(long, value_name = "ROLE")]
        role: Role,
        /// The name of the process, as its --name.
        #[arg(long, value_name = "NAME")]
        name: NodeName,
        /// Names and IP addresses of its machine. Seaway does not compare them; other programs may.
        #[arg(long, value_name = "HOST", value_delimiter = ',', value_parser = host)]
        address: Vec<String>,
        /// For how many days it holds.
        #[arg(long, value_name = "DAYS", default_value_t = CERTIFICATE_DAYS, value_parser = clap::value_parser!(u32).range(1..=DAYS_MAX))]
        days: u32,
        /// Replace a certificate that is there. A process that runs takes the new one within seconds.
        #[arg(long)]
        force: bool,
    },
    /// List the certificates of a directory: whose they are, and for how many days they hold.
    Show {
        #[command(flatten)]
        place: Place,
    },
}

#[derive(clap::Args)]
pub struct Place {
    /// Directory of the CA and of what it issues.
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
}

pub fn run(verb: Verb) -> Result<()> {
    match verb {
        Verb::Init { place, days, force } => {
            Ca::make(&place.dir, days, existing(force))?;
            say!(
                "{0}/{CA} and its key were made; keep the key where nobody else reads it, and give every process ca.pem",
                place.dir.display()
            );
            Ok(())
        }
        Verb::Issue {
            place,
            role,
            name,
            address,
            days,
            force,
        } => {
            let process = Process { role, name: name.0 };
            let wanted = Wanted {
                process,
                hosts: address,
                days,
            };
            let (certificate, key) = Ca::read(&place.dir)?.issue(&wanted, existing(force))?;
            let (certificate, key) = (certificate.display(), key.display());
            say!(
                "{certificate} and {key} were made for {}, for {days} days",
                wanted.process
            );
            Ok(())
        }
        Verb::Show { place } => show(&place),
    }
}

fn existing(force: bool) -> Existing {
    if force {
        Existing::Replace
    } else {
        Existing::Keep
    }
}

fn host(text: &str) -> Result<String, String> {
    check_host(text).map(|()| text.to_owned())
}

fn show(place: &Place) -> Result<()> {
    let shown = place.dir.display();
    let read = |path: &PathBuf| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let ca = read(&place.dir.join(CA))?;
    let listed = std::fs::read_dir(&place.dir).with_context(|| format!("cannot read {shown}"))?;
    let listed: Result<Vec<PathBuf>, _> = listed.map(|entry| Ok(entry?.path())).collect();
    let mut files = listed.map_err(|error: std::io::Error| error)?;
    files.retain(|path| path.extension().is_some_and(|kind| kind == "pem") && !path.ends_with(CA));
    files.sort();
    for path in files {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        match Named::read(&ca, &read(&path)?) {
            Ok(named) => match named.days_left() {
                days @ 0.. => say!(
                    "{file:24}  {:24}  {days} days left",
                    named.process.to_string()
                ),
                _ => say!("{file:24}  {:24}  has expired", named.process.to_string()),
            },
            Err(refused) => say!("{file:24}  {refused}"),
        }
    }
    Ok(())
}
