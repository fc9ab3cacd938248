//! `seaway consume`: print the records of a topic, for a first look. It commits no offsets.

use std::io::{self, Write};

use anyhow::{Context, Result, ensure};
use wire::batch::batches;
use wire::messages::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic};
use wire::records::{Record, records};
use wire::text::Str;

use super::topic::{offsets, topic_metadata};
use crate::client::{Client, Patience, Refused, Target, check};
use crate::output;
use crate::runtime;

/// The most bytes that one batch may have when decompressed.
const BATCH_BYTES_MAX: usize = 1 << 30;
/// The most bytes of one answer.
const FETCH_BYTES_MAX: i32 = 16 << 20;
/// How long an answer waits for records.
const WAIT_MS: i32 = 500;
/// The special timestamps of ListOffsets.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;

/// What to print.
#[derive(clap::Args)]
pub struct Arguments {
    /// The topic.
    topic: String,
    /// Begin with the oldest record; without it, with those that come from now on.
    #[arg(long)]
    from_beginning: bool,
    /// Stop at the end, as it was when the command began.
    #[arg(long, short = 'e')]
    exit_at_end: bool,
    /// Stop after so many records.
    #[arg(long, short = 'n', value_name = "COUNT")]
    max_records: Option<u64>,
    /// Print partition, offset, timestamp and key before each value.
    #[arg(long)]
    verbose: bool,
    #[command(flatten)]
    target: Target,
}

/// Prints records until the options say stop, or for ever.
pub fn run(arguments: &Arguments) -> Result<()> {
    runtime::small()?.block_on(async {
        let mut client = Client::connect(&arguments.target).await?;
        let mut reader = Reader::new(&mut client, arguments).await?;
        let mut patience = Patience::start();
        while !reader.is_done() {
            let request = reader.request();
            let response = client.ask(&request, 11, Ok).await?;
            match reader.print(response)? {
                None => patience = Patience::start(),
                Some(refused) => patience.pause_after(refused.into()).await?,
            }
        }
        Ok(())
    })
}

struct Reader<'a> {
    arguments: &'a Arguments,
    positions: Vec<i64>,
    ends: Vec<i64>,
    printed: u64,
}

impl<'a> Reader<'a> {
    async fn new(client: &mut Client, arguments: &'a Arguments) -> Result<Self> {
        let name = &arguments.topic;
        let topic = topic_metadata(client, name, false).await?;
        let count = i32::try_from(topic.partitions.len())?;
        let ends = offsets(client, name, count, LATEST).await?;
        let positions = if arguments.from_beginning {
            offsets(client, name, count, EARLIEST).await?
        } else {
            ends.clone()
        };
        Ok(Reader {
            arguments,
            positions,
            ends,
            printed: 0,
        })
    }

    fn is_done(&self) -> bool {
        let at_end = || {
            self.positions
                .iter()
                .zip(&self.ends)
                .all(|(at, end)| at >= end)
        };
        self.is_full() || self.arguments.exit_at_end && at_end()
    }

    fn is_full(&self) -> bool {
        self.arguments
            .max_records
            .is_some_and(|max| self.printed >= max)
    }

    fn request(&self) -> FetchRequest {
        let partitions = (0..)
            .zip(&self.positions)
            .map(|(index, offset)| FetchPartition {
                partition: index,
                fetch_offset: *offset,
                partition_max_bytes: FETCH_BYTES_MAX,
                ..FetchPartition::default()
            })
            .collect();
        let topic = Str::from(self.arguments.topic.as_str());
        FetchRequest {
            max_wait_ms: WAIT_MS,
            min_bytes: 1,
            max_bytes: FETCH_BYTES_MAX,
            topics: vec![FetchTopic {
                topic,
                partitions,
                ..FetchTopic::default()
            }],
            ..FetchRequest::default()
        }
    }

    /// Prints an answer's records; yields an error that passes, after which they are asked for
    /// again.
    fn print(&mut self, response: FetchResponse) -> Result<Option<Refused>> {
        check(response.error_code, None, &self.arguments.topic)?;
        let mut refused = None;
        for partition in response
            .responses
            .into_iter()
            .flat_map(|topic| topic.partitions)
        {
            let index = partition.partition_index;
            let what = format!("{} partition {index}", self.arguments.topic);
            match check(partition.error_code, None, &what) {
                Ok(()) => {}
                Err(error) if error.passes => {
                    refused = Some(error);
                    continue;
                }
                Err(error) => return Err(error.into()),
            }
            let slot = usize::try_from(index)?;
            ensure!(slot < self.positions.len(), "{what} was not asked for");
            let Some(rope) = partition.records else {
                continue;
            };
            for batch in batches(rope.to_bytes()) {
                let batch = batch.with_context(|| what.clone())?;
                let next = batch.next_offset()?;
                for record in records(&batch, BATCH_BYTES_MAX).with_context(|| what.clone())? {
                    let record = record.with_context(|| what.clone())?;
                    let offset = batch.base_offset() + i64::from(record.offset_delta);
                    // A batch may begin before the offset that was asked for; those records are not
                    // printed.
                    if offset >= self.positions[slot] && !self.is_full() {
                        self.print_record(index, offset, &record)?;
                    }
                }
                self.positions[slot] = self.positions[slot].max(next);
            }
        }
        Ok(refused)
    }

    fn print_record(&mut self, partition: i32, offset: i64, record: &Record) -> Result<()> {
        let mut out = std::io::stdout().lock();
        let place = self.arguments.verbose.then_some((partition, offset));
        output::written(write_record(&mut out, place, record))?;
        self.printed += 1;
        Ok(())
    }
}

/// Prints a record's value; if a place is given, behind its place, timestamp and key.
fn write_record(
    out: &mut impl Write,
    place: Option<(i32, i64)>,
    record: &Record,
) -> io::Result<()> {
    if let Some((partition, offset)) = place {
        let key = record.key.as_ref().map(|key| String::from_utf8_lossy(key));
        let key = key.as_deref().unwrap_or("-");
        let timestamp = record.timestamp_ms;
        write!(out, "{partition}\t{offset}\t{timestamp}\t{key}\t")?;
    }
    out.write_all(record.value.as_deref().unwrap_or_default())?;
    out.write_all(b"\n")
}
