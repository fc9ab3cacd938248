//! Clocks and the time of the journal, as the pages show them, and what sets that time right. It must not decide whether it may be
//! set.

use std::sync::Arc;

use control::clocks::Standing;
use control::setting_time::NotSet;
use futures::FutureExt;
use hyper::StatusCode;
use serde_json::{Value, json};

use crate::health::Health;
use crate::http::{Actions, Page};

/// Where the time of the journal is set right.
pub const SET: &str = "/time/set";

/// How the clock of a control node compares with others.
pub fn as_json(control: &control::Node) -> Value {
    let found = control.wall_clock();
    let compared = match found.standing {
        Standing::Alone => "with no other: there is none",
        Standing::Unheard => "with no other: none has answered yet",
        Standing::Right => "right",
        Standing::Apart => {
            "differs from others, and nobody knows which is right: look at the clock of each machine"
        }
        Standing::Wrong => "wrong: set the clock of this machine right",
    };
    json!({
        "compared": compared,
        "ahead_of_others_ms": found.ahead_millis,
        "others_heard": found.others,
        "journal_ahead_ms": control.journal_ahead_millis(),
        "journal_drift_ms": control.with_state(meta::State::clock_drift_millis),
    })
}

/// Metrics of the same: name, help, value.
pub fn gauges(control: &control::Node) -> [(&'static str, &'static str, i64); 4] {
    let found = control.wall_clock();
    let is_doubtful = matches!(found.standing, Standing::Apart | Standing::Wrong);
    [
        (
            "seaway_clock_doubtful",
            "1 while this machine's wall clock is more than a minute off those of other control nodes.",
            i64::from(is_doubtful),
        ),
        (
            "seaway_clock_ahead_ms",
            "How far this machine's wall clock is ahead of the median of those of control nodes.",
            found.ahead_millis,
        ),
        (
            "seaway_journal_time_ahead_ms",
            "How far the time of the journal is ahead of this machine's wall clock.",
            control.journal_ahead_millis(),
        ),
        (
            "seaway_journal_drift_ms",
            "How far the wall time of the journal went ahead of the leader's ticks in the current hour of ticks.",
            control.with_state(meta::State::clock_drift_millis),
        ),
    ]
}

/// What a process does by request.
pub fn actions(health: Arc<Health>) -> Actions {
    Arc::new(move |path| {
        let is_known = path == SET;
        let control = health.parts().and_then(|parts| parts.control.clone());
        async move {
            if !is_known {
                return None;
            }
            Some(match control {
                None => Page::text(StatusCode::NOT_FOUND, "this process is no control node\n"),
                Some(control) => set(&control).await,
            })
        }
        .boxed()
    })
}

async fn set(control: &control::Node) -> Page {
    match control.set_time().await {
        Ok(ahead_millis) => Page::text(
            StatusCode::OK,
            format!("the time of the journal was {ahead_millis} ms ahead and is set right\n"),
        ),
        Err(why @ NotSet::Failed(rpc::Error::Unknown { .. })) => Page::text(
            StatusCode::GATEWAY_TIMEOUT,
            format!("it may have been set, or may yet be: {why}\n"),
        ),
        Err(why @ NotSet::Failed(_)) => {
            Page::text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n"))
        }
        Err(why) => Page::text(StatusCode::CONFLICT, format!("{why}\n")),
    }
}
