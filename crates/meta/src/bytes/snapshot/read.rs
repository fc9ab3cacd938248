//! Chunks as a state again. Nothing in them is believed: what contradicts itself is an error, and
//! memory is taken only for what is there.

use std::sync::Arc;

use bytes::Bytes;

use super::{FORMAT, RestoreError};
use crate::bytes::encoding::{
    DecodeError, decode_control_node, decode_factor, decode_listeners, decode_nonce, decode_pairs,
    decode_placement, decode_strictly, decode_topic_id,
};
use crate::bytes::proto::{self, chunk::Section};
use crate::invariants;
use crate::nouns::block::Block;
use crate::nouns::clock::{Clock, Hold, Set};
use crate::nouns::doubt::{Doubt, Doubts};
use crate::nouns::file::{File, Home};
use crate::nouns::kept::{Kept, Packed};
use crate::nouns::member::Run;
use crate::nouns::partition::Partition;
use crate::nouns::placement::Policy;
use crate::nouns::producer::{Producer, Producers, Remembered};
use crate::nouns::slices::Slices;
use crate::nouns::view::Versions;
use crate::state::State;
use crate::terms::ids::{AgentId, FileId, Incarnation, PartitionId, ProducerId, Stamp, TopicId};
use crate::terms::level::{Level, Levels};
use crate::terms::view::{Agent, Topic};

fn value(what: &'static str) -> DecodeError {
    DecodeError::Value { what }
}

impl State {
    /// The state that was captured, from all chunks of a snapshot in order.
    pub fn restore<B: AsRef<[u8]>>(chunks: &[B]) -> Result<State, RestoreError> {
        State::restore_of(Levels::KNOWN, chunks)
    }

    /// [`State::restore`] in a build that knows these levels.
    pub fn restore_of<B: AsRef<[u8]>>(levels: Levels, chunks: &[B]) -> Result<State, RestoreError> {
        let failed = |chunk| move |reason| RestoreError::Decode { chunk, reason };
        let mut sections = chunks.iter().enumerate();
        let Some((_, first)) = sections.next() else {
            return Err(RestoreError::Incomplete {
                what: "chunks",
                expected: 1,
                found: 0,
            });
        };
        let (level, header) = read_header(levels, first.as_ref())?;
        let mut state = State {
            level,
            ..State::genesis_of(levels, header.cluster_id.clone())
        };
        begin(&mut state, &header).map_err(failed(0))?;
        let mut found = Found {
            chunks: 1,
            ..Found::default()
        };
        for (at, chunk) in sections {
            let chunk: proto::Chunk = decode_strictly(chunk.as_ref()).map_err(failed(at))?;
            let section = chunk.section.ok_or(value("the chunk has no section"));
            found
                .take(&mut state, section.map_err(failed(at))?)
                .map_err(failed(at))?;
        }
        found.check(&state, &header)?;
        state.groups.bytes = state.groups.count_bytes();
        let partitions = state.partitions.iter().map(|(_, partition)| partition);
        let partitions = partitions.chain(state.doomed.iter().map(|(_, doomed)| doomed.as_ref()));
        state.producers = partitions.map(|partition| partition.producers.len()).sum();
        state.spread_anew();
        invariants::check_structure(&state)?;
        Ok(state)
    }
}

/// Reads the header; of a format or level of later versions only as much as says so.
fn read_header(
    levels: Levels,
    bytes: &[u8],
) -> Result<(&'static Level, proto::Header), RestoreError> {
    let failed = |reason| RestoreError::Decode { chunk: 0, reason };
    let lenient = <proto::Chunk as prost::Message>::decode(bytes);
    if let Ok(proto::Chunk {
        section: Some(Section::Header(header)),
    }) = lenient
        && (header.format > FORMAT || header.feature_level > levels.newest().number)
    {
        let (format, level) = (header.format, header.feature_level);
        return Err(RestoreError::Newer { format, level });
    }
    let chunk: proto::Chunk = decode_strictly(bytes).map_err(failed)?;
    match chunk.section {
        Some(Section::Header(header)) if header.format == FORMAT => {
            let level = levels.find(header.feature_level);
            let level = level.map_err(|_| failed(value("there is no such feature level")))?;
            Ok((level, header))
        }
        _ => Err(failed(value(
            "the first chunk is not a header of a known format",
        ))),
    }
}

