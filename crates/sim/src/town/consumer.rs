//! Consumers of the town that assign partitions themselves: those that read along, the final ones that
//! read everything. They must not know how servers work.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::clock;
use host::seeded::{self, Place};
use wire::batch::batches;
use wire::errors::ErrorCode;
use wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchTopic, ForgottenTopic, PartitionData,
};
use wire::messages::list_offsets::{ListOffsetsPartition, ListOffsetsRequest, ListOffsetsTopic};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::text::Str;

use crate::history::{Act, Assign, Bounds, From, Kind};
use crate::payload::{self, Polled};
use crate::recorder;

use super::client::{Broken, Client, Positions, Session};
use super::{KEYS, Town, key_parts};

const FETCH_VERSION: i16 = 12;
const LIST_VERSION: i16 = 6;
const COMMIT_VERSION: i16 = 7;
/// A request without an answer is asked elsewhere.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long a fetch may wait for records.
const MAX_WAIT_MS: i32 = 200;
/// Timestamps that ask for the first offset and for the end.
pub(super) const EARLIEST: i64 = -2;
pub(super) const LATEST: i64 = -1;

/// What a fetch brought.
pub(super) struct Fetched {
    pub(super) records: Polled,
    /// Keys whose position is gone.
    pub(super) reset: Vec<&'static str>,
}

/// Commits an offset of a group that has no members, for one partition.
pub(super) async fn commit(
    client: &mut Client,
    group: Str,
    offset: i64,
    patience: Duration,
) -> Result<(), Broken> {
    let (topic, partition_index) = key_parts(KEYS[1]);
    let request = OffsetCommitRequest {
        group_id: group,
        generation_id_or_member_epoch: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: topic.into(),
            partitions: vec![OffsetCommitRequestPartition {
                partition_index,
                committed_offset: offset,
                committed_leader_epoch: -1,
                ..OffsetCommitRequestPartition::default()
            }],
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    };
    let answer = client.call(&request, COMMIT_VERSION, patience).await?;
    let partitions = answer.topics.iter().flat_map(|topic| &topic.partitions);
    let mut codes = partitions.map(|partition| partition.error_code);
    codes.all(|code| code == 0).then_some(()).ok_or(Broken)
}

/// Fetches once from these positions, and moves them.
pub(super) async fn fetch(
    town: &Town,
    client: &mut Client,
    positions: &mut Positions,
) -> Result<Fetched, Broken> {
    let request = request(client.session.as_ref(), positions);
    let response = client.call(&request, FETCH_VERSION, PATIENCE).await?;
    let mut failed = response.error_code != 0;
    if let Some(session) = &mut client.session {
        // Without an id the server keeps none, and is told everything again.
        *session = match response.session_id {
            id if id == 0 || failed => Session::default(),
            id => Session {
                id,
                epoch: session.epoch + 1,
                named: positions.clone(),
            },
        };
    }
    let mut fetched = Fetched {
        records: Polled::new(),
        reset: Vec::new(),
    };
    for topic in response.responses {
        for partition in topic.partitions {
            let key = named(topic.topic.as_str(), partition.partition_index);
            let Some((key, position)) = key.and_then(|key| Some((key, positions.get_mut(key)?)))
            else {
                continue;
            };
            match ErrorCode::from_code(partition.error_code) {
                Some(ErrorCode::None) => {
                    let (records, next) = payload::read(&whole(town, key, partition), *position);
                    *position = next;
                    if !records.is_empty() {
                        fetched.records.insert(key.to_owned(), records);
                    }
                }
                // auto.offset.reset = earliest: offsets are listed next.
                Some(ErrorCode::OffsetOutOfRange) => fetched.reset.push(key),
                _ => failed = true,
            }
        }
    }
    if failed {
        client.elsewhere().await;
    }
    Ok(fetched)
}

