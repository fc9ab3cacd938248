//! Reads histories, strictly: what is not in `docs/formats/history.md` is refused, with the line it stands in.
//!
//! Must not know what is being checked.

use std::collections::BTreeMap;
use std::io::{self, BufRead};

use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    Act, Assign, Bounds, Client, Detail, GroupOffsets, Header, Kind, Line, Micro, Record, Send,
    Shape, Value,
};

/// Why a history cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("cannot read: {0}")]
    Io(#[from] io::Error),
    /// A line is not what the format says.
    #[error("line {line}: {what}")]
    Malformed {
        /// Line number, from 1.
        line: usize,
        what: String,
    },
}

/// A history as it is read, line by line.
pub struct Reader<R> {
    source: R,
    line: usize,
    header: Header,
    last_index: Option<u64>,
    last_time_us: u64,
    text: String,
}

impl<R: BufRead> Reader<R> {
    pub fn open(mut source: R) -> Result<Self, Error> {
        let mut text = String::new();
        source.read_line(&mut text)?;
        let malformed = |what: String| Error::Malformed { line: 1, what };
        let header: Header = serde_json::from_str(text.trim_end())
            .map_err(|error| malformed(format!("not a history header: {error}")))?;
        if header.history != 1 {
            return Err(malformed(format!(
                "history version {}, this reader knows 1",
                header.history
            )));
        }
        Ok(Reader {
            source,
            line: 1,
            header,
            last_index: None,
            last_time_us: 0,
            text,
        })
    }

    /// What the first line says.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The next line, `None` at the end. A last line without its newline was cut off and is left out.
    pub fn next_line(&mut self) -> Result<Option<Line>, Error> {
        self.text.clear();
        self.source.read_line(&mut self.text)?;
        self.line += 1;
        if !self.text.ends_with('\n') {
            return Ok(None);
        }
        let parsed = parse_line(&self.text).and_then(|line| self.check_order(line));
        parsed.map(Some).map_err(|what| Error::Malformed {
            line: self.line,
            what,
        })
    }

