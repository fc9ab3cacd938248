//! A simulated member of a consumer group: joins, syncs, reads from the committed offsets, commits, heartbeats.
//!
//! It speaks the classic protocol as clients do. Must not know how the coordinator works.

use std::collections::BTreeMap;

use bytes::Bytes;
use meta::group::{Join, Joined, Protocol, Refusal, Sync};
use rpc::group::{
    CommitOffsets, CommitPartition, FetchGroup, GroupError, GroupReply, GroupRequest, Heartbeat,
    JoinGroup, TopicName,
};

use crate::history::{Act, Client, Consumer as Known, GroupOffsets, Kind};
use crate::network::Place;

use super::context::{Context, Input, Life};
use super::message::{Ask, Body, Number, Read, Told};
use crate::payload::{self, Polled};
use crate::recorder;

/// The group of all members.
const GROUP: &str = "g";
/// A request without an answer is asked elsewhere.
const PATIENCE_US: u64 = 5_000_000;
/// A join may wait for the others.
const JOIN_PATIENCE_US: u64 = 25_000_000;
const HEARTBEAT_US: u64 = 300_000;
const SESSION_MILLIS: u32 = 2_000;
const REBALANCE_MILLIS: u32 = 4_000;

/// What a member waits for.
enum Waiting {
    Join,
    Sync,
    /// The operation of the fetch.
    Offsets(u64),
    Poll(u64),
    /// The operation of the listing.
    Listing(u64),
    /// The operation of the commit.
    Commit(u64),
    Heartbeat,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Outside,
    Joined,
    Assigned,
    Reading,
}

pub(super) struct Member {
    place: Place,
    agents: Vec<Place>,
    agent: usize,
    run: u32,
    opened: bool,
    member_id: String,
    generation: i32,
    joined: Option<Joined>,
    stage: Stage,
    positions: BTreeMap<String, i64>,
    dirty: bool,
    /// Keys whose position is gone.
    reset: Vec<String>,
    waiting: Option<(Number, Waiting)>,
    heartbeat_at_us: u64,
    pause_us: u64,
}

impl Member {
    /// A member of the one group, at any agent.
    pub(super) fn new(cx: &mut Context, place: Place, agents: Vec<Place>) -> Self {
        let agent = cx.scheduler.rng.below(agents.len() as u64) as usize;
        let pause_us = 10_000 + cx.scheduler.rng.below(150_000);
        Member {
            place,
            agents,
            agent,
            run: 0,
            opened: false,
            member_id: String::new(),
            generation: -1,
            joined: None,
            stage: Stage::Outside,
            positions: BTreeMap::new(),
            dirty: false,
            reset: Vec::new(),
            waiting: None,
            heartbeat_at_us: 0,
            pause_us,
        }
    }

    pub(super) fn handle(&mut self, cx: &mut Context, life: Life, input: Input) {
        match input {
            Input::Start | Input::Wake => self.wake(cx, life),
            Input::Message(_, Body::Told(number, told)) => self.told(cx, number, told),
            Input::TimedOut(number) => self.timed_out(cx, number),
            _ => {}
        }
    }

    fn process(&self) -> String {
        format!("g{}.{}", self.place, self.run)
    }

    fn wake(&mut self, cx: &mut Context, life: Life) {
        cx.wake_at(self.place, life, cx.now_us() + self.pause_us);
        if self.waiting.is_some() || !cx.topics_known() {
            return;
        }
        if cx.scheduler.rng.once_in(400) {
            // It dies without a word; another begins.
            self.run += 1;
            self.opened = false;
            self.leave(true);
        }
        if !self.opened {
            self.open(cx);
        }
        let beat = self.stage != Stage::Outside && cx.now_us() >= self.heartbeat_at_us;
        let ask = match self.stage {
            Stage::Outside => self.join(cx),
            Stage::Joined => self.sync(cx),
            Stage::Assigned => self.fetch_offsets(cx),
            Stage::Reading if beat => {
                self.heartbeat_at_us = cx.now_us() + HEARTBEAT_US;
                (self.heartbeat(), Waiting::Heartbeat)
            }
            Stage::Reading if !self.reset.is_empty() => self.list(cx),
            Stage::Reading if self.dirty && cx.scheduler.rng.once_in(3) => self.commit(cx),
            Stage::Reading => self.poll(cx),
        };
        let (ask, waiting) = ask;
        let number = cx.number();
        let patience_us = if matches!(waiting, Waiting::Join) {
            JOIN_PATIENCE_US
        } else {
            PATIENCE_US
        };
        cx.send(self.place, self.agents[self.agent], Body::Ask(number, ask));
        cx.time_out(self.place, life, patience_us, number);
        self.waiting = Some((number, waiting));
    }

