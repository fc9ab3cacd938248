//! Fetch: from the request to the records. Positions come from the control plane, bytes from the
//! cache or the bucket, a long poll sleeps until a commit wakes it. It must not know sockets.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use host::budget::Held;
use host::clock::Instant;
use meta::ids::PartitionId;
use rpc::view::{Locate, Located, Place};
use wire::codec::INLINE_PIECE_BYTES;
use wire::compression::Compression;
use wire::errors::ErrorCode;
use wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchableTopicResponse, PartitionData,
};
use wire::rope::Rope;

use crate::api::errors;
use crate::context::Context;
use crate::data::cache::{Cache, Chunk, LoadError, Loaded, Part};
use crate::data::fetch::hub::Watch;
use crate::data::fetch::plan::{self, Want};
use crate::data::fetch::read;
use crate::view::{TopicKey, View};

/// Parts of files that one request loads side by side.
const LOADS_MAX: usize = 8;
/// Batches below this are copied into an answer: with the header, two KiB of records and less.
const COPIED_BYTES: u64 = INLINE_PIECE_BYTES as u64 + 16;
/// What a batch in an answer costs beside its bytes: its header, and two pieces in two lists.
const PIECES_BYTES: u64 = 192;
/// Memory for that is taken in steps: a few hundred batches.
const ROOM_BYTES: u64 = 64 << 10;
/// What is said of a partition, beside its records.
const SAID_BYTES: u64 = 64;
/// How often a long poll looks whether it keeps other requests waiting.
const YIELD_POLL: Duration = Duration::from_secs(1);
/// Zstandard came with this version (KIP-110).
const ZSTD_SINCE: i16 = 10;
/// Topics are named by id from this version on.
const IDS_SINCE: i16 = 13;

/// An answer, and the memory that its records lie in: to be dropped when it is sent.
pub(crate) struct Fetched {
    pub response: FetchResponse,
    /// What of it is records.
    pub records_bytes: u64,
    /// What it keeps alive.
    pub chunks: Vec<Arc<Chunk>>,
    /// Memory for what is said of partitions.
    pub answer: Option<Held>,
    /// Memory for records that are in no chunk.
    pub held: Option<Held>,
}

/// One partition of a request on its way to an answer.
struct Item {
    topic: usize,
    index: i32,
    partition: PartitionId,
    want: Want,
    found: Found,
}

/// What is known of a partition's records.
enum Found {
    Places {
        log_start: i64,
        high_watermark: i64,
        places: Vec<Place>,
    },
    /// The offset is outside, or the partition gone, as far as is applied; current if `sure`.
    Outside {
        log_start: i64,
        high_watermark: i64,
        sure: bool,
    },
    Unknown {
        sure: bool,
    },
    Failed(ErrorCode),
}

/// A fetch in progress.
struct Fetch<'a> {
    context: &'a Context,
    version: i16,
    max_bytes: u64,
    min_bytes: u64,
    deadline: Instant,
    items: Vec<Item>,
}

pub(crate) async fn fetch(context: &Context, request: FetchRequest, version: i16) -> Fetched {
    context.metrics.fetch_requests.increment();
    let wait = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let limit = u64::try_from(request.max_bytes).unwrap_or(0);
    let max_bytes = limit.min(context.settings.fetch_max_bytes);
    let mut fetch = Fetch {
        context,
        version,
        max_bytes,
        min_bytes: u64::try_from(request.min_bytes).unwrap_or(0).min(max_bytes),
        deadline: host::clock::now() + wait,
        items: Vec::new(),
    };
    let view = view_for(context, &request, version).await;
    fetch.resolve(&view, &request);
    // Watched before it is located, so that it is located once: what comes in between wakes.
    let watch = (!wait.is_zero()).then(|| fetch.watch());
    fetch.locate_all().await;
    fetch.settle_doubts().await;
    if let Some(watch) = watch
        && !fetch.is_ready()
        && !fetch.items.is_empty()
    {
        fetch.wait(&watch).await;
    }
    fetch.answer(request).await
}

fn topic_key<'a>(topic: &'a wire::messages::fetch::FetchTopic, version: i16) -> TopicKey<'a> {
    if version >= IDS_SINCE {
        TopicKey::Id(crate::api::topic_id(topic.topic_id))
    } else {
        TopicKey::Name(&topic.topic)
    }
}

