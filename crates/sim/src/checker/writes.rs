//! Anomalies of single values and of the order in which values were appended.
//!
//! Must not look at consumers' positions.

use std::collections::HashMap;

use crate::history::Kind;

use super::order::Orders;
use super::report::Findings;
use super::tables::{KeyId, Stamp, Tables, ValueEntry, ValueId};

/// Runs all of them.
pub(super) fn check(tables: &Tables, orders: &Orders, findings: &mut Findings) {
    check_offsets(tables, orders, findings);
    check_duplicates(tables, findings);
    check_answers(tables, findings);
    check_reads(tables, findings);
    check_lost(tables, orders, findings);
    check_send_order(tables, findings);
    check_append_order(tables, orders, findings);
}

fn line_of(tables: &Tables, value: ValueId) -> Option<u64> {
    tables.sender(value).map(|op| op.span.line)
}

/// An offset holds one value.
fn check_offsets(tables: &Tables, orders: &Orders, findings: &mut Findings) {
    for (key, name) in tables.keys.iter().enumerate() {
        for pair in orders.of(key as KeyId).entries.windows(2) {
            let [(offset, first), (next, second)] = [pair[0], pair[1]];
            if offset == next {
                let (first_label, second_label) =
                    (&tables.value(first).label, &tables.value(second).label);
                findings.anomaly(
                    "inconsistent-offsets",
                    format!("{name} offset {offset} holds {first_label} and {second_label}"),
                    line_of(tables, first)
                        .into_iter()
                        .chain(line_of(tables, second)),
                );
            }
        }
    }
}

/// A value lies at one offset; where it lies at more, batch headers may show that the client sent it again.
fn check_duplicates(tables: &Tables, findings: &mut Findings) {
    let first_seqs = first_sequences(tables);
    for (id, entry) in tables.values.iter().enumerate() {
        if entry.places.len() < 2 {
            continue;
        }
        let id = id as ValueId;
        let mut places = entry.places.clone();
        places.sort_unstable();
        let what = format!("{} lies at offsets {places:?}", tables.show(id));
        let plain = tables
            .sender(id)
            .is_some_and(|op| tables.process(op.process).not_idempotent);
        if plain {
            findings.note("duplicate-not-idempotent", what, line_of(tables, id));
        } else if sent_again_by_client(entry, &places, &first_seqs) {
            findings.note("duplicate-by-client", what, line_of(tables, id));
        } else {
            findings.anomaly("duplicate", what, line_of(tables, id));
        }
    }
}

type Writer = (KeyId, i64, i64);

/// The lowest sequence seen per (key, producer id, epoch), for producer ids that wrote some value twice.
fn first_sequences(tables: &Tables) -> HashMap<Writer, i64> {
    let mut first = HashMap::new();
    for entry in tables.values.iter().filter(|entry| entry.places.len() > 1) {
        for stamp in &entry.stamps {
            first.insert((entry.key, stamp.pid, stamp.epoch), i64::MAX);
        }
    }
    for entry in &tables.values {
        for stamp in &entry.stamps {
            if let Some(seq) = first.get_mut(&(entry.key, stamp.pid, stamp.epoch)) {
                *seq = stamp.seq.min(*seq);
            }
        }
    }
    first
}

/// Every copy after the first carries the same producer id with a higher epoch whose sequences start at 0.
fn sent_again_by_client(
    entry: &ValueEntry,
    places: &[u64],
    first_seqs: &HashMap<Writer, i64>,
) -> bool {
    let stamp_at = |offset: &u64| entry.stamps.iter().find(|stamp| stamp.offset == *offset);
    let stamps: Option<Vec<&Stamp>> = places.iter().map(stamp_at).collect();
    stamps.is_some_and(|stamps| {
        stamps.windows(2).all(|pair| {
            let (before, after) = (pair[0], pair[1]);
            before.pid == after.pid
                && before.epoch < after.epoch
                && first_seqs.get(&(entry.key, after.pid, after.epoch)) == Some(&0)
        })
    })
}

/// The offset answered is the offset where the value is read.
fn check_answers(tables: &Tables, findings: &mut Findings) {
    for (id, entry) in tables.values.iter().enumerate() {
        let Some(ack) = entry.sent.as_ref().and_then(|sent| sent.ack) else {
            continue;
        };
        let id = id as ValueId;
        let acknowledged = tables.sender(id).is_some_and(|op| op.kind == Kind::Ok);
        if acknowledged && !entry.places.is_empty() && !entry.places.contains(&ack) {
            findings.anomaly(
                "false-offset",
                format!(
                    "{} acknowledged at {ack}, read at {:?}",
                    tables.show(id),
                    entry.places
                ),
                line_of(tables, id),
            );
        }
    }
}

