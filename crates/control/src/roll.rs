//! Who is there, as far as a control node knows: by its own ear while it leads, else by the last word of the node that does. Pure. It must
//! not know how that word came, nor how it is shown. What cannot be known is said to be unknown: a word that is old says nothing of now.

use std::time::Duration;

use host::clock::Instant;
use meta::command::ControlNode;
use meta::ids::Incarnation;
use rpc::Position;
use rpc::peer::{HeardFollower, Roster};

/// Agents and followers tell the leader every second that they are there, and it answers: whoever is there is heard within so long, unless
/// something is amiss.
pub const SILENT_AFTER: Duration = Duration::from_secs(3);

/// What the node that leads has said of the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub roster: Roster,
    /// How far the journal went.
    pub end: Position,
    pub at: Instant,
}

/// How a run of a process stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The version of its build; `None` if it is not known.
    pub version: Option<String>,
    pub heard: Heard,
    /// Of a control node: how far it has come; `None` if it is not known.
    pub progress: Option<Progress>,
}

/// When a process was last heard by the node that leads, or, if it is that node, by the one that is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The asked node hears nobody who would know.
    NotKnown,
    Ago(Duration),
    /// Not since the node that leads listens, which it has done for so long.
    NotFor(Duration),
}

impl Heard {
    /// Whether the process is there; `None` if nobody knows: the node that leads may not have listened for long enough.
    pub fn is_here(self) -> Option<bool> {
        match self {
            Heard::Ago(ago) => Some(ago < SILENT_AFTER),
            Heard::NotFor(listened) if listened >= SILENT_AFTER => Some(false),
            Heard::NotFor(_) | Heard::NotKnown => None,
        }
    }
}

/// How far a control node has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The last entry of the journal that it is known to have applied.
    pub applied: u64,
    pub behind: Behind,
}

/// How far a control node is behind the node that leads.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behind {
    /// Entries that it lacks; `None` if it is not known.
    pub entries: Option<u64>,
    /// For how long it has lacked some, as far as it can tell; `None` if it is not known.
    pub millis: Option<u64>,
}

impl Behind {
    /// Whoever lacks nothing is not behind at all, however long ago that was shown.
    fn of(entries: Option<u64>, current_millis_ago: Option<u64>) -> Self {
        let millis = match entries {
            Some(0) => Some(0),
            _ => current_millis_ago,
        };
        Behind { entries, millis }
    }
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leader {
    /// The asked node.
    Asked,
    /// Another, as it stands in its claims, heard so long ago.
    Heard { claims_as: String, ago: Duration },
    /// Nobody whom the asked node hears.
    Nobody {
        /// Whose claim is the last one in the journal.
        claims_as: Option<String>,
        /// How long ago the asked node led or heard one that did; `None`: not since it started.
        heard_ago: Option<Duration>,
        /// The asked node is taking the lead.
        is_taking: bool,
    },
}

/// What the asked node knows by itself.
#[derive(Clone, Debug)]
pub struct Asked {
    pub nonce: u128,
    pub claims_as: String,
    pub version: String,
    pub leads: bool,
    pub is_taking: bool,
    /// Whose claim is the last one in the journal.
    pub last_claim: Option<String>,
    /// The last entry that it has applied.
    pub applied: u64,
    /// How far the journal goes, by the node that leads; `None` if that has not said so lately.
    pub end: Option<u64>,
    /// How long ago everything that had been appended was applied.
    pub current_millis_ago: Option<u64>,
}

/// All that the asked node knows.
#[derive(Clone, Debug)]
pub struct Roll {
    asked: Asked,
    word: Option<Word>,
    now: Instant,
}

impl Roll {
    pub fn new(asked: Asked, word: Option<Word>, now: Instant) -> Self {
        Roll { asked, word, now }
    }

    pub fn leader(&self) -> Leader {
        if self.asked.leads {
            return Leader::Asked;
        }
        let last_claim = self.asked.last_claim.as_deref();
        match self.fresh() {
            Some((word, ago)) if !self.is_own(word) && last_claim == Some(&*word.roster.leader) => {
                let claims_as = word.roster.leader.clone();
                Leader::Heard { claims_as, ago }
            }
            _ => Leader::Nobody {
                claims_as: self.asked.last_claim.clone(),
                heard_ago: self.word.as_ref().map(|word| self.now.since(word.at)),
                is_taking: self.asked.is_taking,
            },
        }
    }

