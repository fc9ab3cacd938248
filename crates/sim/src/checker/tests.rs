//! One hand-made history per anomaly, and beside it the near miss that must stay silent.

use std::collections::BTreeMap;
use std::io::BufReader;

use super::check_lines;
use crate::history::read::Reader;
use crate::history::write::{write_header, write_line};
use crate::history::{
    Act, Assign, Bounds, Client, Consumer, Detail, From, GroupOffsets, Header, Isolation, Kind,
    Line, Micro, Producer, Record, Send, Shape, Value,
};

/// A history being written by hand. Every call happens 1 ms after the one before.
struct Script {
    header: Header,
    lines: Vec<Line>,
    now_us: u64,
    op: u64,
}

/// An operation under way.
#[derive(Clone, Copy)]
struct Open(u64);

impl Script {
    fn new() -> Self {
        Script {
            header: Header {
                history: 1,
                ..Header::default()
            },
            lines: Vec::new(),
            now_us: 0,
            op: 0,
        }
    }

    fn line(&mut self, process: &str, kind: Kind, op: Option<u64>, act: Act) {
        self.now_us += 1000;
        self.lines.push(Line {
            index: self.lines.len() as u64,
            time_us: self.now_us,
            process: process.into(),
            kind,
            op,
            act,
            rebalanced: Vec::new(),
        });
    }

    fn begin(&mut self, process: &str, act: Act) -> Open {
        self.op += 1;
        self.line(process, Kind::Invoke, Some(self.op), act);
        Open(self.op)
    }

    fn end(&mut self, process: &str, open: Open, kind: Kind, act: Act) {
        self.line(process, kind, Some(open.0), act);
    }

    fn event(&mut self, act: Act) {
        self.line("nemesis", Kind::Info, None, act);
    }

    fn sending(&mut self, process: &str, key: &str, value: i64) -> Open {
        self.begin(
            process,
            Act::Micro(Shape::Send, vec![send(key, value, None)]),
        )
    }

    fn answered(&mut self, process: &str, open: Open, key: &str, value: i64, offset: u64) {
        let micros = vec![send(key, value, Some(offset))];
        self.end(process, open, Kind::Ok, Act::Micro(Shape::Send, micros));
    }

    /// Sent and acknowledged at `offset`.
    fn sent(&mut self, process: &str, key: &str, value: i64, offset: u64) {
        let open = self.sending(process, key, value);
        self.answered(process, open, key, value, offset);
    }

    fn sent_so(&mut self, process: &str, key: &str, value: i64, kind: Kind) {
        let open = self.sending(process, key, value);
        self.end(process, open, kind, Act::Micro(Shape::Send, Vec::new()));
    }

    fn polling(&mut self, process: &str) -> Open {
        self.begin(
            process,
            Act::Micro(Shape::Poll, vec![Micro::Poll(BTreeMap::new())]),
        )
    }

    fn polled_end(&mut self, process: &str, open: Open, records: &[(&str, u64, i64)]) {
        self.end(
            process,
            open,
            Kind::Ok,
            Act::Micro(Shape::Poll, vec![poll(records)]),
        );
    }

    fn polled(&mut self, process: &str, records: &[(&str, u64, i64)]) {
        let open = self.polling(process);
        self.polled_end(process, open, records);
    }

    fn txn(&mut self, process: &str, kind: Kind, begin: Vec<Micro>, end: Vec<Micro>) {
        let open = self.begin(process, Act::Micro(Shape::Txn, begin));
        self.end(process, open, kind, Act::Micro(Shape::Txn, end));
    }

    fn assigned(&mut self, process: &str, keys: &[&str], kept: &[&str], from: Option<From>) {
        let owned = |names: &[&str]| names.iter().map(|&name| name.into()).collect();
        let assign = Assign {
            keys: owned(keys),
            kept: owned(kept),
            from,
        };
        let open = self.begin(process, Act::Assign(Some(assign)));
        self.end(process, open, Kind::Ok, Act::Assign(None));
    }

    fn opened(&mut self, process: &str, client: Client) {
        let open = self.begin(process, Act::Open(Client::default()));
        self.end(process, open, Kind::Ok, Act::Open(client));
    }

    fn listed(&mut self, key: &str, bounds: Bounds) {
        let open = self.begin("d", Act::Debug(BTreeMap::new()));
        self.end(
            "d",
            open,
            Kind::Ok,
            Act::Debug(BTreeMap::from([(key.into(), bounds)])),
        );
    }

    fn group_commit(&mut self, process: &str, offset: u64, kind: Kind) {
        let offsets = group_offsets(Some(offset));
        let open = self.begin(process, Act::Commit(Some(offsets)));
        self.end(process, open, kind, Act::Commit(None));
    }