/// A view that knows every partition of the request, or is current, or the failure to get one.
async fn view_for(
    context: &Context,
    request: &FetchRequest,
    version: i16,
) -> Result<Arc<View>, ErrorCode> {
    let view = context.views.latest();
    let known = |view: &View| {
        request.topics.iter().all(|topic| {
            view.find(topic_key(topic, version)).is_some_and(|found| {
                topic
                    .partitions
                    .iter()
                    .all(|asked| found.partition(asked.partition).is_some())
            })
        })
    };
    if known(&view) {
        return Ok(view);
    }
    context
        .views
        .refresh_current()
        .await
        .map_err(|error| errors::of_read(&error))
}

/// Which partitions of a request were named before in it, by their turn among all that it names, in
/// order. Most requests name each topic once and its partitions in order, and cost no sort of those.
fn repeated_partitions(request: &FetchRequest) -> Vec<usize> {
    let mut by_name: Vec<usize> = (0..request.topics.len()).collect();
    let name = |topic: usize| (&request.topics[topic].topic, request.topics[topic].topic_id);
    by_name.sort_by(|a, b| name(*a).cmp(&name(*b)));
    let mut first_of: Vec<usize> = (0..request.topics.len()).collect();
    for pair in by_name.windows(2) {
        if name(pair[0]) == name(pair[1]) {
            first_of[pair[1]] = first_of[pair[0]];
        }
    }
    let mut named: Vec<(usize, i32, usize)> = Vec::new();
    for (topic, first) in request.topics.iter().zip(first_of) {
        for asked in &topic.partitions {
            named.push((first, asked.partition, named.len()));
        }
    }
    let is_after = |a: &(usize, i32, usize), b: &(usize, i32, usize)| (a.0, a.1) < (b.0, b.1);
    if named.is_sorted_by(is_after) {
        return Vec::new();
    }
    named.sort_unstable();
    let is_again = |pair: &&[(usize, i32, usize)]| (pair[0].0, pair[0].1) == (pair[1].0, pair[1].1);
    let again = named.windows(2).filter(is_again).map(|pair| pair[1].2);
    let mut again: Vec<usize> = again.collect();
    again.sort_unstable();
    again
}

