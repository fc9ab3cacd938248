//! What a drill has shown: the verdict with its reasons, as text and as JSON. It must not know how it came about.

use std::time::Duration;

use serde_json::{Value, json};

use super::account::Comparison;
use super::pauses::Pauses;

/// With fewer acknowledged records nothing is said of the cluster.
pub const RECORDS_LEAST: u64 = 50_000;

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Producer,
    Consumer,
}

/// What became of one client.
#[derive(Clone, Debug)]
pub struct Client {
    pub name: String,
    pub kind: Kind,
    /// Whether its region was the one that was lost: then it had to go on elsewhere.
    pub is_of_lost_region: bool,
    /// Records that it had acknowledged, or read.
    pub records: u64,
    /// Between acknowledged records, or records that came.
    pub pauses: Pauses,
    /// The error with which it gave up.
    pub failure: Option<String>,
    /// Of a consumer that did not give up: what it read, held against what was acknowledged.
    pub compared: Option<Comparison>,
}

/// A region's way back, in time since it was restored.
#[derive(Clone, Copy, Debug)]
pub struct Return {
    /// Until its processes were ready and its bucket counted.
    pub rejoined: Duration,
    /// Until its bucket had every file that was written before it came back.
    pub completed: Duration,
}

/// Everything that is told.
#[derive(Clone, Debug)]
pub struct Report {
    pub topic: String,
    pub partitions: i32,
    /// The region that was lost.
    pub region: String,
    /// The regions that led: before the loss, and at the end of it.
    pub led_before: String,
    pub led_after: String,
    /// How long the region was lost.
    pub away: Duration,
    pub back: Return,
    /// Records that the producers know to be written.
    pub acknowledged: u64,
    /// What a reader that began at the end of the drill found.
    pub compared: Comparison,
    pub clients: Vec<Client>,
}

impl Report {
    /// Why the drill is not passed; nothing if it is.
    pub fn reasons(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if self.acknowledged < RECORDS_LEAST {
            reasons.push(format!(
                "too little was tried to say anything: {} records were acknowledged, and {RECORDS_LEAST} are needed; raise \
                 --seconds or --rate",
                self.acknowledged
            ));
        }
        if !self.compared.is_clean() {
            reasons.push(format!(
                "what is there is not what was acknowledged: {}",
                faults(&self.compared)
            ));
        }
        for client in &self.clients {
            if let Some(failure) = &client.failure {
                reasons.push(format!("{} gave up: {failure}", client.name));
            }
            if let Some(compared) = client.compared
                && !compared.is_clean()
            {
                reasons.push(format!(
                    "what {} read is not what was acknowledged: {}",
                    client.name,
                    faults(&compared)
                ));
            }
        }
        reasons
    }

    /// True if some reader found other records than were acknowledged: the topic is evidence then.
    pub fn has_wrong_records(&self) -> bool {
        let readers = self.clients.iter().filter_map(|client| client.compared);
        let mut all = readers.chain([self.compared]);
        all.any(|compared| !compared.is_clean())
    }

    /// The longest pause since the loss among the clients of a kind outside the lost region: of producers it is the RTO.
    fn longest_pause(&self, kind: Kind) -> Duration {
        let of_kind = self.clients.iter().filter(|client| client.kind == kind);
        let outside = of_kind.filter(|client| !client.is_of_lost_region);
        let pauses = outside.map(|client| client.pauses.since());
        pauses.max().unwrap_or_default()
    }

    /// The report for programs: times in milliseconds.
    pub fn json(&self) -> Value {
        let reasons = self.reasons();
        let clients: Vec<Value> = self.clients.iter().map(client_json).collect();
        json!({
            "passed": reasons.is_empty(),
            "reasons": reasons,
            "topic": self.topic,
            "partitions": self.partitions,
            "region": self.region,
            "led_before": self.led_before,
            "led_after": self.led_after,
            "away_ms": millis(self.away),
            "acknowledged": self.acknowledged,
            "compared": comparison_json(&self.compared),
            "rpo_records": self.compared.missing,
            "rto_ms": millis(self.longest_pause(Kind::Producer)),
            "longest_consumer_pause_ms": millis(self.longest_pause(Kind::Consumer)),
            "rejoined_ms": millis(self.back.rejoined),
            "completed_ms": millis(self.back.completed),
            "clients": clients,
        })
    }

