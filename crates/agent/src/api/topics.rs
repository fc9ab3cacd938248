//! CreateTopics, DeleteTopics, CreatePartitions. It must not know how topics are stored.

use std::sync::Arc;

use futures::FutureExt;
use meta::command::{Command, CreateTopic};
use meta::config::{self, Configs};
use meta::ids::TopicId;
use meta::topic::Topic;
use rpc::Position;
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

use super::origin::Origin;
use super::{configs, each, errors, repeated, topic_id, uuid, verdict};
use crate::context::Context;
use crate::view::{self, View};

/// Topics may be deleted by id from this version on.
const DELETE_BY_ID_SINCE: i16 = 6;
type Refusal = (ErrorCode, String);

pub(crate) async fn create_topics(
    context: &Context,
    origin: Origin<'_>,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let repeated = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let validate_only = request.validate_only;
    let outcomes = request.topics.into_iter().map(|topic| {
        let is_repeated = repeated.contains(&topic.name);
        async move {
            let outcome = if is_repeated {
                Err(named_again())
            } else {
                create(context, &topic, validate_only).await
            };
            (topic, outcome)
        }
        .boxed()
    });
    let results = each(outcomes.collect()).await;
    let made = results
        .iter()
        .filter_map(|(_, outcome)| outcome.as_ref().ok());
    refresh(context, made.filter_map(|made| made.at).max()).await;
    let view = context.views.latest();
    let topics = results.into_iter().map(|(topic, outcome)| match outcome {
        Ok(made) => created(topic, &made, &view, origin),
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

/// A client expects to see its change of topics at once. If this fails, a notice brings the change
/// soon.
async fn refresh(context: &Context, at: Option<Position>) {
    if let Some(at) = at {
        drop(context.views.refresh(at).await);
    }
}

/// A topic that was created, or would have been.
struct Made {
    id: TopicId,
    /// From where on it is there; `None` if it was only checked.
    at: Option<Position>,
    partitions: u32,
    configs: Configs,
    /// What was asked for; 0 if nothing.
    replication_factor: u16,
}

fn created(
    topic: CreatableTopic,
    made: &Made,
    view: &View,
    origin: Origin<'_>,
) -> CreatableTopicResult {
    let cluster = &view.cluster_configs;
    let wanted = view::replicas(view.level, cluster, &made.configs, made.replication_factor);
    let shown = view.routes.width(&origin.listener.name, wanted);
    let described =
        config::describe_topic(view.level, &view.cluster_configs, &made.configs).into_iter();
    let configs = described.map(|config| CreatableTopicConfigs {
        name: Str::from_static(config.setting.name),
        value: Some(Str::from(&config.value)),
        read_only: false,
        config_source: configs::source_code(config.source),
        is_sensitive: false,
    });
    CreatableTopicResult {
        topic_id: made.at.map(|_| uuid(made.id)).unwrap_or_default(),
        num_partitions: i32::try_from(made.partitions).unwrap_or(i32::MAX),
        replication_factor: i16::try_from(shown).unwrap_or(i16::MAX),
        configs: Some(configs.collect()),
        name: topic.name,
        ..CreatableTopicResult::default()
    }
}

fn named_again() -> Refusal {
    let why = "the topic is named more than once".to_owned();
    (ErrorCode::InvalidRequest, why)
}

async fn create(
    context: &Context,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<Made, Refusal> {
    let partitions = partition_count(context, topic)?;
    let replication_factor = replication_factor(topic)?;
    let mut configs = Configs::new();
    for config in &topic.configs {
        let Some(value) = &config.value else {
            let why = format!("the value of {} is null", config.name.as_str());
            return Err((ErrorCode::InvalidConfig, why));
        };
        configs.insert(config.name.to_string(), value.to_string());
    }
    let id = TopicId(host::rng::nonce());
    let create = Command::CreateTopic(CreateTopic {
        id,
        name: topic.name.to_string(),
        partitions,
        configs: configs.clone(),
        replication_factor,
    });
    Ok(Made {
        id,
        at: change(context, create, validate_only).await?,
        partitions,
        configs,
        replication_factor,
    })
}

/// The replication factor that a request asks for; 0 if it asks for none. Every factor from 1 on is accepted
/// (docs/routes.md): how often a record is stored is the bucket's affair, and programs ask for 3 wherever they run.
fn replication_factor(topic: &CreatableTopic) -> Result<u16, Refusal> {
    let assigned = topic.assignments.iter();
    let assigned = assigned.map(|partition| partition.broker_ids.len()).max();
    match (topic.replication_factor, assigned) {
        (-1, assigned) => Ok(u16::try_from(assigned.unwrap_or(0)).unwrap_or(u16::MAX)),
        (1.., _) => Ok(topic.replication_factor.cast_unsigned()),
        _ => {
            let why = "the replication factor must be at least 1, or -1 for the default".to_owned();
            Err((ErrorCode::InvalidReplicationFactor, why))
        }
    }
}

/// Makes a change, or only checks it; the position is from where on it is seen.
async fn change(
    context: &Context,
    command: Command,
    validate_only: bool,
) -> Result<Option<Position>, Refusal> {
    let changed = if validate_only {
        context.control.check(command).await.map(|()| None)
    } else {
        // Each of a long list has its own time: the client waits for all.
        let control = context.control.awaited_at(host::clock::now());
        control.change(command).await.map(Some)
    };
    changed.map_err(|error| (errors::of_call(&error), error.to_string()))
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
    let wanted = wanted.into_iter().map(|topic| {
        let found = to_delete(view, &topic);
        // A topic may be named by name and by id; of one that does not exist, only equal names
        // count as the same.
        let identity = match &found {
            Ok(found) => (None, found.id),
            Err(_) => (topic.name.clone(), topic_id(topic.topic_id)),
        };
        (identity, found, topic)
    });
    let wanted: Vec<_> = wanted.collect();
    let repeated = repeated(wanted.iter().map(|(identity, ..)| identity.clone()));
    let deleted = wanted.into_iter().map(|(identity, found, topic)| {
        let found = match repeated.contains(&identity) {
            true => Err(named_again()),
            false => found,
        };
        delete(context, found, topic).boxed()
    });
    let (responses, at): (Vec<_>, Vec<_>) = each(deleted.collect()).await.into_iter().unzip();
    refresh(context, at.into_iter().flatten().max()).await;
    DeleteTopicsResponse {
        responses,
        ..DeleteTopicsResponse::default()
    }
}

async fn delete(
    context: &Context,
    found: Result<&Topic, Refusal>,
    topic: DeleteTopicState,
) -> (DeletableTopicResult, Option<Position>) {
    let outcome = match &found {
        Ok(found) => change(context, Command::DeleteTopic { id: found.id }, false).await,
        Err(refusal) => Err(refusal.clone()),
    };
    let at = outcome.as_ref().ok().copied().flatten();
    let (error_code, error_message) = verdict(outcome.err());
    let found = found.ok();
    let result = DeletableTopicResult {
        name: found.map(|found| Str::from(&found.name)).or(topic.name),
        topic_id: found.map_or(topic.topic_id, |found| uuid(found.id)),
        error_code,
        error_message,
    };
    (result, at)
}

fn to_delete<'a>(
    view: Result<&'a View, &rpc::Error>,
    topic: &DeleteTopicState,
) -> Result<&'a Topic, Refusal> {
    let view = view.map_err(|error| (errors::of_call(error), error.to_string()))?;
    let (found, code) = match &topic.name {
        Some(_) if !topic.topic_id.is_zero() => {
            let why = "name a topic or its id, not both".to_owned();
            return Err((ErrorCode::InvalidRequest, why));
        }
        Some(name) => (view.topic(name), ErrorCode::UnknownTopicOrPartition),
        None if topic.topic_id.is_zero() => {
            let why = "name a topic, or its id".to_owned();
            return Err((ErrorCode::InvalidRequest, why));
        }
        None => (
            view.topic_by_id(topic_id(topic.topic_id)),
            ErrorCode::UnknownTopicId,
        ),
    };
    let unknown = || (code, "there is no such topic".to_owned());
    found.map(|found| &*found.topic).ok_or_else(unknown)
}

pub(crate) async fn create_partitions(
    context: &Context,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let validate_only = request.validate_only;
    let repeated = repeated(request.topics.iter().map(|topic| topic.name.clone()));
    let raised = request.topics.into_iter().map(|topic| {
        let is_repeated = repeated.contains(&topic.name);
        async move {
            let outcome = if is_repeated {
                Err(named_again())
            } else {
                raise(context, &topic, validate_only).await
            };
            let at = outcome.as_ref().ok().copied().flatten();
            let (error_code, error_message) = verdict(outcome.err());
            let result = CreatePartitionsTopicResult {
                name: topic.name,
                error_code,
                error_message,
            };
            (result, at)
        }
        .boxed()
    });
    let (results, at): (Vec<_>, Vec<_>) = each(raised.collect()).await.into_iter().unzip();
    refresh(context, at.into_iter().flatten().max()).await;
    CreatePartitionsResponse {
        results,
        ..CreatePartitionsResponse::default()
    }
}

/// Gives a topic more partitions. A refusal that rests on what was known of the topic is final only
/// if that is current.
async fn raise(
    context: &Context,
    topic: &CreatePartitionsTopic,
    validate_only: bool,
) -> Result<Option<Position>, Refusal> {
    let total = u32::try_from(topic.count)
        .ok()
        .filter(|total| *total > 0)
        .ok_or_else(|| {
            (
                ErrorCode::InvalidPartitions,
                "the number of partitions must be positive".to_owned(),
            )
        })?;
    let known = context.views.latest();
    let raised = raise_known(context, &known, topic, total, validate_only).await;
    use ErrorCode::{InvalidReplicaAssignment, UnknownTopicOrPartition};
    if !matches!(
        raised,
        Err((UnknownTopicOrPartition | InvalidReplicaAssignment, _))
    ) {
        return raised;
    }
    let current = context.views.refresh_current().await;
    let current = current.map_err(|error| (errors::of_call(&error), error.to_string()))?;
    raise_known(context, &current, topic, total, validate_only).await
}

/// Gives a topic of a view more partitions.
async fn raise_known(
    context: &Context,
    view: &View,
    topic: &CreatePartitionsTopic,
    total: u32,
    validate_only: bool,
) -> Result<Option<Position>, Refusal> {
    let found = view.topic(&topic.name).ok_or_else(|| {
        let why = format!("there is no topic '{}'", topic.name.as_str());
        (ErrorCode::UnknownTopicOrPartition, why)
    })?;
    check_assignments(&found.topic, topic, total)?;
    let id = found.topic.id;
    let command = Command::CreatePartitions { id, total };
    change(context, command, validate_only).await
}

/// As in CreateTopics, an assignment counts as one partition and its brokers are ignored.
fn check_assignments(
    found: &Topic,
    topic: &CreatePartitionsTopic,
    total: u32,
) -> Result<(), Refusal> {
    let Some(assignments) = &topic.assignments else {
        return Ok(());
    };
    let added = (total as usize).saturating_sub(found.partitions.len());
    if added == 0 || added == assignments.len() {
        return Ok(());
    }
    let why = format!(
        "{added} partitions are to be added, and {} are assigned",
        assignments.len()
    );
    Err((ErrorCode::InvalidReplicaAssignment, why))
}
