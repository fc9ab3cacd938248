//! The tables that a history's lines become: operations, values, processes, group offsets, bounds.
//!
//! Must not judge: what contradicts the format is refused, what contradicts a log is left to the checks.

use std::collections::HashMap;

use crate::history::{
    Act, Assign, Bounds, Client, GroupOffsets, Isolation, Kind, Line, Micro, Record, Shape, Value,
};

use super::report::Counts;

/// A key by number.
pub(super) type KeyId = u32;
/// A value of a key by number.
pub(super) type ValueId = u32;
/// A process by number.
pub(super) type ProcessId = u32;
/// An operation by number, in the order of invokes.
pub(super) type OpId = usize;

/// When an operation began and ended; `end_us` is `u64::MAX` while that is not known.
#[derive(Clone, Copy, Debug)]
pub(super) struct Span {
    pub(super) line: u64,
    pub(super) begin_us: u64,
    pub(super) end_us: u64,
}

/// One record as one poll returned it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Read {
    pub(super) key: KeyId,
    pub(super) value: ValueId,
    pub(super) offset: u64,
}

/// A `send`, `poll` or `txn`.
#[derive(Debug)]
pub(super) struct Op {
    pub(super) process: ProcessId,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    pub(super) span: Span,
    pub(super) sends: Vec<ValueId>,
    pub(super) reads: Vec<Read>,
    pub(super) rebalanced: Vec<KeyId>,
    /// The final reading it belongs to.
    pub(super) reading: Option<usize>,
    /// The latest `open` of its process when it began.
    pub(super) opened: Option<usize>,
    /// One of its values was read by a reader that sees only committed ones.
    pub(super) seen: bool,
}

/// How a value was sent.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) op: OpId,
    pub(super) ack: Option<u64>,
    pub(super) hash: Option<Box<str>>,
    pub(super) copy_of: Option<ValueId>,
}

/// Who wrote a record, as its batch header says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stamp {
    pub(super) offset: u64,
    pub(super) pid: i64,
    pub(super) epoch: i64,
    pub(super) seq: i64,
}

/// A value: sent, read, or both.
#[derive(Debug)]
pub(super) struct ValueEntry {
    pub(super) key: KeyId,
    pub(super) label: Value,
    pub(super) sent: Option<Sent>,
    /// Offsets at which it was read, each once.
    pub(super) places: Vec<u64>,
    pub(super) stamps: Vec<Stamp>,
    /// Read by a reader that sees only committed values.
    pub(super) seen: bool,
    /// When it was first known to exist: acknowledged or read.
    pub(super) known_us: u64,
}

/// What moves or uses a consumer's position, per process in order.
#[derive(Debug)]
pub(super) enum Step {
    /// An operation that polled.
    Poll(OpId),
    Assign {
        keys: Vec<KeyId>,
        kept: Vec<KeyId>,
        from_beginning: bool,
    },
    Subscribe,
}

/// What is known of a process.
#[derive(Debug, Default)]
pub(super) struct Process {
    pub(super) name: String,
    pub(super) not_idempotent: bool,
    pub(super) read_uncommitted: bool,
    pub(super) group: Option<String>,
    pub(super) steps: Vec<Step>,
    opened: Option<usize>,
    reading: Option<usize>,
}

/// A producer's identity from some moment on.
#[derive(Debug)]
pub(super) struct Opened {
    pub(super) transactional: Option<String>,
    pub(super) id: Option<i64>,
    pub(super) epoch: Option<i64>,
    pub(super) end_us: u64,
    pub(super) line: u64,
}

#[derive(Debug)]
pub(super) struct Reading {
    pub(super) process: ProcessId,
    pub(super) keys: Vec<KeyId>,
    pub(super) unreached: Vec<KeyId>,
    pub(super) span: Span,
    pub(super) ended: bool,
}

/// A commit or a fetch of one group offset.
#[derive(Clone, Copy, Debug)]
pub(super) struct GroupOp {
    pub(super) offset: Option<u64>,
    pub(super) kind: Kind,
    pub(super) span: Span,
}

/// Commits and fetches of one (group, key).
#[derive(Debug, Default)]
pub(super) struct GroupKey {
    pub(super) commits: Vec<GroupOp>,
    pub(super) fetches: Vec<GroupOp>,
    pub(super) committers: Vec<ProcessId>,
}

