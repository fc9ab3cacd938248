//! Who is in the cluster, who leads, of which builds they are, and how far each has come, as a control node knows it. It must not judge who is
//! there: [`control::roll`] does.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use control::roll::{Behind, Heard, Leader, Roll, Standing};
use meta::State;
use meta::command::ControlNode;
use meta::endpoint::Endpoint;
use meta::ids::AgentId;
use meta::view::Agent;
use serde_json::{Value, json};

use super::plain;
use crate::address::Address;
use crate::version::VERSION;

/// Agents that are gone are shown for so long: like control nodes, which are forgotten then by default.
const GONE_SHOWN_FOR: Duration = Duration::from_secs(600);

/// Adds to the page who leads, every process that has registered, and agents that are gone; `own` is the agent of this process.
pub(super) fn add(page: &mut Value, control: &control::Node, own: Option<AgentId>) {
    let roll = control.roll();
    let (now_millis, in_doubt) = (host::clock::wall_millis(), control.may_lead_no_more());
    control.with_state(|state| {
        page["leader"] = leader_json(&roll, state, control.name());
        page["leader"]["may_lead_no_more"] = json!(in_doubt);
        page["nodes"] = nodes_json(&roll, state, own);
        page["gone"] = gone_json(state, now_millis);
    });
}

/// The name of the node that stands like this in its claims.
fn name_of(state: &State, claims_as: &str) -> String {
    let mut nodes = state.control_nodes();
    let node = nodes.find(|node| node.claims_as == claims_as);
    node.map_or(claims_as, |node| &node.name).to_owned()
}

fn leader_json(roll: &Roll, state: &State, own_name: &str) -> Value {
    let (name, heard, last, takes) = match roll.leader() {
        Leader::Asked => (Some(own_name.to_owned()), Some(Duration::ZERO), None, false),
        Leader::Heard { claims_as, ago } => {
            (Some(name_of(state, &claims_as)), Some(ago), None, false)
        }
        Leader::Nobody {
            claims_as,
            heard_ago,
            is_taking,
        } => {
            let last = claims_as.map(|claims_as| name_of(state, &claims_as));
            (None, heard_ago, last, is_taking)
        }
    };
    json!({
        "asked": own_name,
        "name": name.clone(),
        "heard_s_ago": heard.map(seconds),
        "claimed_last": last.or(name),
        "asked_takes_the_lead": takes,
    })
}

fn nodes_json(roll: &Roll, state: &State, own: Option<AgentId>) -> Value {
    let leader = match roll.leader() {
        Leader::Asked => Some(None),
        Leader::Heard { claims_as, .. } => Some(Some(claims_as)),
        Leader::Nobody { .. } => None,
    };
    let control = state.control_nodes().map(|node| {
        let standing = roll.control_node(node);
        let leads = match &leader {
            None => false,
            Some(None) => roll.is_asked(node),
            Some(Some(claims_as)) => *claims_as == node.claims_as,
        };
        control_json(node, &standing, leads)
    });
    let agents = state.agents().map(|agent| {
        let standing = match own == Some(agent.id) {
            true => roll.same_process(),
            false => roll.agent(agent.incarnation),
        };
        agent_json(agent, &standing)
    });
    control.chain(agents).collect()
}

fn control_json(node: &ControlNode, standing: &Standing, leads: bool) -> Value {
    let behind = standing.progress.map(|progress| progress.behind);
    let Behind { entries, millis } = behind.unwrap_or_default();
    let mut row = json!({
        "name": node.name,
        "role": "control",
        "region": node.region,
        "zone": node.zone,
        "address": node.address,
        "feature_level": node.level,
        "leads": leads,
        "position": standing.progress.map(|progress| progress.applied),
        "behind_entries": entries,
        "behind_s": millis.map(|millis| seconds(Duration::from_millis(millis))),
    });
    add_standing(&mut row, standing);
    row
}

fn agent_json(agent: &Agent, standing: &Standing) -> Value {
    let mut row = json!({
        "name": agent.name,
        "role": "agent",
        "region": agent.region,
        "zone": agent.zone,
        "listeners": listeners_json(&agent.listeners),
        "feature_level": agent.level,
        "node_id": agent.id.0,
        "drains": agent.drains,
        "cut_off": agent.cut_off,
    });
    add_standing(&mut row, standing);
    row
}

