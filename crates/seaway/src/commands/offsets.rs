//! `seaway region offsets`: up to which offset each region's bucket holds all records of partitions.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use hyper::StatusCode;
use serde_json::{Map, Value, json};

use super::time::leader;
use crate::data_dir::{Endpoints, published};
use crate::output::say;
use crate::pages::offsets::{BEHIND, TOPIC};
use crate::{http, runtime};

/// Which partitions, of which region, and whom to ask.
#[derive(clap::Args)]
pub struct Arguments {
    /// All partitions of this topic; without it, those of all topics of which a bucket lacks records.
    #[arg(long)]
    topic: Option<String>,
    /// Only this region; without a topic, only partitions that are behind there.
    #[arg(long)]
    region: Option<String>,
    /// List at most so many partitions, and say so if there are more.
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    limit: usize,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    /// Data directory of a `dev` cluster: the control node that leads is asked, or another if none does.
    #[arg(long, value_name = "DIR", default_value = super::dev::DATA_DIR)]
    data_dir: PathBuf,
    /// Ask the control node at this address instead, as http://HOST:PORT.
    #[arg(long, value_name = "URL")]
    http: Option<String>,
}

pub fn run(arguments: &Arguments) -> Result<()> {
    let listed = runtime::small()?.block_on(list(arguments))?;
    if arguments.json {
        say!("{}", serde_json::to_string_pretty(&listed.as_json())?);
        return Ok(());
    }
    for partition in &listed.partitions {
        say!("{}", line(partition));
    }
    for region in &listed.suspects {
        say!("{region} is suspect: what it holds is not known until that is compared");
    }
    match (
        listed.partitions.is_empty() && listed.suspects.is_empty(),
        listed.is_more,
    ) {
        (_, true) => say!("there are more: name a topic, or say --limit"),
        (true, false) => match &arguments.region {
            Some(region) => say!("{region} is not behind"),
            None => say!("no region is behind"),
        },
        (false, false) => {}
    }
    Ok(())
}

/// What was found.
struct Listed {
    /// The entry of the journal up to which the node had applied it that was asked last.
    journal_index: u64,
    partitions: Vec<Value>,
    /// Regions among those asked for of which nothing is known, since their buckets are suspect.
    suspects: BTreeSet<String>,
    is_more: bool,
}

impl Listed {
    fn as_json(&self) -> Value {
        json!({
            "journal_index": self.journal_index,
            "partitions": self.partitions,
            "suspects": self.suspects,
            "is_more": self.is_more,
        })
    }
}

async fn list(arguments: &Arguments) -> Result<Listed> {
    let base = match &arguments.http {
        Some(base) => base.clone(),
        None => control_node(&published(&arguments.data_dir)?).await?,
    };
    let mut next = Some(first(arguments)?);
    let mut listed = Listed {
        journal_index: 0,
        partitions: Vec::new(),
        suspects: BTreeSet::new(),
        is_more: false,
    };
    while let Some(path) = next.take() {
        let (status, page) = http::get(&base, &path).await?;
        if status != StatusCode::OK {
            bail!("{base}: {}", page.trim_end());
        }
        let mut page: Value = serde_json::from_str(&page)?;
        let index = page["journal_index"].as_u64();
        listed.journal_index = index.context("the page does not say which entry it is of")?;
        check_region(arguments, &page["regions"])?;
        let suspects = page["suspects"].as_array().into_iter().flatten();
        let suspects = suspects.filter_map(Value::as_str).map(str::to_owned);
        let is_asked_for =
            |region: &String| arguments.region.as_ref().is_none_or(|of| of == region);
        listed.suspects.extend(suspects.filter(is_asked_for));
        let Value::Array(partitions) = page["partitions"].take() else {
            bail!("{base}: the page has no partitions");
        };
        let wanted = partitions
            .into_iter()
            .filter_map(|partition| narrowed(arguments, partition));
        listed.partitions.extend(wanted);
        next = page["next"].as_str().map(str::to_owned);
        if listed.partitions.len() > arguments.limit
            || (listed.partitions.len() == arguments.limit && next.is_some())
        {
            listed.partitions.truncate(arguments.limit);
            listed.is_more = true;
            break;
        }
    }
    Ok(listed)
}

fn first(arguments: &Arguments) -> Result<String> {
    let Some(topic) = &arguments.topic else {
        return Ok(format!("{BEHIND}0"));
    };
    // It becomes part of a URL.
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if topic.is_empty() || !topic.bytes().all(is_name) {
        bail!("there is no topic {topic:?}");
    }
    Ok(format!("{TOPIC}{topic}/0"))
}

