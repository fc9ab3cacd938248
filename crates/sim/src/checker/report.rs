//! What the checker says: anomalies, notes and what the history held, for people and as JSON.
//!
//! Must not know how anything was found.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Examples kept per anomaly; the count goes on.
const EXAMPLES_MAX: usize = 5;

/// One case of an anomaly.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// What happened, in words.
    pub what: String,
    /// `index` of the history lines where the operations concerned begin.
    pub lines: Vec<u64>,
}

/// All cases of one anomaly.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Found {
    pub count: u64,
    pub examples: Vec<Example>,
}

/// What a history held.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub keys: u64,
    pub operations: u64,
    pub sent: u64,
    pub acknowledged: u64,
    pub failed: u64,
    /// Values whose fate the client does not know.
    pub unknown: u64,
    /// Records that polls returned.
    pub polled: u64,
    pub transactions: u64,
    pub faults: u64,
    pub finals: u64,
}

/// The verdict on a history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Anomalies by name; empty = clean.
    pub anomalies: BTreeMap<&'static str, Found>,
    /// What is allowed and still worth knowing.
    pub notes: BTreeMap<&'static str, Found>,
    /// What the history held.
    pub counts: Counts,
}

impl Report {
    /// No anomaly was found.
    pub fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// Names of the anomalies found, sorted.
    pub fn names(&self) -> Vec<&'static str> {
        self.anomalies.keys().copied().collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = &self.counts;
        writeln!(
            f,
            "{} keys, {} operations; sent {}: {} acknowledged, {} refused, {} unknown; polled {}; {} transactions; {} faults; {} final readings",
            counts.keys,
            counts.operations,
            counts.sent,
            counts.acknowledged,
            counts.failed,
            counts.unknown,
            counts.polled,
            counts.transactions,
            counts.faults,
            counts.finals
        )?;
        for (title, table) in [("ANOMALY", &self.anomalies), ("note", &self.notes)] {
            for (name, found) in table {
                writeln!(f, "{title} {name}: {}", found.count)?;
                for example in &found.examples {
                    writeln!(f, "  {} (lines {:?})", example.what, example.lines)?;
                }
            }
        }
        write!(
            f,
            "{}",
            if self.is_clean() {
                "clean"
            } else {
                "NOT CLEAN"
            }
        )
    }
}

/// Anomalies and notes as they are found.
#[derive(Default)]
pub(super) struct Findings {
    anomalies: BTreeMap<&'static str, Found>,
    notes: BTreeMap<&'static str, Found>,
}

impl Findings {
    /// One more case of an anomaly.
    pub(super) fn anomaly(
        &mut self,
        name: &'static str,
        what: String,
        lines: impl IntoIterator<Item = u64>,
    ) {
        record(&mut self.anomalies, name, what, lines);
    }

    /// One more case of something allowed.
    pub(super) fn note(
        &mut self,
        name: &'static str,
        what: String,
        lines: impl IntoIterator<Item = u64>,
    ) {
        record(&mut self.notes, name, what, lines);
    }

    pub(super) fn into_report(self, counts: Counts) -> Report {
        Report {
            anomalies: self.anomalies,
            notes: self.notes,
            counts,
        }
    }
}

fn record(
    table: &mut BTreeMap<&'static str, Found>,
    name: &'static str,
    what: String,
    lines: impl IntoIterator<Item = u64>,
) {
    let found = table.entry(name).or_default();
    found.count += 1;
    if found.examples.len() < EXAMPLES_MAX {
        found.examples.push(Example {
            what,
            lines: lines.into_iter().collect(),
        });
    }
}