    /// The report for people, without a line feed at its end.
    pub fn text(&self) -> String {
        let compared = &self.compared;
        let reasons = self.reasons();
        let verdict = match reasons.is_empty() {
            true => "passed",
            false => "NOT PASSED",
        };
        let region = &self.region;
        let mut text = format!("region loss, {region}: {verdict}\n");
        for reason in &reasons {
            line(&mut text, "reason", reason);
        }
        let away = format!("{region}, for {}", seconds(self.away));
        line(&mut text, "lost", &away);
        let led = format!(
            "{} before the loss, {} after it",
            self.led_before, self.led_after
        );
        line(&mut text, "led by", &led);
        line(
            &mut text,
            "acknowledged",
            &format!("{} records", self.acknowledged),
        );
        let found = format!(
            "{} records: {} doubled, {} out of order, {} foreign",
            compared.found, compared.doubled, compared.out_of_order, compared.foreign
        );
        line(&mut text, "found", &found);
        let rpo = format!("{} records: acknowledged, and not found", compared.missing);
        line(&mut text, "RPO", &rpo);
        let rto = format!(
            "{}: the longest pause between acknowledged records of a producer outside {region} (of a consumer {})",
            seconds(self.longest_pause(Kind::Producer)),
            seconds(self.longest_pause(Kind::Consumer))
        );
        line(&mut text, "RTO", &rto);
        for (what, time) in [
            ("rejoined", self.back.rejoined),
            ("complete", self.back.completed),
        ] {
            let told = format!("{} after it was restored", seconds(time));
            line(&mut text, what, &told);
        }
        text.push_str(&self.table());
        text
    }

    /// A line for each client, below a head.
    fn table(&self) -> String {
        let longest = self.clients.iter().map(|client| client.name.len()).max();
        let width = longest.unwrap_or_default();
        let mut lines = vec![format!(
            "{:width$}  {:>8}  {:>20}  {:>14}",
            "CLIENT", "RECORDS", "LONGEST PAUSE BEFORE", "SINCE THE LOSS"
        )];
        for client in &self.clients {
            let went = match client.is_of_lost_region {
                true => "  went on elsewhere",
                false => "",
            };
            let end = match &client.failure {
                Some(_) => "  gave up",
                None => went,
            };
            lines.push(format!(
                "{:width$}  {:>8}  {:>20}  {:>14}{end}",
                client.name,
                client.records,
                seconds(client.pauses.before()),
                seconds(client.pauses.since())
            ));
        }
        lines.join("\n")
    }
}

fn line(text: &mut String, what: &str, told: &str) {
    text.push_str(&format!("{what:13} {told}\n"));
}

fn faults(compared: &Comparison) -> String {
    let told = [
        (compared.missing, "missing"),
        (compared.doubled, "doubled"),
        (compared.out_of_order, "out of order"),
        (compared.foreign, "foreign"),
    ];
    let told = told.into_iter().filter(|(count, _)| *count > 0);
    let told: Vec<String> = told
        .map(|(count, what)| format!("{count} {what}"))
        .collect();
    told.join(", ")
}

fn client_json(client: &Client) -> Value {
    json!({
        "name": client.name,
        "kind": match client.kind {
            Kind::Producer => "producer",
            Kind::Consumer => "consumer",
        },
        "is_of_lost_region": client.is_of_lost_region,
        "records": client.records,
        "longest_pause_before_ms": millis(client.pauses.before()),
        "longest_pause_since_ms": millis(client.pauses.since()),
        "failure": client.failure,
        "compared": client.compared.as_ref().map(comparison_json),
    })
}