/// A fetch from these positions; in a session it names what has changed.
fn request(session: Option<&Session>, positions: &Positions) -> FetchRequest {
    let known = session.filter(|session| session.epoch > 0);
    let known = known.map_or_else(Positions::new, |session| session.named.clone());
    let changed = positions
        .iter()
        .filter(|(key, at)| known.get(*key) != Some(*at));
    let gone = known.keys().filter(|key| !positions.contains_key(*key));
    FetchRequest {
        max_wait_ms: MAX_WAIT_MS,
        min_bytes: 1,
        max_bytes: 1 << 20,
        session_id: session.map_or(0, |session| session.id),
        session_epoch: session.map_or(-1, |session| session.epoch),
        topics: by_topic(changed.map(|(key, offset)| (*key, *offset)))
            .into_iter()
            .map(|(topic, partitions)| FetchTopic {
                topic: topic.into(),
                partitions: partitions
                    .into_iter()
                    .map(|(partition, fetch_offset)| FetchPartition {
                        partition,
                        fetch_offset,
                        partition_max_bytes: 20_000,
                        ..FetchPartition::default()
                    })
                    .collect(),
                ..FetchTopic::default()
            })
            .collect(),
        forgotten_topics_data: by_topic(gone.map(|key| (*key, ())))
            .into_iter()
            .map(|(topic, partitions)| ForgottenTopic {
                topic: topic.into(),
                partitions: partitions.into_iter().map(|(index, ())| index).collect(),
                ..ForgottenTopic::default()
            })
            .collect(),
        ..FetchRequest::default()
    }
}

/// The batches of a partition, with checksums compared as clients do.
fn whole(town: &Town, key: &str, partition: PartitionData) -> Vec<(i64, Bytes)> {
    let bytes = partition.records.map(|rope| rope.to_bytes());
    let mut whole = Vec::new();
    for batch in batches(bytes.unwrap_or_default()) {
        match batch {
            Ok(batch) if batch.check_crc().is_ok() => {
                whole.push((batch.base_offset(), batch.into_bytes()));
            }
            _ => {
                town.violation(format!("a client got a damaged batch of {key}"));
                break;
            }
        }
    }
    whole
}

/// The first offsets, or the ends, of all keys, as current as the server promises.
pub(super) async fn list(client: &mut Client, timestamp: i64) -> Result<Positions, Broken> {
    let request = ListOffsetsRequest {
        replica_id: -1,
        topics: by_topic(KEYS.into_iter().map(|key| (key, timestamp)))
            .into_iter()
            .map(|(name, partitions)| ListOffsetsTopic {
                name: name.into(),
                partitions: partitions
                    .into_iter()
                    .map(|(partition_index, timestamp)| ListOffsetsPartition {
                        partition_index,
                        timestamp,
                        ..ListOffsetsPartition::default()
                    })
                    .collect(),
            })
            .collect(),
        ..ListOffsetsRequest::default()
    };
    let response = client.call(&request, LIST_VERSION, PATIENCE).await?;
    let mut found = Positions::new();
    for topic in response.topics {
        for partition in topic.partitions {
            if let Some(key) = named(topic.name.as_str(), partition.partition_index)
                && partition.error_code == 0
            {
                found.insert(key, partition.offset);
            }
        }
    }
    if found.len() < KEYS.len() {
        client.elsewhere().await;
        return Err(Broken);
    }
    Ok(found)
}

fn named(topic: &str, partition: i32) -> Option<&'static str> {
    KEYS.into_iter()
        .find(|key| key_parts(key) == (topic, partition))
}

/// Values by topic and partition.
fn by_topic<T>(
    values: impl Iterator<Item = (&'static str, T)>,
) -> BTreeMap<&'static str, Vec<(i32, T)>> {
    let mut topics: BTreeMap<&'static str, Vec<(i32, T)>> = BTreeMap::new();
    for (key, value) in values {
        let (topic, partition) = key_parts(key);
        topics.entry(topic).or_default().push((partition, value));
    }
    topics
}

/// Lists offsets as an operation of the history.
pub(super) async fn list_recorded(
    town: &Town,
    client: &mut Client,
    process: &str,
    timestamp: i64,
) -> Option<Positions> {
    let invoke = Act::Debug(BTreeMap::new());
    let op = town.record(|now_us, history| history.begin(now_us, process, invoke));
    let listed = list(client, timestamp).await;
    let bounds = |offset: i64| match timestamp {
        EARLIEST => Bounds {
            log_start: u64::try_from(offset).ok(),
            ..Bounds::default()
        },
        _ => Bounds {
            hw: u64::try_from(offset).ok(),
            ..Bounds::default()
        },
    };
    let told = listed.iter().flatten();
    let told = told.map(|(key, offset)| ((*key).to_owned(), bounds(*offset)));
    let act = Act::Debug(told.collect());
    let kind = if listed.is_ok() { Kind::Ok } else { Kind::Info };
    town.record(|now_us, history| history.end(now_us, process, op, kind, act));
    listed.ok()
}

