//! A member of a consumer group of the town: joins, syncs, reads from the committed offsets, commits,
//! sends heartbeats. It speaks the classic protocol as clients do, and must not know how the coordinator
//! works.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use host::clock;
use host::seeded::{self, Place};
use wire::errors::ErrorCode;
use wire::messages::heartbeat::HeartbeatRequest;
use wire::messages::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use wire::messages::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use wire::messages::offset_fetch::OffsetFetchRequest;
use wire::messages::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment};
use wire::text::Str;

use crate::history::{Act, Client as Known, Consumer as Reader, GroupOffsets, Kind};

use super::client::{Client, Positions};
use super::consumer;
use super::{KEYS, Town, key_parts};

/// The group of all members.
const GROUP: Str = Str::from_static("g");
/// A request without an answer is asked elsewhere.
const PATIENCE: Duration = Duration::from_secs(4);
/// A join may wait for the others.
const JOIN_PATIENCE: Duration = Duration::from_secs(20);
const HEARTBEAT: Duration = Duration::from_millis(300);
const SESSION_MILLIS: i32 = 2_000;
const REBALANCE_MILLIS: i32 = 4_000;

/// Why a member is not one any more.
enum Out {
    /// It joins again under its name.
    Again,
    /// It is forgotten, or dies.
    Forgotten,
}

struct Member {
    town: Arc<Town>,
    client: Client,
    process: String,
    member_id: Str,
    generation: i32,
    positions: Positions,
    gone: Vec<&'static str>,
    dirty: bool,
}

/// Is a member for ever; dies without a word now and then, and another one begins.
pub(super) async fn run(town: Arc<Town>, place: Place) {
    let pause = seeded::draw(|rng| Duration::from_micros(10_000 + rng.below(150_000)));
    for run in 0.. {
        let mut member = Member {
            client: Client::new(town.servers.clone()),
            town: Arc::clone(&town),
            process: format!("g{}.{run}", place.0),
            member_id: Str::default(),
            generation: -1,
            positions: Positions::new(),
            gone: Vec::new(),
            dirty: false,
        };
        member.open();
        member.live(pause).await;
    }
}

impl Member {
    fn open(&self) {
        let known = Known {
            producer: None,
            consumer: Some(Reader {
                group: Some(GROUP.as_str().to_owned()),
                isolation: None,
            }),
        };
        let (invoke, ok) = (Act::Open(Known::default()), Act::Open(known));
        self.town.record(|now_us, history| {
            history.at_once(now_us, &self.process, invoke, ok);
            history.at_once(now_us, &self.process, Act::Subscribe, Act::Subscribe);
        });
    }

    /// Joins and reads until it dies.
    async fn live(&mut self, pause: Duration) {
        while !seeded::draw(|rng| rng.once_in(8)) {
            let ended = match self.join().await {
                Ok(joined) => self.read(&joined, pause).await,
                Err(out) => out,
            };
            if matches!(ended, Out::Forgotten) {
                self.member_id = Str::default();
            }
            clock::sleep(pause).await;
        }
    }

    async fn join(&mut self) -> Result<JoinGroupResponse, Out> {
        let request = JoinGroupRequest {
            group_id: GROUP,
            session_timeout_ms: SESSION_MILLIS,
            rebalance_timeout_ms: REBALANCE_MILLIS,
            member_id: self.member_id.clone(),
            protocol_type: Str::from_static("consumer"),
            protocols: vec![JoinGroupRequestProtocol {
                name: Str::from_static("range"),
                metadata: Bytes::new(),
            }],
            ..JoinGroupRequest::default()
        };
        let joined = self.client.call(&request, 5, JOIN_PATIENCE).await;
        let joined = joined.map_err(|_| Out::Again)?;
        if joined.error_code == ErrorCode::MemberIdRequired.code() {
            self.member_id = joined.member_id;
            return Err(Out::Again);
        }
        self.check(joined.error_code).await?;
        self.member_id = joined.member_id.clone();
        self.generation = joined.generation_id;
        Ok(joined)
    }