enum Pending {
    Micro(OpId),
    Commit(Span, GroupOffsets),
    Reading(usize),
    Other(Span),
}

/// Everything that a history said.
#[derive(Default)]
pub(super) struct Tables {
    key_ids: HashMap<String, KeyId>,
    pub(super) keys: Vec<String>,
    value_ids: HashMap<(KeyId, Value), ValueId>,
    pub(super) values: Vec<ValueEntry>,
    process_ids: HashMap<String, ProcessId>,
    pub(super) processes: Vec<Process>,
    pub(super) ops: Vec<Op>,
    pub(super) opens: Vec<Opened>,
    pub(super) readings: Vec<Reading>,
    pub(super) groups: HashMap<(String, KeyId), GroupKey>,
    pub(super) bounds: HashMap<KeyId, Vec<(Span, Bounds)>>,
    /// Payload mismatches: value, line of the poll.
    pub(super) mismatches: Vec<(ValueId, u64)>,
    /// Values read before they were sent, if ever: value, line of the poll.
    pub(super) unsent: Vec<(ValueId, u64)>,
    pub(super) heal_us: Option<u64>,
    log_starts: HashMap<KeyId, u64>,
    faults: u64,
    pending: HashMap<(ProcessId, u64), (&'static str, Pending)>,
}

impl Tables {
    pub(super) fn observe(&mut self, line: Line) -> Result<(), String> {
        let process = self.process_id(&line.process);
        match (&line.act, line.op) {
            (Act::Fault(_), _) => self.faults += 1,
            (Act::Heal, _) => self.heal_us = Some(line.time_us),
            (Act::Crash, _) => {}
            (_, None) => return Err("an operation without `op`".into()),
            (_, Some(op)) if line.kind == Kind::Invoke => self.begin(process, op, line)?,
            (_, Some(op)) => self.end(process, op, line)?,
        }
        Ok(())
    }

    /// Ends what has no completion: its outcome stays unknown.
    pub(super) fn close(&mut self) {
        self.pending.clear();
        for op in 0..self.ops.len() {
            let seen = self.ops[op]
                .sends
                .iter()
                .any(|&value| self.value(value).seen);
            self.ops[op].seen = seen;
        }
    }

