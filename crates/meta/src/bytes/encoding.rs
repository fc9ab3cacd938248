//! Commands as bytes, and back. Reading is strict: bytes that this very encoding would not have
//! written are refused, so that no replica silently drops a field that another one applies. It must
//! not know what a command does.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message as _;

use super::group::Malformed;
use super::proto::{self, command::Kind};
use crate::terms::command::{
    Bucket, BucketCompared, Command, ConfigChanges, ControlNode, CreateTopic, DropCopies,
    Placement, RegisterAgent,
};
use crate::terms::commit::{BatchColumns, CommitFile, SliceColumns};
use crate::terms::endpoint::Endpoint;
use crate::terms::ids::{FileId, Incarnation, ProducerId, TopicId};
use crate::terms::level::{Level, TooNew};
use crate::terms::places::FileRef;

/// Why bytes are no command, or no part of a snapshot. A replica that meets this in a journal
/// halts: another one may have understood them.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not a protobuf message of the expected shape.
    #[error("not the expected protobuf message: {0}")]
    Shape(prost::DecodeError),
    /// The bytes hold something this build does not know, or are written in another way than this
    /// build writes them.
    #[error("holds fields that this build does not know, or is not in canonical form")]
    NotCanonical,
    /// A value that no build writes.
    #[error("{what}")]
    Value { what: &'static str },
    /// A group's part that no build writes.
    #[error(transparent)]
    Group(#[from] Malformed),
}

fn value(what: &'static str) -> DecodeError {
    DecodeError::Value { what }
}

/// Reads a message, and refuses it unless writing it again gives the same bytes.
pub(crate) fn decode_strictly<M: prost::Message + Default>(bytes: &[u8]) -> Result<M, DecodeError> {
    let message = M::decode(bytes).map_err(DecodeError::Shape)?;
    if message.encode_to_vec() != bytes {
        return Err(DecodeError::NotCanonical);
    }
    Ok(message)
}

impl Command {
    /// The command as it stands in a journal entry (docs/formats/commands.md) while `level` is in
    /// force; what that level does not have cannot be written.
    pub fn encode(&self, level: &Level) -> Result<Vec<u8>, TooNew> {
        level.check_has(self.since())?;
        let kind = Some(encode_kind(self));
        Ok(proto::Command { kind }.encode_to_vec())
    }

    /// Reads a command. Strict: unknown fields and variants, other encodings of the same values,
    /// and values that no command has are errors.
    pub fn decode(bytes: &[u8]) -> Result<Command, DecodeError> {
        let command: proto::Command = decode_strictly(bytes)?;
        decode_kind(command.kind.ok_or(value("the command has no kind"))?)
    }
}

/// Bytes of a commit beside its batches, at most: the fields of the file, numbers of 64 buckets,
/// and tag and length of each column, which come to 183 bytes.
const COMMIT_BYTES_MAX: usize = 256;
/// Bytes of a batch in a commit, at most: three numbers of up to 5 bytes, two of up to 10, an epoch
/// of 3, a bit of 1; and if it is alone in its slice, two of up to 5 and two of up to 10 more.
const COMMIT_BATCH_BYTES_MAX: usize = (3 * 5 + 2 * 10 + 3 + 1) + (2 * 5 + 2 * 10);

/// The number of batches, of any kind, that always fit into a commit of `bytes`.
pub fn batches_in_commit(bytes: usize) -> usize {
    bytes.saturating_sub(COMMIT_BYTES_MAX) / COMMIT_BATCH_BYTES_MAX
}

fn encode_kind(command: &Command) -> Kind {
    match command {
        Command::RegisterAgent(request) => Kind::RegisterAgent(encode_agent(request)),
        Command::FenceAgent { incarnation } => Kind::FenceAgent(proto::FenceAgent {
            incarnation: incarnation.0,
        }),
        Command::DrainAgent { incarnation } => Kind::DrainAgent(proto::DrainAgent {
            incarnation: incarnation.0,
        }),
        Command::SetAgentCutOff {
            incarnation,
            cut_off,
        } => Kind::SetAgentCutOff(encode_cut_off(*incarnation, *cut_off)),
        Command::CommitFile(file) => Kind::CommitFile(encode_file(file)),
        Command::SkipFile { file } => Kind::SkipFile(proto::SkipFile {
            incarnation: file.incarnation.0,
            number: file.number,
        }),
        Command::CreateTopic(topic) => Kind::CreateTopic(encode_topic(topic)),
        Command::DeleteTopic { id } => Kind::DeleteTopic(proto::DeleteTopic {
            id: encode_topic_id(*id),
        }),
        Command::CreatePartitions { id, total } => {
            Kind::CreatePartitions(proto::CreatePartitions {
                id: encode_topic_id(*id),
                total: *total,
            })
        }
        Command::SetTopicConfigs { id, changes } => Kind::SetTopicConfigs(proto::SetTopicConfigs {
            id: encode_topic_id(*id),
            set: encode_pairs(&changes.set),
            remove: changes.remove.iter().cloned().collect(),
        }),
        Command::SetClusterConfigs { replaces, changes } => {
            Kind::SetClusterConfigs(proto::SetClusterConfigs {
                replaces: *replaces,
                set: encode_pairs(&changes.set),
                remove: changes.remove.iter().cloned().collect(),
            })
        }
        Command::AllocateProducer { known } => Kind::AllocateProducer(encode_producer(*known)),
        Command::Housekeep => Kind::Housekeep(proto::Housekeep {}),
        Command::FilesDeleted { bucket, files } => Kind::FilesDeleted(proto::FilesDeleted {
            files: encode_files(files),
            bucket: *bucket,
        }),
        Command::AddCopies { bucket, files } => Kind::AddCopies(proto::AddCopies {
            bucket: *bucket,
            files: encode_files(files),
        }),
        Command::DropCopies(drop) => Kind::DropCopies(encode_drop(drop)),
        Command::BucketCompared(compared) => Kind::BucketCompared(encode_compared(*compared)),
        Command::MarkBucket { bucket, is_away } => Kind::MarkBucket(proto::MarkBucket {
            bucket: *bucket,
            is_away: *is_away,
        }),
        Command::RegisterControlNode(node) => Kind::RegisterControlNode(encode_control_node(node)),
        Command::RemoveControlNode { name, nonce } => {
            Kind::RemoveControlNode(encode_removal(name, *nonce))
        }
        Command::SetFeatureLevel { level } => {
            Kind::SetFeatureLevel(proto::SetFeatureLevel { level: *level })
        }
        Command::SetPlacement(placement) => Kind::SetPlacement(encode_placement(placement)),
        Command::SetTime { wall_millis } => Kind::SetTime(proto::SetTime {
            wall_millis: *wall_millis,
        }),
        Command::Group(command) => Kind::Group(command.into()),
    }
}

fn encode_cut_off(incarnation: Incarnation, cut_off: bool) -> proto::SetAgentCutOff {
    proto::SetAgentCutOff {
        incarnation: incarnation.0,
        cut_off,
    }
}

fn decode_cut_off(set: proto::SetAgentCutOff) -> Command {
    Command::SetAgentCutOff {
        incarnation: Incarnation(set.incarnation),
        cut_off: set.cut_off,
    }
}

fn encode_drop(drop: &DropCopies) -> proto::DropCopies {
    proto::DropCopies {
        by: drop.by.0,
        bucket: drop.bucket,
        is_missing: drop.is_missing,
        files: encode_files(&drop.files),
    }
}

fn decode_drop(drop: &proto::DropCopies) -> Result<DropCopies, DecodeError> {
    Ok(DropCopies {
        by: Incarnation(drop.by),
        bucket: drop.bucket,
        is_missing: drop.is_missing,
        files: decode_files(&drop.files)?,
    })
}

fn encode_compared(compared: BucketCompared) -> proto::BucketCompared {
    proto::BucketCompared {
        by: compared.by.0,
        bucket: compared.bucket,
        since_ticks: compared.since_ticks,
    }
}

fn decode_compared(compared: proto::BucketCompared) -> BucketCompared {
    BucketCompared {
        by: Incarnation(compared.by),
        bucket: compared.bucket,
        since_ticks: compared.since_ticks,
    }
}

fn encode_producer(known: Option<(ProducerId, i16)>) -> proto::AllocateProducer {
    proto::AllocateProducer {
        known: known.map(|(id, epoch)| proto::ProducerEpoch {
            producer_id: id.0.cast_unsigned(),
            epoch: u32::from(epoch.cast_unsigned()),
        }),
    }
}

fn decode_kind(kind: Kind) -> Result<Command, DecodeError> {
    Ok(match kind {
        Kind::RegisterAgent(request) => Command::RegisterAgent(decode_agent(request)?),
        Kind::FenceAgent(fence) => Command::FenceAgent {
            incarnation: Incarnation(fence.incarnation),
        },
        Kind::DrainAgent(drain) => Command::DrainAgent {
            incarnation: Incarnation(drain.incarnation),
        },
        Kind::SetAgentCutOff(set) => decode_cut_off(set),
        Kind::CommitFile(file) => Command::CommitFile(decode_file(file)),
        Kind::SkipFile(skip) => Command::SkipFile {
            file: file_id(skip.incarnation, skip.number),
        },
        Kind::CreateTopic(topic) => Command::CreateTopic(decode_topic(topic)?),
        Kind::DeleteTopic(delete) => Command::DeleteTopic {
            id: decode_topic_id(&delete.id)?,
        },
        Kind::CreatePartitions(create) => {
            let id = decode_topic_id(&create.id)?;
            Command::CreatePartitions {
                id,
                total: create.total,
            }
        }
        Kind::SetTopicConfigs(configs) => Command::SetTopicConfigs {
            id: decode_topic_id(&configs.id)?,
            changes: decode_changes(configs.set, configs.remove)?,
        },
        Kind::SetClusterConfigs(configs) => {
            let (replaces, changes) = (
                configs.replaces,
                decode_changes(configs.set, configs.remove)?,
            );
            Command::SetClusterConfigs { replaces, changes }
        }
        Kind::AllocateProducer(allocate) => {
            let known = allocate.known.map(decode_producer).transpose()?;
            Command::AllocateProducer { known }
        }
        Kind::Housekeep(proto::Housekeep {}) => Command::Housekeep,
        Kind::FilesDeleted(deleted) => Command::FilesDeleted {
            bucket: deleted.bucket,
            files: decode_files(&deleted.files)?,
        },
        Kind::AddCopies(copies) => Command::AddCopies {
            bucket: copies.bucket,
            files: decode_files(&copies.files)?,
        },
        Kind::DropCopies(drop) => Command::DropCopies(decode_drop(&drop)?),
        Kind::BucketCompared(compared) => Command::BucketCompared(decode_compared(compared)),
        Kind::MarkBucket(mark) => Command::MarkBucket {
            bucket: mark.bucket,
            is_away: mark.is_away,
        },
        Kind::RegisterControlNode(node) => Command::RegisterControlNode(decode_control_node(node)?),
        Kind::RemoveControlNode(remove) => Command::RemoveControlNode {
            nonce: decode_nonce(&remove.nonce)?,
            name: remove.name,
        },
        Kind::SetFeatureLevel(set) => Command::SetFeatureLevel { level: set.level },
        Kind::SetPlacement(placement) => Command::SetPlacement(decode_placement(&placement)?),
        Kind::SetTime(set) => Command::SetTime {
            wall_millis: set.wall_millis,
        },
        Kind::Group(command) => Command::Group(command.try_into()?),
    })
}

fn encode_removal(name: &str, nonce: u128) -> proto::RemoveControlNode {
    proto::RemoveControlNode {
        name: name.to_owned(),
        nonce: encode_nonce(nonce),
    }
}

fn decode_topic(topic: proto::CreateTopic) -> Result<CreateTopic, DecodeError> {
    Ok(CreateTopic {
        id: decode_topic_id(&topic.id)?,
        name: topic.name,
        partitions: topic.partitions,
        configs: decode_pairs(topic.configs)?,
        replication_factor: decode_factor(topic.replication_factor)?,
    })
}

fn encode_topic(topic: &CreateTopic) -> proto::CreateTopic {
    proto::CreateTopic {
        id: encode_topic_id(topic.id),
        name: topic.name.clone(),
        partitions: topic.partitions,
        configs: encode_pairs(&topic.configs),
        replication_factor: u32::from(topic.replication_factor),
    }
}

fn encode_agent(request: &RegisterAgent) -> proto::RegisterAgent {
    proto::RegisterAgent {
        nonce: encode_nonce(request.nonce),
        name: request.name.clone(),
        listeners: encode_listeners(&request.listeners),
        region: request.region.clone(),
        zone: request.zone.clone(),
        neighbour_address: request.neighbour_address.clone(),
        level: request.level,
    }
}

fn decode_agent(request: proto::RegisterAgent) -> Result<RegisterAgent, DecodeError> {
    Ok(RegisterAgent {
        nonce: decode_nonce(&request.nonce)?,
        name: request.name,
        listeners: decode_listeners(request.listeners)?,
        region: request.region,
        zone: request.zone,
        neighbour_address: request.neighbour_address,
        level: request.level,
    })
}

pub(crate) fn encode_listeners(listeners: &BTreeMap<String, Endpoint>) -> Vec<proto::Listener> {
    let listener = |(name, endpoint): (&String, &Endpoint)| proto::Listener {
        name: name.clone(),
        host: endpoint.host.clone(),
        port: u32::from(endpoint.port),
    };
    listeners.iter().map(listener).collect()
}

pub(crate) fn decode_listeners(
    listeners: Vec<proto::Listener>,
) -> Result<BTreeMap<String, Endpoint>, DecodeError> {
    if !listeners.is_sorted_by(|a, b| a.name < b.name) {
        return Err(value("listeners are not sorted"));
    }
    let listener = |listener: proto::Listener| {
        let port = u16::try_from(listener.port);
        let port = port.map_err(|_| value("a port has more than 16 bits"))?;
        let host = listener.host;
        Ok((listener.name, Endpoint { host, port }))
    };
    listeners.into_iter().map(listener).collect()
}

pub(crate) fn decode_factor(factor: u32) -> Result<u16, DecodeError> {
    u16::try_from(factor).map_err(|_| value("a replication factor has more than 16 bits"))
}

fn encode_file(command: &CommitFile) -> proto::CommitFile {
    let (slices, batches) = (&command.slices, &command.batches);
    proto::CommitFile {
        incarnation: command.file.incarnation.0,
        number: command.file.number,
        nonce: command.nonce,
        length: command.length,
        checksum: command.checksum,
        placement: command.placement.clone(),
        slice_partition: slices.partition.clone(),
        slice_position: slices.position.clone(),
        slice_length: slices.length.clone(),
        slice_batches: slices.batches.clone(),
        batch_records: batches.records.clone(),
        batch_bytes: batches.bytes.clone(),
        batch_max_timestamp: batches.max_timestamp.clone(),
        batch_producer_id: batches.producer_id.clone(),
        batch_producer_epoch: batches.producer_epoch.clone(),
        batch_base_sequence: batches.base_sequence.clone(),
        batch_time_source: batches.time_source.clone(),
    }
}

fn decode_file(command: proto::CommitFile) -> CommitFile {
    CommitFile {
        file: file_id(command.incarnation, command.number),
        nonce: command.nonce,
        length: command.length,
        checksum: command.checksum,
        placement: command.placement,
        slices: SliceColumns {
            partition: command.slice_partition,
            position: command.slice_position,
            length: command.slice_length,
            batches: command.slice_batches,
        },
        batches: BatchColumns {
            records: command.batch_records,
            bytes: command.batch_bytes,
            max_timestamp: command.batch_max_timestamp,
            producer_id: command.batch_producer_id,
            producer_epoch: command.batch_producer_epoch,
            base_sequence: command.batch_base_sequence,
            time_source: command.batch_time_source,
        },
    }
}

fn decode_producer(known: proto::ProducerEpoch) -> Result<(ProducerId, i16), DecodeError> {
    let epoch = u16::try_from(known.epoch).map_err(|_| value("an epoch has more than 16 bits"))?;
    Ok((
        ProducerId(known.producer_id.cast_signed()),
        epoch.cast_signed(),
    ))
}

fn encode_files(files: &BTreeSet<FileRef>) -> Vec<proto::FileNumbers> {
    let mut runs: Vec<proto::FileNumbers> = Vec::new();
    for FileRef { file, nonce } in files {
        if runs.last().map(|run| run.incarnation) != Some(file.incarnation.0) {
            runs.push(proto::FileNumbers {
                incarnation: file.incarnation.0,
                ..proto::FileNumbers::default()
            });
        }
        if let Some(run) = runs.last_mut() {
            run.numbers.push(file.number);
            run.nonces.push(*nonce);
        }
    }
    runs
}

fn decode_files(runs: &[proto::FileNumbers]) -> Result<BTreeSet<FileRef>, DecodeError> {
    let all = |run: &proto::FileNumbers| {
        let incarnation = run.incarnation;
        let rows = run.numbers.iter().zip(&run.nonces);
        rows.map(move |(number, nonce)| FileRef {
            file: file_id(incarnation, *number),
            nonce: *nonce,
        })
        .collect::<Vec<_>>()
    };
    let files: Vec<FileRef> = runs.iter().flat_map(all).collect();
    let sound =
        |run: &proto::FileNumbers| !run.numbers.is_empty() && run.numbers.len() == run.nonces.len();
    let sorted = files.is_sorted_by(|a, b| a < b)
        && runs.is_sorted_by(|a, b| a.incarnation < b.incarnation)
        && runs.iter().all(sound);
    if sorted {
        Ok(files.into_iter().collect())
    } else {
        Err(value("files are not sorted"))
    }
}

pub(crate) fn encode_control_node(node: &ControlNode) -> proto::RegisterControlNode {
    proto::RegisterControlNode {
        nonce: encode_nonce(node.nonce),
        name: node.name.clone(),
        claims_as: node.claims_as.clone(),
        address: node.address.clone(),
        region: node.region.clone(),
        zone: node.zone.clone(),
        level: node.level,
    }
}

pub(crate) fn decode_control_node(
    node: proto::RegisterControlNode,
) -> Result<ControlNode, DecodeError> {
    Ok(ControlNode {
        nonce: decode_nonce(&node.nonce)?,
        name: node.name,
        claims_as: node.claims_as,
        address: node.address,
        region: node.region,
        zone: node.zone,
        level: node.level,
    })
}

pub(crate) fn encode_placement(placement: &Placement) -> proto::SetPlacement {
    let buckets = placement.buckets.iter();
    let buckets = buckets.map(|(number, bucket)| proto::PlacedBucket {
        bucket: *number,
        domain: bucket.domain,
        generation: bucket.generation,
    });
    proto::SetPlacement {
        number: placement.number,
        copies: placement.copies,
        buckets: buckets.collect(),
    }
}

pub(crate) fn decode_placement(placement: &proto::SetPlacement) -> Result<Placement, DecodeError> {
    if !placement.buckets.is_sorted_by(|a, b| a.bucket < b.bucket) {
        return Err(value("buckets are not sorted"));
    }
    let bucket = |placed: &proto::PlacedBucket| {
        let (domain, generation) = (placed.domain, placed.generation);
        (placed.bucket, Bucket { domain, generation })
    };
    Ok(Placement {
        number: placement.number,
        copies: placement.copies,
        buckets: placement.buckets.iter().map(bucket).collect(),
    })
}

pub(crate) fn encode_pairs(pairs: &BTreeMap<String, String>) -> Vec<proto::Pair> {
    let pair = |(name, value): (&String, &String)| proto::Pair {
        name: name.clone(),
        value: value.clone(),
    };
    pairs.iter().map(pair).collect()
}

pub(crate) fn decode_pairs(
    pairs: Vec<proto::Pair>,
) -> Result<BTreeMap<String, String>, DecodeError> {
    if !pairs.is_sorted_by(|a, b| a.name < b.name) {
        return Err(value("configs are not sorted by name"));
    }
    Ok(pairs
        .into_iter()
        .map(|pair| (pair.name, pair.value))
        .collect())
}

fn decode_changes(
    set: Vec<proto::Pair>,
    remove: Vec<String>,
) -> Result<ConfigChanges, DecodeError> {
    if !remove.is_sorted_by(|a, b| a < b) {
        return Err(value("names of configs are not sorted"));
    }
    Ok(ConfigChanges {
        set: decode_pairs(set)?,
        remove: remove.into_iter().collect(),
    })
}

pub(crate) fn encode_topic_id(id: TopicId) -> Vec<u8> {
    id.0.to_be_bytes().to_vec()
}

pub(crate) fn decode_topic_id(bytes: &[u8]) -> Result<TopicId, DecodeError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| value("a topic id does not have 16 bytes"))?;
    Ok(TopicId(u128::from_be_bytes(bytes)))
}

pub(crate) fn encode_nonce(nonce: u128) -> Vec<u8> {
    nonce.to_be_bytes().to_vec()
}

pub(crate) fn decode_nonce(bytes: &[u8]) -> Result<u128, DecodeError> {
    let bytes = bytes
        .try_into()
        .map_err(|_| value("a nonce does not have 16 bytes"))?;
    Ok(u128::from_be_bytes(bytes))
}

fn file_id(incarnation: u64, number: u64) -> FileId {
    FileId {
        incarnation: Incarnation(incarnation),
        number,
    }
}
