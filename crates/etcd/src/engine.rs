//! The engine on etcd. It must not know what entries mean.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::try_join_all;
use journal::engine::settle::{Settle, Step};
use journal::engine::tenures::{Sending, Tenures};
use journal::engine::{
    Append, Content, End, Engine, Error, Limits, Scan, TakeError, Taken, Tenure,
};

use crate::client::Client;
use crate::grpc::Failure;
use crate::location::Location;
use crate::proto::{TxnRequest, TxnResponse};
use crate::requests::{Created, Raised, Requests, Unfit};
use crate::run::{self, PAGE_MIN, deletions, next_page, unbroken};
use crate::security::Security;

/// The largest slot: etcd refuses requests of more than 1.5 MiB, unless its operator says otherwise.
const SLOT_BYTES_MAX: usize = 1 << 20;

/// The journal of one shard of one cluster in an etcd. Its clones are one engine.
#[derive(Clone)]
pub struct Etcd {
    pub(crate) shared: Arc<Shared>,
}

/// What an engine and its tenures share.
pub(crate) struct Shared {
    pub(crate) client: Client,
    pub(crate) requests: Requests,
    location: Location,
    /// How many slots to read at once.
    page: AtomicUsize,
    /// Tenures begun; only the last one may be at work.
    tenures: Tenures,
    /// The revision of the last trim.
    trimmed_at: AtomicI64,
}

impl Etcd {
    /// The journal of `cluster` at `location`. Nothing is asked of etcd yet: see [`Etcd::admit`].
    pub fn new(location: &Location, security: &Security, cluster: &str, shard: u16) -> Self {
        Etcd {
            shared: Arc::new(Shared {
                client: Client::new(&location.endpoints, security),
                requests: Requests::new(&location.prefix, shard, cluster),
                location: location.clone(),
                page: AtomicUsize::new(PAGE_MIN),
                tenures: Tenures::default(),
                trimmed_at: AtomicI64::new(0),
            }),
        }
    }
}

impl Shared {
    async fn ask<T>(
        &self,
        request: &TxnRequest,
        read: impl FnOnce(&TxnResponse) -> Result<T, Unfit>,
    ) -> Result<T, Error> {
        let answer = self.client.txn(request).await.map_err(unavailable)?;
        read(&answer).map_err(unfit)
    }

    /// The floor, and so many slots from `from` on, in order and with their gaps.
    async fn read(&self, from: u64, limit: usize) -> Result<(u64, Vec<(u64, Content)>), Error> {
        let request = self.requests.read(from, limit);
        self.ask(&request, |answer| self.requests.slots(answer))
            .await
    }

    /// A page of slots from `from` on, and how many were asked for. It is short until slots are known to be small.
    async fn page(&self, from: u64, limit: usize) -> Result<(Vec<(u64, Content)>, usize), Error> {
        let mut asked = self.page.load(Ordering::Relaxed).min(limit);
        let request = self.requests.read(from, asked);
        let answer = match self.client.txn(&request).await {
            Err(Failure::TooLong) if asked > PAGE_MIN => {
                asked = PAGE_MIN;
                let request = self.requests.read(from, asked);
                self.client.txn(&request).await
            }
            answer => answer,
        };
        let (_, slots) = self
            .requests
            .slots(&answer.map_err(unavailable)?)
            .map_err(unfit)?;
        let bytes = slots.iter().map(|(_, content)| match content {
            Content::Entry(bytes) => bytes.len(),
            Content::Filler => 0,
        });
        self.page
            .store(next_page(slots.len(), bytes.sum()), Ordering::Relaxed);
        Ok((slots, asked))
    }

    /// Closes the slot if it is free; yields what it holds afterwards.
    async fn fill(&self, index: u64) -> Result<Content, TakeError> {
        let filler = self.requests.filler(index);
        let request = self.requests.create(index, filler.clone());
        let read = |answer: &TxnResponse| self.requests.created(answer, &filler);
        match self.ask(&request, read).await.map_err(not_taken)? {
            Created::Ours => Ok(Content::Filler),
            Created::Held(value) => Ok(self.requests.content(index, value)),
            Created::Trimmed(floor) => Err(TakeError::Trimmed(floor)),
        }
    }

    /// Makes the steps of one round at the same time; reads are one request.
    async fn steps(
        &self,
        from: u64,
        round: &[Step],
    ) -> Result<Vec<(Step, Option<Content>)>, TakeError> {
        let reads = || {
            round.iter().filter_map(|step| match step {
                Step::Read(index) => Some(*index),
                Step::Fill(_) => None,
            })
        };
        let mut answers = Vec::new();
        if let (Some(first), Some(last)) = (reads().min(), reads().max()) {
            let count = usize::try_from(last - first + 1).unwrap_or(usize::MAX);
            let (floor, slots) = self.read(first, count).await.map_err(not_taken)?;
            // A writer that slept finds trimmed slots free: there is no use in closing them.
            if floor > from {
                return Err(TakeError::Trimmed(floor));
            }
            for index in reads() {
                let held = slots.iter().find(|(at, _)| *at == index);
                let held = held.map(|(_, content)| content.clone());
                answers.push((Step::Read(index), held));
            }
        }
        let fills = round.iter().filter_map(|step| match step {
            Step::Read(_) => None,
            Step::Fill(index) => Some(*index),
        });
        let fills = fills.map(|index| async move {
            let content = self.fill(index).await?;
            Ok::<_, TakeError>((Step::Fill(index), Some(content)))
        });
        answers.extend(try_join_all(fills).await?);
        Ok(answers)
    }

    /// Has etcd forget what was trimmed the time before last: whoever else uses it may still read what is newer.
    async fn compact(&self, revision: i64) {
        let before = self.trimmed_at.swap(revision, Ordering::AcqRel);
        if before == 0 {
            return;
        }
        // What was trimmed is deleted all the same, and the client has told why etcd refuses.
        drop(self.client.compact(before).await);
    }

