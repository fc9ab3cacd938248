//! The digest of a state: SHA-256 over its meaning, field by field in a fixed order, so that
//! replicas with the same state agree whatever its layout in memory or in chunks. Groups are hashed
//! as their snapshot sections, which are a function of their content.

use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::nouns::doubt::Doubt;
use crate::nouns::file::Home;
use crate::nouns::kept::Kept;
use crate::nouns::member::Run;
use crate::nouns::partition::Partition;
use crate::state::State;
use crate::terms::ids::FileId;
use crate::terms::view::{Agent, Topic};

/// Bytes gathered before they are hashed: hashing field by field would cost several times more.
const BUFFER_BYTES: usize = 64 << 10;

/// Takes fields, one after another, each self-delimiting.
pub(super) struct Hasher {
    hash: Sha256,
    buffer: Vec<u8>,
}

impl Hasher {
    fn new() -> Self {
        Hasher {
            hash: Sha256::new(),
            buffer: Vec::with_capacity(BUFFER_BYTES + 64),
        }
    }

    pub(super) fn number(&mut self, value: u64) {
        self.buffer.extend_from_slice(&value.to_le_bytes());
        if self.buffer.len() >= BUFFER_BYTES {
            self.hash.update(&self.buffer);
            self.buffer.clear();
        }
    }

    fn signed(&mut self, value: i64) {
        self.number(value.cast_unsigned());
    }

    fn size(&mut self, value: usize) {
        self.number(u64::try_from(value).unwrap_or(u64::MAX));
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.size(value.len());
        self.buffer.extend_from_slice(value);
    }

    fn text(&mut self, value: &str) {
        self.bytes(value.as_bytes());
    }

    fn wide(&mut self, value: u128) {
        self.bytes(&value.to_le_bytes());
    }

    fn optional(&mut self, value: Option<u64>) {
        self.number(u64::from(value.is_some()));
        self.number(value.unwrap_or(0));
    }

    fn pairs<'a>(&mut self, pairs: impl ExactSizeIterator<Item = (&'a String, &'a String)>) {
        self.size(pairs.len());
        for (name, value) in pairs {
            self.text(name);
            self.text(value);
        }
    }

    fn file_id(&mut self, id: FileId) {
        self.number(id.incarnation.0);
        self.number(id.number);
    }

    fn finish(mut self) -> [u8; 32] {
        self.hash.update(&self.buffer);
        self.hash.finalize().into()
    }
}

/// The identity of a part of a state, by the digest of what it holds.
pub(super) fn identity(fill: impl FnOnce(&mut Hasher)) -> u128 {
    let mut hasher = Hasher::new();
    fill(&mut hasher);
    let digest = hasher.finish();
    let first = digest.first_chunk::<16>().copied();
    u128::from_be_bytes(first.unwrap_or_default())
}

impl State {
    /// SHA-256 of the logical state; equal on all replicas that applied the same entries, and
    /// after a restored snapshot. Takes time proportional to the state: to be taken of a clone,
    /// off the path of commands, where the state is large.
    pub fn digest(&self) -> [u8; 32] {
        let mut hasher = Hasher::new();
        self.digest_scalars(&mut hasher);
        self.digest_members(&mut hasher);
        hasher.size(self.topics.len());
        for topic in self.topics.iter() {
            digest_topic(&mut hasher, topic);
        }
        hasher.size(self.partitions.len());
        for (number, partition) in self.partitions.iter() {
            digest_partition(&mut hasher, number, partition);
        }
        hasher.size(self.doomed.len());
        for (id, partition) in self.doomed.iter() {
            digest_partition(&mut hasher, id.0, partition);
        }
        self.digest_files(&mut hasher);
        for section in self.groups.sections() {
            hasher.bytes(&section.encode_to_vec());
        }
        hasher.finish()
    }

    fn digest_scalars(&self, hasher: &mut Hasher) {
        hasher.text(&self.cluster_id);
        hasher.number(u64::from(self.level.number));
        hasher.number(self.clock.last.wall_millis);
        hasher.number(self.clock.last.ticks_millis);
        hasher.optional(self.clock.hold.map(|hold| hold.since.wall_millis));
        hasher.optional(self.clock.hold.map(|hold| hold.since.ticks_millis));
        let set = self.clock.set;
        hasher.optional(set.map(|set| set.at.wall_millis));
        hasher.optional(set.map(|set| set.at.ticks_millis));
        hasher.optional(set.map(|set| set.stamped_wall_millis));
        hasher.number(self.clock.hour.wall_millis);
        hasher.number(self.clock.hour.ticks_millis);
        hasher.number(self.last_partition);
        hasher.number(self.producer_ids.next);
        hasher.number(self.cursor);
        let swept_to = self.groups.swept_to.as_ref();
        hasher.number(u64::from(swept_to.is_some()));
        if let Some((group, topic)) = swept_to {
            hasher.text(group);
            hasher.wide(topic.0);
        }
        hasher.number(self.versions.last);
        hasher.number(self.versions.agents);
        hasher.number(self.versions.configs);
        hasher.number(self.versions.complete_since);
        hasher.size(self.versions.deleted.len());
        for (version, topic) in &self.versions.deleted {
            hasher.number(*version);
            hasher.wide(topic.0);
        }
        let placement = &self.policy.placement;
        hasher.number(self.policy.used);
        hasher.number(self.files.away());
        hasher.size(self.doubts.of.len());
        for (bucket, doubt) in &self.doubts.of {
            hasher.number(u64::from(*bucket));
            let (kind, by, ticks_millis) = match doubt {
                Doubt::Missed { by, ticks_millis } => (1, by.0.cast_unsigned(), *ticks_millis),
                Doubt::Suspect { since_ticks } => (2, 0, *since_ticks),
            };
            hasher.number(kind);
            hasher.number(u64::from(by));
            hasher.number(ticks_millis);
        }
        hasher.number(placement.number);
        hasher.number(u64::from(placement.copies));
        hasher.size(placement.buckets.len());
        for (number, bucket) in &placement.buckets {
            hasher.number(u64::from(*number));
            hasher.number(u64::from(bucket.domain));
            hasher.number(bucket.generation);
        }
        hasher.pairs(self.topics.cluster_configs.iter());
    }

