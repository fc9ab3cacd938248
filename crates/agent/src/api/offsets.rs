//! ListOffsets and OffsetForLeaderEpoch: where partitions begin and end, and where a time lies in
//! them. Answers are current: they rest on an entry appended after the request came. It must not
//! know files beyond reading a slice.

use std::collections::HashMap;

use futures::FutureExt;
use futures::stream::{self, StreamExt};
use meta::ids::PartitionId;
use meta::places::{Bounds, Located, SlicePlace, TimeQuery};
use rpc::Position;
use rpc::call::Locate;
use wire::compression::Limits;
use wire::errors::ErrorCode;
use wire::messages::list_offsets::{
    ListOffsetsPartition, ListOffsetsPartitionResponse, ListOffsetsRequest, ListOffsetsResponse,
    ListOffsetsTopicResponse,
};
use wire::messages::offset_for_leader_epoch::{
    EpochEndOffset, OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
    OffsetForLeaderPartition, OffsetForLeaderTopicResult,
};
use wire::scan::{RecordPosition, first_record_since, record_of_max_timestamp};

use super::{errors, repeated};
use crate::context::Context;
use crate::data::cache::{Chunk, LoadError};
use crate::data::fetch::read::check_place;
use crate::edge::memory::Room;

/// Special timestamps (`ListOffsetsRequest`, `OffsetSpec`), and the version that has each first.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const MAX_TIMESTAMP_SINCE: i16 = 7;
const EARLIEST_LOCAL: i64 = -4;
const EARLIEST_LOCAL_SINCE: i16 = 8;
const LATEST_TIERED: i64 = -5;
const LATEST_TIERED_SINCE: i16 = 9;
const EARLIEST_PENDING_UPLOAD: i64 = -6;
const EARLIEST_PENDING_UPLOAD_SINCE: i16 = 11;
/// The answer for an epoch that is not known.
const UNKNOWN_END: (i32, i64) = (-1, -1);
/// Slices that are searched for one timestamp. A slice is passed over if it does not hold the
/// record that its header promises; only headers that nobody compared with their records do that.
const SLICES_MAX: usize = 16;

/// Partitions of one request that are searched at one time, mostly waiting for the bucket. Each
/// search holds one part of a file and waits for no other part meanwhile.
const FINDS_MAX: usize = 24;

/// Timestamp and offset of the record that was found, none if there is none, or the code for a
/// failure.
type Found = Result<Option<(i64, i64)>, ErrorCode>;

pub(crate) async fn list_offsets(
    context: &Context,
    request: ListOffsetsRequest,
    version: i16,
) -> ListOffsetsResponse {
    let asked = request.topics.iter().flat_map(|topic| {
        topic
            .partitions
            .iter()
            .map(|asked| (topic.name.as_str(), asked.partition_index))
    });
    let asked: Vec<(&str, i32)> = asked.collect();
    let bounds = bounds(context, &asked).await;
    let repeated = repeated(asked.iter().copied());
    let (bounds, repeated) = (&bounds, &repeated);
    let finds = request.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |asked| async move {
            let key = (topic.name.as_str(), asked.partition_index);
            let found = match bounds.get(&key) {
                _ if repeated.contains(&key) => Err(ErrorCode::InvalidRequest),
                Some(Ok(known)) => find(context, *known, asked, version).await,
                Some(Err(code)) => Err(*code),
                None => Err(ErrorCode::UnknownTopicOrPartition),
            };
            answer(asked.partition_index, found)
        })
    });
    let finds: Vec<_> = finds.map(FutureExt::boxed).collect();
    let answers: Vec<_> = stream::iter(finds).buffered(FINDS_MAX).collect().await;
    let mut answers = answers.into_iter();
    let topics = request.topics.iter().map(|topic| ListOffsetsTopicResponse {
        name: topic.name.clone(),
        partitions: answers.by_ref().take(topic.partitions.len()).collect(),
    });
    ListOffsetsResponse {
        topics: topics.collect(),
        ..ListOffsetsResponse::default()
    }
}

fn answer(partition_index: i32, found: Found) -> ListOffsetsPartitionResponse {
    let (code, found) = match found {
        Ok(found) => (ErrorCode::None, found),
        Err(code) => (code, None),
    };
    let (timestamp, offset) = found.unwrap_or((-1, -1));
    ListOffsetsPartitionResponse {
        partition_index,
        error_code: code.code(),
        timestamp,
        offset,
        leader_epoch: if offset >= 0 { meta::LEADER_EPOCH } else { -1 },
    }
}

/// A partition, and what its bounds were at a position that was current.
#[derive(Clone, Copy)]
struct Known {
    partition: PartitionId,
    bounds: Bounds,
    at: Position,
}

