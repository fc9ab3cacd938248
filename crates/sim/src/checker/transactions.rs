//! Anomalies that only transactions can show.
//!
//! Must not know how transactions are run; a transaction is one `txn` operation.

use std::collections::{HashMap, HashSet};

use crate::history::{Bounds, Header, Kind, Shape};

use super::order::Orders;
use super::report::Findings;
use super::strong;
use super::tables::{KeyId, Op, OpId, Span, Tables, ValueId};

/// Runs all of them.
pub(super) fn check(header: &Header, tables: &Tables, orders: &Orders, findings: &mut Findings) {
    check_own_sends(tables, findings);
    check_torn(tables, findings);
    check_dirty(tables, findings);
    check_circles(tables, orders, findings);
    check_zombies(tables, findings);
    check_copies(header, tables, findings);
}

/// A transaction does not poll what itself sends.
fn check_own_sends(tables: &Tables, findings: &mut Findings) {
    for op in tables.ops.iter().filter(|op| op.shape == Shape::Txn) {
        let own: HashSet<ValueId> = op.sends.iter().copied().collect();
        for read in op.reads.iter().filter(|read| own.contains(&read.value)) {
            let what = format!("a transaction polled its own {}", tables.show(read.value));
            findings.anomaly("precommitted-read", what, [op.span.line]);
        }
    }
}

/// After a full final reading a transaction is visible as a whole or not at all.
fn check_torn(tables: &Tables, findings: &mut Findings) {
    let mut seen: Vec<HashSet<ValueId>> = tables.readings.iter().map(|_| HashSet::new()).collect();
    for op in &tables.ops {
        if let Some(reading) = op.reading {
            seen[reading].extend(op.reads.iter().map(|read| read.value));
        }
    }
    for (reading, seen) in tables.readings.iter().zip(&seen) {
        if !reading.ended || tables.process(reading.process).read_uncommitted {
            continue;
        }
        for op in transactions_before(tables, reading.span.begin_us) {
            let covered = |&value: &ValueId| {
                let key = tables.value(value).key;
                reading.keys.contains(&key) && !reading.unreached.contains(&key)
            };
            let values: Vec<ValueId> = op.sends.iter().copied().filter(covered).collect();
            let visible = values.iter().filter(|value| seen.contains(value)).count();
            let low = values.iter().any(|&value| tables.retired(value));
            if visible > 0 && visible < values.len() && !low {
                let what = format!(
                    "{visible} of {} values of a transaction are visible",
                    values.len()
                );
                findings.anomaly("torn-txn", what, [op.span.line, reading.span.line]);
            }
        }
    }
}

fn transactions_before(tables: &Tables, time_us: u64) -> impl Iterator<Item = &Op> {
    tables.ops.iter().filter(move |op| {
        // One whose end is not known may still commit while the reader passes; it counts if it began before.
        let end_us = if op.span.end_us == u64::MAX {
            op.span.begin_us
        } else {
            op.span.end_us
        };
        op.shape == Shape::Txn && end_us <= time_us
    })
}

/// A read_committed reader stays below the last stable offset, which never goes back: one listed later bounds it too.
fn check_dirty(tables: &Tables, findings: &mut Findings) {
    let stable = tables
        .bounds
        .iter()
        .map(|(&key, listed)| (key, lowest_after(listed)));
    let stable: HashMap<KeyId, Vec<Stable>> = stable.collect();
    for op in tables
        .ops
        .iter()
        .filter(|op| !tables.process(op.process).read_uncommitted)
    {
        for read in &op.reads {
            let Some(stable) = stable.get(&read.key) else {
                continue;
            };
            let at = stable.partition_point(|listed| listed.begin_us <= op.span.end_us);
            let Some(listed) = stable.get(at).filter(|listed| listed.lowest <= read.offset) else {
                continue;
            };
            let what = format!(
                "{} was read at {}, the last stable offset was still {}",
                tables.show(read.value),
                read.offset,
                listed.lowest
            );
            findings.anomaly("dirty-read", what, [op.span.line, listed.line]);
        }
    }
}

/// The lowest last stable offset listed at this time or later.
struct Stable {
    begin_us: u64,
    lowest: u64,
    line: u64,
}

fn lowest_after(listed: &[(Span, Bounds)]) -> Vec<Stable> {
    let mut stable: Vec<Stable> = listed
        .iter()
        .filter_map(|(span, bounds)| {
            let (begin_us, line) = (span.begin_us, span.line);
            bounds.lso.map(|lowest| Stable {
                begin_us,
                lowest,
                line,
            })
        })
        .collect();
    stable.sort_unstable_by_key(|listed| listed.begin_us);
    for at in (1..stable.len()).rev() {
        if stable[at].lowest < stable[at - 1].lowest {
            (stable[at - 1].lowest, stable[at - 1].line) = (stable[at].lowest, stable[at].line);
        }
    }
    stable
}