    fn group_fetched(&mut self, offset: Option<u64>) {
        let open = self.begin("g", Act::Committed(None));
        self.end(
            "g",
            open,
            Kind::Ok,
            Act::Committed(Some(group_offsets(offset))),
        );
    }

    /// A fresh process reads `records` as the final reading of the keys.
    fn final_read(&mut self, keys: &[&str], records: &[(&str, u64, i64)]) {
        let process = format!("final-{}", self.lines.len());
        self.assigned(&process, keys, &[], Some(From::Beginning));
        let keys = keys.iter().map(|&key| key.into()).collect();
        let open = self.begin(&process, Act::FinalBegin(keys));
        self.polled(&process, records);
        self.end(
            &process,
            open,
            Kind::Ok,
            Act::FinalEnd {
                unreached: Some(Vec::new()),
            },
        );
    }

    /// The anomalies that the checker finds, after a trip through the written format.
    fn names(self) -> Vec<&'static str> {
        self.report().names()
    }

    fn report(self) -> super::Report {
        let mut text = Vec::new();
        write_header(&mut text, &self.header).expect("writing to memory");
        for line in &self.lines {
            write_line(&mut text, line).expect("writing to memory");
        }
        let mut reader = Reader::open(BufReader::new(text.as_slice())).expect("the header reads");
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().expect("what was written reads") {
            lines.push(line);
        }
        assert_eq!(lines.len(), self.lines.len());
        check_lines(reader.header().clone(), lines).expect("the lines follow each other")
    }
}

fn send(key: &str, value: i64, offset: Option<u64>) -> Micro {
    let (key, value) = (key.into(), Value::Int(value));
    Micro::Send(Send {
        key,
        value,
        offset,
        hash: None,
        copy_of: None,
    })
}

fn poll(records: &[(&str, u64, i64)]) -> Micro {
    let mut keys: BTreeMap<String, Vec<Record>> = BTreeMap::new();
    for &(key, offset, value) in records {
        let value = Value::Int(value);
        let record = Record {
            offset,
            value,
            detail: Detail::default(),
        };
        keys.entry(key.into()).or_default().push(record);
    }
    Micro::Poll(keys)
}

fn group_offsets(offset: Option<u64>) -> GroupOffsets {
    GroupOffsets {
        group: "g".into(),
        offsets: BTreeMap::from([("a".into(), offset)]),
    }
}

fn producer(producer: Producer) -> Client {
    Client {
        producer: Some(producer),
        consumer: None,
    }
}

fn none() -> Vec<&'static str> {
    Vec::new()
}

#[test]
fn a_plain_history_is_clean_and_counted() {
    let mut script = Script::new();
    script.sent("p", "a", 1, 0);
    script.sent_so("p", "a", 2, Kind::Info);
    script.sent_so("p", "a", 3, Kind::Fail);
    script.polled("c", &[("a", 0, 1)]);
    script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2)]);
    let report = script.report();
    assert!(report.is_clean(), "{report}");
    let counts = report.counts;
    assert_eq!(
        (
            counts.sent,
            counts.acknowledged,
            counts.failed,
            counts.unknown
        ),
        (3, 1, 1, 1)
    );
    assert_eq!((counts.polled, counts.finals), (3, 1));
}

#[test]
fn inconsistent_offsets() {
    let history = |offset| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        script.sent_so("q", "a", 2, Kind::Info);
        script.polled("c", &[("a", offset, 2)]);
        script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2)]);
        script.names()
    };
    assert_eq!(history(0), ["duplicate", "inconsistent-offsets"]);
    assert_eq!(history(1), none());
    // An acknowledgement for the place of another value, which nobody ever read.
    let mut script = Script::new();
    script.sent("p", "a", 1, 0);
    script.sent("q", "a", 2, 0);
    script.final_read(&["a"], &[("a", 0, 1)]);
    assert!(script.names().contains(&"inconsistent-offsets"));
}

fn with_copies(stamps: [(i64, i64, i64); 2], idempotent: bool) -> super::Report {
    let mut script = Script::new();
    script.opened(
        "p",
        producer(Producer {
            idempotent: Some(idempotent),
            ..Producer::default()
        }),
    );
    script.sent("p", "a", 1, 0);
    let records = stamps
        .iter()
        .zip([0, 1])
        .map(|(&(pid, epoch, seq), offset)| Record {
            offset,
            value: Value::Int(1),
            detail: Detail {
                hash: None,
                pid: Some(pid),
                epoch: Some(epoch),
                seq: Some(seq),
            },
        });
    let records = Micro::Poll(BTreeMap::from([("a".into(), records.collect())]));
    let open = script.polling("c");
    script.end("c", open, Kind::Ok, Act::Micro(Shape::Poll, vec![records]));
    script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 1)]);
    script.report()
}