    /// What an error of the coordinator makes a member do.
    async fn check(&mut self, code: i16) -> Result<(), Out> {
        match ErrorCode::from_code(code) {
            Some(ErrorCode::None) => Ok(()),
            Some(ErrorCode::UnknownMemberId | ErrorCode::FencedInstanceId) => Err(Out::Forgotten),
            Some(ErrorCode::IllegalGeneration | ErrorCode::RebalanceInProgress) => Err(Out::Again),
            _ => {
                self.client.elsewhere().await;
                Err(Out::Again)
            }
        }
    }

    /// The leader of the group deals the keys out one by one.
    async fn sync(&mut self, joined: &JoinGroupResponse) -> Result<Vec<&'static str>, Out> {
        let members = &joined.members;
        let dealt = members.iter().enumerate().map(|(at, member)| {
            let own: Vec<&str> = KEYS.into_iter().skip(at).step_by(members.len()).collect();
            SyncGroupRequestAssignment {
                member_id: member.member_id.clone(),
                assignment: Bytes::from(own.join(",")),
            }
        });
        let request = SyncGroupRequest {
            group_id: GROUP,
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            assignments: dealt.collect(),
            ..SyncGroupRequest::default()
        };
        let synced = self.client.call(&request, 3, JOIN_PATIENCE).await;
        let synced = synced.map_err(|_| Out::Again)?;
        self.check(synced.error_code).await?;
        let keys = String::from_utf8_lossy(&synced.assignment).into_owned();
        Ok(KEYS
            .into_iter()
            .filter(|key| keys.split(',').any(|own| own == *key))
            .collect())
    }

    /// Reads what it is assigned until it is one no more.
    async fn read(&mut self, joined: &JoinGroupResponse, pause: Duration) -> Out {
        match self.try_read(joined, pause).await {
            Ok(never) => match never {},
            Err(out) => {
                self.positions.clear();
                self.gone.clear();
                self.dirty = false;
                out
            }
        }
    }

    async fn try_read(
        &mut self,
        joined: &JoinGroupResponse,
        pause: Duration,
    ) -> Result<std::convert::Infallible, Out> {
        let keys = self.sync(joined).await?;
        while self.fetch_offsets(&keys).await.is_none() {
            clock::sleep(pause).await;
        }
        let mut beat_at = clock::now() + HEARTBEAT;
        loop {
            if clock::now() >= beat_at {
                beat_at = clock::now() + HEARTBEAT;
                self.heartbeat().await?;
            } else if !self.gone.is_empty() {
                let Member {
                    town,
                    client,
                    process,
                    positions,
                    gone,
                    ..
                } = self;
                consumer::reset(town, client, process, positions, gone).await;
            } else if self.dirty && seeded::draw(|rng| rng.once_in(3)) {
                self.commit().await?;
            } else if !self.positions.is_empty() {
                let Member {
                    town,
                    client,
                    process,
                    positions,
                    gone,
                    ..
                } = self;
                self.dirty |= consumer::poll(town, client, process, positions, gone).await;
            }
            if seeded::draw(|rng| rng.once_in(300)) {
                return Err(Out::Forgotten);
            }
            clock::sleep(pause).await;
        }
    }

    async fn heartbeat(&mut self) -> Result<(), Out> {
        let request = HeartbeatRequest {
            group_id: GROUP,
            generation_id: self.generation,
            member_id: self.member_id.clone(),
            ..HeartbeatRequest::default()
        };
        match self.client.call(&request, 3, PATIENCE).await {
            Ok(response) => match ErrorCode::from_code(response.error_code) {
                Some(ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable) => {
                    self.client.elsewhere().await;
                    Ok(())
                }
                _ => self.check(response.error_code).await,
            },
            // The next one may get through.
            Err(_) => Ok(()),
        }
    }

    /// Positions from the committed offsets; `None`: to be asked again.
    async fn fetch_offsets(&mut self, keys: &[&'static str]) -> Option<()> {
        let found = committed(&self.town, &mut self.client, &self.process, keys).await?;
        self.positions = keys.iter().map(|key| (*key, 0)).collect();
        self.positions.extend(found);
        Some(())
    }

    async fn commit(&mut self) -> Result<(), Out> {
        let process = self.process.clone();
        let offsets = self.positions.iter();
        let offsets = offsets.map(|(key, at)| ((*key).to_owned(), u64::try_from(*at).ok()));
        let invoke = Act::Commit(Some(GroupOffsets {
            group: GROUP.as_str().to_owned(),
            offsets: offsets.collect(),
        }));
        let op = self
            .town
            .record(|now_us, history| history.begin(now_us, &process, invoke));
        let topics = self.positions.iter().map(|(key, at)| {
            let (topic, partition_index) = key_parts(key);
            OffsetCommitRequestTopic {
                name: topic.into(),
                partitions: vec![OffsetCommitRequestPartition {
                    partition_index,
                    committed_offset: *at,
                    committed_leader_epoch: -1,
                    ..OffsetCommitRequestPartition::default()
                }],
                ..OffsetCommitRequestTopic::default()
            }
        });
        let request = OffsetCommitRequest {
            group_id: GROUP,
            generation_id_or_member_epoch: self.generation,
            member_id: self.member_id.clone(),
            topics: topics.collect(),
            ..OffsetCommitRequest::default()
        };
        let answered = self.client.call(&request, 7, PATIENCE).await.ok();
        let codes = answered.iter().flat_map(|answer| &answer.topics);
        let codes = codes.flat_map(|topic| &topic.partitions);
        let failed = codes
            .map(|partition| partition.error_code)
            .find(|code| *code != 0);
        let kind = match (&answered, failed.and_then(ErrorCode::from_code)) {
            (Some(_), None) if failed.is_none() => Kind::Ok,
            (None, _)
            | (_, Some(ErrorCode::NotCoordinator | ErrorCode::CoordinatorNotAvailable)) => {
                Kind::Info
            }
            _ => Kind::Fail,
        };
        self.dirty &= kind != Kind::Ok;
        let act = Act::Commit(None);
        self.town
            .record(|now_us, history| history.end(now_us, &process, op, kind, act));
        match failed {
            Some(code) => self.check(code).await,
            None => Ok(()),
        }
    }
}