    fn digest_members(&self, hasher: &mut Hasher) {
        let members = &self.members;
        hasher.signed(i64::from(members.last_agent));
        hasher.number(members.last_incarnation);
        hasher.size(members.control_nodes.len());
        for node in members.control_nodes.values() {
            hasher.wide(node.nonce);
            let texts = [&node.name, &node.claims_as, &node.address];
            for text in texts.into_iter().chain([&node.region, &node.zone]) {
                hasher.text(text);
            }
            hasher.number(u64::from(node.level));
        }
        hasher.size(members.agents.len());
        for agent in members.agents.values() {
            digest_agent(hasher, agent);
        }
        hasher.size(members.runs.len());
        for (incarnation, run) in &members.runs {
            hasher.number(incarnation.0);
            digest_run(hasher, run);
        }
    }

    fn digest_files(&self, hasher: &mut Hasher) {
        hasher.number(self.files.len());
        for (id, file) in self.files.iter() {
            hasher.file_id(id);
            hasher.number(u64::from(file.nonce));
            hasher.number(file.length);
            hasher.number(u64::from(file.checksum));
            let Home::Buckets(buckets) = file.home;
            hasher.number(buckets);
            hasher.number(file.committed_wall_millis);
            hasher.number(u64::from(file.live_slices));
            hasher.number(file.live_bytes);
            hasher.optional(file.tombstoned_ticks);
            hasher.number(self.files.left_in(id, file));
        }
    }
}

fn digest_agent(hasher: &mut Hasher, agent: &Agent) {
    hasher.signed(i64::from(agent.id.0));
    hasher.text(&agent.name);
    hasher.size(agent.listeners.len());
    for (name, endpoint) in &agent.listeners {
        hasher.text(name);
        hasher.text(&endpoint.host);
        hasher.number(u64::from(endpoint.port));
    }
    hasher.text(&agent.region);
    hasher.text(&agent.zone);
    hasher.text(&agent.neighbour_address);
    hasher.number(u64::from(agent.level));
    hasher.number(agent.incarnation.0);
    hasher.number(u64::from(agent.drains));
    hasher.number(u64::from(agent.cut_off));
}

fn digest_run(hasher: &mut Hasher, run: &Run) {
    hasher.signed(i64::from(run.agent.0));
    hasher.wide(run.nonce);
    hasher.number(run.next_number);
    hasher.optional(run.fenced_ticks);
    hasher.size(run.skipped.len());
    for (number, ticks) in &run.skipped {
        hasher.number(*number);
        hasher.number(*ticks);
    }
    hasher.size(run.kept.len());
    for kept in &run.kept {
        match kept {
            Kept::Skipped => hasher.number(0),
            Kept::Committed {
                nonce,
                length,
                checksum,
                outcomes,
            } => {
                hasher.number(1);
                hasher.number(u64::from(*nonce));
                hasher.number(*length);
                hasher.number(u64::from(*checksum));
                hasher.bytes(outcomes.bytes());
            }
        }
    }
}

pub(super) fn digest_topic(hasher: &mut Hasher, topic: &Topic) {
    hasher.wide(topic.id.0);
    hasher.text(&topic.name);
    hasher.size(topic.partitions.len());
    for partition in &topic.partitions {
        hasher.number(partition.0);
    }
    hasher.pairs(topic.configs.iter());
    hasher.number(u64::from(topic.replication_factor));
    hasher.number(topic.version);
}

pub(super) fn digest_partition(hasher: &mut Hasher, number: u64, partition: &Partition) {
    hasher.number(number);
    hasher.wide(partition.topic.0);
    hasher.number(u64::from(partition.index));
    hasher.signed(partition.log_start);
    hasher.signed(partition.high_watermark);
    let blocks: Vec<_> = partition.slices.blocks().collect();
    hasher.size(blocks.len());
    for block in blocks {
        hasher.bytes(block.digest());
    }
    hasher.bytes(&partition.slices.open());
    hasher.size(partition.producers.as_slice().len());
    for producer in partition.producers.as_slice() {
        hasher.signed(producer.id.0);
        hasher.signed(i64::from(producer.epoch));
        hasher.number(producer.touched_ticks);
        hasher.number(u64::from(producer.appended));
        hasher.size(producer.window().len());
        for batch in producer.window() {
            hasher.signed(i64::from(batch.base_sequence));
            hasher.signed(i64::from(batch.last_sequence));
            hasher.signed(batch.base_offset);
        }
    }
}
