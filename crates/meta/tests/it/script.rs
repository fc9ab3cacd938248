//! The part of a stored journal that is made for it: what random commands seldom or never do. Full blocks of slices,
//! claimed times, more outcomes than are kept, more producers than there is much room for, steps of housekeeping that end
//! early, the life of a group, and jumps of the clock to the millisecond.

use meta::Command;
use meta::command::{BucketCompared, ConfigChanges, CreateTopic, DropCopies};
use meta::commit::{Batch, CommitFile, FileReply};
use meta::group::{self, Action, Completion};
use meta::ids::{Incarnation, PartitionId, TopicId};
use meta::reply::Reply;

use crate::levels::Recorder;
use crate::support::{
    agent, control_node, create, file, file_id, idempotent, named, plain, set, topic_id,
};

const MINUTE: u64 = 60_000;
/// What the script sets `file.delete.grace.ms` to.
const GRACE: u64 = 30_000;

/// Runs the script on whatever was recorded before.
pub(crate) fn run(recorder: &mut Recorder) {
    let mut script = Script {
        incarnation: Incarnation(0),
        next_number: 0,
        recorder,
    };
    script.configure();
    script.incarnation = script.register("scripted");
    script.trust_all_buckets();
    script.fill_blocks();
    script.settle_more_than_is_kept();
    script.claim_times();
    script.press_producers();
    script.make_steps_end_early();
    script.live_as_a_group();
    script.expire_groups();
    script.forget_members();
    script.doubt_a_bucket();
    script.jump();
    script.set_the_time();
}

struct Script<'a> {
    recorder: &'a mut Recorder,
    incarnation: Incarnation,
    next_number: u64,
}

