//! CreateTopics, DeleteTopics, CreatePartitions. It must not know how topics are stored.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use futures::FutureExt;
use meta::topic::Topic;
use rpc::control::TopicSpec;
use wire::errors::ErrorCode;
use wire::messages::create_partitions::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreatePartitionsTopic,
    CreatePartitionsTopicResult,
};
use wire::messages::create_topics::{
    CreatableTopic, CreatableTopicConfigs, CreatableTopicResult, CreateTopicsRequest,
    CreateTopicsResponse,
};
use wire::messages::delete_topics::{
    DeletableTopicResult, DeleteTopicState, DeleteTopicsRequest, DeleteTopicsResponse,
};
use wire::text::Str;

use super::{configs, each, errors, topic_id, uuid, verdict};
use crate::context::Context;
use crate::view::View;

/// Topics may be deleted by id from this version on.
const DELETE_BY_ID_SINCE: i16 = 6;
/// What clients are told of the number of copies: the bucket's own, which no client can change.
const REPLICATION_FACTOR: i16 = 1;

type Refusal = (ErrorCode, String);

/// Answers CreateTopics.
pub(crate) async fn create_topics(
    context: &Context,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let mut times: HashMap<Str, u32> = HashMap::new();
    for topic in &request.topics {
        *times.entry(topic.name.clone()).or_default() += 1;
    }
    let validate_only = request.validate_only;
    let outcomes = request.topics.into_iter().map(|topic| {
        let is_repeated = times.get(&topic.name).is_some_and(|times| *times > 1);
        async move {
            let outcome = if is_repeated {
                Err((
                    ErrorCode::InvalidRequest,
                    "the topic is named more than once".to_owned(),
                ))
            } else {
                create(context, &topic, validate_only).await
            };
            (topic, outcome)
        }
        .boxed()
    });
    let results = each(outcomes.collect()).await;
    // Whoever creates a topic expects to find it at once.
    let view = if request.validate_only {
        None
    } else {
        context.views.refresh().await.ok()
    };
    let topics = results.into_iter().map(|(topic, outcome)| match outcome {
        Ok(partitions) => created(topic, partitions, view.as_deref()),
        Err(refusal) => {
            let (error_code, error_message) = verdict(Some(refusal));
            CreatableTopicResult {
                name: topic.name,
                error_code,
                error_message,
                ..CreatableTopicResult::default()
            }
        }
    });
    CreateTopicsResponse {
        topics: topics.collect(),
        ..CreateTopicsResponse::default()
    }
}

fn created(topic: CreatableTopic, partitions: u32, view: Option<&View>) -> CreatableTopicResult {
    let found = view.and_then(|view| view.topic(&topic.name));
    let configs = found.map(|topic| {
        configs::topic_configs(&topic.view)
            .into_iter()
            .map(|config| CreatableTopicConfigs {
                name: Str::from_static(config.name),
                value: Some(Str::from(&config.value)),
                read_only: false,
                config_source: configs::source_code(config.source),
                is_sensitive: false,
            })
            .collect()
    });
    CreatableTopicResult {
        topic_id: found
            .map(|topic| uuid(topic.view.topic.id))
            .unwrap_or_default(),
        num_partitions: i32::try_from(partitions).unwrap_or(i32::MAX),
        replication_factor: REPLICATION_FACTOR,
        configs: Some(configs.unwrap_or_default()),
        name: topic.name,
        ..CreatableTopicResult::default()
    }
}

