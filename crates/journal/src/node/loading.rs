//! Starting from a snapshot, or from an empty journal. It must not know how snapshots are read.

use host::clock::Instant;

use super::context::{Cx, Question, Request};
use super::{Event, Following, Loaded, Purpose, State};
use crate::chain::Chain;
use crate::engine::{self, Content, End};
use crate::entry::{Entry, EntryId};
use crate::rule::Rule;
use crate::snapshot::Cut;

/// How often snapshots are looked for before a node refuses to go on without one.
const LOOKS_FOR_SNAPSHOTS: u32 = 5;

/// Looking for a snapshot.
#[derive(Default)]
pub(super) struct Loading {
    question: Option<Question>,
    /// How many looks in a row found no usable snapshot.
    looks: u32,
}

impl Loading {
    /// Looks for a snapshot above this index.
    pub(super) fn begin(cx: &mut Cx<'_>, above: u64) -> Self {
        Loading {
            question: Some(Question::ask(
                cx,
                Purpose::Start,
                Request::Load { above, anew: false },
            )),
            looks: 0,
        }
    }

    /// Begins with another state in place of the one in use.
    pub(super) fn anew(cx: &mut Cx<'_>) -> Self {
        let request = Request::Load {
            above: 0,
            anew: true,
        };
        Loading {
            question: Some(Question::ask(cx, Purpose::Start, request)),
            looks: 0,
        }
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.question.as_ref().and_then(Question::deadline)
    }

    pub(super) fn handle(mut self, cx: &mut Cx<'_>, event: Event) -> State {
        match (event, &mut self.question) {
            (Event::Started, _) => return State::Loading(Loading::begin(cx, 0)),
            (Event::Timer, Some(question)) => question.timer(cx),
            (Event::SnapshotLoaded(ask, result), Some(question)) if question.is(ask) => {
                return self.loaded(cx, result);
            }
            (event, _) => cx.refuse_for_want_of_lead(event),
        }
        State::Loading(self)
    }

    fn loaded(mut self, cx: &mut Cx<'_>, result: Result<Loaded, engine::Error>) -> State {
        let (refusal, is_newer) = match result {
            Err(error) if !cx.lasting.rules.hold(Rule::StartsAreRepeated) => {
                return State::Loading(self).halt(cx, error.to_string());
            }
            Err(_) => {
                self.later(cx);
                return State::Loading(self);
            }
            Ok(Loaded::Restored { cut, floor, .. }) if cut.last.index < floor => {
                let index = cut.last.index;
                let damaged = [format!("the one at {index} is too old")];
                (unreadable(floor, &damaged), false)
            }
            Ok(Loaded::Restored { cut, bytes, .. }) => {
                return Verifying::begin(cx, *cut, bytes);
            }
            Ok(Loaded::Nothing {
                floor,
                damaged,
                is_newer: false,
            }) if floor > cx.lasting.chain.next() => (unreadable(floor, &damaged), false),
            Ok(Loaded::Nothing { floor, damaged, .. }) if floor > cx.lasting.chain.next() => {
                (unused(floor, &damaged), true)
            }
            Ok(Loaded::Nothing { .. }) => return State::Following(Following::begin(cx)),
        };
        // A listing may lag and bytes may be altered on the way: one look is not enough to stop.
        self.looks += 1;
        if self.looks >= LOOKS_FOR_SNAPSHOTS {
            let state = State::Loading(self);
            return match is_newer {
                true => state.outdated(cx, &refusal),
                false => state.halt(cx, refusal),
            };
        }
        self.later(cx);
        State::Loading(self)
    }

    fn later(&mut self, cx: &mut Cx<'_>) {
        if let Some(question) = &mut self.question {
            question.failed(cx);
        }
    }
}

/// A snapshot was restored; the node checks that the journal still holds the entry at which it was
/// cut.
pub(super) struct Verifying {
    last: EntryId,
    question: Question,
    /// True if the slot holds something else, so that the floor must be read.
    doubt: bool,
}

impl Verifying {
    fn begin(cx: &mut Cx<'_>, cut: Cut, bytes: u64) -> State {
        if cut.shard != cx.lasting.settings.shard {
            let found = cut.shard;
            let why = format!("the newest snapshot belongs to shard {found} of the journal");
            return State::Loading(Loading::default()).halt(cx, why);
        }
        let last = cut.last;
        let chain = Chain::resume(cut.shard, cut.claim, last, cut.stamp);
        cx.lasting.chain = chain.under(cx.lasting.rules);
        cx.lasting.claimant = Some(cut.claimant.clone());
        for one in &cut.quarantined {
            cx.lasting.quarantined.entry(one.slot).or_insert(*one);
        }
        // Who cannot apply an entry can do with a state that others have built of it.
        cx.lasting.stuck.take_if(|stuck| stuck.index <= last.index);
        cx.lasting.retention.resume(cx.now.boot, cut, bytes);
        let (from, limit) = (last.index, 1);
        State::Verifying(Verifying {
            last,
            question: Question::ask(cx, Purpose::Verify, Request::Scan { from, limit }),
            doubt: false,
        })
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.question.deadline()
    }

    pub(super) fn handle(mut self, cx: &mut Cx<'_>, event: Event) -> State {
        match event {
            Event::Timer => self.question.timer(cx),
            Event::Scanned(ask, run) if self.question.is(ask) => {
                match (run.slots.first().map(|slot| &slot.content), run.end) {
                    (None, End::Undecided(_) | End::Unsettled) => self.question.failed(cx),
                    (Some(Content::Entry(bytes)), _) if entry_id(bytes) == Some(self.last) => {
                        return State::Following(Following::begin(cx));
                    }
                    // The entry is gone, or a sleeper put another there: the slot may have been
                    // trimmed since.
                    _ => {
                        let end = cx.lasting.chain.next();
                        self.doubt = true;
                        self.question = Question::ask(cx, Purpose::Verify, Request::Floor { end });
                    }
                }
            }
            Event::FloorRead(ask, floor) if self.doubt && self.question.is(ask) => match floor {
                Err(engine::Error::Unavailable(_)) => self.question.failed(cx),
                Err(engine::Error::Corrupt(why)) => return State::Verifying(self).halt(cx, why),
                Ok(floor) if self.last.index < floor => return State::Verifying(self).reload(cx),
                Ok(_) => {
                    let why = format!(
                        "a snapshot was cut at entry {:?}, which the journal does not hold: the \
                         journal is older than its snapshots or another cluster's. Point to the \
                         right bucket, or restore the journal and the snapshots together",
                        self.last
                    );
                    return State::Verifying(self).halt(cx, why);
                }
            },
            event => cx.refuse_for_want_of_lead(event),
        }
        State::Verifying(self)
    }
}

fn entry_id(slot: &bytes::Bytes) -> Option<EntryId> {
    Some(Entry::decode(slot).ok()?.header.id)
}

fn unused(floor: u64, damaged: &[String]) -> String {
    let found = match damaged {
        [] => "there is no snapshot".to_owned(),
        some => format!("no snapshot can be used: {}", some.join("; ")),
    };
    format!("the journal begins at {floor} and {found}")
}

fn unreadable(floor: u64, damaged: &[String]) -> String {
    let found = unused(floor, damaged);
    format!(
        "{found}. This node does not start with an empty state; restore the objects below snapshots/ and chunks/ from a copy \
         of the bucket"
    )
}
