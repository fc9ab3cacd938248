//! A consumer of a drill: it reads all partitions from their beginning, as they are written, until it has read what there is at the end.
//! It must not know what becomes of the regions.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use host::clock;
use tokio::sync::watch;
use wire::batch::batches;
use wire::messages::fetch::{
    FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData,
};
use wire::records::records;
use wire::text::Str;

use super::account::Found;
use super::client::Seat;
use super::pauses::Pauses;
use crate::client::{Client, Patience, Refused, check};

/// The most bytes that one batch may have when decompressed.
const BATCH_BYTES_MAX: usize = 16 << 20;
/// The most bytes of one answer.
const FETCH_BYTES_MAX: i32 = 4 << 20;
/// How long an answer waits for records.
const WAIT_MS: i32 = 500;

/// Where the partitions end, once nothing more is written.
pub type Ends = Option<Arc<[i64]>>;

/// What became of a consumer.
pub struct Outcome {
    pub found: Found,
    pub pauses: Pauses,
    /// The error with which it gave up.
    pub failure: Option<String>,
}

/// Reads until everything before the ends is read, or an error comes that is final.
pub async fn run(seat: Seat, ends: watch::Receiver<Ends>) -> Outcome {
    let mut consumer = Consumer::new(seat);
    let failure = consumer.work(&ends).await.err();
    Outcome {
        found: consumer.found,
        pauses: consumer.pauses,
        failure: failure.map(|error| format!("{error:#}")),
    }
}

struct Consumer {
    client: Client,
    seat: Seat,
    positions: Vec<i64>,
    found: Found,
    pauses: Pauses,
}

impl Consumer {
    fn new(seat: Seat) -> Self {
        Consumer {
            client: seat.client(),
            positions: vec![0; usize::try_from(seat.partitions).unwrap_or(0)],
            found: Found::new(seat.producers),
            pauses: Pauses::start(clock::now()),
            seat,
        }
    }

    async fn work(&mut self, ends: &watch::Receiver<Ends>) -> Result<()> {
        let mut patience = Patience::start();
        while !self.is_done(ends.borrow().as_deref()) {
            let response = self.client.ask(&self.request(), 11, Ok).await?;
            match self.take(response)? {
                None => patience = Patience::start(),
                Some(refused) => patience.pause_after(refused.into()).await?,
            }
        }
        Ok(())
    }

    fn is_done(&self, ends: Option<&[i64]>) -> bool {
        ends.is_some_and(|ends| self.positions.iter().zip(ends).all(|(at, end)| at >= end))
    }

    fn request(&self) -> FetchRequest {
        let partitions = (0..).zip(&self.positions);
        let partitions = partitions.map(|(index, offset)| FetchPartition {
            partition: index,
            fetch_offset: *offset,
            partition_max_bytes: FETCH_BYTES_MAX,
            ..FetchPartition::default()
        });
        let topic = FetchTopic {
            topic: Str::from(self.seat.topic.as_str()),
            partitions: partitions.collect(),
            ..FetchTopic::default()
        };
        FetchRequest {
            max_wait_ms: WAIT_MS,
            min_bytes: 1,
            max_bytes: FETCH_BYTES_MAX,
            topics: vec![topic],
            ..FetchRequest::default()
        }
    }

    /// Takes an answer's records; yields an error that passes, after which they are asked for again.
    fn take(&mut self, response: FetchResponse) -> Result<Option<Refused>> {
        check(response.error_code, None, &self.seat.topic)?;
        let before = self.found.records();
        let mut refused = None;
        let topics = response.responses.into_iter();
        for partition in topics.flat_map(|topic| topic.partitions) {
            let what = format!(
                "{} partition {}",
                self.seat.topic, partition.partition_index
            );
            match check(partition.error_code, None, &what) {
                Ok(()) => self.read(partition).with_context(|| what.clone())?,
                Err(error) if error.passes => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        if self.found.records() > before {
            let is_lost = self.seat.is_lost();
            self.pauses.note(clock::now(), is_lost);
        }
        Ok(refused)
    }

    fn read(&mut self, partition: PartitionData) -> Result<()> {
        let (index, slot) = (
            partition.partition_index,
            usize::try_from(partition.partition_index)?,
        );
        ensure!(slot < self.positions.len(), "it was not asked for");
        let Some(rope) = partition.records else {
            return Ok(());
        };
        for batch in batches(rope.to_bytes()) {
            let batch = batch?;
            let next = batch.next_offset()?;
            for record in records(&batch, BATCH_BYTES_MAX)? {
                let record = record?;
                // A batch may begin before the offset that was asked for; those records were read before.
                if batch.base_offset() + i64::from(record.offset_delta) >= self.positions[slot] {
                    self.found.note(index, record.value.as_deref());
                }
            }
            self.positions[slot] = self.positions[slot].max(next);
        }
        Ok(())
    }
}
