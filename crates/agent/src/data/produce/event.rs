//! What the produce pipeline is told and what it wants done: the events and effects of `sequence`, as plain values.

use std::sync::Arc;

use meta::commit::{BatchOutcome, CommitFile, FileReply};
use meta::ids::{FileId, Incarnation};

use super::batch::{Cut, Stored, Write};

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

/// The outcome of a request: one per batch, in the order of the request.
pub type Answer = Result<Vec<BatchOutcome>, Failure>;

#[derive(Debug)]
pub enum Event<T, M = ()> {
    Write(Write<T, M>),
    /// Time passed; see [`Sequence::deadline`].
    Timer,
    /// The agent is registered and may name files.
    Registered(Incarnation),
    /// The agent has registered as this incarnation, here or elsewhere: earlier ones commit nothing
    /// any more.
    Replaced(Incarnation),
    /// A file is durable.
    Uploaded {
        file: FileId,
        stored: Stored,
    },
    /// A file's upload was given up at its deadline; it may become durable yet.
    UploadFailed {
        file: FileId,
    },
    /// A call of `commit` or `skip` ended.
    Called {
        file: FileId,
        result: Result<FileReply, rpc::Error>,
    },
    /// No more requests will come: waiting ones are cut at once.
    Drain,
}

#[derive(Debug)]
pub enum Effect<T> {
    /// Build the file from these batches, in this order, and upload it.
    Upload(Arc<Cut>),
    /// Commit the file by a call.
    Commit(Arc<CommitFile>),
    /// Skip the file by a call.
    Skip(FileId),
    /// The file's fate is decided; `committed` says which, if it is known.
    Settled {
        file: FileId,
        /// Whether readers may ask for it.
        committed: bool,
    },
    Answer {
        ticket: T,
        answer: Answer,
    },
    /// Register again: this incarnation is fenced.
    Register,
}
