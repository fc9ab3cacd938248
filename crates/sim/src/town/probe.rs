//! What the scenario itself asks as a client: that the topics be there, and whether there is service. It
//! must not know who leads.

use std::sync::Arc;
use std::time::Duration;

use host::clock;
use wire::errors::ErrorCode;
use wire::messages::create_topics::{CreatableTopic, CreatableTopicConfig, CreateTopicsRequest};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};

use crate::history::{Act, Kind, Micro, Shape};
use crate::{payload, recorder};

use super::client::{Broken, Client, Positions};
use super::consumer;
use super::{Town, key_parts};

/// Where records are written.
const PROBED: &str = "t/0";
/// How long one attempt may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Has the topics created, however long that takes.
pub(super) async fn create_topics(town: &Arc<Town>) {
    let kept = ("retention.ms", "-1");
    let topic = |name: &'static str, num_partitions, configs: &[(&'static str, &'static str)]| {
        let config = |(name, value): &(&'static str, &'static str)| CreatableTopicConfig {
            name: (*name).into(),
            value: Some((*value).into()),
        };
        CreatableTopic {
            name: name.into(),
            num_partitions,
            replication_factor: -1,
            configs: configs.iter().map(config).collect(),
            ..CreatableTopic::default()
        }
    };
    let request = CreateTopicsRequest {
        topics: vec![
            topic("t", 2, &[kept]),
            topic("short", 1, &[kept, ("retention.bytes", "2000")]),
        ],
        timeout_ms: 10_000,
        ..CreateTopicsRequest::default()
    };
    let mut client = Client::new(town.servers.clone());
    loop {
        if let Ok(response) = client.call(&request, 5, Duration::from_secs(10)).await {
            let exists = |code| code == 0 || code == ErrorCode::TopicAlreadyExists.code();
            if response.topics.iter().all(|topic| exists(topic.error_code)) {
                return;
            }
            client.elsewhere().await;
        }
    }
}

/// Waits until some process takes a record and gives it back.
pub(super) async fn serves(town: &Arc<Town>) {
    let mut client = Client::new(town.servers.clone());
    let mut attempt = 0;
    while try_service(town, &mut client, attempt).await.is_err() {
        attempt += 1;
    }
}

async fn try_service(town: &Arc<Town>, client: &mut Client, attempt: u32) -> Result<(), Broken> {
    let process = format!("s{attempt}");
    let offset = produce(town, client, &process, PATIENCE).await?;
    let mut positions = Positions::from([(PROBED, offset)]);
    let fetched = consumer::fetch(town, client, &mut positions).await?;
    (!fetched.records.is_empty()).then_some(()).ok_or(Broken)
}

/// Has one record written, as `process` of the history; yields its offset.
pub(super) async fn produce(
    town: &Arc<Town>,
    client: &mut Client,
    process: &str,
    patience: Duration,
) -> Result<i64, Broken> {
    let value = town.value();
    let body = format!("{value}:").into_bytes();
    let hash = payload::hash(&body);
    let act = recorder::sending(PROBED, value, hash.clone(), None);
    let op = town.record(|now_us, history| history.begin(now_us, process, act));
    let (topic, index) = key_parts(PROBED);
    let request = ProduceRequest {
        acks: -1,
        timeout_ms: i32::try_from(patience.as_millis()).unwrap_or(i32::MAX),
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData {
                index,
                records: Some(payload::batch(&[body], clock::wall_millis() as i64, None)),
            }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    };
    let answer = client.call(&request, 9, patience).await;
    let parts = answer.iter().flat_map(|answer| &answer.responses);
    let part = parts.flat_map(|topic| &topic.partition_responses).next();
    let offset = part
        .filter(|part| part.error_code == 0)
        .map(|part| part.base_offset);
    let (kind, act) = match offset {
        Some(offset) => (
            Kind::Ok,
            recorder::sending(PROBED, value, hash, Some(offset)),
        ),
        None => (Kind::Info, Act::Micro(Shape::Send, Vec::<Micro>::new())),
    };
    town.record(|now_us, history| history.end(now_us, process, op, kind, act));
    if offset.is_none() && answer.is_ok() {
        client.elsewhere().await;
    }
    offset.ok_or(Broken)
}
