//! A simulated agent: the produce pipeline's core as in production, and around it uploads, calls and answers.
//!
//! Reading is in `reader`. Must not know control nodes' insides.

use std::collections::BTreeMap;
use std::time::Duration;

use agent::data::produce::batch::Stored;
use agent::data::produce::event::{Effect, Event, Failure};
use agent::data::produce::sequence::Sequence;
use agent::data::produce::{Batch, Cut, Lane, Limits, Write};
use bytes::Bytes;
use meta::Command;
use meta::command::RegisterAgent;
use meta::endpoint::Endpoint;
use meta::ids::{FileId, PartitionId};
use rpc::call::Registered;
use rpc::{Answer as Answered, Call, Return};
use store::file::{Counts, FileBuilder, Piece};

use crate::bucket::{Answer, Request};
use crate::faults::Fault;
use crate::network::Place;
use crate::thrift;

use super::context::{Context, Input, Life, file_key};
use super::desk::{Desk, Purpose};
use super::message::{Ask, Blob, Body, Number, Produced, Told, produced};
use super::reader::Reader;

/// An upload is given up after this time.
const UPLOAD_US: u64 = 8_000_000;
/// Pause before an upload is tried again.
const UPLOAD_PAUSE_US: u64 = 50_000;
/// Pause before registering is tried again.
const REGISTER_PAUSE_US: u64 = 100_000;

/// A file on its way to the bucket.
struct Upload {
    key: String,
    bytes: Bytes,
    stored: Stored,
    until_us: u64,
}

/// An agent in one life.
pub(super) struct Agent {
    desk: Desk,
    name: String,
    nonce: u128,
    sequence: Sequence<(Place, Number)>,
    uploads: BTreeMap<FileId, Upload>,
    reader: Reader,
    armed_us: u64,
}

impl Agent {
    /// An agent at its start. It keeps its name over its lives, and nothing else.
    pub(super) fn new(cx: &mut Context, place: Place, life: Life, controls: Vec<Place>) -> Self {
        let rng = &mut cx.scheduler.rng;
        let limits = Limits {
            flush_bytes: 500 + rng.below(20_000),
            // What an entry takes here is never reached.
            batches_max: usize::MAX,
            flush_interval: Duration::from_millis(1 + rng.below(100)),
            thrift: thrift::draw(rng),
            uploads_max: 1 + rng.below(8) as usize,
        };
        let near = rng.below(controls.len() as u64) as usize;
        let nonce = u128::from(rng.next_u64());
        let sequence = Sequence::new(limits, rng.next_u64());
        let waiting = BTreeMap::new();
        Agent {
            desk: Desk {
                place,
                life,
                controls,
                leader: near,
                near,
                waiting,
            },
            name: format!("agent-{place}"),
            nonce,
            sequence,
            uploads: BTreeMap::new(),
            reader: Reader::default(),
            armed_us: u64::MAX,
        }
    }

    pub(super) fn handle(&mut self, cx: &mut Context, input: Input) {
        match input {
            Input::Start => self.register(cx),
            Input::Wake => {
                if self.armed_us <= cx.now_us() {
                    self.armed_us = u64::MAX;
                }
                self.feed(cx, Event::Timer);
            }
            Input::Message(client, Body::Ask(number, ask)) => self.asked(cx, client, number, ask),
            Input::Message(_, Body::Return(number, result)) => {
                if let Some(purpose) = self.desk.waiting.remove(&number) {
                    self.returned(cx, purpose, result);
                }
            }
            Input::TimedOut(number) => {
                if let Some(purpose) = self.desk.waiting.remove(&number) {
                    self.timed_out(cx, purpose);
                }
            }
            Input::Bucket(number, answer) => {
                if let Some(purpose) = self.desk.waiting.remove(&number) {
                    self.bucket_answered(cx, purpose, answer.0);
                }
            }
            Input::Message(..) | Input::Journal(..) => {}
        }
        self.arm(cx);
    }

    fn arm(&mut self, cx: &mut Context) {
        let sequence = self.sequence.deadline().map(|at| at.as_micros());
        let at_us = sequence.unwrap_or(u64::MAX).max(cx.now_us());
        if at_us < self.armed_us {
            self.armed_us = at_us;
            cx.wake_at(self.desk.place, self.desk.life, at_us);
        }
    }

    fn register(&mut self, cx: &mut Context) {
        let command = Command::RegisterAgent(RegisterAgent {
            nonce: self.nonce,
            listeners: Endpoint::alone(&self.name, 9092),
            name: self.name.clone(),
            region: "r".to_owned(),
            zone: "z".to_owned(),
            neighbour_address: String::new(),
            level: meta::level::Levels::KNOWN.newest().number,
        });
        self.desk.propose(cx, command, Purpose::Register);
    }

