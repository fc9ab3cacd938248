//! The asking and appending that leaves out, for all nodes, an entry that cannot be applied. It must not know why that
//! cannot be applied, nor how others are asked.

use host::clock::Instant;

use super::context::{Cx, Question, Request};
use super::flight::Flight;
use super::{Event, Following, Purpose, Said, State, Taking};
use crate::engine::Append;
use crate::entry::{Body, Entry, EntryId, Header};
use crate::rule::Rule;

/// This node wants to append the quarantine of the entry at which it is stuck, or has claimed for that, and appends nothing else.
pub(super) struct Quarantining {
    stage: Stage,
}

enum Stage {
    /// Before the claim, which would take the lead from a node that has applied the entry: makes sure that none which is there has.
    Hearing(Question),
    /// The claim counts. Makes sure that no snapshot holds the entry: there may be nothing left from which a state without it can be
    /// built.
    Finding(Question),
    /// Hears the others again: the leader before the claim may have applied the entry meanwhile. From now on nobody can lead beyond it.
    HearingAgain(Question),
    Appending(Flight),
}

impl Quarantining {
    /// Begins with the others, before there is a claim, unless an operator forces it.
    pub(super) fn begin(cx: &mut Cx<'_>) -> State {
        let Some(slot) = wanted(cx) else {
            return State::Following(Following::begin(cx));
        };
        if is_forced(cx) {
            return State::Taking(Taking::begin(cx));
        }
        let request = Request::Hear { slot };
        State::Quarantining(Quarantining {
            stage: Stage::Hearing(Question::ask(cx, Purpose::Follow, request)),
        })
    }

    /// The claim counts; `floor` was read after it.
    pub(super) fn go_on(cx: &mut Cx<'_>, floor: u64) -> State {
        let Some(from) = wanted(cx) else {
            return State::Following(Following::begin(cx));
        };
        let stuck = cx.lasting.stuck.as_ref();
        if stuck.is_some_and(|stuck| stuck.is_below(floor)) {
            return State::Following(Following::begin(cx)).rebuild(cx, None);
        }
        let request = Request::FindSnapshot { from };
        State::Quarantining(Quarantining {
            stage: Stage::Finding(Question::ask(cx, Purpose::Lead, request)),
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.stage {
            Stage::Hearing(question) | Stage::Finding(question) | Stage::HearingAgain(question) => {
                question.deadline()
            }
            Stage::Appending(flight) => flight.retry_at(),
        }
    }

    pub(super) fn handle(mut self, cx: &mut Cx<'_>, event: Event) -> State {
        match (event, &mut self.stage) {
            (Event::Heard(ask, heard), Stage::Hearing(question)) if question.is(ask) => match heard
            {
                Ok(said) if may_go_on(cx, &said) => return State::Taking(Taking::begin(cx)),
                Ok(_) => return State::Following(Following::begin(cx)),
                Err(_) => question.failed(cx),
            },
            (Event::SnapshotFound(ask, found), Stage::Finding(question)) if question.is(ask) => {
                match found {
                    Ok(found) => return self.found(cx, found),
                    Err(_) => question.failed(cx),
                }
            }
            (Event::Heard(ask, heard), Stage::HearingAgain(question)) if question.is(ask) => {
                match heard {
                    Ok(said) if may_go_on(cx, &said) => return append(cx),
                    Ok(_) => return State::Following(Following::begin(cx)),
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
            (
                Event::Timer,
                Stage::Hearing(question) | Stage::Finding(question) | Stage::HearingAgain(question),
            ) => question.timer(cx),
            (Event::Timer, Stage::Appending(flight)) => flight.timer(cx),
            (event, _) => cx.refuse_for_want_of_lead(event),
        }
        State::Quarantining(self)
    }

    fn found(mut self, cx: &mut Cx<'_>, found: Option<u64>) -> State {
        let holds = cx.lasting.rules.hold(Rule::QuarantineBeforeSnapshots);
        let Some(stuck) = &mut cx.lasting.stuck else {
            return State::Following(Following::begin(cx));
        };
        if let Some(snapshot) = found.filter(|_| holds) {
            stuck.object(format!(
                "the snapshot at entry {snapshot} holds it, so a node has applied it: run the version that wrote the snapshot"
            ));
            return State::Following(Following::begin(cx));
        }
        let slot = stuck.index;
        if is_forced(cx) {
            return append(cx);
        }
        self.stage = Stage::HearingAgain(Question::ask(cx, Purpose::Lead, Request::Hear { slot }));
        State::Quarantining(self)
    }
}

/// The slot of the entry that is to be left out, if nothing speaks against it.
fn wanted(cx: &Cx<'_>) -> Option<u64> {
    let asked = cx.lasting.settings.quarantine;
    let stuck = cx.lasting.stuck.as_ref()?;
    stuck.may_be_left_out(asked).then_some(stuck.index)
}

fn is_forced(cx: &Cx<'_>) -> bool {
    let asked = cx.lasting.settings.quarantine;
    asked.is_some_and(|order| order.is_forced)
}

/// Whether the entry may be left out after what the others have said.
fn may_go_on(cx: &mut Cx<'_>, said: &[Said]) -> bool {
    let lasting = &mut cx.lasting;
    if lasting.rules.hold(Rule::QuarantineBeforeLiveReplicas)
        && let Some(stuck) = &mut lasting.stuck
    {
        stuck.hear(said);
    }
    wanted(cx).is_some()
}

/// Appends the quarantine.
fn append(cx: &mut Cx<'_>) -> State {
    let lasting = &mut cx.lasting;
    let item = lasting.stuck.as_ref().and_then(|stuck| stuck.command());
    let Some(item) = item else {
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
    State::Quarantining(Quarantining {
        stage: Stage::Appending(flight),
    })
}
