//! Housekeeping in bounded steps: slices of deleted topics, retention, idle producers, members and
//! groups that have expired. It must not know how a slice came to be.

use std::sync::Arc;

use crate::nouns::group::Expiry;
use crate::nouns::partition::Partition;
use crate::nouns::slice::Slice;
use crate::nouns::topic::Topics;
use crate::state::State;
use crate::terms::commit::TimeSource;
use crate::terms::ids::{PartitionId, Stamp};
use crate::terms::reply::Event;

/// How much one step may still do.
struct Budget {
    slices: u32,
    partitions: u32,
}

/// How long the records of a partition are kept, by its topic's configs.
struct Retention {
    /// Records written before this wall time may go.
    until_wall_millis: Option<i64>,
    bytes_max: Option<u64>,
    producers_before_ticks: u64,
}

/// Does one step; true if there is more to do now.
pub(crate) fn step(state: &mut State, stamp: Stamp, events: &mut Vec<Event>) -> bool {
    if !state.groups.is_being_swept() && !keep_partitions(state, stamp, events) {
        return true;
    }
    let topics = &state.topics;
    let minutes = topics.cluster_number(state.level, "offsets.retention.minutes");
    let retention = minutes.and_then(|minutes| u64::try_from(minutes).ok());
    let expiry = Expiry {
        level: state.level,
        ticks: stamp.ticks_millis,
        retention_millis: retention.unwrap_or(0).saturating_mul(60_000),
        is_topic: &|id| topics.get(id).is_some(),
    };
    let expired = state.groups.sweep(&expiry, state.level.step_offsets);
    events.extend(expired.into_iter().map(Event::Group));
    state.groups.is_being_swept()
}

/// Looks at partitions, and at members once all have been; true if all have been.
fn keep_partitions(state: &mut State, stamp: Stamp, events: &mut Vec<Event>) -> bool {
    let files_max = usize::try_from(state.level.step_slices).unwrap_or(usize::MAX);
    if state.files.forget_left(files_max) {
        return false;
    }
    let mut budget = Budget {
        slices: state.level.step_slices,
        partitions: state.level.step_partitions,
    };
    let mut tombstoned = false;
    let buried = bury(state, stamp, &mut budget, &mut tombstoned);
    let done = buried && sweep(state, stamp, &mut budget, &mut tombstoned, events);
    if tombstoned {
        events.push(Event::FilesTombstoned);
    }
    if done {
        let until = stamp.ticks_millis.checked_sub(state.grace_ticks());
        if let Some(until) = until {
            let files = &state.files;
            state
                .members
                .expire(until, |incarnation| files.any_of(incarnation));
        }
    }
    done
}

/// Drops slices of deleted topics; true if none are left.
fn bury(state: &mut State, stamp: Stamp, budget: &mut Budget, tombstoned: &mut bool) -> bool {
    let first = |state: &State| state.doomed.iter().next().map(|(id, _)| *id);
    while let Some(id) = first(state) {
        while budget.slices > 0
            && let Some(slice) = drop_first(state, id)
        {
            budget.slices -= 1;
            *tombstoned |= state.slice_dropped(&slice, stamp.ticks_millis);
        }
        let Some(partition) = state.doomed.get(&id) else {
            break;
        };
        if partition.slices.len() > 0 {
            return false;
        }
        state.producers -= partition.producers.len();
        state.doomed.remove(&id);
    }
    true
}

/// Drops the first slice of a partition of a deleted topic.
fn drop_first(state: &mut State, doomed: PartitionId) -> Option<Slice> {
    let partition = state.doomed.get_mut(&doomed)?;
    Arc::make_mut(partition).drop_first()
}

/// Looks at partitions from the cursor on; true if it reached the last one.
fn sweep(
    state: &mut State,
    stamp: Stamp,
    budget: &mut Budget,
    tombstoned: &mut bool,
    events: &mut Vec<Event>,
) -> bool {
    loop {
        let next = state.partitions.iter_from(state.cursor).next();
        let Some((number, partition)) = next else {
            state.cursor = 0;
            return true;
        };
        state.cursor = number;
        if budget.partitions == 0 || budget.slices == 0 {
            return false;
        }
        budget.partitions -= 1;
        let retention = retention(state, stamp, partition);
        if retention.concerns(state, partition) {
            retain(state, stamp, number, &retention, budget, tombstoned, events);
            let left = state.partitions.get(number);
            if left.is_some_and(|partition| retention.expires_first(state, partition)) {
                return false;
            }
        }
        state.cursor = number + 1;
    }
}