fn comparison_json(compared: &Comparison) -> Value {
    json!({
        "found": compared.found,
        "missing": compared.missing,
        "doubled": compared.doubled,
        "out_of_order": compared.out_of_order,
        "foreign": compared.foreign,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use host::clock::Instant;

    use super::*;

    fn client(name: &str, kind: Kind, since_ms: u64, is_of_lost_region: bool) -> Client {
        let mut pauses = Pauses::start(Instant::from_millis(0));
        pauses.note(Instant::from_millis(100), false);
        pauses.note(Instant::from_millis(100 + since_ms), true);
        Client {
            name: name.to_owned(),
            kind,
            is_of_lost_region,
            records: 30_000,
            pauses,
            failure: None,
            compared: (kind == Kind::Consumer).then(|| clean(60_000)),
        }
    }

    fn clean(found: u64) -> Comparison {
        Comparison {
            found,
            ..Comparison::default()
        }
    }

    fn report() -> Report {
        Report {
            topic: "drill".to_owned(),
            partitions: 6,
            region: "us-west".to_owned(),
            led_before: "us-west".to_owned(),
            led_after: "us-east".to_owned(),
            away: Duration::from_secs(10),
            back: Return {
                rejoined: Duration::from_millis(1_500),
                completed: Duration::from_secs(44),
            },
            acknowledged: 60_000,
            compared: clean(60_000),
            clients: vec![
                client("us-east-producer-1", Kind::Producer, 620, false),
                client("us-west-producer-1", Kind::Producer, 2_900, true),
                client("us-east-consumer-1", Kind::Consumer, 700, false),
            ],
        }
    }

    #[test]
    fn a_drill_without_a_fault_is_passed() {
        let report = report();
        assert_eq!(report.reasons(), [""; 0]);
        assert!(!report.has_wrong_records());
        let told = report.json();
        assert_eq!(told["passed"], true);
        assert_eq!(told["rpo_records"], 0);
        // Who was in the lost region is told apart.
        assert_eq!(told["rto_ms"], 620);
        assert_eq!(told["longest_consumer_pause_ms"], 700);
        assert_eq!(told["clients"][1]["longest_pause_since_ms"], 2_900);
        let text = report.text();
        assert!(text.starts_with("region loss, us-west: passed\n"), "{text}");
        assert!(text.contains("0.62 s: the longest pause"), "{text}");
        assert!(text.contains("2.90 s  went on elsewhere"), "{text}");
    }

    #[test]
    fn too_few_records_say_nothing() {
        let mut report = report();
        report.acknowledged = RECORDS_LEAST;
        assert_eq!(report.reasons(), [""; 0]);
        report.acknowledged = RECORDS_LEAST - 1;
        let [reason] = &report.reasons()[..] else {
            panic!("{:?}", report.reasons());
        };
        assert!(reason.contains("too little was tried"), "{reason}");
        assert!(!report.has_wrong_records());
        assert_eq!(report.json()["passed"], false);
        assert!(report.text().contains("NOT PASSED"));
    }

    #[test]
    fn each_fault_of_the_records_is_a_reason() {
        let of = |missing, doubled, out_of_order, foreign| Comparison {
            found: 60_000,
            missing,
            doubled,
            out_of_order,
            foreign,
        };
        for (compared, told) in [
            (of(1, 0, 0, 0), "1 missing"),
            (of(0, 2, 0, 0), "2 doubled"),
            (of(0, 0, 3, 0), "3 out of order"),
            (of(0, 0, 0, 4), "4 foreign"),
        ] {
            let mut at_the_end = report();
            at_the_end.compared = compared;
            let mut meanwhile = report();
            meanwhile.clients[2].compared = Some(compared);
            for report in [at_the_end, meanwhile] {
                let [reason] = &report.reasons()[..] else {
                    panic!("{:?}", report.reasons());
                };
                assert!(reason.ends_with(told), "{reason}");
                assert!(report.has_wrong_records());
                assert_eq!(report.json()["passed"], false);
            }
        }
    }

    #[test]
    fn a_client_that_gave_up_is_a_reason() {
        let mut report = report();
        report.clients[0].failure = Some("no answer".to_owned());
        assert_eq!(report.reasons(), ["us-east-producer-1 gave up: no answer"]);
        assert!(!report.has_wrong_records());
        assert!(report.text().contains("gave up"));
    }
}
