//! Control nodes ask each other how far they have applied the journal, before one leaves an entry out that it cannot apply. It must not
//! judge what they say: the journal's node does.

use std::collections::BTreeSet;
use std::sync::{Arc, Weak};
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream;
use journal::node::Said;
use journal::replica::Others;
use rpc::peer::{PeerRequest, Progress};
use rpc::{Answer, Call, Error, Return};

use crate::node::Node;

/// How long a node may take to answer; one that has not by then is not there. It is asked again meanwhile if a connection breaks.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// How many are asked at one time: in a cluster all.
const AT_ONCE: usize = 256;
/// How long a node that is asked waits until it has come to the slot; well below the time that it has to answer.
const COME_LIMIT: Duration = Duration::from_secs(2);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// How the other control nodes are found and called.
#[async_trait]
pub trait Links: Send + Sync {
    /// The addresses at which control nodes have told that they are. The error says why it is not known.
    async fn announced(&self) -> Result<Vec<String>, String>;

    /// Calls the control node at an address, which may be of a later release and at a later level: the call has one form at all levels.
    /// Only an error that says unavailable or unknown may mean that nobody is there.
    async fn ask(&self, address: String, call: Call) -> Result<Answer, Error>;
}

/// The other control nodes: those of which the journal tells, and those that have told of themselves.
struct Reached {
    node: Weak<Node>,
    links: Arc<dyn Links>,
}

#[async_trait]
impl Others for Reached {
    async fn applied(&self, slot: u64) -> Result<Vec<Said>, String> {
        let addresses = {
            let node = self.node.upgrade().ok_or("this process ends")?;
            let announced = self.links.announced().await?;
            let others = announced.into_iter().chain(node.addresses_of_others());
            let own = &node.registration.address;
            others
                .filter(|address| address != own)
                .collect::<BTreeSet<String>>()
        };
        let asked = addresses.into_iter();
        let asked = asked.map(|address| ask_one(&*self.links, address, slot));
        let said: Vec<Option<Said>> = stream::iter(asked)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        Ok(said.into_iter().flatten().collect())
    }
}

/// What the node at an address says; `None` if none answers there.
async fn ask_one(links: &dyn Links, address: String, slot: u64) -> Option<Said> {
    let asked = async {
        loop {
            let call = Call::Peer(PeerRequest::Progress { slot });
            match links.ask(address.clone(), call).await {
                Err(Error::Unknown { .. } | Error::Unavailable { .. }) => {
                    host::clock::sleep(ASK_AGAIN).await;
                }
                answered => return answered,
            }
        }
    };
    let answered = host::clock::timeout(ANSWER_LIMIT, asked).await.ok()?;
    Some(match answered {
        Ok(Answer {
            value: Return::Progress(progress),
            ..
        }) => Said {
            name: progress.name,
            version: Some(progress.version),
            applied: Some(progress.applied.0),
        },
        // Somebody is there.
        Ok(_) | Err(_) => Said {
            name: format!("the process at {address}"),
            version: None,
            applied: None,
        },
    })
}

impl Node {
    /// From now on the other control nodes can be asked by `links`. A node that nobody has told so, and that is one of several, leaves no
    /// entry of the journal out.
    pub fn ask_others_by(self: &Arc<Self>, links: Arc<dyn Links>) {
        let node = Arc::downgrade(self);
        self.asking.by(Arc::new(Reached { node, links }));
    }

    /// Waits for a moment until the journal is applied here up to this slot, unless an entry before that cannot be.
    pub(crate) async fn come_to(&self, slot: u64) {
        self.replica.look_for(slot);
        let come = async {
            while self.position().0 < slot && self.journal_status().stuck.is_none() {
                host::clock::sleep(LOOK_EVERY).await;
            }
        };
        // What it says afterwards is how far it has come, whether it is there or not.
        let _come = host::clock::timeout(COME_LIMIT, come).await;
    }

    /// How far this node has applied the journal.
    pub(crate) fn progress(&self) -> Progress {
        Progress {
            name: self.registration.name.clone(),
            version: self.told.version().to_owned(),
            applied: self.position(),
        }
    }
}

#[cfg(test)]
mod tests;
