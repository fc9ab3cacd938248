//! Members of an etcd as processes of their own, each on loopback with a directory that goes away with it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use etcd::location::Location;
use etcd::security::Security;
use etcd::{Etcd, Refusal};
use serde_json::{Value, json};

/// How long members may take to agree on a leader, on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(30);

/// The members of one etcd.
pub struct Servers {
    binary: PathBuf,
    place: tempfile::TempDir,
    /// Client and peer port of each.
    ports: Vec<(u16, u16)>,
    members: Vec<Option<Child>>,
    extra: Vec<String>,
    scheme: &'static str,
}

/// So many free ports. All are held until the last is known, so that none is given out twice.
fn free_ports(count: usize) -> Vec<u16> {
    let listeners = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").expect("a port"));
    let listeners: Vec<TcpListener> = listeners.collect();
    let port = |of: &TcpListener| of.local_addr().expect("its number").port();
    listeners.iter().map(port).collect()
}

impl Servers {
    /// So many members with short timers; `None` where there is no etcd.
    pub fn start(count: usize) -> Option<Servers> {
        let mut servers = Servers::new(count)?;
        servers.start_all();
        Some(servers)
    }

    pub fn new(count: usize) -> Option<Servers> {
        let Some(binary) = std::env::var_os("SEAWAY_ETCD") else {
            eprintln!("skipped: SEAWAY_ETCD does not name an etcd binary");
            return None;
        };
        let ports = free_ports(2 * count);
        Some(Servers {
            binary: binary.into(),
            place: tempfile::tempdir().expect("a temporary directory"),
            ports: ports.chunks(2).map(|pair| (pair[0], pair[1])).collect(),
            members: (0..count).map(|_| None).collect(),
            extra: Vec::new(),
            scheme: "http",
        })
    }

    /// Has clients use TLS, by these flags.
    pub fn with_tls(mut self, flags: Vec<String>) -> Servers {
        self.extra = flags;
        self.scheme = "https";
        self
    }

    pub fn start_all(&mut self) {
        for member in 0..self.members.len() {
            self.start_one(member);
        }
    }

    pub fn start_one(&mut self, member: usize) {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let (client, peer) = self.ports[member];
        let client = format!("{}://127.0.0.1:{client}", self.scheme);
        let cluster = self.ports.iter().enumerate();
        let cluster = cluster.map(|(at, (_, peer))| format!("e{at}={}", url(*peer)));
        let cluster: Vec<String> = cluster.collect();
        let started = Command::new(&self.binary)
            .args(["--name", &format!("e{member}")])
            .arg("--data-dir")
            .arg(self.place.path().join(member.to_string()))
            .args(["--listen-client-urls", &client])
            .args(["--advertise-client-urls", &client])
            .args(["--listen-peer-urls", &url(peer)])
            .args(["--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &cluster.join(",")])
            .args(["--heartbeat-interval", "20", "--election-timeout", "200"])
            .args(["--log-level", "error"])
            .args(&self.extra)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.members[member] = Some(started.expect("etcd starts"));
    }

    pub fn kill(&mut self, member: usize) {
        if let Some(mut child) = self.members[member].take() {
            child.kill().expect("it is ours");
            child.wait().expect("it ends");
        }
    }

    /// Where a journal is, below a prefix of this name.
    pub fn location(&self, prefix: &str) -> Location {
        let endpoints = self
            .ports
            .iter()
            .map(|(port, _)| format!("127.0.0.1:{port}"));
        let endpoints: Vec<String> = endpoints.collect();
        let text = format!("etcd://{}/{prefix}", endpoints.join(","));
        Location::parse(&text).expect("a location")
    }

    pub fn engine(&self, prefix: &str) -> Etcd {
        Etcd::new(&self.location(prefix), &Security::default(), "ours", 0)
    }

    /// Which member leads; `None` while none does, as far as this member knows.
    pub fn leader(&self) -> Option<usize> {
        let status = |member: usize| {
            let status = self.ask(member, "/v3/maintenance/status", &json!({}))?;
            let own = status["header"]["member_id"].as_str()?.to_owned();
            Some((own, status["leader"].as_str()?.to_owned()))
        };
        (0..self.members.len()).find(|member| {
            self.members[*member].is_some()
                && status(*member).is_some_and(|(own, leader)| own == leader)
        })
    }

    /// Asks a member by its gateway for JSON; `None` without an answer that is one.
    pub fn ask(&self, member: usize, path: &str, body: &Value) -> Option<Value> {
        let address = format!("127.0.0.1:{}", self.ports[member].0);
        let mut stream = TcpStream::connect(address).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
        let body = body.to_string();
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.0\r\nContent-Length: {length}\r\n\r\n{body}"
        )
        .ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).ok()?;
        let (_, body) = answer.split_once("\r\n\r\n")?;
        serde_json::from_str(body).ok()
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for member in 0..self.members.len() {
            self.kill(member);
        }
    }
}

/// Makes the prefix the engine's cluster's, however long the members take to agree.
pub async fn admit(engine: &Etcd) {
    let admitted = host::clock::timeout(READY_LIMIT, async {
        while let Err(refusal) = engine.admit(true).await {
            assert!(matches!(refusal, Refusal::Waits(_)), "{refusal}");
            host::clock::sleep(Duration::from_millis(50)).await;
        }
    });
    admitted.await.expect("etcd is ready in time");
}
