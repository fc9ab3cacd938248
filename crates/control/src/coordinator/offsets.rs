//! Committing and fetching offsets: topic names become ids here. Must not decide who may commit.

use host::clock::Instant;
use meta::group::{Action, Command, CommitOffsets, Group, OffsetEntry, Refusal};
use meta::ids::TopicId;
use meta::offset::CommittedOffset;
use rpc::group::{
    CommitPartition, FetchGroup, FetchedGroup, FetchedPartition, FetchedTopic, GroupError,
    GroupReply, TopicName,
};

use super::answers::{Room, fetched_bytes};
use super::proposals::Purpose;
use super::{Coordinator, Metadata, Ticket};

impl Coordinator {
    pub(super) fn commit(
        &mut self,
        now: Instant,
        ticket: Ticket,
        commit: rpc::group::CommitOffsets,
        metadata: &dyn Metadata,
    ) {
        if let Some(group) = metadata.groups().get(&commit.group)
            && group
                .validate_member(&commit.member, commit.instance.as_deref())
                .is_ok()
            && group.generation() == commit.generation
        {
            self.hear(now, &commit.group, group, &commit.member);
        }
        let (mut results, rows, offsets) = entries(commit.topics, metadata);
        if offsets.is_empty() {
            return self.answer(ticket, GroupReply::Commit(results));
        }
        let offsets = CommitOffsets {
            by: commit.by,
            member: commit.member,
            instance: commit.instance,
            generation: commit.generation,
            offsets,
        };
        let command = Command {
            group: commit.group,
            action: Action::Commit(offsets),
        };
        if !self.has_room(metadata, &command) {
            for row in rows {
                results[row] = Err(GroupError::NoRoom);
            }
            return self.answer(ticket, GroupReply::Commit(results));
        }
        let purpose = Purpose::Commit {
            ticket,
            results,
            rows,
        };
        self.propose(now, command, purpose);
    }
}

/// What the groups have committed.
pub(super) fn fetch(groups: Vec<FetchGroup>, metadata: &dyn Metadata) -> Vec<FetchedGroup> {
    let mut room = Room::new();
    let fetch_one = |asked: FetchGroup| {
        let topics = room.admit().map(|()| {
            let topics = fetch_topics(&asked.group, asked.topics, metadata);
            room.take(fetched_bytes(&asked.group, &topics));
            topics
        });
        FetchedGroup {
            group: asked.group,
            topics,
        }
    };
    groups.into_iter().map(fetch_one).collect()
}

/// What a commit asks for: a result for each partition, and the offsets that can be committed, each
/// with the place of its result.
fn entries(
    asked: Vec<(TopicName, Vec<CommitPartition>)>,
    metadata: &dyn Metadata,
) -> (Vec<Result<(), GroupError>>, Vec<usize>, Vec<OffsetEntry>) {
    let (mut results, mut rows, mut offsets) = (Vec::new(), Vec::new(), Vec::new());
    for (topic, partitions) in asked {
        let id = resolve(&topic, metadata);
        for partition in partitions {
            let index = u32::try_from(partition.partition);
            results.push(match (id, index) {
                (Ok(id), Ok(index)) => {
                    rows.push(results.len());
                    offsets.push(OffsetEntry {
                        topic: id,
                        partition: index,
                        offset: partition.offset,
                        leader_epoch: partition.leader_epoch,
                        metadata: partition.metadata,
                    });
                    Ok(())
                }
                (Err(error), _) => Err(error),
                (_, Err(_)) => Err(Refusal::UnknownTopicOrPartition.into()),
            });
        }
    }
    (results, rows, offsets)
}

fn resolve(topic: &TopicName, metadata: &dyn Metadata) -> Result<TopicId, GroupError> {
    match topic {
        TopicName::Name(name) => metadata
            .topic_id(name)
            .ok_or(Refusal::UnknownTopicOrPartition.into()),
        TopicName::Id(id) => metadata
            .topic_name(*id)
            .map(|_| *id)
            .ok_or(GroupError::UnknownTopicId),
    }
}

fn fetch_topics(
    group_id: &str,
    asked: Option<Vec<(TopicName, Vec<i32>)>>,
    metadata: &dyn Metadata,
) -> Vec<FetchedTopic> {
    let group = metadata.groups().get(group_id);
    match asked {
        None => group
            .map(|group| all_topics(group, metadata))
            .unwrap_or_default(),
        Some(topics) => topics
            .into_iter()
            .map(|(topic, partitions)| fetch_topic(group, topic, &partitions, metadata))
            .collect(),
    }
}

fn all_topics(group: &Group, metadata: &dyn Metadata) -> Vec<FetchedTopic> {
    let topics = group.offsets().topics().filter_map(|(id, partitions)| {
        let name = metadata.topic_name(id)?;
        let partitions = partitions.filter_map(|(index, offset)| {
            Some(fetched(i32::try_from(index).ok()?, Some(offset), None))
        });
        Some(FetchedTopic {
            topic: TopicName::Name(name.to_owned()),
            id: Some(id),
            partitions: partitions.collect(),
        })
    });
    topics.collect()
}

fn fetch_topic(
    group: Option<&Group>,
    topic: TopicName,
    partitions: &[i32],
    metadata: &dyn Metadata,
) -> FetchedTopic {
    let id = resolve(&topic, metadata);
    // A name that nothing goes by has nothing committed: that is no error to Kafka.
    let error = id
        .err()
        .filter(|error| *error == GroupError::UnknownTopicId);
    let fetch = |partition: &i32| {
        let offset = group.and_then(|group| {
            group
                .offsets()
                .get(id.ok()?, u32::try_from(*partition).ok()?)
        });
        fetched(*partition, offset, error)
    };
    FetchedTopic {
        topic,
        id: id.ok(),
        partitions: partitions.iter().map(fetch).collect(),
    }
}

fn fetched(
    partition: i32,
    offset: Option<&CommittedOffset>,
    error: Option<GroupError>,
) -> FetchedPartition {
    FetchedPartition {
        partition,
        offset: offset.map_or(-1, |offset| offset.offset),
        leader_epoch: offset.map_or(-1, |offset| offset.leader_epoch),
        metadata: offset
            .map(|offset| offset.metadata.clone())
            .unwrap_or_default(),
        error,
    }
}
