//! Where clients connect to an agent, listener by listener. It must not know what is said there.

use std::collections::BTreeMap;

/// The name of the only listener of an agent whose operator names none, as in Kafka.
pub const PLAINTEXT: &str = "PLAINTEXT";

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// The listeners of an agent that has only this one.
    pub fn alone(host: &str, port: u16) -> BTreeMap<String, Endpoint> {
        let host = host.to_owned();
        [(PLAINTEXT.to_owned(), Endpoint { host, port })].into()
    }
}
