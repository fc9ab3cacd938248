//! Produce: checks batches and puts them into the pipeline, in the order of their connection. It
//! must not know files or commits.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use host::budget::Held;
use host::clock::Instant;
use meta::commit::BatchOutcome;
use tokio::sync::oneshot;
use wire::batch::{CheckedBatch, ProduceLimits, TimestampType, check_produce};
use wire::errors::ErrorCode;
use wire::frame::RequestHeader;
use wire::messages::Request;
use wire::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceData, PartitionProduceResponse,
    ProduceRequest, ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use wire::text::Str;

use super::{PRODUCE_INLINE_BYTES, encode, errors, topic_id};
use crate::context::Context;
use crate::data::produce::{Answer, Batch, Lane, Write};
use crate::edge::memory::{Kept, Lease};
use crate::edge::service::{Begun, Job, Outcome, Peer, Reply};
use crate::metrics::Metrics;
use crate::view::{Rules, Topic, TopicKey, View};

mod content;

/// Topics are named by id from this version on.
const IDS_SINCE: i16 = 13;

/// What the answer for one partition takes until it is sent: it is drafted, filled in and written.
const ANSWER_BYTES: u64 = 512;
/// A partition of a request that has records takes at least this: its number, a length, the header of
/// a batch. More partitions than that are none that a client sends.
const ENTRY_BYTES_MIN: u64 = 4 + 4 + 61;
/// So many partitions are answered even if they have no records: a client may be told what is wrong.
const ENTRIES_FREE: u64 = 64;
const TOO_MANY_PRODUCERS: &str = "no more idempotent producers can be remembered (producer.ids.max) \
                                  until some are idle for a while: try again, or raise it";
const TOO_MANY_BATCHES: &str = "the request has more batches than one entry of the journal can name: \
                                send it in parts, or raise journal.entry.max.bytes";

/// A produce request as it was read.
struct Incoming {
    header: RequestHeader,
    request: ProduceRequest,
    lease: Lease,
    /// The size of its frame, and of what was made of it.
    bytes: u64,
    at: Instant,
    /// Its batches that are compressed otherwise than they came.
    recompressed: content::Recompressed,
}

/// Said to a producer while the bucket's file system is nearly full.
const NO_ROOM: &str = "the bucket has no room for records just now";

/// A request that waits for its outcome.
struct Pending {
    outcome: oneshot::Receiver<Answer>,
    answer: Draft,
    started: Instant,
    gave_up: bool,
    metrics: Arc<Metrics>,
}

/// A place in a request, and in its answer: index of topic and of partition.
type Gap = (usize, usize);

/// An answer with gaps where outcomes belong.
struct Draft {
    response: ProduceResponse,
    /// The gaps, in the order of the batches.
    gaps: Vec<Gap>,
    correlation_id: i32,
    version: i16,
    acks: i16,
    /// Memory for the answer.
    held: Option<Held>,
}

/// What is decoded from a request is never larger than its frame: every batch is longer than its struct. Requests without
/// batches get this much extra.
const DECODED_BYTES_FREE: usize = 4 << 10;

/// Puts a request into the pipeline. If one of its topics is not known here, that is found out
/// first, and nothing overtakes it meanwhile.
pub(crate) fn begin(
    context: &Arc<Context>,
    peer: &Peer,
    frame: Bytes,
    lease: Lease,
    now: Instant,
) -> Begun {
    context.metrics.produce_requests.increment();
    let incoming = match Incoming::decode(&frame, lease, now) {
        Ok(incoming) => incoming,
        Err(why) => return Begun::Done(Reply::Close(why)),
    };
    let entries = incoming.entries();
    let answers = &context.memory.bulk_answers;
    let answer_bytes = entries * ANSWER_BYTES;
    if entries > ENTRIES_FREE + incoming.bytes / ENTRY_BYTES_MIN
        || answer_bytes > answers.total_bytes()
    {
        return Begun::Done(Reply::Close(format!(
            "a produce request of {entries} partitions is not answered: so many have no room for records in it, or their answers none in memory"
        )));
    }
    let view = context.views.latest();
    match answers.try_hold(answer_bytes) {
        Some(held) if knows_all(&view, &incoming) && !incoming.is_unlike(&view) => {
            put(context, peer, Ok(&view), incoming, held)
        }
        held => {
            let entering = enter(Arc::clone(context), peer.clone(), incoming, held);
            Begun::Entering(Job::Future(entering.boxed()))
        }
    }
}

