//! What the engine asks of an etcd, each as one step with the condition that the prefix is the cluster's, and what the answers
//! mean. Pure. It must not know who asks, nor members.

use bytes::Bytes;
use journal::engine::Content;
use journal::engine::filler;

use crate::keys::{Keys, Span, floor_of, floor_text};
use crate::proto::compare::{CompareResult, CompareTarget, TargetUnion};
use crate::proto::request_op::Request;
use crate::proto::response_op::Response;
use crate::proto::{
    Compare, DeleteRangeRequest, KeyValue, PutRequest, RangeRequest, RangeResponse, RequestOp,
    TxnRequest, TxnResponse,
};
use crate::run::Deletion;

/// Why an answer tells nothing of the journal.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unfit {
    /// The prefix is not the cluster's.
    #[error("etcd's prefix is not this cluster's (any more): {0}")]
    Foreign(String),
    #[error("what etcd holds is damaged: {0}")]
    Damaged(String),
    #[error("etcd's answer makes no sense: {0}")]
    Strange(&'static str),
}

/// What came of a create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Created {
    /// The slot holds the value now, or held it already.
    Ours,
    /// It holds something else.
    Held(Bytes),
    /// It lies below this floor and is not there.
    Trimmed(u64),
}

/// What came of a trim's first step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Raised {
    /// The floor is the one that was asked for, and the slots of the step are deleted.
    Done,
    /// It was as high already; nothing was deleted.
    Before,
}

/// The requests of one cluster's journal.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    pub(crate) keys: Keys,
    shard: u16,
    /// What the prefix's key holds if it is the cluster's.
    identity: Bytes,
}

impl Requests {
    pub(crate) fn new(prefix: &str, shard: u16, cluster: &str) -> Self {
        Requests {
            keys: Keys::new(prefix, shard),
            shard,
            identity: Bytes::from(format!("seaway journal\nformat 1\ncluster {cluster}\n")),
        }
    }

    /// Makes the prefix the cluster's, if there is nothing below it.
    pub(crate) fn found(&self) -> TxnRequest {
        let everything = self.keys.everything();
        let nothing = Compare {
            range_end: everything.end.clone(),
            ..is_absent(everything.first.clone())
        };
        TxnRequest {
            compare: vec![nothing],
            success: vec![
                put(self.keys.cluster(), self.identity.clone()),
                put(self.keys.floor(), floor_text(0)),
            ],
            failure: vec![get(self.keys.cluster()), range(everything, 1, true)],
        }
    }

    /// Whether the prefix is the cluster's now; the error says what it is.
    pub(crate) fn founded(&self, answer: &TxnResponse) -> Result<(), Unfit> {
        if answer.succeeded {
            return Ok(());
        }
        let found = one(answer, 0)?;
        if found.is_some_and(|found| found.value == self.identity) {
            return Ok(());
        }
        let example = one(answer, 1)?.map(|found| found.key.clone());
        Err(foreign(found, example.as_ref()))
    }

    /// Whose the prefix is.
    pub(crate) fn verify(&self) -> TxnRequest {
        self.reading(Vec::new())
    }

    pub(crate) fn verified(&self, answer: &TxnResponse) -> Result<(), Unfit> {
        self.check(answer)
    }

    /// Reads the floor, and slots from this one on.
    pub(crate) fn read(&self, from: u64, limit: usize) -> TxnRequest {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let slots = range(self.keys.slots_from(from), limit, false);
        self.reading(vec![get(self.keys.floor()), slots])
    }

    /// The floor, and slots with what they hold, in order and with their gaps.
    pub(crate) fn slots(&self, answer: &TxnResponse) -> Result<(u64, Vec<(u64, Content)>), Unfit> {
        self.check(answer)?;
        let floor = floor(answer, 0)?;
        let mut slots = Vec::new();
        for kv in &ranged(answer, 1)?.kvs {
            let Some(index) = self.keys.index_of(&kv.key) else {
                let key = String::from_utf8_lossy(&kv.key);
                return Err(Unfit::Damaged(format!("{key} is no slot")));
            };
            slots.push((index, self.content(index, kv.value.clone())));
        }
        Ok((floor, slots))
    }

