//! Joining: which clients become members, when that requires a new generation, how the protocol is
//! chosen and how the joining phase ends. Must not know which requests wait.

use std::collections::BTreeMap;

use super::{
    Completion, Group, Join, JoinOutcome, Joined, JoinedMember, Member, Phase, Protocol, Refusal,
};

/// How a joining member stands to the group.
enum Standing {
    Known,
    /// It takes over a static instance from this member.
    Replaces(String),
    /// The member is not known, and may be admitted.
    New,
}

impl Group {
    /// A member joins or comes back. The order of the checks is Kafka's.
    pub(super) fn join(&mut self, join: &Join) -> Result<JoinOutcome, Refusal> {
        if !self.has_room(join) {
            return Err(Refusal::GroupMaxSizeReached);
        }
        if !self.accepts(&join.protocol_type, &join.protocols) {
            return Err(Refusal::InconsistentGroupProtocol);
        }
        match self.standing(join)? {
            Standing::New => Ok(self.add(join)),
            Standing::Known => Ok(self.rejoin(join)),
            Standing::Replaces(old) => Ok(self.replace(&old, join)),
        }
    }

    fn standing(&self, join: &Join) -> Result<Standing, Refusal> {
        let known = self.members.contains(&join.member);
        let holder = join
            .instance
            .as_ref()
            .map(|instance| self.instances.get(instance));
        match holder {
            Some(Some(holder)) if *holder == join.member => Ok(Standing::Known),
            // An id of another instance, or of none, cannot be replaced for this one.
            Some(Some(holder)) if join.admitted && !known => Ok(Standing::Replaces(holder.clone())),
            Some(Some(_)) => Err(Refusal::FencedInstanceId),
            Some(None) if join.admitted && !known => Ok(Standing::New),
            Some(None) => Err(Refusal::UnknownMemberId),
            None if known => Ok(Standing::Known),
            None if join.admitted => Ok(Standing::New),
            None => Err(Refusal::UnknownMemberId),
        }
    }

    /// True if the group has room: existing members keep their place, and while a generation is
    /// being formed, places go to the first that come.
    fn has_room(&self, join: &Join) -> bool {
        let holder = join
            .instance
            .as_ref()
            .and_then(|instance| self.instances.get(instance));
        let member = holder.unwrap_or(&join.member);
        let taken = match self.phase {
            Phase::Empty => return true,
            Phase::PreparingRebalance => self.members.joined(),
            Phase::CompletingRebalance | Phase::Stable => self.members.len(),
        };
        let has_place = match self.phase {
            Phase::PreparingRebalance => {
                self.members.get(member).is_some_and(|member| member.joined)
            }
            _ => self.members.contains(member),
        };
        has_place || taken < usize::try_from(join.members_max).unwrap_or(usize::MAX)
    }

    /// True if a client with these protocols may be a member: every member must support one of
    /// them. An empty group accepts any that are not empty.
    pub fn accepts(&self, protocol_type: &str, protocols: &[Protocol]) -> bool {
        if self.phase == Phase::Empty {
            return !protocol_type.is_empty() && !protocols.is_empty();
        }
        self.protocol_type.as_deref() == Some(protocol_type)
            && protocols
                .iter()
                .any(|protocol| self.members.all_support(&protocol.name))
    }

    /// Bytes that the members take more once this one has joined.
    pub(super) fn growth_of_join(&self, join: &Join) -> u64 {
        let place = self.place_of(join);
        let mut member = member_of(join);
        if let Some(before) = place.and_then(|id| self.members.get(id)) {
            member.assignment = before.assignment.clone();
            member.instance.clone_from(&before.instance);
        }
        self.members.growth_of(place, &join.member, &member)
    }