fn begin(state: &mut State, header: &proto::Header) -> Result<(), DecodeError> {
    let clock = header.clock.as_ref().ok_or(value("there is no clock"))?;
    state.clock = Clock {
        last: stamp(clock.wall_millis, clock.ticks_millis),
        hold: clock.hold.map(|hold| Hold {
            since: stamp(hold.since_wall_millis, hold.since_ticks_millis),
        }),
        set: clock.set.map(|set| Set {
            at: stamp(set.wall_millis, set.ticks_millis),
            stamped_wall_millis: set.stamped_wall_millis,
        }),
        hour: stamp(clock.hour_wall_millis, clock.hour_ticks_millis),
    };
    let last = state.clock.last;
    let past =
        |at: Stamp| at.wall_millis <= last.wall_millis && at.ticks_millis <= last.ticks_millis;
    let is_before = |set: Set| past(set.at) && last.wall_millis <= set.stamped_wall_millis;
    if !state.clock.hold.is_none_or(|hold| past(hold.since))
        || !state.clock.set.is_none_or(is_before)
        || !past(state.clock.hour)
    {
        return Err(value("the clock tells of a time to come"));
    }
    let counter_max = state.level.counter_max;
    let counters = [header.last_partition, header.last_incarnation];
    if counters.iter().any(|counter| *counter > counter_max)
        || header.next_producer > counter_max + 1
    {
        return Err(value("a counter is beyond its end"));
    }
    state.last_partition = header.last_partition;
    state.members.last_incarnation = header.last_incarnation;
    state.members.last_agent = agent_id(header.last_agent)?.0;
    state.producer_ids.next = header.next_producer;
    state.versions = decode_versions(header)?;
    state.cursor = header.housekeep_cursor;
    if let Some(at) = &header.groups_swept_to {
        let topic = decode_topic_id(&at.topic)?;
        state.groups.swept_to = Some((at.group.as_str().into(), topic));
    }
    let placement = header
        .placement
        .as_ref()
        .ok_or(value("there is no placement"))?;
    state.policy = Policy {
        placement: decode_placement(placement)?,
        used: header.buckets_used,
    };
    state.files.want_in(state.policy.bits());
    for bucket in crate::nouns::short::buckets(header.buckets_away) {
        state.files.mark(bucket, true);
    }
    state.doubts = decode_doubts(state, &header.doubts)?;
    state.topics.cluster_configs = Arc::new(decode_pairs(header.cluster_configs.clone())?);
    for node in header.control_nodes.iter().cloned() {
        let node = decode_control_node(node)?;
        state.members.control_nodes.insert(node.name.clone(), node);
    }
    Ok(())
}

fn decode_doubts(state: &State, doubts: &[proto::Doubt]) -> Result<Doubts, DecodeError> {
    let buckets = &state.policy.placement.buckets;
    let now = state.clock.last.ticks_millis;
    let is_known = |doubt: &proto::Doubt| buckets.contains_key(&doubt.bucket);
    if !doubts.is_sorted_by(|a, b| a.bucket < b.bucket) || !doubts.iter().all(is_known) {
        return Err(value("doubts are not of the buckets that there are"));
    }
    let decoded = doubts.iter().map(|doubt| {
        let (decoded, ticks_millis) = match (doubt.miss, doubt.suspect_since_ticks) {
            (Some(miss), None) => {
                let (by, ticks_millis) = (agent_id(miss.agent)?, miss.ticks_millis);
                (Doubt::Missed { by, ticks_millis }, ticks_millis)
            }
            (None, Some(since_ticks)) => (Doubt::Suspect { since_ticks }, since_ticks),
            _ => return Err(value("a doubt is neither a miss nor a suspicion")),
        };
        match ticks_millis <= now {
            true => Ok((doubt.bucket, decoded)),
            false => Err(value("a doubt is of a time to come")),
        }
    });
    let of = decoded.collect::<Result<_, DecodeError>>()?;
    Ok(Doubts { of })
}

