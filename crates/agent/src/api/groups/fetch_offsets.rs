//! OffsetFetch: one group before version 8, several from then on, topics by id from version 10 on.
//! It must not know where offsets are kept.

use rpc::group::{FetchGroup, FetchedGroup, FetchedPartition, FetchedTopic, GroupError, TopicName};
use wire::errors::ErrorCode;
use wire::messages::offset_fetch::{
    OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchResponse, OffsetFetchResponseGroup,
    OffsetFetchResponsePartition, OffsetFetchResponsePartitions, OffsetFetchResponseTopic,
    OffsetFetchResponseTopics,
};
use wire::text::Str;
use wire::uuid::Uuid;

use super::ask_offsets;
use crate::api::{errors, topic_id, uuid};
use crate::context::Context;

/// Several groups at once from this version on.
const GROUPS_SINCE: i16 = 8;
/// Topics by id from this version on.
const IDS_SINCE: i16 = 10;
/// There is a code for the whole answer from this version on.
const GROUP_CODE_SINCE: i16 = 2;

pub(crate) async fn fetch_offsets(
    context: &Context,
    request: OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    if version >= GROUPS_SINCE {
        return fetch_groups(context, request.groups, version).await;
    }
    let topics = request.topics.as_ref().map(|topics| {
        let named = topics.iter().map(|topic| {
            (
                TopicName::Name(topic.name.to_string()),
                topic.partition_indexes.clone(),
            )
        });
        named.collect()
    });
    let asked = FetchGroup {
        group: request.group_id.to_string(),
        topics,
    };
    let fetched = ask_offsets(context, vec![asked]).await;
    let outcome = match fetched.map(|mut groups| groups.pop()) {
        Ok(Some(group)) => group.topics.map_err(failed_group),
        Ok(None) => Err(ErrorCode::UnknownServerError),
        Err(code) => Err(code),
    };
    match outcome {
        Ok(topics) => OffsetFetchResponse {
            topics: topics.into_iter().map(single_topic).collect(),
            ..OffsetFetchResponse::default()
        },
        Err(code) => failed(&request, code, version),
    }
}

fn failed_group(error: GroupError) -> ErrorCode {
    errors::of_offset_fetch(errors::of_group(error))
}

/// Before the response had a code for the whole, every partition got it.
fn failed(request: &OffsetFetchRequest, code: ErrorCode, version: i16) -> OffsetFetchResponse {
    let mut response = OffsetFetchResponse {
        error_code: code.code(),
        ..OffsetFetchResponse::default()
    };
    if version < GROUP_CODE_SINCE {
        let topics = request
            .topics
            .iter()
            .flatten()
            .map(|topic| OffsetFetchResponseTopic {
                name: topic.name.clone(),
                partitions: topic
                    .partition_indexes
                    .iter()
                    .map(|partition_index| OffsetFetchResponsePartition {
                        partition_index: *partition_index,
                        committed_offset: -1,
                        committed_leader_epoch: -1,
                        metadata: Some(Str::EMPTY),
                        error_code: code.code(),
                    })
                    .collect(),
            });
        response.topics = topics.collect();
    }
    response
}

fn single_topic(topic: FetchedTopic) -> OffsetFetchResponseTopic {
    let name = match topic.topic {
        TopicName::Name(name) => name.into(),
        TopicName::Id(_) => Str::EMPTY,
    };
    let partition = |found: FetchedPartition| OffsetFetchResponsePartition {
        partition_index: found.partition,
        committed_offset: found.offset,
        committed_leader_epoch: found.leader_epoch,
        metadata: Some(found.metadata.into()),
        error_code: found.error.map_or(ErrorCode::None, failed_group).code(),
    };
    OffsetFetchResponseTopic {
        name,
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

async fn fetch_groups(
    context: &Context,
    asked: Vec<OffsetFetchRequestGroup>,
    version: i16,
) -> OffsetFetchResponse {
    let groups = asked.iter().map(|group| {
        let topics = group.topics.as_ref().map(|topics| {
            let named = topics.iter().map(|topic| {
                let name = if version >= IDS_SINCE {
                    TopicName::Id(topic_id(topic.topic_id))
                } else {
                    TopicName::Name(topic.name.to_string())
                };
                (name, topic.partition_indexes.clone())
            });
            named.collect()
        });
        FetchGroup {
            group: group.group_id.to_string(),
            topics,
        }
    });
    let groups = match ask_offsets(context, groups.collect()).await {
        Ok(groups) => groups.into_iter().map(group).collect(),
        Err(code) => {
            let failed = asked.into_iter().map(|group| OffsetFetchResponseGroup {
                group_id: group.group_id,
                topics: Vec::new(),
                error_code: code.code(),
            });
            failed.collect()
        }
    };
    OffsetFetchResponse {
        groups,
        ..OffsetFetchResponse::default()
    }
}

fn group(fetched: FetchedGroup) -> OffsetFetchResponseGroup {
    let (topics, code) = match fetched.topics {
        Ok(topics) => (topics, ErrorCode::None),
        Err(error) => (Vec::new(), failed_group(error)),
    };
    OffsetFetchResponseGroup {
        group_id: fetched.group.into(),
        topics: topics.into_iter().map(topic_of_many).collect(),
        error_code: code.code(),
    }
}

fn topic_of_many(topic: FetchedTopic) -> OffsetFetchResponseTopics {
    let (name, asked) = match topic.topic {
        TopicName::Name(name) => (name.into(), None),
        TopicName::Id(id) => (Str::EMPTY, Some(id)),
    };
    let partition = |found: FetchedPartition| OffsetFetchResponsePartitions {
        partition_index: found.partition,
        committed_offset: found.offset,
        committed_leader_epoch: found.leader_epoch,
        metadata: Some(found.metadata.into()),
        error_code: found.error.map_or(ErrorCode::None, failed_group).code(),
    };
    OffsetFetchResponseTopics {
        name,
        topic_id: asked.or(topic.id).map_or(Uuid::ZERO, uuid),
        partitions: topic.partitions.into_iter().map(partition).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_is_told_to_ask_again_while_nobody_leads() {
        let while_nobody_leads = [
            GroupError::NotCoordinator,
            GroupError::CoordinatorNotAvailable,
        ];
        for error in while_nobody_leads {
            let code = failed_group(error);
            assert_eq!(code, ErrorCode::CoordinatorLoadInProgress);
        }
        let final_one = failed_group(GroupError::InvalidGroupId);
        assert_eq!(final_one, ErrorCode::InvalidGroupId);
    }
}
