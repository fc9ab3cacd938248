//! The lines of the status page, for each that may stand behind them.

use super::*;

fn control(name: &str) -> Value {
    json!({
        "name": name, "role": "control", "region": "r", "zone": "a", "address": "h:1", "feature_level": 1, "version": "0.1.0",
        "leads": false, "position": 95, "behind_entries": 0, "behind_s": 0.0,
        "heard": true, "heard_s_ago": 0.4, "not_heard_since_lead_s": null,
    })
}

fn with(mut node: Value, fields: Value) -> Value {
    for (name, value) in fields.as_object().into_iter().flatten() {
        node[name] = value.clone();
    }
    node
}

fn leader(name: Option<&str>) -> Value {
    json!({
        "asked": "c1", "name": name, "heard_s_ago": 0.2, "claimed_last": "c2", "asked_takes_the_lead": false,
    })
}

#[test]
fn a_line_says_of_each_process_how_it_stands() {
    let leader = leader(Some("c2"));
    let begin = "c3  control, zone a, at h:1, version 0.1.0, level 1";
    for (fields, end) in [
        (json!({"leads": true}), ", leads"),
        (json!({}), ", not behind"),
        (
            json!({"behind_entries": 7, "behind_s": 1.5}),
            ", 7 entries and 1.5 s behind",
        ),
        (
            json!({"behind_entries": 7, "behind_s": null}),
            ", 7 entries behind",
        ),
        (
            json!({"heard": false, "heard_s_ago": 14.2, "behind_entries": null}),
            ", NOT HEARD for 14.2 s",
        ),
        (
            json!({"heard": false, "heard_s_ago": null, "not_heard_since_lead_s": 20.0, "behind_entries": null}),
            ", NOT HEARD in the 20.0 s that c2 leads",
        ),
        (
            json!({"heard": null, "heard_s_ago": null, "behind_entries": null}),
            ", not known whether it is there",
        ),
    ] {
        let node = with(control("c3"), fields);
        assert_eq!(node_line(&node, &leader), format!("{begin}{end}"));
    }
    let fields = json!({"version": null, "drains": true, "cut_off": true});
    let line = node_line(&with(control("c3"), fields), &leader);
    assert!(
        line.contains("version not known, level 1")
            && line.ends_with(", drains, REACHES TOO FEW BUCKETS"),
        "{line}"
    );
}

#[test]
fn a_line_says_who_leads_or_that_nobody_does() {
    let other = leader_line(&leader(Some("c2")));
    assert_eq!(other, "c2, heard 0.2 s ago by c1, which is asked");
    assert_eq!(leader_line(&leader(Some("c1"))), "c1, which is asked");
    let doubtful = with(leader(Some("c1")), json!({"may_lead_no_more": true}));
    let line = leader_line(&doubtful);
    assert!(line.starts_with("c1, which is asked, and MAY LEAD NO MORE"));
    let nobody = with(leader(None), json!({"heard_s_ago": 4.0}));
    assert_eq!(
        leader_line(&nobody),
        "NOBODY as far as c1 knows, which is asked and follows: none has been heard for 4.0 s, c2 led last"
    );
    let fields = json!({"heard_s_ago": null, "claimed_last": null, "asked_takes_the_lead": true});
    let nobody = with(leader(None), fields);
    assert_eq!(
        leader_line(&nobody),
        "NOBODY as far as c1 knows, which is asked and is taking the lead: none has been heard yet"
    );
}

#[test]
fn agents_that_are_gone_are_shown_for_a_while() {
    let mut state = State::genesis("AAAAAAAAAAAAAAAAAAAAAA".to_owned());
    let mut apply = |ticks_millis, command| {
        let stamp = meta::ids::Stamp {
            wall_millis: 1_000_000 + ticks_millis,
            ticks_millis,
        };
        state
            .apply(meta::ids::EntryId::default(), stamp, &command)
            .reply
    };
    let agent = |name: &str| meta::command::RegisterAgent {
        nonce: 1,
        name: name.to_owned(),
        listeners: Endpoint::alone("h", 1),
        region: "r".to_owned(),
        zone: "a".to_owned(),
        neighbour_address: String::new(),
        level: 1,
    };
    for (incarnation, name) in [(1, "one"), (2, "two"), (3, "three")] {
        apply(incarnation, meta::Command::RegisterAgent(agent(name)));
    }
    let one = meta::ids::Incarnation(1);
    let two = meta::ids::Incarnation(2);
    apply(10, meta::Command::DrainAgent { incarnation: one });
    apply(20, meta::Command::FenceAgent { incarnation: one });
    apply(5_020, meta::Command::FenceAgent { incarnation: two });
    let gone = gone_json(&state, 1_000_000 + 14_020);
    let rows = gone.as_array().expect("a list");
    let lines: Vec<String> = rows.iter().map(gone_line).collect();
    assert_eq!(
        lines,
        [
            "one  agent, zone a, ended 14.0 s ago",
            "two  agent, zone a, was not heard any more, and was fenced 9.0 s ago"
        ]
    );
    let later = gone_json(&state, 1_000_000 + 604_000);
    let names = later
        .as_array()
        .map(|rows| rows.iter().map(|row| &row["name"]));
    assert!(names.expect("a list").eq(["two"]));
}
