//! Consumer groups: members, generations, assignments and committed offsets, with Kafka's classic
//! group protocol as a pure state machine. All decisions are taken here, when a command is
//! applied. Must not know deadlines, parked requests or what the members' metadata says.

mod join;
mod leave;
mod roster;
mod sync;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use super::offset::Offsets;
use super::ordered::Ordered;
use crate::terms::ids::{Stamp, TopicId};
use crate::terms::level::Level;
use roster::Roster;

pub use super::offset::OffsetRules;
pub use crate::terms::group::{
    Action, Command, CommitOffsets, Completion, Event, Join, JoinOutcome, Joined, JoinedMember,
    Leaving, OffsetEntry, Protocol, Refusal, Reply, Silent, Sync, SyncOutcome, Synced, Touched,
};

/// Memory of a group, or of a member, beside its parts of variable length.
const FIXED_BYTES: u64 = 512;

/// All groups of a cluster. A clone shares what is not changed afterwards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Groups {
    pub(crate) groups: Ordered<Arc<str>, Arc<Group>>,
    pub(crate) bytes: u64,
    /// While a sweep goes on: the group at which it does, and the first topic of that.
    pub(crate) swept_to: Option<(Arc<str>, TopicId)>,
}

/// How long a sweep lets offsets and groups stay.
pub(crate) struct Expiry<'a> {
    pub(crate) level: &'a Level,
    /// The time, in ticks.
    pub(crate) ticks: u64,
    /// How long offsets are kept while their group is empty.
    pub(crate) retention_millis: u64,
    /// Whether there is a topic of this id.
    pub(crate) is_topic: &'a dyn Fn(TopicId) -> bool,
}

impl Expiry<'_> {
    /// For how long a group has had no members; `None` if it has some.
    fn empty_for(&self, group: &Group) -> Option<u64> {
        let emptied = group.emptied_ticks_millis;
        (group.phase == Phase::Empty).then(|| self.ticks.saturating_sub(emptied))
    }

    /// The ticks up to which offsets that a group has committed for a topic go.
    fn drops_until(&self, group: &Group, topic: TopicId) -> Option<u64> {
        if !(self.is_topic)(topic) {
            return Some(u64::MAX);
        }
        self.empty_for(group)
            .filter(|empty| *empty >= self.retention_millis)
            .and_then(|_| self.ticks.checked_sub(self.retention_millis))
    }
}

/// Where a group is in the protocol, with Kafka's names. A group that does not exist is Dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No members; there may be offsets.
    #[default]
    Empty,
    /// Members are awaited to join the next generation.
    PreparingRebalance,
    /// The members know the generation; the leader's assignments are awaited.
    CompletingRebalance,
    /// Members have their assignments.
    Stable,
}

impl Phase {
    /// Kafka's name of the state.
    pub const fn name(self) -> &'static str {
        match self {
            Phase::Empty => "Empty",
            Phase::PreparingRebalance => "PreparingRebalance",
            Phase::CompletingRebalance => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub(crate) phase: Phase,
    /// Rises with every joining phase that completes, and when the last member goes; so it
    /// identifies the joining phase that begins in it.
    pub(crate) generation: i32,
    pub(crate) protocol_type: Option<String>,
    pub(crate) protocol: Option<String>,
    pub(crate) leader: Option<String>,
    /// The joining phase began with an empty group.
    pub(crate) initial: bool,
    pub(crate) emptied_ticks_millis: u64,
    pub(crate) members: Roster,
    /// Static members: instance id to member id.
    pub(crate) instances: BTreeMap<String, String>,
    pub(crate) offsets: Offsets,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    pub client_id: String,
    /// Address of the client.
    pub client_host: String,
    /// Session timeout in milliseconds.
    pub session_timeout_millis: u32,
    /// Rebalance timeout in milliseconds.
    pub rebalance_timeout_millis: u32,
    /// Supported protocols, best first.
    pub protocols: Vec<Protocol>,
    /// What the leader assigned in this generation.
    pub assignment: Bytes,
    /// Has joined in the joining phase that goes on.
    pub joined: bool,
    /// Since when it is silent, in ticks; `None` while it speaks, as far as is noted.
    pub silent_since: Option<u64>,
}

impl Member {
    /// The member's metadata for a protocol; empty if it does not support it.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|supported| supported.name == protocol)
            .map(|supported| supported.metadata.clone())
            .unwrap_or_default()
    }