    /// What the history held.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts {
            keys: self.keys.len() as u64,
            operations: self.ops.len() as u64,
            faults: self.faults,
            finals: self.readings.iter().filter(|reading| reading.ended).count() as u64,
            ..Counts::default()
        };
        for op in &self.ops {
            let sent = op.sends.len() as u64;
            counts.sent += sent;
            counts.polled += op.reads.len() as u64;
            counts.transactions += u64::from(op.shape == Shape::Txn);
            match op.kind {
                Kind::Ok => counts.acknowledged += sent,
                Kind::Fail => counts.failed += sent,
                Kind::Invoke | Kind::Info => counts.unknown += sent,
            }
        }
        counts
    }

    pub(super) fn value(&self, id: ValueId) -> &ValueEntry {
        &self.values[id as usize]
    }

    pub(super) fn process(&self, id: ProcessId) -> &Process {
        &self.processes[id as usize]
    }

    pub(super) fn key(&self, id: KeyId) -> &str {
        &self.keys[id as usize]
    }

    /// `topic/partition value`.
    pub(super) fn show(&self, id: ValueId) -> String {
        let entry = self.value(id);
        format!("{} value {}", self.key(entry.key), entry.label)
    }

    /// The operation that sent the value.
    pub(super) fn sender(&self, id: ValueId) -> Option<&Op> {
        self.value(id).sent.as_ref().map(|sent| &self.ops[sent.op])
    }

    /// The value must be in the log: it was acknowledged, or its unknown operation was seen to have happened.
    pub(super) fn must_commit(&self, id: ValueId) -> bool {
        self.sender(id).is_some_and(|op| match op.kind {
            Kind::Ok => true,
            Kind::Fail => false,
            Kind::Invoke | Kind::Info if op.shape == Shape::Txn => op.seen,
            Kind::Invoke | Kind::Info => self.value(id).seen,
        })
    }

    /// The highest log start that anybody was told.
    pub(super) fn log_start(&self, key: KeyId) -> u64 {
        self.log_starts.get(&key).copied().unwrap_or(0)
    }

    /// Retention may have taken the value: all its places lie below the log start, or none of them is known.
    pub(super) fn retired(&self, id: ValueId) -> bool {
        let entry = self.value(id);
        let ack = entry.sent.as_ref().and_then(|sent| sent.ack);
        let highest = entry.places.iter().copied().chain(ack).max();
        let log_start = self.log_start(entry.key);
        highest.map_or(log_start > 0, |offset| offset < log_start)
    }

    fn begin(&mut self, process: ProcessId, op: u64, line: Line) -> Result<(), String> {
        let span = Span {
            line: line.index,
            begin_us: line.time_us,
            end_us: u64::MAX,
        };
        let name = act_name(&line.act);
        let pending = match line.act {
            Act::Micro(shape, micros) => {
                Pending::Micro(self.begin_micro(process, shape, span, micros)?)
            }
            Act::Commit(Some(offsets)) => {
                self.begin_commit(process, span, &offsets);
                Pending::Commit(span, offsets)
            }
            Act::Assign(Some(assign)) => {
                self.begin_assign(process, assign);
                Pending::Other(span)
            }
            Act::Subscribe => {
                self.processes[process as usize].steps.push(Step::Subscribe);
                Pending::Other(span)
            }
            Act::FinalBegin(keys) => {
                let keys = keys.iter().map(|key| self.key_id(key)).collect();
                let reading = Reading {
                    process,
                    keys,
                    unreached: Vec::new(),
                    span,
                    ended: false,
                };
                self.readings.push(reading);
                let reading = self.readings.len() - 1;
                self.processes[process as usize].reading = Some(reading);
                Pending::Reading(reading)
            }
            _ => Pending::Other(span),
        };
        match self.pending.insert((process, op), (name, pending)) {
            None => Ok(()),
            Some(_) => Err(format!("operation {op} of {} begins twice", line.process)),
        }
    }

    fn end(&mut self, process: ProcessId, op: u64, line: Line) -> Result<(), String> {
        let unknown = || {
            format!(
                "operation {op} of {} ends without having begun",
                line.process
            )
        };
        let (name, pending) = self.pending.remove(&(process, op)).ok_or_else(unknown)?;
        if name != act_name(&line.act) {
            return Err(format!(
                "operation {op} of {} began as `{name}`",
                line.process
            ));
        }
        match pending {
            Pending::Micro(op) => self.end_micro(op, line),
            Pending::Commit(span, offsets) => {
                self.end_commit(span, &offsets, line.kind, line.time_us);
                Ok(())
            }
            Pending::Reading(reading) => {
                self.end_reading(reading, line);
                Ok(())
            }
            Pending::Other(span) => {
                let span = Span {
                    end_us: line.time_us,
                    ..span
                };
                self.end_other(process, span, line);
                Ok(())
            }
        }
    }

    fn begin_micro(
        &mut self,
        process: ProcessId,
        shape: Shape,
        span: Span,
        micros: Vec<Micro>,
    ) -> Result<OpId, String> {
        let id = self.ops.len();
        let mut sends = Vec::new();
        let mut polls = false;
        for micro in micros {
            let Micro::Send(send) = micro else {
                polls = true;
                continue;
            };
            let copy_of = send.copy_of.map(|(key, value)| {
                let key = self.key_id(&key);
                self.value_id(key, value)
            });
            let key = self.key_id(&send.key);
            let value = self.value_id(key, send.value);
            let hash = send.hash.map(String::into_boxed_str);
            let entry = &mut self.values[value as usize];
            if entry.sent.is_some() {
                return Err(format!("{} is sent twice", self.show(value)));
            }
            entry.sent = Some(Sent {
                op: id,
                ack: None,
                hash,
                copy_of,
            });
            sends.push(value);
        }
        let entry = &mut self.processes[process as usize];
        if polls {
            entry.steps.push(Step::Poll(id));
        }
        let (reading, opened) = (entry.reading, entry.opened);
        self.ops.push(Op {
            process,
            shape,
            kind: Kind::Info,
            span,
            sends,
            reads: Vec::new(),
            rebalanced: Vec::new(),
            reading,
            opened,
            seen: false,
        });
        Ok(id)
    }

    fn end_micro(&mut self, id: OpId, line: Line) -> Result<(), String> {
        let Act::Micro(_, micros) = line.act else {
            return Ok(());
        };
        let rebalanced = line.rebalanced.iter().map(|key| self.key_id(key)).collect();
        let op = &mut self.ops[id];
        (op.kind, op.span.end_us, op.rebalanced) = (line.kind, line.time_us, rebalanced);
        let mut sends = op.sends.clone().into_iter();
        for micro in micros {
            match micro {
                Micro::Send(send) => {
                    let value = sends.next().filter(|&value| {
                        let entry = self.value(value);
                        entry.label == send.value && self.key(entry.key) == send.key
                    });
                    let value = value.ok_or("a completion with sends other than its invoke's")?;
                    self.end_send(value, send.offset, line.kind, line.time_us);
                }
                Micro::Poll(keys) => {
                    for (key, records) in keys {
                        let key = self.key_id(&key);
                        records
                            .into_iter()
                            .for_each(|record| self.take_read(id, key, record));
                    }
                }
            }
        }
        match (line.kind, sends.next()) {
            (Kind::Ok, Some(value)) => {
                Err(format!("{} is missing in its answer", self.show(value)))
            }
            _ => Ok(()),
        }
    }

    fn end_send(&mut self, value: ValueId, offset: Option<u64>, kind: Kind, now_us: u64) {
        let entry = &mut self.values[value as usize];
        if let Some(sent) = &mut entry.sent {
            sent.ack = if kind == Kind::Fail { None } else { offset };
        }
        if kind == Kind::Ok {
            entry.known_us = entry.known_us.min(now_us);
        }
    }

    fn take_read(&mut self, id: OpId, key: KeyId, record: Record) {
        let value = self.value_id(key, record.value);
        let Span { line, end_us, .. } = self.ops[id].span;
        let committed = {
            let process = self.process(self.ops[id].process);
            let transactional = self.sender(value).is_some_and(|op| op.shape == Shape::Txn);
            !(process.read_uncommitted && transactional)
        };
        let entry = &mut self.values[value as usize];
        match &entry.sent {
            None => self.unsent.push((value, line)),
            Some(sent) => {
                let differs = |hash: &String| sent.hash.as_deref().is_some_and(|sent| sent != hash);
                if record.detail.hash.as_ref().is_some_and(differs) {
                    self.mismatches.push((value, line));
                }
            }
        }
        entry.seen |= committed;
        entry.known_us = entry.known_us.min(end_us);
        if !entry.places.contains(&record.offset) {
            entry.places.push(record.offset);
        }
        let detail = record.detail;
        if let (Some(pid), Some(epoch), Some(seq)) = (detail.pid, detail.epoch, detail.seq)
            && !entry
                .stamps
                .iter()
                .any(|stamp| stamp.offset == record.offset)
        {
            entry.stamps.push(Stamp {
                offset: record.offset,
                pid,
                epoch,
                seq,
            });
        }
        self.ops[id].reads.push(Read {
            key,
            value,
            offset: record.offset,
        });
    }

    fn begin_assign(&mut self, process: ProcessId, assign: Assign) {
        let keys = assign.keys.iter().map(|key| self.key_id(key)).collect();
        let kept = assign.kept.iter().map(|key| self.key_id(key)).collect();
        let step = Step::Assign {
            keys,
            kept,
            from_beginning: assign.from.is_some(),
        };
        self.processes[process as usize].steps.push(step);
    }

    fn begin_commit(&mut self, process: ProcessId, span: Span, offsets: &GroupOffsets) {
        for (key, &offset) in &offsets.offsets {
            let key = self.key_id(key);
            let entry = self.groups.entry((offsets.group.clone(), key)).or_default();
            entry.commits.push(GroupOp {
                offset,
                kind: Kind::Info,
                span,
            });
            if !entry.committers.contains(&process) {
                entry.committers.push(process);
            }
        }
    }

    fn end_commit(&mut self, span: Span, offsets: &GroupOffsets, kind: Kind, now_us: u64) {
        for key in offsets.offsets.keys() {
            let key = self.key_id(key);
            let entry = self.groups.entry((offsets.group.clone(), key)).or_default();
            let commit = entry
                .commits
                .iter_mut()
                .rev()
                .find(|op| op.span.line == span.line);
            if let Some(commit) = commit {
                (commit.kind, commit.span.end_us) = (kind, now_us);
            }
        }
    }

    fn end_reading(&mut self, reading: usize, line: Line) {
        let Act::FinalEnd { unreached } = line.act else {
            return;
        };
        let unreached = match unreached {
            Some(keys) => keys.iter().map(|key| self.key_id(key)).collect(),
            None => self.readings[reading].keys.clone(),
        };
        let entry = &mut self.readings[reading];
        (entry.unreached, entry.ended, entry.span.end_us) = (unreached, true, line.time_us);
        self.processes[entry.process as usize].reading = None;
    }

    fn end_other(&mut self, process: ProcessId, span: Span, line: Line) {
        match line.act {
            Act::Open(client) if line.kind == Kind::Ok => self.open(process, span, client),
            Act::Debug(bounds) => {
                for (key, bounds) in bounds {
                    let key = self.key_id(&key);
                    self.bounds.entry(key).or_default().push((span, bounds));
                    let log_start = self.log_starts.entry(key).or_default();
                    *log_start = bounds.log_start.unwrap_or(0).max(*log_start);
                }
            }
            Act::Committed(Some(offsets)) => {
                for (key, offset) in offsets.offsets {
                    let key = self.key_id(&key);
                    let entry = self.groups.entry((offsets.group.clone(), key)).or_default();
                    entry.fetches.push(GroupOp {
                        offset,
                        kind: Kind::Ok,
                        span,
                    });
                }
            }
            _ => {}
        }
    }

    fn open(&mut self, process: ProcessId, span: Span, client: Client) {
        let entry = &mut self.processes[process as usize];
        if let Some(producer) = client.producer {
            entry.not_idempotent = producer.idempotent == Some(false);
            entry.opened = Some(self.opens.len());
            self.opens.push(Opened {
                transactional: producer.transactional,
                id: producer.id,
                epoch: producer.epoch,
                end_us: span.end_us,
                line: span.line,
            });
        }
        if let Some(consumer) = client.consumer {
            entry.read_uncommitted = consumer.isolation == Some(Isolation::ReadUncommitted);
            entry.group = consumer.group;
        }
    }

    fn key_id(&mut self, name: &str) -> KeyId {
        if let Some(&id) = self.key_ids.get(name) {
            return id;
        }
        let id = self.keys.len() as KeyId;
        self.keys.push(name.to_owned());
        self.key_ids.insert(name.to_owned(), id);
        id
    }

    fn value_id(&mut self, key: KeyId, label: Value) -> ValueId {
        let next = self.values.len() as ValueId;
        let id = *self.value_ids.entry((key, label.clone())).or_insert(next);
        if id == next {
            self.values.push(ValueEntry {
                key,
                label,
                sent: None,
                places: Vec::new(),
                stamps: Vec::new(),
                seen: false,
                known_us: u64::MAX,
            });
        }
        id
    }

    fn process_id(&mut self, name: &str) -> ProcessId {
        if let Some(&id) = self.process_ids.get(name) {
            return id;
        }
        let id = self.processes.len() as ProcessId;
        self.processes.push(Process {
            name: name.to_owned(),
            ..Process::default()
        });
        self.process_ids.insert(name.to_owned(), id);
        id
    }
}

fn act_name(act: &Act) -> &'static str {
    match act {
        Act::Open(_) => "open",
        Act::Micro(Shape::Send, _) => "send",
        Act::Micro(Shape::Poll, _) => "poll",
        Act::Micro(Shape::Txn, _) => "txn",
        Act::Assign(_) => "assign",
        Act::Subscribe => "subscribe",
        Act::Commit(_) => "commit",
        Act::Committed(_) => "committed",
        Act::Debug(_) => "debug",
        Act::FinalBegin(_) | Act::FinalEnd { .. } => "final",
        Act::Fault(_) | Act::Heal | Act::Crash => "event",
    }
}
