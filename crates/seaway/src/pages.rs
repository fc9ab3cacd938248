//! The pages of a node: health, readiness, metrics, status. They decide nothing: they show what the
//! parts report.

use std::fmt::Display;
use std::sync::Arc;

use hyper::StatusCode;
use serde_json::{Value, json};
use store::buckets::{Buckets, Standing};
use store::meter::{Count, Extra};
use store::outage::Kind;

use crate::config::shares::Shares;
use crate::health::{Health, Parts};
use crate::http::{self, Page, Pages, Site};
use crate::links::Certificates;
use crate::version::VERSION;
use crate::{leading, timing};

mod by_bucket;
mod lags;
mod nodes;
pub mod offsets;
mod shortages;

pub fn all(health: Arc<Health>, shares: Shares) -> Pages {
    Arc::new(move |path| match path {
        "/healthz" => Some(Page::text(StatusCode::OK, "alive\n")),
        "/readyz" => Some(ready(&health)),
        "/metrics" => Some(metrics(&health, &shares)),
        "/status" => Some(Page::text(StatusCode::OK, for_people(&health))),
        "/status.json" => Some(Page {
            status: StatusCode::OK,
            kind: "application/json",
            body: format!("{:#}\n", as_json(&health)),
        }),
        _ => offsets::page(&health, path),
    })
}

/// The pages of a process, and what it does by request.
pub fn site(health: &Arc<Health>, shares: &Shares) -> Site {
    Site {
        pages: all(Arc::clone(health), shares.clone()),
        actions: http::either(
            timing::actions(Arc::clone(health)),
            leading::actions(Arc::clone(health)),
        ),
    }
}

fn ready(health: &Health) -> Page {
    match health.obstacle() {
        None => Page::text(StatusCode::OK, "ready\n"),
        Some(why) => Page::text(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("not ready: {why}\n"),
        ),
    }
}

fn as_json(health: &Health) -> Value {
    let obstacle = health.obstacle();
    let mut page = json!({
        "version": VERSION,
        "ready": obstacle.is_none(),
        "obstacle": obstacle,
    });
    if let Some(certificates) = health.certificates() {
        let named = certificates.named();
        page["certificate"] = json!({
            "process": named.process.to_string(),
            "days_left": named.days_left(),
            "newer_files_not_used_because": certificates.obstacle(),
        });
    }
    let Some(parts) = health.parts() else {
        return page;
    };
    if let Some(control) = &parts.control {
        journal_json(&mut page, control);
        nodes::add(
            &mut page,
            control,
            parts.agent.as_ref().map(agent::Probe::id),
        );
        page["clock"] = timing::as_json(control);
        page["lead"] = leading::as_json(control);
    }
    if let Some(agent) = &parts.agent {
        let values = agent.status().into_iter();
        page["agent"] = values
            .map(|(name, value)| (name.to_owned(), json!(value)))
            .collect();
    }
    let bucket = parts.bucket.counts().into_iter().map(|count| {
        (
            count.op.to_string(),
            json!({ "requests": count.requests, "errors": errors(&count) }),
        )
    });
    page["bucket"] = bucket.collect();
    page["buckets"] = buckets_json(&parts.buckets);
    if let (Some(control), Some(buckets)) = (&parts.control, page["buckets"].as_array_mut()) {
        shortages::add(buckets, control);
    }
    let rates = parts.spending.per_second().into_iter();
    let rates = rates.map(|(op, rate)| (op.to_string(), json!(rate)));
    page["spending"] = json!({
        "requests_per_second": rates.collect::<serde_json::Map<_, _>>(),
        "dollars_per_month": parts.spending.dollars_per_month(),
    });
    page
}