    fn add(&mut self, join: &Join) -> JoinOutcome {
        if self.members.is_empty() {
            self.protocol_type = Some(join.protocol_type.clone());
        }
        self.leader.get_or_insert_with(|| join.member.clone());
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), join.member.clone());
        }
        self.members.insert(join.member.clone(), member_of(join));
        self.await_joins(&join.member)
    }

    /// A member comes back. Unless it changes something or leads, it stays in the current
    /// generation: it may only have missed the answer.
    fn rejoin(&mut self, join: &Join) -> JoinOutcome {
        let leads = self.leader.as_deref() == Some(join.member.as_str());
        let same = self.update(join);
        match self.phase {
            Phase::Stable if same && join.admitted && join.instance.is_some() => {
                // A repeat of a take-over that was applied already.
                JoinOutcome::Joined(self.taken_over(join, ""))
            }
            Phase::Stable if same && !leads => JoinOutcome::Joined(self.joined(&join.member)),
            Phase::CompletingRebalance if same => JoinOutcome::Joined(self.joined(&join.member)),
            _ => self.await_joins(&join.member),
        }
    }

    /// A restarted static member takes its place, assignment included (KIP-345). A new generation
    /// is formed only if the choice of the protocol changes, or the leader may just now be
    /// assigning to the old id.
    fn replace(&mut self, old: &str, join: &Join) -> JoinOutcome {
        let Some(mut member) = self.members.remove(old) else {
            return self.add(join);
        };
        let leader_before = self.leader.clone().unwrap_or_default();
        member.silent_since = None;
        self.members.insert(join.member.clone(), member);
        if let Some(instance) = &join.instance {
            self.instances.insert(instance.clone(), join.member.clone());
        }
        if leader_before == old {
            self.leader = Some(join.member.clone());
        }
        let same = self.update(join);
        let keeps_protocol = || same || Some(self.choose_protocol()) == self.protocol;
        if self.phase == Phase::Stable && keeps_protocol() {
            return JoinOutcome::Joined(self.taken_over(join, &leader_before));
        }
        self.await_joins(&join.member)
    }

    /// The answer to a static member that took its place in a stable group. A leader that
    /// understands it is told to skip the assignment (KIP-814); one that does not must not
    /// learn that it leads, since nobody would get what it assigned.
    fn taken_over(&self, join: &Join, leader_before: &str) -> Joined {
        let leads = self.leader.as_deref() == Some(join.member.as_str());
        let mut joined = self.joined(&join.member);
        joined.skip_assignment = leads && join.can_skip_assignment;
        if leads && !join.can_skip_assignment {
            joined.members.clear();
            joined.leader = leader_before.to_owned();
        }
        joined
    }

    /// Takes the member's data from the request; true if its protocols are unchanged.
    fn update(&mut self, join: &Join) -> bool {
        let updated = self.members.update(&join.member, |member| {
            let same = member.protocols == join.protocols;
            member.protocols.clone_from(&join.protocols);
            member.client_id.clone_from(&join.client_id);
            member.client_host.clone_from(&join.client_host);
            member.session_timeout_millis = join.session_timeout_millis;
            member.rebalance_timeout_millis = join.rebalance_timeout_millis;
            member.silent_since = None;
            same
        });
        updated.unwrap_or(false)
    }

    /// The member waits for the joining phase to end; one begins if none is under way.
    fn await_joins(&mut self, member: &str) -> JoinOutcome {
        self.prepare_rebalance();
        self.members.update(member, |member| member.joined = true);
        JoinOutcome::Waits {
            generation: self.generation,
        }
    }

    /// Begins a joining phase, unless one is under way.
    pub(super) fn prepare_rebalance(&mut self) {
        match self.phase {
            Phase::PreparingRebalance => return,
            Phase::Empty => self.initial = true,
            Phase::CompletingRebalance | Phase::Stable => self.initial = false,
        }
        self.phase = Phase::PreparingRebalance;
    }

    /// Ends the joining phase that began in `generation`: members that have not joined are removed,
    /// except static ones, and the next generation exists.
    pub(super) fn complete_join(&mut self, generation: i32, ticks_millis: u64) -> Completion {
        if self.phase != Phase::PreparingRebalance || self.generation != generation {
            return Completion::Superseded;
        }
        self.members.drop_absent();
        if self.members.is_empty() {
            self.become_empty(ticks_millis);
            return Completion::Emptied;
        }
        if !self.elect_leader() {
            return Completion::Postponed;
        }
        self.next_generation();
        self.protocol = Some(self.choose_protocol());
        self.initial = false;
        self.phase = Phase::CompletingRebalance;
        self.members.begin_generation();
        Completion::Completed
    }

    /// The leader stays if it has joined; else the first by id that has. False if none has; then
    /// some member must lead all the same.
    fn elect_leader(&mut self) -> bool {
        let stays = self
            .leader
            .as_ref()
            .and_then(|leader| self.members.get(leader))
            .is_some_and(|leader| leader.joined);
        if stays {
            return true;
        }
        let joined = self.members.iter().find(|(_, member)| member.joined);
        let found = joined.is_some();
        let next = joined.or_else(|| self.members.iter().next());
        self.leader = next.map(|(id, _)| id.to_owned());
        found
    }

    /// The protocol that most members like best among those that all support; of equals the
    /// first by name.
    fn choose_protocol(&self) -> String {
        let mut votes: BTreeMap<&str, u32> = BTreeMap::new();
        for (_, member) in self.members.iter() {
            let vote = member
                .protocols
                .iter()
                .find(|protocol| self.members.all_support(&protocol.name));
            if let Some(protocol) = vote {
                *votes.entry(protocol.name.as_str()).or_default() += 1;
            }
        }
        let most = votes.values().max().copied().unwrap_or(0);
        let winner = votes.into_iter().find(|(_, count)| *count == most);
        winner.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }

    /// What a member is told of the current generation.
    pub fn joined(&self, member: &str) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let leader = self.leader.clone().unwrap_or_default();
        let members = if leader == member {
            self.joined_members(&protocol)
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol,
            leader,
            skip_assignment: false,
            members,
        }
    }

    fn joined_members(&self, protocol: &str) -> Vec<JoinedMember> {
        self.members
            .iter()
            .map(|(id, member)| JoinedMember {
                member: id.to_owned(),
                instance: member.instance.clone(),
                metadata: member.metadata(protocol),
            })
            .collect()
    }
}

fn member_of(join: &Join) -> Member {
    Member {
        instance: join.instance.clone(),
        client_id: join.client_id.clone(),
        client_host: join.client_host.clone(),
        session_timeout_millis: join.session_timeout_millis,
        rebalance_timeout_millis: join.rebalance_timeout_millis,
        protocols: join.protocols.clone(),
        assignment: bytes::Bytes::new(),
        joined: false,
        silent_since: None,
    }
}
