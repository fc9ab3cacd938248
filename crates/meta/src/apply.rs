//! `apply`: one match over all commands. A command about one noun is a call into its module, one
//! about several a file below this one. It must not read anything but the state, the stamp and the
//! command.

mod commit;
mod housekeep;
mod spread;
#[cfg(test)]
mod tests;
mod topics;

use crate::invariants;
use crate::nouns::doubt::Miss;
use crate::nouns::member::Members;
use crate::nouns::offset::OffsetRules;
use crate::rule::Rule;
use crate::state::State;
use crate::terms::command::{BucketCompared, Command, DropCopies, Placement};
use crate::terms::group;
use crate::terms::ids::{EntryId, Incarnation, Stamp, TopicId};
use crate::terms::places::FileRef;
use crate::terms::reply::{Applied, Event, Refusal, Reply};

const NO_SUCH_BUCKET: &str = "the cluster has no bucket of that number";

impl State {
    /// Applies a command. Total: whatever a command says, the answer is a reply, and a refused
    /// command changes nothing but the time.
    ///
    /// `entry` is the entry that holds the command. No command of this level reads it: files that lie
    /// in their entry will be found by it.
    pub fn apply(&mut self, _entry: EntryId, stamp: Stamp, command: &Command) -> Applied {
        let stamp = self.clock.advance(self.level, stamp);
        let mut events = Vec::new();
        let reply = self.dispatch(stamp, command, &mut events);
        if cfg!(debug_assertions)
            && self.rules.hold(Rule::AssertedInvariants)
            && let Err(violation) = invariants::check_touched(self, command)
        {
            // A state that contradicts itself must not be used any further.
            panic!("{command:?} broke an invariant: {violation}");
        }
        Applied { reply, events }
    }

    /// Goes on where an earlier entry is left out from here on, and commands applied since may be lost with it. Callers may have
    /// been told of what those did: no number that they can have given is given again, agents register anew and take the whole
    /// view.
    pub fn leave_out(&mut self, stamp: Stamp) {
        let stamp = self.clock.advance(self.level, stamp);
        let level = self.level;
        let last = self.last_partition.saturating_add(level.left_out_numbers);
        self.last_partition = last.min(level.counter_max);
        self.producer_ids.pass_over(level);
        self.members.pass_over(level, stamp.ticks_millis);
        self.versions.pass_over(level);
    }

    fn dispatch(&mut self, stamp: Stamp, command: &Command, events: &mut Vec<Event>) -> Reply {
        let ticks = stamp.ticks_millis;
        match command {
            Command::RegisterAgent(request) => {
                let (reply, changed) = self.members.register(self.level, ticks, request);
                self.agents_changed(changed, events);
                reply
            }
            Command::FenceAgent { incarnation } => {
                if !self.members.runs.contains_key(incarnation) {
                    return Reply::Refused(Refusal::UnknownIncarnation);
                }
                let changed = self.members.fence(*incarnation, ticks);
                self.agents_changed(changed, events);
                Reply::Done
            }
            Command::DrainAgent { incarnation } => {
                let drain = |members: &mut Members| members.drain(*incarnation);
                self.note_of_agent(*incarnation, drain, events)
            }
            Command::SetAgentCutOff {
                incarnation,
                cut_off,
            } => {
                let set = |members: &mut Members| members.set_cut_off(*incarnation, *cut_off);
                self.note_of_agent(*incarnation, set, events)
            }
            Command::CommitFile(command) => {
                Reply::File(commit::commit(self, stamp, command, events))
            }
            Command::SkipFile { file } => Reply::File(commit::skip(self, stamp, *file)),
            Command::CreateTopic(request) => topics::create(self, request, events),
            Command::DeleteTopic { id } => topics::delete(self, *id, events),
            Command::CreatePartitions { id, total } => topics::grow(self, *id, *total, events),
            Command::SetTopicConfigs { id, changes } => {
                topics::configure(self, *id, changes, events)
            }
            Command::SetClusterConfigs { replaces, changes } => {
                topics::configure_cluster(self, *replaces, changes, events)
            }
            Command::AllocateProducer { known } => self.producer_ids.allocate(self.level, *known),
            Command::Housekeep => Reply::Housekept {
                more: housekeep::step(self, stamp, events),
            },
            Command::FilesDeleted { bucket, files } => self.forget_files(ticks, *bucket, files),
            Command::MarkBucket { bucket, is_away } => self.mark_bucket(*bucket, *is_away),
            Command::AddCopies { bucket, files } => self.add_copies(*bucket, files),
            Command::DropCopies(drop) => self.drop_copies(ticks, drop),
            Command::BucketCompared(compared) => self.bucket_compared(*compared),
            Command::RegisterControlNode(node) => {
                self.members.register_control_node(self.level, node)
            }
            Command::RemoveControlNode { name, nonce } => {
                self.members.remove_control_node(name, *nonce)
            }
            Command::SetFeatureLevel { level } => self.raise_level(*level, events),
            Command::SetPlacement(placement) => self.set_placement(placement),
            Command::SetTime { wall_millis } => self.set_time(*wall_millis),
            Command::Group(command) => self.apply_group(stamp, command, events),
        }
    }

    fn set_placement(&mut self, placement: &Placement) -> Reply {
        let holds_files = |bucket| self.files.any_in(bucket);
        let reply = self.policy.replace(placement, holds_files);
        if self.files.want_in(self.policy.bits()) {
            self.spread_anew();
        }
        let buckets = &self.policy.placement.buckets;
        self.doubts
            .of
            .retain(|bucket, _| buckets.contains_key(bucket));
        reply
    }

