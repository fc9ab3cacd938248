//! The metadata state machine as the journal drives it: commands decoded strictly and applied,
//! and what happened told to whoever listens. It must not know who leads.

use std::sync::Arc;

use bytes::Bytes;
use journal::entry::{ClusterNumber, EntryId};
use journal::replica::{Capture, Part, PartId, Poison, StateMachine, Unreadable};
use journal::snapshot::manifest::Seal;
use meta::command::Command;
use meta::ids::Stamp;
use meta::reply::{Event, Reply};
use meta::state::State;
use rpc::view::Notice;
use tokio::sync::{broadcast, mpsc};

use crate::convert;

/// Notices that a slow receiver may be behind before it is told that it lagged.
const NOTICES: usize = 4_096;

/// One cluster's state, and its listeners.
pub(crate) struct Machine {
    cluster: ClusterNumber,
    state: State,
    notices: broadcast::Sender<Arc<[Notice]>>,
    groups: mpsc::UnboundedSender<meta::group::Event>,
}

impl Machine {
    /// The state of `cluster` before its first command; what happens to groups goes to `groups`.
    pub(crate) fn new(
        cluster: ClusterNumber,
        state: State,
        groups: mpsc::UnboundedSender<meta::group::Event>,
    ) -> Self {
        Machine {
            cluster,
            state,
            notices: broadcast::Sender::new(NOTICES),
            groups,
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// What is applied from now on, as hints for agents.
    pub(crate) fn notices(&self) -> broadcast::Sender<Arc<[Notice]>> {
        self.notices.clone()
    }

    fn tell(&self, events: Vec<Event>) {
        let mut notices = Vec::new();
        for event in events {
            match event {
                Event::Advanced {
                    partition,
                    high_watermark,
                    place,
                } => {
                    let place = convert::place(&place);
                    notices.push(Notice::Advanced {
                        partition,
                        high_watermark,
                        place,
                    });
                }
                Event::LogStart {
                    partition,
                    log_start,
                } => {
                    notices.push(Notice::LogStart {
                        partition,
                        log_start,
                    });
                }
                Event::TopicsChanged { .. } | Event::AgentsChanged => {
                    notices.push(Notice::View {
                        version: self.state.view_version(),
                    });
                }
                Event::FilesTombstoned => {}
                // The coordinator's task ends only with the node; then nobody needs to know.
                Event::Group(event) => drop(self.groups.send(event)),
            }
        }
        if !notices.is_empty() {
            // Nobody may be listening yet.
            drop(self.notices.send(notices.into()));
        }
    }
}

impl StateMachine for Machine {
    type Reply = Reply;

    fn apply(
        &mut self,
        _: EntryId,
        stamp: journal::entry::Stamp,
        cluster: ClusterNumber,
        command: &[u8],
    ) -> Result<Reply, Poison> {
        if cluster != self.cluster {
            return Err(Poison(format!("there is no cluster {} here", cluster.0)));
        }
        let command = Command::decode(command).map_err(|error| Poison(error.to_string()))?;
        let stamp = Stamp {
            wall_millis: stamp.wall_millis,
            ticks_millis: stamp.ticks_millis,
        };
        if matches!(command, Command::SetFeatureLevel { .. }) {
            // Tried beside the state: whoever stops here has it as it was before the command.
            let mut trial = self.state.clone();
            trial.apply(stamp, &command);
            let level = trial.feature_level();
            if level > meta::FEATURE_LEVEL {
                return Err(Poison(format!(
                    "it raises the feature level to {level}, which this release does not support: \
                     run a newer one"
                )));
            }
        }
        let applied = self.state.apply(stamp, &command);
        self.tell(applied.events);
        Ok(applied.reply)
    }

    fn capture(&self) -> Box<dyn Capture> {
        Box::new(Captured {
            level: self.state.feature_level(),
            capture: self.state.capture(),
        })
    }

    fn genesis(&self) -> Self {
        Machine {
            cluster: self.cluster,
            state: State::genesis(self.state.cluster_id().to_owned()),
            notices: self.notices.clone(),
            groups: self.groups.clone(),
        }
    }

    fn restore(&mut self, chunks: Vec<Bytes>) -> Result<(), Unreadable> {
        let state = State::restore(&chunks).map_err(|error| Unreadable(error.to_string()))?;
        if state.cluster_id() != self.state.cluster_id() {
            let (found, ours) = (state.cluster_id(), self.state.cluster_id());
            return Err(Unreadable(format!(
                "the snapshot is of cluster {found}, not of {ours}"
            )));
        }
        self.state = state;
        Ok(())
    }

    fn adopted(&mut self) {
        self.tell(vec![Event::AgentsChanged]);
    }

    fn seal(&self) -> Seal {
        Seal {
            level: self.state.feature_level(),
            digest: self.state.digest(),
        }
    }
}

/// A state captured for a snapshot.
struct Captured {
    level: u32,
    capture: meta::snapshot::Capture,
}

impl Capture for Captured {
    fn seal(&self) -> Seal {
        Seal {
            level: self.level,
            digest: self.capture.digest(),
        }
    }

    fn encode(self: Box<Self>, _: &dyn Fn(PartId) -> bool) -> Vec<Part> {
        let chunks = self.capture.encode_chunks().into_iter();
        chunks.map(|bytes| Part::Encoded(None, bytes)).collect()
    }
}
