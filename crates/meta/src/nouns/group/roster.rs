//! The members of a group, with the counts that decisions rest on: joins come by the thousand, so none of them may walk
//! all members, or each protocol of each. Must not know phases or generations.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::Member;

/// Members by id; every other field is derived from them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roster {
    members: BTreeMap<String, Member>,
    /// How many members support a protocol, by its name.
    supporters: BTreeMap<String, usize>,
    /// How many members have each rebalance timeout, in milliseconds.
    rebalance_timeouts: BTreeMap<u32, usize>,
    joined: usize,
    bytes: u64,
}

impl Roster {
    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    pub(crate) fn get(&self, id: &str) -> Option<&Member> {
        self.members.get(id)
    }

    /// An id, if it is a member's.
    pub(crate) fn id(&self, id: &str) -> Option<&str> {
        self.members.get_key_value(id).map(|(id, _)| id.as_str())
    }

    /// Bytes that the members take more once `member` is in the place of `before`.
    pub(crate) fn growth_of(&self, before: Option<&str>, id: &str, member: &Member) -> u64 {
        let before = before.and_then(|id| self.get(id).map(|member| bytes_of(id, member)));
        bytes_of(id, member).saturating_sub(before.unwrap_or(0))
    }

    pub(crate) fn contains(&self, id: &str) -> bool {
        self.members.contains_key(id)
    }

    pub(crate) fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Member)> {
        self.members
            .iter()
            .map(|(id, member)| (id.as_str(), member))
    }

    /// The lowest id.
    pub(crate) fn first_id(&self) -> Option<&str> {
        self.members.keys().next().map(String::as_str)
    }

    /// How many members have joined in the joining phase that goes on.
    pub(crate) fn joined(&self) -> usize {
        self.joined
    }

    /// True if every member supports the protocol.
    pub(crate) fn all_support(&self, protocol: &str) -> bool {
        self.supporters.get(protocol).copied().unwrap_or(0) == self.members.len()
    }

    /// The longest rebalance timeout of the members in milliseconds; 0 without members.
    pub(crate) fn rebalance_timeout_millis(&self) -> u32 {
        self.rebalance_timeouts
            .last_key_value()
            .map_or(0, |(timeout, _)| *timeout)
    }

    /// Bytes of memory that the members take, ids included.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds a member; returns the one that had its id.
    pub(crate) fn insert(&mut self, id: String, member: Member) -> Option<Member> {
        let before = self.remove(&id);
        self.count_in(&id, &member);
        self.members.insert(id, member);
        before
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.count_out(id, &member);
        Some(member)
    }

    /// Changes a member, if there is one of this id.
    pub(crate) fn update<T>(
        &mut self,
        id: &str,
        change: impl FnOnce(&mut Member) -> T,
    ) -> Option<T> {
        let (id, mut member) = self.members.remove_entry(id)?;
        self.count_out(&id, &member);
        let result = change(&mut member);
        self.count_in(&id, &member);
        self.members.insert(id, member);
        Some(result)
    }

    /// Marks a member as heard, or as silent since a time in ticks; no count depends on that.
    pub(crate) fn set_silent(&mut self, id: &str, since: Option<u64>) {
        if let Some(member) = self.members.get_mut(id) {
            member.silent_since = since;
        }
    }

    /// Drops members that have not joined, except static ones.
    pub(crate) fn drop_absent(&mut self) {
        let absent: Vec<String> = self
            .iter()
            .filter(|(_, member)| !member.joined && member.instance.is_none())
            .map(|(id, _)| id.to_owned())
            .collect();
        for id in absent {
            self.remove(&id);
        }
    }

    /// Begins a generation: no member has joined the next, and none has an assignment.
    pub(crate) fn begin_generation(&mut self) {
        self.assign(|_| Bytes::new());
        for member in self.members.values_mut() {
            member.joined = false;
        }
        self.joined = 0;
    }

    /// Gives each member its assignment.
    pub(crate) fn assign(&mut self, assignment_of: impl Fn(&str) -> Bytes) {
        for (id, member) in &mut self.members {
            self.bytes -= member.assignment.len() as u64;
            member.assignment = assignment_of(id);
            self.bytes += member.assignment.len() as u64;
        }
    }

    fn count_in(&mut self, id: &str, member: &Member) {
        for protocol in protocols(member) {
            *self.supporters.entry(protocol.to_owned()).or_default() += 1;
        }
        *self
            .rebalance_timeouts
            .entry(member.rebalance_timeout_millis)
            .or_default() += 1;
        self.joined += usize::from(member.joined);
        self.bytes += bytes_of(id, member);
    }

    fn count_out(&mut self, id: &str, member: &Member) {
        for protocol in protocols(member) {
            if let Some(count) = self.supporters.get_mut(protocol) {
                *count -= 1;
                if *count == 0 {
                    self.supporters.remove(protocol);
                }
            }
        }
        let timeout = member.rebalance_timeout_millis;
        if let Some(count) = self.rebalance_timeouts.get_mut(&timeout) {
            *count -= 1;
            if *count == 0 {
                self.rebalance_timeouts.remove(&timeout);
            }
        }
        self.joined -= usize::from(member.joined);
        self.bytes -= bytes_of(id, member);
    }

    /// Checks that the counts are those of the members.
    ///
    /// # Panics
    /// If one is not.
    pub(crate) fn assert_counted(&self, group: &str) {
        let mut counted = Roster::default();
        for (id, member) in &self.members {
            counted.insert(id.clone(), member.clone());
        }
        assert_eq!(*self, counted, "group {group}: the counts of its members");
    }
}

/// The names of a member's protocols, each once.
fn protocols(member: &Member) -> BTreeSet<&str> {
    let names = member
        .protocols
        .iter()
        .map(|protocol| protocol.name.as_str());
    names.collect()
}

/// A member's id is stored three times: as its key, as the leader's id, and under its instance.
fn bytes_of(id: &str, member: &Member) -> u64 {
    3 * id.len() as u64 + member.bytes()
}
