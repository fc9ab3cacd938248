//! What each bucket of several lacks, and whether it is suspect, as a control node knows it.

use std::collections::{BTreeMap, BTreeSet};

use meta::short::Shortage;
use serde_json::{Value, json};
use store::buckets::{Buckets, State};

use super::by_bucket::family;
use super::lags::Lags;

fn known(control: &control::Node) -> BTreeMap<u32, (Shortage, Option<u64>)> {
    control.with_state(|state| {
        let wall_millis = state.stamp().wall_millis;
        let of = |(number, short): (u32, Shortage)| {
            let oldest = short.oldest_wall_millis;
            (
                number,
                (
                    short,
                    oldest.map(|oldest| wall_millis.saturating_sub(oldest)),
                ),
            )
        };
        state.shortages().map(of).collect()
    })
}

fn suspects(control: &control::Node) -> BTreeSet<u32> {
    let bucket = |(bucket, _): (u32, u64)| bucket;
    control.with_state(|state| state.suspect_buckets().map(bucket).collect())
}

/// Adds to what is told of each bucket: how many files it lacks, how many bytes, how old the oldest of them was at the last entry and when it was
/// committed, by the journal's time in milliseconds since 1970, and whether
/// it may have lost what it held and is compared.
pub(super) fn add(buckets: &mut [Value], control: &control::Node) {
    let suspects = suspects(control);
    for (number, (short, age_millis)) in known(control) {
        let bucket = buckets.iter_mut().find(|bucket| bucket["number"] == number);
        if let Some(bucket) = bucket {
            bucket["short_files"] = json!(short.files);
            bucket["short_bytes"] = json!(short.bytes);
            bucket["short_age_ms"] = json!(age_millis);
            bucket["short_since_ms"] = json!(short.oldest_wall_millis);
            bucket["is_suspect"] = json!(suspects.contains(&number));
        }
    }
    if buckets.len() > 1 {
        Lags::of(control).add_to(buckets);
    }
}

pub(super) fn metrics(text: &mut String, control: &control::Node, buckets: &Buckets) {
    let known = known(control);
    let states = buckets.states();
    if states.len() > 1 {
        suspicion(text, &states, &suspects(control));
    }
    let short = |state: &State| Some(known.get(&state.number)?.0);
    if states.len() > 1 {
        family(
            text,
            &states,
            "seaway_bucket_short_files",
            "Files that a bucket lacks and others hold.",
            |state| Some(short(state)?.files),
        );
        family(
            text,
            &states,
            "seaway_bucket_short_bytes",
            "Bytes of files that a bucket lacks and others hold.",
            |state| Some(short(state)?.bytes),
        );
        Lags::of(control).metrics(text, control, &states);
    }
}

fn suspicion(text: &mut String, states: &[State], suspects: &BTreeSet<u32>) {
    family(
        text,
        states,
        "seaway_bucket_suspect",
        "1 while a bucket may have lost what it held, and counts for nothing until that is compared.",
        |state| Some(u64::from(suspects.contains(&state.number))),
    );
}