fn decode_versions(header: &proto::Header) -> Result<Versions, DecodeError> {
    let (versions, topics) = (&header.deleted_version, &header.deleted_topic);
    let known = [header.agents_version, header.configs_version];
    let past = |version: &u64| *version <= header.view_version;
    let sound = versions.len() == topics.len()
        && versions.is_sorted_by(|a, b| a < b)
        && versions
            .iter()
            .chain(&known)
            .chain([&header.deleted_since])
            .all(past);
    if !sound {
        return Err(value("versions of the view contradict one another"));
    }
    let topics = topics.iter().map(|topic| decode_topic_id(topic));
    let deleted = versions.iter().zip(topics);
    Ok(Versions {
        last: header.view_version,
        agents: header.agents_version,
        configs: header.configs_version,
        deleted: deleted
            .map(|(version, topic)| Ok((*version, topic?)))
            .collect::<Result<_, DecodeError>>()?,
        complete_since: header.deleted_since,
    })
}

fn stamp(wall_millis: u64, ticks_millis: u64) -> Stamp {
    Stamp {
        wall_millis,
        ticks_millis,
    }
}

fn agent_id(id: u32) -> Result<AgentId, DecodeError> {
    i32::try_from(id)
        .map(AgentId)
        .map_err(|_| value("an agent's id is too large"))
}

fn offset(value_: u64) -> Result<i64, DecodeError> {
    i64::try_from(value_).map_err(|_| value("an offset is too large"))
}

fn one_less(value: u64) -> Option<u64> {
    value.checked_sub(1)
}

/// What was found so far.
#[derive(Default)]
struct Found {
    chunks: u64,
    slices: u64,
}

impl Found {
    fn take(&mut self, state: &mut State, section: Section) -> Result<(), DecodeError> {
        self.chunks += 1;
        match section {
            Section::Header(_) => Err(value("there is a second header")),
            Section::Members(members) => take_members(state, members),
            Section::Files(files) => take_files(state, &files),
            Section::Partitions(part) => {
                for topic in part.topics {
                    take_topic(state, topic)?;
                }
                part.partitions
                    .into_iter()
                    .try_for_each(|part| self.take_partition(state, part))
            }
            Section::SliceRun(run) => self.take_run(state, run),
            Section::Groups(groups) => Ok(state.groups.restore(groups)?),
        }
    }

    fn check(&self, state: &State, header: &proto::Header) -> Result<(), RestoreError> {
        let size = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        let counts = [
            ("chunks", header.chunks, self.chunks),
            ("topics", header.topics, size(state.topics.len())),
            (
                "partitions",
                header.partitions,
                size(state.partitions.len() + state.doomed.len()),
            ),
            ("slices", header.slices, self.slices),
            ("files", header.files, state.files.len()),
            ("agents", header.agents, size(state.members.agents.len())),
            ("incarnations", header.runs, size(state.members.runs.len())),
            ("groups", header.groups, size(state.groups.len())),
            ("control nodes", size(header.control_nodes.len()), {
                size(state.members.control_nodes.len())
            }),
        ];
        match counts
            .into_iter()
            .find(|(_, expected, found)| expected != found)
        {
            Some((what, expected, found)) => Err(RestoreError::Incomplete {
                what,
                expected,
                found,
            }),
            None => Ok(()),
        }
    }

    fn take_partition(
        &mut self,
        state: &mut State,
        part: proto::Partition,
    ) -> Result<(), DecodeError> {
        let id = PartitionId(part.id);
        if state.partitions.get(id.0).is_some() || state.doomed.get(&id).is_some() {
            return Err(value("a partition is there twice"));
        }
        let mut partition = Partition::new(decode_topic_id(&part.topic)?, part.index);
        partition.log_start = offset(part.log_start)?;
        partition.high_watermark = offset(part.high_watermark)?;
        partition.producers = decode_producers(
            &part
                .producers
                .ok_or(value("a partition has no producers"))?,
        )?;
        restore_blocks(state.level, &mut partition.slices, part.blocks)?;
        if !part.open.is_empty() {
            let open = Block::read(state.level, part.open.into())
                .ok_or(value("the open slices are none"))?;
            if !partition.slices.restore_open(state.level, &open) {
                return Err(value("the open slices fill a block"));
            }
        }
        self.slices += partition.slices.len();
        if part.doomed {
            state.doomed.insert(id, Arc::new(partition));
        } else {
            state.partitions.insert(id.0, partition);
        }
        Ok(())
    }