    pub fn control_node(&self, node: &ControlNode) -> Standing {
        if self.is_asked(node) {
            return self.asked();
        }
        let Some(word) = &self.word else {
            return unknown();
        };
        if node.claims_as == word.roster.leader {
            return self.leader_of(word);
        }
        let mut followers = word.roster.followers.iter();
        match followers.find(|heard| heard.said.nonce == node.nonce) {
            Some(heard) => self.follower(heard),
            None => self.unheard(),
        }
    }

    pub fn agent(&self, incarnation: Incarnation) -> Standing {
        let agents = self.word.iter().flat_map(|word| &word.roster.agents);
        let mut agents = agents.filter(|agent| agent.incarnation == incarnation);
        match agents.next() {
            Some(agent) => Standing {
                version: Some(agent.version.clone()),
                heard: self.heard(agent.silent_millis),
                progress: None,
            },
            None => self.unheard(),
        }
    }

    /// Whether a registration is that of the asked node.
    pub fn is_asked(&self, node: &ControlNode) -> bool {
        node.nonce == self.asked.nonce
    }

    /// What runs in the process of the asked node, and is no control node.
    pub fn same_process(&self) -> Standing {
        Standing {
            progress: None,
            ..self.asked()
        }
    }

    /// The asked node itself.
    pub fn asked(&self) -> Standing {
        let Asked {
            applied,
            end,
            current_millis_ago,
            ..
        } = self.asked;
        let entries = match self.asked.leads {
            true => Some(0),
            false => end.map(|end| end.saturating_sub(applied)),
        };
        Standing {
            version: Some(self.asked.version.clone()),
            heard: Heard::Ago(Duration::ZERO),
            progress: Some(Progress {
                applied,
                behind: Behind::of(entries, current_millis_ago),
            }),
        }
    }

    /// The node whose word it is.
    fn leader_of(&self, word: &Word) -> Standing {
        let heard = Heard::Ago(self.now.since(word.at));
        let behind = match heard.is_here() {
            Some(true) => Behind::of(Some(0), None),
            _ => Behind::default(),
        };
        Standing {
            version: Some(word.roster.version.clone()),
            heard,
            progress: Some(Progress {
                applied: word.end.0,
                behind,
            }),
        }
    }

    fn follower(&self, follower: &HeardFollower) -> Standing {
        let heard = self.heard(follower.silent_millis);
        let said = &follower.said;
        let behind = match heard.is_here() {
            Some(true) => Behind::of(Some(follower.entries_behind), said.current_millis_ago),
            // What it lacks by now it has not said.
            _ => Behind::default(),
        };
        Standing {
            version: Some(said.version.clone()),
            heard,
            progress: Some(Progress {
                applied: said.applied.0,
                behind,
            }),
        }
    }

    /// One of whom the word says that it was silent for so long.
    fn heard(&self, silent_millis: u64) -> Heard {
        match self.fresh() {
            Some((_, ago)) => Heard::Ago(ago + Duration::from_millis(silent_millis)),
            None => Heard::NotKnown,
        }
    }

    /// One of whom the word says nothing.
    fn unheard(&self) -> Standing {
        let heard = match self.fresh() {
            Some((word, ago)) => {
                Heard::NotFor(ago + Duration::from_millis(word.roster.listens_millis))
            }
            None => Heard::NotKnown,
        };
        Standing { heard, ..unknown() }
    }

    /// The word while it says something of now, and how old it is.
    fn fresh(&self) -> Option<(&Word, Duration)> {
        let word = self.word.as_ref()?;
        let ago = self.now.since(word.at);
        (ago < SILENT_AFTER).then_some((word, ago))
    }

    /// True of a word of the asked node's own, from when it led.
    fn is_own(&self, word: &Word) -> bool {
        word.roster.leader == self.asked.claims_as
    }
}

fn unknown() -> Standing {
    Standing {
        version: None,
        heard: Heard::NotKnown,
        progress: None,
    }
}

#[cfg(test)]
mod tests;
