//! `seaway topic`: create, list, describe and delete topics.

use anyhow::{Context, Result, bail};
use serde_json::json;
use wire::errors::ErrorCode;
use wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfig, CreateTopicsRequest, CreateTopicsResponse,
};
use wire::messages::delete_topics::{DeleteTopicsRequest, DeleteTopicsResponse};
use wire::messages::describe_configs::{
    DescribeConfigsRequest, DescribeConfigsResource, DescribeConfigsResponse,
};
use wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsRequest, ListOffsetsResponse, ListOffsetsTopic,
};
use wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseTopic,
};
use wire::text::Str;
use wire::uuid::Uuid;

use crate::client::{Client, Target, check};
use crate::output::say;
use crate::runtime;

/// How long the cluster may take for a change.
const TIMEOUT_MS: i32 = 30_000;
/// Kafka's number for the resource type "topic".
const RESOURCE_TOPIC: i8 = 2;
/// Kafka's number for the source of a value that is set on the topic itself.
const SOURCE_TOPIC: i8 = 1;
/// The special timestamps of ListOffsets.
const EARLIEST: i64 = -2;
pub const LATEST: i64 = -1;

/// What to do with topics.
#[derive(clap::Subcommand)]
pub enum Verb {
    /// Create a topic.
    Create {
        /// Its name.
        name: String,
        /// Number of partitions; by default the cluster's num.partitions.
        #[arg(long, short = 'p', allow_negative_numbers = true, value_parser = partition_count)]
        partitions: Option<i32>,
        /// A config of the topic, such as retention.ms=86400000; may be given again.
        #[arg(long, value_name = "NAME=VALUE")]
        config: Vec<String>,
        #[command(flatten)]
        target: Target,
    },
    /// List all topics.
    List {
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Show a topic's partitions, offsets and configs.
    Describe {
        /// Its name.
        name: String,
        /// Print JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        target: Target,
    },
    /// Delete a topic and all its records.
    Delete {
        /// Its name.
        name: String,
        #[command(flatten)]
        target: Target,
    },
}

pub fn run(verb: Verb) -> Result<()> {
    runtime::small()?.block_on(async {
        match verb {
            Verb::Create {
                name,
                partitions,
                config,
                target,
            } => {
                let mut client = Client::connect(&target).await?;
                let (partitions, id) = create(&mut client, &name, partitions, &config).await?;
                say!("created {name} with {partitions} partitions, id {id}");
                Ok(())
            }
            Verb::List { json, target } => list(&mut Client::connect(&target).await?, json).await,
            Verb::Describe { name, json, target } => {
                describe(&mut Client::connect(&target).await?, &name, json).await
            }
            Verb::Delete { name, target } => {
                delete(&mut Client::connect(&target).await?, &name).await?;
                say!("deleted {name}");
                Ok(())
            }
        }
    })
}

/// Reads a number of partitions as people write it.
fn partition_count(text: &str) -> Result<i32, String> {
    match text.parse::<i32>() {
        Ok(count) if count >= 1 => Ok(count),
        Ok(_) => Err(
            "a topic has at least one partition; leave it out for the cluster's num.partitions"
                .to_owned(),
        ),
        Err(_) => Err(format!("it must be a number from 1 to {}", i32::MAX)),
    }
}

/// Creates a topic with `configs`, each NAME=VALUE; yields how many partitions it has, and its id.
pub async fn create(
    client: &mut Client,
    name: &str,
    partitions: Option<i32>,
    configs: &[String],
) -> Result<(i32, Uuid)> {
    let mut topic = CreatableTopic {
        name: Str::from(name),
        num_partitions: partitions.unwrap_or(-1),
        replication_factor: -1,
        ..CreatableTopic::default()
    };
    for config in configs {
        let Some((name, value)) = config.split_once('=') else {
            bail!("--config {config}: write it as NAME=VALUE");
        };
        topic.configs.push(CreatableTopicConfig {
            name: Str::from(name),
            value: Some(Str::from(value)),
        });
    }
    let request = CreateTopicsRequest {
        topics: vec![topic],
        timeout_ms: TIMEOUT_MS,
        validate_only: false,
    };
    let created = |response: CreateTopicsResponse| {
        let result = response.topics.into_iter().next();
        let result = result.context("the answer names no topic")?;
        check(result.error_code, result.error_message.as_ref(), name)?;
        Ok(result)
    };
    let exists = ErrorCode::TopicAlreadyExists;
    match client.order(&request, 7, exists, created).await? {
        Some(result) => Ok((result.num_partitions, result.topic_id)),
        None => {
            let topic = topic_metadata(client, name, false).await?;
            Ok((i32::try_from(topic.partitions.len())?, topic.topic_id))
        }
    }
}

async fn list(client: &mut Client, as_json: bool) -> Result<()> {
    let request = MetadataRequest {
        topics: None,
        ..MetadataRequest::default()
    };
    let response = client.ask(&request, 12, Ok).await?;
    let mut rows: Vec<_> = response
        .topics
        .iter()
        .filter_map(|topic| Some((topic.name.as_ref()?.as_str(), topic)))
        .collect();
    rows.sort_by_key(|(name, _)| *name);
    if as_json {
        let rows: Vec<_> = rows
            .iter()
            .map(|(name, topic)| {
                json!({
                    "name": name,
                    "id": topic.topic_id.to_string(),
                    "partitions": topic.partitions.len(),
                })
            })
            .collect();
        say!("{}", serde_json::to_string_pretty(&rows)?);
        return Ok(());
    }
    if rows.is_empty() {
        say!("no topics");
    }
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    for (name, topic) in rows {
        say!("{name:width$}  {} partitions", topic.partitions.len());
    }
    Ok(())
}

/// The metadata of one topic, which is created first if `create` and the cluster's settings allow
/// it.
pub async fn topic_metadata(
    client: &mut Client,
    name: &str,
    create: bool,
) -> Result<MetadataResponseTopic> {
    let topic = MetadataRequestTopic {
        name: Some(Str::from(name)),
        ..Default::default()
    };
    let request = MetadataRequest {
        topics: Some(vec![topic]),
        allow_auto_topic_creation: create,
        ..MetadataRequest::default()
    };
    let found = |response: MetadataResponse| {
        let topic = response.topics.into_iter().next();
        let topic = topic.context("the answer names no topic")?;
        check(topic.error_code, None, name)?;
        Ok(topic)
    };
    client.ask(&request, 12, found).await
}

/// The offsets of `partitions` at a (special) timestamp.
pub async fn offsets(
    client: &mut Client,
    name: &str,
    partitions: i32,
    timestamp: i64,
) -> Result<Vec<i64>> {
    let asked = (0..partitions)
        .map(|index| ListOffsetsPartition {
            partition_index: index,
            current_leader_epoch: -1,
            timestamp,
        })
        .collect();
    let topic = ListOffsetsTopic {
        name: Str::from(name),
        partitions: asked,
    };
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: vec![topic],
        ..Default::default()
    };
    let read = |response: ListOffsetsResponse| {
        let mut offsets = vec![-1; usize::try_from(partitions)?];
        for partition in response.topics.iter().flat_map(|topic| &topic.partitions) {
            check(partition.error_code, None, name)?;
            let slot = offsets.get_mut(usize::try_from(partition.partition_index)?);
            *slot.context("the answer names a partition that does not exist")? = partition.offset;
        }
        Ok(offsets)
    };
    client.ask(&request, 7, read).await
}