/// The offsets of keys that the group has committed, as an operation of the history; `None`: to be asked again.
pub(super) async fn committed(
    town: &Town,
    client: &mut Client,
    process: &str,
    keys: &[&'static str],
) -> Option<Positions> {
    let invoke = Act::Committed(None);
    let op = town.record(|now_us, history| history.begin(now_us, process, invoke));
    let request = OffsetFetchRequest {
        group_id: GROUP,
        topics: None,
        ..OffsetFetchRequest::default()
    };
    let fetched = client.call(&request, 5, PATIENCE).await;
    let Some(fetched) = fetched.as_ref().ok().filter(|one| one.error_code == 0) else {
        let nothing = Act::Committed(None);
        town.record(|now_us, history| history.end(now_us, process, op, Kind::Info, nothing));
        if fetched.is_ok() {
            client.elsewhere().await;
        }
        return None;
    };
    let mut offsets: BTreeMap<String, Option<u64>> =
        keys.iter().map(|key| ((*key).to_owned(), None)).collect();
    let mut found = Positions::new();
    for topic in &fetched.topics {
        for partition in &topic.partitions {
            let at = (topic.name.as_str(), partition.partition_index);
            let key = keys.iter().find(|key| key_parts(key) == at);
            if let (Some(key), Ok(offset)) = (key, u64::try_from(partition.committed_offset)) {
                found.insert(key, partition.committed_offset);
                offsets.insert((*key).to_owned(), Some(offset));
            }
        }
    }
    let group = GROUP.as_str().to_owned();
    let told = Act::Committed(Some(GroupOffsets { group, offsets }));
    town.record(|now_us, history| history.end(now_us, process, op, Kind::Ok, told));
    Some(found)
}