    /// Bytes of memory that it takes.
    pub fn bytes(&self) -> u64 {
        let texts = self.client_id.len() + self.client_host.len();
        // It is found by its instance, too.
        let instance = self
            .instance
            .as_ref()
            .map_or(0, |instance| 2 * instance.len());
        let kept = (texts + instance + self.assignment.len()) as u64;
        FIXED_BYTES + kept + protocols_bytes(&self.protocols)
    }
}

/// Bytes of memory of a member's protocols.
fn protocols_bytes(protocols: &[Protocol]) -> u64 {
    let bytes = |protocol: &Protocol| protocol.name.len() + protocol.metadata.len() + 64;
    protocols.iter().map(bytes).sum::<usize>() as u64
}

impl Groups {
    /// Applies a command. Total: whatever a command asks for, the answer is a reply. Only the named
    /// group changes, and there is an event if the change may concern a member.
    pub fn apply(
        &mut self,
        stamp: Stamp,
        rules: OffsetRules<'_>,
        command: &Command,
    ) -> (Reply, Option<Event>) {
        let checked = cfg!(debug_assertions);
        let bytes_max = checked.then(|| self.bytes.saturating_add(self.growth_of(command)));
        let before = self.bytes_of(&command.group);
        let outcome = self.apply_action(stamp, rules, command);
        self.bytes = self.bytes - before + self.bytes_of(&command.group);
        debug_assert!(
            bytes_max.is_none_or(|max| self.bytes <= max),
            "{command:?} grows as said"
        );
        outcome
    }

    /// Bytes of memory that the groups take more if this command is applied now, at most.
    pub fn growth_of(&self, command: &Command) -> u64 {
        let known = self.get(&command.group);
        let none = Group::default();
        let group = known.unwrap_or(&none);
        let growth = match &command.action {
            Action::Join(join) => group.growth_of_join(join),
            Action::Sync(sync) => return group.growth_of_sync(sync),
            Action::Commit(commit) => group.offsets.growth_of(&commit.offsets),
            Action::CompleteJoin { .. }
            | Action::Leave(_)
            | Action::Expire(_)
            | Action::MarkSilence { .. }
            | Action::Delete => return 0,
        };
        let founded = known.is_none();
        growth + u64::from(founded) * (command.group.len() as u64 + none.bytes())
    }

    fn apply_action(
        &mut self,
        stamp: Stamp,
        rules: OffsetRules<'_>,
        command: &Command,
    ) -> (Reply, Option<Event>) {
        let id = &command.group;
        match &command.action {
            Action::Join(join) => self.apply_join(id, join),
            Action::CompleteJoin { generation } => {
                let completion = self.group_mut(id).map_or(Completion::Superseded, |group| {
                    group.complete_join(*generation, stamp.ticks_millis)
                });
                let changed = completion != Completion::Superseded;
                (
                    Reply::CompleteJoin(completion),
                    changed.then(|| Event::all(id)),
                )
            }
            Action::Sync(sync) => {
                let result = match self.group_mut(id) {
                    Some(group) => group.sync(sync),
                    None => Err(Refusal::UnknownMemberId),
                };
                let event = result.is_ok().then(|| Event::one(id, &sync.member));
                (Reply::Sync(result), event)
            }
            Action::Leave(members) => {
                let (results, left) = match self.group_mut(id) {
                    Some(group) => group.leave(members, stamp.ticks_millis),
                    None => (
                        vec![Err(Refusal::UnknownMemberId); members.len()],
                        Vec::new(),
                    ),
                };
                let event = (!left.is_empty()).then(|| Event::some(id, left));
                (Reply::Leave(results), event)
            }
            Action::Expire(members) => {
                let expired = self
                    .group_mut(id)
                    .is_some_and(|group| group.expire(members, stamp.ticks_millis));
                (
                    Reply::Done,
                    expired.then(|| Event::some(id, members.clone())),
                )
            }
            Action::MarkSilence { silent, heard } => {
                if let Some(group) = self.group_mut(id) {
                    group.mark_silence(stamp.ticks_millis, silent, heard);
                }
                (Reply::Done, None)
            }
            Action::Commit(commit) => (self.apply_commit(stamp, rules, id, commit), None),
            Action::Delete => self.apply_delete(id),
        }
    }

