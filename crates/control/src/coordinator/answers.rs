//! How large an answer about several groups may become: beyond that, groups have to be asked for
//! again. Must not know what is said of them.

use std::mem::size_of;

use rpc::group::{
    DescribedGroup, DescribedMember, FetchedGroup, FetchedPartition, FetchedTopic, GroupError,
    TopicName,
};

/// Bytes of memory at which an answer takes no further group: half of what an agent has for all
/// answers on their way out, so that two fit. The group that reaches it is in the answer, so every
/// answer has one at least, and clients that ask again for the others come to an end; how large one
/// group is, `groups.max.bytes` bounds.
const ANSWER_BYTES: usize = 16 << 20;

/// What is left for further groups in an answer.
pub(super) struct Room {
    left_bytes: usize,
}

impl Room {
    /// That of an answer with nothing in it.
    pub(super) fn new() -> Room {
        Room {
            left_bytes: ANSWER_BYTES,
        }
    }

    /// Whether there is room for another group: if not, it is to be asked for again.
    pub(super) fn admit(&self) -> Result<(), GroupError> {
        if self.left_bytes == 0 {
            return Err(GroupError::AnswerFull);
        }
        Ok(())
    }

    /// A group is in the answer.
    pub(super) fn take(&mut self, bytes: usize) {
        self.left_bytes = self.left_bytes.saturating_sub(bytes);
    }
}

/// What a description takes.
pub(super) fn described_bytes(group: &DescribedGroup) -> usize {
    let members = group.members.iter().map(|member| {
        let instance = member.instance.as_ref().map_or(0, String::len);
        let texts = member.member.len() + member.client_id.len() + member.client_host.len();
        let opaque = member.metadata.len() + member.assignment.len();
        size_of::<DescribedMember>() + instance + texts + opaque
    });
    let texts = group.group.len() + group.protocol_type.len() + group.protocol.len();
    size_of::<DescribedGroup>() + texts + members.sum::<usize>()
}

/// What the offsets of a group take.
pub(super) fn fetched_bytes(group_id: &str, topics: &[FetchedTopic]) -> usize {
    let topics = topics.iter().map(|topic| {
        let name = match &topic.topic {
            TopicName::Name(name) => name.len(),
            TopicName::Id(_) => 0,
        };
        let notes = topic.partitions.iter().map(|found| found.metadata.len());
        let partitions = topic.partitions.len() * size_of::<FetchedPartition>();
        size_of::<FetchedTopic>() + name + partitions + notes.sum::<usize>()
    });
    size_of::<FetchedGroup>() + group_id.len() + topics.sum::<usize>()
}
