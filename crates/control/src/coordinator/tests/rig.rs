//! A coordinator, the groups, and a journal that the test holds in its hand.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use bytes::Bytes;
use host::clock::Instant;
use meta::group::{
    Command, Group, Groups, Join, Joined, Leaving, OffsetRules, Phase, Protocol, Refusal, Reply,
    Sync, Synced,
};
use meta::ids::{Stamp, TopicId};
use rpc::group::{GroupError, GroupReply, GroupRequest, Heartbeat, JoinGroup};

use crate::coordinator::{Coordinator, Effect, Event, Metadata, ProposalId, Settings, Ticket};

pub(super) const TOPIC: TopicId = TopicId(7);
pub(super) const SESSION: Duration = Duration::from_secs(10);
pub(super) const REBALANCE: Duration = Duration::from_secs(60);
pub(super) const DELAY: Duration = Duration::from_secs(3);

/// The metadata: the groups, and the topic "t" of four partitions.
#[derive(Default)]
pub(super) struct World {
    pub(super) groups: Groups,
    pub(super) is_topic_deleted: bool,
    /// Of the last command.
    ticks_millis: u64,
}

impl Metadata for World {
    fn groups(&self) -> &Groups {
        &self.groups
    }

    fn ticks_millis(&self) -> u64 {
        self.ticks_millis
    }

    fn topic_id(&self, name: &str) -> Option<TopicId> {
        (name == "t" && !self.is_topic_deleted).then_some(TOPIC)
    }

    fn topic_name(&self, id: TopicId) -> Option<&str> {
        (id == TOPIC && !self.is_topic_deleted).then_some("t")
    }
}

/// Everything a test needs.
pub(super) struct Rig {
    pub(super) world: World,
    pub(super) coordinator: Coordinator,
    pub(super) now: Instant,
    /// Proposed and not decided.
    pub(super) journal: VecDeque<(ProposalId, Command)>,
    /// Proposals wait in the journal until the test decides them.
    pub(super) held: bool,
    /// Barriers asked for and not answered; answered at once unless proposals are held.
    pub(super) barriers: VecDeque<Ticket>,
    /// What must hold of the groups is checked after every command.
    pub(super) is_checked: bool,
    /// The node may answer from memory.
    pub(super) current: bool,
    pub(super) answers: BTreeMap<Ticket, GroupReply>,
    unanswered: BTreeSet<Ticket>,
    /// Waited, or wait, for other members.
    pub(super) parked: BTreeSet<Ticket>,
    timer: Option<Instant>,
    tickets: u64,
}

pub(super) const AWAITED_BYTES_MAX: u64 = 32 << 20;

pub(super) fn settings() -> Settings {
    Settings {
        initial_rebalance_delay: DELAY,
        session_timeout_min: Duration::from_secs(6),
        session_timeout_max: Duration::from_secs(1_800),
        members_max: 100,
        bytes_max: u64::MAX,
        awaited_bytes_max: AWAITED_BYTES_MAX,
    }
}

impl Rig {
    pub(super) fn new() -> Rig {
        Rig::with(settings())
    }

    pub(super) fn with(settings: Settings) -> Rig {
        let mut rig = Rig {
            world: World::default(),
            coordinator: Coordinator::new(settings),
            now: Instant::from_millis(1_000_000),
            journal: VecDeque::new(),
            held: false,
            barriers: VecDeque::new(),
            is_checked: true,
            current: true,
            answers: BTreeMap::new(),
            unanswered: BTreeSet::new(),
            parked: BTreeSet::new(),
            timer: None,
            tickets: 0,
        };
        rig.handle(Event::BecameLeader);
        rig
    }

    /// Another node takes over: its coordinator knows nothing but the state.
    pub(super) fn fail_over(&mut self, settings: Settings) {
        self.handle(Event::LostLeadership);
        self.journal.clear();
        self.barriers.clear();
        self.coordinator = Coordinator::new(settings);
        self.timer = None;
        // Its claim is an entry.
        self.world.ticks_millis = self.now.as_millis();
        self.handle(Event::BecameLeader);
    }