fn add_standing(row: &mut Value, standing: &Standing) {
    let (ago, not_for) = match standing.heard {
        Heard::NotKnown => (None, None),
        Heard::Ago(ago) => (Some(ago), None),
        Heard::NotFor(listened) => (None, Some(listened)),
    };
    row["version"] = json!(standing.version);
    row["heard"] = json!(standing.heard.is_here());
    row["heard_s_ago"] = json!(ago.map(seconds));
    row["not_heard_since_lead_s"] = json!(not_for.map(seconds));
}

/// Agents that have ended or were fenced lately and are not back. When that was is told by the time of the journal, and by this machine's clock
/// since the last entry.
fn gone_json(state: &State, now_millis: u64) -> Value {
    let stamp = state.stamp();
    let since_stamp = now_millis.saturating_sub(stamp.wall_millis);
    let gone = state.former_agents().filter_map(|(agent, fenced_ticks)| {
        let ago = stamp.ticks_millis.saturating_sub(fenced_ticks) + since_stamp;
        let ago = Duration::from_millis(ago);
        (ago <= GONE_SHOWN_FOR).then(|| {
            json!({
                "name": agent.name,
                "role": "agent",
                "region": agent.region,
                "zone": agent.zone,
                "node_id": agent.id.0,
                "gone_s_ago": seconds(ago),
                "ended_in_order": agent.drains,
            })
        })
    });
    gone.collect()
}

/// Where clients connect to an agent, by the names of its listeners.
fn listeners_json(listeners: &BTreeMap<String, Endpoint>) -> Value {
    let listeners = listeners.iter().map(|(name, endpoint)| {
        let address = Address {
            host: endpoint.host.clone(),
            port: endpoint.port,
        };
        (name.clone(), json!(address.to_string()))
    });
    listeners.collect()
}

/// Seconds to a tenth.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10.0).round() / 10.0
}

/// The same for people: who leads, a line for each process, and one for each agent that is gone.
pub(super) fn for_people(page: &Value, text: &mut String) {
    let Some(nodes) = page["nodes"].as_array() else {
        return;
    };
    // Writing to a string cannot fail.
    let _ = writeln!(text, "leader\n  {}", leader_line(&page["leader"]));
    text.push_str("nodes\n");
    for node in nodes {
        let _ = writeln!(text, "  {}", node_line(node, &page["leader"]));
    }
    let gone = page["gone"].as_array().filter(|gone| !gone.is_empty());
    if let Some(gone) = gone {
        text.push_str("gone\n");
        for agent in gone {
            let _ = writeln!(text, "  {}", gone_line(agent));
        }
    }
}

fn leader_line(leader: &Value) -> String {
    let heard = &leader["heard_s_ago"];
    match &leader["name"] {
        Value::Null => {
            let since = match heard {
                Value::Null => "none has been heard yet".to_owned(),
                heard => format!("none has been heard for {} s", plain(heard)),
            };
            let last = match &leader["claimed_last"] {
                Value::Null => String::new(),
                name => format!(", {} led last", plain(name)),
            };
            let takes = match leader["asked_takes_the_lead"] == json!(true) {
                true => "is taking the lead",
                false => "follows",
            };
            let asked = plain(&leader["asked"]);
            format!("NOBODY as far as {asked} knows, which is asked and {takes}: {since}{last}")
        }
        name if *name == leader["asked"] => {
            let doubt = match leader["may_lead_no_more"] == json!(true) {
                true => ", and MAY LEAD NO MORE: it cannot append, or has met another writer",
                false => "",
            };
            format!("{}, which is asked{doubt}", plain(name))
        }
        name => format!(
            "{}, heard {} s ago by {}, which is asked",
            plain(name),
            plain(heard),
            plain(&leader["asked"])
        ),
    }
}

fn node_line(node: &Value, leader: &Value) -> String {
    let field = |name: &str| plain(&node[name]);
    let mut line = format!(
        "{}  {}, zone {}, at {}, version {}, level {}",
        field("name"),
        field("role"),
        field("zone"),
        places(node),
        match &node["version"] {
            Value::Null => "not known".to_owned(),
            version => plain(version),
        },
        field("feature_level"),
    );
    if node["leads"] == json!(true) {
        line.push_str(", leads");
    } else if let Some(entries) = node["behind_entries"].as_u64() {
        line.push_str(&behind(entries, &node["behind_s"]));
    }
    if node["drains"] == json!(true) {
        line.push_str(", drains");
    }
    if node["cut_off"] == json!(true) {
        line.push_str(", REACHES TOO FEW BUCKETS");
    }
    match (node["heard"].as_bool(), &node["heard_s_ago"]) {
        (Some(true), _) => {}
        (Some(false), Value::Null) => {
            let listened = field("not_heard_since_lead_s");
            let name = plain(&leader["name"]);
            line.push_str(&format!(
                ", NOT HEARD in the {listened} s that {name} leads"
            ));
        }
        (Some(false), ago) => line.push_str(&format!(", NOT HEARD for {} s", plain(ago))),
        (None, _) => line.push_str(", not known whether it is there"),
    }
    line
}

