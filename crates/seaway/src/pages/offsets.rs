//! Up to where each region's bucket holds all records of partitions, page by page, as a control node knows it.

use hyper::StatusCode;
use meta::State;
use meta::behind::{Held, SafeOffset};
use meta::ids::PartitionId;
use serde_json::{Map, Value, json};
use store::buckets;

use crate::health::Health;
use crate::http::Page;

/// Where partitions are told of that are behind in a bucket: the number of one follows, after which to go on; 0 at first.
pub const BEHIND: &str = "/offsets/behind/";
/// Where the partitions of a topic are told of: its name follows, and after a slash the index of the first one.
pub const TOPIC: &str = "/offsets/topic/";

/// Partitions of one page.
const PARTITIONS_MAX: usize = 128;

/// The page of a path; `None` if there is no such path.
pub(super) fn page(health: &Health, path: &str) -> Option<Page> {
    let wanted = wanted(path)?;
    let refused = |status, why: &str| Some(Page::text(status, format!("{why}\n")));
    let Some(parts) = health.parts() else {
        return refused(StatusCode::SERVICE_UNAVAILABLE, "this process is not ready");
    };
    let Some(control) = &parts.control else {
        return refused(StatusCode::NOT_FOUND, "this process is no control node");
    };
    let buckets = parts.buckets.states();
    if buckets.len() < 2 {
        return refused(
            StatusCode::NOT_FOUND,
            "the cluster has one bucket: what is acknowledged is there",
        );
    }
    match told(control, &buckets, &wanted) {
        Some(told) => Some(Page {
            status: StatusCode::OK,
            kind: "application/json",
            body: format!("{told:#}\n"),
        }),
        None => refused(StatusCode::NOT_FOUND, "there is no such topic here"),
    }
}

/// What is asked for.
#[derive(Debug, PartialEq)]
enum Wanted {
    Behind { after: Option<PartitionId> },
    Topic { name: String, from: usize },
}

fn wanted(path: &str) -> Option<Wanted> {
    if let Some(after) = path.strip_prefix(BEHIND) {
        let after: u64 = after.parse().ok()?;
        // Partitions are numbered from 1.
        let after = (after > 0).then_some(PartitionId(after));
        return Some(Wanted::Behind { after });
    }
    let (name, from) = path.strip_prefix(TOPIC)?.rsplit_once('/')?;
    Some(Wanted::Topic {
        name: name.to_owned(),
        from: from.parse().ok()?,
    })
}

fn told(control: &control::Node, buckets: &[buckets::State], wanted: &Wanted) -> Option<Value> {
    let index = control.journal_status().index;
    let (told, suspects) = control.with_state(|state| {
        let suspects = state.suspect_buckets();
        let suspects: Vec<u32> = suspects.map(|(number, _)| number).collect();
        (told_of(state, buckets, wanted), suspects)
    });
    let (rows, next) = told?;
    let suspects = buckets
        .iter()
        .filter(|bucket| suspects.contains(&bucket.number));
    let suspects: Vec<&str> = suspects.map(|bucket| bucket.name.as_str()).collect();
    let regions: Vec<&str> = buckets.iter().map(|bucket| bucket.name.as_str()).collect();
    Some(json!({
        "journal_index": index,
        "regions": regions,
        "suspects": suspects,
        "partitions": rows,
        "next": next,
    }))
}

/// The partitions of a page, and the path of the next one; `None` if there is no such topic.
fn told_of(
    state: &State,
    buckets: &[buckets::State],
    wanted: &Wanted,
) -> Option<(Vec<Value>, Option<String>)> {
    match wanted {
        Wanted::Behind { after } => {
            let page = state.behind(*after, PARTITIONS_MAX);
            let rows = page.partitions.iter().filter_map(|held| {
                let topic = state.topic_by_id(held.topic)?;
                Some(row(&topic.name, held, buckets))
            });
            let next = page.more_after.map(|after| format!("{BEHIND}{}", after.0));
            Some((rows.collect::<Vec<Value>>(), next))
        }
        Wanted::Topic { name, from } => {
            let topic = state.topic(name)?;
            let some = topic.partitions.iter().skip(*from).take(PARTITIONS_MAX);
            let held = some.filter_map(|id| state.held(*id));
            let rows = held.map(|held| row(name, &held, buckets));
            let end = from.saturating_add(PARTITIONS_MAX);
            let next = (end < topic.partitions.len()).then(|| format!("{TOPIC}{name}/{end}"));
            Some((rows.collect(), next))
        }
    }
}

fn row(topic: &str, held: &Held, buckets: &[buckets::State]) -> Value {
    let safe = |safe: SafeOffset, number| {
        json!({
            "offset": safe.offset,
            "is_exact": safe.is_exact,
            "records_behind": held.records_behind(number),
        })
    };
    let regions: Map<String, Value> = buckets
        .iter()
        .map(|bucket| {
            let known = held.safe.get(&bucket.number).copied().flatten();
            let known = known.map(|known| safe(known, bucket.number));
            (bucket.name.clone(), json!(known))
        })
        .collect();
    json!({
        "topic": topic,
        "partition": held.index,
        "log_start": held.log_start,
        "end": held.high_watermark,
        "safe": regions,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_says_where_to_go_on() {
        let behind = |after: Option<u64>| {
            let after = after.map(PartitionId);
            Some(Wanted::Behind { after })
        };
        assert_eq!(wanted("/offsets/behind/0"), behind(None));
        assert_eq!(wanted("/offsets/behind/17"), behind(Some(17)));
        let name = "a.topic".to_owned();
        let topic = Wanted::Topic { name, from: 128 };
        assert_eq!(wanted("/offsets/topic/a.topic/128"), Some(topic));
        for none in [
            "/offsets",
            "/offsets/behind/",
            "/offsets/behind/-1",
            "/offsets/topic/a.topic",
            "/offsets/topic/a.topic/x",
            "/status",
        ] {
            assert_eq!(wanted(none), None, "{none}");
        }
    }
}
