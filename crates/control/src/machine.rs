//! The metadata state machine as the journal drives it: commands decoded strictly and applied,
//! and what happened told to whoever listens. It must not know who leads.

use bytes::Bytes;
use journal::entry::{ClusterNumber, EntryId};
use journal::replica::{Capture, Part, PartId, Poison, StateMachine};
use journal::snapshot::Unreadable;
use journal::snapshot::manifest::Seal;
use meta::State;
use meta::command::Command;
use meta::ids::Stamp;
use meta::reply::{Event, Reply};
use meta::snapshot::RestoreError;
use rpc::Position;
use rpc::notice::Notice;
use tokio::sync::mpsc;

use crate::coordinator;
use crate::losing;
use crate::notices::Followers;

/// The one cluster of this journal.
pub(crate) const CLUSTER: ClusterNumber = ClusterNumber(1);

/// One cluster's state, and its listeners.
pub(crate) struct Machine {
    cluster: ClusterNumber,
    state: State,
    followers: Followers,
    /// What the entry that is being applied has brought so far.
    notices: Vec<Notice>,
    groups: mpsc::UnboundedSender<coordinator::Event>,
}

impl Machine {
    /// The state of `cluster` before its first command; what happens to groups goes to `groups`. All
    /// followers together may be behind by `notices_bytes`.
    pub(crate) fn new(
        cluster: ClusterNumber,
        state: State,
        groups: mpsc::UnboundedSender<coordinator::Event>,
        notices_bytes: usize,
    ) -> Self {
        Machine {
            cluster,
            state,
            followers: Followers::new(notices_bytes),
            notices: Vec::new(),
            groups,
        }
    }

    pub(crate) fn state(&self) -> &State {
        &self.state
    }

    /// Who is told what is applied.
    pub(crate) fn followers(&self) -> Followers {
        self.followers.clone()
    }

    /// Leaves out the rule of the state machine that the simulated town does without, if it is one.
    #[cfg(feature = "mutations")]
    fn remove_rules(&mut self) {
        use meta::rule::Rule;
        for (name, rule) in [
            ("commit-not-idempotent", Rule::CommitsAreIdempotent),
            ("dedup-outside-the-log", Rule::DedupInTheEntry),
            ("commits-in-any-order", Rule::CommitsInOrder),
            ("collect-without-grace", Rule::GraceBeforeDeletion),
        ] {
            if host::trial::leaves_out(name) {
                self.state.remove(rule);
            }
        }
    }

    fn note(&mut self, events: Vec<Event>) {
        let notices = &mut self.notices;
        for event in events {
            match event {
                Event::Advanced {
                    partition,
                    high_watermark,
                    place,
                } => notices.push(Notice::Advanced {
                    partition,
                    high_watermark,
                    place,
                }),
                Event::LogStart {
                    partition,
                    log_start,
                } => notices.push(Notice::LogStart {
                    partition,
                    log_start,
                }),
                Event::TopicsChanged { .. } | Event::AgentsChanged => {
                    notices.push(Notice::View {
                        version: self.state.view_version(),
                    });
                }
                Event::FilesTombstoned => {}
                // The coordinator's task ends only with the node; then nobody needs to know.
                Event::Group(event) => {
                    drop(self.groups.send(coordinator::Event::Changed(event)));
                }
            }
        }
    }
}

impl StateMachine for Machine {
    /// And the position of its entry.
    type Reply = (Position, Reply);

