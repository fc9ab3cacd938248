//! A captured state as chunks. Where a chunk begins and ends follows from ids alone, as far as
//! sizes allow, so that what did not change is encoded to the same bytes as before.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::{Capture, FORMAT, Part};
use crate::bytes::digest;
use crate::bytes::encoding::{
    encode_control_node, encode_listeners, encode_nonce, encode_pairs, encode_placement,
    encode_topic_id,
};
use crate::bytes::proto::{self, chunk::Section};
use crate::nouns::block::Block;
use crate::nouns::doubt::Doubt;
use crate::nouns::file::{File, Home};
use crate::nouns::kept::Kept;
use crate::nouns::member::Run;
use crate::nouns::partition::Partition;
use crate::nouns::producer::Producers;
use crate::nouns::slices::Slices;
use crate::state::State;
use crate::terms::ids::{FileId, Incarnation, PartitionId};
use crate::terms::view::{Agent, Topic};

/// Weight of a chunk of partitions, in slices: about 17 bytes each.
const RANGE_WEIGHT_MAX: u64 = 32_768;

/// Blocks of a partition with more slices than this are in chunks of their own.
const RUNS_ABOVE: u64 = 65_536;

/// One block of slices in this many begins a chunk, by a hash of its base offset.
const RUN_CHUNK_BLOCKS: u64 = 256;

/// Most blocks of slices in a chunk.
const RUN_CHUNK_BLOCKS_MAX: usize = 1_024;

/// Weight of a partition without slices, and of a producer.
const RECORD_WEIGHT: u64 = 8;

/// Bytes after which another chunk of members or groups begins.
const PART_BYTES: usize = 1 << 20;

/// One block of files in this many begins a chunk, by a hash of its id.
const FILE_CHUNK_BLOCKS: u64 = 256;

/// Most files in a chunk.
const FILE_CHUNK_FILES_MAX: usize = 131_072;

/// A partition to be written, with what decides about its chunk.
struct Entry<'a> {
    id: PartitionId,
    partition: &'a Partition,
    doomed: bool,
    /// The topic, if this is its first partition.
    topic: Option<&'a Topic>,
}

impl Entry<'_> {
    /// Whether its slices are in chunks of their own.
    fn has_runs(&self) -> bool {
        self.partition.slices.len() > RUNS_ABOVE
    }

    fn weight(&self) -> u64 {
        let slices = if self.has_runs() {
            0
        } else {
            self.partition.slices.len()
        };
        let producers = self.partition.producers.as_slice().len();
        let records = u64::try_from(producers)
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        slices.saturating_add(records.saturating_mul(RECORD_WEIGHT))
    }
}

/// Gathers parts, and encodes none that is known.
struct Writer<'a> {
    parts: Vec<Part>,
    is_known: &'a dyn Fn(u128) -> bool,
}

impl Writer<'_> {
    fn push(&mut self, section: Section) {
        self.parts.push(Part::Encoded(None, encode(section)));
    }

    fn push_unless_known(&mut self, id: u128, section: impl FnOnce() -> Section) {
        self.parts.push(if (self.is_known)(id) {
            Part::Same(id)
        } else {
            Part::Encoded(Some(id), encode(section()))
        });
    }
}

impl Capture {
    /// The chunks, of some MiB at most, the first of which is the header. Deterministic: equal
    /// states give equal chunks, and parts that did not change give the chunks they gave before.
    /// One whose identity `is_known` is not encoded.
    pub fn encode(&self, is_known: &dyn Fn(u128) -> bool) -> Vec<Part> {
        let state = &self.state;
        let mut writer = Writer {
            parts: Vec::new(),
            is_known,
        };
        write_members(state, &mut writer);
        write_partitions(state, &mut writer);
        write_files(state, &mut writer);
        write_groups(state, &mut writer);
        let count = u64::try_from(writer.parts.len())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let header = encode(Section::Header(header(state, count)));
        let mut all = vec![Part::Encoded(None, header)];
        all.append(&mut writer.parts);
        all
    }

    /// All chunks, encoded.
    pub fn encode_chunks(&self) -> Vec<Bytes> {
        let parts = self.encode(&|_| false).into_iter();
        parts
            .filter_map(|part| match part {
                Part::Encoded(_, bytes) => Some(bytes),
                Part::Same(_) => None,
            })
            .collect()
    }
}

fn encode(section: Section) -> Bytes {
    proto::Chunk {
        section: Some(section),
    }
    .encode_to_vec()
    .into()
}

