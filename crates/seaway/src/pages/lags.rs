//! How far each bucket of several is behind: in records, over all partitions of which it lacks some, as a control node knows it.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use meta::behind::{HeldPage, Lag};
use meta::ids::PartitionId;
use meta::short::Only;
use serde_json::{Value, json};
use store::buckets::State;

use super::by_bucket::{family, head};

/// Partitions that are looked at before commands may be applied.
const AT_ONCE: usize = 256;
/// Partitions that are looked at for one page. If more are behind, what is told is of these.
const LOOKED_AT_MAX: usize = 32_768;
/// Partitions that are named in the metrics of a bucket, those that are furthest behind.
const NAMED_MAX: usize = 20;

/// What is known of all buckets.
pub(super) struct Lags {
    /// By the number of each bucket that is not suspect.
    of: BTreeMap<u32, Lag>,
    only: BTreeMap<u32, Only>,
    /// Whether all partitions that are behind were looked at.
    is_whole: bool,
}

impl Lags {
    pub(super) fn of(control: &control::Node) -> Lags {
        let (only, suspects) = control.with_state(|state| {
            let suspects: Vec<u32> = state.suspect_buckets().map(|(bucket, _)| bucket).collect();
            (
                state.only_copies().collect::<BTreeMap<u32, Only>>(),
                suspects,
            )
        });
        let known = only.keys().filter(|bucket| !suspects.contains(bucket));
        let mut lags = Lags {
            of: known.map(|bucket| (*bucket, Lag::default())).collect(),
            only,
            is_whole: true,
        };
        let mut after = None;
        for _ in 0..LOOKED_AT_MAX / AT_ONCE {
            let page = control.with_state(|state| state.behind(after, AT_ONCE));
            lags.add(&page);
            after = page.more_after;
            if after.is_none() {
                break;
            }
        }
        lags.is_whole = after.is_none();
        lags
    }

    fn add(&mut self, page: &HeldPage) {
        for (bucket, lag) in &mut self.of {
            lag.add(*bucket, &page.partitions, NAMED_MAX);
        }
    }

    /// Adds to what is told of each bucket: how many partitions are behind there, by how many records, and which files no other bucket holds.
    pub(super) fn add_to(&self, buckets: &mut [Value]) {
        for bucket in buckets {
            let number = bucket["number"]
                .as_u64()
                .and_then(|number| u32::try_from(number).ok());
            let Some(only) = number.and_then(|number| self.only.get(&number)) else {
                continue;
            };
            bucket["only_here_files"] = json!(only.files);
            bucket["only_here_bytes"] = json!(only.bytes);
            let lag = number.and_then(|number| self.of.get(&number));
            bucket["behind_partitions"] = json!(lag.map(|lag| lag.partitions));
            bucket["behind_records"] = json!(lag.map(|lag| lag.records));
            bucket["behind_records_max"] = json!(lag.map(|lag| lag.records_max));
            bucket["behind_is_at_most"] = json!(lag.map(|lag| lag.is_at_most));
            bucket["behind_is_whole"] = json!(self.is_whole);
        }
    }

    pub(super) fn metrics(&self, text: &mut String, control: &control::Node, states: &[State]) {
        let lag = |state: &State| self.of.get(&state.number);
        family(
            text,
            states,
            "seaway_bucket_behind_partitions",
            "Partitions of which a bucket lacks records; not told of a bucket that is suspect.",
            |state| Some(lag(state)?.partitions),
        );
        family(
            text,
            states,
            "seaway_bucket_behind_records",
            "Records from the safe offsets of a bucket to the ends of partitions: what would be missing if all other buckets were lost.",
            |state| Some(lag(state)?.records),
        );
        family(
            text,
            states,
            "seaway_bucket_behind_records_max",
            "The most records by which one partition is behind in a bucket.",
            |state| Some(lag(state)?.records_max),
        );
        family(
            text,
            states,
            "seaway_bucket_behind_incomplete",
            "1 while so many partitions are behind that what is told of a bucket is of a part of them.",
            |_| Some(u64::from(!self.is_whole)),
        );
        family(
            text,
            states,
            "seaway_bucket_only_here_files",
            "Files that only this bucket is known to hold: what would be missing if it were lost.",
            |state| Some(self.only.get(&state.number)?.files),
        );
        family(
            text,
            states,
            "seaway_bucket_only_here_bytes",
            "Bytes of files that only this bucket is known to hold.",
            |state| Some(self.only.get(&state.number)?.bytes),
        );
        self.furthest(text, control, states);
    }

    /// The partitions that are furthest behind, by name.
    fn furthest(&self, text: &mut String, control: &control::Node, states: &[State]) {
        let name = "seaway_partition_behind_records";
        let help = format!(
            "Records by which a partition is behind in a bucket: of each bucket the {NAMED_MAX} partitions that are furthest behind."
        );
        head(text, name, &help);
        for state in states {
            let lag = self.of.get(&state.number).into_iter();
            for (records, id) in lag.flat_map(|lag| &lag.furthest) {
                if let Some((topic, index)) = named(control, *id) {
                    // Writing to a string cannot fail.
                    let _ = writeln!(
                        text,
                        "{name}{{bucket=\"{}\",topic=\"{topic}\",partition=\"{index}\"}} {records}",
                        state.name
                    );
                }
            }
        }
    }
}

/// A partition by its topic's name and its index; `None` if it is gone.
fn named(control: &control::Node, id: PartitionId) -> Option<(String, u32)> {
    control.with_state(|state| {
        let partition = state.partition(id)?;
        let topic = state.topic_by_id(partition.topic())?;
        Some((topic.name.clone(), partition.index()))
    })
}