#[test]
fn duplicate_with_the_epochs_telling_whose_fault() {
    assert_eq!(
        with_copies([(7, 0, 4), (7, 0, 4)], true).names(),
        ["duplicate"]
    );
    assert_eq!(
        with_copies([(7, 0, 4), (7, 1, 3)], true).names(),
        ["duplicate"]
    );
    assert_eq!(
        with_copies([(7, 0, 4), (8, 1, 0)], true).names(),
        ["duplicate"]
    );
    let by_client = with_copies([(7, 0, 4), (7, 1, 0)], true);
    assert_eq!(by_client.names(), none());
    assert!(by_client.notes.contains_key("duplicate-by-client"));
    let not_idempotent = with_copies([(-1, -1, -1), (-1, -1, -1)], false);
    assert_eq!(not_idempotent.names(), none());
    assert!(
        not_idempotent
            .notes
            .contains_key("duplicate-not-idempotent")
    );
}

#[test]
fn lost_write() {
    let history = |fate| {
        let mut script = Script::new();
        let open = script.sending("p", "a", 1);
        if fate == Kind::Ok {
            script.answered("p", open, "a", 1, 0);
        } else {
            script.end("p", open, fate, Act::Micro(Shape::Send, Vec::new()));
        }
        script.sent("q", "a", 2, 1);
        let open = script.begin("f", Act::FinalBegin(vec!["b".into()]));
        script.polled("f", &[("a", 1, 2)]);
        script.end(
            "f",
            open,
            Kind::Ok,
            Act::FinalEnd {
                unreached: Some(Vec::new()),
            },
        );
        script.names()
    };
    assert_eq!(history(Kind::Ok), ["lost-write"]);
    assert_eq!(history(Kind::Info), none());
    assert_eq!(history(Kind::Fail), none());
}

#[test]
fn lost_write_spares_what_retention_took_and_what_lies_above() {
    let mut script = Script::new();
    script.sent("p", "a", 1, 0);
    script.sent("p", "a", 2, 1);
    script.listed(
        "a",
        Bounds {
            log_start: Some(1),
            ..Bounds::default()
        },
    );
    script.final_read(&["a"], &[("a", 1, 2)]);
    script.sent("p", "a", 3, 2);
    assert_eq!(script.names(), none());
}

#[test]
fn unseen() {
    let history = |late: bool, seen: bool| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        let open = script.sending("p", "a", 2);
        if !late {
            script.answered("p", open, "a", 2, 1);
        }
        script.final_read(
            &["a"],
            if seen {
                &[("a", 0, 1), ("a", 1, 2)]
            } else {
                &[("a", 0, 1)]
            },
        );
        if late {
            script.answered("p", open, "a", 2, 1);
        }
        script.names()
    };
    assert_eq!(history(false, false), ["unseen"]);
    assert_eq!(history(false, true), none());
    assert_eq!(history(true, false), none());
}

#[test]
fn every_final_reader_counts_for_itself() {
    let mut script = Script::new();
    script.sent("p", "a", 1, 0);
    script.final_read(&["a"], &[("a", 0, 1)]);
    script.final_read(&["a"], &[]);
    assert_eq!(script.names(), ["unseen"]);
}

#[test]
fn aborted_read() {
    let history = |kind| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        script.sent_so("p", "a", 2, kind);
        script.polled("c", &[("a", 1, 2)]);
        script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2)]);
        script.names()
    };
    assert_eq!(history(Kind::Fail), ["aborted-read"]);
    assert_eq!(history(Kind::Info), none());
}

#[test]
fn aborted_read_of_a_transaction_only_counts_for_read_committed() {
    let history = |isolation| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        let sends = vec![send("a", 2, None)];
        script.txn("t", Kind::Fail, sends.clone(), sends);
        let consumer = Consumer {
            group: None,
            isolation: Some(isolation),
        };
        script.opened(
            "c",
            Client {
                producer: None,
                consumer: Some(consumer),
            },
        );
        script.polled("c", &[("a", 1, 2)]);
        script.final_read(&["a"], &[("a", 0, 1)]);
        script.names()
    };
    assert_eq!(history(Isolation::ReadCommitted), ["aborted-read"]);
    assert_eq!(history(Isolation::ReadUncommitted), none());
}