    fn apply_join(&mut self, id: &str, join: &Join) -> (Reply, Option<Event>) {
        if let Some(group) = self.group_mut(id) {
            let place = group.place_of(join).map(str::to_owned);
            let result = group.join(join);
            let touched = place.into_iter().chain([join.member.clone()]);
            let event = result.is_ok().then(|| Event::some(id, touched.collect()));
            return (Reply::Join(result), event);
        }
        if !join.admitted {
            return (Reply::Join(Err(Refusal::UnknownMemberId)), None);
        }
        let mut group = Group::default();
        let result = group.join(join);
        if result.is_err() {
            return (Reply::Join(result), None);
        }
        self.groups.insert(id.into(), Arc::new(group));
        (Reply::Join(result), Some(Event::one(id, &join.member)))
    }

    fn apply_commit(
        &mut self,
        stamp: Stamp,
        rules: OffsetRules<'_>,
        id: &str,
        commit: &CommitOffsets,
    ) -> Reply {
        let ticks = stamp.ticks_millis;
        if let Some(group) = self.group_mut(id) {
            let result = group.validate_commit(commit);
            return Reply::Commit(
                result.map(|()| group.offsets.commit(ticks, rules, &commit.offsets)),
            );
        }
        if commit.generation >= 0 {
            return Reply::Commit(Err(Refusal::GroupIdNotFound));
        }
        let mut group = Group {
            emptied_ticks_millis: ticks,
            ..Group::default()
        };
        let results = group.offsets.commit(ticks, rules, &commit.offsets);
        if !group.offsets.is_empty() {
            self.groups.insert(id.into(), Arc::new(group));
        }
        Reply::Commit(Ok(results))
    }

    fn apply_delete(&mut self, id: &str) -> (Reply, Option<Event>) {
        match self.groups.get(id) {
            None => (Reply::Delete(Err(Refusal::GroupIdNotFound)), None),
            Some(group) if group.phase != Phase::Empty => {
                (Reply::Delete(Err(Refusal::NonEmptyGroup)), None)
            }
            Some(_) => {
                self.groups.remove(id);
                (Reply::Delete(Ok(())), Some(Event::all(id)))
            }
        }
    }

    /// Whether a sweep has begun and not come to its end.
    pub(crate) fn is_being_swept(&self) -> bool {
        self.swept_to.is_some()
    }

    /// Part of housekeeping: goes on with a sweep of all groups, or begins one. It drops offsets of
    /// topics that are gone; those of empty groups that were committed, and whose group emptied, as
    /// long ago as offsets are kept; and groups that have nothing left. Offsets of a group with
    /// members are kept however old they are. Looks at `budget` groups, topics and offsets, and
    /// then no further than to the end of a topic. Returns the groups dropped.
    pub(crate) fn sweep(&mut self, expiry: &Expiry<'_>, budget: usize) -> Vec<Event> {
        let (first, topic) = self.swept_to.take().unwrap_or_default();
        let mut left = budget;
        let mut swept = Vec::new();
        for (id, group) in self.groups.iter_from(&*first) {
            let from = if *id == first { topic } else { TopicId(0) };
            if left == 0 {
                self.swept_to = Some((Arc::clone(id), from));
                break;
            }
            left -= 1;
            let old = |topic| expiry.drops_until(group, topic);
            let (stale, rest) = group.offsets.stale(from, old, &mut left);
            if !stale.is_empty() || rest.is_none() && group.offsets.is_empty() {
                swept.push((Arc::clone(id), stale));
            }
            if let Some(topic) = rest {
                self.swept_to = Some((Arc::clone(id), topic));
                break;
            }
        }
        let drop = |(id, stale): (Arc<str>, _)| self.drop_stale(&id, stale, expiry);
        swept.into_iter().filter_map(drop).collect()
    }

