//! The coordinator of consumer groups: deadlines and requests that wait, in the memory of the node
//! that leads the journal. What is true of a group is in [`meta::group`]; nothing here decides it.
//! Sans-IO: it must not know clocks, sockets, tasks or the journal.
//!
//! The shell feeds it through [`Coordinator::handle`] and performs the effects:
//!
//! - Every request of an agent is an [`Event::Request`] under a ticket of the shell's choice, and
//!   is answered by exactly one [`Effect::Answer`], sooner or later. While the node does not
//!   lead, that is NOT_COORDINATOR at once.
//! - A request says whether the node may answer from memory just now (the one-second rule). If
//!   not, and always for offsets, the coordinator asks for a barrier by [`Effect::Current`] and
//!   goes on at [`Event::Barrier`]; that the member is alive it notes at once.
//! - [`Effect::Propose`] is proposed to the journal in the order of the effects. Once it is
//!   applied, the shell passes on its reply as [`Event::Applied`], and for every
//!   [`meta::group::Event`] that any entry caused, whoever proposed it, an [`Event::Changed`]. The
//!   metadata passed along may be further on than the entry, but not behind it. Where the events
//!   in between are not known, [`Event::Reloaded`] stands for them.
//! - [`Effect::SetTimer`] replaces the timer that was set; [`Event::Timer`] when it fires, or at
//!   any other time: it is harmless. One that has fired is set no more.
//! - [`Event::BecameLeader`] once the state is that of the node's own claim, and
//!   [`Event::LostLeadership`] when it no longer leads. What was proposed before needs no answer
//!   after that.

mod answers;
mod awaited;
mod deadlines;
mod describe;
mod live;
mod members;
mod offsets;
mod proposals;
mod room;
mod settle;
mod silence;
#[cfg(test)]
mod tests;
mod timed;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use host::clock::Instant;
use meta::group::{Command, Groups, Reply, Touched};
use meta::ids::TopicId;
use rpc::group::{FetchedGroup, GroupError, GroupReply, GroupRequest, JoinRefusal};

use awaited::Awaited;
use live::Live;
use proposals::Proposed;

/// A request of an agent that awaits its answer; numbered by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// A proposal that awaits its outcome; numbered by the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposalId(pub u64);

/// What operators may set, with Kafka's names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// `group.initial.rebalance.delay.ms`: how long the first members of a group wait for more.
    pub initial_rebalance_delay: Duration,
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min: Duration,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max: Duration,
    /// `group.max.size`: most members of a group.
    pub members_max: u32,
    /// `groups.max.bytes`: what lets the groups take more memory than this is refused.
    pub bytes_max: u64,
    /// What member ids that were given out may take; beyond that the oldest are given up.
    pub awaited_bytes_max: u64,
}

/// What the coordinator reads of the metadata.
pub trait Metadata {
    fn groups(&self) -> &Groups;
    /// The time of the last entry that is applied, in milliseconds in which somebody led.
    fn ticks_millis(&self) -> u64;
    /// The id of a topic, if there is one of this name.
    fn topic_id(&self, name: &str) -> Option<TopicId>;
    /// The name of a topic, if there is one of this id.
    fn topic_name(&self, id: TopicId) -> Option<&str>;
}

#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Request {
        /// Under which the answer is given.
        ticket: Ticket,
        request: GroupRequest,
        /// The node may answer from memory: its last append that succeeded began within the
        /// last second.
        current: bool,
    },
    /// A proposal was applied.
    Applied {
        proposal: ProposalId,
        /// What came of it.
        reply: Reply,
    },
    Failed {
        proposal: ProposalId,
        /// It may be applied all the same; else it never will be.
        ambiguous: bool,
    },
    /// A proposal is larger than the journal takes: it never will be applied, however often it is
    /// repeated.
    TooLarge {
        proposal: ProposalId,
    },
    /// A group changed, by whatever command.
    Changed(meta::group::Event),
    /// The metadata was replaced as a whole: nobody says what changed.
    Reloaded,
    /// The metadata is current as of the request, or cannot be made so.
    Barrier {
        /// The request for which [`Effect::Current`] was asked.
        ticket: Ticket,
        /// True if an entry appended after the request is applied.
        passed: bool,
    },
    Timer,
    /// The node leads, and has applied its claim.
    BecameLeader,
    /// The node is about to hand the lead over: what the next leader is to know is proposed.
    HandsOver,
    /// The node leads no longer.
    LostLeadership,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Append this command to the journal.
    Propose {
        /// Under which its outcome is reported.
        proposal: ProposalId,
        command: Command,
    },
    Answer {
        ticket: Ticket,
        reply: GroupReply,
    },
    /// A request waits for nothing but other members: what it brought is applied, and its memory
    /// may go.
    Parked {
        ticket: Ticket,
    },
    /// Make the metadata current, then say so by [`Event::Barrier`].
    Current {
        /// The request that needs it.
        ticket: Ticket,
    },
    /// Say [`Event::Timer`] at this time, instead of any set before.
    SetTimer {
        at: Instant,
    },
}