#[test]
fn unsent_read() {
    let mut script = Script::new();
    script.sent("p", "a", 1, 0);
    script.polled("c", &[("a", 1, 2)]);
    script.sent_so("p", "a", 2, Kind::Info);
    script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2)]);
    assert_eq!(script.names(), ["unsent-read"]);
    // Read while the send is still under way: fine.
    let mut script = Script::new();
    script.sent("p", "a", 1, 0);
    let poll = script.polling("c");
    let open = script.sending("p", "a", 2);
    script.polled_end("c", poll, &[("a", 1, 2)]);
    script.answered("p", open, "a", 2, 1);
    script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2)]);
    assert_eq!(script.names(), none());
}

#[test]
fn int_poll_skip_and_int_nonmonotonic_poll() {
    let history = |records: &[(&str, u64, i64)], rebalanced: bool| {
        let mut script = Script::new();
        for value in 0..3 {
            script.sent("p", "a", value, 10 * value as u64);
        }
        script.polled("c", records);
        if rebalanced {
            let last = script.lines.last_mut().expect("a line was written");
            last.rebalanced.push("a".into());
        }
        script.final_read(&["a"], &[("a", 0, 0), ("a", 10, 1), ("a", 20, 2)]);
        script.names()
    };
    assert_eq!(
        history(&[("a", 0, 0), ("a", 20, 2)], false),
        ["int-poll-skip"]
    );
    assert_eq!(
        history(&[("a", 10, 1), ("a", 0, 0)], false),
        ["int-nonmonotonic-poll"]
    );
    assert_eq!(
        history(&[("a", 0, 0), ("a", 0, 0)], false),
        ["int-nonmonotonic-poll"]
    );
    assert_eq!(history(&[("a", 0, 0), ("a", 20, 2)], true), none());
    assert_eq!(history(&[("a", 10, 1), ("a", 20, 2)], false), none());
}

#[test]
fn poll_skip_and_nonmonotonic_poll() {
    let history = |first: (&str, u64, i64), second: (&str, u64, i64), assign: bool| {
        let mut script = Script::new();
        for value in 0..3 {
            script.sent("p", "a", value, value as u64);
        }
        if assign {
            script.assigned("c", &["a"], &[], None);
        } else {
            let open = script.begin("c", Act::Subscribe);
            script.end("c", open, Kind::Ok, Act::Subscribe);
        }
        script.polled("c", &[first]);
        script.polled("c", &[second]);
        script.final_read(&["a"], &[("a", 0, 0), ("a", 1, 1), ("a", 2, 2)]);
        script.names()
    };
    assert_eq!(history(("a", 0, 0), ("a", 2, 2), true), ["poll-skip"]);
    assert_eq!(
        history(("a", 1, 1), ("a", 1, 1), true),
        ["nonmonotonic-poll"]
    );
    assert_eq!(history(("a", 0, 0), ("a", 1, 1), true), none());
    assert_eq!(history(("a", 0, 0), ("a", 2, 2), false), none());
    assert_eq!(history(("a", 1, 1), ("a", 0, 0), false), none());
}

#[test]
fn positions_are_forgotten_where_an_assignment_drops_them() {
    let history = |kept: &[&str], from| {
        let mut script = Script::new();
        for value in 0..3 {
            script.sent("p", "a", value, value as u64);
        }
        script.assigned("c", &["a"], &[], None);
        script.polled("c", &[("a", 0, 0)]);
        script.assigned("c", &["a"], kept, from);
        script.polled("c", &[("a", 2, 2)]);
        script.final_read(&["a"], &[("a", 0, 0), ("a", 1, 1), ("a", 2, 2)]);
        script.names()
    };
    assert_eq!(history(&["a"], None), ["poll-skip"]);
    assert_eq!(history(&[], Some(From::Beginning)), ["poll-skip"]);
    assert_eq!(history(&[], None), none());
}

#[test]
fn nonmonotonic_send() {
    let history = |idempotent, first, second, one_op: bool| {
        let mut script = Script::new();
        script.opened(
            "p",
            producer(Producer {
                idempotent: Some(idempotent),
                ..Producer::default()
            }),
        );
        if one_op {
            let begin = vec![send("a", 1, None), send("a", 2, None)];
            let open = script.begin("p", Act::Micro(Shape::Send, begin));
            let end = vec![send("a", 1, Some(first)), send("a", 2, Some(second))];
            script.end("p", open, Kind::Ok, Act::Micro(Shape::Send, end));
        } else {
            let (one, two) = (script.sending("p", "a", 1), script.sending("p", "a", 2));
            script.answered("p", two, "a", 2, second);
            script.answered("p", one, "a", 1, first);
        }
        let mut records = [("a", first, 1), ("a", second, 2)];
        records.sort_unstable();
        script.final_read(&["a"], &records);
        script.names()
    };
    assert_eq!(history(true, 1, 0, true), ["int-nonmonotonic-send"]);
    assert_eq!(history(true, 1, 0, false), ["nonmonotonic-send"]);
    assert_eq!(history(true, 0, 1, true), none());
    assert_eq!(history(true, 0, 1, false), none());
    assert_eq!(history(false, 1, 0, false), none());
}