    /// What to do about a prefix that is not the cluster's.
    pub(crate) fn advice(&self, why: &str, is_new: bool) -> String {
        let location = &self.location;
        if is_new {
            return format!(
                "{location} is in use already ({why}): give this cluster a prefix of its own there, --journal \
                 etcd://HOST:PORT/PREFIX"
            );
        }
        format!(
            "{location} does not hold this cluster's journal ({why}): name the etcd and the prefix that do; or it has lost \
             them, and is restored from a backup"
        )
    }
}

#[async_trait]
impl Engine for Etcd {
    async fn scan(&self, from: u64, limit: usize) -> Scan {
        match self.shared.page(from, limit.max(1)).await {
            Ok((slots, asked)) => {
                let (slots, end) = unbroken(slots, from, asked);
                Scan { slots, end }
            }
            Err(error) => Scan {
                slots: Vec::new(),
                end: End::Undecided(error.to_string()),
            },
        }
    }

    async fn above(&self, index: u64) -> Result<Option<u64>, Error> {
        let requests = &self.shared.requests;
        let request = requests.look(index.saturating_add(1));
        self.shared
            .ask(&request, |answer| requests.looked(answer))
            .await
    }

    async fn floor(&self) -> Result<u64, Error> {
        let requests = &self.shared.requests;
        let request = requests.read_floor();
        self.shared
            .ask(&request, |answer| requests.floor(answer))
            .await
    }

    async fn take(&self, from: u64, through: u64) -> Result<Taken, TakeError> {
        let shared = &self.shared;
        let begun = shared.tenures.begin();
        let mut settle = Settle::new(from, through);
        loop {
            let round = settle.round();
            if round.is_empty() {
                break;
            }
            for (step, content) in shared.steps(from, &round).await? {
                settle.answer(step, content);
            }
        }
        let (settled, first) = settle.settled();
        let tenure = Held {
            shared: Arc::clone(shared),
            sending: begun.starting_at(first),
        };
        Ok(Taken {
            tenure: Arc::new(tenure),
            settled,
        })
    }

    /// The name of a slot's key decides it, so the mark is empty.
    fn mark(&self, _: u64) -> Bytes {
        Bytes::new()
    }

    fn adopt(&self, mark: &[u8]) -> Result<(), Error> {
        if mark.is_empty() {
            return Ok(());
        }
        let why = "the snapshot carries the mark of another engine".to_owned();
        Err(Error::Corrupt(why))
    }

    fn limits(&self) -> Limits {
        Limits {
            slot_bytes_max: SLOT_BYTES_MAX,
            takes_give_way: false,
            takes_seal: false,
        }
    }
}

/// A tenure on etcd.
struct Held {
    shared: Arc<Shared>,
    sending: Sending,
}

#[async_trait]
impl Tenure for Held {
    async fn append(&self, index: u64, _nonce: u128, bytes: Bytes) -> Append {
        if let Err(why) = self.sending.window().admit(index, &bytes) {
            tracing::debug!(index, why, "an append was refused, which ends the tenure");
            return Append::Superseded;
        }
        let shared = &self.shared;
        let request = shared.requests.create(index, bytes.clone());
        let read = |answer: &TxnResponse| shared.requests.created(answer, &bytes);
        match shared.ask(&request, read).await {
            Ok(Created::Ours) => {
                self.sending.window().appended(index);
                Append::Appended
            }
            // Somebody else has written the slot; or it was written and trimmed since, which only another leader does.
            Ok(Created::Held(_) | Created::Trimmed(_)) => {
                self.sending.window().end();
                Append::Superseded
            }
            Err(error) => Append::Unknown(error.to_string()),
        }
    }

    fn confirmed(&self) {
        self.sending.window().confirm();
    }

    async fn trim(&self, floor: u64, indices: &[u64]) -> Result<(), Error> {
        if self.sending.window().is_over() {
            return Err(Error::Unavailable("the tenure is over".to_owned()));
        }
        assert!(
            indices.iter().all(|index| *index < floor),
            "only slots below the floor are trimmed"
        );
        let (shared, requests) = (&self.shared, &self.shared.requests);
        let steps: Vec<Vec<run::Deletion>> = deletions(indices);
        let mut steps = steps.iter();
        let first = steps.next().map(Vec::as_slice).unwrap_or_default();
        let mut revision = 0;
        let mut note = |answer: &TxnResponse| {
            revision = answer.header.map_or(0, |header| header.revision);
        };
        let raise = requests.raise(floor, first);
        let raised = shared.ask(&raise, |answer| {
            note(answer);
            requests.raised(answer, floor)
        });
        let left = match raised.await? {
            Raised::Done => None,
            Raised::Before => Some(first),
        };
        for step in left.into_iter().chain(steps.map(Vec::as_slice)) {
            if step.is_empty() {
                continue;
            }
            let delete = requests.delete(floor, step);
            let deleted = shared.ask(&delete, |answer| {
                note(answer);
                requests.deleted(answer)
            });
            deleted.await?;
        }
        shared.compact(revision).await;
        Ok(())
    }
}

fn unavailable(failure: Failure) -> Error {
    Error::Unavailable(failure.to_string())
}

fn unfit(unfit: Unfit) -> Error {
    match unfit {
        Unfit::Damaged(_) => Error::Corrupt(unfit.to_string()),
        // The wrong etcd may answer for a moment, where a name leads elsewhere.
        Unfit::Foreign(_) | Unfit::Strange(_) => Error::Unavailable(unfit.to_string()),
    }
}

fn not_taken(error: Error) -> TakeError {
    TakeError::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests;
