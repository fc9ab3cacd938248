//! Leaving, by a member's own will or because its time ran out. Must not know deadlines.

use super::{Group, Leaving, Phase, Refusal};

impl Group {
    /// Members leave, each with its outcome; and the ids of those that were there.
    pub(super) fn leave(
        &mut self,
        members: &[Leaving],
        ticks_millis: u64,
    ) -> (Vec<Result<(), Refusal>>, Vec<String>) {
        let mut left = Vec::new();
        let leave = |leaving| self.leave_one(leaving).map(|member| left.push(member));
        let results = members.iter().map(leave).collect();
        self.settle_departures(ticks_millis);
        (results, left)
    }

    fn leave_one(&mut self, leaving: &Leaving) -> Result<String, Refusal> {
        let holder = leaving
            .instance
            .as_ref()
            .and_then(|instance| self.instances.get(instance));
        let member = match holder {
            // Administrators remove a static member by its instance alone (KIP-345).
            Some(holder) if leaving.member.is_empty() => holder.clone(),
            _ => leaving.member.clone(),
        };
        self.validate_member(&member, leaving.instance.as_deref())?;
        self.remove(&member);
        Ok(member)
    }

    /// Members' time ran out; true if any of them was there.
    pub(super) fn expire(&mut self, members: &[String], ticks_millis: u64) -> bool {
        let before = self.members.len();
        for member in members {
            self.remove(member);
        }
        self.settle_departures(ticks_millis);
        self.members.len() != before
    }

    fn remove(&mut self, id: &str) {
        let Some(member) = self.members.remove(id) else {
            return;
        };
        if let Some(instance) = member.instance {
            self.instances.remove(&instance);
        }
        // The member's assignment is free: the others must form a new generation.
        if matches!(self.phase, Phase::CompletingRebalance | Phase::Stable) {
            self.prepare_rebalance();
        }
    }

    /// After members went: elects a leader, unless no member is left.
    fn settle_departures(&mut self, ticks_millis: u64) {
        if self.members.is_empty() {
            if self.phase != Phase::Empty {
                self.become_empty(ticks_millis);
            }
            return;
        }
        let leads = self
            .leader
            .as_ref()
            .is_some_and(|leader| self.members.contains(leader));
        if !leads {
            self.leader = self.members.first_id().map(str::to_owned);
        }
    }
}
