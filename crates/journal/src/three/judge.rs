//! What chains prove of a slot to a reader (R10 to R13). It must not know how chains are read, nor what entries mean.

use std::sync::Arc;

use super::BUCKETS;
use super::ballot::Ballot;
use super::record::{Kind, Record};
use super::rule::{Mutation, Rules};
use super::view::View;
use crate::engine::Content;

/// Why a slot is known to be chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Proof {
    /// Two buckets accepted it under one ballot (R10): whoever relies on it reads the floor afterwards.
    Quorum,
    /// One bucket proves it (R11).
    OneBucket,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Verdict {
    Chosen(Ballot, Content, Proof),
    /// Two buckets hold no value: nothing was chosen at the moment of the earlier of the two reads, unless the slot was
    /// trimmed (R12).
    Free,
    Undecided,
}

/// A slot that was read and is proven to be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Proven {
    pub(crate) slot: u64,
    pub(crate) ballot: Ballot,
    pub(crate) content: Content,
    pub(crate) proof: Proof,
    /// Buckets that had acknowledged it to the leader of the ballot, by what was read of its records.
    pub(crate) acknowledged: [bool; BUCKETS],
}

/// What a scan came to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Reading {
    /// An unbroken run from the first slot on.
    pub(crate) slots: Vec<Proven>,
    /// If there is none: whether the first slot is free.
    pub(crate) is_free: bool,
    /// How many buckets have given their chain of the first slot.
    pub(crate) answered: usize,
    /// How many slots from the first one on hold a value, proven or not.
    pub(crate) seen: u64,
}

/// What the views of a slot prove; `later[b]` holds records of later slots in bucket `b`.
pub(crate) fn judge(
    slot: u64,
    views: &[View; BUCKETS],
    later: &[Vec<Arc<Record>>; BUCKETS],
    rules: Rules,
) -> Verdict {
    let usable = || {
        let numbered = views.iter().enumerate();
        numbered.filter(|(_, view)| !view.is_unusable)
    };
    for (bucket, view) in usable() {
        if let Some((ballot, content)) = alone(slot, view, &later[bucket], rules) {
            return Verdict::Chosen(ballot, content, Proof::OneBucket);
        }
    }
    for (bucket, view) in usable() {
        for accept in view.chain.iter().filter(|record| record.is_accept()) {
            let others = usable().filter(|(other, _)| *other > bucket);
            let agrees = |(_, other): (usize, &View)| {
                other
                    .chain
                    .iter()
                    .any(|record| adds_up(accept, record, rules))
            };
            let is_enough = rules.broken(Mutation::ReaderOneBucket);
            if let Some(content) = accept.content()
                && (is_enough || others.into_iter().any(agrees))
            {
                return Verdict::Chosen(accept.ballot, content.clone(), Proof::Quorum);
            }
        }
    }
    let empty = usable().filter(|(_, view)| view.is_whole && !view.has_value());
    match empty.count() >= 2 {
        true => Verdict::Free,
        false => Verdict::Undecided,
    }
}

/// Two accepts choose a value only under one ballot; two ballots with equal values do not add up.
fn adds_up(one: &Record, other: &Record, rules: Rules) -> bool {
    let is_one_ballot = one.ballot == other.ballot;
    let mixes = rules.broken(Mutation::ReaderMixBallots) && one.content() == other.content();
    other.is_accept() && (is_one_ballot || mixes)
}

/// What the bucket proves by itself: a learned record, or an accept whose own leader counted the slot later (R11).
fn alone(slot: u64, view: &View, later: &[Arc<Record>], rules: Rules) -> Option<(Ballot, Content)> {
    let chosen = |record: &Record| Some((record.ballot, record.content()?.clone()));
    if let Some(learned) = view.chain.iter().find(|record| record.is_learned()) {
        return chosen(learned);
    }
    let counted = |accept: &Record| {
        later.iter().any(|record| match record.kind {
            Kind::Accept { known, .. } => {
                let is_same = record.ballot == accept.ballot;
                known > slot && (is_same || rules.broken(Mutation::KnownAnyBallot))
            }
            Kind::Promise | Kind::Learned { .. } => false,
        })
    };
    let mut accepts = view.chain.iter().filter(|record| record.is_accept());
    chosen(accepts.find(|accept| counted(accept))?)
}