#[test]
fn append_order() {
    let history = |overlap: bool| {
        let mut script = Script::new();
        let one = script.sending("p", "a", 1);
        let two = overlap.then(|| script.sending("q", "a", 2));
        script.answered("p", one, "a", 1, 1);
        let two = two.unwrap_or_else(|| script.sending("q", "a", 2));
        script.answered("q", two, "a", 2, 0);
        script.final_read(&["a"], &[("a", 0, 2), ("a", 1, 1)]);
        script.names()
    };
    assert_eq!(history(false), ["append-order"]);
    assert_eq!(history(true), none());
}

#[test]
fn stuck_consumer_in_the_final_reading() {
    let history = |unreached: Vec<String>| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        let open = script.begin("f", Act::FinalBegin(vec!["a".into()]));
        script.polled("f", &[("a", 0, 1)]);
        let kind = if unreached.is_empty() {
            Kind::Ok
        } else {
            Kind::Info
        };
        script.end(
            "f",
            open,
            kind,
            Act::FinalEnd {
                unreached: Some(unreached),
            },
        );
        script.names()
    };
    assert_eq!(history(vec!["a".into()]), ["stuck-consumer"]);
    assert_eq!(history(Vec::new()), none());
}

#[test]
fn stuck_consumer_by_lag_after_healing() {
    let history = |waits_us: u64, heals: bool, empty: bool| {
        let mut script = Script::new();
        script.header.lag_bound_us = Some(1_000_000);
        script.event(Act::Fault("pause".into()));
        script.sent("p", "a", 1, 0);
        script.assigned("c", &["a"], &[], Some(From::Beginning));
        if heals {
            script.event(Act::Heal);
        }
        script.polled("c", &[]);
        script.now_us += waits_us;
        script.polled("c", if empty { &[] } else { &[("a", 0, 1)] });
        script.final_read(&["a"], &[("a", 0, 1)]);
        script.names()
    };
    assert_eq!(history(1_100_000, true, true), ["stuck-consumer"]);
    assert_eq!(history(900_000, true, true), none());
    assert_eq!(history(1_100_000, false, true), none());
    assert_eq!(history(1_100_000, true, false), none());
}

#[test]
fn false_offset() {
    let history = |answer| {
        let mut script = Script::new();
        script.sent("q", "a", 1, 0);
        script.sent("p", "a", 2, answer);
        script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2)]);
        script.names()
    };
    assert_eq!(history(0), ["false-offset"]);
    assert_eq!(history(1), none());
}

#[test]
fn group_offsets_are_registers() {
    let history = |fetched: Option<u64>, last: Kind| {
        let mut script = Script::new();
        for value in 0..3 {
            script.sent("p", "a", value, value as u64);
        }
        script.polled("c", &[("a", 0, 0), ("a", 1, 1), ("a", 2, 2)]);
        script.group_commit("c", 1, Kind::Ok);
        script.group_commit("c", 2, last);
        script.group_fetched(fetched);
        script.final_read(&["a"], &[("a", 0, 0), ("a", 1, 1), ("a", 2, 2)]);
        script.names()
    };
    assert_eq!(history(Some(1), Kind::Ok), ["group-offset-back"]);
    assert_eq!(history(None, Kind::Info), ["group-offset-back"]);
    assert_eq!(history(Some(3), Kind::Ok), ["group-offset-unknown"]);
    assert_eq!(history(Some(2), Kind::Fail), ["group-offset-unknown"]);
    assert_eq!(history(Some(2), Kind::Ok), none());
    assert_eq!(history(Some(1), Kind::Info), none());
    assert_eq!(history(Some(2), Kind::Info), none());
}

#[test]
fn committed_too_far() {
    let history = |polled: &[(&str, u64, i64)]| {
        let mut script = Script::new();
        for value in 0..3 {
            script.sent("p", "a", value, value as u64);
        }
        script.polled("c", polled);
        script.group_commit("c", 2, Kind::Ok);
        script.group_fetched(Some(2));
        script.final_read(&["a"], &[("a", 0, 0), ("a", 1, 1), ("a", 2, 2)]);
        script.names()
    };
    assert_eq!(history(&[("a", 0, 0)]), ["committed-too-far"]);
    assert_eq!(history(&[("a", 0, 0), ("a", 1, 1)]), none());
}