    fn apply(
        &mut self,
        entry: EntryId,
        stamp: journal::entry::Stamp,
        cluster: ClusterNumber,
        command: &[u8],
    ) -> Result<(Position, Reply), Poison> {
        if cluster != self.cluster {
            return Err(Poison(format!("there is no cluster {} here", cluster.0)));
        }
        let command = Command::decode(command).map_err(|error| Poison(error.to_string()))?;
        let entry = meta::ids::EntryId {
            index: entry.index,
            nonce: entry.nonce,
        };
        let mut stamp = stamp_of(stamp);
        if host::trial::leaves_out("apply-at-local-time") {
            stamp.wall_millis = host::clock::wall_millis();
        }
        // Before the state has changed: it must stay as it was.
        let known = self.state.check_known(&command);
        known.map_err(|too_new| Poison(too_new.to_string()))?;
        #[cfg(feature = "mutations")]
        self.remove_rules();
        let applied = self.state.apply(entry, stamp, &command);
        self.note(applied.events);
        Ok((Position(entry.index), applied.reply))
    }

    fn applied(&mut self, entry: EntryId) {
        if !self.notices.is_empty() {
            let notices = std::mem::take(&mut self.notices);
            self.followers.tell(Position(entry.index), notices);
        }
    }

    fn left_out(&mut self, entry: EntryId, stamp: journal::entry::Stamp) {
        self.state.leave_out(stamp_of(stamp));
        self.adopted(entry);
    }

    fn kind(command: &[u8]) -> String {
        let Ok(command) = Command::decode(command) else {
            return "of no kind that this release knows".to_owned();
        };
        let text = format!("{command:?}");
        let end = text
            .find(|c: char| !c.is_alphanumeric())
            .unwrap_or(text.len());
        text[..end].to_owned()
    }

    fn lost_with(&self, cluster: ClusterNumber, command: &[u8]) -> Option<Vec<String>> {
        let command = Command::decode(command).ok();
        let command = command.filter(|_| cluster == self.cluster)?;
        Some(losing::lines(&self.state, &command))
    }

    fn capture(&self) -> Box<dyn Capture> {
        Box::new(Captured {
            level: self.state.level().number,
            capture: self.state.capture(),
        })
    }

    fn genesis(&self) -> Self {
        Machine {
            cluster: self.cluster,
            state: State::genesis_of(self.state.levels(), self.state.cluster_id().to_owned()),
            followers: self.followers.clone(),
            notices: Vec::new(),
            groups: self.groups.clone(),
        }
    }

    fn restore(&mut self, chunks: Vec<Bytes>) -> Result<(), Unreadable> {
        let state = State::restore_of(self.state.levels(), &chunks);
        let state = state.map_err(|error| match &error {
            RestoreError::Newer { .. } => Unreadable::Newer(error.to_string()),
            _ => Unreadable::Damaged(error.to_string()),
        })?;
        if state.cluster_id() != self.state.cluster_id() {
            let (found, ours) = (state.cluster_id(), self.state.cluster_id());
            return Err(Unreadable::Damaged(format!(
                "the snapshot is of cluster {found}, not of {ours}"
            )));
        }
        self.state = state;
        Ok(())
    }

    fn adopted(&mut self, last: EntryId) {
        let at = Position(last.index);
        self.followers.tell(at, vec![Notice::Anything]);
        drop(self.groups.send(coordinator::Event::Reloaded));
    }

    fn seal(&self) -> Seal {
        Seal {
            level: self.state.level().number,
            digest: self.state.digest(),
        }
    }
}

