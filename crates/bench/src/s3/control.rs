//! Steering a server over HTTP, for tests that run it in a process of its own:
//!
//! ```text
//! GET    /_control            the fault rules, as a JSON list
//! PUT    /_control            replaces them all
//! POST   /_control            adds some
//! DELETE /_control            removes them all: everything is healthy
//! GET    /_control/stats      what it did and what it costs
//! DELETE /_control/BUCKET     removes every object of a bucket
//! ```
//! A rule is `{"kind":"put","bucket":"a","prefix":"files/","share":0.1,"times":5,"effect":"delay",
//! "ms":80,"p99_ms":400}`; only the effect is necessary. It must not know how requests to
//! buckets are answered.

use http::Method;

use super::body::Frames;
use super::faults::Rule;
use super::message::{Answer, Request, respond};
use super::{Shared, Stats};

/// The name that no bucket can have, since S3 forbids underscores.
pub(super) const BUCKET: &str = "_control";

/// Answers a request to [`BUCKET`].
pub(super) fn answer(shared: &Shared, request: &Request) -> Answer {
    match (&request.method, request.key.as_str()) {
        (&Method::GET, "stats") => json(&Stats::gather(shared)),
        (&Method::GET, "") => json(&shared.faults().rules()),
        (&Method::PUT | &Method::POST, "") => change(shared, request),
        (&Method::DELETE, "") => {
            shared.faults().replace(Vec::new());
            respond(204, &[], Frames::default())
        }
        (&Method::DELETE, bucket) => {
            shared.objects().wipe(bucket);
            respond(204, &[], Frames::default())
        }
        _ => respond(404, &[], Frames::text("see s3-server --help\n")),
    }
}

fn change(shared: &Shared, request: &Request) -> Answer {
    let body = request.frames.concat();
    let rules: Vec<Rule> = match serde_json::from_slice(&body) {
        Ok(rules) => rules,
        Err(error) => {
            let text = format!("a JSON list of rules is expected: {error}\n");
            return respond(400, &[], Frames::text(text));
        }
    };
    if request.method == Method::PUT {
        shared.faults().replace(rules);
    } else {
        rules.into_iter().for_each(|rule| shared.faults().add(rule));
    }
    respond(204, &[], Frames::default())
}

fn json(value: &impl serde::Serialize) -> Answer {
    match serde_json::to_vec(value) {
        Ok(text) => respond(
            200,
            &[("content-type", "application/json")],
            Frames::text(text),
        ),
        Err(error) => respond(500, &[], Frames::text(error.to_string())),
    }
}