impl Script<'_> {
    fn apply(&mut self, command: &Command) -> Reply {
        self.recorder.apply(command)
    }

    /// Applies a command that must succeed.
    fn done(&mut self, command: &Command) {
        let reply = self.apply(command);
        let is_done = matches!(reply, Reply::Done | Reply::Topic { .. });
        assert!(is_done, "{command:?}: {reply:?}");
    }

    fn pass(&mut self, millis: u64) {
        self.recorder.now.wall_millis += millis;
        self.recorder.now.ticks_millis += millis;
    }

    /// Keeps house until nothing is left to do; in how many steps.
    fn keep_house(&mut self) -> u32 {
        let mut steps = 1;
        while self.apply(&Command::Housekeep) == (Reply::Housekept { more: true }) {
            self.recorder.digest();
            steps += 1;
        }
        self.recorder.digest();
        steps
    }

    /// Makes the cluster's configs known, whatever random commands have set.
    fn configure(&mut self) {
        self.change(ConfigChanges {
            remove: ["log.retention.bytes", "log.retention.ms"]
                .map(str::to_owned)
                .into(),
            ..set("offsets.retention.minutes", "1")
        });
        self.change(set("file.delete.grace.ms", "30000"));
        self.change(set("producer.ids.max", "1000"));
    }

    fn change(&mut self, changes: ConfigChanges) {
        let replaces = self.recorder.state.configs_version();
        self.done(&Command::SetClusterConfigs { replaces, changes });
    }

    fn register(&mut self, name: &str) -> Incarnation {
        match self.apply(&Command::RegisterAgent(agent(name, 5))) {
            Reply::Registered { incarnation, .. } => incarnation,
            other => panic!("{other:?}"),
        }
    }

    /// Creates a topic; its first partition.
    fn topic(&mut self, name: &str, partitions: u32) -> PartitionId {
        self.done(&create(name, partitions));
        self.recorder
            .state
            .topic(name)
            .expect("it is there")
            .partitions[0]
    }

    fn set(&mut self, topic: &str, config: &str, value: &str) {
        let (id, changes) = (topic_id(topic), set(config, value));
        self.done(&Command::SetTopicConfigs { id, changes });
    }

    /// Commits the next file, with slices of one partition.
    fn commit(&mut self, partition: PartitionId, slices: &[&[Batch]]) -> CommitFile {
        let id = file_id(self.incarnation, self.next_number);
        self.next_number += 1;
        let slices: Vec<_> = slices.iter().map(|batches| (partition, *batches)).collect();
        let mut file = file(id, &slices);
        file.placement = vec![0, 1];
        let reply = self.apply(&Command::CommitFile(file.clone()));
        let committed = matches!(reply, Reply::File(FileReply::Committed { .. }));
        assert!(committed, "{reply:?}");
        file
    }

    /// More slices of one partition than two blocks hold, and then some less, so that what is left of a first block, a
    /// whole one and the beginning of another stay.
    fn fill_blocks(&mut self) {
        let partition = self.topic("blocks", 2);
        for nth in 0..12_u32 {
            let batches = [plain(1 + nth), plain(3)];
            let slice = &batches[..1 + nth as usize % 2];
            self.commit(partition, &[slice; 30]);
            self.recorder.digest();
        }
        self.set("blocks", "retention.bytes", "40000");
        self.keep_house();
        let id = topic_id("blocks");
        self.done(&Command::CreatePartitions { id, total: 3 });
    }

    /// Numbers that are skipped and files, more than outcomes are kept of; and some of both again.
    fn settle_more_than_is_kept(&mut self) {
        let partition = self.topic("outcomes", 1);
        let mut last = CommitFile::default();
        for nth in 0..70 {
            if nth % 5 == 0 {
                last = self.commit(partition, &[&[plain(1)]]);
            } else {
                let file = file_id(self.incarnation, self.next_number);
                self.apply(&Command::SkipFile { file });
                self.next_number += 1;
            }
        }
        self.apply(&Command::CommitFile(last));
        for file in [0, self.next_number - 1, self.next_number + 1] {
            let file = file_id(self.incarnation, file);
            self.apply(&Command::SkipFile { file });
        }
        self.recorder.digest();
    }

    /// Files whose records seem old: as was found, as is claimed, and without a time.
    fn claim_times(&mut self) {
        let partition = self.topic("times", 1);
        self.set("times", "retention.ms", "600000");
        let wall = i64::try_from(self.recorder.now.wall_millis).expect("small");
        let old = Batch {
            max_timestamp: wall - 700_000,
            ..plain(2)
        };
        let claimed = Batch {
            time_source: meta::commit::TimeSource::Header,
            ..old
        };
        let appended = Batch {
            time_source: meta::commit::TimeSource::Agent,
            ..old
        };
        let timeless = Batch {
            max_timestamp: -1,
            ..old
        };
        let files = [old, old, claimed, timeless, appended, plain(1)].map(|batch| {
            let file = self.commit(partition, &[&[batch]]);
            named(file.file)
        });
        self.keep_house();
        let first = |script: &Self| {
            script
                .recorder
                .state
                .bounds(partition)
                .expect("it is there")
                .log_start
        };
        assert_eq!(first(self), 4, "only what was found to be old is gone");
        self.pass(10 * MINUTE);
        self.keep_house();
        assert_eq!(first(self), 4, "ten minutes are not over");
        self.pass(1);
        self.keep_house();
        assert_eq!(first(self), 11);
        self.pass(GRACE - 1);
        let files: std::collections::BTreeSet<_> = files.into();
        for _ in 0..2 {
            let files = files.clone();
            self.apply(&Command::FilesDeleted { bucket: 0, files });
            self.recorder.digest();
            self.pass(1);
        }
    }

    /// The clock runs a day ahead, in steps that are no jump, and an operator sets the time right.
    fn set_the_time(&mut self) {
        let right = self.recorder.now.wall_millis;
        for _ in 0..150 {
            self.recorder.now.wall_millis += 10 * MINUTE;
            self.recorder.now.ticks_millis += MINUTE / 2;
            self.keep_house();
        }
        let partition = self.topic("ahead", 1);
        self.set("ahead", "retention.ms", "600000");
        let appended = Batch {
            time_source: meta::commit::TimeSource::Agent,
            ..plain(3)
        };
        self.commit(partition, &[&[appended]]);
        for ahead in [0, 10 * MINUTE] {
            let wall_millis = right + 150 * MINUTE - ahead;
            self.apply(&Command::SetTime { wall_millis });
            self.recorder.digest();
        }
        self.apply(&Command::SetTime {
            wall_millis: u64::MAX,
        });
        // Stamps stand still meanwhile.
        for _ in 0..12 {
            self.recorder.now.ticks_millis += MINUTE;
            self.keep_house();
        }
        let bounds = self.recorder.state.bounds(partition);
        assert_eq!(bounds.expect("it is there").log_start, 3);
        self.pass(1);
        self.keep_house();
    }

    /// Idle producers that may stay while there is much room, and go when one more has come.
    fn press_producers(&mut self) {
        let count = |script: &Self| script.recorder.state.totals().producers;
        self.change(set("producer.id.expiration.ms", "1"));
        self.pass(2);
        self.keep_house();
        assert_eq!(count(self), 0);
        self.change(ConfigChanges {
            remove: ["producer.id.expiration.ms".to_owned()].into(),
            ..ConfigChanges::default()
        });
        let partition = self.topic("producers", 1);
        let newcomers = |ids: std::ops::Range<i64>| -> Vec<Batch> {
            ids.map(|id| idempotent(100_000 + id, 0, 0, 1)).collect()
        };
        self.commit(partition, &[&newcomers(0..300)]);
        self.pass(1);
        self.commit(partition, &[&newcomers(300..500)]);
        self.pass(10 * MINUTE);
        self.keep_house();
        assert_eq!(count(self), 500, "half of the room");
        self.commit(partition, &[&newcomers(500..501)]);
        self.keep_house();
        assert_eq!(count(self), 201, "ten minutes are over for some");
    }

    /// More partitions than one step looks at. More slices than one step drops come at the end of the stored journal.
    fn make_steps_end_early(&mut self) {
        let id = topic_id("wide");
        self.done(&create("wide", 5_100));
        assert_eq!(self.keep_house(), 2);
        self.done(&Command::DeleteTopic { id });
        let again = Command::CreateTopic(CreateTopic {
            id,
            name: "wide".to_owned(),
            partitions: 1,
            configs: Default::default(),
            replication_factor: 0,
        });
        let refused = self.apply(&again);
        assert!(matches!(refused, Reply::TopicRefused(_)), "{refused:?}");
        self.recorder.digest();
    }

    fn group(&mut self, group: &str, action: Action) -> group::Reply {
        let group = group.to_owned();
        let reply = self.apply(&Command::Group(group::Command { group, action }));
        self.recorder.digest();
        match reply {
            Reply::Group(reply) => reply,
            other => panic!("{other:?}"),
        }
    }

    fn join(&mut self, group: &str, member: &str, instance: Option<&str>, protocols: &[&str]) {
        let protocol = |name: &&str| group::Protocol {
            name: (*name).to_owned(),
            metadata: vec![1, 2, 3].into(),
        };
        let join = group::Join {
            member: member.to_owned(),
            admitted: true,
            instance: instance.map(str::to_owned),
            client_id: "client".to_owned(),
            client_host: "/10.0.0.1".to_owned(),
            session_timeout_millis: 45_000,
            rebalance_timeout_millis: 300_000,
            protocol_type: "consumer".to_owned(),
            protocols: protocols.iter().map(protocol).collect(),
            can_skip_assignment: true,
            members_max: 3,
        };
        let reply = self.group(group, Action::Join(join));
        assert!(matches!(reply, group::Reply::Join(Ok(_))), "{reply:?}");
    }

    fn complete_join(&mut self, group: &str, generation: i32) {
        let reply = self.group(group, Action::CompleteJoin { generation });
        assert_eq!(reply, group::Reply::CompleteJoin(Completion::Completed));
    }

    fn sync(&mut self, group: &str, member: &str, generation: i32, assigned: &[&str]) {
        let assignment = |member: &&str| ((*member).to_owned(), vec![9, 8].into());
        let sync = group::Sync {
            member: member.to_owned(),
            instance: None,
            generation,
            protocol_type: Some("consumer".to_owned()),
            protocol: None,
            assignments: assigned.iter().map(assignment).collect(),
        };
        let reply = self.group(group, Action::Sync(sync));
        assert!(matches!(reply, group::Reply::Sync(Ok(_))), "{reply:?}");
    }

    fn commit_offsets(&mut self, group: &str, member: &str, generation: i32, topic: TopicId) {
        let offset = |partition, offset| group::OffsetEntry {
            topic,
            partition,
            offset,
            leader_epoch: 1,
            metadata: "note".to_owned(),
        };
        let commit = group::CommitOffsets {
            by: Some(self.incarnation),
            member: member.to_owned(),
            instance: None,
            generation,
            offsets: vec![offset(0, 7), offset(1, 1 << 40), offset(9, 1)],
        };
        let reply = self.group(group, Action::Commit(commit));
        assert!(matches!(reply, group::Reply::Commit(Ok(_))), "{reply:?}");
    }

    fn mark(&mut self, group: &str, silent: &[&str], heard: &[&str]) {
        let owned = |members: &[&str]| members.iter().map(|&member| member.to_owned()).collect();
        let silent = silent.iter().map(|&member| group::Silent {
            member: member.to_owned(),
            for_millis: 4_000,
        });
        let (silent, heard) = (silent.collect(), owned(heard));
        self.group(group, Action::MarkSilence { silent, heard });
    }

    /// A group with every action: it forms, commits, is silent, loses members by each way, is deleted; and one that stays.
    fn live_as_a_group(&mut self) {
        let topic = topic_id("blocks");
        for group in ["lived", "stays"] {
            self.join(group, "a", None, &["range", "sticky"]);
            self.join(group, "b", Some("i1"), &["sticky"]);
            self.complete_join(group, 0);
            self.sync(group, "b", 1, &[]);
            self.sync(group, "a", 1, &["a", "b"]);
            self.commit_offsets(group, "a", 1, topic);
            self.mark(group, &["a", "b"], &[]);
            self.mark(group, &[], &["b"]);
        }
        let group = "lived";
        self.join(group, "c", None, &["sticky"]);
        self.group(group, Action::Expire(vec!["a".to_owned()]));
        self.join(group, "b", Some("i1"), &["sticky"]);
        self.complete_join(group, 1);
        self.sync(group, "b", 2, &["b", "c"]);
        let leaving = |member: &str, instance: Option<&str>| group::Leaving {
            member: member.to_owned(),
            instance: instance.map(str::to_owned),
        };
        let all = vec![
            leaving("", Some("i1")),
            leaving("c", None),
            leaving("d", None),
        ];
        self.group(group, Action::Leave(all));
        self.group(group, Action::Delete);
        self.group("stays", Action::Delete);
    }

    /// Offsets of an empty group expire, and then the group.
    fn expire_groups(&mut self) {
        self.commit_offsets("expires", "", -1, topic_id("blocks"));
        for millis in [MINUTE - 1, 1, 9 * MINUTE - 1, 1] {
            self.pass(millis);
            self.keep_house();
        }
        assert!(self.recorder.state.groups().get("expires").is_none());
    }

    /// Runs that end are kept for a grace.
    fn forget_members(&mut self) {
        let incarnation = self.register("short-lived");
        let file = file_id(incarnation, 0);
        self.apply(&Command::SkipFile { file });
        let cut_off = |cut_off| Command::SetAgentCutOff {
            incarnation,
            cut_off,
        };
        self.done(&cut_off(true));
        self.recorder.digest();
        self.done(&cut_off(false));
        self.done(&Command::DrainAgent { incarnation });
        self.recorder.digest();
        self.done(&Command::FenceAgent { incarnation });
        self.apply(&Command::DrainAgent { incarnation });
        self.done(&Command::RegisterControlNode(control_node("scripted", 1)));
        let (name, nonce) = ("scripted".to_owned(), 7);
        self.done(&Command::RemoveControlNode { name, nonce });
        self.done(&Command::RegisterControlNode(control_node("stays", 3)));
        self.apply(&Command::SetFeatureLevel { level: 1 });
        for millis in [GRACE - 1, 1] {
            self.pass(millis);
            self.keep_house();
        }
        assert_eq!(self.recorder.state.incarnation(incarnation), None);
    }

    fn trust_all_buckets(&mut self) {
        let suspects: Vec<_> = self.recorder.state.suspect_buckets().collect();
        for (bucket, since_ticks) in suspects {
            self.done(&Command::BucketCompared(BucketCompared {
                by: self.incarnation,
                bucket,
                since_ticks,
            }));
        }
    }

    /// Agents miss a file in a bucket, at first just too late to confirm each other.
    fn doubt_a_bucket(&mut self) {
        let partition = self.topic("doubts", 1);
        let own = self.register("doubts");
        (self.incarnation, self.next_number) = (own, 0);
        let file = named(self.commit(partition, &[&[plain(1)]]).file);
        let other = self.register("doubts, too");
        let misses = [
            (own, 0, false),
            (other, 10 * MINUTE + 1, false),
            (own, 10 * MINUTE, true),
        ];
        for (by, pause, is_suspect) in misses {
            self.pass(pause);
            self.done(&Command::DropCopies(DropCopies {
                by,
                bucket: 1,
                is_missing: true,
                files: [file].into(),
            }));
            self.recorder.digest();
            let suspects = self.recorder.state.suspect_buckets().count();
            assert_eq!(suspects == 1, is_suspect, "{pause}");
        }
        self.trust_all_buckets();
    }

    /// Steps of the clock beside ten minutes and an hour of ticks, each by a millisecond; retention is held in the end.
    fn jump(&mut self) {
        // Nothing that went before is summed with these steps.
        self.pass(60 * MINUTE);
        self.keep_house();
        let steps = [
            (10 * MINUTE, 0, false),
            (10 * MINUTE + 1, 0, true),
            (30 * MINUTE, 60 * MINUTE - 1, true),
            (0, 1, false),
            (10 * MINUTE + 2, 1, true),
            (30 * MINUTE - 1, 60 * MINUTE, true),
        ];
        for (wall, ticks, held) in steps {
            self.recorder.now.wall_millis += wall;
            self.recorder.now.ticks_millis += ticks;
            self.keep_house();
            let hold = self.recorder.state.retention_hold();
            assert_eq!(hold.is_some(), held, "{wall} {ticks}");
        }
    }
}
