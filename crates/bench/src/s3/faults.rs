//! The faults that a server injects, by rules. It must not know how they are carried out.

use std::time::Duration;

use host::rng::Rng;
use serde::{Deserialize, Serialize};

/// The kinds of request that rules tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Writing an object, whole or in parts.
    Put,
    /// Reading an object or a range of one.
    Get,
    /// Asking for an object's size.
    Head,
    /// Deleting one object or many.
    Delete,
    List,
}

/// The fault that strikes a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "effect", rename_all = "snake_case", deny_unknown_fields)]
pub enum Effect {
    /// The request goes on after this time, which is fixed, or drawn from a log-normal distribution
    /// with this median and 99th percentile. Delays of several rules add up, and other effects come
    /// after them.
    Delay {
        /// The delay, or its median, in milliseconds.
        ms: f64,
        /// The delay's 99th percentile, in milliseconds.
        #[serde(default)]
        p99_ms: Option<f64>,
    },
    /// 503 SlowDown; nothing happens.
    SlowDown,
    /// An error with this status; nothing happens.
    Fail { status: u16 },
    /// The request takes effect, and its answer is an error with this status, or a reset of the
    /// connection if there is no status.
    LoseReply {
        #[serde(default)]
        status: Option<u16>,
    },
    /// 409 ConditionalRequestConflict; nothing happens. For writes.
    Conflict,
    /// The connection is reset; nothing happens. For every request of a bucket: it is down.
    Reset,
    /// The request takes effect this much later, even if the client is gone by then; the answer
    /// also comes then.
    Hold { ms: u64 },
    /// Nothing happens, and the request is never answered.
    Silence,
    /// The body of a read stops halfway; the connection stays open.
    Stall,
    /// One bit of a read's body is flipped.
    Corrupt,
    /// The body of a read breaks off one byte before its end.
    Truncate,
    /// The answer's status is that of success and its body an error's, as some stores have it. For reads.
    ErrorBody,
    /// 404 NoSuchKey, whatever is there; listings are empty.
    Missing,
    /// Reads and listings do not see yet what was written in the last so many milliseconds, as in stores that are consistent
    /// only in the end. What was deleted is gone.
    Stale { ms: u64 },
    /// 403 AccessDenied.
    Forbidden,
    /// 507: the store is full.
    Full,
}

impl Effect {
    /// The effect's name, as in JSON.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Effect::Delay { .. } => "delay",
            Effect::SlowDown => "slow_down",
            Effect::Fail { .. } => "fail",
            Effect::LoseReply { .. } => "lose_reply",
            Effect::Conflict => "conflict",
            Effect::Reset => "reset",
            Effect::Hold { .. } => "hold",
            Effect::Silence => "silence",
            Effect::Stall => "stall",
            Effect::Corrupt => "corrupt",
            Effect::Truncate => "truncate",
            Effect::ErrorBody => "error_body",
            Effect::Missing => "missing",
            Effect::Stale { .. } => "stale",
            Effect::Forbidden => "forbidden",
            Effect::Full => "full",
        }
    }
}

/// Which requests an effect strikes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    #[serde(default)]
    pub bucket: Option<String>,
    /// Only requests of this kind.
    #[serde(default)]
    pub kind: Option<Kind>,
    /// Only keys with this prefix.
    #[serde(default)]
    pub prefix: String,
    /// The share of requests, from 0 to 1.
    #[serde(default = "always")]
    pub share: f64,
    /// Strikes at most so many times.
    #[serde(default)]
    pub times: Option<u64>,
    #[serde(flatten)]
    pub effect: Effect,
}

fn always() -> f64 {
    1.0
}

impl Rule {
    pub fn new(effect: Effect) -> Self {
        Rule {
            bucket: None,
            kind: None,
            prefix: String::new(),
            share: always(),
            times: None,
            effect,
        }
    }

    pub fn on(kind: Kind, effect: Effect) -> Self {
        Rule {
            kind: Some(kind),
            ..Rule::new(effect)
        }
    }

    pub fn share(mut self, share: f64) -> Self {
        self.share = share;
        self
    }

    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    fn concerns(&self, bucket: &str, kind: Kind, key: &str) -> bool {
        self.bucket.as_deref().is_none_or(|only| only == bucket)
            && self.kind.is_none_or(|only| only == kind)
            && key.starts_with(&self.prefix)
            && self.times != Some(0)
    }
}

#[derive(Debug)]
pub(super) struct Faults {
    rules: Vec<Rule>,
    rng: Rng,
}

/// The faults drawn for one request.
#[derive(Debug, Default)]
pub(super) struct Drawn {
    pub(super) delay: Duration,
    pub(super) effect: Option<Effect>,
}

impl Faults {
    pub(super) fn new(rules: Vec<Rule>, seed: u64) -> Self {
        Faults {
            rules,
            rng: Rng::seeded(seed),
        }
    }

    pub(super) fn add(&mut self, rule: Rule) {
        self.rules.push(rule);
    }

    pub(super) fn replace(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
    }

    pub(super) fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Draws the faults of the next request: all delays, and the first other effect that strikes.
    pub(super) fn draw(&mut self, bucket: &str, kind: Kind, key: &str) -> Drawn {
        let mut drawn = Drawn::default();
        for rule in &mut self.rules {
            if !rule.concerns(bucket, kind, key) || uniform(&mut self.rng) >= rule.share {
                continue;
            }
            let delay = matches!(rule.effect, Effect::Delay { .. });
            if !delay && drawn.effect.is_some() {
                continue;
            }
            if let Some(times) = &mut rule.times {
                *times -= 1;
            }
            match rule.effect {
                Effect::Delay { ms, p99_ms } => {
                    drawn.delay += delay_of(ms, p99_ms, &mut self.rng);
                }
                ref effect => drawn.effect = Some(effect.clone()),
            }
        }
        drawn
    }
}

/// A number from 0 to 1, without 1.
fn uniform(rng: &mut Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

fn delay_of(ms: f64, p99_ms: Option<f64>, rng: &mut Rng) -> Duration {
    let factor = match p99_ms {
        Some(p99_ms) if ms > 0.0 && p99_ms > ms => {
            // Box and Muller; 2.326 standard deviations are the 99th percentile.
            let (a, b) = (1.0 - uniform(rng), uniform(rng));
            let normal = (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos();
            (normal * (p99_ms / ms).ln() / 2.326).exp()
        }
        _ => 1.0,
    };
    Duration::try_from_secs_f64(ms * factor / 1_000.0).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delay_has_the_median_and_tail_asked_for() {
        let mut rng = Rng::seeded(1);
        let mut drawn: Vec<f64> = (0..10_000)
            .map(|_| delay_of(80.0, Some(400.0), &mut rng).as_secs_f64() * 1_000.0)
            .collect();
        drawn.sort_by(f64::total_cmp);
        assert!((75.0..85.0).contains(&drawn[5_000]), "p50 {}", drawn[5_000]);
        assert!(
            (350.0..450.0).contains(&drawn[9_900]),
            "p99 {}",
            drawn[9_900]
        );
    }

    #[test]
    fn rules_are_readable_json() {
        let text = r#"{"kind":"put","share":0.5,"effect":"delay","ms":80}"#;
        let rule: Rule = serde_json::from_str(text).expect("a rule");
        assert_eq!(
            rule.effect,
            Effect::Delay {
                ms: 80.0,
                p99_ms: None
            }
        );
        let again = serde_json::to_string(&rule).expect("JSON");
        assert_eq!(serde_json::from_str::<Rule>(&again).expect("a rule"), rule);
    }
}