    /// Drops offsets of a group, of each topic up to some ticks; then the group, if nothing of it
    /// is to be kept.
    fn drop_stale(
        &mut self,
        id: &str,
        stale: Vec<(TopicId, u64)>,
        expiry: &Expiry<'_>,
    ) -> Option<Event> {
        self.bytes -= self.bytes_of(id);
        if !stale.is_empty()
            && let Some(group) = self.group_mut(id)
        {
            for (topic, until) in stale {
                group.offsets.drop_committed_until(topic, until);
            }
        }
        let dropped = self.get(id).is_some_and(|group| {
            group.offsets.is_empty()
                && expiry.empty_for(group) >= Some(expiry.level.empty_group_kept_millis)
        });
        if dropped {
            self.groups.remove(id);
        }
        self.bytes += self.bytes_of(id);
        dropped.then(|| Event::all(id))
    }

    /// The group of this id.
    pub fn get(&self, id: &str) -> Option<&Group> {
        self.groups.get(id).map(Arc::as_ref)
    }

    /// All groups, by id.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Group)> {
        self.groups
            .iter()
            .map(|(id, group)| (&**id, group.as_ref()))
    }

    /// Memory that groups take, as far as clients decide it.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(crate) fn bytes_of(&self, id: &str) -> u64 {
        self.groups
            .get(id)
            .map_or(0, |group| id.len() as u64 + group.bytes())
    }

    pub(crate) fn count_bytes(&self) -> u64 {
        self.iter().map(|(id, _)| self.bytes_of(id)).sum()
    }

    pub fn len(&self) -> usize {
        self.groups.len()
    }

    /// True if there are no groups.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Checks what must hold after every command; for debug builds and simulation.
    ///
    /// # Panics
    /// If it does not hold.
    pub fn assert_invariants(&self) {
        for (id, group) in self.iter() {
            group.assert_invariants(id);
        }
        assert_eq!(self.bytes, self.count_bytes(), "bytes of all groups");
    }

    fn group_mut(&mut self, id: &str) -> Option<&mut Group> {
        self.groups.get_mut(id).map(Arc::make_mut)
    }
}