fn encode_doubt((bucket, doubt): (&u32, &Doubt)) -> proto::Doubt {
    let (miss, suspect_since_ticks) = match doubt {
        Doubt::Missed { by, ticks_millis } => {
            let miss = proto::Miss {
                agent: by.0.cast_unsigned(),
                ticks_millis: *ticks_millis,
            };
            (Some(miss), None)
        }
        Doubt::Suspect { since_ticks } => (None, Some(*since_ticks)),
    };
    proto::Doubt {
        bucket: *bucket,
        miss,
        suspect_since_ticks,
    }
}

fn header(state: &State, chunks: u64) -> proto::Header {
    let size = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
    let live = state
        .partitions
        .iter()
        .map(|(_, partition)| partition.slices.len());
    let doomed = state
        .doomed
        .iter()
        .map(|(_, partition)| partition.slices.len());
    let deleted = state.versions.deleted.values().copied();
    let swept_to = state.groups.swept_to.as_ref();
    proto::Header {
        format: FORMAT,
        cluster_id: state.cluster_id.clone(),
        feature_level: state.level.number,
        clock: Some(proto::Clock {
            wall_millis: state.clock.last.wall_millis,
            ticks_millis: state.clock.last.ticks_millis,
            hold: state.clock.hold.map(|hold| proto::Hold {
                since_wall_millis: hold.since.wall_millis,
                since_ticks_millis: hold.since.ticks_millis,
            }),
            set: state.clock.set.map(|set| proto::Set {
                wall_millis: set.at.wall_millis,
                ticks_millis: set.at.ticks_millis,
                stamped_wall_millis: set.stamped_wall_millis,
            }),
            hour_wall_millis: state.clock.hour.wall_millis,
            hour_ticks_millis: state.clock.hour.ticks_millis,
        }),
        last_partition: state.last_partition,
        last_incarnation: state.members.last_incarnation,
        last_agent: state.members.last_agent.cast_unsigned(),
        next_producer: state.producer_ids.next,
        view_version: state.versions.last,
        agents_version: state.versions.agents,
        configs_version: state.versions.configs,
        deleted_version: state.versions.deleted.keys().copied().collect(),
        deleted_topic: deleted.map(encode_topic_id).collect(),
        deleted_since: state.versions.complete_since,
        buckets_used: state.policy.used,
        buckets_away: state.files.away(),
        doubts: state.doubts.of.iter().map(encode_doubt).collect(),
        housekeep_cursor: state.cursor,
        groups_swept_to: swept_to.map(|(group, topic)| proto::SweptTo {
            group: group.to_string(),
            topic: encode_topic_id(*topic),
        }),
        placement: Some(encode_placement(&state.policy.placement)),
        cluster_configs: encode_pairs(&state.topics.cluster_configs),
        control_nodes: state
            .members
            .control_nodes
            .values()
            .map(encode_control_node)
            .collect(),
        chunks,
        topics: size(state.topics.len()),
        partitions: size(state.partitions.len() + state.doomed.len()),
        slices: live.chain(doomed).sum(),
        files: state.files.len(),
        agents: size(state.members.agents.len()),
        runs: size(state.members.runs.len()),
        groups: size(state.groups.len()),
    }
}

fn write_members(state: &State, writer: &mut Writer<'_>) {
    let mut part = proto::Members {
        agents: state.members.agents.values().map(encode_agent).collect(),
        runs: Vec::new(),
    };
    let mut bytes = 0_usize;
    for (incarnation, run) in &state.members.runs {
        let run = encode_run(*incarnation, run);
        bytes = bytes.saturating_add(run.encoded_len());
        part.runs.push(run);
        if bytes >= PART_BYTES {
            writer.push(Section::Members(std::mem::take(&mut part)));
            bytes = 0;
        }
    }
    if part != proto::Members::default() {
        writer.push(Section::Members(part));
    }
}

fn encode_agent(agent: &Agent) -> proto::Agent {
    proto::Agent {
        id: agent.id.0.cast_unsigned(),
        name: agent.name.clone(),
        listeners: encode_listeners(&agent.listeners),
        region: agent.region.clone(),
        zone: agent.zone.clone(),
        neighbour_address: agent.neighbour_address.clone(),
        level: agent.level,
        incarnation: agent.incarnation.0,
        drains: agent.drains,
        cut_off: agent.cut_off,
    }
}