#[test]
fn watermarks() {
    let history = |listed: &[(u64, u64, u64)]| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        for &(log_start, lso, hw) in listed {
            let (log_start, lso, hw) = (Some(log_start), Some(lso), Some(hw));
            script.listed("a", Bounds { log_start, lso, hw });
        }
        script.final_read(&["a"], &[("a", 0, 1)]);
        script.names()
    };
    assert_eq!(history(&[(0, 2, 1)]), ["watermarks"]);
    assert_eq!(history(&[(0, 2, 2), (0, 1, 2)]), ["watermarks"]);
    assert_eq!(history(&[(0, 1, 2), (0, 1, 1)]), ["watermarks"]);
    assert_eq!(history(&[(0, 0, 0)]), ["watermarks"]);
    assert_eq!(history(&[(0, 1, 1), (0, 1, 2), (1, 2, 2)]), none());
}

#[test]
fn watermarks_of_overlapping_questions_may_differ() {
    let mut script = Script::new();
    let early = script.begin("d1", Act::Debug(BTreeMap::new()));
    let open = script.sending("p", "a", 1);
    let bounds = |hw| {
        let bounds = Bounds {
            hw: Some(hw),
            ..Bounds::default()
        };
        Act::Debug(BTreeMap::from([("a".into(), bounds)]))
    };
    let late = script.begin("d2", Act::Debug(BTreeMap::new()));
    script.end("d2", late, Kind::Ok, bounds(1));
    script.answered("p", open, "a", 1, 0);
    script.end("d1", early, Kind::Ok, bounds(0));
    script.final_read(&["a"], &[("a", 0, 1)]);
    assert_eq!(script.names(), none());
}

#[test]
fn tail_order() {
    let history = |hw| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        script.listed(
            "a",
            Bounds {
                hw: Some(hw),
                ..Bounds::default()
            },
        );
        script.sent("p", "a", 2, 1);
        script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2)]);
        script.names()
    };
    assert_eq!(history(2), ["tail-order"]);
    assert_eq!(history(1), none());
}

#[test]
fn payload() {
    let history = |hash: &str| {
        let mut script = Script::new();
        let mut sent = Send {
            key: "a".into(),
            value: Value::Int(1),
            offset: None,
            hash: Some("aa".into()),
            copy_of: None,
        };
        let open = script.begin(
            "p",
            Act::Micro(Shape::Send, vec![Micro::Send(sent.clone())]),
        );
        sent.offset = Some(0);
        script.end(
            "p",
            open,
            Kind::Ok,
            Act::Micro(Shape::Send, vec![Micro::Send(sent)]),
        );
        let detail = Detail {
            hash: Some(hash.into()),
            ..Detail::default()
        };
        let record = Record {
            offset: 0,
            value: Value::Int(1),
            detail,
        };
        let open = script.polling("c");
        let polled = Micro::Poll(BTreeMap::from([("a".into(), vec![record])]));
        script.end("c", open, Kind::Ok, Act::Micro(Shape::Poll, vec![polled]));
        script.final_read(&["a"], &[("a", 0, 1)]);
        script.names()
    };
    assert_eq!(history("ab"), ["payload"]);
    assert_eq!(history("aa"), none());
}

#[test]
fn precommitted_read() {
    let history = |polled: &[(&str, u64, i64)]| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        let begin = vec![send("a", 2, None), poll(&[])];
        script.txn(
            "t",
            Kind::Ok,
            begin,
            vec![send("a", 2, Some(1)), poll(polled)],
        );
        script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2)]);
        script.names()
    };
    assert_eq!(history(&[("a", 1, 2)]), ["precommitted-read"]);
    assert_eq!(history(&[("a", 0, 1)]), none());
}

#[test]
fn torn_txn() {
    let history = |seen: &[(&str, u64, i64)]| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        let sends = vec![send("a", 2, None), send("b", 3, None)];
        script.txn("t", Kind::Info, sends, Vec::new());
        let mut records = vec![("a", 0, 1)];
        records.extend_from_slice(seen);
        script.final_read(&["a", "b"], &records);
        script.names()
    };
    // The missing half has no known offset: only the final reading can tell.
    assert_eq!(history(&[("a", 1, 2)]), ["torn-txn"]);
    assert_eq!(history(&[("a", 1, 2), ("b", 0, 3)]), none());
    assert_eq!(history(&[]), none());
}