    pub(super) fn handle(&mut self, event: Event) {
        let effects = self.coordinator.handle(self.now, event, &self.world);
        for effect in effects {
            match effect {
                Effect::Propose { proposal, command } => {
                    self.journal.push_back((proposal, command));
                }
                Effect::Answer { ticket, reply } => {
                    assert!(
                        self.unanswered.remove(&ticket),
                        "{ticket:?} is answered once"
                    );
                    self.answers.insert(ticket, reply);
                }
                Effect::Current { ticket } => self.barriers.push_back(ticket),
                Effect::SetTimer { at } => self.timer = Some(at),
                Effect::Parked { ticket } => drop(self.parked.insert(ticket)),
            }
        }
        assert_eq!(
            self.coordinator.waiting(),
            self.unanswered.len(),
            "no request is forgotten"
        );
        if !self.held {
            self.decide_all();
        }
    }

    pub(super) fn decide_all(&mut self) {
        while let Some((proposal, command)) = self.journal.pop_front() {
            self.apply(Some(proposal), &command);
        }
        while let Some(ticket) = self.barriers.pop_front() {
            self.handle(Event::Barrier {
                ticket,
                passed: true,
            });
        }
    }

    /// Applies all that is proposed as one entry: its changes are told before its outcomes.
    pub(super) fn decide_as_one_entry(&mut self) {
        let mut outcomes = Vec::new();
        let mut changed = Vec::new();
        for (proposal, command) in std::mem::take(&mut self.journal) {
            let (reply, event) = self.apply_command(&command);
            changed.extend(event.map(Event::Changed));
            outcomes.push(Event::Applied { proposal, reply });
        }
        for event in changed.into_iter().chain(outcomes) {
            self.handle(event);
        }
    }

    /// Applies a command; without a proposal nobody here learns its outcome.
    pub(super) fn apply(&mut self, proposal: Option<ProposalId>, command: &Command) {
        let (reply, event) = self.apply_command(command);
        if let Some(event) = event {
            self.handle(Event::Changed(event));
        }
        if let Some(proposal) = proposal {
            self.handle(Event::Applied { proposal, reply });
        }
    }

    fn apply_command(&mut self, command: &Command) -> (Reply, Option<meta::group::Event>) {
        let stamp = Stamp {
            wall_millis: 0,
            ticks_millis: self.now.as_millis(),
        };
        let rules = OffsetRules {
            partitions: &|topic| (topic == TOPIC).then_some(4),
            metadata_units_max: 4096,
        };
        self.world.ticks_millis = stamp.ticks_millis;
        let applied = self.world.groups.apply(stamp, rules, command);
        if self.is_checked {
            self.world.groups.assert_invariants();
        }
        applied
    }

