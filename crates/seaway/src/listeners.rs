//! Where a node listens for Kafka clients and where they are told to connect, out of the texts that say so: Kafka's
//! `listeners` and `advertised.listeners`, and `listener.zones`. It must not know sockets, nor where the texts come from.

use std::collections::BTreeMap;

use agent::settings::Listener;
use anyhow::{Result, anyhow, bail};
use meta::level::Levels;

use crate::address::{Address, check_reachable};

pub const LISTENERS: &str = "listeners";
pub const ADVERTISED_HOST: &str = "advertised.host";
pub const ADVERTISED_PORT: &str = "advertised.port";
pub const ADVERTISED_LISTENERS: &str = "advertised.listeners";
const ZONES: &str = "listener.zones";
/// What ends a client's zone in its `client.id` (docs/routes.md).
const ENDS_ZONE: [char; 4] = [',', ';', ' ', '&'];

/// Names that in Kafka stand for listeners with TLS or SASL.
const SECURED: [&str; 3] = ["SSL", "SASL_PLAINTEXT", "SASL_SSL"];
/// What an address without a host means.
const EVERY_ADDRESS: &str = "0.0.0.0";

/// What an operator says of listeners, setting by setting; what he does not say is empty, or 0.
#[derive(Clone, Copy, Default)]
pub struct Said<'a> {
    pub listeners: &'a str,
    pub advertised_listeners: &'a str,
    pub zones: &'a str,
    pub advertised_host: &'a str,
    pub advertised_port: u16,
}

/// A listener, and where it is to listen.
#[derive(Debug)]
pub struct Planned {
    pub bind: Address,
    pub listener: Listener,
}

impl Planned {
    /// True if clients would be told an address that nobody chose: they cannot connect to "every
    /// address".
    pub fn advertises_guess(&self) -> bool {
        let is_every = self.bind.ip().is_some_and(|ip| ip.is_unspecified());
        self.listener.advertised_host.is_none() && is_every
    }
}

/// All listeners, in the order in which they are said.
pub fn plan(said: Said<'_>) -> Result<Vec<Planned>> {
    let binds = named(LISTENERS, said.listeners)?;
    let most = Levels::KNOWN.newest().listeners_max;
    if binds.is_empty() || binds.len() > most {
        bail!("{LISTENERS}: there must be between 1 and {most}, written as PLAINTEXT://HOST:PORT");
    }
    let mut advertised: BTreeMap<String, Address> =
        named(ADVERTISED_LISTENERS, said.advertised_listeners)?
            .into_iter()
            .collect();
    let mut zones = zones(said.zones)?;
    for name in advertised.keys().chain(zones.keys()) {
        if !binds.iter().any(|(bound, _)| bound == name) {
            bail!("{ADVERTISED_LISTENERS} and {ZONES}: {name} is not among the {LISTENERS}");
        }
    }
    add_single(said, &binds, &mut advertised)?;
    let planned = binds.into_iter().map(|(name, bind)| {
        let told = advertised.remove(&name);
        let (host, port) = told.map_or((String::new(), 0), |told| (told.host, told.port));
        // As in Kafka, clients are told the name, since its address may change.
        let own = bind.ip().is_none().then(|| bind.host.clone());
        let host = Some(host).filter(|host| !host.is_empty());
        let listener = Listener {
            zone: zones.remove(&name),
            name,
            advertised_host: host.or(own),
            advertised_port: (port != 0).then_some(port),
        };
        Planned { bind, listener }
    });
    Ok(planned.collect())
}

/// Adds what `advertised.host` and `advertised.port` say, which are for a node with one listener.
fn add_single(
    said: Said<'_>,
    binds: &[(String, Address)],
    advertised: &mut BTreeMap<String, Address>,
) -> Result<()> {
    let (host, port) = (said.advertised_host.to_owned(), said.advertised_port);
    if host.is_empty() && port == 0 {
        return Ok(());
    }
    let [(name, _)] = binds else {
        bail!(
            "{ADVERTISED_HOST} and {ADVERTISED_PORT} are for a node with one listener; write {ADVERTISED_LISTENERS} instead"
        );
    };
    if advertised
        .insert(name.clone(), Address { host, port })
        .is_some()
    {
        bail!(
            "{ADVERTISED_LISTENERS} and {ADVERTISED_HOST} or {ADVERTISED_PORT} say the same; give one of them"
        );
    }
    Ok(())
}