    fn take_run(&mut self, state: &mut State, run: proto::SliceRun) -> Result<(), DecodeError> {
        let id = PartitionId(run.partition);
        let partition = match state.doomed.get_mut(&id) {
            Some(doomed) => Some(Arc::make_mut(doomed)),
            None => state.partitions.get_mut(id.0),
        };
        let slices = &mut partition.ok_or(value("slices have no partition"))?.slices;
        let before = slices.len();
        restore_blocks(state.level, slices, run.blocks)?;
        self.slices += slices.len() - before;
        Ok(())
    }
}

fn restore_blocks(
    level: &Level,
    slices: &mut Slices,
    blocks: Vec<Bytes>,
) -> Result<(), DecodeError> {
    for packed in blocks {
        let block = Block::read(level, packed).ok_or(value("a block of slices is none"))?;
        if !slices.restore_block(block) {
            return Err(value("blocks of slices overlap, or are out of order"));
        }
    }
    Ok(())
}

fn take_members(state: &mut State, part: proto::Members) -> Result<(), DecodeError> {
    for agent in part.agents {
        let agent = decode_agent(agent)?;
        state.members.names.insert(agent.name.clone(), agent.id);
        if state.members.agents.insert(agent.id, agent).is_some() {
            return Err(value("an agent is there twice"));
        }
    }
    for run in part.runs {
        let (incarnation, run) = decode_run(state.level, run)?;
        if state
            .members
            .runs
            .insert(incarnation, Arc::new(run))
            .is_some()
        {
            return Err(value("an incarnation is there twice"));
        }
    }
    Ok(())
}

fn decode_agent(agent: proto::Agent) -> Result<Agent, DecodeError> {
    Ok(Agent {
        id: agent_id(agent.id)?,
        name: agent.name,
        listeners: decode_listeners(agent.listeners)?,
        region: agent.region,
        zone: agent.zone,
        neighbour_address: agent.neighbour_address,
        level: agent.level,
        incarnation: Incarnation(agent.incarnation),
        drains: agent.drains,
        cut_off: agent.cut_off,
    })
}

fn decode_run(level: &Level, run: proto::Run) -> Result<(Incarnation, Run), DecodeError> {
    let columns = run.skipped_number.len() == run.skipped_ticks.len();
    if !columns || !run.skipped_number.is_sorted_by(|a, b| a < b) {
        return Err(value(
            "skipped numbers are not sorted, or without their times",
        ));
    }
    if run.kept.len() > level.outcomes_kept {
        return Err(value("an incarnation keeps too many outcomes"));
    }
    let skipped = run
        .skipped_number
        .into_iter()
        .zip(run.skipped_ticks)
        .collect();
    let decoded = Run {
        agent: agent_id(run.agent)?,
        nonce: decode_nonce(&run.nonce)?,
        next_number: run.next_number,
        fenced_ticks: one_less(run.fenced),
        skipped,
        kept: run.kept.iter().map(decode_kept).collect::<Result<_, _>>()?,
    };
    Ok((Incarnation(run.incarnation), decoded))
}

fn decode_kept(kept: &proto::Kept) -> Result<Kept, DecodeError> {
    if !kept.committed {
        let nothing = *kept == proto::Kept::default();
        return nothing
            .then_some(Kept::Skipped)
            .ok_or(value("a skipped number has outcomes"));
    }
    let outcomes = Packed::read(kept.outcomes.clone());
    Ok(Kept::Committed {
        nonce: kept.nonce,
        length: kept.length,
        checksum: kept.checksum,
        outcomes: outcomes.ok_or(value("an outcome is unknown or without its offsets"))?,
    })
}

fn take_topic(state: &mut State, topic: proto::Topic) -> Result<(), DecodeError> {
    let id: TopicId = decode_topic_id(&topic.id)?;
    let mut partitions = Vec::new();
    if topic.partition_first.len() != topic.partition_count.len() {
        return Err(value("runs of partitions have no lengths"));
    }
    for (first, count) in topic.partition_first.iter().zip(&topic.partition_count) {
        let total = u64::try_from(partitions.len())
            .unwrap_or(u64::MAX)
            .saturating_add(*count);
        if *first > state.level.counter_max || total > u64::from(state.level.topic_partitions_max) {
            return Err(value("a topic has more partitions than a topic can have"));
        }
        partitions.extend((*first..first + count).map(PartitionId));
    }
    if state.topics.get(id).is_some() || state.topics.named(&topic.name).is_some() {
        return Err(value("a topic is there twice"));
    }
    let configs = decode_pairs(topic.configs)?;
    let topic = Topic {
        id,
        name: topic.name,
        partitions,
        configs,
        replication_factor: decode_factor(topic.replication_factor)?,
        version: topic.version,
    };
    state.topics.insert(topic);
    Ok(())
}