    fn mark_bucket(&mut self, bucket: u32, is_away: bool) -> Reply {
        if !self.policy.placement.buckets.contains_key(&bucket) {
            return Reply::Refused(Refusal::Invalid {
                what: NO_SUCH_BUCKET,
            });
        }
        self.files.mark(bucket, is_away);
        Reply::Done
    }

    fn set_time(&mut self, wall_millis: u64) -> Reply {
        match self.clock.set_to(wall_millis) {
            true => Reply::Done,
            false => Reply::Refused(Refusal::Invalid {
                what: "the time of the journal is not ahead of that: there is nothing to set",
            }),
        }
    }

    /// # Panics
    /// If the level comes into force and this build does not know it: [`State::check_known`] says so before.
    fn raise_level(&mut self, number: u32, events: &mut Vec<Event>) -> Reply {
        if let Err(refusal) = self.check_feature_level(number) {
            return Reply::Refused(refusal);
        }
        match self.levels.find(number) {
            Ok(level) => self.level = level,
            Err(unknown) => panic!("{unknown}"),
        }
        self.versions.next();
        events.push(Event::AgentsChanged);
        Reply::Done
    }

    /// Notes something of a run that is there; `note` is true if that changes what is seen of the agent.
    fn note_of_agent(
        &mut self,
        incarnation: Incarnation,
        note: impl FnOnce(&mut Members) -> bool,
        events: &mut Vec<Event>,
    ) -> Reply {
        if !self.members.may_commit(incarnation) {
            return Reply::Refused(Refusal::UnknownIncarnation);
        }
        let changed = note(&mut self.members);
        self.agents_changed(changed, events);
        Reply::Done
    }

    fn agents_changed(&mut self, changed: bool, events: &mut Vec<Event>) {
        if changed {
            self.versions.agents_changed();
            events.push(Event::AgentsChanged);
        }
    }

    fn forget_files<'a>(
        &mut self,
        ticks: u64,
        bucket: u32,
        files: impl IntoIterator<Item = &'a FileRef>,
    ) -> Reply {
        let until = ticks.checked_sub(self.grace_ticks());
        let mut refused = Vec::new();
        for file in files {
            if !until.is_some_and(|until| self.files.deleted(*file, bucket, until)) {
                refused.push((*file, self.fate(*file)));
            }
        }
        Reply::Forgotten { refused }
    }

    /// Files that are not known any more, or that are to be deleted, are passed over: whoever reports late has done no harm.
    fn add_copies<'a>(
        &mut self,
        bucket: u32,
        files: impl IntoIterator<Item = &'a FileRef>,
    ) -> Reply {
        if !self.policy.placement.buckets.contains_key(&bucket) {
            return Reply::Refused(Refusal::Invalid {
                what: NO_SUCH_BUCKET,
            });
        }
        self.copies_added(bucket, files);
        Reply::Done
    }

    /// Files that are not known any more, or that are to be deleted, are passed over, as in [`State::add_copies`].
    fn drop_copies(&mut self, ticks_millis: u64, drop: &DropCopies) -> Reply {
        let (by, bucket) = (drop.by, drop.bucket);
        if let Err(refusal) = self.check_report(by, bucket) {
            return Reply::Refused(refusal);
        }
        let keeps_last = self.rules.hold(Rule::LastCopyIsKept);
        let mut is_any_known = false;
        for file in &drop.files {
            is_any_known |= self.copy_dropped(*file, bucket, keeps_last);
        }
        if let Some(run) = self.members.runs.get(&by)
            && drop.is_missing
            && is_any_known
        {
            let miss = Miss {
                by: run.agent,
                is_alone: self.agents().nth(1).is_none(),
                ticks_millis,
                within_millis: self.level.suspect_within_millis,
            };
            self.doubts.missed(bucket, miss);
        }
        Reply::Done
    }

    fn bucket_compared(&mut self, compared: BucketCompared) -> Reply {
        if let Err(refusal) = self.check_report(compared.by, compared.bucket) {
            return Reply::Refused(refusal);
        }
        self.doubts.compared(compared.bucket, compared.since_ticks);
        Reply::Done
    }

    /// Refuses what an agent says of a bucket that there is not, or that says it after it was fenced.
    fn check_report(&self, by: Incarnation, bucket: u32) -> Result<(), Refusal> {
        if !self.members.may_commit(by) {
            return Err(Refusal::UnknownIncarnation);
        }
        match self.policy.placement.buckets.contains_key(&bucket) {
            true => Ok(()),
            false => Err(Refusal::Invalid {
                what: NO_SUCH_BUCKET,
            }),
        }
    }

    fn apply_group(
        &mut self,
        stamp: Stamp,
        command: &group::Command,
        events: &mut Vec<Event>,
    ) -> Reply {
        if let group::Action::Commit(commit) = &command.action
            && commit.by.is_some_and(|run| !self.members.may_commit(run))
        {
            return Reply::Group(group::Reply::Commit(Err(group::Refusal::AgentFenced)));
        }
        let topics = &self.topics;
        let partitions = |id: TopicId| {
            topics
                .get(id)
                .and_then(|topic| u32::try_from(topic.partitions.len()).ok())
        };
        let longest = topics.cluster_number(self.level, "offset.metadata.max.bytes");
        let rules = OffsetRules {
            partitions: &partitions,
            metadata_units_max: usize::try_from(longest.unwrap_or(0)).unwrap_or(usize::MAX),
        };
        let (reply, event) = self.groups.apply(stamp, rules, command);
        events.extend(event.map(Event::Group));
        Reply::Group(reply)
    }
}
