//! What storing bytes costs: CPU seconds per GiB of building files and of putting and getting them.
//!
//! ```text
//! cargo build --release -p bench --bin s3-server
//! cargo run --release -p store --example cost -- [BUCKET-URL ...]
//! ```
//! Without a URL it builds files only. CPU is this process's, user and system; a server that is
//! `s3-server` tells its own at `/_control/stats`.

use std::sync::Arc;

use bytes::Bytes;
use store::bucket::{Bucket, Key, Payload};
use store::checksum::crc32c;
use store::file::{Counts, FileBuilder, Piece};
use store::layout::{FileId, file_key};
use store::open::{Options, open};

const FILE_BYTES: usize = 8 << 20;
const TOTAL_BYTES: usize = 4 << 30;
const PARTITIONS: usize = 16;

fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks = after.split_whitespace().skip(11).take(2);
    ticks
        .filter_map(|field| field.parse::<f64>().ok())
        .sum::<f64>()
        / 100.0
}

/// Runs `work` and prints what it cost for each GiB.
async fn measure<F: Future>(name: &str, bytes: usize, work: F) -> F::Output {
    let (start, cpu) = (host::clock::now(), cpu_seconds());
    let output = work.await;
    let gib = bytes as f64 / f64::from(1 << 30);
    let wall = host::clock::now().since(start).as_secs_f64();
    println!(
        "{name:<44} {:>8.3} CPU-s/GiB {:>9.0} MiB/s",
        (cpu_seconds() - cpu) / gib,
        gib * 1024.0 / wall
    );
    output
}

fn build(batches: &[Piece], per_slice: usize, number: u64) -> (Key, Payload) {
    let id = FileId {
        shard: 0,
        incarnation: 1,
        number,
    };
    let mut builder = FileBuilder::new(id);
    for (partition, slice) in batches.chunks(per_slice).enumerate() {
        let counts = Counts {
            batches: slice.len() as u32,
            records: 1,
            max_timestamp_ms: 0,
        };
        let pushed = builder.push(partition as u64, slice.iter().cloned(), counts);
        pushed.expect("slices come in order");
    }
    let built = builder.finish().expect("a file");
    (file_key(id, std::process::id()), built.payload)
}

fn batches(size: usize, known: bool) -> Vec<Piece> {
    (0..FILE_BYTES / size)
        .map(|n| {
            let bytes = Bytes::from(vec![n as u8; size]);
            let checksum = known.then(|| crc32c(&bytes));
            Piece { bytes, checksum }
        })
        .collect()
}

async fn transfer(url: &str, bucket: &Arc<dyn Bucket>, size: usize) {
    let batches = batches(size, false);
    let files = TOTAL_BYTES / 4 / FILE_BYTES;
    let per_slice = batches.len().div_ceil(PARTITIONS);
    let built: Vec<_> = (0..files)
        .map(|number| build(&batches, per_slice, number as u64))
        .collect();
    let name = format!("PUT 8 MiB of {} KiB batches, 4 at once", size >> 10);
    measure(&name, files * FILE_BYTES, async {
        for four in built.chunks(4) {
            let puts = four
                .iter()
                .map(|(key, body)| bucket.put_new(key, body.clone()));
            for put in futures::future::join_all(puts).await {
                put.unwrap_or_else(|error| panic!("{url}: {error}"));
            }
        }
    })
    .await;
    measure("GET 1 MiB ranges, 4 at once", files * FILE_BYTES, async {
        for (key, _) in &built {
            for half in [0_u64, 4] {
                let gets =
                    (half..half + 4).map(|mib| bucket.get_range(key, mib << 20..(mib + 1) << 20));
                for got in futures::future::join_all(gets).await {
                    got.unwrap_or_else(|error| panic!("{url}: {error}"));
                }
            }
        }
    })
    .await;
    for (key, _) in &built {
        bucket
            .delete(key)
            .await
            .unwrap_or_else(|error| panic!("{url}: {error}"));
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    for (size, known) in [
        (1 << 20, false),
        (1 << 20, true),
        (16 << 10, false),
        (16 << 10, true),
        (1 << 10, false),
    ] {
        let batches = batches(size, known);
        let per_slice = batches.len().div_ceil(PARTITIONS);
        let word = if known { "known" } else { "computed" };
        let name = format!("build, {} KiB batches, checksums {word}", size >> 10);
        measure(&name, TOTAL_BYTES, async {
            for number in 0..TOTAL_BYTES / FILE_BYTES {
                std::hint::black_box(build(&batches, per_slice, number as u64));
            }
        })
        .await;
    }
    for url in std::env::args().skip(1) {
        let bucket = open(&url, &Options::from_environment()).await;
        let bucket = bucket.unwrap_or_else(|error| panic!("{error}"));
        println!("{url}");
        for size in [1 << 20, 16 << 10, 1 << 10] {
            transfer(&url, &bucket, size).await;
        }
    }
}
