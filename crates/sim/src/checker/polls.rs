//! Anomalies of consumers: values skipped or repeated, consumers that stay behind, final readings that miss something.
//!
//! Must not judge single values.

use std::collections::{HashMap, HashSet};

use crate::history::{Kind, Shape};

use super::order::Orders;
use super::report::Findings;
use super::tables::{KeyId, Op, OpId, ProcessId, Read, Step, Tables, ValueId};

/// Where a consumer stands in a key: the rank of the last value that it got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Position {
    /// At the log start, nothing read yet.
    Start,
    /// This rank was the last, read by the operation.
    Rank(usize, OpId),
}

impl Position {
    fn next_rank(self) -> usize {
        match self {
            Position::Start => 0,
            Position::Rank(rank, _) => rank + 1,
        }
    }
}

/// Within and between operations values of a key follow each other without gaps.
pub(super) fn check(tables: &Tables, orders: &Orders, findings: &mut Findings) {
    for id in 0..tables.ops.len() {
        check_inside(tables, orders, id, findings);
    }
    for process in 0..tables.processes.len() {
        check_between(tables, orders, process as ProcessId, findings);
    }
}

fn check_inside(tables: &Tables, orders: &Orders, id: OpId, findings: &mut Findings) {
    let op = &tables.ops[id];
    let mut last: HashMap<KeyId, usize> = HashMap::new();
    for read in &op.reads {
        let order = orders.of(read.key);
        let rank = order.rank(read.offset);
        let Some(before) = last.insert(read.key, rank) else {
            continue;
        };
        if op.rebalanced.contains(&read.key) {
            continue;
        }
        if rank <= before {
            report(tables, "int-nonmonotonic-poll", read, &[op], findings);
        } else if let Some(skipped) = order.required_in(before + 1, rank) {
            let at = order.offsets[skipped];
            let name = skip_name(tables, orders, op, read, before, skipped);
            let what = format!(
                "{} read {} at {} and skipped offset {at}",
                tables.process(op.process).name,
                tables.show(read.value),
                read.offset
            );
            findings.anomaly(name, what, [op.span.line]);
        }
    }
}

/// A skip that splits one transaction has its own name.
fn skip_name(
    tables: &Tables,
    orders: &Orders,
    op: &Op,
    read: &Read,
    before: usize,
    skipped: usize,
) -> &'static str {
    let order = orders.of(read.key);
    let writer_of = |value: ValueId| {
        let sent = tables.value(value).sent.as_ref();
        sent.map(|sent| sent.op)
            .filter(|&op| tables.ops[op].shape == Shape::Txn)
    };
    let seen = order.values_at(before).find_map(writer_of);
    let missed = order.values_at(skipped).find_map(writer_of);
    let committed = !tables.process(op.process).read_uncommitted;
    if committed && seen.is_some() && seen == missed {
        "intermediate-read"
    } else {
        "int-poll-skip"
    }
}

fn report(tables: &Tables, name: &'static str, read: &Read, ops: &[&Op], findings: &mut Findings) {
    let who = ops
        .last()
        .map_or("", |op| tables.process(op.process).name.as_str());
    findings.anomaly(
        name,
        format!(
            "{who} read {} at {} after a later one",
            tables.show(read.value),
            read.offset
        ),
        ops.iter().map(|op| op.span.line),
    );
}

fn check_between(tables: &Tables, orders: &Orders, process: ProcessId, findings: &mut Findings) {
    let mut positions = Positions::default();
    for step in &tables.process(process).steps {
        let Step::Poll(id) = *step else {
            positions.apply(tables, orders, step);
            continue;
        };
        let op = &tables.ops[id];
        let mut met = HashSet::new();
        for read in &op.reads {
            let first = met.insert(read.key);
            let known = positions.by_key.get(&read.key).copied();
            let (Some(position), true, true) = (known, first, op.kind == Kind::Ok) else {
                continue;
            };
            if op.rebalanced.contains(&read.key) {
                continue;
            }
            let order = orders.of(read.key);
            let rank = order.rank(read.offset);
            if rank < position.next_rank() {
                let before = match position {
                    Position::Rank(_, before) => before,
                    Position::Start => id,
                };
                report(
                    tables,
                    "nonmonotonic-poll",
                    read,
                    &[&tables.ops[before], op],
                    findings,
                );
            } else if let Some(skipped) = order.required_in(position.next_rank(), rank) {
                let what = format!(
                    "{} read {} at {} and skipped offset {}",
                    tables.process(process).name,
                    tables.show(read.value),
                    read.offset,
                    order.offsets[skipped]
                );
                findings.anomaly("poll-skip", what, [op.span.line]);
            }
        }
        positions.apply(tables, orders, step);
    }
}

/// The positions of one process, as far as they are known.
#[derive(Default)]
struct Positions {
    by_key: HashMap<KeyId, Position>,
    assigned: Vec<KeyId>,
    subscribed: bool,
}