    fn check_order(&mut self, line: Line) -> Result<Line, String> {
        if self.last_index.is_some_and(|last| line.index <= last) {
            return Err(format!("index {} does not grow", line.index));
        }
        if line.time_us < self.last_time_us {
            return Err(format!("time {} goes back", line.time_us));
        }
        self.last_index = Some(line.index);
        self.last_time_us = line.time_us;
        Ok(line)
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Name {
    Number(i64),
    Text(String),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLine {
    index: u64,
    time: u64,
    process: Name,
    r#type: Kind,
    #[serde(default)]
    op: Option<u64>,
    f: String,
    #[serde(default)]
    value: Json,
    #[serde(default)]
    rebalanced: Vec<String>,
}

/// Parses one line after the header; the error says what is wrong with it.
pub fn parse_line(text: &str) -> Result<Line, String> {
    let raw: RawLine = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let act = parse_act(&raw.f, raw.r#type, raw.value)?;
    let event = matches!(act, Act::Fault(_) | Act::Heal | Act::Crash);
    if event != raw.op.is_none() {
        return Err(format!(
            "`{}` {} an `op`",
            raw.f,
            if event { "has" } else { "lacks" }
        ));
    }
    if event && raw.r#type != Kind::Info {
        return Err(format!("event `{}` has a type other than info", raw.f));
    }
    Ok(Line {
        index: raw.index,
        time_us: raw.time,
        process: match raw.process {
            Name::Number(number) => number.to_string(),
            Name::Text(text) => text,
        },
        kind: raw.r#type,
        op: raw.op,
        act,
        rebalanced: raw.rebalanced,
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    keys: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unreached {
    unreached: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Topics {
    #[serde(rename = "topics")]
    _topics: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct GroupKeys {
    #[serde(rename = "group")]
    _group: String,
    #[serde(rename = "keys")]
    _keys: Vec<String>,
}

fn parse_act(f: &str, kind: Kind, value: Json) -> Result<Act, String> {
    let invoke = kind == Kind::Invoke;
    let bad = |error: serde_json::Error| format!("value of `{f}`: {error}");
    let act = match f {
        "open" if value.is_null() => Act::Open(Client::default()),
        "open" => Act::Open(from_json(value).map_err(bad)?),
        "send" => Act::Micro(Shape::Send, parse_micros(Shape::Send, kind, value)?),
        "poll" => Act::Micro(Shape::Poll, parse_micros(Shape::Poll, kind, value)?),
        "txn" => Act::Micro(Shape::Txn, parse_micros(Shape::Txn, kind, value)?),
        "assign" if invoke => Act::Assign(Some(from_json::<Assign>(value).map_err(bad)?)),
        "assign" => Act::Assign(None),
        "subscribe" if invoke => {
            from_json::<Topics>(value).map_err(bad)?;
            Act::Subscribe
        }
        "subscribe" => Act::Subscribe,
        "commit" if invoke => Act::Commit(Some(from_json::<GroupOffsets>(value).map_err(bad)?)),
        "commit" => Act::Commit(None),
        "committed" if kind == Kind::Ok => {
            Act::Committed(Some(from_json::<GroupOffsets>(value).map_err(bad)?))
        }
        "committed" if invoke => {
            from_json::<GroupKeys>(value).map_err(bad)?;
            Act::Committed(None)
        }
        "committed" => Act::Committed(None),
        "debug" if kind == Kind::Ok => {
            Act::Debug(from_json::<BTreeMap<String, Bounds>>(value).map_err(bad)?)
        }
        "debug" if invoke => {
            from_json::<Keys>(value).map_err(bad)?;
            Act::Debug(BTreeMap::new())
        }
        "debug" => Act::Debug(BTreeMap::new()),
        "final" if invoke => Act::FinalBegin(from_json::<Keys>(value).map_err(bad)?.keys),
        "final" if kind == Kind::Ok => Act::FinalEnd {
            unreached: Some(Vec::new()),
        },
        "final" if value.is_null() => Act::FinalEnd { unreached: None },
        "final" => Act::FinalEnd {
            unreached: Some(from_json::<Unreached>(value).map_err(bad)?.unreached),
        },
        "fault" => Act::Fault(match value {
            Json::String(text) => text,
            other => other.to_string(),
        }),
        "heal" => Act::Heal,
        "crash" => Act::Crash,
        other => return Err(format!("unknown operation `{other}`")),
    };
    Ok(act)
}

fn from_json<T: for<'de> Deserialize<'de>>(value: Json) -> Result<T, serde_json::Error> {
    serde_json::from_value(value)
}

fn parse_micros(shape: Shape, kind: Kind, value: Json) -> Result<Vec<Micro>, String> {
    let items = match value {
        Json::Null if matches!(kind, Kind::Fail | Kind::Info) => return Ok(Vec::new()),
        Json::Array(items) => items,
        other => return Err(format!("micro-operations expected, not {other}")),
    };
    let micros: Vec<Micro> = items
        .into_iter()
        .map(|item| parse_micro(kind, item))
        .collect::<Result<_, _>>()?;
    for micro in &micros {
        match (shape, micro) {
            (Shape::Send, Micro::Poll(_)) => return Err("a poll inside `send`".into()),
            (Shape::Poll, Micro::Send(_)) => return Err("a send inside `poll`".into()),
            _ => {}
        }
    }
    Ok(micros)
}

fn parse_micro(kind: Kind, item: Json) -> Result<Micro, String> {
    let Json::Array(mut parts) = item else {
        return Err(format!("a micro-operation is a list, not {item}"));
    };
    let name = parts
        .first()
        .and_then(Json::as_str)
        .unwrap_or_default()
        .to_owned();
    match name.as_str() {
        "send" if (3..=4).contains(&parts.len()) => {
            let extra = if parts.len() == 4 { parts.pop() } else { None };
            let value = parts.pop().unwrap_or_default();
            let key = parts.pop().unwrap_or_default();
            parse_send(kind, key, value, extra).map(Micro::Send)
        }
        "poll" if parts.len() == 1 => Ok(Micro::Poll(BTreeMap::new())),
        "poll" if parts.len() == 2 && kind != Kind::Invoke => {
            parse_poll(parts.pop().unwrap_or_default()).map(Micro::Poll)
        }
        _ => Err(format!("not a micro-operation: {}", Json::Array(parts))),
    }
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct SendExtra {
    #[serde(default)]
    hash: Option<String>,
    #[serde(default)]
    copy_of: Option<(String, Value)>,
}

fn parse_send(kind: Kind, key: Json, value: Json, extra: Option<Json>) -> Result<Send, String> {
    let key: String = from_json(key).map_err(|error| format!("key of a send: {error}"))?;
    let extra: SendExtra = match extra {
        Some(extra) => from_json(extra).map_err(|error| format!("send of {key}: {error}"))?,
        None => SendExtra::default(),
    };
    let plain = kind == Kind::Invoke || (kind != Kind::Ok && !value.is_array());
    let (offset, value) = if plain {
        (
            None,
            from_json(value).map_err(|error| format!("send of {key}: {error}"))?,
        )
    } else {
        from_json::<(Option<u64>, Value)>(value)
            .map_err(|error| format!("send of {key}: {error}"))?
    };
    Ok(Send {
        key,
        value,
        offset,
        hash: extra.hash,
        copy_of: extra.copy_of,
    })
}

#[derive(Deserialize)]
#[serde(untagged)]
enum RawRecord {
    Plain(u64, Value),
    Detailed(u64, Value, Detail),
}

fn parse_poll(value: Json) -> Result<BTreeMap<String, Vec<Record>>, String> {
    let raw: BTreeMap<String, Vec<RawRecord>> =
        from_json(value).map_err(|error| format!("records of a poll: {error}"))?;
    Ok(raw
        .into_iter()
        .map(|(key, records)| (key, records.into_iter().map(record_of).collect()))
        .collect())
}

fn record_of(raw: RawRecord) -> Record {
    match raw {
        RawRecord::Plain(offset, value) => Record {
            offset,
            value,
            detail: Detail::default(),
        },
        RawRecord::Detailed(offset, value, detail) => Record {
            offset,
            value,
            detail,
        },
    }
}
