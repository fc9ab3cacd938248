//! The appending of the entry that leaves out, for all nodes, an entry that cannot be applied. It must not know why that
//! cannot be applied.

use host::clock::Instant;

use super::context::{Cx, Question, Request};
use super::flight::Flight;
use super::{Event, Following, Purpose, State};
use crate::engine::Append;
use crate::entry::{Body, Entry, EntryId, Header};
use crate::rule::Rule;

/// This node's claim counts, and it appends nothing but the quarantine of the entry at which it is stuck.
pub(super) struct Quarantining {
    stage: Stage,
}

enum Stage {
    /// Makes sure that no snapshot holds the entry: there may be nothing left from which a state without it can be built.
    Asking(Question),
    Appending(Flight),
}

impl Quarantining {
    /// `floor` was read after the claim.
    pub(super) fn begin(cx: &mut Cx<'_>, floor: u64) -> State {
        let asked = cx.lasting.settings.quarantine;
        let Some(stuck) = cx
            .lasting
            .stuck
            .as_ref()
            .filter(|stuck| stuck.may_be_left_out(asked))
        else {
            return State::Following(Following::begin(cx));
        };
        let from = stuck.index;
        if stuck.is_below(floor) {
            return State::Following(Following::begin(cx)).rebuild(cx, None);
        }
        let request = Request::FindSnapshot { from };
        State::Quarantining(Quarantining {
            stage: Stage::Asking(Question::ask(cx, Purpose::Lead, request)),
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Asking(question) => question.deadline(),
            Stage::Appending(flight) => flight.retry_at(),
        }
    }

    pub(super) fn handle(mut self, cx: &mut Cx<'_>, event: Event) -> State {
        match (event, &mut self.stage) {
            (Event::SnapshotFound(ask, found), Stage::Asking(question)) if question.is(ask) => {
                match found {
                    Ok(found) => return self.found(cx, found),
                    Err(_) => question.failed(cx),
                }
            }
            (Event::AppendDone(id, outcome), Stage::Appending(flight)) if flight.awaits(id) => {
                match outcome {
                    // It is read like another's.
                    Append::Appended => return State::Following(Following::begin(cx)),
                    // The slots tell what became of it.
                    Append::Superseded => return State::Quarantining(self).stand_down(cx),
                    Append::Unknown(_) => flight.failed(cx),
                }
            }
            (Event::Timer, Stage::Asking(question)) => question.timer(cx),
            (Event::Timer, Stage::Appending(flight)) => flight.timer(cx),
            (event, _) => cx.refuse_for_want_of_lead(event),
        }
        State::Quarantining(self)
    }

    fn found(mut self, cx: &mut Cx<'_>, found: Option<u64>) -> State {
        let lasting = &mut cx.lasting;
        let holds = lasting.rules.hold(Rule::QuarantineBeforeSnapshots);
        let Some(stuck) = &mut lasting.stuck else {
            return State::Following(Following::begin(cx));
        };
        if let Some(snapshot) = found.filter(|_| holds) {
            stuck.object(format!(
                "the snapshot at entry {snapshot} holds it, so a node has applied it: run the version that wrote the snapshot"
            ));
            return State::Following(Following::begin(cx));
        }
        let Some(item) = stuck.command() else {
            return State::Following(Following::begin(cx));
        };
        let chain = &lasting.chain;
        let header = Header {
            shard: chain.shard(),
            id: EntryId {
                index: chain.next(),
                nonce: 0,
            },
            claim: chain.claim(),
            predecessor: chain.last(),
            stamp: chain.stamp(),
        };
        let id = EntryId {
            nonce: lasting.nonce(),
            ..header.id
        };
        let header = Header { id, ..header };
        let body = Body::Commands(vec![item]);
        let bytes = Entry { header, body }.encode();
        let flight = Flight::new(id, bytes, header.stamp, cx.now.boot);
        cx.out.push(flight.effect());
        self.stage = Stage::Appending(flight);
        State::Quarantining(self)
    }
}