impl Positions {
    fn apply(&mut self, tables: &Tables, orders: &Orders, step: &Step) {
        match step {
            Step::Subscribe => {
                *self = Positions {
                    subscribed: true,
                    ..Positions::default()
                };
            }
            Step::Assign {
                keys,
                kept,
                from_beginning,
            } => {
                let old = std::mem::take(&mut self.by_key);
                for &key in keys {
                    if kept.contains(&key) {
                        self.by_key
                            .extend(old.get(&key).map(|&position| (key, position)));
                    } else if *from_beginning {
                        self.by_key.insert(key, Position::Start);
                    }
                }
                self.assigned.clone_from(keys);
                self.subscribed = false;
            }
            Step::Poll(_) if self.subscribed => {}
            Step::Poll(id) => self.advance(tables, orders, *id),
        }
    }

    /// A transaction that did not commit is read again; any other poll of unknown end leaves the position unknown.
    fn advance(&mut self, tables: &Tables, orders: &Orders, id: OpId) {
        let op = &tables.ops[id];
        match op.kind {
            Kind::Ok => {
                for read in &op.reads {
                    let rank = orders.of(read.key).rank(read.offset);
                    self.by_key.insert(read.key, Position::Rank(rank, id));
                }
            }
            _ if op.shape == Shape::Txn => {}
            _ => self.by_key.clear(),
        }
    }
}

/// After healing no assigned consumer stands still for longer than `bound_us` before what is known to exist.
pub(super) fn check_lag(tables: &Tables, orders: &Orders, bound_us: u64, findings: &mut Findings) {
    let faulty = tables.counts().faults > 0;
    let healed_us = match tables.heal_us {
        Some(heal_us) => heal_us,
        None if faulty => return,
        None => 0,
    };
    for process in &tables.processes {
        let mut positions = Positions::default();
        let mut moved_us: HashMap<KeyId, u64> = HashMap::new();
        let mut last_poll: Option<&Op> = None;
        for step in &process.steps {
            positions.apply(tables, orders, step);
            last_poll = if let Step::Poll(id) = step {
                Some(&tables.ops[*id])
            } else {
                None
            };
            let Some(op) = last_poll else {
                moved_us.clear();
                continue;
            };
            for &key in &positions.assigned {
                moved_us.entry(key).or_insert(op.span.begin_us);
            }
            moved_us.extend(op.reads.iter().map(|read| (read.key, op.span.end_us)));
        }
        let Some(op) = last_poll.filter(|op| op.kind == Kind::Ok) else {
            continue;
        };
        for &key in &positions.assigned {
            let Some(position) = positions.by_key.get(&key) else {
                continue;
            };
            let order = orders.of(key);
            let next = order.required_in(position.next_rank(), usize::MAX);
            let Some(next) = next else { continue };
            let known_us = order
                .values_at(next)
                .map(|id| tables.value(id).known_us)
                .min();
            let moved_us = moved_us.get(&key).copied().unwrap_or(0);
            let since_us = known_us.unwrap_or(u64::MAX).max(healed_us).max(moved_us);
            if op.span.begin_us > since_us.saturating_add(bound_us) {
                let what = format!(
                    "{} does not get {} offset {}, known for {} ms",
                    process.name,
                    tables.key(key),
                    order.offsets[next],
                    (op.span.begin_us - since_us) / 1000
                );
                findings.anomaly("stuck-consumer", what, [op.span.line]);
            }
        }
    }
}

/// A final reading sees everything that was acknowledged before it began, or it is stuck.
pub(super) fn check_final(tables: &Tables, findings: &mut Findings) {
    let mut seen: Vec<HashSet<ValueId>> = tables.readings.iter().map(|_| HashSet::new()).collect();
    for op in &tables.ops {
        if let Some(reading) = op.reading {
            seen[reading].extend(op.reads.iter().map(|read| read.value));
        }
    }
    for (reading, seen) in tables.readings.iter().zip(&seen) {
        let who = &tables.process(reading.process).name;
        if !reading.ended {
            let what = format!("the final reading of {who} did not end");
            findings.anomaly("stuck-consumer", what, [reading.span.line]);
            continue;
        }
        for &key in &reading.unreached {
            let what = format!("the final reading of {who} gave up on {}", tables.key(key));
            findings.anomaly("stuck-consumer", what, [reading.span.line]);
        }
        let reached: HashSet<KeyId> = reading
            .keys
            .iter()
            .filter(|key| !reading.unreached.contains(key))
            .copied()
            .collect();
        for (id, entry) in tables.values.iter().enumerate() {
            let id = id as ValueId;
            if !reached.contains(&entry.key) || seen.contains(&id) {
                continue;
            }
            let sender = tables.sender(id);
            let acknowledged = sender
                .is_some_and(|op| op.kind == Kind::Ok && op.span.end_us <= reading.span.begin_us);
            if acknowledged && !tables.retired(id) {
                findings.anomaly(
                    "unseen",
                    format!(
                        "{} was acknowledged, the final reading of {who} lacks it",
                        tables.show(id)
                    ),
                    sender
                        .map(|op| op.span.line)
                        .into_iter()
                        .chain([reading.span.line]),
                );
            }
        }
    }
}
