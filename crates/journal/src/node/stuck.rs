//! An entry that this build cannot apply: what a node knows of it, whether it may be left out, and the entry that leaves it
//! out for all nodes. It must not know why the entry cannot be applied.
//!
//! A node that is stuck goes on checking the chain, so that it finds a quarantine that another node appends. Itself it claims
//! only for that, on an operator's word, and never leads.

use host::clock::Instant;

use super::context::{Cx, Question, Request};
use super::flight::Flight;
use super::{Event, Following, Purpose, State};
use crate::engine::{Append, WINDOW};
use crate::entry::{Body, Entry, EntryId, Header};
use crate::quarantine::{self, Word};
use crate::rule::Rule;

/// The first entry that cannot be applied here.
#[derive(Debug)]
pub(super) struct Stuck {
    pub(super) index: u64,
    /// Why it cannot, as the state machine says.
    why: String,
    /// The entry, once it was read again: its claim, and its SHA-256.
    entry: Option<(EntryId, [u8; 32])>,
    /// Why it may not be left out.
    objection: Option<String>,
    /// Whether the end of the journal was reached, so that no quarantine of it is there.
    pub(super) is_last_word: bool,
}

impl Stuck {
    pub(super) fn at(index: u64, why: String) -> Self {
        Stuck {
            index,
            why,
            entry: None,
            objection: None,
            is_last_word: false,
        }
    }

    /// Takes note of a valid entry with commands; `only_quarantines` if it has no others.
    pub(super) fn saw(
        &mut self,
        header: &Header,
        sha256: impl FnOnce() -> [u8; 32],
        only_quarantines: bool,
        claimant: Option<&str>,
    ) {
        let index = header.id.index;
        if index == self.index {
            self.entry = Some((header.claim, sha256()));
        }
        let Some((claim, _)) = self.entry else {
            return;
        };
        // What its own leader had in flight then says nothing.
        let is_beyond =
            index > self.index && (header.claim != claim || index > self.index + WINDOW);
        if is_beyond && !only_quarantines && self.objection.is_none() {
            let leader = claimant.unwrap_or("another node");
            self.objection = Some(format!(
                "{leader} has applied it and led on, and what was acknowledged since rests on it: run the version that {leader} \
                 runs"
            ));
        }
    }

    /// The word by which an operator has it left out.
    pub(super) fn word(&self) -> Option<Word> {
        let (_, sha256) = self.entry.as_ref()?;
        Some(Word::of(self.index, sha256))
    }

    /// Whether `asked`, the operator's word, has it left out.
    pub(super) fn may_be_left_out(&self, asked: Option<Word>) -> bool {
        asked.is_some() && asked == self.word() && self.objection.is_none()
    }

    /// What there is to know, and what an operator can do.
    pub(super) fn tell(&self, asked: Option<Word>) -> String {
        let index = self.index;
        let mut text = format!(
            "entry {index} of the journal cannot be applied: {}. This node serves nothing, applies nothing after it, and reads on. ",
            self.why
        );
        let (objection, word) = (self.objection.as_ref(), self.word());
        text += &match (objection, word) {
            (Some(objection), _) => format!("It cannot be left out: {objection}"),
            (None, Some(word)) if asked == Some(word) => {
                "It is being left out, as the operator wants".to_owned()
            }
            (None, Some(word)) => format!(
                "Run a version that can apply it. If there is none, every node can do without it, and what it holds is lost: \
                 start one node with journal.quarantine={word}"
            ),
            (None, None) => "It is read again".to_owned(),
        };
        if let (Some(asked), None) = (asked.filter(|asked| Some(*asked) != word), objection) {
            text += &format!(" (it was started with {asked}, which is another entry)");
        }
        text
    }
}

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
            .as_mut()
            .filter(|stuck| stuck.may_be_left_out(asked))
        else {
            return State::Following(Following::begin(cx));
        };
        let from = stuck.index;
        if floor > from {
            stuck.objection = Some(format!("the journal is trimmed below {floor}"));
            return State::Following(Following::begin(cx));
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
            stuck.objection = Some(format!(
                "the snapshot at entry {snapshot} holds it, so a node has applied it: run the version that wrote the snapshot"
            ));
            return State::Following(Following::begin(cx));
        }
        let Some((_, sha256)) = stuck.entry else {
            return State::Following(Following::begin(cx));
        };
        let item = quarantine::command(stuck.index, &sha256, &stuck.why);
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
