//! Fetch, as Kafka means it: which partitions a request asks for, alone or in a session, and what
//! its answer says of each. Which records are read, and how, is decided in `data`. It must not know
//! sockets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use host::budget::Held;
use host::clock::Instant;
use wire::errors::ErrorCode;
use wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use wire::rope::Rope;

use crate::api::errors;
use crate::api::origin::{Guide, Origin};
use crate::context::Context;
use crate::data::cache::Chunk;
use crate::data::fetch::ahead::Who;
use crate::data::fetch::finder::Finder;
use crate::data::fetch::hub::Watch;
use crate::data::fetch::item::Slot;
use crate::data::fetch::items::{Items, Outcome};
use crate::data::fetch::poll::Limits;
use crate::data::fetch::records::{Problem, Records, Room};
use crate::data::fetch::run::{Fetched, Run, YIELD_AFTER};

mod named;
pub(crate) mod sessions;

use named::Named;
use sessions::{Begun, Session, Ticket};

/// Clients know Zstandard from this version on (KIP-110).
const ZSTD_SINCE: i16 = 10;
/// Bytes that an answer takes for one partition beside its records.
const SAID_BYTES: u64 = 64;
/// Topics are named by id from this version on.
const IDS_SINCE: i16 = 13;

/// An answer and the memory that it rests on: drop it when the answer is sent.
#[derive(Default)]
pub(crate) struct Answer {
    pub response: FetchResponse,
    /// How many of the answer's bytes are records.
    pub records_bytes: u64,
    /// The chunks in which the records lie.
    pub chunks: Vec<Arc<Chunk>>,
    /// Memory for everything in the answer but its records.
    pub answer: Option<Held>,
    /// Memory for records that were copied out of their chunks.
    pub held: Option<Held>,
}

/// The fields of a request that concern all its partitions.
#[derive(Clone, Copy)]
struct Asked {
    limits: Limits,
    room: Room,
    may_wait: bool,
    by_id: bool,
    read_committed: bool,
}

pub(crate) async fn fetch(
    context: &Context,
    origin: Origin<'_>,
    request: FetchRequest,
    version: i16,
) -> Answer {
    context.metrics.fetch_requests.increment();
    if context.refuses_data(origin.listener) {
        return sent_away(request);
    }
    let now = host::clock::now();
    let asked = Asked::of(context, &request, version, now);
    let guide = Guide::new(origin, &request.rack_id, context.agent);
    match context.sessions.begin(&request, asked.by_id, now) {
        Err(code) => refused(code),
        Ok(Begun::Alone) => fresh(context, guide, &request, asked, None).await,
        Ok(Begun::New(ticket)) => fresh(context, guide, &request, asked, Some(ticket)).await,
        Ok(Begun::Next(ticket, session)) => {
            incremental(context, guide, &request, asked, ticket, *session).await
        }
    }
}

impl Asked {
    fn of(context: &Context, request: &FetchRequest, version: i16, now: Instant) -> Self {
        let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
        let limit = u64::try_from(request.max_bytes).unwrap_or(0);
        let max_bytes = limit.min(context.settings.fetch_max_bytes);
        let min_bytes = u64::try_from(request.min_bytes).unwrap_or(0);
        Asked {
            limits: Limits {
                max_bytes,
                min_bytes: min_bytes.min(max_bytes),
                deadline: now + wait,
            },
            room: Room {
                max_bytes,
                takes_zstd: version >= ZSTD_SINCE,
            },
            may_wait: !wait.is_zero(),
            by_id: version >= IDS_SINCE,
            read_committed: request.isolation_level == 1,
        }
    }
}

/// The answer to a request whose session cannot go on: the client begins another.
fn refused(code: ErrorCode) -> Answer {
    Answer {
        response: FetchResponse {
            error_code: code.code(),
            ..FetchResponse::default()
        },
        ..Answer::default()
    }
}

