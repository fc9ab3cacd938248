//! Metadata and DescribeCluster: which agents and topics there are, and which agent to ask for a
//! partition. It must not know how a topic is stored.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::FutureExt;
use meta::command::{Command, CreateTopic};
use meta::config::Configs;
use meta::ids::TopicId;
use meta::refusal::TopicRefusal;
use meta::topic::check_name;
use rpc::{Error, Position};
use wire::errors::ErrorCode;
use wire::messages::describe_cluster::{
    DescribeClusterBroker, DescribeClusterRequest, DescribeClusterResponse,
};
use wire::messages::metadata::{
    MetadataRequest, MetadataRequestTopic, MetadataResponse, MetadataResponseBroker,
    MetadataResponsePartition, MetadataResponseTopic,
};
use wire::text::Str;

use super::origin::Origin;
use super::{each, errors, once, topic_id, uuid};
use crate::context::Context;
use crate::route::{Broker, Place};
use crate::view::{Topic, View};

/// In version 0 an empty list asks for all topics; later null does.
const NULL_IS_ALL_SINCE: i16 = 1;
/// From this version on a topic may be named by its id alone.
const IDS_SINCE: i16 = 12;
/// Partitions that are described before others have their turn: some milliseconds' worth.
const YIELD_AFTER: usize = 4_096;
/// `endpoint_type` of DescribeCluster for brokers, which is what agents are.
const BROKERS: i8 = 1;
/// `endpoint_type` for controllers.
const CONTROLLERS: i8 = 2;

pub(crate) async fn metadata(
    context: &Context,
    origin: Origin<'_>,
    request: MetadataRequest,
    version: i16,
) -> MetadataResponse {
    context.losses.settled(&context.views).await;
    let wanted = match request.topics {
        Some(topics) if topics.is_empty() && version < NULL_IS_ALL_SINCE => None,
        topics => topics,
    };
    let (view, topics) = match wanted {
        None => {
            let view = context.views.latest();
            let topics = Reader::new(origin, &view).describe_all().await;
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
            named(context, origin, &wanted, request.allow_auto_topic_creation).await
        }
    };
    MetadataResponse {
        brokers: shown(&view, origin),
        cluster_id: Some(Str::from(&view.cluster_id)),
        controller_id: controller(context, &view, origin),
        topics,
        ..MetadataResponse::default()
    }
}

/// The node id that clients are told as the controller's: any live agent serves those requests.
fn controller(context: &Context, view: &View, origin: Origin<'_>) -> i32 {
    let listener = &origin.listener.name;
    let mut brokers = view.routes.brokers(listener).iter();
    let first = brokers.find(|broker| view.routes.leads_to(listener, broker.id));
    first.map_or(context.agent.0, |agent| agent.id.0)
}

/// The agents that a client is told of.
fn brokers<'a>(view: &'a View, origin: Origin<'_>) -> &'a [Broker] {
    view.routes.brokers(&origin.listener.name)
}

/// The same as Metadata has them, and those that are gone and have no partitions any more.
fn shown(view: &View, origin: Origin<'_>) -> Vec<MetadataResponseBroker> {
    let departed = view.departed.agents(host::clock::now());
    let departed = departed.filter_map(|agent| Broker::at(&origin.listener.name, agent));
    let departed: Vec<Broker> = departed.collect();
    let all = brokers(view, origin).iter().chain(&departed);
    all.map(broker).collect()
}

fn broker(agent: &Broker) -> MetadataResponseBroker {
    MetadataResponseBroker {
        node_id: agent.id.0,
        host: Str::from(&agent.endpoint.host),
        port: i32::from(agent.endpoint.port),
        rack: agent.zone.as_ref().map(Str::from),
    }
}

/// A view as one client sees it.
struct Reader<'a> {
    view: &'a View,
    listener: &'a str,
    place: Option<Place>,
    /// Partitions since others had their turn.
    described: usize,
}

impl<'a> Reader<'a> {
    fn new(origin: Origin<'a>, view: &'a View) -> Self {
        Reader {
            view,
            listener: &origin.listener.name,
            place: origin.place(&view.routes),
            described: 0,
        }
    }

    async fn describe_all(&mut self) -> Vec<MetadataResponseTopic> {
        let mut described = Vec::new();
        for topic in self.view.topics() {
            described.push(self.describe(topic).await);
        }
        described
    }

    /// Those that a request names, but for those that failed.
    async fn describe_named(
        &mut self,
        wanted: &[MetadataRequestTopic],
        failures: &BTreeMap<usize, ErrorCode>,
    ) -> Vec<MetadataResponseTopic> {
        let mut described = Vec::with_capacity(wanted.len());
        for (at, topic) in wanted.iter().enumerate() {
            let code = match (find(self.view, topic), failures.get(&at)) {
                (Ok(found), _) => {
                    described.push(self.describe(found).await);
                    continue;
                }
                (Err(_), Some(code)) => *code,
                (Err(code), None) => code,
            };
            described.push(MetadataResponseTopic {
                error_code: code.code(),
                name: topic.name.clone(),
                topic_id: topic.topic_id,
                ..MetadataResponseTopic::default()
            });
        }
        described
    }

