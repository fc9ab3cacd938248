//! Metadata and DescribeCluster: which agents and topics there are, and which agent to ask for a
//! partition. It must not know how a topic is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use rpc::control::{TopicRefusal, TopicSpec};
use rpc::view::AgentView;
use wire::errors::ErrorCode;
use wire::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use wire::text::Str;

use super::{each, errors, once, topic_id, uuid};
use crate::context::Context;
use crate::route;
use crate::view::{Topic, View};

/// In version 0 an empty list asks for all topics; later null does.
const NULL_IS_ALL_SINCE: i16 = 1;
/// Topics may be asked for by id alone from this version on.
const IDS_SINCE: i16 = 12;
/// The endpoints of DescribeCluster that an agent is.
const BROKERS: i8 = 1;
/// Those of a controller.
const CONTROLLERS: i8 = 2;

pub(crate) async fn metadata(
    context: &Context,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    let wanted = match request.topics {
        Some(topics) if topics.is_empty() && version < NULL_IS_ALL_SINCE => None,
        topics => topics,
    };
    let (view, topics) = match wanted {
        None => {
            let view = context.views.latest();
            let topics = view
                .topics
                .iter()
                .map(|topic| describe(topic, &view))
                .collect();
            (view, topics)
        }
        Some(wanted) if version < IDS_SINCE && !wanted.iter().all(is_named_alone) => (
            context.views.latest(),
            wanted.into_iter().map(refuse).collect(),
        ),
        Some(mut wanted) => {
            // An id decides, as in Kafka, whatever name is beside it: Java's client sends an empty one.
            for topic in &mut wanted {
                topic.name.take_if(|_| !topic.topic_id.is_zero());
            }
            let wanted = once(wanted, |topic| (topic.name.clone(), topic.topic_id));
            named(context, &wanted, request.allow_auto_topic_creation).await
        }
    };
    MetadataResponse {
        brokers: view.agents.iter().map(broker).collect(),
        cluster_id: Some(Str::from(&view.cluster_id)),
        controller_id: controller(context, &view),
        topics,
        ..MetadataResponse::default()
    }
}

/// Any live agent serves what clients ask of a controller.
fn controller(context: &Context, view: &View) -> i32 {
    view.agents
        .first()
        .map_or(context.agent.0, |agent| agent.id.0)
}

fn broker(agent: &AgentView) -> MetadataResponseBroker {
    MetadataResponseBroker {
        node_id: agent.id.0,
        host: Str::from(&agent.host),
        port: i32::from(agent.port),
        rack: Some(Str::from(&agent.zone)),
    }
}

fn describe(topic: &Topic, view: &View) -> MetadataResponseTopic {
    let partitions = (0_i32..)
        .zip(&topic.view.topic.partitions)
        .map(|(index, partition)| {
            let leader = route::agent_for(*partition, &view.agents).map_or(-1, |agent| agent.id.0);
            let error = if leader < 0 {
                ErrorCode::LeaderNotAvailable
            } else {
                ErrorCode::None
            };
            MetadataResponsePartition {
                error_code: error.code(),
                partition_index: index,
                leader_id: leader,
                leader_epoch: meta::LEADER_EPOCH,
                // Every copy is as good as every other, and none is on an agent: the leader stands for
                // all of them.
                replica_nodes: vec![leader],
                isr_nodes: vec![leader],
                offline_replicas: Vec::new(),
            }
        });
    MetadataResponseTopic {
        name: Some(Str::from(&topic.view.topic.name)),
        topic_id: uuid(topic.view.topic.id),
        partitions: partitions.collect(),
        ..MetadataResponseTopic::default()
    }
}

/// True if a topic is asked for as it was before there were ids.
fn is_named_alone(wanted: &MetadataRequestTopic) -> bool {
    wanted.name.is_some() && wanted.topic_id.is_zero()
}

/// What is said of each topic of a request that may not be.
fn refuse(wanted: MetadataRequestTopic) -> MetadataResponseTopic {
    MetadataResponseTopic {
        error_code: ErrorCode::InvalidRequest.code(),
        name: wanted.name.or(Some(Str::EMPTY)),
        topic_id: wanted.topic_id,
        ..MetadataResponseTopic::default()
    }
}

fn find<'a>(view: &'a View, wanted: &MetadataRequestTopic) -> Result<&'a Arc<Topic>, ErrorCode> {
    match &wanted.name {
        Some(name) => view.topic(name).ok_or(ErrorCode::UnknownTopicOrPartition),
        None if wanted.topic_id.is_zero() => Err(ErrorCode::InvalidRequest),
        None => view
            .topic_by_id(topic_id(wanted.topic_id))
            .ok_or(ErrorCode::UnknownTopicId),
    }
}