/// Waits for memory for the answer unless some is `held`, for a view that knows all topics, and for codecs; then puts
/// the request in.
async fn enter(
    context: Arc<Context>,
    peer: Peer,
    mut incoming: Incoming,
    held: Option<Held>,
) -> Begun {
    let held = match held {
        Some(held) => held,
        None => {
            let answers = &context.memory.bulk_answers;
            answers.hold(incoming.entries() * ANSWER_BYTES).await
        }
    };
    let view = context.views.latest();
    let view = if knows_all(&view, &incoming) {
        Ok(view)
    } else {
        context.views.refresh_current().await
    };
    let view = view.map_err(|error| errors::of_read(&error));
    if let Ok(view) = &view
        && incoming.is_unlike(view)
    {
        recompress(&context, Arc::clone(view), &mut incoming).await;
    }
    let is_large = incoming.bytes > PRODUCE_INLINE_BYTES as u64;
    let put = move || {
        let view = view.as_ref().map_err(|code| *code);
        put(&context, &peer, view, incoming, held)
    };
    if is_large {
        host::task::spawn_blocking(put).await
    } else {
        put()
    }
}

/// Compresses batches as their topics want them. What comes out has memory of its own until they
/// are settled.
async fn recompress(context: &Context, view: Arc<View>, incoming: &mut Incoming) {
    let (request, version) = (incoming.request.clone(), incoming.header.version);
    let unpacking = &context.memory.unpacking;
    let (done, mut held) = unpacking
        .run(move |room| content::recompress_all(&view, &request, version, room))
        .await;
    let recompressed = done.unwrap_or_else(|content::Short(done)| done);
    let batches = recompressed.values().flatten();
    let bytes = batches.map(|batch| batch.length_bytes() as u64).sum();
    held.shrink_to(bytes);
    incoming.bytes += bytes;
    incoming.lease.unpacked = Some(held);
    incoming.recompressed = recompressed;
}

impl Incoming {
    /// Reads a request; why the connection is to be closed, if it is none.
    fn decode(frame: &Bytes, lease: Lease, at: Instant) -> Result<Self, String> {
        let bytes_max = frame.len() + DECODED_BYTES_FREE;
        let decoded = wire::frame::decode_request_within(frame, bytes_max);
        let (header, Request::Produce(request), _) = decoded.map_err(|error| error.to_string())?
        else {
            return Err("a request out of its way".to_owned());
        };
        Ok(Incoming {
            header,
            request,
            lease,
            bytes: frame.len() as u64,
            at,
            recompressed: content::Recompressed::new(),
        })
    }

    /// True if a topic wants a batch compressed otherwise.
    fn is_unlike(&self, view: &View) -> bool {
        content::is_unlike(view, &self.request, self.header.version)
    }

    /// The partitions that it names, or the topics, if it names more of these.
    fn entries(&self) -> u64 {
        let topics = &self.request.topic_data;
        let partitions = topics.iter().map(|topic| topic.partition_data.len());
        partitions.sum::<usize>().max(topics.len()) as u64
    }
}

fn topic_key<'a>(topic: &'a TopicProduceData, version: i16) -> TopicKey<'a> {
    if version >= IDS_SINCE {
        TopicKey::Id(topic_id(topic.topic_id))
    } else {
        TopicKey::Name(&topic.name)
    }
}

fn knows_all(view: &View, incoming: &Incoming) -> bool {
    incoming.request.topic_data.iter().all(|topic| {
        view.find(topic_key(topic, incoming.header.version))
            .is_some_and(|found| {
                topic
                    .partition_data
                    .iter()
                    .all(|data| found.partition(data.index).is_some())
            })
    })
}