#[test]
fn dirty_read() {
    let history = |lso| {
        let mut script = Script::new();
        script.sent("p", "a", 1, 0);
        script.polled("c", &[("a", 0, 1)]);
        script.listed(
            "a",
            Bounds {
                lso: Some(lso),
                ..Bounds::default()
            },
        );
        script.final_read(&["a"], &[("a", 0, 1)]);
        script.names()
    };
    assert_eq!(history(0), ["dirty-read"]);
    assert_eq!(history(1), none());
}

#[test]
fn intermediate_read() {
    let history = |polled: &[(&str, u64, i64)]| {
        let mut script = Script::new();
        let begin = vec![send("a", 1, None), send("a", 2, None)];
        script.txn(
            "t",
            Kind::Ok,
            begin,
            vec![send("a", 1, Some(0)), send("a", 2, Some(1))],
        );
        script.sent("p", "a", 3, 3);
        script.polled("c", polled);
        script.final_read(&["a"], &[("a", 0, 1), ("a", 1, 2), ("a", 3, 3)]);
        script.names()
    };
    assert_eq!(history(&[("a", 0, 1), ("a", 3, 3)]), ["intermediate-read"]);
    assert_eq!(history(&[("a", 0, 1), ("a", 1, 2), ("a", 3, 3)]), none());
}

#[test]
fn g1c_by_write_read_edges_only() {
    let history = |circle: bool| {
        let mut script = Script::new();
        let one = script.begin(
            "t",
            Act::Micro(Shape::Txn, vec![send("a", 1, None), poll(&[])]),
        );
        let two = script.begin(
            "u",
            Act::Micro(Shape::Txn, vec![send("b", 2, None), poll(&[])]),
        );
        let saw_two = poll(if circle { &[("b", 0, 2)] } else { &[] });
        let end = vec![send("a", 1, Some(0)), saw_two];
        script.end("t", one, Kind::Ok, Act::Micro(Shape::Txn, end));
        let end = vec![send("b", 2, Some(0)), poll(&[("a", 0, 1)])];
        script.end("u", two, Kind::Ok, Act::Micro(Shape::Txn, end));
        script.final_read(&["a", "b"], &[("a", 0, 1), ("b", 0, 2)]);
        script.names()
    };
    assert_eq!(history(true), ["g1c"]);
    assert_eq!(history(false), none());
}

#[test]
fn interleaved_writers_are_a_note() {
    let mut script = Script::new();
    let begin = |values: [i64; 2]| vec![send("a", values[0], None), send("a", values[1], None)];
    let one = script.begin("t", Act::Micro(Shape::Txn, begin([1, 3])));
    let two = script.begin("u", Act::Micro(Shape::Txn, begin([2, 4])));
    let end = |first, second| {
        vec![
            send("a", first, Some(first as u64)),
            send("a", second, Some(second as u64)),
        ]
    };
    script.end("t", one, Kind::Ok, Act::Micro(Shape::Txn, end(1, 3)));
    script.end("u", two, Kind::Ok, Act::Micro(Shape::Txn, end(2, 4)));
    script.final_read(
        &["a"],
        &[("a", 1, 1), ("a", 2, 2), ("a", 3, 3), ("a", 4, 4)],
    );
    let report = script.report();
    assert_eq!(report.names(), none());
    assert!(report.notes.contains_key("g0-or-g1c-with-ww"));
}

#[test]
fn stuck_txn() {
    let history = |lso, waits_us| {
        let mut script = Script::new();
        script.header.txn_timeout_us = Some(1_000_000);
        script.sent("p", "a", 1, 0);
        script.event(Act::Heal);
        script.now_us += waits_us;
        script.listed(
            "a",
            Bounds {
                lso: Some(lso),
                hw: Some(1),
                ..Bounds::default()
            },
        );
        if lso == 1 {
            script.final_read(&["a"], &[("a", 0, 1)]);
        } else {
            script.header.lag_bound_us = Some(u64::MAX);
            script.final_read(&["b"], &[]);
            script.polled("c", &[("a", 0, 1)]);
        }
        script.names()
    };
    assert_eq!(history(0, 1_100_000), ["stuck-txn"]);
    assert_eq!(history(0, 900_000), none());
    assert_eq!(history(1, 1_100_000), none());
}

#[test]
fn eos_copy() {
    let history = |copies: &[i64]| {
        let mut script = Script::new();
        script.header.copy_inputs = vec!["in".into()];
        script.sent("p", "in", 1, 0);
        let mut records = vec![("in", 0, 1)];
        for (offset, &value) in copies.iter().enumerate() {
            let offset = offset as u64;
            let output = |offset| {
                let copy_of = Some(("in".into(), Value::Int(1)));
                let (key, value) = ("out".into(), Value::Int(value));
                Micro::Send(Send {
                    key,
                    value,
                    offset,
                    hash: None,
                    copy_of,
                })
            };
            script.txn(
                "t",
                Kind::Ok,
                vec![output(None)],
                vec![output(Some(offset))],
            );
            records.push(("out", offset, value));
        }
        script.final_read(&["in", "out"], &records);
        script.names()
    };
    assert_eq!(history(&[]), ["eos-copy"]);
    assert_eq!(history(&[7, 8]), ["eos-copy"]);
    assert_eq!(history(&[7]), none());
}

