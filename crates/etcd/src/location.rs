//! Where an etcd is, as an operator says it: `etcd://HOST:PORT,HOST:PORT/PREFIX`. It must not know how it is reached.

use std::fmt;

/// What the text begins with.
const SCHEME: &str = "etcd://";
/// The port of an endpoint that names none: etcd's own.
const PORT: u16 = 2379;
/// The keys' prefix if none is named.
const PREFIX: &str = "seaway";
/// An etcd has seven members at most, as its documentation has it.
const ENDPOINTS_MAX: usize = 16;
/// Keys are short, since each append names some.
const PREFIX_BYTES_MAX: usize = 200;

/// The members of an etcd, and the part of its keys that is one cluster's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Location {
    /// Where members answer clients, host:port; the first that answers is asked.
    pub endpoints: Vec<String>,
    /// All keys begin with it and a slash.
    pub prefix: String,
}

/// Why a text names no etcd, and what to write.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Refused(String);

impl Location {
    pub fn parse(text: &str) -> Result<Self, Refused> {
        let refused = |why: &str| {
            Refused(format!(
                "{text:?} names no etcd: {why}; write etcd://HOST:PORT,HOST:PORT,HOST:PORT/PREFIX"
            ))
        };
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(refused("it does not begin with etcd://"));
        };
        let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, PREFIX));
        let prefix = if prefix.is_empty() { PREFIX } else { prefix };
        if hosts.contains('@') {
            return Err(Refused(
                "a name and a password are given with --journal-user and --journal-password-file, not in --journal".to_owned(),
            ));
        }
        let mut endpoints = Vec::new();
        for host in hosts.split(',') {
            let endpoint =
                endpoint(host).ok_or_else(|| refused(&format!("{host:?} is no HOST:PORT")))?;
            if endpoints.contains(&endpoint) {
                return Err(refused(&format!("{endpoint} is there twice")));
            }
            endpoints.push(endpoint);
        }
        if endpoints.len() > ENDPOINTS_MAX {
            return Err(refused("it has more than 16 members"));
        }
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
        if prefix.len() > PREFIX_BYTES_MAX || !prefix.bytes().all(fits) {
            return Err(refused(
                "the prefix has 1 to 200 letters, digits, '_', '-', '.' and '/'",
            ));
        }
        if prefix.split('/').any(str::is_empty) {
            return Err(refused(
                "the prefix neither ends with a slash nor has two side by side",
            ));
        }
        Ok(Location {
            endpoints,
            prefix: prefix.to_owned(),
        })
    }
}

/// An endpoint with its port.
fn endpoint(text: &str) -> Option<String> {
    let (host, port) = match text.rsplit_once(':') {
        // The colons of an IPv6 address are inside brackets.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()?),
        _ => (text, PORT),
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    let is_address = |inner: &str| inner.parse::<std::net::Ipv6Addr>().is_ok();
    let is_host = match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(is_address),
        None => !host.is_empty() && host.bytes().all(fits),
    };
    (is_host && port != 0).then(|| format!("{host}:{port}"))
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/{}", self.endpoints.join(","), self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_prefix_are_read_and_have_defaults() {
        let read = |text: &str| Location::parse(text).expect(text).to_string();
        assert_eq!(read("etcd://a:1"), "etcd://a:1/seaway");
        assert_eq!(read("etcd://a/"), "etcd://a:2379/seaway");
        assert_eq!(
            read("etcd://a:1,b,[::1]:3/x/y"),
            "etcd://a:1,b:2379,[::1]:3/x/y"
        );
        assert_eq!(read("etcd://[::1]"), "etcd://[::1]:2379/seaway");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_what_can() {
        for (text, hint) in [
            ("http://a:1", "begin with etcd://"),
            ("etcd://", "is no HOST:PORT"),
            ("etcd://a:1,", "is no HOST:PORT"),
            ("etcd://a:0", "is no HOST:PORT"),
            ("etcd://a:99999", "is no HOST:PORT"),
            ("etcd://::1", "is no HOST:PORT"),
            ("etcd://a b:1", "is no HOST:PORT"),
            ("etcd://a:1,a:1", "a:1 is there twice"),
            ("etcd://a,a:2379", "a:2379 is there twice"),
            ("etcd://me:secret@a:1", "--journal-password-file"),
            ("etcd://a/x//y", "two side by side"),
            ("etcd://a/x/", "ends with a slash"),
            ("etcd://a/x?y", "the prefix has"),
        ] {
            let why = Location::parse(text).expect_err(text).to_string();
            assert!(why.contains(hint), "{text}: {why}");
            assert!(!why.contains("secret"), "{why}");
        }
    }
}