/// Checks every batch, puts the good ones into the pipeline and drafts the answer.
fn put(
    context: &Context,
    peer: &Peer,
    view: Result<&Arc<View>, ErrorCode>,
    incoming: Incoming,
    held: Held,
) -> Begun {
    let (header, request, at) = (incoming.header, incoming.request, incoming.at);
    let mut checks = Checks {
        version: header.version,
        recompressed: incoming.recompressed,
        refusal: refusal_of(&request),
        batches: Vec::new(),
        gaps: Vec::new(),
    };
    let responses = request
        .topic_data
        .into_iter()
        .enumerate()
        .map(|(index, topic)| checks.topic(index, view, topic))
        .collect();
    let (batches, gaps) = (checks.batches, checks.gaps);
    let mut answer = Draft {
        response: ProduceResponse {
            responses,
            ..ProduceResponse::default()
        },
        gaps,
        correlation_id: header.correlation_id,
        version: header.version,
        acks: request.acks,
        held: Some(held),
    };
    if batches.is_empty() {
        return Begun::Done(answer.finish(&context.metrics));
    }
    if batches.len() > context.settings.file_batches_max {
        answer.fail(ErrorCode::RecordListTooLarge, Some(TOO_MANY_BATCHES));
        return Begun::Done(answer.finish(&context.metrics));
    }
    if context.reserve.is_short() {
        answer.fail(ErrorCode::KafkaStorageError, Some(NO_ROOM));
        return Begun::Done(answer.finish(&context.metrics));
    }
    context.metrics.produce_batches.add(batches.len() as u64);
    let (ticket, outcome) = oneshot::channel();
    let write = Write {
        ticket,
        lane: Lane(peer.connection),
        batches,
        pinned_bytes: incoming.bytes,
        at,
        memory: incoming.lease,
    };
    context.metrics.produce_bytes.add(write.batch_bytes());
    context.pipeline.submit(at, write);
    let timeout = Duration::from_millis(u64::try_from(request.timeout_ms).unwrap_or(0).max(1));
    let pending = Pending {
        outcome,
        answer,
        started: at,
        gave_up: false,
        metrics: Arc::clone(&context.metrics),
    };
    Begun::Ahead {
        job: Job::Outcome(Box::new(pending)),
        overdue_at: at + timeout,
    }
}

/// Why nothing of a request can be written, whatever its batches are.
fn refusal_of(request: &ProduceRequest) -> Option<ErrorCode> {
    if !matches!(request.acks, -1..=1) {
        return Some(ErrorCode::InvalidRequiredAcks);
    }
    // Transactions are not served; see `producers`.
    request
        .transactional_id
        .is_some()
        .then_some(ErrorCode::TransactionalIdAuthorizationFailed)
}

/// Checks the batches of one request.
struct Checks {
    version: i16,
    refusal: Option<ErrorCode>,
    recompressed: content::Recompressed,
    batches: Vec<Batch>,
    gaps: Vec<Gap>,
}

/// Why a batch is refused.
struct Refusal {
    code: ErrorCode,
    why: Option<String>,
    /// The record that is at fault, by its place in the batch.
    record: Option<i32>,
}

impl From<ErrorCode> for Refusal {
    fn from(code: ErrorCode) -> Self {
        Refusal {
            code,
            why: None,
            record: None,
        }
    }
}

