//! HOST:PORT as people write it: where to listen, and whom to ask. It must not know what the
//! address is for.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// The name of a process, which stands in the keys of objects: 1 to 100 of `a-z`, `0-9`, `.`, `_`, `-`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(pub String);

impl FromStr for NodeName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |c| matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-');
        let is_dots = text.chars().all(|c| c == '.');
        if text.is_empty() || text.len() > 100 || is_dots || !text.chars().all(is_allowed) {
            return Err(
                "a name has 1 to 100 of the characters a-z, 0-9, '.', '_' and '-'".to_owned(),
            );
        }
        Ok(NodeName(text.to_owned()))
    }
}

/// A host, a name or an IP address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    /// A name or an IP address; an IPv6 address without its brackets.
    pub host: String,
    pub port: u16,
}

impl Address {
    /// The addresses that the host has now, IPv4 first, which is what most people mean by
    /// `localhost`.
    pub async fn resolve(&self) -> std::io::Result<Vec<SocketAddr>> {
        let mut found = host::net::resolve(&self.host, self.port).await?;
        found.sort_by_key(SocketAddr::is_ipv6);
        Ok(found)
    }

    /// The host as an IP address; `None` if it is a name.
    pub fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => rest
                .split_once("]:")
                .ok_or("write an IPv6 address as [ADDRESS]:PORT")?,
            None => text
                .rsplit_once(':')
                .ok_or_else(|| format!("it has no port; write it as {text}:PORT"))?,
        };
        check_host(host)?;
        if host.contains(':') && !text.starts_with('[') {
            return Err("write an IPv6 address as [ADDRESS]:PORT".to_owned());
        }
        let port = port
            .parse()
            .map_err(|_| format!("{port} is no port; a port is a number from 0 to 65535"))?;
        let host = host.to_owned();
        Ok(Address { host, port })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Address { host, port } = self;
        if host.contains(':') {
            write!(f, "[{host}]:{port}")
        } else {
            write!(f, "{host}:{port}")
        }
    }
}

/// Checks that `host` is a name or an IP address and nothing else; the error says what is wrong,
/// for people.
pub fn check_host(host: &str) -> Result<(), String> {
    if host.parse::<Ipv6Addr>().is_ok() {
        return Ok(());
    }
    let in_name =
        |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    match host.chars().find(|letter| !in_name(*letter)) {
        _ if host.is_empty() => Err("the host is missing".to_owned()),
        None => Ok(()),
        Some(':') => Err("write the host alone, without a port".to_owned()),
        Some(letter) => Err(format!(
            "{letter:?} cannot be in a host; write a name or an IP address"
        )),
    }
}

/// Checks that clients can connect to `host`, as far as one can see; the error says what is wrong.
pub fn check_reachable(host: &str) -> Result<(), String> {
    check_host(host)?;
    if host.parse().is_ok_and(|ip: IpAddr| ip.is_unspecified()) {
        return Err("that is every address, and none that a client could connect to".to_owned());
    }
    Ok(())
}

/// One address or several, with commas between them, as Kafka's clients take them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap(pub Vec<Address>);

impl FromStr for Bootstrap {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let addresses: Result<Vec<Address>, String> = parts
            .map(|part| part.parse().map_err(|why| format!("{part}: {why}")))
            .collect();
        match addresses?.as_slice() {
            [] => Err("write it as HOST:PORT, or several with commas between them".to_owned()),
            addresses => Ok(Bootstrap(addresses.to_vec())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        text.parse::<Address>().expect_err(text)
    }

    #[test]
    fn names_and_addresses_come_back_as_they_were_written() {
        for text in [
            "localhost:9092",
            "127.0.0.1:0",
            "[::1]:9092",
            "my_host.example:1",
        ] {
            let address: Address = text.parse().expect(text);
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_refusal_says_how_to_write_it() {
        assert!(refusal("localhost").contains("localhost:PORT"));
        assert!(refusal("localhost:kafka").contains("is no port"));
        assert!(refusal("localhost:65536").contains("is no port"));
        assert!(refusal(":9092").contains("host is missing"));
        assert!(refusal("::1:9092").contains("[ADDRESS]:PORT"));
        assert!(refusal("[::1]").contains("[ADDRESS]:PORT"));
        assert!(refusal("my host:9092").contains("' ' cannot be in a host"));
        assert!(refusal("PLAINTEXT://localhost:9092").contains("without a port"));
    }

    #[test]
    fn a_list_is_taken_as_kafkas_clients_take_it() {
        let several: Bootstrap = " a:1, b:2,".parse().expect("a list");
        let shown: Vec<String> = several.0.iter().map(Address::to_string).collect();
        assert_eq!(shown, ["a:1", "b:2"]);
        assert!("".parse::<Bootstrap>().is_err());
        let refused = "a:1,b".parse::<Bootstrap>().expect_err("no port");
        assert!(refused.starts_with("b: it has no port"), "{refused}");
    }

    #[tokio::test]
    async fn names_are_resolved() {
        let address: Address = "localhost:9092".parse().expect("an address");
        let found = address.resolve().await.expect("every machine has it");
        assert!(
            found
                .iter()
                .all(|found| found.ip().is_loopback() && found.port() == 9092)
        );
        assert!(!found.is_empty());
    }
}
