//! Whether this node can serve, and why not; and its parts, for the pages that show them.

use std::sync::{Arc, OnceLock, RwLock};

use journal::node::Role;
use store::buckets::Buckets;
use store::meter::Counters;
use store::outage::Kind;

use crate::links::Certificates;
use crate::spending::Spending;

/// The parts of a running node that the pages look at.
pub struct Parts {
    pub control: Option<Arc<control::Node>>,
    pub agent: Option<agent::Probe>,
    /// Counters of the bucket's requests.
    pub bucket: Arc<Counters>,
    /// The buckets themselves.
    pub buckets: Arc<Buckets>,
    pub spending: Spending,
}

/// The node's state.
pub struct Health {
    obstacle: RwLock<Option<String>>,
    parts: OnceLock<Parts>,
    certificates: OnceLock<Arc<Certificates>>,
}

impl Default for Health {
    fn default() -> Self {
        Health {
            obstacle: RwLock::new(Some("starting".to_owned())),
            parts: OnceLock::new(),
            certificates: OnceLock::new(),
        }
    }
}

impl Health {
    /// Sets the reason for which the node cannot serve yet.
    pub fn waiting(&self, why: &str) {
        self.set(Some(why.to_owned()));
    }

    /// Marks the node as serving, and sets its parts.
    pub fn serving(&self, parts: Parts) {
        // A process starts its parts only once.
        drop(self.parts.set(parts));
        self.set(None);
    }

    /// Sets by which certificates other processes know this one.
    pub fn known_by(&self, certificates: &Arc<Certificates>) {
        // Said once, at the start.
        drop(self.certificates.set(Arc::clone(certificates)));
    }

    /// By which certificates other processes know this one; `None` if there are none.
    pub fn certificates(&self) -> Option<&Certificates> {
        self.certificates.get().map(|certificates| &**certificates)
    }

    /// Marks the processes of a cluster of several as serving: their own pages show what they do.
    pub fn all_serve(&self) {
        self.set(None);
    }

    /// Marks the node as one that leaves what it does to others.
    pub fn draining(&self) {
        self.set(Some(
            "draining: others take over what this process does".to_owned(),
        ));
    }

    /// Marks the node as stopping.
    pub fn stopping(&self) {
        self.set(Some("stopping".to_owned()));
    }

    /// Why the node cannot serve clients now; `None` if it can.
    pub fn obstacle(&self) -> Option<String> {
        let said = self
            .obstacle
            .read()
            .map_or(None, |obstacle| obstacle.clone());
        said.or_else(|| self.parts.get().and_then(|parts| parts.obstacle()))
    }

    /// The parts, once the node serves.
    pub fn parts(&self) -> Option<&Parts> {
        self.parts.get()
    }

    fn set(&self, why: Option<String>) {
        if let Ok(mut obstacle) = self.obstacle.write() {
            *obstacle = why;
        }
    }
}

impl Parts {
    fn obstacle(&self) -> Option<String> {
        // The bucket comes first: if it is out, it is the reason why the others cannot go on.
        let outage = Kind::ALL
            .into_iter()
            .find_map(|kind| self.bucket.outage(kind));
        let bucket = outage.map(|outage| outage.to_string());
        let control = self.control.as_ref();
        let agent = self.agent.as_ref();
        bucket
            .or_else(|| match agent {
                Some(_) => journal_obstacle(control?),
                None => following_obstacle(control?),
            })
            .or_else(|| agent?.obstacle())
    }
}

/// What a control node that is one of several waits for; `None` while it leads, or has read the journal that another leads.
pub fn following_obstacle(control: &control::Node) -> Option<String> {
    let journal = control.journal_status();
    if control.leads() || journal.role == Role::Follower && journal.confirmed_at.is_some() {
        return None;
    }
    let reading = journal.trouble.map_or_else(
        || "the journal is being read".to_owned(),
        |trouble| format!("the journal cannot be read: {trouble}"),
    );
    Some(journal.stuck.unwrap_or(reading))
}

/// Why the journal keeps this process from serving; `None` while it leads, since every request
/// rests on an entry that this process itself appends.
pub fn journal_obstacle(control: &control::Node) -> Option<String> {
    if control.leads() {
        return None;
    }
    let journal = control.journal_status();
    if journal.stuck.is_some() {
        return journal.stuck;
    }
    Some(match (journal.deposed_by, journal.trouble) {
        (Some(leader), _) => format!(
            "another process leads this bucket's journal: {leader}; this one takes the lead again some \
             20 seconds after that one is gone. Stop one of the two, or give each a bucket or prefix \
             of its own"
        ),
        (None, Some(trouble)) => format!("the journal has no leader: {trouble}"),
        (None, None) => "the journal has no leader".to_owned(),
    })
}