async fn describe(client: &mut Client, name: &str, as_json: bool) -> Result<()> {
    let topic = topic_metadata(client, name, false).await?;
    let count = i32::try_from(topic.partitions.len())?;
    let starts = offsets(client, name, count, EARLIEST).await?;
    let ends = offsets(client, name, count, LATEST).await?;
    let resource = DescribeConfigsResource {
        resource_type: RESOURCE_TOPIC,
        resource_name: Str::from(name),
        configuration_keys: None,
    };
    let request = DescribeConfigsRequest {
        resources: vec![resource],
        ..DescribeConfigsRequest::default()
    };
    let described = |response: DescribeConfigsResponse| {
        let result = response.results.into_iter().next();
        let result = result.context("the answer names no topic")?;
        check(result.error_code, result.error_message.as_ref(), name)?;
        Ok(result)
    };
    let configs = client.ask(&request, 4, described).await?;
    let shown = |value: &Option<Str>| value.as_ref().map_or("", |value| value.as_str()).to_owned();
    if as_json {
        let partitions = starts.iter().zip(&ends).enumerate();
        let partitions: Vec<_> = partitions
            .map(|(index, (start, end))| {
                json!({ "partition": index, "log_start_offset": start, "high_watermark": end })
            })
            .collect();
        let configs: serde_json::Map<_, _> = configs
            .configs
            .iter()
            .map(|config| (config.name.to_string(), json!(shown(&config.value))))
            .collect();
        let page = json!({
            "name": name,
            "id": topic.topic_id.to_string(),
            "partitions": partitions,
            "configs": configs,
        });
        say!("{}", serde_json::to_string_pretty(&page)?);
        return Ok(());
    }
    say!("{name}  id {}", topic.topic_id);
    say!(
        "{:>9}  {:>16}  {:>14}  {:>7}",
        "PARTITION",
        "LOG START OFFSET",
        "HIGH WATERMARK",
        "RECORDS"
    );
    for (index, (start, end)) in starts.iter().zip(&ends).enumerate() {
        say!("{index:>9}  {start:>16}  {end:>14}  {:>7}", end - start);
    }
    for config in &configs.configs {
        if config.config_source == SOURCE_TOPIC {
            let effect = effect(&config.name);
            say!(
                "{} = {}{effect}",
                config.name.as_str(),
                shown(&config.value)
            );
        }
    }
    Ok(())
}

/// A remark for configs of a topic that have no effect in this version.
fn effect(config: &str) -> &'static str {
    match meta::level::Levels::KNOWN.newest().topic_config(config) {
        Some(spec) if !spec.has_effect => "  (accepted for Kafka's tools; changes nothing here)",
        _ => "",
    }
}

/// Deletes a topic and all its records.
pub async fn delete(client: &mut Client, name: &str) -> Result<()> {
    let request = DeleteTopicsRequest {
        topic_names: vec![Str::from(name)],
        timeout_ms: TIMEOUT_MS,
        ..DeleteTopicsRequest::default()
    };
    let deleted = |response: DeleteTopicsResponse| {
        let result = response.responses.first();
        let result = result.context("the answer names no topic")?;
        Ok(check(
            result.error_code,
            result.error_message.as_ref(),
            name,
        )?)
    };
    let gone = ErrorCode::UnknownTopicOrPartition;
    client.order(&request, 5, gone, deleted).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_of_partitions_is_positive() {
        assert_eq!(partition_count("3"), Ok(3));
        for text in ["-1", "0"] {
            let refused = partition_count(text).expect_err("too few");
            assert!(refused.contains("at least one partition"), "{refused}");
        }
        assert!(partition_count("many").is_err());
        assert!(partition_count("2147483648").is_err());
    }
}