/// The listeners that a setting names, as `NAME://HOST:PORT` with commas between them, with their addresses.
fn named(setting: &str, text: &str) -> Result<Vec<(String, Address)>> {
    let mut all: Vec<(String, Address)> = Vec::new();
    for part in parts(text) {
        let (name, address) =
            parse(part, setting).map_err(|why| anyhow!("{setting}={part}: {why}"))?;
        if all.iter().any(|(other, _)| *other == name) {
            bail!("{setting}: {name} is there twice");
        }
        if address.port != 0 && all.iter().any(|(_, other)| *other == address) {
            bail!("{setting}: two are at {address}");
        }
        all.push((name, address));
    }
    Ok(all)
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    let parts = text.split(',').map(str::trim);
    parts.filter(|part| !part.is_empty())
}

fn parse(part: &str, setting: &str) -> Result<(String, Address), String> {
    let (name, address) = part
        .split_once("://")
        .ok_or("write it as PLAINTEXT://HOST:PORT, or with a name of your own")?;
    let name = checked_name(name)?;
    let is_advertised = setting == ADVERTISED_LISTENERS;
    let address = match address.strip_prefix(':') {
        Some(port) if !is_advertised => format!("{EVERY_ADDRESS}:{port}"),
        _ => address.to_owned(),
    };
    let address: Address = address.parse()?;
    if is_advertised {
        check_reachable(&address.host)?;
    }
    let most = Levels::KNOWN.newest().texts.name_bytes_max;
    let longest = name.len().max(address.host.len());
    if longest > most {
        return Err(format!(
            "it has a name of {longest} bytes, of which {most} are allowed"
        ));
    }
    Ok((name, address))
}

/// The name of a listener as Kafka compares it.
fn checked_name(name: &str) -> Result<String, String> {
    let name = name.to_ascii_uppercase();
    let is_word = |letter: char| letter.is_ascii_alphanumeric() || "_-.".contains(letter);
    if name.is_empty() || !name.chars().all(is_word) {
        return Err("a listener's name has letters, digits, _, - and .".to_owned());
    }
    if SECURED.contains(&name.as_str()) {
        return Err(format!(
            "{name} is not served yet; write it as PLAINTEXT://HOST:PORT, or with a name of your own"
        ));
    }
    Ok(name)
}

/// The zones of listeners, written as `NAME:ZONE` with commas between them.
fn zones(text: &str) -> Result<BTreeMap<String, String>> {
    let mut zones = BTreeMap::new();
    for part in parts(text) {
        let pair = part.split_once(':').filter(|(_, zone)| !zone.is_empty());
        let Some((name, zone)) = pair else {
            bail!("{ZONES}={part}: write it as NAME:ZONE");
        };
        let name = checked_name(name).map_err(|why| anyhow!("{ZONES}={part}: {why}"))?;
        check_zone(zone).map_err(|why| anyhow!("{ZONES}={part}: {why}"))?;
        if zones.insert(name, zone.to_owned()).is_some() {
            bail!("{ZONES}={part}: the listener has a zone already");
        }
    }
    Ok(zones)
}

