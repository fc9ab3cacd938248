//! `seaway produce`: the lines of standard input as records, for a first look.

use std::collections::BTreeMap;
use std::io::{BufRead, Read};

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use wire::builder::BatchBuilder;
use wire::compression::Compression;
use wire::messages::init_producer_id::{InitProducerIdRequest, InitProducerIdResponse};
use wire::messages::produce::{PartitionProduceData, ProduceRequest, TopicProduceData};
use wire::text::Str;

use super::topic::topic_metadata;
use crate::client::{Client, Patience, Refused, Target, check};
use crate::runtime;

/// Bytes of batches in one request, unless one record has more: half of what Kafka's
/// `max.message.bytes` allows by default for one batch.
const REQUEST_BYTES: usize = 512 << 10;
/// Longest line: a request with one such record is just below the largest that a broker takes by
/// default (Kafka's `socket.request.max.bytes`). On a larger request it would only close the
/// connection.
const LINE_BYTES_MAX: usize = (100 << 20) - (4 << 10);
/// How long the cluster may take to make records durable.
const TIMEOUT_MS: i32 = 30_000;

/// What to send, and where.
#[derive(clap::Args)]
pub struct Arguments {
    /// The topic.
    topic: String,
    /// The partition; by default chosen by the key, or in turn if there is none.
    #[arg(long, short = 'p')]
    partition: Option<i32>,
    /// What separates key and value in a line; without it lines have no key.
    #[arg(long, short = 'k', value_name = "TEXT", value_parser = separator)]
    key_separator: Option<String>,
    #[command(flatten)]
    target: Target,
}

/// Reads, sends, waits for every acknowledgement.
pub fn run(arguments: &Arguments) -> Result<()> {
    runtime::small()?.block_on(async {
        let mut client = Client::connect(&arguments.target).await?;
        let mut producer = Producer::new(&mut client, arguments).await?;
        let mut records = 0_u64;
        let mut input = std::io::stdin().lock();
        let refused = loop {
            let line = match next_line(&mut input, LINE_BYTES_MAX) {
                Ok(Some(line)) => line,
                Ok(None) => break None,
                Err(error) => break Some(error),
            };
            match split(&line, arguments.key_separator.as_deref()) {
                Ok((key, value)) => producer.add(&mut client, key, value).await?,
                Err(error) => break Some(error),
            }
            records += 1;
        };
        producer.flush(&mut client).await?;
        eprintln!("{records} records acknowledged");
        let place = format!("line {} of standard input", records + 1);
        refused.map_or(Ok(()), |error| Err(error.context(place)))
    })
}

/// The next line without its line feed; of a line that is too long, only a part. `None` at the end.
fn next_line(input: &mut impl BufRead, bytes_max: usize) -> Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let limit = bytes_max as u64 + 1;
    let read = input.by_ref().take(limit).read_until(b'\n', &mut line);
    if read.context("it cannot be read")? == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    ensure!(
        line.len() <= bytes_max,
        "it has more than {bytes_max} bytes, and no broker takes so large a request \
         (socket.request.max.bytes): split it into several lines"
    );
    Ok(Some(line))
}

/// A line's key, if a separator is set, and its value.
fn split<'l>(line: &'l [u8], separator: Option<&str>) -> Result<(Option<&'l [u8]>, &'l [u8])> {
    let Some(separator) = separator else {
        return Ok((None, line));
    };
    let bytes = separator.as_bytes();
    let at = line.windows(bytes.len()).position(|window| window == bytes);
    let at = at.with_context(|| format!("it has no {separator:?} between a key and a value"))?;
    Ok((Some(&line[..at]), &line[at + bytes.len()..]))
}

fn separator(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("it must not be empty".to_owned());
    }
    Ok(text.to_owned())
}

/// Sends as an idempotent producer, so that repeated batches are stored once.
struct Producer<'a> {
    arguments: &'a Arguments,
    id: i64,
    epoch: i16,
    /// The sequence of the next record of each partition.
    sequences: BTreeMap<i32, i32>,
    partitions: i32,
    next: i32,
    pending: BTreeMap<i32, BatchBuilder>,
    pending_bytes: usize,
}

impl<'a> Producer<'a> {
    async fn new(client: &mut Client, arguments: &'a Arguments) -> Result<Self> {
        let partitions = partition_count(client, &arguments.topic).await?;
        if let Some(partition) = arguments.partition {
            ensure!(
                (0..partitions).contains(&partition),
                "{} has partitions 0 to {}",
                arguments.topic,
                partitions - 1
            );
        }
        let given = |response: InitProducerIdResponse| {
            check(response.error_code, None, "an id for the producer")?;
            Ok((response.producer_id, response.producer_epoch))
        };
        let request = InitProducerIdRequest::default();
        let (id, epoch) = client.ask(&request, 4, given).await?;
        Ok(Producer {
            arguments,
            id,
            epoch,
            sequences: BTreeMap::new(),
            partitions,
            next: 0,
            pending: BTreeMap::new(),
            pending_bytes: 0,
        })
    }

