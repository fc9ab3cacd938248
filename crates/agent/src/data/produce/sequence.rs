//! The order of files, from cut to answer. Pure: `handle(now, event)` returns effects, and the
//! shell, or the simulator, performs them. It must not know buckets, control nodes or Kafka.
//!
//! Files are numbered as they are cut. Uploads run side by side and end in any order; `CommitFile`
//! and `Skip` are sent in the order of the numbers, each once everything before it was sent, and
//! repeated until their outcome is known. A file whose upload failed is skipped, and only when the
//! skip is applied are its requests told, as definite; what came later on the same connections is
//! left out of the commits that follow and fails likewise, so that a retry cannot be overtaken by
//! what was sent after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use host::backoff::Backoff;
use host::clock::Instant;
use host::rng::Rng;
use meta::commit::{BatchOutcome, CommitFile, FileReply};
use meta::ids::{FileId, Incarnation};

use super::batch::{Lane, Write};
use super::batcher::{Batcher, Limits};
use super::file::{Cut, File, Stage, Stored};

/// Calls of `commit` and `skip` under way at one time: well below the 64 outcomes that the state
/// machine keeps per incarnation, so that every repeat finds its own.
const CALLS_MAX: usize = 16;
/// The pauses before a call is repeated.
const REPEAT: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(500));

/// Why a request's batches were not, or may not have been, written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// Its file could not be stored; nothing of it is or ever will be committed.
    NotStored,
    /// An earlier request of the same connection failed; nothing of this one is or will be
    /// committed.
    Overtaking,
    /// The control plane refused the file; nothing of it is or ever will be committed.
    Refused,
    /// The agent lost its incarnation before the outcome was known: it may have been committed.
    Fenced,
    /// The outcome was forgotten before it was learned: it may have been committed.
    Forgotten,
}

impl Failure {
    /// True if nothing of the request is or ever will be committed.
    pub fn is_definite(self) -> bool {
        matches!(
            self,
            Failure::NotStored | Failure::Overtaking | Failure::Refused
        )
    }
}

/// What happened to a request: an outcome per batch, in the order of the request.
pub type Answer = Result<Vec<BatchOutcome>, Failure>;

/// What the pipeline is told.
#[derive(Debug)]
pub enum Event<T, M = ()> {
    Write(Write<T, M>),
    /// Time passed; see [`Sequence::deadline`].
    Timer,
    /// The agent is registered and may name files.
    Registered(Incarnation),
    /// The agent was started again, here or elsewhere, as this incarnation: earlier ones commit
    /// nothing any more.
    Replaced(Incarnation),
    /// A file is durable.
    Uploaded {
        file: FileId,
        stored: Stored,
    },
    /// A file was not seen to become durable before its deadline; it may yet.
    UploadFailed {
        file: FileId,
    },
    /// A call of `commit` or `skip` ended.
    Called {
        file: FileId,
        result: Result<FileReply, rpc::Error>,
    },
    /// Nothing more will come: what waits is cut at once.
    Drain,
}

/// What the pipeline wants done.
#[derive(Debug)]
pub enum Effect<T> {
    /// Build the file from these batches, in this order, and upload it.
    Upload(Arc<Cut>),
    /// Commit the file by a call.
    Commit(Arc<CommitFile>),
    /// Skip the file by a call.
    Skip(FileId),
    /// The file is committed or never will be; `committed` says which, if it is known.
    Settled {
        file: FileId,
        /// Whether readers will ask for it.
        committed: bool,
    },
    Answer {
        ticket: T,
        answer: Answer,
    },
    /// Register again: this incarnation is fenced.
    Register,
}

/// The pipeline from requests to answers.
#[derive(Debug)]
pub struct Sequence<T, M = ()> {
    batcher: Batcher<T, M>,
    incarnation: Option<Incarnation>,
    /// Files cut and not settled, by number.
    files: BTreeMap<u64, File<T, M>>,
    next_number: u64,
    /// The lowest number for which neither commit nor skip was sent.
    next_to_send: u64,
    uploads: usize,
    /// Lanes of files that are being skipped, and by how many of these: what comes on them fails.
    failing: BTreeMap<Lane, u32>,
    rng: Rng,
}