/// Refuses a zone that no client could name in its client id.
pub fn check_zone(zone: &str) -> Result<(), String> {
    match zone.chars().find(|c| ENDS_ZONE.contains(c)) {
        Some(ends) => Err(format!(
            "{ends:?} cannot be in a zone, since it ends one in a client.id"
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is said by these settings.
    fn said<'a>(set: &[&'a str]) -> Said<'a> {
        let mut said = Said {
            listeners: "PLAINTEXT://127.0.0.1:9092",
            ..Said::default()
        };
        for one in set {
            let (name, value) = one.split_once('=').expect("a name and a value");
            match name {
                LISTENERS => said.listeners = value,
                ADVERTISED_LISTENERS => said.advertised_listeners = value,
                ZONES => said.zones = value,
                ADVERTISED_HOST => said.advertised_host = value,
                _ => said.advertised_port = value.parse().expect("a port"),
            }
        }
        said
    }

    fn shown(set: &[&str]) -> Vec<String> {
        let planned = plan(said(set)).expect("valid listeners");
        let line = |planned: &Planned| {
            let Listener {
                name,
                zone,
                advertised_host,
                advertised_port,
            } = &planned.listener;
            let host = advertised_host.as_deref().unwrap_or("-");
            let port = advertised_port.unwrap_or(0);
            let zone = zone.as_deref().unwrap_or("-");
            format!("{name} {} {host} {port} {zone}", planned.bind)
        };
        planned.iter().map(line).collect()
    }

    fn refusal(set: &[&str]) -> String {
        plan(said(set)).expect_err("must be refused").to_string()
    }

    #[test]
    fn listeners_are_written_as_kafkas() {
        assert_eq!(shown(&[]), ["PLAINTEXT 127.0.0.1:9092 - 0 -"]);
        let two = [
            "listeners=INTERNAL://0.0.0.0:9092, external://[::]:9094,",
            "advertised.listeners=EXTERNAL://b.example:19094,INTERNAL://a:9092",
            "listener.zones=EXTERNAL:az2",
        ];
        assert_eq!(
            shown(&two),
            [
                "INTERNAL 0.0.0.0:9092 a 9092 -",
                "EXTERNAL [::]:9094 b.example 19094 az2"
            ]
        );
        assert_eq!(
            shown(&["listeners=A://:9092,B://localhost:0"]),
            ["A 0.0.0.0:9092 - 0 -", "B localhost:0 localhost 0 -"]
        );
    }

    #[test]
    fn one_listener_may_be_advertised_by_host_and_port() {
        assert_eq!(
            shown(&["advertised.host=kafka.example"]),
            ["PLAINTEXT 127.0.0.1:9092 kafka.example 0 -"]
        );
        let both = ["advertised.host=h", "advertised.port=7", "listeners=A://:1"];
        assert_eq!(shown(&both), ["A 0.0.0.0:1 h 7 -"]);
        assert_eq!(
            shown(&["listeners=A://b:1", "advertised.port=7"]),
            ["A b:1 b 7 -"]
        );
        let told = "advertised.listeners=PLAINTEXT://kafka.example:19092";
        assert_eq!(
            shown(&[told]),
            ["PLAINTEXT 127.0.0.1:9092 kafka.example 19092 -"]
        );
        let twice = refusal(&[told, "advertised.host=h"]);
        assert!(twice.contains("give one of them"), "{twice}");
        let several = refusal(&["listeners=A://:1,B://:2", "advertised.host=h"]);
        assert!(several.contains("write advertised.listeners"), "{several}");
    }

    #[test]
    fn a_refusal_says_how_to_write_it() {
        for (set, why) in [
            (&["listeners="][..], "between 1 and 16"),
            (&["listeners=a:1"], "PLAINTEXT://HOST:PORT"),
            (&["listeners=A://a"], "a:PORT"),
            (&["listeners=://a:1"], "letters, digits"),
            (&["listeners=A B://a:1"], "letters, digits"),
            (&["listeners=A://a:1,a://b:2"], "A is there twice"),
            (&["listeners=A://a:1,B://a:1"], "two are at a:1"),
            (&["listeners=SASL_SSL://a:1"], "PLAINTEXT://HOST:PORT"),
            (&["advertised.listeners=SSL://a:1"], "PLAINTEXT://HOST:PORT"),
            (
                &["advertised.listeners=OTHER://a:1"],
                "OTHER is not among the listeners",
            ),
            (
                &["advertised.listeners=PLAINTEXT://0.0.0.0:1"],
                "none that a client could connect to",
            ),
            (&["advertised.listeners=PLAINTEXT://:1"], "host is missing"),
            (&["listener.zones=PLAINTEXT"], "NAME:ZONE"),
            (&["listener.zones=PLAINTEXT:"], "NAME:ZONE"),
            (&["listener.zones=PLAINTEXT:a;b"], "cannot be in a zone"),
            (
                &["listener.zones=PLAINTEXT:a,plaintext:b"],
                "has a zone already",
            ),
            (&["listener.zones=B:a"], "B is not among the listeners"),
        ] {
            let refused = refusal(set);
            assert!(refused.contains(why), "{set:?}: {refused}");
        }
        let many = (0..17).map(|n| format!("L{n}://:{}", n + 1));
        let many = format!("listeners={}", many.collect::<Vec<_>>().join(","));
        assert!(refusal(&[&many]).contains("between 1 and 16"));
        let long = format!("listeners=A://{}:1", "a".repeat(256));
        assert!(refusal(&[&long]).contains("256 bytes, of which 255"));
    }

    #[test]
    fn only_every_address_without_an_advertised_host_is_a_guess() {
        let guess = |set: &[&str]| {
            let planned = plan(said(set)).expect("valid listeners");
            planned.iter().any(Planned::advertises_guess)
        };
        assert!(guess(&["listeners=PLAINTEXT://0.0.0.0:9092"]));
        assert!(guess(&["listeners=PLAINTEXT://[::]:9092"]));
        assert!(guess(&[
            "listeners=A://:1,B://:2",
            "advertised.listeners=A://a:1"
        ]));
        assert!(!guess(&[
            "listeners=A://:1",
            "advertised.host=kafka.example"
        ]));
        assert!(!guess(&["listeners=A://127.0.0.1:9092"]));
        assert!(!guess(&["listeners=A://localhost:9092"]));
    }
}