fn encode_run(incarnation: Incarnation, run: &Run) -> proto::Run {
    proto::Run {
        incarnation: incarnation.0,
        agent: run.agent.0.cast_unsigned(),
        next_number: run.next_number,
        fenced: one_more(run.fenced_ticks),
        skipped_number: run.skipped.keys().copied().collect(),
        skipped_ticks: run.skipped.values().copied().collect(),
        kept: run.kept.iter().map(encode_kept).collect(),
        nonce: encode_nonce(run.nonce),
    }
}

/// 0 for nothing, else one more than the value: ticks never come near the end of 64 bits.
fn one_more(value: Option<u64>) -> u64 {
    value.map_or(0, |value| value.saturating_add(1))
}

fn encode_kept(kept: &Kept) -> proto::Kept {
    let Kept::Committed {
        nonce,
        length,
        checksum,
        outcomes,
    } = kept
    else {
        return proto::Kept::default();
    };
    proto::Kept {
        committed: true,
        nonce: *nonce,
        length: *length,
        checksum: *checksum,
        outcomes: outcomes.bytes().clone(),
    }
}

fn write_partitions(state: &State, writer: &mut Writer<'_>) {
    let live = state.partitions.iter().map(|(number, partition)| {
        let topic = state
            .topics
            .get(partition.topic)
            .filter(|_| partition.index == 0);
        Entry {
            id: PartitionId(number),
            partition,
            doomed: false,
            topic,
        }
    });
    let doomed = state.doomed.iter().map(|(id, partition)| Entry {
        id: *id,
        partition,
        doomed: true,
        topic: None,
    });
    let mut entries: Vec<Entry<'_>> = live.chain(doomed).collect();
    entries.sort_by_key(|entry| entry.id);
    let last = entries.last().map_or(0, |entry| entry.id.0);
    write_range(&entries, 0, (last + 1).next_power_of_two(), writer);
    for entry in entries.iter().filter(|entry| entry.has_runs()) {
        write_runs(entry, writer);
    }
}