    pub(crate) fn content(&self, index: u64, value: Bytes) -> Content {
        if value == self.filler(index) {
            return Content::Filler;
        }
        Content::Entry(value)
    }

    pub(crate) fn filler(&self, index: u64) -> Bytes {
        filler::encode(self.shard, index)
    }

    /// Some slot from this one on, without what it holds.
    pub(crate) fn look(&self, from: u64) -> TxnRequest {
        self.reading(vec![range(self.keys.slots_from(from), 1, true)])
    }

    pub(crate) fn looked(&self, answer: &TxnResponse) -> Result<Option<u64>, Unfit> {
        self.check(answer)?;
        let first = one(answer, 0)?;
        Ok(first.and_then(|kv| self.keys.index_of(&kv.key)))
    }

    pub(crate) fn read_floor(&self) -> TxnRequest {
        self.reading(vec![get(self.keys.floor())])
    }

    pub(crate) fn floor(&self, answer: &TxnResponse) -> Result<u64, Unfit> {
        self.check(answer)?;
        floor(answer, 0)
    }

    /// Puts a value into a slot that is free and not below the floor.
    pub(crate) fn create(&self, index: u64, value: Bytes) -> TxnRequest {
        let slot = self.keys.slot(index);
        TxnRequest {
            compare: vec![
                self.is_ours(),
                is_absent(slot.clone()),
                self.is_floor(CompareResult::Less, index.saturating_add(1)),
            ],
            success: vec![put(slot.clone(), value)],
            failure: vec![get(self.keys.cluster()), get(self.keys.floor()), get(slot)],
        }
    }

    /// What came of putting `value`. That the slot holds it is enough: who put it was the same writer, in an attempt whose answer
    /// was lost.
    pub(crate) fn created(&self, answer: &TxnResponse, value: &Bytes) -> Result<Created, Unfit> {
        if answer.succeeded {
            return Ok(Created::Ours);
        }
        self.check(answer)?;
        match one(answer, 2)? {
            Some(found) if found.value == *value => Ok(Created::Ours),
            Some(found) => Ok(Created::Held(found.value.clone())),
            None => Ok(Created::Trimmed(floor(answer, 1)?)),
        }
    }

    /// Raises the floor to `to` and deletes in the same step, if the floor is lower.
    pub(crate) fn raise(&self, to: u64, deletions: &[Deletion]) -> TxnRequest {
        let mut success = vec![put(self.keys.floor(), floor_text(to))];
        success.extend(deletions.iter().map(|run| self.deletion(run)));
        TxnRequest {
            compare: vec![self.is_ours(), self.is_floor(CompareResult::Less, to)],
            success,
            failure: vec![get(self.keys.cluster()), get(self.keys.floor())],
        }
    }

    pub(crate) fn raised(&self, answer: &TxnResponse, to: u64) -> Result<Raised, Unfit> {
        if answer.succeeded {
            return Ok(Raised::Done);
        }
        self.check(answer)?;
        match floor(answer, 1)? {
            floor if floor >= to => Ok(Raised::Before),
            _ => Err(Unfit::Strange("the floor is lower and was not raised")),
        }
    }

    /// Deletes, if the floor is `floor` at least.
    pub(crate) fn delete(&self, floor: u64, deletions: &[Deletion]) -> TxnRequest {
        let below = floor.saturating_sub(1);
        TxnRequest {
            compare: vec![self.is_ours(), self.is_floor(CompareResult::Greater, below)],
            success: deletions.iter().map(|run| self.deletion(run)).collect(),
            failure: vec![get(self.keys.cluster()), get(self.keys.floor())],
        }
    }

    pub(crate) fn deleted(&self, answer: &TxnResponse) -> Result<(), Unfit> {
        if answer.succeeded {
            return Ok(());
        }
        self.check(answer)?;
        Err(Unfit::Strange("the floor was lowered"))
    }