fn stamp_of(stamp: journal::entry::Stamp) -> Stamp {
    Stamp {
        wall_millis: stamp.wall_millis,
        ticks_millis: stamp.ticks_millis,
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

    fn encode(self: Box<Self>, is_known: &dyn Fn(PartId) -> bool) -> Vec<Part> {
        let parts = self.capture.encode(&|id| is_known(PartId(id))).into_iter();
        parts
            .map(|part| match part {
                meta::snapshot::Part::Same(id) => Part::Same(PartId(id)),
                meta::snapshot::Part::Encoded(id, bytes) => Part::Encoded(id.map(PartId), bytes),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use meta::level::one::LEVEL as ONE;

    use super::*;

    #[test]
    fn a_snapshot_of_a_later_level_is_told_from_damage() {
        const TWO: meta::level::Level = meta::level::Level { number: 2, ..ONE };
        const LATER: meta::level::Levels = meta::level::Levels::new(&[ONE, TWO]);
        let (groups, _changed) = mpsc::unbounded_channel();
        let id = "AAAAAAAAAAAAAAAAAAAAAA".to_owned();
        let mut later = State::genesis_of(LATER, id.clone());
        let node = Command::RegisterControlNode(meta::command::ControlNode {
            nonce: 1,
            name: "c".to_owned(),
            address: "c:1".to_owned(),
            region: "r".to_owned(),
            zone: "z".to_owned(),
            claims_as: "c".to_owned(),
            level: 2,
        });
        for command in [node, Command::SetFeatureLevel { level: 2 }] {
            let entry = meta::ids::EntryId::default();
            let applied = later.apply(entry, Stamp::default(), &command);
            assert_eq!(applied.reply, Reply::Done);
        }
        let mut chunks = later.capture().encode_chunks();
        let mut machine = Machine::new(ClusterNumber(1), State::genesis(id), groups, 16 << 20);
        let newer = machine.restore(chunks.clone());
        assert!(matches!(newer, Err(Unreadable::Newer(_))), "{newer:?}");
        chunks[0].clear();
        let damaged = machine.restore(chunks);
        assert!(
            matches!(damaged, Err(Unreadable::Damaged(_))),
            "{damaged:?}"
        );
    }

    #[test]
    fn whoever_follows_looks_at_everything_again_once_an_entry_is_left_out() {
        let (groups, mut changed) = mpsc::unbounded_channel();
        let state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
        let mut machine = Machine::new(ClusterNumber(1), state, groups, 16 << 20);
        let mut notices = machine.followers().follow();
        let before = machine.state().view_version();
        let entry = EntryId { index: 9, nonce: 1 };
        machine.left_out(entry, journal::entry::Stamp::default());
        let mut next = || futures::FutureExt::now_or_never(futures::StreamExt::next(&mut notices));
        let begin = next().flatten().expect("it is told from where on");
        let told = next().flatten().expect("it is told");
        assert_eq!((begin.to, begin.notices), (Position(0), vec![]));
        assert_eq!(
            (told.to, told.notices),
            (Position(9), vec![Notice::Anything])
        );
        let told = changed.try_recv();
        assert!(matches!(told, Ok(coordinator::Event::Reloaded)), "{told:?}");
        assert!(machine.state().view_version() > before);
    }

    #[test]
    fn a_level_that_this_release_does_not_know_stops_it_before_the_state_changes() {
        let (groups, _changed) = mpsc::unbounded_channel();
        let state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
        let mut machine = Machine::new(ClusterNumber(1), state, groups, 16 << 20);
        let mut apply = |command: &Command| {
            let entry = EntryId { index: 1, nonce: 1 };
            let stamp = journal::entry::Stamp {
                wall_millis: 1,
                ticks_millis: 1,
            };
            let applied = machine.apply(
                entry,
                stamp,
                ClusterNumber(1),
                &command.encode(&ONE).expect("level 1 has it"),
            );
            (applied, machine.seal())
        };
        let level = meta::level::Levels::KNOWN.newest().number + 1;
        let raise = Command::SetFeatureLevel { level };
        let (refused, _) = apply(&raise);
        assert!(matches!(refused, Ok((_, Reply::Refused(_)))), "{refused:?}");
        let (_, before) = apply(&Command::RegisterControlNode(meta::command::ControlNode {
            nonce: 1,
            name: "c".to_owned(),
            claims_as: "c".to_owned(),
            address: "c:1".to_owned(),
            region: "r".to_owned(),
            zone: "z".to_owned(),
            level,
        }));
        let (poison, after) = apply(&raise);
        assert!(poison.is_err(), "{poison:?}");
        assert_eq!(before, after);
    }
}