    fn asked(&mut self, cx: &mut Context, client: Place, number: Number, ask: Ask) {
        let failed = match &ask {
            Ask::ListOffsets(_) => Told::Offsets(None),
            Ask::Group(_) => Told::Group(None),
            _ => Told::Producer(None),
        };
        let purpose = Purpose::Client(client, number, failed);
        match ask {
            Ask::Produce {
                lane,
                partition,
                batch,
            } => {
                self.produce(cx, (client, number), Lane(lane), partition, &batch);
            }
            Ask::InitProducer => {
                let command = Command::AllocateProducer { known: None };
                self.desk.propose(cx, command, purpose);
            }
            Ask::Fetch(wants) => self.reader.start(cx, &mut self.desk, client, number, wants),
            Ask::ListOffsets(partitions) => self.desk.call(cx, Call::Bounds(partitions), purpose),
            Ask::Group(request) => self.desk.call(cx, Call::Group(request), purpose),
        }
    }

    fn produce(
        &mut self,
        cx: &mut Context,
        ticket: (Place, Number),
        lane: Lane,
        partition: PartitionId,
        batch: &Blob,
    ) {
        let limits = wire::batch::ProduceLimits {
            produce_version: 9,
            batch_bytes_max: 1 << 20,
            timestamp_type: wire::batch::TimestampType::CreateTime,
        };
        let checked = match wire::batch::check_produce(&batch.0, limits) {
            Ok(checked) => checked,
            Err(error) => return cx.violation(format!("a sound batch was refused: {error}")),
        };
        let summary = checked.summary;
        let batch = Batch {
            partition,
            bytes: checked.batch.into_bytes(),
            checksum: None,
            records: summary.count.cast_unsigned(),
            max_timestamp: summary.max_timestamp_ms,
            time_source: meta::commit::TimeSource::Records,
            producer_id: summary.producer_id,
            producer_epoch: summary.producer_epoch,
            base_sequence: summary.base_sequence,
        };
        let pinned_bytes = batch.bytes.len() as u64;
        let write = Write {
            ticket,
            lane,
            batches: vec![batch],
            pinned_bytes,
            at: cx.now(),
            memory: (),
        };
        self.feed(cx, Event::Write(write));
    }

    /// Hands an event to the pipeline and performs what it wants.
    fn feed(&mut self, cx: &mut Context, event: Event<(Place, Number)>) {
        let mut effects = Vec::new();
        self.sequence.handle(cx.now(), event, &mut effects);
        for effect in effects {
            if cx.strike(Fault::KillBetweenEffects) {
                cx.dying = Some(self.desk.place);
            }
            if cx.dying == Some(self.desk.place) {
                return;
            }
            self.perform(cx, effect);
        }
    }

    fn perform(&mut self, cx: &mut Context, effect: Effect<(Place, Number)>) {
        match effect {
            Effect::Upload(cut) => self.upload(cx, &cut),
            Effect::Commit(commit) => {
                let file = commit.file;
                let command = Command::CommitFile((*commit).clone());
                self.desk.propose(cx, command, Purpose::File(file));
            }
            Effect::Skip(file) => {
                let command = Command::SkipFile { file };
                self.desk.propose(cx, command, Purpose::File(file));
            }
            Effect::Settled { file, .. } => {
                self.uploads.remove(&file);
            }
            Effect::Answer {
                ticket: (client, number),
                answer,
            } => {
                let told = match answer {
                    // The pipeline answers one outcome per batch, and a request has one batch.
                    Ok(outcomes) => outcomes.first().map_or(Produced::Unknown, |o| produced(*o)),
                    Err(failure) => not_produced(failure),
                };
                self.desk.tell(cx, client, number, Told::Produced(told));
            }
            Effect::Register => {
                self.nonce = u128::from(cx.scheduler.rng.next_u64());
                self.register(cx);
            }
        }
    }

    fn upload(&mut self, cx: &mut Context, cut: &Cut) {
        let Some((bytes, stored)) = build(cut) else {
            return cx.violation(format!("file {} cannot be built", cut.file));
        };
        let key = file_key(cut.file, cut.nonce);
        let until_us = cx.now_us() + UPLOAD_US;
        self.uploads.insert(
            cut.file,
            Upload {
                key,
                bytes,
                stored,
                until_us,
            },
        );
        self.put(cx, cut.file);
    }

    fn put(&mut self, cx: &mut Context, file: FileId) {
        if let Some(upload) = self.uploads.get(&file) {
            let request = Request::Put(upload.key.clone(), upload.bytes.clone());
            self.desk.ask(cx, request, Purpose::Put(file));
        }
    }

    fn uploaded(&mut self, cx: &mut Context, file: FileId) {
        if let Some(upload) = self.uploads.remove(&file) {
            self.feed(
                cx,
                Event::Uploaded {
                    file,
                    stored: upload.stored,
                },
            );
        }
    }

    /// Not seen to be durable: once more, or given up.
    fn put_again(&mut self, cx: &mut Context, file: FileId) {
        let Some(upload) = self.uploads.get(&file) else {
            return;
        };
        if cx.now_us() < upload.until_us {
            return self
                .desk
                .pause(cx, UPLOAD_PAUSE_US, Purpose::PutAgain(file));
        }
        self.uploads.remove(&file);
        self.feed(cx, Event::UploadFailed { file });
    }