impl Checks {
    fn topic(
        &mut self,
        index: usize,
        view: Result<&Arc<View>, ErrorCode>,
        topic: TopicProduceData,
    ) -> TopicProduceResponse {
        let unknown = if self.version >= IDS_SINCE {
            ErrorCode::UnknownTopicId
        } else {
            ErrorCode::UnknownTopicOrPartition
        };
        let found = match (self.refusal, view) {
            (Some(code), _) | (None, Err(code)) => Err(code),
            (None, Ok(view)) => view.find(topic_key(&topic, self.version)).ok_or(unknown),
        };
        let mut partition_responses = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let gap = (index, partition_responses.len());
            partition_responses.push(self.partition(gap, found, data));
        }
        TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses,
        }
    }

    fn partition(
        &mut self,
        gap: Gap,
        topic: Result<&Arc<Topic>, ErrorCode>,
        data: PartitionProduceData,
    ) -> PartitionProduceResponse {
        let index = data.index;
        match topic
            .map_err(Refusal::from)
            .and_then(|topic| self.batch(gap, topic, data))
        {
            Ok((batch, log_append_time_ms)) => {
                self.batches.push(batch);
                self.gaps.push(gap);
                PartitionProduceResponse {
                    index,
                    log_append_time_ms,
                    ..Default::default()
                }
            }
            Err(refusal) => refused(index, refusal),
        }
    }

    /// A batch that may be written, and the time it is given if the topic's clock is ours.
    fn batch(
        &mut self,
        gap: Gap,
        topic: &Topic,
        data: PartitionProduceData,
    ) -> Result<(Batch, i64), Refusal> {
        let partition = topic
            .partition(data.index)
            .ok_or(ErrorCode::UnknownTopicOrPartition)?;
        let records = data.records.ok_or(ErrorCode::InvalidRecord)?;
        let rules = &topic.rules;
        let limits = ProduceLimits {
            produce_version: self.version,
            batch_bytes_max: rules.batch_bytes_max,
            timestamp_type: rules.timestamp_type,
        };
        let refuse = |error: wire::batch::BatchError| Refusal {
            code: errors::of_batch(error),
            why: Some(error.to_string()),
            record: None,
        };
        let CheckedBatch { batch, summary } = check_produce(&records, limits).map_err(refuse)?;
        if summary.is_transactional {
            return Err(ErrorCode::InvalidTxnState.into());
        }
        let now_ms = i64::try_from(host::clock::wall_millis()).unwrap_or(i64::MAX);
        check_times(
            rules,
            summary.base_timestamp_ms,
            summary.max_timestamp_ms,
            now_ms,
        )?;
        content::check(summary.compression, &batch)?;
        let batch = match self.recompressed.remove(&gap) {
            Some(recompressed) => recompressed.map_err(content::refuse)?,
            None => batch,
        };
        let (batch, log_append_time_ms) = match rules.timestamp_type {
            TimestampType::CreateTime => (batch, -1),
            TimestampType::LogAppendTime => (batch.with_log_append_time(now_ms), now_ms),
        };
        let placed = Batch {
            partition,
            checksum: crate::data::batch_sum::known(&batch),
            // The check made sure that the count is positive.
            records: summary.count.cast_unsigned(),
            max_timestamp: batch.max_timestamp_ms(),
            producer_id: summary.producer_id,
            producer_epoch: summary.producer_epoch,
            base_sequence: summary.base_sequence,
            bytes: batch.into_bytes(),
        };
        Ok((placed, log_append_time_ms))
    }
}

/// Timestamps far from the clock are refused, as far as the header tells (KIP-937). A producer that
/// sets none sends -1.
fn check_times(rules: &Rules, base_ms: i64, max_ms: i64, now_ms: i64) -> Result<(), Refusal> {
    if rules.timestamp_type == TimestampType::LogAppendTime {
        return Ok(());
    }
    let too_late = max_ms >= 0 && max_ms.saturating_sub(now_ms) > rules.after_max_ms;
    let too_early = base_ms >= 0 && now_ms.saturating_sub(base_ms) > rules.before_max_ms;
    if !too_late && !too_early {
        return Ok(());
    }
    let (name, limit) = if too_late {
        ("message.timestamp.after.max.ms", rules.after_max_ms)
    } else {
        ("message.timestamp.before.max.ms", rules.before_max_ms)
    };
    let why = format!("a timestamp of the batch is out of range: {name} is {limit}");
    Err(Refusal {
        code: ErrorCode::InvalidTimestamp,
        why: Some(why),
        record: None,
    })
}

