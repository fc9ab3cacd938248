//! The order of files, from cut to answer. Pure: `handle(now, event)` returns effects, which the
//! shell or the simulator performs. It must not know buckets, control nodes or Kafka.
//!
//! Files are numbered as they are cut. Uploads run side by side and end in any order; `CommitFile`
//! and `Skip` are sent in the order of the numbers, each after all before it were sent, and
//! repeated until their outcome is known. Calls that wait to be repeated go out together, in order,
//! and at once when a file before them is settled: after a while without a leader all are behind,
//! and a pause for each would add up. A file whose upload failed is skipped, and only when the
//! skip is applied are its requests answered, as definite failures. Later requests of the same
//! connections are left out of the following commits and fail likewise, so that a retry cannot be
//! overtaken by a request that was sent after it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use host::backoff::Backoff;
use host::clock::Instant;
use host::rng::Rng;
use meta::commit::{BatchOutcome, FileReply};
use meta::ids::{FileId, Incarnation};

use super::batch::{Lane, Stored, Write};
use super::batcher::{Batcher, Limits};
use super::event::{Effect, Event, Failure};
use super::file::{File, Stage};

/// Calls of `commit` and `skip` under way at one time: well below the 64 outcomes that the state
/// machine keeps per incarnation, so that every repeated call finds its own.
const CALLS_MAX: usize = 16;
/// The pauses before a call is repeated.
const REPEAT: Backoff = Backoff::new(Duration::from_millis(5), Duration::from_millis(500));

/// The pipeline from requests to answers.
#[derive(Debug)]
pub struct Sequence<T, M = ()> {
    batcher: Batcher<T, M>,
    incarnation: Option<Incarnation>,
    /// Files cut and not yet settled, by number.
    files: BTreeMap<u64, File<T, M>>,
    next_number: u64,
    /// The lowest number whose commit or skip was not sent yet.
    next_to_send: u64,
    uploads: usize,
    /// For each lane, in how many files that are being skipped it has requests; new requests on it
    /// fail.
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

    /// Takes an event; appends what is to be done to `effects`.
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

    /// When [`Event::Timer`] is due; `None` if nothing depends on time. An instant in the past
    /// means at once.
    pub fn deadline(&self) -> Option<Instant> {
        let cut = self
            .incarnation
            .and_then(|_| self.batcher.due(self.uploads));
        cut.into_iter().chain(self.repeat_at()).min()
    }

    /// True if every request has its outcome.
    pub fn is_idle(&self) -> bool {
        self.batcher.is_empty() && self.files.is_empty()
    }

    /// The incarnation under which files are named; `None` until one is given.
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.incarnation
    }

    /// True if files can be named, which a fenced pipeline cannot until it has registered again.
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

    fn cut(&mut self, now: Instant, effects: &mut Vec<Effect<T>>) {
        let Some(incarnation) = self.incarnation else {
            return;
        };
        let is_due = |due: Instant| due <= now;
        while self.batcher.due(self.uploads).is_some_and(is_due) {
            let unsettled = self.files.values().map(File::requests).sum();
            let writes = self.batcher.cut(now, unsettled);
            let id = FileId {
                incarnation,
                number: self.next_number,
            };
            self.next_number += 1;
            self.uploads += 1;
            let nonce = (self.rng.next_u64() >> 32) as u32;
            let file = File::cut(now, id, nonce, writes);
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

    /// Excludes the requests that follow a failed file on its lanes from later files. None of these
    /// was committed yet, since the failed file's turn comes before theirs.
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

    /// Sends the commits and skips whose turn has come, in order.
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

    /// When the calls that wait are repeated: the first of them decides, since all others would meet
    /// a gap without it.
    fn repeat_at(&self) -> Option<Instant> {
        self.files.values().find_map(File::repeat_at)
    }

    /// Repeats all calls that wait once the pause of the first is over, lowest number first.
    fn repeat(&mut self, now: Instant, effects: &mut Vec<Effect<T>>) {
        if self.repeat_at().is_some_and(|at| at <= now) {
            for file in self.files.values_mut() {
                file.repeat(effects);
            }
        }
    }

    /// Ends the pause of the calls that wait, since the one before them was answered.
    fn repeat_now(&mut self, now: Instant) {
        let mut files = self.files.values_mut();
        if let Some(file) = files.find(|file| file.repeat_at().is_some()) {
            file.pause_until(now);
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
            Ok(FileReply::Committed { outcomes }) => {
                self.committed(now, id, &outcomes, effects);
                self.repeat_now(now);
            }
            Ok(FileReply::Skipped) => {
                let failure = if file.refused {
                    Failure::Refused
                } else {
                    Failure::NotStored
                };
                self.close(id, failure, effects);
                self.repeat_now(now);
            }
            Ok(FileReply::Decided) => {
                self.decided(id, effects);
                self.repeat_now(now);
            }
            Ok(FileReply::Fenced | FileReply::UnknownIncarnation) => self.fenced(effects),
            // The call had no effect, since it came before that of an earlier file.
            Ok(FileReply::Gap { .. }) => self.overtook(now, id),
            Ok(FileReply::PlacementRefused | FileReply::Malformed)
            | Err(rpc::Error::Refused { .. }) => file.refuse(now),
            Err(_) => self.pause(now, id),
        }
    }

    /// A call came before that of an earlier file: it is repeated once that is settled, at once if that has happened meanwhile.
    fn overtook(&mut self, now: Instant, id: FileId) {
        let first = self.files.keys().next();
        if first == Some(&id.number)
            && let Some(file) = self.files.get_mut(&id.number)
        {
            return file.pause_until(now + REPEAT.after(0, &mut self.rng));
        }
        self.pause(now, id);
    }

    fn pause(&mut self, now: Instant, id: FileId) {
        let Some(file) = self.files.get_mut(&id.number) else {
            return;
        };
        file.pause_until(now + REPEAT.after(file.attempts, &mut self.rng));
    }

    fn committed(
        &mut self,
        now: Instant,
        id: FileId,
        outcomes: &[BatchOutcome],
        effects: &mut Vec<Effect<T>>,
    ) {
        let Some(file) = self.files.remove(&id.number) else {
            return;
        };
        self.batcher.committed(now.since(file.cut_at));
        file.answer_committed(outcomes, effects);
        effects.push(Effect::Settled {
            file: id,
            committed: true,
        });
    }

    /// The control plane no longer knows a file's outcome. A file for which only skips were sent
    /// was certainly not committed.
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

    /// Settles a file without a known commit.
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

    /// The incarnation was fenced by another start of this agent or by an operator: no file of it
    /// that is uncommitted now will ever be committed.
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
