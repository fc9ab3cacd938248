//! One file from cut to outcome: its requests, where their batches lie, and which call is due.
//! Pure. It must not know other files; their order is `sequence`'s.

use std::collections::BTreeSet;
use std::sync::Arc;

use host::clock::Instant;
use meta::commit::{BatchOutcome, CommitFile};
use meta::ids::FileId;

use super::batch::{Batch, Cut, Lane, Stored, Write};
use super::commit;
use super::event::{Answer, Effect, Failure};

#[derive(Debug)]
pub(super) enum Stage {
    /// The shell is uploading it.
    Uploading,
    /// It is durable; its commit waits for its turn.
    Stored(Stored),
    /// Its upload failed; its skip waits for its turn.
    Unstored,
    /// Its commit or skip was sent, and is repeated until the outcome is known.
    Sent {
        call: Call,
        /// When to repeat the call; `None` while a call is under way.
        repeat_at: Option<Instant>,
    },
}

impl Stage {
    pub(super) fn is_sent(&self) -> bool {
        matches!(self, Stage::Sent { .. })
    }
}

/// The call that decides a file's fate.
#[derive(Clone, Debug)]
pub(super) enum Call {
    Commit(Arc<CommitFile>),
    Skip,
}

/// A request in a file.
#[derive(Debug)]
struct Request<T, M> {
    /// `None` once it is answered.
    ticket: Option<T>,
    lane: Lane,
    batches: usize,
    /// True if the request is left out of the commit, since an earlier request of its lane failed.
    excluded: bool,
    _memory: M,
}

/// The request that a batch belongs to, and its index there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Owner {
    request: u32,
    slot: u32,
}

#[derive(Debug)]
pub(super) struct File<T, M> {
    pub(super) cut: Arc<Cut>,
    pub(super) cut_at: Instant,
    pub(super) stage: Stage,
    /// Calls made so far.
    pub(super) attempts: u32,
    /// True once a commit was sent: the file may have been committed.
    pub(super) commit_was_sent: bool,
    /// True if later requests on its lanes fail until it is settled.
    pub(super) failed_lanes: bool,
    /// True if the control plane refused its commit.
    pub(super) refused: bool,
    requests: Vec<Request<T, M>>,
    /// The owner of each of `cut.batches`.
    owners: Vec<Owner>,
}

impl<T, M> File<T, M> {
    /// Sorts the batches of `writes` into a file.
    pub(super) fn cut(now: Instant, file: FileId, nonce: u32, writes: Vec<Write<T, M>>) -> Self {
        let mut requests = Vec::with_capacity(writes.len());
        let mut placed: Vec<(Batch, Owner)> = Vec::with_capacity(writes.len());
        let mut pinned_bytes = 0;
        // The indexes fit: a file holds at most some thousands of requests and batches.
        for (request, write) in (0_u32..).zip(writes) {
            pinned_bytes += write.pinned_bytes;
            requests.push(Request {
                ticket: Some(write.ticket),
                lane: write.lane,
                batches: write.batches.len(),
                excluded: false,
                _memory: write.memory,
            });
            let owners = (0_u32..).map(|slot| Owner { request, slot });
            placed.extend(write.batches.into_iter().zip(owners));
        }
        // Stable: batches of one partition keep their order.
        placed.sort_by_key(|(batch, _)| batch.partition);
        let (batches, owners) = placed.into_iter().unzip();
        File {
            cut: Arc::new(Cut {
                file,
                nonce,
                batches,
                pinned_bytes,
            }),
            cut_at: now,
            stage: Stage::Uploading,
            attempts: 0,
            commit_was_sent: false,
            failed_lanes: false,
            refused: false,
            requests,
            owners,
        }
    }

    /// The number of its requests.
    pub(super) fn requests(&self) -> usize {
        self.requests.len()
    }

    /// The lanes of its requests that are not excluded.
    pub(super) fn lanes(&self) -> BTreeSet<Lane> {
        self.requests.iter().map(|request| request.lane).collect()
    }