    /// Lets others have their turn after so many partitions, of one topic or of many.
    async fn describe(&mut self, topic: &Topic) -> MetadataResponseTopic {
        let count = topic.topic.partitions.len();
        let mut replicas = self.view.places(topic).replicas(self.listener, self.place);
        let mut partitions = Vec::with_capacity(count);
        for partition_index in (0_i32..).take(count) {
            if self.described >= YIELD_AFTER {
                self.described = 0;
                tokio::task::yield_now().await;
            }
            self.described += 1;
            let replicas = replicas.next();
            let error = match replicas {
                Some(_) => ErrorCode::None,
                None => ErrorCode::LeaderNotAvailable,
            };
            let ids = replicas.iter().flat_map(|replicas| replicas.iter());
            let ids: Vec<i32> = ids.map(|agent| agent.0).collect();
            partitions.push(MetadataResponsePartition {
                error_code: error.code(),
                partition_index,
                leader_id: replicas.map_or(-1, |replicas| replicas.leader().0),
                leader_epoch: meta::LEADER_EPOCH,
                isr_nodes: ids.clone(),
                replica_nodes: ids,
                offline_replicas: Vec::new(),
            });
        }
        MetadataResponseTopic {
            name: Some(Str::from(&topic.topic.name)),
            topic_id: uuid(topic.topic.id),
            partitions,
            ..MetadataResponseTopic::default()
        }
    }
}

/// True if a topic is named by name only, as before topics had ids.
fn is_named_alone(wanted: &MetadataRequestTopic) -> bool {
    wanted.name.is_some() && wanted.topic_id.is_zero()
}

/// The answer for a topic that the request may not name.
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

/// The topics that a request names; missing ones are created if that is allowed.
async fn named(
    context: &Context,
    origin: Origin<'_>,
    wanted: &[MetadataRequestTopic],
    may_create: bool,
) -> (Arc<View>, Vec<MetadataResponseTopic>) {
    let may_create = may_create && context.settings.auto_create_topics_enable;
    let mut view = context.views.latest();
    // No topic has such a name: the journal need not be asked.
    let mut failures: BTreeMap<usize, ErrorCode> = (0..)
        .zip(wanted)
        .filter(|(_, topic)| {
            topic
                .name
                .as_deref()
                .is_some_and(|name| check_name(view.level, name).is_err())
        })
        .map(|(at, _)| (at, ErrorCode::InvalidTopicException))
        .collect();
    let mut missing = missing_of(&view, wanted, &failures);
    if !missing.is_empty() {
        match context.views.refresh_current().await {
            Ok(current) => {
                view = current;
                missing = missing_of(&view, wanted, &failures);
            }
            // Whether the topics exist is not known: a client asks again after this code.
            Err(_) => {
                let unknown = missing.drain(..);
                failures.extend(unknown.map(|at| (at, ErrorCode::LeaderNotAvailable)));
            }
        }
    }
    if may_create {
        let create = |at: &usize| {
            let (at, name) = (*at, wanted[*at].name.as_deref()?);
            Some(async move { (at, create(context, name).await) }.boxed())
        };
        let outcomes = each(missing.iter().filter_map(create).collect()).await;
        let created = outcomes
            .iter()
            .filter_map(|(_, outcome)| outcome.as_ref().ok());
        if let Some(created) = created.max()
            && let Ok(seen) = context.views.refresh(*created).await
        {
            view = seen;
        }
        for (at, outcome) in outcomes {
            // Created a moment ago, it may be still to be seen.
            let code = outcome.err().unwrap_or(ErrorCode::LeaderNotAvailable);
            failures.insert(at, code);
        }
    }
    let topics = Reader::new(origin, &view)
        .describe_named(wanted, &failures)
        .await;
    (view, topics)
}

/// Those of which a view knows nothing.
fn missing_of(
    view: &View,
    wanted: &[MetadataRequestTopic],
    failures: &BTreeMap<usize, ErrorCode>,
) -> Vec<usize> {
    let is_missing = |at: &usize| !failures.contains_key(at) && find(view, &wanted[*at]).is_err();
    (0..wanted.len()).filter(is_missing).collect()
}

/// Creates a topic that a client asked for. Kafka answers an error the first time and the client
/// asks again; here the topic is there at once, from the position given on.
async fn create(context: &Context, name: &str) -> Result<Position, ErrorCode> {
    let create = Command::CreateTopic(CreateTopic {
        id: TopicId(host::rng::nonce()),
        name: name.to_owned(),
        partitions: context.settings.num_partitions,
        configs: Configs::new(),
        replication_factor: 0,
    });
    match context.control.change(create).await {
        Ok(at) => Ok(at),
        // Somebody else just did.
        Err(Error::Topic(TopicRefusal::Exists { .. })) => Ok(Position::default()),
        Err(error @ Error::Topic(_)) => Err(errors::of_call(&error)),
        Err(_) => Err(ErrorCode::LeaderNotAvailable),
    }
}

pub(crate) async fn describe_cluster(
    context: &Context,
    origin: Origin<'_>,
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
    let brokers = brokers(&view, origin).iter();
    let brokers = brokers.map(|agent| DescribeClusterBroker {
        broker_id: agent.id.0,
        host: Str::from(&agent.endpoint.host),
        port: i32::from(agent.endpoint.port),
        rack: agent.zone.as_ref().map(Str::from),
        is_fenced: false,
    });
    DescribeClusterResponse {
        endpoint_type: BROKERS,
        cluster_id: Str::from(&view.cluster_id),
        controller_id: controller(context, &view, origin),
        brokers: brokers.collect(),
        ..DescribeClusterResponse::default()
    }
}