/// The current bounds of partitions by topic and index.
async fn bounds<'a>(
    context: &Context,
    asked: &[(&'a str, i32)],
) -> HashMap<(&'a str, i32), Result<Known, ErrorCode>> {
    let mut view = context.views.latest();
    let find = |view: &crate::view::View, (topic, index): &(&str, i32)| {
        view.topic(topic).and_then(|topic| topic.partition(*index))
    };
    if asked.iter().any(|asked| find(&view, asked).is_none()) {
        match context.views.refresh_current().await {
            Ok(current) => view = current,
            Err(error) => {
                let code = errors::of_read(&error);
                return asked.iter().map(|asked| (*asked, Err(code))).collect();
            }
        }
    }
    let known: Vec<((&'a str, i32), PartitionId)> = asked
        .iter()
        .filter_map(|asked| Some((*asked, find(&view, asked)?)))
        .collect();
    let ids: Vec<PartitionId> = known.iter().map(|(_, partition)| *partition).collect();
    match context.control.bounds(ids).await {
        Ok((at, bounds)) => known
            .into_iter()
            .zip(bounds)
            .map(|((asked, partition), bounds)| {
                let found = bounds.map(|bounds| Known {
                    partition,
                    bounds,
                    at,
                });
                (asked, found.ok_or(ErrorCode::UnknownTopicOrPartition))
            })
            .collect(),
        Err(error) => {
            let code = errors::of_read(&error);
            known
                .into_iter()
                .map(|(asked, _)| (asked, Err(code)))
                .collect()
        }
    }
}

async fn find(
    context: &Context,
    known: Known,
    asked: &ListOffsetsPartition,
    version: i16,
) -> Found {
    let bounds = known.bounds;
    let epoch = errors::of_leader_epoch(asked.current_leader_epoch);
    if epoch.is_error() {
        return Err(epoch);
    }
    match asked.timestamp {
        LATEST => Ok(Some((-1, bounds.high_watermark))),
        EARLIEST => Ok(Some((-1, bounds.log_start))),
        MAX_TIMESTAMP if version >= MAX_TIMESTAMP_SINCE => {
            by_time(context, known, TimeQuery::Largest).await
        }
        // There is no tiered storage beside the log, so the local log begins where the log does.
        EARLIEST_LOCAL if version >= EARLIEST_LOCAL_SINCE => Ok(Some((-1, bounds.log_start))),
        LATEST_TIERED if version >= LATEST_TIERED_SINCE => Ok(None),
        EARLIEST_PENDING_UPLOAD if version >= EARLIEST_PENDING_UPLOAD_SINCE => Ok(None),
        special if special < 0 => Err(ErrorCode::UnsupportedVersion),
        timestamp => by_time(context, known, TimeQuery::AtOrAfter(timestamp)).await,
    }
}

async fn by_time(context: &Context, known: Known, query: TimeQuery) -> Found {
    let Known {
        partition,
        bounds,
        at,
    } = known;
    let first = context.control.find_time(partition, query, at).await;
    let Some(mut place) = first.map_err(|error| errors::of_read(&error))? else {
        // Nothing is found in a partition that is deleted, either.
        place_at(context, known, bounds.high_watermark).await?;
        return Ok(None);
    };
    for _ in 0..SLICES_MAX {
        let found = search(context, partition, &place, bounds.log_start, query).await;
        match found.map_err(|error| errors::of_load(&error))? {
            Some((offset, position)) => return Ok(Some((position.timestamp_ms, offset))),
            None => match place_at(context, known, place.last_offset + 1).await? {
                Some(next) => place = next,
                None => return Ok(None),
            },
        }
    }
    // No slice that was searched holds the record: a reader that starts after them misses nothing.
    Ok(Some((place.max_timestamp, place.base_offset)))
}

/// The slice that has an offset, or the next one; none at the partition's end.
async fn place_at(
    context: &Context,
    known: Known,
    offset: i64,
) -> Result<Option<SlicePlace>, ErrorCode> {
    let wanted = Locate {
        partition: known.partition,
        offset,
        max_bytes: 1,
    };
    let located = context.control.locate(vec![wanted], known.at).await;
    let (_, mut located) = located.map_err(|error| errors::of_read(&error))?;
    match located.pop() {
        Some(Located::Found { places, .. }) => Ok(places.first().copied()),
        // The log begins later by now: asked again, a client is told of what is left.
        Some(Located::OutOfRange { .. }) => Err(ErrorCode::NotLeaderOrFollower),
        Some(Located::UnknownPartition) | None => Err(ErrorCode::UnknownTopicOrPartition),
    }
}

/// Searches the batches of a slice. Records before the log's start cannot be read and do not count.
async fn search(
    context: &Context,
    partition: PartitionId,
    place: &SlicePlace,
    log_start: i64,
    query: TimeQuery,
) -> Result<Option<(i64, RecordPosition)>, LoadError> {
    let chunk = match context.reader.find(&[(partition, *place)]) {
        Some(chunk) => chunk,
        None => context.reader.load(partition, place, true).await?,
    };
    let place = *place;
    let unpacking = &context.memory.unpacking;
    let (found, _held) = unpacking
        .run(move |room| look_through(&chunk, partition, &place, (log_start, query), room))
        .await;
    match found {
        Err(Missed::Unreadable(first)) => Ok(Some(first)),
        Err(Missed::Load(error)) => {
            context.reader.report(&place, &error);
            Err(error)
        }
        Ok(found) => Ok(found),
    }
}

enum Missed {
    Load(LoadError),
    /// A batch cannot be read, or not within bounds: its producer packed it wrongly and nobody
    /// looked at it before. It may hold the record, so its beginning is the answer: a reader that
    /// starts there misses nothing, and learns what is wrong.
    Unreadable((i64, RecordPosition)),
}

fn look_through(
    chunk: &Chunk,
    partition: PartitionId,
    place: &SlicePlace,
    (log_start, query): (i64, TimeQuery),
    room: Room,
) -> Result<Option<(i64, RecordPosition)>, Missed> {
    let mut limits = Limits {
        window_bytes: room.window_bytes,
        out_bytes: room.unpacked_bytes,
    };
    let mut offset = place.base_offset;
    let entries = check_place(chunk, partition, place);
    for entry in entries.map_err(|error| Missed::Load(error.into()))? {
        let base = offset;
        offset += i64::from(entry.batch.last_offset_delta()) + 1;
        if offset <= log_start {
            continue;
        }
        let max_timestamp = entry.batch.max_timestamp_ms();
        let found = match query {
            TimeQuery::AtOrAfter(timestamp) => {
                first_record_since(&entry.batch, timestamp, &mut limits)
            }
            TimeQuery::Largest if max_timestamp < place.max_timestamp => continue,
            TimeQuery::Largest => record_of_max_timestamp(&entry.batch, &mut limits),
        };
        match found {
            Ok(None) => {}
            Ok(Some(position)) => {
                return Ok(Some((base + i64::from(position.offset_delta), position)));
            }
            Err(_) => {
                let position = RecordPosition {
                    offset_delta: 0,
                    timestamp_ms: max_timestamp,
                };
                return Err(Missed::Unreadable((base.max(log_start), position)));
            }
        }
    }
    Ok(None)
}

/// Answers OffsetForLeaderEpoch: every partition has had one epoch only, the one it began with
/// here.
pub(crate) async fn offset_for_leader_epoch(
    context: &Context,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let asked: Vec<(&str, i32)> = request
        .topics
        .iter()
        .flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|asked| (topic.topic.as_str(), asked.partition))
        })
        .collect();
    let bounds = bounds(context, &asked).await;
    let topics = request
        .topics
        .iter()
        .map(|topic| OffsetForLeaderTopicResult {
            topic: topic.topic.clone(),
            partitions: topic
                .partitions
                .iter()
                .map(|asked| {
                    let key = (topic.topic.as_str(), asked.partition);
                    let unknown = Err(ErrorCode::UnknownTopicOrPartition);
                    let found = bounds.get(&key).copied().unwrap_or(unknown);
                    epoch_end(asked, found.map(|known| known.bounds))
                })
                .collect(),
        });
    OffsetForLeaderEpochResponse {
        topics: topics.collect(),
        ..OffsetForLeaderEpochResponse::default()
    }
}

fn epoch_end(
    asked: &OffsetForLeaderPartition,
    bounds: Result<Bounds, ErrorCode>,
) -> EpochEndOffset {
    let epoch = errors::of_leader_epoch(asked.current_leader_epoch);
    let (code, (leader_epoch, end_offset)) = match bounds {
        Err(code) => (code, UNKNOWN_END),
        Ok(_) if epoch.is_error() => (epoch, UNKNOWN_END),
        Ok(bounds) => (ErrorCode::None, end_of(asked.leader_epoch, bounds)),
    };
    EpochEndOffset {
        error_code: code.code(),
        partition: asked.partition,
        leader_epoch,
        end_offset,
    }
}

/// The epoch to answer with and its end. An epoch before the first ended where the log begins, as
/// in Kafka: clients of a cluster that was moved here ask for such epochs, and would jump to the
/// log's end if they got no answer.
const fn end_of(epoch: i32, bounds: Bounds) -> (i32, i64) {
    match epoch {
        meta::LEADER_EPOCH => (epoch, bounds.high_watermark),
        0..meta::LEADER_EPOCH => (epoch, bounds.log_start),
        _ => UNKNOWN_END,
    }
}