/// Creates a topic; yields the number of its partitions.
async fn create(
    context: &Context,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<u32, Refusal> {
    let partitions = partition_count(context, topic)?;
    // Any other factor is taken (docs/protocol.md): how often a record is stored is the cluster's
    // decision, and programs ask for 3 wherever they run.
    if topic.replication_factor == 0 || topic.replication_factor < -1 {
        let why = "the replication factor must be at least 1, or -1 for the default".to_owned();
        return Err((ErrorCode::InvalidReplicationFactor, why));
    }
    let mut configs = BTreeMap::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let why = format!("the value of {} is null", config.name.as_str());
            return Err((ErrorCode::InvalidConfig, why));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    let spec = TopicSpec {
        name: topic.name.to_string(),
        partitions,
        configs,
    };
    match context.control.create_topic(spec, validate_only).await {
        Ok(Ok(_)) => Ok(partitions),
        Ok(Err(refusal)) => Err(errors::of_topic(refusal)),
        Err(error) => Err((errors::of_call(&error), error.to_string())),
    }
}

fn partition_count(context: &Context, topic: &CreatableTopic) -> Result<u32, Refusal> {
    if !topic.assignments.is_empty() {
        if topic.num_partitions != -1 || topic.replication_factor != -1 {
            let why = "with an assignment both numbers must be -1".to_owned();
            return Err((ErrorCode::InvalidRequest, why));
        }
        let mut indexes: Vec<i32> = topic
            .assignments
            .iter()
            .map(|assigned| assigned.partition_index)
            .collect();
        indexes.sort_unstable();
        if !indexes.iter().copied().eq((0_i32..).take(indexes.len())) {
            let why = "the partitions of an assignment must count up from 0".to_owned();
            return Err((ErrorCode::InvalidReplicaAssignment, why));
        }
        return Ok(u32::try_from(indexes.len()).unwrap_or(u32::MAX));
    }
    match topic.num_partitions {
        -1 => Ok(context.settings.num_partitions),
        number => u32::try_from(number)
            .ok()
            .filter(|number| *number > 0)
            .ok_or_else(|| {
                let why = "a topic needs at least one partition, or -1 for the default".to_owned();
                (ErrorCode::InvalidPartitions, why)
            }),
    }
}

/// Answers DeleteTopics.
pub(crate) async fn delete_topics(
    context: &Context,
    request: DeleteTopicsRequest,
    version: i16,
) -> DeleteTopicsResponse {
    let by_name = request
        .topic_names
        .into_iter()
        .map(|name| DeleteTopicState {
            name: Some(name),
            ..DeleteTopicState::default()
        });
    let wanted: Vec<DeleteTopicState> = if version >= DELETE_BY_ID_SINCE {
        request.topics
    } else {
        by_name.collect()
    };
    let view = context.views.refresh_current().await;
    let view = view.as_ref().map(Arc::as_ref);
    let deleted = wanted
        .into_iter()
        .map(|topic| delete(context, view, topic).boxed());
    let responses = each(deleted.collect()).await;
    // What is deleted is gone for whoever asks next; if this fails a notice brings it.
    drop(context.views.refresh().await);
    DeleteTopicsResponse {
        responses,
        ..DeleteTopicsResponse::default()
    }
}

async fn delete(
    context: &Context,
    view: Result<&View, &rpc::Error>,
    topic: DeleteTopicState,
) -> DeletableTopicResult {
    let found = match view {
        Ok(view) => to_delete(view, &topic),
        Err(error) => Err((errors::of_call(error), error.to_string())),
    };
    let outcome = match &found {
        Ok(found) => match context.control.delete_topic(found.id).await {
            Ok(Ok(())) => None,
            Ok(Err(refusal)) => Some(errors::of_topic(refusal)),
            Err(error) => Some((errors::of_call(&error), error.to_string())),
        },
        Err(refusal) => Some(refusal.clone()),
    };
    let (error_code, error_message) = verdict(outcome);
    let found = found.ok();
    DeletableTopicResult {
        name: found.map(|found| Str::from(&found.name)).or(topic.name),
        topic_id: found.map_or(topic.topic_id, |found| uuid(found.id)),
        error_code,
        error_message,
    }
}

fn to_delete<'a>(view: &'a View, topic: &DeleteTopicState) -> Result<&'a Topic, Refusal> {
    let (found, code) = match &topic.name {
        Some(_) if !topic.topic_id.is_zero() => {
            let why = "name a topic or its id, not both".to_owned();
            return Err((ErrorCode::InvalidRequest, why));
        }
        Some(name) => (view.topic(name), ErrorCode::UnknownTopicOrPartition),
        None => (
            view.topic_by_id(topic_id(topic.topic_id)),
            ErrorCode::UnknownTopicId,
        ),
    };
    let unknown = || (code, "there is no such topic".to_owned());
    found.map(|found| &*found.view.topic).ok_or_else(unknown)
}

/// Answers CreatePartitions.
pub(crate) async fn create_partitions(
    context: &Context,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let validate_only = request.validate_only;
    let raised = request.topics.into_iter().map(|topic| {
        async move {
            let outcome = raise(context, &topic, validate_only).await;
            let (error_code, error_message) = verdict(outcome.err());
            CreatePartitionsTopicResult {
                name: topic.name,
                error_code,
                error_message,
            }
        }
        .boxed()
    });
    let results = each(raised.collect()).await;
    drop(context.views.refresh().await);
    CreatePartitionsResponse {
        results,
        ..CreatePartitionsResponse::default()
    }
}

async fn raise(
    context: &Context,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let total = u32::try_from(topic.count)
        .ok()
        .filter(|total| *total > 0)
        .ok_or_else(|| {
            (
                ErrorCode::InvalidPartitions,
                "the number of partitions must be positive".to_owned(),
            )
        })?;
    match context
        .control
        .create_partitions(&topic.name, total, validate_only)
        .await
    {
        Ok(Ok(())) => Ok(()),
        Ok(Err(refusal)) => Err(errors::of_topic(refusal)),
        Err(error) => Err((errors::of_call(&error), error.to_string())),
    }
}
