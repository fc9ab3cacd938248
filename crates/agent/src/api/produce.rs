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
use wire::errors::ErrorCode;
use wire::frame::RequestHeader;
use wire::messages::Request;
use wire::messages::produce::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, PartitionProduceResponse, ProduceRequest,
    ProduceResponse, TopicProduceData, TopicProduceResponse,
};
use wire::text::Str;

use super::{encode, errors, topic_id};
use crate::context::Context;
use crate::data::produce::{Answer, Batch, Failure, Lane, Write};
use crate::edge::memory::{Kept, Lease};
use crate::edge::service::{Begun, Job, Outcome, Peer, Reply};
use crate::metrics::Metrics;
use crate::view::{TopicKey, View};
use check::{Refusal, Verdict};

mod check;

/// Topics are named by id from this version on.
const IDS_SINCE: i16 = 13;

/// Memory that the answer for one partition takes until it is sent, over all stages from draft to
/// frame.
const ANSWER_BYTES: u64 = 512;
/// A partition with records takes at least this in a request: its number, a length, the header of a
/// batch. A request that names more partitions than would fit is not one that clients send.
const ENTRY_BYTES_MIN: u64 = 4 + 4 + 61;
/// A request may name this many empty partitions and still be told what is wrong.
const ENTRIES_FREE: u64 = 64;
/// The timeout of a request that states none, or 0: what clients state by default.
const TIMEOUT_UNSAID: Duration = Duration::from_secs(30);
const TOO_MANY_PRODUCERS: &str = "no more idempotent producers can be remembered (producer.ids.max) \
                                  until some are idle for a while: try again, or raise it";
const TOO_MANY_BATCHES: &str = "the request has more batches than one entry of the journal can name: \
                                send it in parts, or raise journal.entry.max.bytes";

/// A produce request that was decoded.
struct Incoming {
    header: RequestHeader,
    request: ProduceRequest,
    lease: Lease,
    /// The size of its frame, and of what was decoded from it.
    bytes: u64,
    at: Instant,
}

/// The message to producers while the bucket's file system is nearly full.
const NO_ROOM: &str = "the bucket has no room for records just now";

/// A request whose batches are in the pipeline.
struct Pending {
    outcome: oneshot::Receiver<Answer>,
    answer: Draft,
    started: Instant,
    gave_up: bool,
    metrics: Arc<Metrics>,
}

/// The indexes of a topic and of its partition, in a request and in its answer.
type Gap = (usize, usize);

/// An answer in which the outcomes of batches are still missing.
struct Draft {
    response: ProduceResponse,
    /// Where the outcomes belong, in the order of the batches.
    gaps: Vec<Gap>,
    correlation_id: i32,
    version: i16,
    acks: i16,
    /// Memory for the answer.
    held: Option<Held>,
}

/// A decoded produce request is never larger than its frame: every batch is longer than its struct.
/// Requests without batches get this much extra.
const DECODED_BYTES_FREE: usize = 4 << 10;

/// Puts a request into the pipeline. If the view lacks one of its topics, or the check of its
/// batches takes long, that happens first, and no later request of the connection overtakes it.
pub(crate) fn begin(
    context: &Arc<Context>,
    peer: &Peer,
    frame: Bytes,
    lease: Lease,
    now: Instant,
) -> Begun {
    context.metrics.produce_requests.increment();
    let mut incoming = match Incoming::decode(&frame, lease, now) {
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
    let mut held = answers.try_hold(answer_bytes);
    if held.is_some()
        && let Some(verdicts) = check_now(context, peer, &mut incoming)
        && let Some(held) = held.take()
    {
        return put(context, peer, verdicts, incoming, held);
    }
    let entering = enter(Arc::clone(context), peer.clone(), incoming, held);
    Begun::Entering(Job::Future(entering.boxed()))
}

/// Waits for memory for the answer, unless `held` is given, and for the check of the batches; then
/// puts the request into the pipeline.
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
    let verdicts = check_later(&context, &peer, &mut incoming).await;
    put(&context, &peer, verdicts, incoming, held)
}

/// The verdict on each batch, in the order of the request; or one code for all of them.
type Verdicts = Result<Vec<Verdict>, ErrorCode>;

/// Checks the batches on the spot; `None` if that would take long, more memory, or a newer view.
fn check_now(context: &Context, peer: &Peer, incoming: &mut Incoming) -> Option<Verdicts> {
    if let Some(refusal) = refusal_of(context, peer, &incoming.request) {
        return Some(Err(refusal));
    }
    let (view, version) = (context.views.latest(), incoming.header.version);
    if !knows_all(&view, incoming) || !check::is_light(&view, &incoming.request, version) {
        return None;
    }
    let verdicts = check::check_all(&view, &incoming.request, version, check::HERE).ok()?;
    let own_bytes = own_bytes(&verdicts);
    if own_bytes > 0 {
        let held = context.memory.unpacking.try_hold(own_bytes)?;
        incoming.hold(held, own_bytes);
    }
    Some(Ok(verdicts))
}

/// Checks the batches of a request off the async threads.
async fn check_later(context: &Context, peer: &Peer, incoming: &mut Incoming) -> Verdicts {
    if let Some(refusal) = refusal_of(context, peer, &incoming.request) {
        return Err(refusal);
    }
    let mut view = context.views.latest();
    if !knows_all(&view, incoming) {
        let current = context.views.refresh_current().await;
        view = current.map_err(|error| errors::of_read(&error))?;
    }
    let (request, version) = (incoming.request.clone(), incoming.header.version);
    let unpacking = &context.memory.unpacking;
    let (checked, mut held) = unpacking
        .run(move |room| check::check_all(&view, &request, version, room))
        .await;
    let verdicts = checked.unwrap_or_else(|check::Short(verdicts)| verdicts);
    let own_bytes = own_bytes(&verdicts);
    if own_bytes > 0 {
        held.shrink_to(own_bytes);
        incoming.hold(held, own_bytes);
    }
    Ok(verdicts)
}

