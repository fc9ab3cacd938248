//! A producer of a drill: idempotent, one request at a time, repeated until its outcome is known. It must not know what becomes of the
//! regions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use bytes::Bytes;
use host::clock::{self, Instant};
use wire::builder::BatchBuilder;
use wire::compression::Compression;
use wire::errors::ErrorCode;
use wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::text::Str;

use super::account::Written;
use super::client::{Phase, Seat};
use super::pauses::Pauses;
use super::record::{Stream, value};
use crate::client::{Client, Patience, Refused, check};

/// How long the cluster may take to make records durable.
const TIMEOUT_MS: i32 = 30_000;
/// The most records of one request, so that what waited for the end of a pause fits into a few: some 550 KiB.
const REQUEST_RECORDS_MAX: u64 = 5_000;
/// The least time between two requests, in which records gather.
const REQUEST_EVERY: Duration = Duration::from_millis(10);
/// Sequence numbers begin at 0 again behind this one.
const SEQUENCE_MAX: u32 = i32::MAX as u32;

/// What a producer is to do.
pub struct Order {
    pub seat: Seat,
    /// Its number among all producers, from 0 on.
    pub number: u32,
    /// Records that it writes, in each thousand seconds.
    pub rate_millis: u64,
    /// Where it counts what is acknowledged, for those who watch.
    pub acknowledged: Arc<AtomicU64>,
}

/// What became of a producer.
pub struct Outcome {
    pub written: Written,
    pub pauses: Pauses,
    /// The error with which it gave up.
    pub failure: Option<String>,
}

/// Writes until the drill is over, or an error comes that is final.
pub async fn run(order: Order) -> Outcome {
    let mut producer = Producer::new(order);
    let failure = producer.work().await.err();
    let is_lost = producer.order.seat.is_lost();
    producer.pauses.note(clock::now(), is_lost);
    Outcome {
        written: producer.written,
        pauses: producer.pauses,
        failure: failure.map(|error| format!("{error:#}")),
    }
}

struct Producer {
    client: Client,
    order: Order,
    id: i64,
    epoch: i16,
    written: Written,
    pauses: Pauses,
}

/// Batches on their way, by partition, and how many records each has.
type Unsent = BTreeMap<i32, (Bytes, u32)>;

impl Producer {
    fn new(order: Order) -> Self {
        Producer {
            client: order.seat.client(),
            id: -1,
            epoch: -1,
            written: Written::new(),
            pauses: Pauses::start(clock::now()),
            order,
        }
    }

    async fn work(&mut self) -> Result<()> {
        let given = |response: InitProducerIdResponse| {
            check(response.error_code, None, "an id for the producer")?;
            Ok((response.producer_id, response.producer_epoch))
        };
        let request = InitProducerIdRequest::default();
        (self.id, self.epoch) = self.client.ask(&request, 4, given).await?;
        let (start, mut sent) = (clock::now(), 0);
        while self.order.seat.phase() != Phase::Over {
            let due = due(start, clock::now(), self.order.rate_millis).saturating_sub(sent);
            let count = due.min(REQUEST_RECORDS_MAX);
            if count > 0 {
                self.write(count).await?;
                sent += count;
            }
            clock::sleep(REQUEST_EVERY).await;
        }
        Ok(())
    }

    /// Writes so many records and waits until all are acknowledged.
    async fn write(&mut self, count: u64) -> Result<()> {
        let mut unsent = self.batches(count)?;
        let mut patience = Patience::start();
        while !unsent.is_empty() {
            if let Some(refused) = self.send(&mut unsent).await? {
                patience.pause_after(refused.into()).await?;
            }
        }
        Ok(())
    }

    /// The next records, dealt out over all partitions.
    fn batches(&mut self, count: u64) -> Result<Unsent> {
        let now = i64::try_from(clock::wall_millis())?;
        let partitions = u64::try_from(self.order.seat.partitions)?;
        let mut unsent = Unsent::new();
        for partition in 0..self.order.seat.partitions {
            let stream = Stream {
                producer: self.order.number,
                partition,
            };
            let place = u64::try_from(partition)?;
            let share = count / partitions + u64::from(place < count % partitions);
            if share == 0 {
                continue;
            }
            let share = u32::try_from(share)?;
            let told = self.written.entry(stream).or_default();
            let first = told.sent;
            ensure!(
                first.checked_add(share).is_some(),
                "a partition takes no more records of a producer: lower --rate or --seconds"
            );
            told.sent += share;
            let mut batch = BatchBuilder::new(Compression::None);
            for number in first..told.sent {
                batch.append(now, None, Some(&value(stream, number)), &[]);
            }
            let sequence = i32::try_from(first & SEQUENCE_MAX)?;
            let batch = batch.producer(self.id, self.epoch, sequence).build();
            unsent.insert(partition, (batch, share));
        }
        Ok(unsent)
    }

    /// Sends all batches once and drops those acknowledged; yields an error that passes, if there was one.
    async fn send(&mut self, unsent: &mut Unsent) -> Result<Option<Refused>> {
        let request = request(&self.order.seat.topic, unsent);
        let response = self.client.ask(&request, 9, Ok).await?;
        let (mut refused, mut is_answered) = (None, false);
        let partitions = response.responses.iter();
        for partition in partitions.flat_map(|topic| &topic.partition_responses) {
            let index = partition.index;
            let what = format!("{} partition {index}", self.order.seat.topic);
            match check(
                partition.error_code,
                partition.error_message.as_ref(),
                &what,
            ) {
                Ok(()) => self.take_acknowledgement(index, unsent),
                // An earlier attempt has written it.
                Err(error) if error.code == Some(ErrorCode::DuplicateSequenceNumber) => {
                    self.take_acknowledgement(index, unsent);
                }
                Err(error) if error.passes => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
            is_answered = true;
        }
        ensure!(is_answered, "the answer names no partition");
        Ok(refused)
    }

    fn take_acknowledgement(&mut self, partition: i32, unsent: &mut Unsent) {
        let Some((_, count)) = unsent.remove(&partition) else {
            return;
        };
        let stream = Stream {
            producer: self.order.number,
            partition,
        };
        self.written.entry(stream).or_default().acknowledged += count;
        self.order
            .acknowledged
            .fetch_add(u64::from(count), Ordering::Relaxed);
        let is_lost = self.order.seat.is_lost();
        self.pauses.note(clock::now(), is_lost);
    }
}

/// How many records are to be written by now.
fn due(start: Instant, now: Instant, rate_millis: u64) -> u64 {
    let micros = u64::try_from(now.since(start).as_micros()).unwrap_or(u64::MAX);
    micros.saturating_mul(rate_millis) / 1_000_000_000
}

fn request(topic: &str, unsent: &Unsent) -> ProduceRequest {
    let partition_data = unsent
        .iter()
        .map(|(index, (batch, _))| PartitionProduceData {
            index: *index,
            records: Some(batch.clone()),
        });
    let topic = TopicProduceData {
        name: Str::from(topic),
        partition_data: partition_data.collect(),
        ..TopicProduceData::default()
    };
    ProduceRequest {
        transactional_id: None,
        acks: -1,
        timeout_ms: TIMEOUT_MS,
        topic_data: vec![topic],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_a_steady_pace() {
        let at = Instant::from_millis;
        assert_eq!(due(at(5), at(5), 500_000), 0);
        assert_eq!(due(at(0), at(10), 500_000), 5);
        assert_eq!(due(at(0), at(1_000), 333_333), 333);
        assert_eq!(due(at(0), at(3_600_000), 100_000_000), 360_000_000);
    }
}