/// The answer to a consumer that is to look for another agent: every partition is led elsewhere. A request of a session does
/// not name them; the next one does.
fn sent_away(request: FetchRequest) -> Answer {
    if request.session_id != 0 && request.session_epoch > 0 {
        return refused(ErrorCode::FetchSessionIdNotFound);
    }
    let partition = |asked: FetchPartition| PartitionData {
        partition_index: asked.partition,
        error_code: ErrorCode::NotLeaderOrFollower.code(),
        high_watermark: -1,
        records: Some(Rope::new()),
        ..PartitionData::default()
    };
    let topics = request
        .topics
        .into_iter()
        .map(|topic| FetchableTopicResponse {
            topic: topic.topic,
            topic_id: topic.topic_id,
            partitions: topic.partitions.into_iter().map(partition).collect(),
        });
    Answer {
        response: FetchResponse {
            responses: topics.collect(),
            ..FetchResponse::default()
        },
        ..Answer::default()
    }
}

/// Answers a request that names all its partitions; given a ticket, keeps them as a session.
async fn fresh(
    context: &Context,
    guide: Guide<'_>,
    request: &FetchRequest,
    asked: Asked,
    ticket: Option<Ticket<'_>>,
) -> Answer {
    let mut items = Items::default();
    let mut named = Named::new(request, asked.by_id, asked.limits.max_bytes, &mut items);
    named.resolve(&context.views, guide, &mut items).await;
    let is_watched = asked.may_wait || ticket.is_some();
    let watch = is_watched.then(|| context.hub.watch(items.partitions(), ticket.is_some()));
    let mut fetched = read(context, guide.connection(), items, asked, watch.as_ref()).await;
    let served = fetched.served();
    let mut topics = named.topics();
    for at in 0..named.len() {
        let slot = Slot::try_from(at).unwrap_or(Slot::MAX);
        let data = partition(context, &mut named, &mut fetched, slot, asked);
        topics[named.topic_of(slot)].partitions.push(data);
        if at % YIELD_AFTER == YIELD_AFTER - 1 {
            tokio::task::yield_now().await;
        }
    }
    let mut answer = answer(context, guide, topics, fetched.records, fetched.answer);
    if let (Some(ticket), Some(watch)) = (ticket, watch) {
        let session = Session::new(fetched.items, &served, named, watch);
        answer.response.session_id = ticket.keep(session, host::clock::now());
    }
    answer
}

/// Answers a request of a session, which names only what changed; the answer has only what changed.
async fn incremental(
    context: &Context,
    guide: Guide<'_>,
    request: &FetchRequest,
    asked: Asked,
    ticket: Ticket<'_>,
    session: Session,
) -> Answer {
    let Session {
        mut items,
        mut named,
        mut watch,
    } = session;
    let has_removed = named.update(request, asked.limits.max_bytes, &mut items);
    if named.resolve(&context.views, guide, &mut items).await || has_removed {
        let before = watch;
        watch = context.hub.watch(items.partitions(), true);
        items.note_all(before.take(host::clock::now()));
    }
    if named.is_empty() {
        return Answer::default();
    }
    let mut fetched = read(context, guide.connection(), items, asked, Some(&watch)).await;
    let served = fetched.served();
    let mut slots = fetched.items.take_news();
    slots.extend(&served);
    slots.extend(fetched.items.to_tell());
    slots.extend(named.refused());
    slots.sort_unstable();
    slots.dedup();
    let mut topics = BTreeMap::new();
    slots.retain(|slot| named.has(*slot));
    for slot in slots {
        let told = named.told(slot);
        let data = partition(context, &mut named, &mut fetched, slot, asked);
        let has_records = data.records.as_ref().is_some_and(|rope| !rope.is_empty());
        let is_sent_away = data.preferred_read_replica >= 0;
        if has_records || data.error_code != 0 || is_sent_away || told != named.told(slot) {
            let topic = named.topic_of(slot);
            let response = topics.entry(topic).or_insert_with(|| named.topic(topic));
            response.partitions.push(data);
        }
    }
    let topics = topics.into_values().collect();
    let mut answer = answer(context, guide, topics, fetched.records, fetched.answer);
    let session = Session::new(fetched.items, &served, named, watch);
    answer.response.session_id = ticket.keep(session, host::clock::now());
    answer
}