    fn bucket_answered(&mut self, cx: &mut Context, purpose: Purpose, answer: Answer) {
        match (purpose, answer) {
            (Purpose::Put(file), Answer::Created) => self.uploaded(cx, file),
            (Purpose::Put(file), Answer::Conflict) => {
                // No proof of anything: look what is there.
                if let Some(upload) = self.uploads.get(&file) {
                    let request = Request::Get(upload.key.clone());
                    self.desk.ask(cx, request, Purpose::Compare(file));
                }
            }
            (Purpose::Put(file), _) => self.put_again(cx, file),
            (Purpose::Compare(file), Answer::Found(bytes)) => {
                let same = self
                    .uploads
                    .get(&file)
                    .is_some_and(|upload| upload.bytes == bytes);
                if same {
                    self.uploaded(cx, file)
                } else {
                    self.put_again(cx, file)
                }
            }
            (Purpose::Compare(file), _) => self.put_again(cx, file),
            (Purpose::Get(job, file), answer) => {
                self.reader.loaded(cx, &mut self.desk, job, file, answer);
            }
            _ => {}
        }
    }

    /// A control node answered.
    fn returned(
        &mut self,
        cx: &mut Context,
        purpose: Purpose,
        result: Result<Answered, rpc::Error>,
    ) {
        use rpc::Error::{Busy, NotLeader, Unavailable};
        if let Err(NotLeader { .. } | Busy | Unavailable { .. }) = &result {
            self.desk.look_elsewhere();
        }
        let at = result.as_ref().map(|answer| answer.at).ok();
        match (purpose, result.map(|answer| answer.value)) {
            (Purpose::Register, Ok(Return::Registered(Registered { incarnation, .. }))) => {
                self.feed(cx, Event::Registered(incarnation));
            }
            (Purpose::Register, Err(rpc::Error::Refused { .. })) => {
                self.nonce = u128::from(cx.scheduler.rng.next_u64());
                self.desk
                    .pause(cx, REGISTER_PAUSE_US, Purpose::RegisterAgain);
            }
            (Purpose::Register, _) => {
                self.desk
                    .pause(cx, REGISTER_PAUSE_US, Purpose::RegisterAgain);
            }
            (Purpose::File(file), Ok(Return::File(reply))) => {
                let result = Ok(reply);
                self.feed(cx, Event::Called { file, result });
            }
            (Purpose::File(file), Err(error)) => {
                let result = Err(error);
                self.feed(cx, Event::Called { file, result });
            }
            (Purpose::Client(client, number, failed), result) => {
                self.desk
                    .tell(cx, client, number, told(result).unwrap_or(failed));
            }
            (Purpose::Locate(job), Ok(Return::Located(located))) => {
                self.reader.located(cx, &mut self.desk, job, located);
            }
            (Purpose::Barrier(job), Ok(Return::Done)) => {
                let at = at.unwrap_or_default();
                self.reader.reached(cx, &mut self.desk, job, at);
            }
            (Purpose::Locate(job) | Purpose::Barrier(job), _) => {
                self.reader.failed(cx, &self.desk, job);
            }
            _ => {}
        }
    }

    fn timed_out(&mut self, cx: &mut Context, purpose: Purpose) {
        match purpose {
            Purpose::PutAgain(file) => self.put(cx, file),
            Purpose::RegisterAgain => self.register(cx),
            purpose => {
                if matches!(purpose, Purpose::Locate(_)) {
                    self.desk.look_elsewhere_near();
                }
                self.desk.look_elsewhere();
                let reason = "it was not answered in time".to_owned();
                self.returned(cx, purpose, Err(rpc::Error::Unknown { reason }));
            }
        }
    }
}

/// What Kafka's error says of a request without an outcome.
fn not_produced(failure: Failure) -> Produced {
    if failure.is_definite() {
        Produced::NotWritten
    } else {
        Produced::Unknown
    }
}

fn told(result: Result<Return, rpc::Error>) -> Option<Told> {
    Some(match result {
        Ok(Return::Producer { id, epoch }) => Told::Producer(Some((id, epoch))),
        Ok(Return::Bounds(bounds)) => Told::Offsets(Some(bounds)),
        Ok(Return::Group(reply)) => Told::Group(Some(reply)),
        _ => return None,
    })
}

/// The file's bytes, as an uploader lays them out.
fn build(cut: &Cut) -> Option<(Bytes, Stored)> {
    let mut builder = FileBuilder::new(agent::data::cache::stored_id(cut.file));
    for slice in cut.batches.chunk_by(|a, b| a.partition == b.partition) {
        let pieces = slice.iter().map(|batch| Piece::from(batch.bytes.clone()));
        let counts = Counts {
            batches: slice.len() as u32,
            records: slice.iter().map(|batch| batch.records).sum(),
            max_timestamp_ms: slice.iter().map(|batch| batch.max_timestamp).max()?,
        };
        builder
            .push(slice.first()?.partition.0, pieces, counts)
            .ok()?;
    }
    let built = builder.finish().ok()?;
    let (length, checksum) = (built.length, built.checksum);
    let stored = Stored {
        length,
        checksum,
        placement: vec![0],
    };
    Some((built.payload.to_bytes(), stored))
}