/// A request that waits for its barrier.
#[derive(Debug)]
struct Deferred {
    request: GroupRequest,
    since: Instant,
}

/// The coordinator of all groups of a cluster.
#[derive(Debug)]
pub struct Coordinator {
    settings: Settings,
    leading: bool,
    groups: BTreeMap<String, Live>,
    /// When a group must be looked at: at the latest at its next deadline, perhaps before.
    due: BTreeSet<(Instant, String)>,
    armed: Option<Instant>,
    proposed: BTreeMap<ProposalId, Proposed>,
    next_proposal: u64,
    /// Requests that wait for their barrier.
    deferred: BTreeMap<Ticket, Deferred>,
    /// All ids that are awaited.
    awaited: Awaited,
    effects: Vec<Effect>,
}

impl Coordinator {
    /// A coordinator on a node that does not lead yet.
    pub fn new(settings: Settings) -> Coordinator {
        Coordinator {
            leading: false,
            groups: BTreeMap::new(),
            due: BTreeSet::new(),
            armed: None,
            proposed: BTreeMap::new(),
            next_proposal: 0,
            deferred: BTreeMap::new(),
            awaited: Awaited::new(settings.awaited_bytes_max),
            settings,
            effects: Vec::new(),
        }
    }

    /// Takes note of an event; the effects are to be performed in their order.
    pub fn handle(&mut self, now: Instant, event: Event, metadata: &dyn Metadata) -> Vec<Effect> {
        match event {
            Event::Request {
                ticket,
                request,
                current,
            } => {
                self.request(now, ticket, request, current, metadata);
            }
            Event::Applied { proposal, reply } => self.applied(now, proposal, reply, metadata),
            Event::Failed {
                proposal,
                ambiguous,
            } => self.failed(now, proposal, ambiguous),
            Event::TooLarge { proposal } => self.too_large(now, proposal),
            Event::Changed(event) => self.settle(now, &event.group, &event.touched, metadata),
            Event::Reloaded => self.settle_all(now, metadata),
            Event::Barrier { ticket, passed } => self.barrier(now, ticket, passed, metadata),
            Event::Timer => self.timer(now, metadata),
            Event::BecameLeader => self.take_over(now, metadata),
            Event::HandsOver => self.note_silence(now, metadata),
            Event::LostLeadership => self.stand_down(),
        }
        self.arm();
        std::mem::take(&mut self.effects)
    }

    /// Requests that await an answer, for metrics and tests.
    pub fn waiting(&self) -> usize {
        let parked: usize = self
            .groups
            .values()
            .map(|live| live.joins.len() + live.syncs.len())
            .sum();
        let proposed = self
            .proposed
            .values()
            .filter(|proposed| proposed.has_ticket())
            .count();
        parked + proposed + self.deferred.len()
    }

    /// Bytes of memory of the ids that are awaited.
    pub fn awaited_bytes(&self) -> u64 {
        self.awaited.bytes()
    }

    fn request(
        &mut self,
        now: Instant,
        ticket: Ticket,
        request: GroupRequest,
        current: bool,
        metadata: &dyn Metadata,
    ) {
        let is_offsets = matches!(request, GroupRequest::Fetch(_));
        if is_offsets && host::trial::leaves_out("group-offsets-from-stale") {
            return self.serve(now, ticket, request, metadata);
        }
        if !self.leading {
            self.answer(ticket, refusal(&request, GroupError::NotCoordinator));
            return;
        }
        if current && !is_offsets {
            return self.serve(now, ticket, request, metadata);
        }
        if let Some((group_id, member)) = speaker(&request)
            && let Some(group) = metadata.groups().get(group_id)
        {
            self.hear(now, group_id, group, member);
        }
        self.deferred.insert(
            ticket,
            Deferred {
                request,
                since: now,
            },
        );
        self.effects.push(Effect::Current { ticket });
    }

    fn barrier(&mut self, now: Instant, ticket: Ticket, passed: bool, metadata: &dyn Metadata) {
        match self.deferred.remove(&ticket) {
            None => {}
            Some(deferred) if passed => self.serve(now, ticket, deferred.request, metadata),
            Some(deferred) => {
                let reply = refusal(&deferred.request, GroupError::NotCoordinator);
                self.answer(ticket, reply);
            }
        }
    }