fn refused(index: i32, refusal: Refusal) -> PartitionProduceResponse {
    let message = refusal.why.map(Str::from);
    let record_errors = refusal.record.map(|batch_index| BatchIndexAndErrorMessage {
        batch_index,
        batch_index_error_message: message.clone(),
    });
    PartitionProduceResponse {
        index,
        error_code: refusal.code.code(),
        base_offset: -1,
        record_errors: record_errors.into_iter().collect(),
        error_message: message,
        current_leader: LeaderIdAndEpoch::default(),
        ..PartitionProduceResponse::default()
    }
}

impl Future for Pending {
    type Output = Reply;

    /// The answer, once the outcome is known.
    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Reply> {
        let outcome = match self.outcome.poll_unpin(cx) {
            Poll::Ready(Ok(Ok(outcomes))) => Ok(outcomes),
            Poll::Ready(Ok(Err(failure))) => Err(errors::of_failure(failure)),
            // The pipeline is gone without a word: nobody knows.
            Poll::Ready(Err(_)) => Err(ErrorCode::RequestTimedOut),
            Poll::Pending if self.gave_up => Err(ErrorCode::RequestTimedOut),
            Poll::Pending => return Poll::Pending,
        };
        self.metrics
            .produce_ack_micros
            .observe_duration(host::clock::now().since(self.started));
        match outcome {
            Ok(outcomes) => self.answer.fill(outcomes.iter()),
            Err(code) => self.answer.fail(code, None),
        }
        Poll::Ready(self.answer.take().finish(&self.metrics))
    }
}

impl Outcome for Pending {
    fn give_up(&mut self) {
        self.gave_up = true;
    }
}

impl Draft {
    fn fill<'a>(&mut self, outcomes: impl Iterator<Item = &'a BatchOutcome>) {
        for ((topic, partition), outcome) in self.gaps.iter().zip(outcomes) {
            let answer = &mut self.response.responses[*topic].partition_responses[*partition];
            match errors::of_outcome(outcome) {
                Ok((base_offset, log_start)) => {
                    answer.base_offset = base_offset;
                    answer.log_start_offset = log_start;
                }
                Err(code) => {
                    answer.error_code = code.code();
                    answer.base_offset = -1;
                    answer.log_append_time_ms = -1;
                    if *outcome == BatchOutcome::TooManyProducers {
                        answer.error_message = Some(Str::from_static(TOO_MANY_PRODUCERS));
                    }
                }
            }
        }
    }

    /// Nothing of the request is known to be written.
    fn fail(&mut self, code: ErrorCode, why: Option<&'static str>) {
        for (topic, partition) in &self.gaps {
            let answer = &mut self.response.responses[*topic].partition_responses[*partition];
            answer.error_code = code.code();
            answer.base_offset = -1;
            answer.log_append_time_ms = -1;
            answer.error_message = why.map(Str::from_static);
        }
    }

    fn take(&mut self) -> Draft {
        Draft {
            response: std::mem::take(&mut self.response),
            gaps: std::mem::take(&mut self.gaps),
            held: self.held.take(),
            ..*self
        }
    }

    /// The answer. With acks=0 the client expects none: the end of the connection is how it learns
    /// of an error.
    fn finish(self, metrics: &Metrics) -> Reply {
        let partitions = self
            .response
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses);
        let mut failed = None;
        for partition in partitions.filter(|partition| partition.error_code != 0) {
            let code = ErrorCode::from_code(partition.error_code).unwrap_or_default();
            metrics.produce_errors.count(code);
            failed = Some(code);
        }
        match failed {
            _ if self.acks != 0 => {
                let (response, mut held) = (self.response, self.held);
                encode(response, self.correlation_id, self.version, |bytes| {
                    if let Some(held) = &mut held {
                        held.shrink_to(bytes);
                    }
                    Kept {
                        bulk_answer: held,
                        ..Kept::default()
                    }
                })
            }
            None => Reply::Silence,
            Some(code) => Reply::Close(format!(
                "a produce request with acks=0 failed: {}",
                code.name()
            )),
        }
    }
}