    /// Leaves the requests of `lanes` out of the commit, which was not sent yet, and answers them:
    /// a batch that is in no commit is never written.
    pub(super) fn exclude(&mut self, lanes: &BTreeSet<Lane>, effects: &mut Vec<Effect<T>>) {
        for request in &mut self.requests {
            if lanes.contains(&request.lane) {
                request.excluded = true;
                request.answer(Err(Failure::Overtaking), effects);
            }
        }
    }

    /// Sends the file's first call; false if it is still being uploaded.
    pub(super) fn send(&mut self, effects: &mut Vec<Effect<T>>) -> bool {
        let call = match &self.stage {
            Stage::Uploading | Stage::Sent { .. } => return false,
            Stage::Unstored => Call::Skip,
            Stage::Stored(stored) => {
                let included = self
                    .owners
                    .iter()
                    .map(|owner| !self.requests[owner.request as usize].excluded);
                match commit::describe(&self.cut, stored, included) {
                    Some(commit) => Call::Commit(Arc::new(commit)),
                    // Every request was excluded, so there is nothing to commit.
                    None => Call::Skip,
                }
            }
        };
        self.call(call, effects);
        true
    }

    /// When to repeat the call, if it is to be repeated.
    pub(super) fn repeat_at(&self) -> Option<Instant> {
        match self.stage {
            Stage::Sent { repeat_at, .. } => repeat_at,
            _ => None,
        }
    }

    /// Repeats the call if it waits to be repeated.
    pub(super) fn repeat(&mut self, effects: &mut Vec<Effect<T>>) {
        if let Stage::Sent {
            call,
            repeat_at: Some(_),
        } = &self.stage
        {
            let call = call.clone();
            self.call(call, effects);
        }
    }

    pub(super) fn pause_until(&mut self, at: Instant) {
        if let Stage::Sent { repeat_at, .. } = &mut self.stage {
            *repeat_at = Some(at);
        }
    }

    /// Notes that the control plane will never accept the commit: the file is skipped, so that
    /// later files can go on.
    pub(super) fn refuse(&mut self, now: Instant) {
        self.refused = true;
        self.stage = Stage::Sent {
            call: Call::Skip,
            repeat_at: Some(now),
        };
    }

    fn call(&mut self, call: Call, effects: &mut Vec<Effect<T>>) {
        self.attempts = self.attempts.saturating_add(1);
        match &call {
            Call::Commit(commit) => {
                self.commit_was_sent = true;
                effects.push(Effect::Commit(Arc::clone(commit)));
            }
            Call::Skip => effects.push(Effect::Skip(self.cut.file)),
        }
        self.stage = Stage::Sent {
            call,
            repeat_at: None,
        };
    }

    /// Answers every request of a committed file from the outcomes of the commit's batches.
    pub(super) fn answer_committed(self, outcomes: &[BatchOutcome], effects: &mut Vec<Effect<T>>) {
        let mut answers: Vec<Vec<Option<BatchOutcome>>> = self
            .requests
            .iter()
            .map(|request| vec![None; request.batches])
            .collect();
        let included = self
            .owners
            .iter()
            .filter(|owner| !self.requests[owner.request as usize].excluded);
        for (owner, outcome) in included.zip(outcomes) {
            answers[owner.request as usize][owner.slot as usize] = Some(*outcome);
        }
        for (mut request, answer) in self.requests.into_iter().zip(answers) {
            let complete: Option<Vec<BatchOutcome>> = answer.into_iter().collect();
            // With fewer outcomes than batches, some of the batches may have been written.
            request.answer(complete.ok_or(Failure::Forgotten), effects);
        }
    }

    /// Answers every request of a file that was not committed, or of which that is not known.
    pub(super) fn answer_all(self, failure: Failure, effects: &mut Vec<Effect<T>>) {
        for mut request in self.requests {
            request.answer(Err(failure), effects);
        }
    }
}

impl<T, M> Request<T, M> {
    /// Answers the request, unless it was answered before.
    fn answer(&mut self, answer: Answer, effects: &mut Vec<Effect<T>>) {
        if let Some(ticket) = self.ticket.take() {
            effects.push(Effect::Answer { ticket, answer });
        }
    }
}
