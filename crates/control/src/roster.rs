//! What control nodes tell each other of who is there: the node that leads what it has heard, those that follow how far they have come. It must
//! not judge it: [`crate::roll`] does.

use std::sync::Arc;
use std::time::Duration;

use host::clock::Instant;
use journal::node::Role;
use rpc::peer::{Follower, HeardAgent, HeardFollower, PeerRequest, Roster};
use rpc::{Answer, Call, Control, Error, Position, Return};

use crate::attendance::Follows;
use crate::node::Node;
use crate::roll::{Asked, Roll, Word};

/// What is kept of the name of a build; longer ones are refused.
const VERSION_BYTES_MAX: usize = 64;

impl Node {
    /// Who is there, as far as this node knows.
    pub fn roll(&self) -> Roll {
        let now = host::clock::now();
        let leads = self.leads();
        let word = match leads {
            true => Some(self.own_word(now)),
            false => self.told.word(),
        };
        let journal = self.replica.status();
        let asked = Asked {
            nonce: self.registration.nonce,
            claims_as: self.registration.claims_as.clone(),
            version: self.told.version().to_owned(),
            leads,
            is_taking: matches!(journal.role, Role::Candidate | Role::BecomingLeader),
            last_claim: journal.leader,
            applied: journal.index,
            end: self.told.end(now),
            current_millis_ago: journal.seemed_current_at.map(|at| millis(now.since(at))),
        };
        Roll::new(asked, word, now)
    }

    /// Whether this node leads as far as it knows, and may lead no more: it cannot append, or has met another writer.
    pub fn may_lead_no_more(&self) -> bool {
        self.leads() && self.replica.is_doubtful()
    }

    /// Tells the node that leads that this one follows, and how far it has come.
    pub(crate) async fn tell_leader(&self, others: &dyn Control) {
        let journal = self.replica.status();
        let now = host::clock::now();
        let follows = PeerRequest::Follows(Follower {
            nonce: self.registration.nonce,
            version: self.told.version().to_owned(),
            applied: Position(journal.index),
            current_millis_ago: journal.seemed_current_at.map(|at| millis(now.since(at))),
        });
        match others.call(Call::Peer(follows)).await {
            Ok(Answer {
                at: end,
                value: Return::Roster(roster),
            }) => {
                let at = host::clock::now();
                let roster = *roster;
                self.told.hear(Word { roster, end, at });
            }
            Ok(_) => tracing::debug!("the leader does not say whom it hears"),
            Err(error) => {
                tracing::debug!(%error, "the leader is not told that this node follows");
            }
        }
    }

    /// Remembers what this node, which leads, has heard, for when it leads no more.
    pub(crate) fn note_own_word(&self) {
        let word = self.own_word(host::clock::now());
        self.told.hear(word);
    }

    /// Notes what a node that follows says, and what the answer to it is.
    pub(crate) fn note_follower(&self, said: Follower) -> Result<Return, Error> {
        check_version(&said.version)?;
        let now = host::clock::now();
        if let Some(attendance) = &self.attendance {
            let nonce = said.nonce;
            let follows = Follows {
                entries_behind: self.position().0.saturating_sub(said.applied.0),
                said: Arc::new(said),
            };
            let mut followers = attendance.followers();
            followers.calls(now, nonce);
            followers.says(nonce, follows);
            followers.answered(now, nonce);
        }
        Ok(Return::Roster(Box::new(self.own_word(now).roster)))
    }

    fn own_word(&self, at: Instant) -> Word {
        let mut roster = Roster {
            leader: self.registration.claims_as.clone(),
            version: self.told.version().to_owned(),
            listens_millis: 0,
            agents: Vec::new(),
            followers: Vec::new(),
        };
        if let Some(attendance) = &self.attendance {
            let agents = attendance.lock();
            let listens_since = agents.listens_since();
            roster.listens_millis = listens_since.map_or(0, |since| millis(at.since(since)));
            let heard = agents.said();
            roster.agents = heard
                .map(|(incarnation, version, called_at)| HeardAgent {
                    incarnation,
                    version: version.to_string(),
                    silent_millis: millis(at.since(called_at)),
                })
                .collect();
            drop(agents);
            let followers = attendance.followers();
            let heard = followers.said();
            roster.followers = heard
                .map(|(_, follows, called_at)| HeardFollower {
                    said: (*follows.said).clone(),
                    silent_millis: millis(at.since(called_at)),
                    entries_behind: follows.entries_behind,
                })
                .collect();
        }
        let end = self.position();
        Word { roster, end, at }
    }
}

/// Refuses what is no version of a build.
pub(crate) fn check_version(version: &str) -> Result<(), Error> {
    let is_plain = version.bytes().all(|byte| byte.is_ascii_graphic());
    match is_plain && (1..=VERSION_BYTES_MAX).contains(&version.len()) {
        true => Ok(()),
        false => Err(Error::Refused {
            reason: format!(
                "a version has 1 to {VERSION_BYTES_MAX} bytes that can be printed, and no space"
            ),
        }),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
