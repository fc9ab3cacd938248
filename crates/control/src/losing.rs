//! What is lost with a command that is left out, for people: records, topics, offsets of groups. Pure. It must not know why it is left out.

use std::collections::BTreeMap;

use meta::State;
use meta::command::Command;
use meta::commit::CommitFile;
use meta::group;
use meta::ids::{PartitionId, TopicId};

/// What is lost with this command, as far as `state`, which is before it, knows the names: a line for each thing.
pub(crate) fn lines(state: &State, command: &Command) -> Vec<String> {
    let line = match command {
        Command::CommitFile(file) => return records(state, file),
        Command::Group(command) => return group(state, command),
        Command::RegisterAgent(agent) => format!("agent {} is not registered by it", agent.name),
        Command::FenceAgent { incarnation }
        | Command::DrainAgent { incarnation }
        | Command::SetAgentCutOff { incarnation, .. } => {
            format!(
                "what was noted of incarnation {} of an agent",
                incarnation.0
            )
        }
        Command::SkipFile { file } => format!("that file {file} was given up"),
        Command::CreateTopic(topic) => format!(
            "topic {}, of {} partitions, is not created",
            topic.name, topic.partitions
        ),
        Command::DeleteTopic { id } => format!("topic {} is not deleted", topic(state, *id)),
        Command::CreatePartitions { id, total } => format!(
            "topic {} is not given {total} partitions",
            topic(state, *id)
        ),
        Command::SetTopicConfigs { id, .. } => {
            format!("configs of topic {} are not set", topic(state, *id))
        }
        Command::SetClusterConfigs { .. } => "configs of the cluster are not set".to_owned(),
        Command::AllocateProducer { .. } => "a producer id, or an epoch of one".to_owned(),
        Command::Housekeep => "a step of retention, which is done again".to_owned(),
        Command::FilesDeleted { bucket, files } | Command::AddCopies { bucket, files } => format!(
            "what was noted of {} files in bucket {bucket}, which is told again",
            files.len()
        ),
        Command::DropCopies(told) => format!(
            "that bucket {} lacks {} files, which is found again",
            told.bucket,
            told.files.len()
        ),
        Command::BucketCompared(told) => format!(
            "that bucket {} was compared, which is done again",
            told.bucket
        ),
        Command::MarkBucket { bucket, .. } => {
            format!("what was noted of bucket {bucket}, which is told again")
        }
        Command::RegisterControlNode(node) => {
            format!("what was noted of control node {}", node.name)
        }
        Command::RemoveControlNode { name, .. } => {
            format!("what was noted of control node {name}")
        }
        Command::SetFeatureLevel { level } => format!("feature level {level} is not in force"),
        Command::SetPlacement(placement) => {
            format!("placement {} is not in force", placement.number)
        }
        Command::SetTime { .. } => "the time of the journal is not set".to_owned(),
    };
    vec![line]
}

/// The records of a file, by partition.
fn records(state: &State, file: &CommitFile) -> Vec<String> {
    let mut lost: BTreeMap<u64, u64> = BTreeMap::new();
    let mut batches = file.batches.records.iter();
    for (partition, count) in file.slices.partition.iter().zip(&file.slices.batches) {
        let of_slice = batches.by_ref().take(*count as usize);
        let records: u64 = of_slice.map(|records| u64::from(*records)).sum();
        *lost.entry(*partition).or_default() += records;
    }
    let line = |(partition, records): (&u64, &u64)| {
        let partition = PartitionId(*partition);
        let place = match state.partition(partition) {
            Some(known) => format!(
                "partition {} of topic {}",
                known.index(),
                topic(state, known.topic())
            ),
            None => format!(
                "the partition of id {}, which is not known before this entry",
                partition.0
            ),
        };
        format!("{records} records of {place}, in file {}", file.file)
    };
    lost.iter().map(line).collect()
}

fn group(state: &State, command: &group::Command) -> Vec<String> {
    let name = &command.group;
    let offsets = match &command.action {
        group::Action::Commit(commit) => &commit.offsets,
        group::Action::Delete => return vec![format!("group {name} is not deleted")],
        group::Action::Join(_)
        | group::Action::CompleteJoin { .. }
        | group::Action::Sync(_)
        | group::Action::Leave(_)
        | group::Action::Expire(_)
        | group::Action::MarkSilence { .. } => {
            return vec![format!("what was noted of members of group {name}")];
        }
    };
    let mut lost: BTreeMap<TopicId, u64> = BTreeMap::new();
    for offset in offsets {
        *lost.entry(offset.topic).or_default() += 1;
    }
    let line = |(id, partitions): (&TopicId, &u64)| {
        format!(
            "offsets of group {name} in {partitions} partitions of topic {}",
            topic(state, *id)
        )
    };
    lost.iter().map(line).collect()
}

/// A topic by its name, if it is known.
fn topic(state: &State, id: TopicId) -> String {
    match state.topic_by_id(id) {
        Some(topic) => topic.name.clone(),
        None => format!("of id {:032x}, which is not known before this entry", id.0),
    }
}

#[cfg(test)]
mod tests;