impl Group {
    /// Where the group is in the protocol.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    pub fn generation(&self) -> i32 {
        self.generation
    }

    /// Kind of the group's protocols.
    pub fn protocol_type(&self) -> Option<&str> {
        self.protocol_type.as_deref()
    }

    pub fn protocol(&self) -> Option<&str> {
        self.protocol.as_deref()
    }

    /// Member id of the leader.
    pub fn leader(&self) -> Option<&str> {
        self.leader.as_deref()
    }

    /// True if the joining phase that goes on began with an empty group.
    pub fn is_initial(&self) -> bool {
        self.initial
    }

    /// The member of this id.
    pub fn member(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    /// All members, by id.
    pub fn members(&self) -> impl ExactSizeIterator<Item = (&str, &Member)> {
        self.members.iter()
    }

    /// The member whose place a join takes: its own, or the one that it takes over with its
    /// instance.
    pub fn place_of(&self, join: &Join) -> Option<&str> {
        let holder = || self.instance_holder(join.instance.as_ref()?);
        self.members.id(&join.member).or_else(holder)
    }

    /// The member that holds a static instance.
    pub fn instance_holder(&self, instance: &str) -> Option<&str> {
        self.instances.get(instance).map(String::as_str)
    }

    pub fn offsets(&self) -> &Offsets {
        &self.offsets
    }

    /// Bytes of memory that it takes, but for its id.
    fn bytes(&self) -> u64 {
        FIXED_BYTES + self.members.bytes() + self.offsets.bytes()
    }

    /// True if every member has joined in the joining phase that goes on.
    pub fn all_joined(&self) -> bool {
        self.members.joined() == self.members.len()
    }

    /// The longest rebalance timeout of the members, in milliseconds.
    pub fn rebalance_timeout_millis(&self) -> u32 {
        self.members.rebalance_timeout_millis()
    }

    /// Checks that a request may speak for a member: a static member must hold its instance.
    pub fn validate_member(&self, member: &str, instance: Option<&str>) -> Result<(), Refusal> {
        match instance {
            None if self.members.contains(member) => Ok(()),
            None => Err(Refusal::UnknownMemberId),
            Some(instance) => match self.instances.get(instance) {
                None => Err(Refusal::UnknownMemberId),
                Some(holder) if holder == member => Ok(()),
                Some(_) => Err(Refusal::FencedInstanceId),
            },
        }
    }

    /// The answer to a heartbeat; changes nothing.
    pub fn heartbeat(
        &self,
        member: &str,
        instance: Option<&str>,
        generation: i32,
    ) -> Result<(), Refusal> {
        self.validate_member(member, instance)?;
        if generation != self.generation {
            return Err(Refusal::IllegalGeneration);
        }
        match self.phase {
            Phase::Empty => Err(Refusal::UnknownMemberId),
            Phase::PreparingRebalance => Err(Refusal::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable => Ok(()),
        }
    }

    /// Members commit for their generation. A client that is no member commits only while there are
    /// none.
    fn validate_commit(&self, commit: &CommitOffsets) -> Result<(), Refusal> {
        if commit.generation < 0 && self.phase == Phase::Empty {
            return Ok(());
        }
        if commit.generation < 0 && commit.member.is_empty() && commit.instance.is_none() {
            return Err(Refusal::UnknownMemberId);
        }
        self.validate_member(&commit.member, commit.instance.as_deref())?;
        if commit.generation != self.generation {
            return Err(Refusal::IllegalGeneration);
        }
        // While members are joining, those of the old generation may still commit records they
        // processed; once the new generation exists, they must join it first.
        match self.phase {
            Phase::CompletingRebalance => Err(Refusal::RebalanceInProgress),
            Phase::Empty | Phase::PreparingRebalance | Phase::Stable => Ok(()),
        }
    }

    fn next_generation(&mut self) {
        self.generation = self.generation.checked_add(1).unwrap_or(1);
    }

    /// The last member has gone.
    fn become_empty(&mut self, ticks_millis: u64) {
        self.next_generation();
        self.phase = Phase::Empty;
        self.protocol = None;
        self.leader = None;
        self.initial = false;
        self.emptied_ticks_millis = ticks_millis;
    }

    fn mark_silence(&mut self, ticks_millis: u64, silent: &[Silent], heard: &[String]) {
        for Silent { member, for_millis } in silent {
            let since = ticks_millis.saturating_sub(u64::from(*for_millis));
            self.members.set_silent(member, Some(since));
        }
        for member in heard {
            self.members.set_silent(member, None);
        }
    }

    fn assert_invariants(&self, id: &str) {
        assert_eq!(
            self.phase == Phase::Empty,
            self.members.is_empty(),
            "group {id}: empty is the phase without members"
        );
        let leads = self
            .leader
            .as_ref()
            .is_some_and(|leader| self.members.contains(leader));
        assert_eq!(
            leads,
            !self.members.is_empty(),
            "group {id}: a member leads"
        );
        assert!(self.generation >= 0, "group {id}: generations count from 0");
        self.offsets.assert_counted(id);
        self.members.assert_counted(id);
        let chosen = matches!(self.phase, Phase::CompletingRebalance | Phase::Stable);
        assert!(
            !chosen || self.protocol.is_some(),
            "group {id}: a generation has a protocol"
        );
        for (instance, member) in &self.instances {
            let holds = self
                .members
                .get(member)
                .and_then(|member| member.instance.as_ref());
            assert_eq!(
                holds,
                Some(instance),
                "group {id}: an instance has its member"
            );
        }
        let instances = self
            .members
            .iter()
            .filter(|(_, member)| member.instance.is_some())
            .count();
        assert_eq!(
            instances,
            self.instances.len(),
            "group {id}: a static member has its instance"
        );
        if self.phase != Phase::PreparingRebalance {
            assert_eq!(
                self.members.joined(),
                0,
                "group {id}: members join only while it prepares"
            );
        }
    }
}