fn behind(entries: u64, seconds: &Value) -> String {
    match (entries, seconds) {
        (0, _) => ", not behind".to_owned(),
        (entries, Value::Null) => format!(", {entries} entries behind"),
        (entries, seconds) => format!(", {entries} entries and {} s behind", plain(seconds)),
    }
}

fn gone_line(agent: &Value) -> String {
    let ended = match agent["ended_in_order"] == json!(true) {
        true => "ended",
        false => "was not heard any more, and was fenced",
    };
    format!(
        "{}  agent, zone {}, {ended} {} s ago",
        plain(&agent["name"]),
        plain(&agent["zone"]),
        plain(&agent["gone_s_ago"])
    )
}

/// Where a node is reached, for people: the addresses of an agent with the names of its listeners if it has several.
fn places(node: &Value) -> String {
    let Some(listeners) = node["listeners"].as_object() else {
        return plain(&node["address"]);
    };
    let place = |(name, address): (&String, &Value)| match listeners.len() {
        1 => plain(address),
        _ => format!("{} ({name})", plain(address)),
    };
    let places: Vec<String> = listeners.iter().map(place).collect();
    places.join(", ")
}

/// The build of this process.
pub(super) fn build_metric(text: &mut String) {
    let name = "seaway_build_info";
    let help = "1, with the version of this process's build.";
    // Writing to a string cannot fail.
    let _ = writeln!(
        text,
        "# HELP {name} {help}\n# TYPE {name} gauge\n{name}{{version=\"{VERSION}\"}} 1"
    );
}

/// How far this node is behind the one that leads, as far as it knows; and, of the node that leads, how the others stand.
pub(super) fn metrics(text: &mut String, control: &control::Node) {
    let roll = control.roll();
    let own = roll.asked().progress.map(|progress| progress.behind);
    let Behind { entries, millis } = own.unwrap_or_default();
    let name = "seaway_journal_behind_entries";
    let help = "Entries of the journal that the node that leads has and this one has not applied; left out while no leader says how many it has.";
    single(text, name, help, entries);
    let name = "seaway_journal_behind_ms";
    let help = "For how many milliseconds this node has lacked some, as far as it can tell.";
    single(text, name, help, millis);
    if roll.leader() != Leader::Asked {
        return;
    }
    let standings = control.with_state(|state| standings(state, &roll));
    let mut family = |name: &str, help: &str, value: fn(&Standing) -> Option<u64>| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} gauge");
        for (node, role, standing) in &standings {
            if let Some(value) = value(standing) {
                let _ = writeln!(text, "{name}{{node=\"{node}\",role=\"{role}\"}} {value}");
            }
        }
    };
    family(
        "seaway_node_silent_ms",
        "Of the node that leads: milliseconds since it heard another process that is registered, or since it leads.",
        |standing| match standing.heard {
            Heard::NotKnown => None,
            Heard::Ago(silent) | Heard::NotFor(silent) => u64::try_from(silent.as_millis()).ok(),
        },
    );
    family(
        "seaway_node_behind_entries",
        "Of the node that leads: entries of the journal that a node that follows had not applied when it was last heard; left out of one that is not heard.",
        |standing| standing.progress?.behind.entries,
    );
}

/// The others, each with its role.
fn standings(state: &State, roll: &Roll) -> Vec<(String, &'static str, Standing)> {
    let control = state.control_nodes().filter(|node| !roll.is_asked(node));
    let control = control.map(|node| (node.name.clone(), "control", roll.control_node(node)));
    let agents = state.agents();
    let agents = agents.map(|agent| {
        let standing = roll.agent(agent.incarnation);
        (agent.name.clone(), "agent", standing)
    });
    control.chain(agents).collect()
}

fn single(text: &mut String, name: &str, help: &str, value: Option<u64>) {
    if let Some(value) = value {
        super::gauge(text, name, help, value);
    }
}

#[cfg(test)]
mod tests;