    async fn add(&mut self, client: &mut Client, key: Option<&[u8]>, value: &[u8]) -> Result<()> {
        let partition = match (self.arguments.partition, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => i32::try_from(fnv(key) % self.partitions.unsigned_abs())?,
            (None, None) => {
                self.next = (self.next + 1) % self.partitions;
                self.next
            }
        };
        let now = i64::try_from(host::clock::wall_millis())?;
        if self.pending_bytes + self.bytes_of(partition, now, key, value) > REQUEST_BYTES {
            self.flush(client).await?;
        }
        self.pending_bytes += self.bytes_of(partition, now, key, value);
        let builder = self.pending.entry(partition).or_insert_with(empty_batch);
        builder.append(now, key, Some(value), &[]);
        Ok(())
    }

    /// Bytes by which a record lengthens the request: a tiny record takes several times its own
    /// bytes.
    fn bytes_of(&self, partition: i32, now: i64, key: Option<&[u8]>, value: &[u8]) -> usize {
        match self.pending.get(&partition) {
            Some(builder) => builder.record_bytes(now, key, Some(value), &[]),
            None => {
                let builder = empty_batch();
                builder.length_bytes() + builder.record_bytes(now, key, Some(value), &[])
            }
        }
    }

    async fn flush(&mut self, client: &mut Client) -> Result<()> {
        self.pending_bytes = 0;
        let mut unsent = BTreeMap::new();
        for (index, builder) in std::mem::take(&mut self.pending) {
            let sequence = self.sequences.entry(index).or_default();
            let count = builder.count();
            let batch = builder.producer(self.id, self.epoch, *sequence).build();
            *sequence = sequence.checked_add(count).unwrap_or_default();
            unsent.insert(index, batch);
        }
        let mut patience = Patience::start();
        while !unsent.is_empty() {
            if let Some(refused) = self.send(client, &mut unsent).await? {
                patience.pause_after(refused.into()).await?;
            }
        }
        Ok(())
    }

    /// Sends all batches once and drops those acknowledged; yields an error that passes, if there
    /// was one.
    async fn send(
        &self,
        client: &mut Client,
        unsent: &mut BTreeMap<i32, Bytes>,
    ) -> Result<Option<Refused>> {
        let partition_data = unsent.iter().map(|(index, batch)| PartitionProduceData {
            index: *index,
            records: Some(batch.clone()),
        });
        let topic = TopicProduceData {
            name: Str::from(self.arguments.topic.as_str()),
            partition_data: partition_data.collect(),
            ..TopicProduceData::default()
        };
        let request = ProduceRequest {
            transactional_id: None,
            acks: -1,
            timeout_ms: TIMEOUT_MS,
            topic_data: vec![topic],
        };
        let response = client.ask(&request, 9, Ok).await?;
        let mut refused = None;
        for partition in response
            .responses
            .iter()
            .flat_map(|topic| &topic.partition_responses)
        {
            let what = format!("{} partition {}", self.arguments.topic, partition.index);
            let message = partition.error_message.as_ref();
            match check(partition.error_code, message, &what) {
                Ok(()) => drop(unsent.remove(&partition.index)),
                Err(error) if error.passes => refused = Some(error),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(refused)
    }
}

fn empty_batch() -> BatchBuilder {
    BatchBuilder::new(Compression::None)
}

/// The number of partitions; asking creates the topic if the cluster allows that.
async fn partition_count(client: &mut Client, topic: &str) -> Result<i32> {
    let topic = topic_metadata(client, topic, true).await?;
    Ok(i32::try_from(topic.partitions.len())?)
}

/// FNV-1a, so that records with equal keys go to the same partition.
fn fnv(key: &[u8]) -> u32 {
    key.iter().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_at_the_first_separator() {
        let parts = |line: &'static str, separator| split(line.as_bytes(), separator).ok();
        let expected: (Option<&[u8]>, &[u8]) = (Some(b"k"), b"v::w");
        assert_eq!(parts("k::v::w", Some("::")), Some(expected));
        let expected: (Option<&[u8]>, &[u8]) = (None, b"k::v");
        assert_eq!(parts("k::v", None), Some(expected));
        assert_eq!(parts("k:v", Some("::")), None);
        assert_eq!(parts("", Some(":")), None);
    }
    #[test]
    fn lines_are_read_as_they_are_and_none_without_end() {
        let all = |mut input: &[u8]| {
            let mut lines = Vec::new();
            while let Some(line) = next_line(&mut input, 3)? {
                lines.push(String::from_utf8_lossy(&line).into_owned());
            }
            anyhow::Ok(lines)
        };
        assert_eq!(all(b"").expect("lines"), [""; 0]);
        assert_eq!(all(b"a\n\nabc\n").expect("lines"), ["a", "", "abc"]);
        assert_eq!(all(b"\r\nabc").expect("lines"), ["\r", "abc"]);
        for input in [b"abcd".as_slice(), b"abcd\n", b"a\nabcde\n"] {
            let refused = all(input).expect_err("too long").to_string();
            assert!(refused.contains("socket.request.max.bytes"), "{refused}");
        }
    }
}