fn take_files(state: &mut State, part: &proto::Files) -> Result<(), DecodeError> {
    let rows = part.number.len();
    let columns = [
        part.nonce.len(),
        part.length.len(),
        part.checksum.len(),
        part.placement.len(),
        part.committed_wall_millis.len(),
        part.live_slices.len(),
        part.live_bytes.len(),
        part.tombstoned.len(),
        part.left.len(),
    ];
    let counted = part
        .incarnation_files
        .iter()
        .try_fold(0_u64, |sum, n| sum.checked_add(*n));
    if columns.iter().any(|column| *column != rows)
        || part.incarnation.len() != part.incarnation_files.len()
        || counted.and_then(|sum| usize::try_from(sum).ok()) != Some(rows)
    {
        return Err(value("columns of files differ in length"));
    }
    let runs = part.incarnation.iter().zip(&part.incarnation_files);
    let incarnations = runs.flat_map(|(incarnation, files)| {
        std::iter::repeat_n(*incarnation, usize::try_from(*files).unwrap_or(0))
    });
    for (row, incarnation) in incarnations.enumerate() {
        let (id, file) = file(part, row, incarnation).ok_or(value("a file lacks a column"))?;
        let left = part.left.get(row).copied().unwrap_or(0);
        if file.is_tombstoned() == (left == 0) {
            return Err(value(
                "a file is to be deleted and is no tombstone, or the other way round",
            ));
        }
        if !state.files.restore(id, file, left) {
            return Err(value("a file is there twice"));
        }
    }
    Ok(())
}

fn file(part: &proto::Files, row: usize, incarnation: u64) -> Option<(FileId, File)> {
    let id = FileId {
        incarnation: Incarnation(incarnation),
        number: *part.number.get(row)?,
    };
    let file = File {
        nonce: *part.nonce.get(row)?,
        length: *part.length.get(row)?,
        checksum: *part.checksum.get(row)?,
        home: Home::Buckets(*part.placement.get(row)?),
        committed_wall_millis: *part.committed_wall_millis.get(row)?,
        live_slices: *part.live_slices.get(row)?,
        live_bytes: *part.live_bytes.get(row)?,
        tombstoned_ticks: one_less(*part.tombstoned.get(row)?),
    };
    Some((id, file))
}

fn decode_producers(part: &proto::Producers) -> Result<Producers, DecodeError> {
    let rows = part.id.len();
    let columns = [
        part.epoch.len(),
        part.touched_ticks.len(),
        part.appended.len(),
    ];
    let batches = part.base_sequence.len();
    let batch_columns = [part.last_sequence.len(), part.base_offset.len()];
    let counted: u64 = part.window.iter().map(|window| u64::from(*window)).sum();
    if columns.iter().any(|column| *column != rows)
        || part.window.len() != rows
        || batch_columns.iter().any(|column| *column != batches)
        || usize::try_from(counted) != Ok(batches)
    {
        return Err(value("columns of producers differ in length"));
    }
    let mut next = 0;
    let decode = |row| {
        let window = usize::try_from(*part.window.get(row)?).ok()?;
        let remembered: Vec<Remembered> = (next..next + window)
            .map(|at| remembered(part, at))
            .collect::<Option<_>>()?;
        next += window;
        let id = ProducerId(i64::try_from(*part.id.get(row)?).ok()?);
        let epoch = i16::try_from(*part.epoch.get(row)?).ok()?;
        let (touched, appended) = (*part.touched_ticks.get(row)?, *part.appended.get(row)?);
        Producer::restored((id, epoch), touched, appended, &remembered)
    };
    let producers = (0..rows).map(decode).collect::<Option<Vec<_>>>();
    producers
        .and_then(Producers::restored)
        .ok_or(value("a producer contradicts itself"))
}

fn remembered(part: &proto::Producers, at: usize) -> Option<Remembered> {
    Some(Remembered {
        base_sequence: i32::try_from(*part.base_sequence.get(at)?).ok()?,
        last_sequence: i32::try_from(*part.last_sequence.get(at)?).ok()?,
        base_offset: i64::try_from(*part.base_offset.get(at)?).ok()?,
    })
}