    fn deletion(&self, run: &Deletion) -> RequestOp {
        let request = DeleteRangeRequest {
            key: self.keys.slot(run.first),
            range_end: self.keys.slot(run.end),
        };
        op(Request::Delete(request))
    }

    /// A request that only reads, and only what is the cluster's.
    fn reading(&self, reads: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            compare: vec![self.is_ours()],
            success: reads,
            failure: vec![get(self.keys.cluster())],
        }
    }

    fn is_ours(&self) -> Compare {
        is_value(
            CompareResult::Equal,
            self.keys.cluster(),
            self.identity.clone(),
        )
    }

    fn is_floor(&self, result: CompareResult, floor: u64) -> Compare {
        is_value(result, self.keys.floor(), floor_text(floor))
    }

    /// Refuses an answer whose conditions did not hold since the prefix is not the cluster's. The first thing that a request reads
    /// when they do not is whose it is.
    fn check(&self, answer: &TxnResponse) -> Result<(), Unfit> {
        if answer.succeeded {
            return Ok(());
        }
        let found = one(answer, 0)?;
        if found.is_some_and(|found| found.value == self.identity) {
            return Ok(());
        }
        Err(foreign(found, None))
    }
}

fn foreign(found: Option<&KeyValue>, example: Option<&Bytes>) -> Unfit {
    Unfit::Foreign(match (found, example) {
        (Some(found), _) => {
            let text = String::from_utf8_lossy(&found.value);
            let lines: Vec<&str> = text.lines().collect();
            format!("it says {:?}", lines.join(", "))
        }
        (None, Some(key)) => format!(
            "it has keys, for example {:?}, but not whose it is",
            String::from_utf8_lossy(key)
        ),
        (None, None) => "it does not say whose it is".to_owned(),
    })
}

fn op(request: Request) -> RequestOp {
    RequestOp {
        request: Some(request),
    }
}

fn put(key: Bytes, value: Bytes) -> RequestOp {
    op(Request::Put(PutRequest { key, value }))
}

fn get(key: Bytes) -> RequestOp {
    op(Request::Range(RangeRequest {
        key,
        ..RangeRequest::default()
    }))
}

fn range(span: Span, limit: i64, keys_only: bool) -> RequestOp {
    op(Request::Range(RangeRequest {
        key: span.first,
        range_end: span.end,
        limit,
        keys_only,
    }))
}

fn is_absent(key: Bytes) -> Compare {
    Compare {
        result: CompareResult::Equal.into(),
        target: CompareTarget::Create.into(),
        key,
        target_union: Some(TargetUnion::CreateRevision(0)),
        range_end: Bytes::new(),
    }
}

fn is_value(result: CompareResult, key: Bytes, value: Bytes) -> Compare {
    Compare {
        result: result.into(),
        target: CompareTarget::Value.into(),
        key,
        target_union: Some(TargetUnion::Value(value)),
        range_end: Bytes::new(),
    }
}

/// What the read in this place of the request has found.
fn ranged(answer: &TxnResponse, at: usize) -> Result<&RangeResponse, Unfit> {
    match answer.responses.get(at).and_then(|op| op.response.as_ref()) {
        Some(Response::Range(found)) => Ok(found),
        _ => Err(Unfit::Strange("a read is not answered")),
    }
}

/// The first key that the read in this place has found.
fn one(answer: &TxnResponse, at: usize) -> Result<Option<&KeyValue>, Unfit> {
    Ok(ranged(answer, at)?.kvs.first())
}

fn floor(answer: &TxnResponse, at: usize) -> Result<u64, Unfit> {
    let found = one(answer, at)?;
    let found = found.ok_or_else(|| Unfit::Damaged("the floor is gone".to_owned()))?;
    floor_of(&found.value).ok_or_else(|| Unfit::Damaged("the floor is no number".to_owned()))
}

#[cfg(test)]
mod tests;