/// Writes the partitions whose ids begin at `low`, cut in halves of the range of ids until each
/// part is small enough: where it is cut does not depend on what lies outside.
fn write_range(entries: &[Entry<'_>], low: u64, size: u64, writer: &mut Writer<'_>) {
    if entries.is_empty() {
        return;
    }
    let weight: u64 = entries.iter().map(Entry::weight).sum();
    if weight > RANGE_WEIGHT_MAX && size > 1 {
        let half = size / 2;
        let middle = entries.partition_point(|entry| entry.id.0 < low + half);
        let (lower, upper) = entries.split_at(middle);
        write_range(lower, low, half, writer);
        write_range(upper, low + half, half, writer);
        return;
    }
    let id = digest::identity(|hasher| {
        for entry in entries {
            hasher.number(u64::from(entry.doomed));
            digest::digest_partition(hasher, entry.id.0, entry.partition);
            if let Some(topic) = entry.topic {
                digest::digest_topic(hasher, topic);
            }
        }
    });
    writer.push_unless_known(id, || {
        Section::Partitions(proto::Partitions {
            topics: entries
                .iter()
                .filter_map(|entry| entry.topic)
                .map(encode_topic)
                .collect(),
            partitions: entries.iter().map(encode_partition).collect(),
        })
    });
}

fn encode_topic(topic: &Topic) -> proto::Topic {
    let mut message = proto::Topic {
        id: encode_topic_id(topic.id),
        name: topic.name.clone(),
        configs: encode_pairs(&topic.configs),
        replication_factor: u32::from(topic.replication_factor),
        version: topic.version,
        ..proto::Topic::default()
    };
    let mut next = None;
    for partition in &topic.partitions {
        match message.partition_count.last_mut() {
            Some(count) if next == Some(partition.0) => *count += 1,
            _ => {
                message.partition_first.push(partition.0);
                message.partition_count.push(1);
            }
        }
        next = partition.0.checked_add(1);
    }
    message
}

fn encode_partition(entry: &Entry<'_>) -> proto::Partition {
    let partition = entry.partition;
    let slices = &partition.slices;
    proto::Partition {
        id: entry.id.0,
        topic: encode_topic_id(partition.topic),
        index: partition.index,
        doomed: entry.doomed,
        log_start: partition.log_start.cast_unsigned(),
        high_watermark: partition.high_watermark.cast_unsigned(),
        producers: Some(encode_producers(&partition.producers)),
        blocks: if entry.has_runs() {
            Vec::new()
        } else {
            blocks(slices).collect()
        },
        open: slices.open(),
    }
}

fn encode_producers(producers: &Producers) -> proto::Producers {
    let mut message = proto::Producers::default();
    for producer in producers.as_slice() {
        message.id.push(producer.id.0.cast_unsigned());
        message
            .epoch
            .push(u32::from(producer.epoch.cast_unsigned()));
        message.touched_ticks.push(producer.touched_ticks);
        message.appended.push(producer.appended);
        message
            .window
            .push(u32::try_from(producer.window().len()).unwrap_or(0));
        for batch in producer.window() {
            message
                .base_sequence
                .push(batch.base_sequence.cast_unsigned());
            message
                .last_sequence
                .push(batch.last_sequence.cast_unsigned());
            message.base_offset.push(batch.base_offset.cast_unsigned());
        }
    }
    message
}

fn blocks(slices: &Slices) -> impl Iterator<Item = Bytes> {
    slices.blocks().map(|block| block.packed().clone())
}

/// Writes the blocks of a partition, cut where their base offsets say, so that a chunk changes only
/// if one of its own blocks does.
fn write_runs(entry: &Entry<'_>, writer: &mut Writer<'_>) {
    let mut run: Vec<Arc<Block>> = Vec::new();
    for block in entry.partition.slices.blocks() {
        let here = (entry.id.0, block.base_offset.cast_unsigned());
        let begins = mix(here).is_multiple_of(RUN_CHUNK_BLOCKS);
        if !run.is_empty() && (begins || run.len() >= RUN_CHUNK_BLOCKS_MAX) {
            write_run(entry.id, &std::mem::take(&mut run), writer);
        }
        run.push(block);
    }
    write_run(entry.id, &run, writer);
}

fn write_run(partition: PartitionId, run: &[Arc<Block>], writer: &mut Writer<'_>) {
    let id = digest::identity(|hasher| {
        hasher.number(partition.0);
        run.iter().for_each(|block| hasher.bytes(block.digest()));
    });
    writer.push_unless_known(id, || {
        Section::SliceRun(proto::SliceRun {
            partition: partition.0,
            blocks: run.iter().map(|block| block.packed().clone()).collect(),
        })
    });
}

fn write_files(state: &State, writer: &mut Writer<'_>) {
    let mut part = proto::Files::default();
    let mut block = None;
    for (id, file) in state.files.iter() {
        let here = (id.incarnation.0, id.number / 128);
        let begins = block != Some(here) && mix(here).is_multiple_of(FILE_CHUNK_BLOCKS);
        if !part.number.is_empty() && (begins || part.number.len() >= FILE_CHUNK_FILES_MAX) {
            writer.push(Section::Files(std::mem::take(&mut part)));
        }
        block = Some(here);
        push_file(&mut part, id, file);
        part.left.push(state.files.left_in(id, file));
    }
    if !part.number.is_empty() {
        writer.push(Section::Files(part));
    }
}

/// Scatters pairs of ids (the finaliser of SplitMix64).
fn mix((high, low): (u64, u64)) -> u64 {
    let mut value = high.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(low);
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

fn push_file(part: &mut proto::Files, id: FileId, file: &File) {
    let known = part.incarnation.last() == Some(&id.incarnation.0);
    match part.incarnation_files.last_mut() {
        Some(files) if known => *files += 1,
        _ => {
            part.incarnation.push(id.incarnation.0);
            part.incarnation_files.push(1);
        }
    }
    part.number.push(id.number);
    part.nonce.push(file.nonce);
    part.length.push(file.length);
    part.checksum.push(file.checksum);
    let Home::Buckets(buckets) = file.home;
    part.placement.push(buckets);
    part.committed_wall_millis.push(file.committed_wall_millis);
    part.live_slices.push(file.live_slices);
    part.live_bytes.push(file.live_bytes);
    part.tombstoned.push(one_more(file.tombstoned_ticks));
}

/// Sections go together while they are small: a cluster with few groups has one chunk of them.
fn write_groups(state: &State, writer: &mut Writer<'_>) {
    let sections: Vec<proto::Groups> = state.groups.sections().collect();
    let bytes: usize = sections.iter().map(prost::Message::encoded_len).sum();
    if bytes > PART_BYTES {
        for section in sections {
            writer.push(Section::Groups(section));
        }
    } else if !sections.is_empty() {
        let mut all = proto::Groups::default();
        for mut section in sections {
            all.groups.append(&mut section.groups);
            all.offsets.append(&mut section.offsets);
        }
        writer.push(Section::Groups(all));
    }
}
