//! Weighs this node's copy of the metadata, by what there is and what each takes, and tells an operator if it is too much. It must
//! not know what that is measured against.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use host::log_limit::LogLimit;
use meta::State;

use crate::node::Node;

/// How often it is weighed.
const EVERY: Duration = Duration::from_secs(60);
/// How often an operator is told that it is too much.
const LOG_EVERY: Duration = Duration::from_secs(600);
/// Partitions that are looked at before others may read or change the metadata.
const AT_ONCE: usize = 4_096;

/// What each of these takes at most in most clusters, in bytes (docs/memory.md).
const OF_TOPIC: u64 = 1_024;
const OF_PARTITION: u64 = 200;
const OF_PRODUCER: u64 = 160;
const OF_SLICE: u64 = 20;
/// The same of a slice beside that, if files are to be in several buckets: which partitions a file has is known then.
const OF_SPREAD_SLICE: u64 = 10;

/// What there is, but for slices.
fn bytes_without_slices(state: &State) -> u64 {
    let totals = state.totals();
    let partitions = totals.partitions + totals.doomed_partitions;
    totals.topics * OF_TOPIC + partitions * OF_PARTITION + totals.producers * OF_PRODUCER
}

/// What a slice takes in such a cluster.
fn bytes_of_slice(state: &State) -> u64 {
    match state.placement().buckets.len() {
        0 | 1 => OF_SLICE,
        _ => OF_SLICE + OF_SPREAD_SLICE,
    }
}

impl Node {
    /// Weighs the metadata, some partitions at a time.
    async fn weigh(&self) -> u64 {
        let mut bytes = self.with_state(bytes_without_slices);
        let of_slice = self.with_state(bytes_of_slice);
        let mut next = Some(0);
        while let Some(from) = next {
            let (slices, then) = self.with_state(|state| state.slices_from(from, AT_ONCE));
            bytes += slices * of_slice;
            next = then;
            tokio::task::yield_now().await;
        }
        bytes
    }
}

/// Weighs it again and again, for ever, and says if it is too much.
pub(crate) async fn keep_weighing(node: Arc<Node>) -> Infallible {
    let log = LogLimit::every(LOG_EVERY);
    loop {
        let bytes = node.weigh().await;
        if node.weight.note(bytes) && log.pass(host::clock::now()).is_some() {
            tracing::warn!(
                bytes,
                max = node.metadata_memory().bytes_max,
                "the metadata takes more than half of what memory.bytes leaves of this process's memory, and a snapshot or a start needs as much \
                 again: give control nodes more memory, lower memory.bytes, or keep less (retention, topics, producer.ids.max)"
            );
        }
        host::clock::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use meta::Command;
    use meta::command::CreateTopic;
    use meta::ids::TopicId;

    use crate::start::tests::{bucket, settings, started};

    use super::*;

    #[tokio::test]
    async fn the_metadata_is_weighed_whole() {
        let (node, _tasks) = started(&bucket(), &settings(&[], None)).await;
        let before = node.weigh().await;
        let partitions = 3 * u32::try_from(AT_ONCE).expect("it is small");
        let create = CreateTopic {
            id: TopicId(7),
            name: "t".to_owned(),
            partitions,
            configs: meta::config::Configs::new(),
            replication_factor: 0,
        };
        let created = node.propose(&Command::CreateTopic(create)).await;
        created.expect("it leads");
        let grown = node.weigh().await - before;
        assert_eq!(grown, OF_TOPIC + u64::from(partitions) * OF_PARTITION);
    }
}