/// The process to ask: the one that leads, or else any control node that answers.
async fn control_node(endpoints: &Endpoints) -> Result<String> {
    let no_leader = match leader(endpoints).await {
        Ok(base) => return Ok(base),
        Err(error) => error,
    };
    let running = endpoints.nodes.iter().filter(|node| node.pid.is_some());
    for node in running.filter(|node| node.role == "control") {
        if http::get(&node.http, "/healthz").await.is_ok() {
            return Ok(node.http.clone());
        }
    }
    Err(no_leader)
}

fn check_region(arguments: &Arguments, regions: &Value) -> Result<()> {
    let Some(region) = &arguments.region else {
        return Ok(());
    };
    let known: Vec<&str> = regions
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    if !known.contains(&region.as_str()) {
        bail!(
            "there is no region {region}; there are {}",
            known.join(", ")
        );
    }
    Ok(())
}

/// A partition as it is asked for: of one region, if one is named; `None` if it is of no interest.
fn narrowed(arguments: &Arguments, mut partition: Value) -> Option<Value> {
    let Some(region) = &arguments.region else {
        return Some(partition);
    };
    let safe = partition["safe"][region].take();
    if arguments.topic.is_none() && safe["records_behind"] == 0 {
        return None;
    }
    let only: Map<String, Value> = [(region.clone(), safe)].into_iter().collect();
    partition["safe"] = Value::Object(only);
    Some(partition)
}

/// A partition in a line.
fn line(partition: &Value) -> String {
    let topic = partition["topic"].as_str().unwrap_or("?");
    let name = format!("{topic}-{}", partition["partition"]);
    let regions = partition["safe"].as_object().into_iter().flatten();
    let regions = regions.map(|(region, safe)| format!("{region} {}", safe_told(safe)));
    let regions: Vec<String> = regions.collect();
    format!(
        "{name:20}  end {:9}  {}",
        partition["end"].to_string(),
        regions.join("  ")
    )
}

fn safe_told(safe: &Value) -> String {
    let Some(offset) = safe["offset"].as_i64() else {
        return "not known (suspect)".to_owned();
    };
    let behind = safe["records_behind"].as_u64().unwrap_or(0);
    match (behind, safe["is_exact"] == true) {
        (0, _) => offset.to_string(),
        (behind, true) => format!("{offset} ({behind} behind)"),
        (behind, false) => format!("{offset} or more ({behind} behind at most)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition() -> Value {
        json!({
            "topic": "orders",
            "partition": 3,
            "end": 40,
            "safe": {
                "a": { "offset": 40, "is_exact": true, "records_behind": 0 },
                "b": { "offset": 10, "is_exact": true, "records_behind": 30 },
                "c": { "offset": 20, "is_exact": false, "records_behind": 20 },
                "d": null,
            },
        })
    }

    fn arguments(topic: Option<&str>, region: Option<&str>) -> Arguments {
        Arguments {
            topic: topic.map(str::to_owned),
            region: region.map(str::to_owned),
            limit: 10,
            json: false,
            data_dir: PathBuf::new(),
            http: None,
        }
    }

    #[test]
    fn a_line_tells_what_is_exact_and_what_is_not() {
        let line = line(&partition());
        assert_eq!(
            line,
            "orders-3              end 40         a 40  b 10 (30 behind)  c 20 or more (20 behind at most)  d not known (suspect)"
        );
    }

    #[test]
    fn of_one_region_only_what_is_behind_there_is_listed_unless_a_topic_is_named() {
        let of = |topic, region| narrowed(&arguments(topic, region), partition());
        assert_eq!(of(None, None), Some(partition()));
        assert_eq!(of(None, Some("a")), None);
        let behind = of(None, Some("b")).expect("it is behind there");
        assert_eq!(behind["safe"], json!({ "b": partition()["safe"]["b"] }));
        let named = of(Some("orders"), Some("a")).expect("it is of the topic");
        assert_eq!(named["safe"], json!({ "a": partition()["safe"]["a"] }));
        assert!(of(None, Some("d")).is_some(), "it may be behind");
    }

    #[test]
    fn what_becomes_part_of_a_url_is_a_name() {
        assert!(first(&arguments(Some("a/b"), None)).is_err());
        assert!(first(&arguments(Some(""), None)).is_err());
        let path = first(&arguments(Some("a.b"), None)).expect("it is a name");
        assert_eq!(path, "/offsets/topic/a.b/0");
    }
}