impl Fetch<'_> {
    /// Finds the partitions that are asked for, each once, however often it is named: so an answer
    /// is no larger than what there is to answer of.
    fn resolve(&mut self, view: &Result<Arc<View>, ErrorCode>, request: &FetchRequest) {
        let mut repeated = repeated_partitions(request).into_iter().peekable();
        let mut turn = 0;
        for (at, topic) in request.topics.iter().enumerate() {
            let found = match view {
                Ok(view) => Ok(view.find(topic_key(topic, self.version))),
                Err(code) => Err(*code),
            };
            for asked in &topic.partitions {
                turn += 1;
                if repeated.next_if_eq(&(turn - 1)).is_some() {
                    continue;
                }
                let item = match found {
                    Err(code) => Err(code),
                    Ok(None) if self.version >= IDS_SINCE => Err(ErrorCode::UnknownTopicId),
                    Ok(None) => Err(ErrorCode::UnknownTopicOrPartition),
                    Ok(Some(topic)) => topic
                        .partition(asked.partition)
                        .ok_or(ErrorCode::UnknownTopicOrPartition),
                };
                self.items.push(self.item(at, asked, item));
            }
        }
    }

    fn item(
        &self,
        topic: usize,
        asked: &FetchPartition,
        partition: Result<PartitionId, ErrorCode>,
    ) -> Item {
        let max_bytes = u64::try_from(asked.partition_max_bytes).unwrap_or(0);
        let epoch = errors::of_leader_epoch(asked.current_leader_epoch);
        let found = match partition {
            Err(code) => Found::Failed(code),
            Ok(_) if epoch.is_error() => Found::Failed(epoch),
            Ok(_) => Found::Unknown { sure: false },
        };
        Item {
            topic,
            index: asked.partition,
            partition: partition.unwrap_or_default(),
            want: Want {
                offset: asked.fetch_offset,
                max_bytes: max_bytes.min(self.max_bytes),
            },
            found,
        }
    }

    async fn locate_all(&mut self) {
        let which = (0..self.items.len())
            .filter(|at| !matches!(self.items[*at].found, Found::Failed(_)))
            .collect();
        self.locate(which, false).await;
    }

    /// Looks where the records of some items are. `sure` says that a barrier was passed before.
    async fn locate(&mut self, which: Vec<usize>, sure: bool) {
        if which.is_empty() {
            return;
        }
        let requests: Vec<Locate> = which
            .iter()
            .map(|at| {
                let item = &self.items[*at];
                let Want { offset, max_bytes } = item.want;
                Locate {
                    partition: item.partition,
                    offset,
                    max_bytes,
                }
            })
            .collect();
        match self.context.control.locate(&requests).await {
            Ok(located) => {
                for (at, located) in which.into_iter().zip(located) {
                    self.items[at].found = found(located, sure);
                }
            }
            Err(error) => {
                let code = errors::of_read(&error);
                which
                    .into_iter()
                    .for_each(|at| self.items[at].found = Found::Failed(code));
            }
        }
    }

    /// Looks again, at a current index, at what seemed to be outside or gone.
    async fn settle_doubts(&mut self) {
        let doubtful: Vec<usize> = (0..self.items.len())
            .filter(|at| self.items[*at].found.is_doubtful())
            .collect();
        if doubtful.is_empty() {
            return;
        }
        match self.context.control.barrier().await {
            Ok(()) => self.locate(doubtful, true).await,
            Err(error) => {
                let code = errors::of_read(&error);
                doubtful
                    .into_iter()
                    .for_each(|at| self.items[at].found = Found::Failed(code));
            }
        }
    }

    /// True if the answer need not wait: enough bytes, or an error, or more of a partition than is
    /// named at one time.
    fn is_ready(&self) -> bool {
        let mut bytes = 0;
        for item in &self.items {
            match &item.found {
                Found::Places {
                    high_watermark,
                    places,
                    ..
                } if plan::is_cut(item.want, places, *high_watermark) => return true,
                Found::Places { places, .. } => bytes += plan::offered_bytes(item.want, places),
                _ => return true,
            }
        }
        bytes >= self.min_bytes
    }

    fn watch(&self) -> Watch {
        let partitions = self.items.iter().map(|item| item.partition).collect();
        self.context.hub.watch(partitions)
    }

    /// Sleeps until the answer is ready or its time is over.
    async fn wait(&mut self, watch: &Watch) {
        self.context.metrics.fetch_waits.increment();
        while !self.is_ready() {
            let left = self.deadline.since(host::clock::now());
            let turn = left.min(YIELD_POLL);
            let Ok(changed) = host::clock::timeout(turn, watch.changed()).await else {
                // Its memory is another request's when there is no more: the client asks again.
                if turn == left || self.context.memory.is_other_wanted() {
                    return;
                }
                continue;
            };
            let which: Vec<usize> = (0..self.items.len())
                .filter(|at| changed.contains(&self.items[*at].partition))
                .collect();
            self.locate(which, false).await;
            self.settle_doubts().await;
        }
    }

    /// Reads what was found.
    async fn answer(mut self, request: FetchRequest) -> Fetched {
        // Before any records are held: who holds those waits for no answer's memory.
        let said_bytes = self.items.len() as u64 * SAID_BYTES;
        let answer = self.context.memory.answers.hold(said_bytes).await;
        let mut records = self.read().await;
        if records.is_missing() && self.look_again().await {
            records = self.read().await;
        }
        let responses = request.topics.iter().map(|topic| FetchableTopicResponse {
            topic: topic.topic.clone(),
            topic_id: topic.topic_id,
            partitions: Vec::with_capacity(topic.partitions.len()),
        });
        let mut responses: Vec<FetchableTopicResponse> = responses.collect();
        let read_committed = request.isolation_level == 1;
        for (item, read) in self.items.iter().zip(records.partitions) {
            let mut data = item.answer(read);
            data.aborted_transactions = read_committed.then(Vec::new);
            let code = ErrorCode::from_code(data.error_code).unwrap_or_default();
            self.context.metrics.fetch_errors.count(code);
            responses[item.topic].partitions.push(data);
        }
        self.context.metrics.fetch_bytes.add(records.bytes);
        let response = FetchResponse {
            responses,
            ..FetchResponse::default()
        };
        Fetched {
            response,
            records_bytes: records.bytes,
            chunks: records.chunks,
            answer: Some(answer),
            held: records.held,
        }
    }

    /// A file was not there: its place may be an old one. True if the index now says otherwise.
    async fn look_again(&mut self) -> bool {
        let before: Vec<Option<Place>> = self.items.iter().map(Item::first_place).collect();
        if self.context.control.barrier().await.is_err() {
            return false;
        }
        self.locate_all().await;
        self.settle_doubts().await;
        self.items.iter().map(Item::first_place).ne(before)
    }

    async fn read(&self) -> Records {
        let wants: Vec<(Want, &[Place])> = self
            .items
            .iter()
            .map(|item| (item.want, item.places()))
            .collect();
        let counts = plan::choose(&wants, self.max_bytes);
        let chosen: Vec<&[Place]> = wants
            .iter()
            .zip(&counts)
            .map(|((_, places), count)| &places[..*count])
            .collect();
        let mut records = Records::empty(self.items.len());
        let chunks = self.chunks(&chosen).await;
        for (at, chunks) in chunks.into_iter().enumerate() {
            self.take(at, chosen[at], chunks, &mut records);
        }
        records
    }

    /// The chunks of the chosen places, in their order.
    async fn chunks(&self, chosen: &[&[Place]]) -> Vec<Vec<Loaded>> {
        let reader = &self.context.reader;
        let mut found: Vec<Vec<Option<Loaded>>> = chosen
            .iter()
            .zip(&self.items)
            .map(|(places, item)| {
                let find = |place| reader.find(item.partition, place).map(Ok);
                places.iter().map(find).collect()
            })
            .collect();
        // Many places may lie in one part: it is loaded for all of them at once.
        let mut missing: Vec<(Part, Vec<(usize, usize)>)> = Vec::new();
        let mut turns: HashMap<Part, usize> = HashMap::new();
        for (item, chunks) in found.iter().enumerate() {
            let gaps = chunks.iter().enumerate();
            for (at, _) in gaps.filter(|(_, chunk)| chunk.is_none()) {
                let part = read::part_of(&chosen[item][at]);
                let turn = *turns.entry(part).or_insert(missing.len());
                if turn == missing.len() {
                    missing.push((part, Vec::new()));
                }
                missing[turn].1.push((item, at));
            }
        }
        // Whoever holds nothing yet may wait for memory, for one chunk.
        let holds_nothing = found.iter().flatten().all(Option::is_none);
        let firsts = missing.iter().filter_map(|(_, places)| places.first());
        let firsts: Vec<(PartitionId, Place)> = firsts
            .map(|&(item, at)| (self.items[item].partition, chosen[item][at]))
            .collect();
        let loads = firsts
            .into_iter()
            .enumerate()
            .map(|(turn, (partition, place))| {
                let may_wait = holds_nothing && turn == 0;
                async move { reader.load(partition, &place, may_wait).await }
            });
        let loads = futures::stream::StreamExt::buffered(futures::stream::iter(loads), LOADS_MAX);
        let loaded: Vec<Loaded> = futures::StreamExt::collect(loads).await;
        for ((_, places), loaded) in missing.iter().zip(loaded) {
            for &(item, at) in places {
                found[item][at] = Some(loaded.clone());
            }
        }
        let unread = || Err(LoadError::NoRoom);
        found
            .into_iter()
            .map(|chunks| {
                chunks
                    .into_iter()
                    .map(|chunk| chunk.unwrap_or_else(unread))
                    .collect()
            })
            .collect()
    }

    /// Takes the batches of one partition into the answer, as far as they fit.
    fn take(&self, at: usize, places: &[Place], chunks: Vec<Loaded>, records: &mut Records) {
        let item = &self.items[at];
        let before = records.bytes;
        for (place, chunk) in places.iter().zip(chunks) {
            let chunk = match chunk {
                Ok(chunk) => chunk,
                Err(error) => {
                    if matches!(error, LoadError::NoRoom) {
                        self.context.cache.note_short(host::clock::now());
                    }
                    return records.fail(at, before, Problem::Load(error));
                }
            };
            let batches = match read::check_place(&chunk, item.partition, place) {
                Ok(batches) => batches,
                Err(error) => {
                    let error = LoadError::Corrupt(error);
                    self.context.reader.report(place, &error);
                    return records.fail(at, before, Problem::Load(error));
                }
            };
            let mut offset = place.base_offset;
            let mut full = false;
            for batch in batches.iter().map(|entry| &entry.batch) {
                let base = offset;
                offset += i64::from(batch.last_offset_delta()) + 1;
                if offset <= item.want.offset {
                    continue;
                }
                let bytes = batch.length_bytes() as u64;
                let taken = records.bytes - before + bytes;
                if records.bytes > 0
                    && (taken > item.want.max_bytes || records.bytes + bytes > self.max_bytes)
                {
                    full = true;
                    break;
                }
                if !records.make_room(&self.context.cache, bytes) {
                    full = true;
                    break;
                }
                if self.version < ZSTD_SINCE && batch.compression() == Ok(Compression::Zstd) {
                    return records.fail(at, before, Problem::Zstd);
                }
                let rope = records.partitions[at].rope.get_or_insert_default();
                batch.append_patched(base, meta::LEADER_EPOCH, rope);
                records.bytes += bytes;
            }
            records.keep(chunk);
            if full {
                return;
            }
        }
    }
}