/// How the buckets of a cluster that has several are, as this process finds them.
fn buckets_json(buckets: &Buckets) -> Value {
    let states = buckets.states();
    if states.len() < 2 {
        return Value::Null;
    }
    let states = states.into_iter().map(|bucket| {
        let state = match (&bucket.standing, bucket.answers) {
            (Standing::Refused(why), _) => format!("refused: {why}"),
            (Standing::Unproven, _) => "not seen yet".to_owned(),
            (Standing::Proven, false) => "away".to_owned(),
            (Standing::Proven, true) => "ok".to_owned(),
        };
        json!({ "number": bucket.number, "region": bucket.name, "state": state })
    });
    states.collect()
}

/// What a control node knows.
fn journal_json(page: &mut Value, control: &control::Node) {
    let journal = control.journal_status();
    page["journal"] = json!({
        "role": format!("{:?}", journal.role),
        "leader": journal.leader,
        "index": journal.index,
        "end_seen_ms_ago": journal.seemed_current_at.map(ms_since),
        "confirmed_ms_ago": journal.confirmed_at.map(ms_since),
        "snapshot_index": journal.snapshot_index,
        "snapshot_overdue": journal.is_snapshot_overdue,
        "append_latency_ms": journal.append_latency.map(|taken| taken.as_secs_f64() * 1_000.0),
    });
    page["cluster"] = control.with_state(|state| {
        let totals = state.totals();
        json!({
            "id": state.cluster_id(),
            "feature_level": state.level().number,
            "configs_version": state.configs_version(),
            "topics": totals.topics,
            "partitions": totals.partitions,
            "groups": totals.groups,
            "producers": totals.producers,
            "files": totals.files,
            "files_waiting_for_deletion": totals.tombstoned_files,
            "retention_held": state.retention_hold().is_some(),
        })
    });
    let differences = control.config_differences().into_iter();
    page["cluster"]["configs_differ_from_flags"] = differences
        .map(|differs| {
            (
                differs.name,
                json!(format!("{}, not {}", differs.in_force, differs.wanted)),
            )
        })
        .collect();
}