    /// Lets time pass; timers fire when they are due.
    pub(super) fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.timer.filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.timer = None;
            self.handle(Event::Timer);
        }
        self.now = end;
    }

    pub(super) fn ask(&mut self, request: GroupRequest) -> Ticket {
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.unanswered.insert(ticket);
        let current = self.current;
        self.handle(Event::Request {
            ticket,
            request,
            current,
        });
        ticket
    }

    pub(super) fn answer(&mut self, ticket: Ticket) -> GroupReply {
        self.answers
            .remove(&ticket)
            .expect("the request is answered")
    }

    pub(super) fn waits(&self, ticket: Ticket) -> bool {
        !self.answers.contains_key(&ticket)
    }

    pub(super) fn group(&self) -> &Group {
        self.world.groups.get("g").expect("the group exists")
    }

    pub(super) fn phase(&self) -> Phase {
        self.group().phase()
    }

    pub(super) fn join(&mut self, join: JoinGroup) -> Ticket {
        self.ask(GroupRequest::Join(join))
    }

    pub(super) fn joined(&mut self, ticket: Ticket) -> Result<Joined, GroupError> {
        self.joined_as(ticket).map(|(_, joined)| joined)
    }

    /// The member's own id too.
    pub(super) fn joined_as(&mut self, ticket: Ticket) -> Result<(String, Joined), GroupError> {
        match self.answer(ticket) {
            GroupReply::Join(Ok(told)) => Ok((told.member, told.joined)),
            GroupReply::Join(Err(refused)) => Err(refused.error),
            other => panic!("not an answer to a join: {other:?}"),
        }
    }

    pub(super) fn sync(&mut self, member: &str, generation: i32, assigned: &[&str]) -> Ticket {
        let own = |member: &&str| {
            (
                (*member).to_owned(),
                Bytes::copy_from_slice(member.as_bytes()),
            )
        };
        let sync = Sync {
            generation,
            member: member.to_owned(),
            instance: None,
            protocol_type: None,
            protocol: None,
            assignments: assigned.iter().map(own).collect(),
        };
        let group = "g".to_owned();
        self.ask(GroupRequest::Sync { group, sync })
    }

    pub(super) fn synced(&mut self, ticket: Ticket) -> Result<Synced, GroupError> {
        match self.answer(ticket) {
            GroupReply::Sync(result) => result,
            other => panic!("not an answer to a sync: {other:?}"),
        }
    }

    pub(super) fn heartbeat(&mut self, member: &str, generation: i32) -> Result<(), GroupError> {
        let ticket = self.send_heartbeat(member, generation);
        match self.answer(ticket) {
            GroupReply::Heartbeat(result) => result,
            other => panic!("not an answer to a heartbeat: {other:?}"),
        }
    }

    pub(super) fn send_heartbeat(&mut self, member: &str, generation: i32) -> Ticket {
        self.ask(GroupRequest::Heartbeat(Heartbeat {
            group: "g".to_owned(),
            generation,
            member: member.to_owned(),
            instance: None,
        }))
    }

    pub(super) fn leave(&mut self, member: &str) -> Result<(), GroupError> {
        let member = Leaving {
            member: member.to_owned(),
            instance: None,
        };
        let ticket = self.ask(GroupRequest::Leave {
            group: "g".to_owned(),
            members: vec![member],
        });
        match self.answer(ticket) {
            GroupReply::Leave(result) => result.and_then(|results| results[0]),
            other => panic!("not an answer to leaving: {other:?}"),
        }
    }

    /// A stable group of these members in generation 1, each assigned its own name.
    pub(super) fn stable(members: &[&str]) -> Rig {
        let mut rig = Rig::new();
        rig.settle(members);
        rig
    }

    /// Joins new members to an empty group and makes it stable.
    pub(super) fn settle(&mut self, members: &[&str]) {
        let tickets: Vec<_> = members
            .iter()
            .map(|member| self.join(new(member)))
            .collect();
        self.pass(DELAY * 2);
        let generation = self.group().generation();
        let leader = self.group().leader().expect("somebody leads").to_owned();
        for ticket in tickets {
            assert_eq!(self.joined(ticket).expect("joins").generation, generation);
        }
        let sync = self.sync(&leader, generation, members);
        self.synced(sync).expect("the leader syncs");
        for member in members {
            let sync = self.sync(member, generation, &[]);
            assert_eq!(
                self.synced(sync).expect("syncs").assignment,
                member.as_bytes()
            );
        }
        assert_eq!(self.phase(), Phase::Stable);
    }

    /// Lets time pass while these members send their heartbeats.
    pub(super) fn pass_with(&mut self, time: Duration, members: &[&str], generation: i32) {
        let end = self.now + time;
        while self.now < end {
            self.pass(Duration::from_secs(1));
            for member in members {
                let result = self.heartbeat(member, generation);
                let lives = matches!(
                    result,
                    Ok(()) | Err(GroupError::Refused(Refusal::RebalanceInProgress))
                );
                assert!(lives, "{member}: {result:?}");
            }
        }
    }
}

/// A first join that is given its id at once.
pub(super) fn new(member: &str) -> JoinGroup {
    JoinGroup {
        group: "g".to_owned(),
        join: Join {
            member: String::new(),
            admitted: false,
            instance: None,
            client_id: "client".to_owned(),
            client_host: "host".to_owned(),
            session_timeout_millis: 10_000,
            rebalance_timeout_millis: 60_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: Bytes::from_static(b"topics"),
            }],
            can_skip_assignment: true,
            members_max: 0,
        },
        fresh_member: member.to_owned(),
        id_required: false,
    }
}

/// A join of a member that has its id.
pub(super) fn back(member: &str) -> JoinGroup {
    let mut join = new("unused");
    join.join.member = member.to_owned();
    join
}

/// A first join of a client that can be given an id to come back with.
pub(super) fn modern(member: &str) -> JoinGroup {
    JoinGroup {
        id_required: true,
        ..new(member)
    }
}

/// A first join of a static member.
pub(super) fn fixed(member: &str, instance: &str) -> JoinGroup {
    let mut join = new(member);
    join.join.instance = Some(instance.to_owned());
    join
}