    fn open(&mut self, cx: &mut Context) {
        self.opened = true;
        let (now_us, process) = (cx.now_us(), self.process());
        let known = Known {
            group: Some(GROUP.to_owned()),
            isolation: None,
        };
        let client = Client {
            producer: None,
            consumer: Some(known),
        };
        cx.recorder.at_once(
            now_us,
            &process,
            Act::Open(Client::default()),
            Act::Open(client),
        );
        cx.recorder
            .at_once(now_us, &process, Act::Subscribe, Act::Subscribe);
    }

    fn leave(&mut self, forget: bool) {
        self.stage = Stage::Outside;
        self.positions.clear();
        self.reset.clear();
        self.dirty = false;
        if forget {
            self.member_id.clear();
        }
    }

    fn join(&self, cx: &mut Context) -> (Ask, Waiting) {
        let fresh = format!("m{}-{}", self.place, cx.number());
        let join = Join {
            member: self.member_id.clone(),
            admitted: false,
            instance: None,
            client_id: self.process(),
            client_host: "h".to_owned(),
            session_timeout_millis: SESSION_MILLIS,
            rebalance_timeout_millis: REBALANCE_MILLIS,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: Bytes::new(),
            }],
            can_skip_assignment: true,
            members_max: 0,
        };
        let request = JoinGroup {
            group: GROUP.to_owned(),
            join,
            fresh_member: fresh,
            id_required: true,
        };
        (Ask::Group(GroupRequest::Join(request)), Waiting::Join)
    }

    /// The leader of the group deals the keys out one by one.
    fn sync(&self, cx: &Context) -> (Ask, Waiting) {
        let members = self.joined.as_ref().map(|joined| joined.members.as_slice());
        let members = members.unwrap_or_default();
        let keys: Vec<&String> = cx.partitions.keys().collect();
        let dealt = members.iter().enumerate().map(|(at, member)| {
            let own = keys
                .iter()
                .skip(at)
                .step_by(members.len())
                .map(|key| key.as_str());
            (
                member.member.clone(),
                Bytes::from(own.collect::<Vec<_>>().join(",")),
            )
        });
        let sync = Sync {
            generation: self.generation,
            member: self.member_id.clone(),
            instance: None,
            protocol_type: None,
            protocol: None,
            assignments: dealt.collect(),
        };
        let group = GROUP.to_owned();
        let request = GroupRequest::Sync { group, sync };
        (Ask::Group(request), Waiting::Sync)
    }

    fn fetch_offsets(&self, cx: &mut Context) -> (Ask, Waiting) {
        let op = cx
            .recorder
            .begin(cx.now_us(), &self.process(), Act::Committed(None));
        let groups = vec![FetchGroup {
            group: GROUP.to_owned(),
            topics: None,
        }];
        let request = GroupRequest::Fetch(groups);
        (Ask::Group(request), Waiting::Offsets(op))
    }

    fn heartbeat(&self) -> Ask {
        Ask::Group(GroupRequest::Heartbeat(Heartbeat {
            group: GROUP.to_owned(),
            generation: self.generation,
            member: self.member_id.clone(),
            instance: None,
        }))
    }

    fn commit(&mut self, cx: &mut Context) -> (Ask, Waiting) {
        let told = self
            .positions
            .iter()
            .map(|(key, &offset)| (key.clone(), u64::try_from(offset).ok()));
        let told = GroupOffsets {
            group: GROUP.to_owned(),
            offsets: told.collect(),
        };
        let op = cx
            .recorder
            .begin(cx.now_us(), &self.process(), Act::Commit(Some(told)));
        let topics = self.positions.iter().filter_map(|(key, &offset)| {
            let (topic, partition) = key.split_once('/')?;
            let partition = CommitPartition {
                partition: partition.parse().ok()?,
                offset,
                leader_epoch: -1,
                metadata: String::new(),
            };
            let topic = TopicName::Name(topic.to_owned());
            Some((topic, vec![partition]))
        });
        let request = GroupRequest::Commit(CommitOffsets {
            by: None,
            group: GROUP.to_owned(),
            generation: self.generation,
            member: self.member_id.clone(),
            instance: None,
            topics: topics.collect(),
        });
        (Ask::Group(request), Waiting::Commit(op))
    }

    fn poll(&self, cx: &mut Context) -> (Ask, Waiting) {
        let op = cx.recorder.begin(
            cx.now_us(),
            &self.process(),
            recorder::polling(Polled::new()),
        );
        let wants = self.positions.iter();
        let wants = wants.filter_map(|(key, &offset)| Some((*cx.partitions.get(key)?, offset)));
        (Ask::Fetch(wants.collect()), Waiting::Poll(op))
    }

    fn list(&self, cx: &mut Context) -> (Ask, Waiting) {
        let op = cx
            .recorder
            .begin(cx.now_us(), &self.process(), Act::Debug(BTreeMap::new()));
        (
            Ask::ListOffsets(cx.partitions.values().copied().collect()),
            Waiting::Listing(op),
        )
    }

    /// auto.offset.reset = earliest.
    fn listed(&mut self, cx: &mut Context, op: u64, bounds: Vec<Option<meta::places::Bounds>>) {
        let keys = cx.partitions.keys().cloned();
        let listed: BTreeMap<String, meta::places::Bounds> = keys
            .zip(bounds)
            .filter_map(|(key, bounds)| Some((key, bounds?)))
            .collect();
        for key in std::mem::take(&mut self.reset) {
            if let (Some(position), Some(bounds)) = (self.positions.get_mut(&key), listed.get(&key))
            {
                *position = bounds.log_start;
            }
        }
        let told = listed
            .iter()
            .map(|(key, bounds)| (key.clone(), recorder::bounds(bounds)));
        let (now_us, process) = (cx.now_us(), self.process());
        cx.recorder
            .end(now_us, &process, op, Kind::Ok, Act::Debug(told.collect()));
    }

    fn told(&mut self, cx: &mut Context, number: Number, told: Told) {
        let asked = self.waiting.take_if(|(asked, _)| *asked == number);
        let Some((_, waiting)) = asked else { return };
        match (waiting, told) {
            (Waiting::Poll(op), Told::Fetched(parts)) => self.polled(cx, op, parts),
            (Waiting::Listing(op), Told::Offsets(Some(bounds))) => self.listed(cx, op, bounds),
            (Waiting::Join, Told::Group(Some(GroupReply::Join(reply)))) => match reply {
                Ok(told) => {
                    self.member_id = told.member;
                    self.generation = told.joined.generation;
                    self.joined = Some(told.joined);
                    self.stage = Stage::Joined;
                }
                Err(refusal) if refusal.error == GroupError::MemberIdRequired => {
                    self.member_id = refusal.member;
                }
                Err(refusal) => self.refused(refusal.error),
            },
            (Waiting::Sync, Told::Group(Some(GroupReply::Sync(reply)))) => match reply {
                Ok(synced) => self.assigned(&synced.assignment),
                Err(error) => self.refused(error),
            },
            (Waiting::Heartbeat, Told::Group(Some(GroupReply::Heartbeat(Err(error))))) => {
                self.refused(error);
            }
            (Waiting::Offsets(op), Told::Group(Some(GroupReply::Fetch(groups)))) => {
                self.offsets(cx, op, groups);
            }
            (Waiting::Commit(op), Told::Group(Some(GroupReply::Commit(results)))) => {
                let failed = results.into_iter().find_map(Result::err);
                self.committed(cx, op, failed);
            }
            (waiting, _) => self.ended(cx, waiting),
        }
    }

    /// What an error of the coordinator makes a member do.
    fn refused(&mut self, error: GroupError) {
        match error {
            GroupError::Refused(Refusal::UnknownMemberId | Refusal::FencedInstanceId) => {
                self.leave(true);
            }
            GroupError::Refused(Refusal::IllegalGeneration | Refusal::RebalanceInProgress) => {
                self.leave(false);
            }
            _ => self.agent = (self.agent + 1) % self.agents.len(),
        }
    }

    fn assigned(&mut self, assignment: &Bytes) {
        let keys = String::from_utf8_lossy(assignment).into_owned();
        let keys = keys.split(',').filter(|key| !key.is_empty());
        self.positions = keys.map(|key| (key.to_owned(), 0)).collect();
        self.stage = Stage::Assigned;
    }

    fn offsets(&mut self, cx: &mut Context, op: u64, groups: Vec<rpc::group::FetchedGroup>) {
        let process = self.process();
        let now_us = cx.now_us();
        let Some(Ok(topics)) = groups.into_iter().next().map(|group| group.topics) else {
            return cx
                .recorder
                .end(now_us, &process, op, Kind::Info, Act::Committed(None));
        };
        let mut told: BTreeMap<String, Option<u64>> = self
            .positions
            .keys()
            .map(|key| (key.clone(), None))
            .collect();
        for topic in topics {
            let TopicName::Name(name) = &topic.topic else {
                continue;
            };
            for partition in topic.partitions {
                let key = format!("{name}/{}", partition.partition);
                if let Some(position) = self.positions.get_mut(&key)
                    && partition.offset >= 0
                {
                    *position = partition.offset;
                    told.insert(key, u64::try_from(partition.offset).ok());
                }
            }
        }
        self.stage = Stage::Reading;
        let told = GroupOffsets {
            group: GROUP.to_owned(),
            offsets: told,
        };
        cx.recorder
            .end(now_us, &process, op, Kind::Ok, Act::Committed(Some(told)));
    }

    fn committed(&mut self, cx: &mut Context, op: u64, failed: Option<GroupError>) {
        let kind = match failed {
            None => Kind::Ok,
            Some(GroupError::NotCoordinator | GroupError::CoordinatorNotAvailable) => Kind::Info,
            Some(_) => Kind::Fail,
        };
        self.dirty &= failed.is_some();
        cx.recorder.end(
            cx.scheduler.now_us(),
            &self.process(),
            op,
            kind,
            Act::Commit(None),
        );
        if let Some(error) = failed {
            self.refused(error);
        }
    }

    fn polled(&mut self, cx: &mut Context, op: u64, parts: Vec<(meta::ids::PartitionId, Read)>) {
        let mut polled = Polled::new();
        for (partition, read) in parts {
            let key = cx.partitions.iter().find(|(_, id)| **id == partition);
            let Some(key) = key.map(|(key, _)| key.clone()) else {
                continue;
            };
            let Some(position) = self.positions.get_mut(&key) else {
                continue;
            };
            match read {
                Read::Batches(batches) => {
                    let batches: Vec<(i64, Bytes)> = batches
                        .into_iter()
                        .map(|(base, blob)| (base, blob.0))
                        .collect();
                    let (records, next) = payload::read(&batches, *position);
                    *position = next;
                    if !records.is_empty() {
                        self.dirty = true;
                        polled.insert(key, records);
                    }
                }
                Read::OutOfRange => self.reset.push(key),
                Read::Failed => {}
            }
        }
        let (now_us, process) = (cx.now_us(), self.process());
        cx.recorder
            .end(now_us, &process, op, Kind::Ok, recorder::polling(polled));
    }

    fn timed_out(&mut self, cx: &mut Context, number: Number) {
        if let Some((_, waiting)) = self.waiting.take_if(|(asked, _)| *asked == number) {
            self.agent = (self.agent + 1) % self.agents.len();
            self.ended(cx, waiting);
        }
    }

    /// Something ended without an answer.
    fn ended(&mut self, cx: &mut Context, waiting: Waiting) {
        let (now_us, process) = (cx.now_us(), self.process());
        match waiting {
            Waiting::Poll(op) => {
                let nothing = recorder::polling(Polled::new());
                cx.recorder.end(now_us, &process, op, Kind::Ok, nothing);
            }
            Waiting::Commit(op) => {
                cx.recorder
                    .end(now_us, &process, op, Kind::Info, Act::Commit(None));
            }
            Waiting::Offsets(op) => {
                cx.recorder
                    .end(now_us, &process, op, Kind::Info, Act::Committed(None));
            }
            Waiting::Listing(op) => {
                let nothing = Act::Debug(BTreeMap::new());
                cx.recorder.end(now_us, &process, op, Kind::Info, nothing);
            }
            Waiting::Join | Waiting::Sync | Waiting::Heartbeat => {}
        }
    }
}
