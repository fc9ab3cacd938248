//! Topics in order, in chunks that versions of a view share: one that differs in a topic copies a
//! chunk, whatever the number of topics. Pure.

use std::cmp::Ordering;
use std::sync::Arc;

use super::Topic;

/// Most topics of a chunk; one that becomes larger is cut in two.
const CHUNK_TOPICS: usize = 256;

/// How a topic compares with what is looked for.
pub(super) type Order = fn(&Topic, &Topic) -> Ordering;

/// Topics in an order in which no two are equal.
#[derive(Clone, Debug)]
pub(super) struct Chunks {
    order: Order,
    /// None of them is empty.
    chunks: Vec<Arc<Vec<Arc<Topic>>>>,
}

impl Chunks {
    pub(super) fn new(order: Order) -> Self {
        let chunks = Vec::new();
        Chunks { order, chunks }
    }

    /// Has these topics instead, each once, in whatever order they come.
    pub(super) fn fill(&mut self, mut topics: Vec<Arc<Topic>>) {
        topics.sort_unstable_by(|a, b| (self.order)(a, b));
        let chunks = topics.chunks(CHUNK_TOPICS / 2);
        self.chunks = chunks.map(|chunk| Arc::new(chunk.to_vec())).collect();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// The topic that a look-up is after; `order` tells how one compares with it.
    pub(super) fn find(&self, order: impl Fn(&Topic) -> Ordering) -> Option<&Arc<Topic>> {
        let chunk = self.chunks.get(self.chunk(&order))?;
        let at = chunk.binary_search_by(|topic| order(topic)).ok()?;
        chunk.get(at)
    }

    /// Puts a topic in the place of the one that equals it, or where it belongs.
    pub(super) fn put(&mut self, topic: Arc<Topic>) {
        let order = self.order;
        let at = self.chunk(|other| order(other, &topic));
        let Some(shared) = self.chunks.get_mut(at) else {
            return self.chunks.push(Arc::new(vec![topic]));
        };
        let chunk = Arc::make_mut(shared);
        match chunk.binary_search_by(|other| order(other, &topic)) {
            Ok(found) => chunk[found] = topic,
            Err(gap) => chunk.insert(gap, topic),
        }
        if chunk.len() > CHUNK_TOPICS {
            let second = chunk.split_off(CHUNK_TOPICS / 2);
            self.chunks.insert(at + 1, Arc::new(second));
        }
    }

    /// Takes out the topic that equals this one.
    pub(super) fn remove(&mut self, topic: &Topic) {
        let order = self.order;
        let at = self.chunk(|other| order(other, topic));
        let Some(shared) = self.chunks.get_mut(at) else {
            return;
        };
        let Ok(found) = shared.binary_search_by(|other| order(other, topic)) else {
            return;
        };
        let chunk = Arc::make_mut(shared);
        chunk.remove(found);
        if chunk.is_empty() {
            self.chunks.remove(at);
        }
    }

    /// The chunk that has, or is to have, what is looked for.
    fn chunk(&self, order: impl Fn(&Topic) -> Ordering) -> usize {
        let is_before = |chunk: &Arc<Vec<Arc<Topic>>>| {
            let first = chunk.first();
            first.is_some_and(|first| order(first) != Ordering::Greater)
        };
        self.chunks.partition_point(is_before).saturating_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use meta::config::Configs;
    use meta::ids::TopicId;

    use super::*;

    fn topic(number: u64, id: u128) -> Arc<Topic> {
        let topic = meta::topic::Topic {
            id: TopicId(id),
            name: format!("{number:05}"),
            partitions: Vec::new(),
            configs: Configs::new(),
            replication_factor: 0,
            version: 0,
        };
        Arc::new(Topic::new(
            &meta::level::one::LEVEL,
            Arc::new(topic),
            &Configs::new(),
        ))
    }

    #[test]
    fn topics_are_found_in_order_whatever_came_and_went() {
        let by_name: Order = |a, b| a.topic.name.cmp(&b.topic.name);
        let mut chunks = Chunks::new(by_name);
        chunks.fill((0..700).step_by(3).map(|n| topic(n, 1)).collect());
        let mut expected: BTreeMap<u64, u128> = (0..700).step_by(3).map(|n| (n, 1)).collect();
        let mut draw = 7_u64;
        for round in 2..5_000_u128 {
            draw = draw.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let number = (draw >> 33) % 2_000;
            if draw & (1 << 60) == 0 || expected.len() > 1_500 {
                expected.remove(&number);
                chunks.remove(&topic(number, 0));
            } else {
                expected.insert(number, round);
                chunks.put(topic(number, round));
            }
            let name = format!("{number:05}");
            let found = chunks.find(|topic| topic.topic.name.cmp(&name));
            let id = found.map(|topic| topic.topic.id.0);
            assert_eq!(id, expected.get(&number).copied());
        }
        let ids: Vec<u128> = chunks.iter().map(|topic| topic.topic.id.0).collect();
        assert_eq!(ids, expected.values().copied().collect::<Vec<_>>());
        assert!(
            chunks
                .chunks
                .iter()
                .all(|chunk| (1..=CHUNK_TOPICS).contains(&chunk.len()))
        );
    }
}