impl<T, M> Sequence<T, M> {
    /// A pipeline that waits to be registered. `seed` is for the nonces of files and the jitter of repeats.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Sequence {
            batcher: Batcher::new(limits),
            incarnation: None,
            files: BTreeMap::new(),
            next_number: 0,
            next_to_send: 0,
            uploads: 0,
            failing: BTreeMap::new(),
            rng: Rng::seeded(seed),
        }
    }

    /// Takes an event; what is to be done is appended to `effects`.
    pub fn handle(&mut self, now: Instant, event: Event<T, M>, effects: &mut Vec<Effect<T>>) {
        match event {
            Event::Write(write) => self.take(write, effects),
            Event::Timer => {}
            Event::Registered(incarnation) => self.register(incarnation),
            Event::Replaced(by) if self.incarnation.is_some_and(|ours| ours < by) => {
                self.fenced(effects);
            }
            Event::Replaced(_) => {}
            Event::Uploaded { file, stored } => self.uploaded(file, Some(stored), effects),
            Event::UploadFailed { file } => self.uploaded(file, None, effects),
            Event::Called { file, result } => self.called(now, file, result, effects),
            Event::Drain => self.batcher.drain(),
        }
        self.cut(now, effects);
        self.send(now, effects);
    }

    /// When [`Event::Timer`] is wanted; `None` if nothing depends on time. An instant in the past
    /// means at once.
    pub fn deadline(&self) -> Option<Instant> {
        let cut = self
            .incarnation
            .and_then(|_| self.batcher.due(self.uploads));
        let repeat = self.files.values().filter_map(File::repeat_at).min();
        cut.into_iter().chain(repeat).min()
    }

    /// True if no request is without an outcome.
    pub fn is_idle(&self) -> bool {
        self.batcher.is_empty() && self.files.is_empty()
    }

    /// True if files can be named; between being fenced and registering again they cannot.
    pub fn is_registered(&self) -> bool {
        self.incarnation.is_some()
    }

    fn take(&mut self, write: Write<T, M>, effects: &mut Vec<Effect<T>>) {
        if self.failing.contains_key(&write.lane) {
            let answer = Err(Failure::Overtaking);
            effects.push(Effect::Answer {
                ticket: write.ticket,
                answer,
            });
            return;
        }
        self.batcher.add(write);
    }

    fn register(&mut self, incarnation: Incarnation) {
        self.incarnation = Some(incarnation);
        self.next_number = 0;
        self.next_to_send = 0;
    }

    /// Cuts every file that is due.
    fn cut(&mut self, now: Instant, effects: &mut Vec<Effect<T>>) {
        let Some(incarnation) = self.incarnation else {
            return;
        };
        let is_due = |due: Instant| due <= now;
        while self.batcher.due(self.uploads).is_some_and(is_due) {
            let unsettled = self.files.values().map(File::requests).sum();
            let writes = self.batcher.cut(unsettled);
            let id = FileId {
                incarnation,
                number: self.next_number,
            };
            self.next_number += 1;
            self.uploads += 1;
            let nonce = (self.rng.next_u64() >> 32) as u32;
            let file = File::cut(id, nonce, writes);
            effects.push(Effect::Upload(Arc::clone(&file.cut)));
            self.files.insert(id.number, file);
        }
    }

    fn uploaded(&mut self, id: FileId, stored: Option<Stored>, effects: &mut Vec<Effect<T>>) {
        if Some(id.incarnation) != self.incarnation {
            return;
        }
        let Some(file) = self.files.get_mut(&id.number) else {
            return;
        };
        if !matches!(file.stage, Stage::Uploading) {
            return;
        }
        self.uploads = self.uploads.saturating_sub(1);
        match stored {
            Some(stored) => file.stage = Stage::Stored(stored),
            None => {
                file.stage = Stage::Unstored;
                self.fail_lanes(id.number, effects);
            }
        }
    }

    /// Marks everything that came after a failed file on one of its lanes: none of it was sent,
    /// since the failed file was not.
    fn fail_lanes(&mut self, number: u64, effects: &mut Vec<Effect<T>>) {
        let Some(file) = self.files.get_mut(&number) else {
            return;
        };
        file.failed_lanes = true;
        let lanes = file.lanes();
        for lane in &lanes {
            *self.failing.entry(*lane).or_default() += 1;
        }
        for (_, later) in self.files.range_mut(number + 1..) {
            later.exclude(&lanes, effects);
        }
        for write in self.batcher.withdraw(|write| lanes.contains(&write.lane)) {
            let answer = Err(Failure::Overtaking);
            effects.push(Effect::Answer {
                ticket: write.ticket,
                answer,
            });
        }
    }

    /// Sends commits and skips, in order, as far as their turn has come.
    fn send(&mut self, now: Instant, effects: &mut Vec<Effect<T>>) {
        self.repeat(now, effects);
        loop {
            let calling = self
                .files
                .values()
                .filter(|file| file.stage.is_sent())
                .count();
            let number = self.next_to_send;
            let Some(file) = self.files.get_mut(&number) else {
                return;
            };
            if calling >= CALLS_MAX || !file.send(effects) {
                return;
            }
            self.next_to_send += 1;
        }
    }

    /// Repeats calls whose pause is over, lowest number first.
    fn repeat(&mut self, now: Instant, effects: &mut Vec<Effect<T>>) {
        for file in self.files.values_mut() {
            file.repeat(now, effects);
        }
    }

    fn called(
        &mut self,
        now: Instant,
        id: FileId,
        result: Result<FileReply, rpc::Error>,
        effects: &mut Vec<Effect<T>>,
    ) {
        if Some(id.incarnation) != self.incarnation {
            return;
        }
        let Some(file) = self.files.get_mut(&id.number) else {
            return;
        };
        match result {
            Ok(FileReply::Committed { outcomes }) => self.committed(id, &outcomes, effects),
            Ok(FileReply::Skipped) => {
                let failure = if file.refused {
                    Failure::Refused
                } else {
                    Failure::NotStored
                };
                self.close(id, failure, effects);
            }
            Ok(FileReply::Decided) => self.decided(id, effects),
            Ok(FileReply::Fenced | FileReply::UnknownIncarnation) => self.fenced(effects),
            // The file before this one is not applied yet; nothing happened.
            Ok(FileReply::Gap { .. }) => self.pause(now, id),
            Ok(FileReply::PlacementRefused | FileReply::Malformed)
            | Err(rpc::Error::Refused { .. }) => file.refuse(now),
            Err(_) => self.pause(now, id),
        }
    }

    fn pause(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.files.get_mut(&id.number) else {
            return;
        };
        file.pause_until(now + REPEAT.after(file.attempts, &mut self.rng));
    }

    fn committed(&mut self, id: FileId, outcomes: &[BatchOutcome], effects: &mut Vec<Effect<T>>) {
        let Some(file) = self.files.remove(&id.number) else {
            return;
        };
        file.answer_committed(outcomes, effects);
        effects.push(Effect::Settled {
            file: id,
            committed: true,
        });
    }

    /// The outcome of a file was asked for too late. Of a file that was only ever skipped the
    /// outcome is known all the same.
    fn decided(&mut self, id: FileId, effects: &mut Vec<Effect<T>>) {
        let was_sent = self
            .files
            .get(&id.number)
            .is_some_and(|file| file.commit_was_sent);
        let failure = if was_sent {
            Failure::Forgotten
        } else {
            Failure::NotStored
        };
        self.close(id, failure, effects);
    }

    /// Ends a file without a commit that is known.
    fn close(&mut self, id: FileId, failure: Failure, effects: &mut Vec<Effect<T>>) {
        let Some(file) = self.files.remove(&id.number) else {
            return;
        };
        if file.failed_lanes {
            for lane in file.lanes() {
                self.release(lane);
            }
        }
        file.answer_all(failure, effects);
        effects.push(Effect::Settled {
            file: id,
            committed: false,
        });
    }

    fn release(&mut self, lane: Lane) {
        if let Some(count) = self.failing.get_mut(&lane) {
            *count -= 1;
            if *count == 0 {
                self.failing.remove(&lane);
            }
        }
    }

    /// Another start of this agent, or an operator, fenced the incarnation: no file of it that is
    /// not committed now ever will be.
    fn fenced(&mut self, effects: &mut Vec<Effect<T>>) {
        let files = std::mem::take(&mut self.files);
        let mut lanes = BTreeSet::new();
        let Some(incarnation) = self.incarnation.take() else {
            return;
        };
        for (number, file) in files {
            lanes.extend(file.lanes());
            let failure = if file.commit_was_sent {
                Failure::Fenced
            } else {
                Failure::NotStored
            };
            file.answer_all(failure, effects);
            let file = FileId {
                incarnation,
                number,
            };
            effects.push(Effect::Settled {
                file,
                committed: false,
            });
        }
        for write in self.batcher.withdraw(|write| lanes.contains(&write.lane)) {
            let answer = Err(Failure::Overtaking);
            effects.push(Effect::Answer {
                ticket: write.ticket,
                answer,
            });
        }
        self.failing.clear();
        self.uploads = 0;
        effects.push(Effect::Register);
    }
}