/// Memory that checked batches take outside their request until they are settled.
fn own_bytes(verdicts: &[Verdict]) -> u64 {
    let checked = verdicts.iter().flatten();
    checked.map(|checked| checked.own_bytes as u64).sum()
}

impl Incoming {
    /// Decodes a request; the error says why the connection is closed.
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
        })
    }

    /// Adds memory for what was decoded or made from the request.
    fn hold(&mut self, held: Held, bytes: u64) {
        self.lease.unpacked = Some(held);
        self.bytes += bytes;
    }

    /// How many partitions it names, or topics, if it names more of these.
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

/// The code for a topic that does not exist.
fn unknown_topic(version: i16) -> ErrorCode {
    if version >= IDS_SINCE {
        ErrorCode::UnknownTopicId
    } else {
        ErrorCode::UnknownTopicOrPartition
    }
}

/// Puts the batches that passed into the pipeline and drafts the answer.
fn put(
    context: &Context,
    peer: &Peer,
    verdicts: Verdicts,
    incoming: Incoming,
    held: Held,
) -> Begun {
    let (header, request, at) = (incoming.header, incoming.request, incoming.at);
    let mut sorted = Sorted {
        verdicts: verdicts.map(Vec::into_iter),
        batches: Vec::new(),
        gaps: Vec::new(),
    };
    let topics = request.topic_data.into_iter().enumerate();
    let responses = topics
        .map(|(index, topic)| sorted.topic(index, topic))
        .collect();
    let (batches, gaps) = (sorted.batches, sorted.gaps);
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
        answer.fail(errors::of_failure(Failure::NotStored), Some(NO_ROOM));
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
    let timeout = match u64::try_from(request.timeout_ms) {
        Ok(millis @ 1..) => Duration::from_millis(millis),
        // In Kafka a request that needs one copy waits for no other broker, so that a timeout of
        // 0 never expires.
        _ => TIMEOUT_UNSAID,
    };
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

/// The code if nothing of the request can be written, whatever its batches hold.
fn refusal_of(context: &Context, peer: &Peer, request: &ProduceRequest) -> Option<ErrorCode> {
    if !matches!(request.acks, -1..=1) {
        return Some(ErrorCode::InvalidRequiredAcks);
    }
    // Transactions are not served; see `producers`.
    if request.transactional_id.is_some() {
        return Some(ErrorCode::TransactionalIdAuthorizationFailed);
    }
    // Nothing of it is written, and its producer hears that after what it has sent before: so it sends it again, elsewhere, in
    // order. One that waits for no answers is told nothing, so its records are taken.
    let is_sent_away = request.acks != 0 && context.refuses_data(&context.listeners[peer.listener]);
    is_sent_away.then_some(ErrorCode::NotLeaderOrFollower)
}

/// The batches that may be written, and the answers for the others.
struct Sorted {
    verdicts: Result<std::vec::IntoIter<Verdict>, ErrorCode>,
    batches: Vec<Batch>,
    gaps: Vec<Gap>,
}

impl Sorted {
    fn topic(&mut self, index: usize, topic: TopicProduceData) -> TopicProduceResponse {
        let partitions = topic.partition_data.into_iter().enumerate();
        let partition_responses = partitions
            .map(|(at, data)| self.partition((index, at), data.index))
            .collect();
        TopicProduceResponse {
            name: topic.name,
            topic_id: topic.topic_id,
            partition_responses,
        }
    }

    fn partition(&mut self, gap: Gap, index: i32) -> PartitionProduceResponse {
        let verdict = match &mut self.verdicts {
            Ok(verdicts) => verdicts.next(),
            Err(code) => Some(Err((*code).into())),
        };
        // The check yields one verdict for each batch.
        let verdict = verdict.unwrap_or_else(|| Err(ErrorCode::UnknownServerError.into()));
        match verdict {
            Ok(checked) => {
                self.batches.push(checked.batch);
                self.gaps.push(gap);
                PartitionProduceResponse {
                    index,
                    log_append_time_ms: checked.log_append_time_ms,
                    ..Default::default()
                }
            }
            Err(refusal) => refused(index, refusal),
        }
    }
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

    /// Yields the answer once the outcome is known.
    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Reply> {
        let outcome = match self.outcome.poll_unpin(cx) {
            Poll::Ready(Ok(Ok(outcomes))) => Ok(outcomes),
            Poll::Ready(Ok(Err(failure))) => Err(errors::of_failure(failure)),
            // The pipeline dropped the ticket: the outcome is not known.
            Poll::Ready(Err(_)) => Err(errors::unknown_outcome()),
            Poll::Pending if self.gave_up => Err(errors::unknown_outcome()),
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

    /// Fills every gap with `code`.
    fn fail(&mut self, code: ErrorCode, why: Option<&'static str>) {
        let is_unknown = code == ErrorCode::RequestTimedOut;
        if is_unknown && host::trial::leaves_out("offset-zero-for-unknown") {
            return;
        }
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

    /// The answer. With acks=0 the client expects none: it learns of an error by the end of the
    /// connection.
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