fn found(located: Located, sure: bool) -> Found {
    match located {
        Located::Found {
            log_start,
            high_watermark,
            places,
        } => Found::Places {
            log_start,
            high_watermark,
            places,
        },
        Located::OutOfRange {
            log_start,
            high_watermark,
        } => Found::Outside {
            log_start,
            high_watermark,
            sure,
        },
        Located::Unknown => Found::Unknown { sure },
    }
}

impl Found {
    fn is_doubtful(&self) -> bool {
        matches!(
            self,
            Found::Outside { sure: false, .. } | Found::Unknown { sure: false }
        )
    }
}

impl Item {
    fn places(&self) -> &[Place] {
        match &self.found {
            Found::Places { places, .. } => places,
            _ => &[],
        }
    }

    fn first_place(&self) -> Option<Place> {
        self.places().first().copied()
    }

    fn answer(&self, read: Read) -> PartitionData {
        let failed = |code: ErrorCode| PartitionData {
            partition_index: self.index,
            error_code: code.code(),
            high_watermark: -1,
            records: Some(Rope::new()),
            ..PartitionData::default()
        };
        match &self.found {
            Found::Failed(code) => failed(*code),
            Found::Unknown { sure: true } => failed(ErrorCode::UnknownTopicOrPartition),
            Found::Unknown { sure: false } | Found::Outside { sure: false, .. } => {
                failed(ErrorCode::NotLeaderOrFollower)
            }
            Found::Outside {
                log_start,
                high_watermark,
                sure: true,
            } => PartitionData {
                high_watermark: *high_watermark,
                last_stable_offset: *high_watermark,
                log_start_offset: *log_start,
                ..failed(ErrorCode::OffsetOutOfRange)
            },
            Found::Places {
                log_start,
                high_watermark,
                ..
            } => PartitionData {
                partition_index: self.index,
                error_code: read
                    .problem
                    .map_or(ErrorCode::None, |why| why.code())
                    .code(),
                high_watermark: *high_watermark,
                last_stable_offset: *high_watermark,
                log_start_offset: *log_start,
                records: Some(read.rope.unwrap_or_default()),
                ..PartitionData::default()
            },
        }
    }
}