fn ms_since(at: host::clock::Instant) -> u64 {
    let since = host::clock::now().since(at);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn errors(count: &Count) -> u64 {
    count.definite_errors + count.unknown_errors + count.throttled
}

/// The status page as text: a line for each part, and indented lines for its values.
fn for_people(health: &Health) -> String {
    let page = as_json(health);
    let mut text = match health.obstacle() {
        None => "ready\n".to_owned(),
        Some(why) => format!("NOT READY: {why}\n"),
    };
    nodes::for_people(&page, &mut text);
    for part in [
        "cluster",
        "journal",
        "clock",
        "lead",
        "agent",
        "certificate",
        "bucket",
        "spending",
    ] {
        let Some(rows) = page[part].as_object() else {
            continue;
        };
        text.push_str(part);
        text.push('\n');
        let width = rows.keys().map(String::len).max().unwrap_or(0);
        for (name, value) in rows {
            let name = name.replace('_', " ");
            text.push_str(&format!("  {name:width$}  {}\n", plain(value)));
        }
    }
    text
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Number(number) if number.is_f64() => {
            format!("{:.1}", number.as_f64().unwrap_or_default())
        }
        Value::Object(rows) => {
            let rows = rows
                .iter()
                .map(|(name, value)| format!("{} {name}", plain(value)));
            rows.collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    }
}

fn metrics(health: &Health, shares: &Shares) -> Page {
    let mut text = String::new();
    let ready = health.obstacle().is_none();
    gauge(
        &mut text,
        "seaway_ready",
        "1 if the node can serve clients.",
        u64::from(ready),
    );
    nodes::build_metric(&mut text);
    share_metrics(&mut text, shares);
    if let Some(certificates) = health.certificates() {
        certificate_metrics(&mut text, certificates);
    }
    if let Some(parts) = health.parts() {
        if let Some(control) = &parts.control {
            control_metrics(&mut text, control);
            nodes::metrics(&mut text, control);
            leading::metrics(&mut text, control);
            shortages::metrics(&mut text, control, &parts.buckets);
        }
        bucket_metrics(&mut text, parts);
        spending_metrics(&mut text, parts);
        if let Some(agent) = &parts.agent {
            text.push_str(&agent.metrics());
        }
    }
    Page {
        status: StatusCode::OK,
        kind: "text/plain; version=0.0.4; charset=utf-8",
        body: text,
    }
}

fn gauge(text: &mut String, name: &str, help: &str, value: impl Display) {
    sample(text, name, help, "gauge", value);
}

fn counter(text: &mut String, name: &str, help: &str, value: u64) {
    sample(text, name, help, "counter", value);
}

fn sample(text: &mut String, name: &str, help: &str, kind: &str, value: impl Display) {
    text.push_str(&format!(
        "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n"
    ));
}

fn certificate_metrics(text: &mut String, certificates: &Certificates) {
    gauge(
        text,
        "seaway_certificate_expires_seconds",
        "When the certificate expires by which other processes know this one, in seconds since 1970.",
        certificates.named().expires_s,
    );
    gauge(
        text,
        "seaway_certificate_files_refused",
        "1 while the certificate files cannot be used, so that those that were read before stay in force.",
        u64::from(certificates.obstacle().is_some()),
    );
}

/// How the memory is shared out.
fn share_metrics(text: &mut String, shares: &Shares) {
    gauge(
        text,
        "seaway_memory_max_bytes",
        "memory.bytes: what all caches and buffers together may take.",
        shares.total_bytes,
    );
    let (name, help) = (
        "seaway_memory_share_bytes",
        "What each cache or buffer may take of it.",
    );
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    for (of, share) in shares.parts() {
        text.push_str(&format!("{name}{{of=\"{of}\"}} {}\n", share.bytes));
    }
}

fn control_metrics(text: &mut String, control: &control::Node) {
    let journal = control.journal_status();
    let leads = u64::from(control.leads());
    gauge(
        text,
        "seaway_journal_leader",
        "1 if this node leads the journal.",
        leads,
    );
    gauge(
        text,
        "seaway_journal_index",
        "Last entry applied.",
        journal.index,
    );
    if let Some(at) = journal.seemed_current_at {
        gauge(
            text,
            "seaway_journal_end_seen_ms",
            "Milliseconds since this node has seen the end of the journal, with everything before it known here.",
            ms_since(at),
        );
    }
    let snapshot = journal.snapshot_index.unwrap_or(0);
    gauge(
        text,
        "seaway_journal_snapshot_index",
        "Entry of the newest snapshot.",
        snapshot,
    );
    gauge(
        text,
        "seaway_journal_snapshot_overdue",
        "1 while this node leads and has stored no snapshot though one was due twice: it hands the lead over if another can.",
        u64::from(journal.is_snapshot_overdue),
    );
    counter(
        text,
        "seaway_journal_snapshots_failed_total",
        "Snapshots that this node could not store.",
        journal.snapshots_failed,
    );
    counter(
        text,
        "seaway_control_relayed_calls_total",
        "Calls of agents that do not reach the control node that leads, which this one has passed on to it.",
        control.relayed_calls(),
    );
    let totals = control.with_state(|state| state.totals());
    gauge(text, "seaway_topics", "Topics.", totals.topics);
    gauge(
        text,
        "seaway_partitions",
        "Partitions of topics.",
        totals.partitions,
    );
    memory_metrics(text, control);
    gauge(
        text,
        "seaway_files",
        "Files that are not forgotten.",
        totals.files,
    );
    let held = control.with_state(|state| state.retention_hold().is_some());
    let help = "1 while retention by time is held after a jump of the wall clock.";
    gauge(text, "seaway_retention_held", help, u64::from(held));
    for (name, help, value) in timing::gauges(control) {
        gauge(text, name, help, value);
    }
}

/// What clients let the cluster remember, and how much of it there may be.
fn memory_metrics(text: &mut String, control: &control::Node) {
    let totals = control.with_state(|state| state.totals());
    gauge(text, "seaway_groups", "Consumer groups.", totals.groups);
    gauge(
        text,
        "seaway_producers",
        "Idempotent producers remembered, one for each partition that it has written to.",
        totals.producers,
    );
    gauge(
        text,
        "seaway_producers_max",
        "producer.ids.max: how many may be remembered.",
        totals.producers_max,
    );
    let metadata = control.metadata_memory();
    gauge(
        text,
        "seaway_metadata_bytes",
        "Memory of topics, partitions, producers and slices of files, as it is weighed once a minute.",
        metadata.bytes,
    );
    gauge(
        text,
        "seaway_metadata_max_bytes",
        "Half of what memory.bytes leaves of this process's memory: if the metadata takes more, the log warns.",
        metadata.bytes_max,
    );
    let groups = control.groups_memory();
    gauge(
        text,
        "seaway_groups_bytes",
        "Memory of members and offsets of consumer groups.",
        groups.bytes,
    );
    gauge(
        text,
        "seaway_groups_max_bytes",
        "groups.max.bytes: how much they may take.",
        groups.bytes_max,
    );
    gauge(
        text,
        "seaway_groups_awaited_bytes",
        "Memory of member ids that were given out and are awaited to join.",
        groups.awaited_bytes,
    );
}

fn spending_metrics(text: &mut String, parts: &Parts) {
    let (name, help) = (
        "seaway_bucket_requests_per_second",
        "Requests to the bucket in a second, over the last minute.",
    );
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    for (op, rate) in parts.spending.per_second() {
        text.push_str(&format!("{name}{{op=\"{op}\"}} {rate:.3}\n"));
    }
    let Some(dollars) = parts.spending.dollars_per_month() else {
        return;
    };
    let (name, help) = (
        "seaway_bucket_dollars_per_month",
        "What requests would cost in a month at S3's list prices if all were as in the last minute.",
    );
    text.push_str(&format!(
        "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {dollars:.2}\n"
    ));
}

/// A metric of the bucket: its name, its help, and how it is read from the counters.
type Family = (&'static str, &'static str, fn(&Count) -> u64);

fn bucket_metrics(text: &mut String, parts: &Parts) {
    let (name, help) = (
        "seaway_bucket_refuses",
        "1 while none of these requests to the bucket has succeeded for five seconds or more.",
    );
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    for kind in Kind::ALL {
        let refuses = u64::from(parts.bucket.outage(kind).is_some());
        text.push_str(&format!("{name}{{kind=\"{}\"}} {refuses}\n", kind.name()));
    }
    let families: [Family; 4] = [
        (
            "seaway_bucket_requests_total",
            "Requests to the bucket.",
            |count| count.requests,
        ),
        (
            "seaway_bucket_errors_total",
            "Requests that failed.",
            errors,
        ),
        (
            "seaway_bucket_bytes_total",
            "Bytes written or read.",
            |count| count.bytes,
        ),
        (
            "seaway_bucket_microseconds_total",
            "Time of all requests.",
            |count| count.micros,
        ),
    ];
    for (name, help, value) in families {
        text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
        for count in parts.bucket.counts() {
            text.push_str(&format!(
                "{name}{{op=\"{}\"}} {}\n",
                count.op,
                value(&count)
            ));
        }
    }
    let Extra {
        hedges,
        hedges_won,
        repeats,
    } = parts.bucket.extra();
    let (name, help) = (
        "seaway_bucket_extra_requests_total",
        "Requests beyond those that were needed: second copies of slow ones (of which some were \
         answered first), and repeats of what failed or was most likely lost.",
    );
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
    for (kind, value) in [
        ("hedge", hedges),
        ("hedge_won", hedges_won),
        ("repeat", repeats),
    ] {
        text.push_str(&format!("{name}{{kind=\"{kind}\"}} {value}\n"));
    }
}