/// Moves the positions that are gone to the start of what is there.
pub(super) async fn reset(
    town: &Town,
    client: &mut Client,
    process: &str,
    positions: &mut Positions,
    gone: &mut Vec<&'static str>,
) {
    let Some(starts) = list_recorded(town, client, process, EARLIEST).await else {
        return;
    };
    for key in gone.drain(..) {
        if let (Some(position), Some(start)) = (positions.get_mut(key), starts.get(key)) {
            *position = *start;
        }
    }
}

/// Polls once as an operation of the history; true if there were records.
pub(super) async fn poll(
    town: &Town,
    client: &mut Client,
    process: &str,
    positions: &mut Positions,
    gone: &mut Vec<&'static str>,
) -> bool {
    let invoke = recorder::polling(Polled::new());
    let op = town.record(|now_us, history| history.begin(now_us, process, invoke));
    let fetched = fetch(town, client, positions).await.ok();
    let (records, reset) = fetched.map_or_else(Default::default, |f| (f.records, f.reset));
    gone.extend(reset);
    let any = !records.is_empty();
    let act = recorder::polling(records);
    town.record(|now_us, history| history.end(now_us, process, op, Kind::Ok, act));
    any
}

/// Assigns keys from their beginning.
fn assign(town: &Town, process: &str, keys: &[&'static str]) -> Positions {
    let assign = Assign {
        keys: keys.iter().map(|key| (*key).to_owned()).collect(),
        kept: Vec::new(),
        from: Some(From::Beginning),
    };
    let (invoke, ok) = (Act::Assign(Some(assign)), Act::Assign(None));
    town.record(|now_us, history| history.at_once(now_us, process, invoke, ok));
    keys.iter().map(|key| (*key, 0)).collect()
}

/// Reads along for ever, from any server, beginning anew now and then.
pub(super) async fn read_along(town: Arc<Town>, place: Place) {
    let mut client = Client::new(town.servers.clone());
    let pause = seeded::draw(|rng| Duration::from_micros(5_000 + rng.below(100_000)));
    for run in 0.. {
        let process = format!("c{}.{run}", place.0);
        let mut positions = assign(&town, &process, &KEYS);
        let mut gone = Vec::new();
        while !seeded::draw(|rng| rng.once_in(100)) {
            if gone.is_empty() {
                poll(&town, &mut client, &process, &mut positions, &mut gone).await;
            } else {
                reset(&town, &mut client, &process, &mut positions, &mut gone).await;
            }
            clock::sleep(pause).await;
        }
        // Another client goes on, perhaps elsewhere.
        client = Client::new(town.servers.clone());
    }
}

/// Reads everything up to where one of the servers says the end is, at any of them.
pub(super) async fn read_all(town: &Town, place: Place) -> Positions {
    let process = format!("f{}", place.0);
    let mut client = Client::new(town.servers.clone());
    loop {
        if let Some(ends) = list_recorded(town, &mut client, &process, LATEST).await {
            read_to(town, place, &mut client, &ends).await;
            return ends;
        }
    }
}

/// Reads keys from their beginning up to these ends.
pub(super) async fn read_to(town: &Town, place: Place, client: &mut Client, ends: &Positions) {
    let process = format!("f{}", place.0);
    let keys: Vec<&'static str> = ends.keys().copied().collect();
    let mut positions = assign(town, &process, &keys);
    let invoke = Act::FinalBegin(keys.iter().map(|key| (*key).to_owned()).collect());
    let op = town.record(|now_us, history| history.begin(now_us, &process, invoke));
    let mut gone = Vec::new();
    while ends.iter().any(|(key, end)| positions[key] < *end) {
        if gone.is_empty() {
            poll(town, client, &process, &mut positions, &mut gone).await;
        } else {
            reset(town, client, &process, &mut positions, &mut gone).await;
        }
    }
    let act = Act::FinalEnd {
        unreached: Some(Vec::new()),
    };
    town.record(|now_us, history| history.end(now_us, &process, op, Kind::Ok, act));
}
