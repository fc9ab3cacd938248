//! Metrics that have a value for each bucket of a cluster with several.

use std::fmt::Write as _;

use store::buckets::State;

/// Begins a metric of which a line for each bucket, or several, follow.
pub(super) fn head(text: &mut String, name: &str, help: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
}

/// A metric with a line for each bucket of which there is a value.
pub(super) fn family(
    text: &mut String,
    states: &[State],
    name: &str,
    help: &str,
    value: impl Fn(&State) -> Option<u64>,
) {
    head(text, name, help);
    for state in states {
        if let Some(value) = value(state) {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{name}{{bucket=\"{}\"}} {value}", state.name);
        }
    }
}