fn retention(state: &State, stamp: Stamp, partition: &Partition) -> Retention {
    let topics: &Topics = &state.topics;
    let number = |name: &str| {
        topics
            .get(partition.topic)
            .and_then(|topic| topics.topic_number(state.level, topic, name))
    };
    let not_negative = |value: &i64| *value >= 0;
    let wall = i64::try_from(stamp.wall_millis).unwrap_or(i64::MAX);
    let by_time = number("retention.ms").filter(not_negative);
    let until = by_time.and_then(|millis| wall.checked_sub(millis));
    let idle = state
        .cluster_number("producer.id.expiration.ms")
        .filter(not_negative);
    let mut idle = idle.map_or(u64::MAX, i64::cast_unsigned);
    let room = state.producer_room();
    if room.taken > room.max / state.level.pressed_divisor {
        idle = idle.min(state.level.pressed_idle_millis);
    }
    Retention {
        // After a jump the wall clock is not trusted: records that seem expired may be young.
        until_wall_millis: until.filter(|_| state.clock.hold.is_none()),
        bytes_max: number("retention.bytes").and_then(|bytes| u64::try_from(bytes).ok()),
        producers_before_ticks: stamp.ticks_millis.saturating_sub(idle),
    }
}

impl Retention {
    fn concerns(&self, state: &State, partition: &Partition) -> bool {
        partition.producers.any_expired(self.producers_before_ticks)
            || self.expires_first(state, partition)
    }

    /// True if the first slice is to go: as a whole, like Kafka's segments, when all of it is too
    /// old, or when the rest alone is as much as may be kept.
    fn expires_first(&self, state: &State, partition: &Partition) -> bool {
        let Some(first) = partition.slices.first() else {
            return false;
        };
        let rest = partition
            .slices
            .bytes()
            .saturating_sub(u64::from(first.length));
        if self
            .bytes_max
            .is_some_and(|max| rest >= max && partition.slices.bytes() > max)
        {
            return true;
        }
        let Some(until) = self.until_wall_millis else {
            return false;
        };
        let Some(file) = state.files.get(first.file) else {
            return false;
        };
        let committed = state.clock.happened_at(file.committed_wall_millis);
        let committed = i64::try_from(committed).unwrap_or(i64::MAX);
        let written = match first.time_source {
            TimeSource::Records if first.max_timestamp >= 0 => first.max_timestamp,
            // Records without a timestamp are as old as their file.
            TimeSource::Records => committed,
            // Records whose timestamps are only claimed are at most that old.
            TimeSource::Header => committed.max(first.max_timestamp),
            // The agent's clock may be off; the stamps of the journal are everybody's.
            TimeSource::Agent => committed,
        };
        written < until
    }
}

/// Drops the slices that one partition need not keep.
fn retain(
    state: &mut State,
    stamp: Stamp,
    number: u64,
    retention: &Retention,
    budget: &mut Budget,
    tombstoned: &mut bool,
    events: &mut Vec<Event>,
) {
    let mut dropped = false;
    while budget.slices > 0 {
        let Some(partition) = state.partitions.get(number) else {
            return;
        };
        if !retention.expires_first(state, partition) {
            break;
        }
        let Some(partition) = state.partitions.get_mut(number) else {
            return;
        };
        let Some(slice) = partition.drop_first() else {
            break;
        };
        budget.slices -= 1;
        dropped = true;
        *tombstoned |= state.slice_dropped(&slice, stamp.ticks_millis);
    }
    let Some(partition) = state.partitions.get_mut(number) else {
        return;
    };
    state.producers -= partition.producers.expire(retention.producers_before_ticks);
    if dropped {
        let log_start = partition.log_start;
        events.push(Event::LogStart {
            partition: PartitionId(number),
            log_start,
        });
    }
}
