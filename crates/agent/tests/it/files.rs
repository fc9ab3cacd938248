//! Files that another agent wrote: what of them is verified before a consumer gets records, and how
//! often they are read.

use agent::settings::Budgets;
use bytes::Bytes;
use meta::command::RegisterAgent;
use meta::commit::{Batch, CommitFile};
use meta::ids::{FileId, PartitionId};
use store::bucket::{Bucket, Op};
use store::faulty::{Fault, FaultRule};
use store::file::{Counts, FileBuilder};
use store::layout::file_key;
use wire::errors::ErrorCode;
use wire::messages::fetch::FetchRequest;
use wire::messages::produce::{PartitionProduceData, ProduceRequest};

use crate::client::{batches_of, fetch_request, large_batch, produce_request};
use crate::stand::{Stand, settings};

const NONCE: u32 = 9;

/// A slice as its file states it, and the partition that its commit states.
struct Written {
    in_file: u64,
    committed: PartitionId,
    batches: Vec<Bytes>,
}

/// Stores a file, and commits it as described.
async fn write(stand: &Stand, slices: &[Written]) {
    let control = stand.control.client();
    let registered = control.register(other_agent()).await.unwrap();
    let file = FileId {
        incarnation: registered.incarnation,
        number: 0,
    };
    let id = store::layout::FileId {
        shard: 0,
        incarnation: file.incarnation.0,
        number: 0,
    };
    let mut builder = FileBuilder::new(id);
    let mut commit = CommitFile {
        file,
        nonce: NONCE,
        placement: vec![0],
        ..CommitFile::default()
    };
    let mut position = store::file::HEADER_BYTES;
    for slice in slices {
        let counts = Counts {
            batches: slice.batches.len() as u32,
            records: slice.batches.len() as u32,
            max_timestamp_ms: 1,
        };
        builder
            .push(slice.in_file, slice.batches.clone(), counts)
            .unwrap();
        commit.push_slice(slice.committed, position);
        for batch in &slice.batches {
            commit.push_batch(Batch {
                records: 1,
                bytes: batch.len() as u32,
                max_timestamp: 1,
                time_source: meta::commit::TimeSource::Records,
                producer_id: -1,
                producer_epoch: -1,
                base_sequence: -1,
            });
            position += batch.len() as u64;
        }
    }
    let built = builder.finish().unwrap();
    (commit.length, commit.checksum) = (built.length, built.checksum);
    let key = file_key(id, NONCE);
    let put = stand.bucket.put_new(&key, built.payload);
    put.await.unwrap();
    control.commit(commit).await.unwrap();
}

fn other_agent() -> RegisterAgent {
    RegisterAgent {
        nonce: 77,
        name: "another".to_owned(),
        listeners: meta::endpoint::Endpoint::alone("127.0.0.1", 1),
        region: "local".to_owned(),
        zone: "zone-a".to_owned(),
        neighbour_address: String::new(),
        level: 1,
    }
}

fn partitions(stand: &Stand, topic: &str) -> Vec<PartitionId> {
    stand.control.find(topic).partitions
}

/// Two partitions' slices in one file of about `count` MiB each; if `strange` is given, the file
/// says that the second slice is that partition's.
async fn two_slices(count: usize, strange: Option<u64>) -> Stand {
    let stand = Stand::new().await;
    stand.topic("t", 2, &[]).await;
    let ids = partitions(&stand, "t");
    let batches = vec![large_batch(1 << 20); count];
    let slice = |in_file, committed| Written {
        in_file,
        committed,
        batches: batches.clone(),
    };
    let slices = [
        slice(ids[0].0, ids[0]),
        slice(strange.unwrap_or(ids[1].0), ids[1]),
    ];
    write(&stand, &slices).await;
    stand
}

#[tokio::test]
async fn a_slice_that_its_file_says_is_another_partitions_is_corrupt() {
    // A small file is read whole, a large one by slice.
    for count in [1, 5] {
        let stand = two_slices(count, Some(1_000_000)).await;
        let mut client = stand.client().await;
        for _ in 0..2 {
            let wrong = client.fetch("t", 1, 0).await;
            assert_eq!(
                wrong.error_code,
                ErrorCode::CorruptMessage.code(),
                "{count}"
            );
            assert_eq!(batches_of(&wrong).len(), 0);
            let right = client.fetch("t", 0, 0).await;
            assert_eq!(right.error_code, 0);
            assert_eq!(batches_of(&right).len(), 1);
        }
        let metrics = stand.agent.probe().metrics();
        assert!(!metrics.contains("seaway_agent_corrupt_reads_total 0"));
    }
}

#[tokio::test]
async fn the_index_of_a_large_file_is_read_once() {
    let stand = two_slices(5, None).await;
    let mut client = stand.client().await;
    for partition in [0, 1, 0] {
        let data = client.fetch("t", partition, 4).await;
        assert_eq!(batches_of(&data).len(), 1);
    }
    let faults = stand.bucket.faults();
    assert_eq!((faults.calls(Op::GetRange), faults.calls(Op::Get)), (3, 0));
}

#[tokio::test]
async fn a_bit_flipped_in_an_index_or_a_slice_is_read_again() {
    for skip in [0, 1] {
        let stand = two_slices(5, None).await;
        let once = FaultRule::on(Op::GetRange, Fault::Corrupt)
            .after(skip)
            .times(1);
        stand.bucket.faults().add(once);
        let data = stand.client().await.fetch("t", 1, 0).await;
        assert_eq!((data.error_code, batches_of(&data).len()), (0, 1), "{skip}");
        assert_eq!(stand.bucket.faults().injected(), 1);
    }
}

#[tokio::test]
async fn a_reader_that_is_behind_reads_every_file_once() {
    const PARTITIONS: i32 = 8;
    const FILES: u64 = 24;
    let first = Stand::new().await;
    first.topic("t", PARTITIONS as u32, &[]).await;
    let mut client = first.client().await;
    for _ in 0..FILES {
        // All batches of one request lie in one file.
        let mut request = produce_request("t", 0, large_batch(20_000));
        request.topic_data[0].partition_data = (0..PARTITIONS)
            .map(|index| PartitionProduceData {
                index,
                records: Some(large_batch(20_000)),
            })
            .collect();
        client.call::<ProduceRequest>(&request, 9).await;
    }
    let (control, bucket) = (first.control.clone(), first.bucket.clone());
    first.agent.stop().await;
    let small = agent::Settings {
        // Room for some six files of 160 KiB.
        budgets: Budgets {
            cache_bytes: 1 << 20,
            fetch_bytes: 1 << 20,
            ..Budgets::SMALL
        },
        ..settings()
    };
    let second = Stand::over(small, control, bucket).await;
    let mut client = second.client().await;
    let mut offsets = [0; PARTITIONS as usize];
    while offsets.iter().any(|offset| *offset < FILES as i64) {
        let wants: Vec<(i32, i64)> = (0..).zip(offsets).collect();
        let mut request = fetch_request("t", &wants);
        request.max_bytes = 400_000;
        let response = client.call::<FetchRequest>(&request, 12).await;
        let before = offsets;
        for data in &response.responses[0].partitions {
            offsets[data.partition_index as usize] += batches_of(data).len() as i64;
        }
        assert_ne!(before, offsets);
    }
    assert_eq!(second.bucket.faults().calls(Op::Get), FILES);
}
