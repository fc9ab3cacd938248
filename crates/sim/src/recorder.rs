//! Writes down what the simulated clients asked and were told, as real clients do.
//!
//! Must not know what the server did.

use std::collections::BTreeMap;

use crate::history::{Act, Bounds, Header, Kind, Line, Micro, Record, Send, Shape, Value};

/// The history of a run.
#[derive(Default)]
pub(crate) struct Recorder {
    lines: Vec<Line>,
    next_op: u64,
}

impl Recorder {
    /// The header of such a history.
    pub(crate) fn header(faults: bool, lag_bound_us: u64) -> Header {
        Header {
            history: 1,
            clients: Some("simulated".to_owned()),
            faults,
            lag_bound_us: Some(lag_bound_us),
            ..Header::default()
        }
    }

    /// The lines so far.
    pub(crate) fn into_lines(self) -> Vec<Line> {
        self.lines
    }

    /// An operation begins; the number is for its end.
    pub(crate) fn begin(&mut self, now_us: u64, process: &str, act: Act) -> u64 {
        self.next_op += 1;
        self.line(now_us, process, Kind::Invoke, Some(self.next_op), act);
        self.next_op
    }

    pub(crate) fn end(&mut self, now_us: u64, process: &str, op: u64, kind: Kind, act: Act) {
        self.line(now_us, process, kind, Some(op), act);
    }

    /// Something that is no operation.
    pub(crate) fn event(&mut self, now_us: u64, act: Act) {
        self.line(now_us, "nemesis", Kind::Info, None, act);
    }

    /// An operation that is over as it begins.
    pub(crate) fn at_once(&mut self, now_us: u64, process: &str, invoke: Act, ok: Act) {
        let op = self.begin(now_us, process, invoke);
        self.end(now_us, process, op, Kind::Ok, ok);
    }

    fn line(&mut self, now_us: u64, process: &str, kind: Kind, op: Option<u64>, act: Act) {
        self.lines.push(Line {
            index: self.lines.len() as u64,
            time_us: now_us,
            process: process.to_owned(),
            kind,
            op,
            act,
            rebalanced: Vec::new(),
        });
    }
}

/// The send of one value.
pub(crate) fn sending(key: &str, value: i64, hash: String, offset: Option<i64>) -> Act {
    let offset = offset.and_then(|offset| u64::try_from(offset).ok());
    let (key, value) = (key.to_owned(), Value::Int(value));
    let send = Send {
        key,
        value,
        offset,
        hash: Some(hash),
        copy_of: None,
    };
    Act::Micro(Shape::Send, vec![Micro::Send(send)])
}

/// A poll and what it returned.
pub(crate) fn polling(records: BTreeMap<String, Vec<Record>>) -> Act {
    Act::Micro(Shape::Poll, vec![Micro::Poll(records)])
}

/// What a client is told of a partition's bounds.
pub(crate) fn bounds(bounds: &meta::places::Bounds) -> Bounds {
    Bounds {
        log_start: u64::try_from(bounds.log_start).ok(),
        lso: None,
        hw: u64::try_from(bounds.high_watermark).ok(),
    }
}
