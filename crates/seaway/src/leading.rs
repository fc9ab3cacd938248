//! Who leads, and which region is preferred to, as the pages show it and as an operator says it. It must not decide who leads.

use std::sync::Arc;
use std::time::Duration;

use control::preferring::NotPreferred;
use futures::FutureExt;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::health::Health;
use crate::http::{Actions, Page};

/// Where a region is preferred: its name follows.
pub const PREFER: &str = "/region/prefer/";

/// What a control node knows of who leads.
pub fn as_json(control: &control::Node) -> Value {
    let taken = control.lead_taken();
    json!({
        "preferred_region": control.preferred_region(),
        "commit_latency_ms": commit_latency_ms(control),
        "taken_from": taken.as_ref().and_then(|taken| taken.from.clone()),
        "taken_because": taken.as_ref().map(|taken| taken.because.word()),
        "taken_told": taken.as_ref().map(ToString::to_string),
        "taken_ms_ago": taken.as_ref().map(|taken| {
            let ago = host::clock::now().since(taken.at);
            u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)
        }),
    })
}

/// How long a commit takes from here, as far as that depends on where it is; nothing if it is not known, or the cluster has one bucket.
fn commit_latency_ms(control: &control::Node) -> Option<f64> {
    let latency = control
        .commit_latency()
        .filter(|latency| *latency > Duration::ZERO);
    latency.map(|latency| (latency.as_secs_f64() * 10_000.0).round() / 10.0)
}

/// Metrics of the same.
pub fn metrics(text: &mut String, control: &control::Node) {
    if let Some(latency_ms) = commit_latency_ms(control) {
        let (name, help) = (
            "seaway_commit_latency_ms",
            "How long a commit would take if this node led: the way to the last of the buckets that have to answer.",
        );
        text.push_str(&format!(
            "# HELP {name} {help}\n# TYPE {name} gauge\n{name} {latency_ms}\n"
        ));
    }
    let (name, help) = (
        "seaway_leads_taken_total",
        "How often this node has taken the lead, by what ended that of the one before.",
    );
    text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} counter\n"));
    for (because, times) in control.leads_taken() {
        let because = because.word();
        text.push_str(&format!("{name}{{because=\"{because}\"}} {times}\n"));
    }
}

/// What a process does by request.
pub fn actions(health: Arc<Health>) -> Actions {
    Arc::new(move |path| {
        let region = path.strip_prefix(PREFER).map(str::to_owned);
        let control = health.parts().and_then(|parts| parts.control.clone());
        async move {
            let region = region?;
            Some(match control {
                None => Page::text(StatusCode::NOT_FOUND, "this process is no control node\n"),
                Some(control) => prefer(&control, &region).await,
            })
        }
        .boxed()
    })
}

async fn prefer(control: &control::Node, region: &str) -> Page {
    match control.prefer(region).await {
        Ok(()) => Page::text(StatusCode::OK, "done\n"),
        Err(why @ NotPreferred::Failed(rpc::Error::Unknown { .. })) => Page::text(
            StatusCode::GATEWAY_TIMEOUT,
            format!("it may have been done, or may yet be: {why}\n"),
        ),
        Err(why @ NotPreferred::Failed(_)) => {
            Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
        }
        Err(why) => Page::text(StatusCode::CONFLICT, format!("{why}\n")),
    }
}