/// Write-read edges between operations make no circle; with write-write edges they may (Kafka interleaves writers).
fn check_circles(tables: &Tables, orders: &Orders, findings: &mut Findings) {
    if !tables.ops.iter().any(|op| op.shape == Shape::Txn) {
        return;
    }
    let mut edges: Vec<Vec<OpId>> = tables.ops.iter().map(|_| Vec::new()).collect();
    for (reader, op) in tables.ops.iter().enumerate() {
        for read in &op.reads {
            let writer = tables.value(read.value).sent.as_ref().map(|sent| sent.op);
            edges[reader].extend(writer.filter(|&writer| writer != reader));
        }
    }
    for circle in strong::cycles(&edges) {
        let what = format!(
            "{} transactions read from each other in a circle",
            circle.len()
        );
        findings.anomaly(
            "g1c",
            what,
            circle.iter().map(|&op| tables.ops[op].span.line),
        );
    }
    for key in 0..tables.keys.len() {
        for pair in orders.of(key as u32).entries.windows(2) {
            let writer = |id: ValueId| tables.value(id).sent.as_ref().map(|sent| sent.op);
            if let (Some(first), Some(second)) = (writer(pair[0].1), writer(pair[1].1))
                && first != second
            {
                edges[second].push(first);
            }
        }
    }
    for circle in strong::cycles(&edges) {
        let what = format!("{} operations write and read in a circle", circle.len());
        let lines = circle.iter().take(8).map(|&op| tables.ops[op].span.line);
        findings.note("g0-or-g1c-with-ww", what, lines);
    }
}

/// No transaction succeeds under an epoch when a newer one existed before it began.
fn check_zombies(tables: &Tables, findings: &mut Findings) {
    type Newest = Vec<(u64, (i64, i64), u64)>;
    let mut by_id: HashMap<&str, Newest> = HashMap::new();
    for open in &tables.opens {
        if let (Some(name), Some(id), Some(epoch)) = (&open.transactional, open.id, open.epoch) {
            by_id
                .entry(name)
                .or_default()
                .push((open.end_us, (id, epoch), open.line));
        }
    }
    for op in tables
        .ops
        .iter()
        .filter(|op| op.kind == Kind::Ok && !op.sends.is_empty())
    {
        let Some(open) = op.opened.map(|open| &tables.opens[open]) else {
            continue;
        };
        let (Some(name), Some(id), Some(epoch)) = (&open.transactional, open.id, open.epoch) else {
            continue;
        };
        let newer = by_id
            .get(name.as_str())
            .into_iter()
            .flatten()
            .find(|(end_us, at, _)| {
                let newer = if at.0 == id {
                    at.1 > epoch
                } else {
                    *end_us > open.end_us
                };
                newer && *end_us < op.span.begin_us
            });
        if let Some((_, (new_id, new_epoch), line)) = newer {
            let what = format!(
                "{name}: a send of producer {id} epoch {epoch} was acknowledged although {new_id} epoch {new_epoch} existed"
            );
            findings.anomaly("zombie-accepted", what, [op.span.line, *line]);
        }
    }
}

/// Each input has one committed output.
fn check_copies(header: &Header, tables: &Tables, findings: &mut Findings) {
    let mut outputs: HashMap<ValueId, Vec<ValueId>> = HashMap::new();
    for (id, entry) in tables.values.iter().enumerate() {
        let input = entry.sent.as_ref().and_then(|sent| sent.copy_of);
        if let Some(input) = input.filter(|_| tables.must_commit(id as ValueId)) {
            outputs.entry(input).or_default().push(id as ValueId);
        }
    }
    for (id, entry) in tables.values.iter().enumerate() {
        let id = id as ValueId;
        let count = outputs.get(&id).map_or(0, Vec::len);
        let name = tables.key(entry.key);
        let wanted = header.copy_inputs.iter().any(|key| key == name);
        if count > 1 || (count == 0 && wanted && tables.must_commit(id)) {
            let what = format!("{} has {count} committed outputs", tables.show(id));
            let lines = outputs.get(&id).into_iter().flatten().copied().chain([id]);
            let lines = lines
                .filter_map(|value| tables.sender(value))
                .map(|op| op.span.line);
            findings.anomaly("eos-copy", what, lines);
        }
    }
}
