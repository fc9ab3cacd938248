//! Syncing: the leader's assignments reach the members. Must not know which requests wait.

use std::collections::BTreeMap;

use super::{Group, Phase, Refusal, Sync, SyncOutcome, Synced};

impl Group {
    /// A member asks for its assignment. If it is the leader of a generation that waits for
    /// assignments, those in the request become everybody's.
    pub(super) fn sync(&mut self, sync: &Sync) -> Result<SyncOutcome, Refusal> {
        self.check_sync(sync)?;
        let leads = self.leader.as_deref() == Some(sync.member.as_str());
        if self.phase == Phase::CompletingRebalance && leads {
            self.assign(sync);
        }
        self.members.set_silent(&sync.member, None);
        Ok(match self.phase {
            Phase::Stable => SyncOutcome::Synced(self.synced(&sync.member)),
            _ => SyncOutcome::Waits,
        })
    }

    /// Whether a member may sync now; changes nothing.
    pub fn check_sync(&self, sync: &Sync) -> Result<(), Refusal> {
        self.validate_member(&sync.member, sync.instance.as_deref())?;
        if sync.generation != self.generation {
            return Err(Refusal::IllegalGeneration);
        }
        let differs = |known: &Option<String>, said: &Option<String>| {
            said.is_some() && known.is_some() && said != known
        };
        if differs(&self.protocol_type, &sync.protocol_type)
            || differs(&self.protocol, &sync.protocol)
        {
            return Err(Refusal::InconsistentGroupProtocol);
        }
        match self.phase {
            Phase::Empty => Err(Refusal::UnknownMemberId),
            Phase::PreparingRebalance => Err(Refusal::RebalanceInProgress),
            Phase::CompletingRebalance | Phase::Stable => Ok(()),
        }
    }

    /// Bytes that the assignments take more than those that are there.
    pub(super) fn growth_of_sync(&self, sync: &Sync) -> u64 {
        let growth = sync.assignments.iter().map(|(member, assignment)| {
            let before = self.members.get(member);
            let before = before.map_or(0, |member| member.assignment.len());
            assignment.len().saturating_sub(before) as u64
        });
        growth.sum()
    }

    /// Members that the leader left out have an empty assignment.
    fn assign(&mut self, sync: &Sync) {
        let assignments: BTreeMap<_, _> = sync
            .assignments
            .iter()
            .map(|(member, assignment)| (member.as_str(), assignment))
            .collect();
        self.members.assign(|id| {
            let assignment = assignments.get(id);
            assignment.map(|bytes| (*bytes).clone()).unwrap_or_default()
        });
        self.phase = Phase::Stable;
    }

    /// What a member of a stable group is told.
    pub fn synced(&self, member: &str) -> Synced {
        Synced {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: self
                .members
                .get(member)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }
}