#[test]
fn zombie_accepted() {
    let history = |before: bool| {
        let mut script = Script::new();
        let identity = |epoch| {
            producer(Producer {
                id: Some(7),
                epoch: Some(epoch),
                idempotent: None,
                transactional: Some("t".into()),
            })
        };
        script.opened("old", identity(0));
        if before {
            script.opened("new", identity(1));
        }
        script.txn(
            "old",
            Kind::Ok,
            vec![send("a", 1, None)],
            vec![send("a", 1, Some(0))],
        );
        if !before {
            script.opened("new", identity(1));
        }
        script.final_read(&["a"], &[("a", 0, 1)]);
        script.names()
    };
    assert_eq!(history(true), ["zombie-accepted"]);
    assert_eq!(history(false), none());
}

#[test]
fn a_run_that_proves_nothing_fails() {
    let history = |promised: bool, fault: bool, acknowledged: bool, ended: bool| {
        let mut script = Script::new();
        script.header.faults = promised;
        if fault {
            script.event(Act::Fault("kill".into()));
        }
        let open = script.sending("p", "a", 1);
        if acknowledged {
            script.answered("p", open, "a", 1, 0);
        }
        script.polled("c", &[("a", 0, 1)]);
        if ended {
            script.final_read(&["a"], &[("a", 0, 1)]);
        }
        script.names()
    };
    assert_eq!(history(true, false, true, true), ["vacuous"]);
    assert_eq!(history(false, false, false, true), ["vacuous"]);
    assert_eq!(history(false, false, true, false), ["vacuous"]);
    assert_eq!(history(true, true, true, true), none());
    assert_eq!(history(false, false, true, true), none());
    assert_eq!(Script::new().names(), ["vacuous"]);
}

/// The example of the format's page is read and clean.
#[test]
fn the_documented_example_is_clean() {
    let page = include_str!("../../../../docs/formats/history.md");
    let from = page
        .find("## Example: clean")
        .expect("the page has the example");
    let block = page[from..].split("```").nth(1).expect("a code block");
    let text = block.trim_start_matches("json\n");
    let mut reader = Reader::open(BufReader::new(text.as_bytes())).expect("its header reads");
    let mut lines = Vec::new();
    while let Some(line) = reader.next_line().expect("its lines read") {
        lines.push(line);
    }
    assert_eq!(lines.len(), 14);
    let report = check_lines(reader.header().clone(), lines).expect("they follow each other");
    assert!(report.is_clean(), "{report}");
}

#[test]
fn what_breaks_the_format_is_refused() {
    let read = |text: &str| -> Result<Vec<Line>, String> {
        let mut reader =
            Reader::open(BufReader::new(text.as_bytes())).map_err(|e| e.to_string())?;
        let mut lines = Vec::new();
        while let Some(line) = reader.next_line().map_err(|e| e.to_string())? {
            lines.push(line);
        }
        Ok(lines)
    };
    let line = |rest: &str| {
        format!("{{\"history\":1}}\n{{\"index\":1,\"time\":1,\"process\":1,{rest}}}\n")
    };
    let good = line(r#""type":"invoke","op":1,"f":"send","value":[["send","a",1]]"#);
    assert_eq!(read(&good).expect("good").len(), 1);
    assert_eq!(
        read(good.trim_end())
            .expect("a cut last line is left out")
            .len(),
        0
    );
    for bad in [
        String::new(),
        "{}\n".into(),
        "{\"history\":2}\n".into(),
        line(r#""type":"invoke","op":1,"f":"jump","value":null"#),
        line(r#""type":"invoke","f":"send","value":[["send","a",1]]"#),
        line(r#""type":"ok","op":1,"f":"send","value":[["send","a",1]]"#),
        line(r#""type":"ok","op":1,"f":"send","value":[["send","a",[-1,1]]]"#),
        line(r#""type":"invoke","op":1,"f":"poll","value":[["send","a",1]]"#),
        line(r#""type":"invoke","op":1,"f":"poll","value":[["poll"]],"extra":1"#),
        line(r#""type":"info","op":1,"f":"fault","value":"x""#),
    ] {
        assert!(read(&bad).is_err(), "accepted: {bad}");
    }
}