async fn read(
    context: &Context,
    connection: u64,
    items: Items,
    asked: Asked,
    watch: Option<&Watch>,
) -> Fetched {
    let run = Run {
        control: &context.control,
        finder: Finder {
            control: &context.control,
            hub: &context.hub,
        },
        reader: &context.reader,
        watch,
        is_wanted: &|| context.memory.is_other_wanted(),
        hold_answer: &|partitions| {
            let bytes = partitions as u64 * SAID_BYTES;
            context.memory.answers.hold(bytes).boxed()
        },
    };
    let fetched = run.fetch(items, asked.limits, asked.room).await;
    if fetched.has_loaded || context.prefetch.has_readers() {
        let steps = fetched.steps().map(|(partition, step)| {
            let who = Who {
                connection,
                partition,
            };
            (who, step)
        });
        context.prefetch.answered(&steps.collect::<Vec<_>>());
    }
    fetched
}

fn answer(
    context: &Context,
    guide: Guide<'_>,
    topics: Vec<FetchableTopicResponse>,
    records: Records,
    answer: Option<Held>,
) -> Answer {
    if records.bytes > 0 {
        let sent = &context.metrics.fetch_bytes;
        let sent = match guide.is_in_other_zone_than(&context.settings.zone) {
            true => &sent.other_zone,
            false => &sent.own_zone,
        };
        for (origin, bytes) in &records.bytes_from {
            sent.of(*origin).add(*bytes);
        }
    }
    Answer {
        response: FetchResponse {
            responses: topics,
            ..FetchResponse::default()
        },
        records_bytes: records.bytes,
        chunks: records.chunks,
        answer,
        held: records.held,
    }
}

/// The answer's entry for one partition.
fn partition(
    context: &Context,
    named: &mut Named,
    fetched: &mut Fetched,
    slot: Slot,
    asked: Asked,
) -> PartitionData {
    let (code, bounds) = match fetched.items.outcome(slot) {
        Outcome::Within(bounds) => (ErrorCode::None, Some(bounds)),
        Outcome::Outside(bounds) => (ErrorCode::OffsetOutOfRange, Some(bounds)),
        Outcome::Gone => (named.note_gone(slot), None),
        Outcome::Failed(error) => (errors::of_read(&error), None),
        Outcome::Unknown => (ErrorCode::NotLeaderOrFollower, None),
        Outcome::Refused => (named.why_refused(slot), None),
    };
    let (code, records) = match fetched.records.of.remove(&slot) {
        None => (code, Rope::new()),
        Some(Ok(rope)) => (code, rope),
        Some(Err(Problem::Load(error))) => (errors::of_load(&error), Rope::new()),
        Some(Err(Problem::Zstd)) => (ErrorCode::UnsupportedCompressionType, Rope::new()),
    };
    context.metrics.fetch_errors.count(code);
    let told = bounds.filter(|_| !code.is_error());
    named.tell(slot, told);
    let mut data = PartitionData {
        partition_index: named.index_of(slot),
        error_code: code.code(),
        high_watermark: -1,
        aborted_transactions: asked.read_committed.then(Vec::new),
        records: Some(records),
        preferred_read_replica: named.elsewhere(slot).map_or(-1, |agent| agent.0),
        ..PartitionData::default()
    };
    if let Some(bounds) = bounds {
        data.high_watermark = bounds.high_watermark;
        data.last_stable_offset = bounds.high_watermark;
        data.log_start_offset = bounds.log_start;
    }
    data
}