/// The topics of a list, created if they are not there and may be.
async fn named(
    context: &Context,
    wanted: &[MetadataRequestTopic],
    may_create: bool,
) -> (Arc<View>, Vec<MetadataResponseTopic>) {
    let mut view = context.views.latest();
    let mut failures: BTreeMap<usize, ErrorCode> = BTreeMap::new();
    let is_missing = |view: &View, topic: &MetadataRequestTopic| find(view, topic).is_err();
    if wanted.iter().any(|topic| is_missing(&view, topic)) {
        match context.views.refresh_current().await {
            Ok(current) => view = current,
            // It is not known whether they exist: clients ask again on this one.
            Err(_) => {
                let missing = wanted
                    .iter()
                    .enumerate()
                    .filter(|(_, t)| is_missing(&view, t));
                failures.extend(missing.map(|(at, _)| (at, ErrorCode::LeaderNotAvailable)));
            }
        }
    }
    let missing = wanted.iter().enumerate().filter_map(|(at, topic)| {
        let name = topic.name.as_deref()?;
        let is_missing = view.topic(name).is_none() && !failures.contains_key(&at);
        is_missing.then_some((at, name))
    });
    let outcomes = missing
        .map(|(at, name)| async move { (at, create(context, name, may_create).await) }.boxed());
    let outcomes = each(outcomes.collect()).await;
    let created = outcomes.iter().any(|(_, outcome)| outcome.is_ok());
    failures.extend(
        outcomes
            .into_iter()
            .filter_map(|(at, outcome)| Some((at, outcome.err()?))),
    );
    if created && let Ok(current) = context.views.refresh().await {
        view = current;
    }
    let topics = wanted.iter().enumerate().map(|(at, topic)| {
        let code = match (find(&view, topic), failures.get(&at)) {
            (Ok(found), _) => return describe(found, &view),
            (Err(_), Some(code)) => *code,
            // Created a moment ago and not yet to be seen.
            (Err(ErrorCode::UnknownTopicOrPartition), None) => ErrorCode::LeaderNotAvailable,
            (Err(code), None) => code,
        };
        MetadataResponseTopic {
            error_code: code.code(),
            name: topic.name.clone(),
            topic_id: topic.topic_id,
            ..MetadataResponseTopic::default()
        }
    });
    let topics = topics.collect();
    (view, topics)
}

/// Creates a topic that a client asked for, if that is allowed. Kafka answers an error the first
/// time and the client asks again; here the topic is there at once.
async fn create(context: &Context, name: &str, may_create: bool) -> Result<(), ErrorCode> {
    let settings = &context.settings;
    let validate_only = !(may_create && settings.auto_create_topics_enable);
    let spec = TopicSpec {
        name: name.to_owned(),
        partitions: settings.num_partitions,
        configs: BTreeMap::new(),
    };
    match context.control.create_topic(spec, validate_only).await {
        Ok(Err(TopicRefusal::Exists(_))) => Ok(()),
        Ok(Ok(_)) if validate_only => Err(ErrorCode::UnknownTopicOrPartition),
        Ok(Ok(_)) => Ok(()),
        Ok(Err(TopicRefusal::InvalidName(_))) => Err(ErrorCode::InvalidTopicException),
        Ok(Err(refusal)) if !validate_only => Err(errors::of_topic(refusal).0),
        Ok(Err(_)) => Err(ErrorCode::UnknownTopicOrPartition),
        Err(_) => Err(ErrorCode::LeaderNotAvailable),
    }
}

pub(crate) async fn describe_cluster(
    context: &Context,
    request: &DescribeClusterRequest,
) -> DescribeClusterResponse {
    let view = context.views.latest();
    let error = match request.endpoint_type {
        0 | BROKERS => ErrorCode::None,
        CONTROLLERS => ErrorCode::MismatchedEndpointType,
        _ => ErrorCode::UnsupportedEndpointType,
    };
    if error.is_error() {
        return DescribeClusterResponse {
            error_code: error.code(),
            error_message: Some(Str::from_static("this endpoint is a broker's")),
            endpoint_type: BROKERS,
            ..DescribeClusterResponse::default()
        };
    }
    let brokers = view.agents.iter().map(|agent| DescribeClusterBroker {
        broker_id: agent.id.0,
        host: Str::from(&agent.host),
        port: i32::from(agent.port),
        rack: Some(Str::from(&agent.zone)),
        is_fenced: false,
    });
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: Str::from(&view.cluster_id),
        controller_id: controller(context, &view),
        brokers: brokers.collect(),
        ..DescribeClusterResponse::default()
    }
}