    /// Serves a request; the metadata is current.
    fn serve(
        &mut self,
        now: Instant,
        ticket: Ticket,
        request: GroupRequest,
        metadata: &dyn Metadata,
    ) {
        let group = match &request {
            GroupRequest::Join(join) => &join.group,
            GroupRequest::Sync { group, .. } | GroupRequest::Leave { group, .. } => group,
            GroupRequest::Heartbeat(heartbeat) => &heartbeat.group,
            // Kafka lets clients from before groups had to be named keep offsets under "".
            _ => "-",
        };
        if group.is_empty() {
            self.answer(ticket, refusal(&request, GroupError::InvalidGroupId));
            return;
        }
        match request {
            GroupRequest::Join(join) => self.join(now, ticket, join, metadata),
            GroupRequest::Sync { group, sync } => self.sync(now, ticket, group, sync, metadata),
            GroupRequest::Heartbeat(heartbeat) => {
                self.heartbeat(now, ticket, &heartbeat, metadata);
            }
            GroupRequest::Leave { group, members } => {
                self.leave(now, ticket, group, members, metadata);
            }
            GroupRequest::Commit(commit) => self.commit(now, ticket, commit, metadata),
            GroupRequest::Fetch(groups) => {
                self.answer(ticket, GroupReply::Fetch(offsets::fetch(groups, metadata)));
            }
            GroupRequest::Describe(groups) => {
                let described = describe::describe(metadata.groups(), groups);
                self.answer(ticket, GroupReply::Describe(Ok(described)));
            }
            GroupRequest::List(states) => {
                let listed = describe::list(metadata.groups(), &states);
                self.answer(ticket, GroupReply::List(Ok(listed)));
            }
        }
    }

    fn answer(&mut self, ticket: Ticket, reply: GroupReply) {
        self.effects.push(Effect::Answer { ticket, reply });
    }

    fn answer_join_error(&mut self, ticket: Ticket, error: GroupError, member: &str) {
        let refused = JoinRefusal {
            error,
            member: member.to_owned(),
        };
        self.answer(ticket, GroupReply::Join(Err(refused)));
    }

    /// The node leads: every deadline begins afresh, so that the change of leaders causes no
    /// rebalance.
    fn take_over(&mut self, now: Instant, metadata: &dyn Metadata) {
        self.stand_down();
        self.leading = true;
        let ids: Vec<String> = metadata
            .groups()
            .iter()
            .map(|(id, _)| id.to_owned())
            .collect();
        for id in ids {
            if let Some(group) = metadata.groups().get(&id)
                && group.members().len() > 0
            {
                self.groups.insert(
                    id.clone(),
                    Live::taken_over(now, metadata.ticks_millis(), group),
                );
                self.settle(now, &id, &Touched::All, metadata);
            }
        }
    }

    /// The node no longer leads: whoever waits must ask the one that does.
    fn stand_down(&mut self) {
        self.leading = false;
        let error = GroupError::NotCoordinator;
        for live in std::mem::take(&mut self.groups).into_values() {
            for (member, parked) in live.joins {
                self.answer_join_error(parked.ticket, error, &member);
            }
            for parked in live.syncs.into_values() {
                self.answer(parked.ticket, GroupReply::Sync(Err(error)));
            }
        }
        for proposed in std::mem::take(&mut self.proposed).into_values() {
            self.refuse(proposed.purpose, error);
        }
        for (ticket, deferred) in std::mem::take(&mut self.deferred) {
            self.answer(ticket, refusal(&deferred.request, error));
        }
        self.due.clear();
        self.awaited = Awaited::new(self.settings.awaited_bytes_max);
    }
}

/// The group and member that a request speaks for.
fn speaker(request: &GroupRequest) -> Option<(&str, &str)> {
    match request {
        GroupRequest::Join(asked) => Some((&asked.group, &asked.join.member)),
        GroupRequest::Sync { group, sync } => Some((group, &sync.member)),
        GroupRequest::Heartbeat(heartbeat) => Some((&heartbeat.group, &heartbeat.member)),
        GroupRequest::Commit(commit) => Some((&commit.group, &commit.member)),
        GroupRequest::Leave { .. }
        | GroupRequest::Fetch(_)
        | GroupRequest::Describe(_)
        | GroupRequest::List(_) => None,
    }
}

/// The refusal of a whole request.
fn refusal(request: &GroupRequest, error: GroupError) -> GroupReply {
    match request {
        GroupRequest::Join(asked) => GroupReply::Join(Err(JoinRefusal {
            error,
            member: asked.join.member.clone(),
        })),
        GroupRequest::Sync { .. } => GroupReply::Sync(Err(error)),
        GroupRequest::Heartbeat(_) => GroupReply::Heartbeat(Err(error)),
        GroupRequest::Leave { .. } => GroupReply::Leave(Err(error)),
        GroupRequest::Commit(commit) => {
            let partitions = commit.topics.iter().map(|topic| topic.1.len());
            GroupReply::Commit(vec![Err(error); partitions.sum()])
        }
        GroupRequest::Fetch(groups) => {
            let groups = groups.iter().map(|asked| FetchedGroup {
                group: asked.group.clone(),
                topics: Err(error),
            });
            GroupReply::Fetch(groups.collect())
        }
        GroupRequest::Describe(_) => GroupReply::Describe(Err(error)),
        GroupRequest::List(_) => GroupReply::List(Err(error)),
    }
}
