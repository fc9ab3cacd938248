//! Anomalies of log start, last stable offset and high watermark, as ListOffsets told them.
//!
//! Must not look at what polls returned.

use crate::history::{Bounds, Header, Kind};

use super::order::Orders;
use super::report::Findings;
use super::tables::{KeyId, Span, Tables};

/// A function that takes one of the three bounds.
type Pick = fn(&Bounds) -> Option<u64>;

const BOUNDS: [(&str, Pick); 3] = [
    ("log start", |bounds| bounds.log_start),
    ("last stable offset", |bounds| bounds.lso),
    ("high watermark", |bounds| bounds.hw),
];

/// Runs all of them.
pub(super) fn check(header: &Header, tables: &Tables, orders: &Orders, findings: &mut Findings) {
    let mut keys: Vec<(&KeyId, &Vec<(Span, Bounds)>)> = tables.bounds.iter().collect();
    keys.sort_unstable_by_key(|(key, _)| **key);
    for (&key, listed) in keys {
        check_order(tables, key, listed, findings);
        for (name, pick) in BOUNDS {
            check_never_back(tables, key, listed, name, pick, findings);
        }
        check_end(tables, orders, key, listed, findings);
        check_stable(header, tables, key, listed, findings);
    }
}

fn check_order(tables: &Tables, key: KeyId, listed: &[(Span, Bounds)], findings: &mut Findings) {
    for (span, bounds) in listed {
        let known: Vec<u64> = BOUNDS.iter().filter_map(|(_, pick)| pick(bounds)).collect();
        if !known.is_sorted() {
            let what = format!("{}: {bounds:?} out of order", tables.key(key));
            findings.anomaly("watermarks", what, [span.line]);
        }
    }
}

fn check_never_back(
    tables: &Tables,
    key: KeyId,
    listed: &[(Span, Bounds)],
    name: &str,
    pick: Pick,
    findings: &mut Findings,
) {
    let mut ends: Vec<(u64, u64, u64)> = listed
        .iter()
        .filter_map(|(span, bounds)| pick(bounds).map(|value| (span.end_us, value, span.line)))
        .collect();
    ends.sort_unstable();
    let mut begins: Vec<(u64, u64, u64)> = listed
        .iter()
        .filter_map(|(span, bounds)| pick(bounds).map(|value| (span.begin_us, value, span.line)))
        .collect();
    begins.sort_unstable();
    let mut ended = ends.into_iter().peekable();
    let mut highest: Option<(u64, u64)> = None;
    for (begin_us, value, line) in begins {
        while let Some((_, value, line)) = ended.next_if(|&(end_us, ..)| end_us < begin_us) {
            highest = highest.max(Some((value, line)));
        }
        if let Some((before, earlier)) = highest.filter(|&(before, _)| before > value) {
            let what = format!(
                "{}: {name} went from {before} back to {value}",
                tables.key(key)
            );
            findings.anomaly("watermarks", what, [earlier, line]);
        }
    }
}

/// The end lies above everything acknowledged before the question, and not above what was sent after the answer.
fn check_end(
    tables: &Tables,
    orders: &Orders,
    key: KeyId,
    listed: &[(Span, Bounds)],
    findings: &mut Findings,
) {
    struct Placed {
        offset: u64,
        acknowledged_us: u64,
        begin_us: u64,
        line: u64,
    }
    let mut placed = Vec::new();
    for &(offset, value) in &orders.of(key).entries {
        let Some(op) = tables.sender(value) else {
            continue;
        };
        if tables.value(value).places.len() < 2 {
            let acknowledged_us = if op.kind == Kind::Ok {
                op.span.end_us
            } else {
                u64::MAX
            };
            let (begin_us, line) = (op.span.begin_us, op.span.line);
            placed.push(Placed {
                offset,
                acknowledged_us,
                begin_us,
                line,
            });
        }
    }
    for (span, bounds) in listed {
        let Some(hw) = bounds.hw else { continue };
        let below = placed
            .iter()
            .find(|p| p.acknowledged_us < span.begin_us && p.offset >= hw);
        if let Some(found) = below {
            let what = format!(
                "{}: high watermark {hw} although offset {} was acknowledged before",
                tables.key(key),
                found.offset
            );
            findings.anomaly("watermarks", what, [found.line, span.line]);
        }
        let above = placed
            .iter()
            .find(|p| p.begin_us > span.end_us && p.offset < hw);
        if let Some(found) = above {
            let what = format!(
                "{}: high watermark {hw} counts offset {}, sent only later",
                tables.key(key),
                found.offset
            );
            findings.anomaly("tail-order", what, [span.line, found.line]);
        }
    }
}

/// Once transactions have timed out, the last listing shows nothing unstable.
fn check_stable(
    header: &Header,
    tables: &Tables,
    key: KeyId,
    listed: &[(Span, Bounds)],
    findings: &mut Findings,
) {
    let (Some(timeout_us), Some(heal_us)) = (header.txn_timeout_us, tables.heal_us) else {
        return;
    };
    let Some((span, bounds)) = listed.last() else {
        return;
    };
    if let (Some(lso), Some(hw)) = (bounds.lso, bounds.hw)
        && lso < hw
        && span.begin_us > heal_us.saturating_add(timeout_us)
    {
        let what = format!("{}: last stable offset {lso} below {hw}", tables.key(key));
        findings.anomaly("stuck-txn", what, [span.line]);
    }
}