/// Why a partition has no records in the answer, although there are some.
enum Problem {
    Load(LoadError),
    Zstd,
}

impl Problem {
    fn code(&self) -> ErrorCode {
        match self {
            Problem::Load(error) => errors::of_load(error),
            Problem::Zstd => ErrorCode::UnsupportedCompressionType,
        }
    }
}

#[derive(Default)]
struct Read {
    rope: Option<Rope>,
    problem: Option<Problem>,
}

/// What was read for an answer.
struct Records {
    partitions: Vec<Read>,
    chunks: Vec<Arc<Chunk>>,
    bytes: u64,
    /// Memory for what is in no chunk, and how much of it is left.
    held: Option<Held>,
    room_bytes: u64,
}

impl Records {
    fn empty(partitions: usize) -> Self {
        Records {
            partitions: (0..partitions).map(|_| Read::default()).collect(),
            chunks: Vec::new(),
            bytes: 0,
            held: None,
            room_bytes: 0,
        }
    }

    /// Takes memory for what a batch of so many bytes is beside its chunk; false if there is none.
    /// The first batch needs none, so that every answer moves its reader on.
    fn make_room(&mut self, cache: &Cache, bytes: u64) -> bool {
        let copied = if bytes < COPIED_BYTES { bytes } else { 0 };
        let cost = copied + PIECES_BYTES;
        if self.bytes == 0 {
            return true;
        }
        if self.room_bytes < cost {
            let Some(held) = cache.try_hold(ROOM_BYTES) else {
                cache.note_short(host::clock::now());
                return false;
            };
            self.room_bytes += held.bytes();
            match &mut self.held {
                Some(before) => before.merge(held),
                None => self.held = Some(held),
            }
        }
        self.room_bytes -= cost;
        true
    }

    /// Ends a partition. What was read before the problem is sent, and the problem met again by the
    /// next request; a lack of memory is no error.
    fn fail(&mut self, at: usize, before: u64, problem: Problem) {
        let no_room = matches!(problem, Problem::Load(LoadError::NoRoom));
        if self.bytes == before && !no_room {
            self.partitions[at].problem = Some(problem);
        }
    }

    fn is_missing(&self) -> bool {
        self.partitions
            .iter()
            .any(|read| matches!(read.problem, Some(Problem::Load(LoadError::Missing))))
    }

    /// Slices of one file come one after the other: the same chunk is not kept twice.
    fn keep(&mut self, chunk: Arc<Chunk>) {
        if !self
            .chunks
            .last()
            .is_some_and(|last| Arc::ptr_eq(last, &chunk))
        {
            self.chunks.push(chunk);
        }
    }
}
