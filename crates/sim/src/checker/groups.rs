//! Anomalies of committed group offsets: each (group, key) is a register that commits write and fetches read.
//!
//! Must not know how groups share keys.

use std::collections::HashMap;

use crate::history::Kind;

use super::order::Orders;
use super::report::Findings;
use super::tables::{GroupKey, GroupOp, KeyId, ProcessId, Tables};

/// Runs all of them.
pub(super) fn check(tables: &Tables, orders: &Orders, findings: &mut Findings) {
    let mut names: Vec<&(String, KeyId)> = tables.groups.keys().collect();
    names.sort_unstable();
    for name in names {
        let entry = &tables.groups[name];
        check_register(tables, name, entry, findings);
        check_too_far(tables, orders, name, entry, findings);
    }
}

fn check_register(
    tables: &Tables,
    (group, key): &(String, KeyId),
    entry: &GroupKey,
    findings: &mut Findings,
) {
    let mut by_end: Vec<&GroupOp> = entry
        .commits
        .iter()
        .filter(|commit| commit.kind == Kind::Ok)
        .collect();
    by_end.sort_by_key(|commit| commit.span.end_us);
    let mut fetches: Vec<&GroupOp> = entry.fetches.iter().collect();
    fetches.sort_by_key(|fetch| fetch.span.begin_us);
    let mut by_offset: HashMap<u64, Vec<&GroupOp>> = HashMap::new();
    for commit in &entry.commits {
        by_offset
            .entry(commit.offset.unwrap_or_default())
            .or_default()
            .push(commit);
    }
    let mut ended = 0;
    // When the latest of the commits that ended before the fetch began: what ended before that is overwritten.
    let mut newest: Option<&GroupOp> = None;
    for fetch in fetches {
        while by_end
            .get(ended)
            .is_some_and(|commit| commit.span.end_us < fetch.span.begin_us)
        {
            let commit = by_end[ended];
            if newest.is_none_or(|newest| commit.span.begin_us > newest.span.begin_us) {
                newest = Some(commit);
            }
            ended += 1;
        }
        let name = tables.key(*key);
        let Some(offset) = fetch.offset else {
            if let Some(newest) = newest {
                let what = format!("{group} {name}: no offset after one was committed");
                findings.anomaly(
                    "group-offset-back",
                    what,
                    [newest.span.line, fetch.span.line],
                );
            }
            continue;
        };
        let mut candidates = by_offset
            .get(&offset)
            .into_iter()
            .flatten()
            .filter(|commit| commit.kind != Kind::Fail && commit.span.begin_us < fetch.span.end_us)
            .peekable();
        if candidates.peek().is_none() {
            let what = format!("{group} {name}: fetched {offset}, which nobody committed");
            findings.anomaly("group-offset-unknown", what, [fetch.span.line]);
        } else if let Some(newest) = newest
            && candidates.all(|commit| ended_before(commit, newest))
        {
            let what = format!(
                "{group} {name}: fetched {offset} after {} was committed",
                newest.offset.unwrap_or_default()
            );
            findings.anomaly(
                "group-offset-back",
                what,
                [newest.span.line, fetch.span.line],
            );
        }
    }
}

fn ended_before(commit: &GroupOp, newest: &GroupOp) -> bool {
    commit.kind == Kind::Ok && commit.span.end_us < newest.span.begin_us
}

/// A fetched offset lies at most behind the last value that the group polled.
fn check_too_far(
    tables: &Tables,
    orders: &Orders,
    (group, key): &(String, KeyId),
    entry: &GroupKey,
    findings: &mut Findings,
) {
    if entry.fetches.is_empty() {
        return;
    }
    let member = |process: ProcessId| {
        tables.process(process).group.as_ref() == Some(group) || entry.committers.contains(&process)
    };
    let mut polled: Vec<(u64, u64)> = Vec::new();
    for op in tables.ops.iter().filter(|op| member(op.process)) {
        let reads = op.reads.iter().filter(|read| read.key == *key);
        polled.extend(reads.map(|read| (op.span.begin_us, read.offset)));
    }
    polled.sort_unstable();
    let order = orders.of(*key);
    for fetch in &entry.fetches {
        let Some(offset) = fetch.offset else { continue };
        let before = polled
            .iter()
            .take_while(|(begin_us, _)| *begin_us < fetch.span.end_us);
        let next = before.map(|&(_, offset)| offset + 1).max().unwrap_or(0);
        if next < offset
            && order
                .required_in(order.rank(next), order.rank(offset))
                .is_some()
        {
            let what = format!(
                "{group} {}: committed {offset}, the group polled up to {next}",
                tables.key(*key)
            );
            findings.anomaly("committed-too-far", what, [fetch.span.line]);
        }
    }
}