/// Nothing is read that was refused, never sent, or changed on the way.
fn check_reads(tables: &Tables, findings: &mut Findings) {
    for (id, entry) in tables.values.iter().enumerate() {
        let id = id as ValueId;
        if entry.seen && tables.sender(id).is_some_and(|op| op.kind == Kind::Fail) {
            findings.anomaly(
                "aborted-read",
                format!("{} of a failed operation was read", tables.show(id)),
                line_of(tables, id),
            );
        }
    }
    for &(value, line) in &tables.unsent {
        let what = format!("{} was read before anybody sent it", tables.show(value));
        findings.anomaly("unsent-read", what, [line]);
    }
    for &(value, line) in &tables.mismatches {
        let what = format!(
            "{} was read with another payload than was sent",
            tables.show(value)
        );
        findings.anomaly(
            "payload",
            what,
            line_of(tables, value).into_iter().chain([line]),
        );
    }
}

/// Below the last value that anybody read, everything that must be there was read by somebody.
fn check_lost(tables: &Tables, orders: &Orders, findings: &mut Findings) {
    let mut bound: Vec<Option<u64>> = vec![None; tables.keys.len()];
    for entry in tables.values.iter().filter(|entry| entry.seen) {
        let first = entry.places.iter().min().copied();
        bound[entry.key as usize] = bound[entry.key as usize].max(first);
    }
    for (key, name) in tables.keys.iter().enumerate() {
        let log_start = tables.log_start(key as KeyId);
        let Some(bound) = bound[key] else { continue };
        for &(offset, value) in &orders.of(key as KeyId).entries {
            if offset > bound {
                break;
            }
            let entry = tables.value(value);
            if offset >= log_start && !entry.seen && tables.must_commit(value) {
                findings.anomaly(
                    "lost-write",
                    format!(
                        "{name} value {} acknowledged at {offset}, {bound} was read",
                        entry.label
                    ),
                    line_of(tables, value),
                );
            }
        }
    }
}

/// The offset of a value, if it is known and one.
fn place(entry: &ValueEntry) -> Option<u64> {
    match entry.places.as_slice() {
        [] => entry.sent.as_ref().and_then(|sent| sent.ack),
        [one] => Some(*one),
        _ => None,
    }
}

/// An idempotent producer's acknowledged sends lie in the order of the sends.
fn check_send_order(tables: &Tables, findings: &mut Findings) {
    let mut last: HashMap<(u32, KeyId), (u64, usize)> = HashMap::new();
    for (number, op) in tables.ops.iter().enumerate() {
        if op.kind != Kind::Ok || tables.process(op.process).not_idempotent {
            continue;
        }
        for &value in &op.sends {
            let entry = tables.value(value);
            let Some(offset) = place(entry) else { continue };
            let before = last.insert((op.process, entry.key), (offset, number));
            let Some((before, sender)) = before.filter(|&(before, _)| before > offset) else {
                continue;
            };
            let name = if sender == number {
                "int-nonmonotonic-send"
            } else {
                "nonmonotonic-send"
            };
            findings.anomaly(
                name,
                format!(
                    "{} lies at {offset}, what was sent before it at {before}",
                    tables.show(value)
                ),
                [tables.ops[sender].span.line, op.span.line],
            );
        }
    }
}

/// Appends are linearizable: a send that was acknowledged before another one began lies below it.
fn check_append_order(tables: &Tables, orders: &Orders, findings: &mut Findings) {
    for key in 0..tables.keys.len() {
        let mut latest: Option<(u64, ValueId)> = None;
        for &(offset, value) in &orders.of(key as KeyId).entries {
            let Some(op) = tables.sender(value) else {
                continue;
            };
            if place(tables.value(value)).is_none() {
                continue;
            }
            if let Some((begin_us, below)) = latest
                && op.kind == Kind::Ok
                && op.span.end_us < begin_us
            {
                findings.anomaly(
                    "append-order",
                    format!(
                        "{} lies at {offset}, above value {} whose send began after the answer",
                        tables.show(value),
                        tables.value(below).label
                    ),
                    line_of(tables, below).into_iter().chain([op.span.line]),
                );
            }
            if latest.is_none_or(|(begin_us, _)| op.span.begin_us > begin_us) {
                latest = Some((op.span.begin_us, value));
            }
        }
    }
}
