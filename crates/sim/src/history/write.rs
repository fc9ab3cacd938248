//! Writes histories: the inverse of [`super::read`], with the same bytes for the same values.
//!
//! Must not know who produced them.

use std::io::{self, Write};

use serde_json::{Map, Value as Json, json};

use super::{Act, Header, Line, Micro, Record, Send, Shape};

/// Writes the header line.
pub fn write_header(out: &mut impl Write, header: &Header) -> io::Result<()> {
    let json = serde_json::to_value(header).map_err(io::Error::other)?;
    writeln!(out, "{json}")
}

/// Writes one line after the header.
pub fn write_line(out: &mut impl Write, line: &Line) -> io::Result<()> {
    let mut object = Map::new();
    object.insert("index".into(), line.index.into());
    object.insert("time".into(), line.time_us.into());
    object.insert("process".into(), line.process.as_str().into());
    object.insert(
        "type".into(),
        serde_json::to_value(line.kind).map_err(io::Error::other)?,
    );
    if let Some(op) = line.op {
        object.insert("op".into(), op.into());
    }
    let (f, value) = act_json(&line.act, line.kind == super::Kind::Invoke)?;
    object.insert("f".into(), f.into());
    object.insert("value".into(), value);
    if !line.rebalanced.is_empty() {
        object.insert("rebalanced".into(), json!(line.rebalanced));
    }
    writeln!(out, "{}", Json::Object(object))
}

fn act_json(act: &Act, invoke: bool) -> io::Result<(&'static str, Json)> {
    let encode = |value: Result<Json, serde_json::Error>| value.map_err(io::Error::other);
    Ok(match act {
        Act::Open(client) => ("open", encode(serde_json::to_value(client))?),
        Act::Micro(shape, micros) => {
            let f = match shape {
                Shape::Send => "send",
                Shape::Poll => "poll",
                Shape::Txn => "txn",
            };
            (
                f,
                Json::Array(
                    micros
                        .iter()
                        .map(|micro| micro_json(micro, invoke))
                        .collect(),
                ),
            )
        }
        Act::Assign(assign) => ("assign", encode(serde_json::to_value(assign))?),
        Act::Subscribe => (
            "subscribe",
            if invoke {
                json!({"topics": []})
            } else {
                Json::Null
            },
        ),
        Act::Commit(offsets) => ("commit", encode(serde_json::to_value(offsets))?),
        Act::Committed(None) if invoke => ("committed", json!({"group": "", "keys": []})),
        Act::Committed(offsets) => ("committed", encode(serde_json::to_value(offsets))?),
        Act::Debug(_) if invoke => ("debug", json!({"keys": []})),
        Act::Debug(bounds) => ("debug", encode(serde_json::to_value(bounds))?),
        Act::FinalBegin(keys) => ("final", json!({ "keys": keys })),
        Act::FinalEnd {
            unreached: Some(keys),
        } => ("final", json!({ "unreached": keys })),
        Act::FinalEnd { unreached: None } => ("final", Json::Null),
        Act::Fault(what) => ("fault", what.as_str().into()),
        Act::Heal => ("heal", Json::Null),
        Act::Crash => ("crash", Json::Null),
    })
}

fn micro_json(micro: &Micro, invoke: bool) -> Json {
    match micro {
        Micro::Send(send) => send_json(send, invoke),
        Micro::Poll(_) if invoke => json!(["poll"]),
        Micro::Poll(records) => {
            let keys: Map<String, Json> = records
                .iter()
                .map(|(key, records)| (key.clone(), records.iter().map(record_json).collect()))
                .collect();
            json!(["poll", keys])
        }
    }
}

fn send_json(send: &Send, invoke: bool) -> Json {
    let value = if invoke {
        json!(send.value)
    } else {
        json!([send.offset, send.value])
    };
    let mut extra = Map::new();
    if let Some(hash) = &send.hash {
        extra.insert("hash".into(), hash.as_str().into());
    }
    if let Some((key, value)) = &send.copy_of {
        extra.insert("copy_of".into(), json!([key, value]));
    }
    if extra.is_empty() {
        json!(["send", send.key, value])
    } else {
        json!(["send", send.key, value, extra])
    }
}

fn record_json(record: &Record) -> Json {
    if record.detail == super::Detail::default() {
        json!([record.offset, record.value])
    } else {
        json!([record.offset, record.value, record.detail])
    }
}
