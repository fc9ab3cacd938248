//! The limits of this machine at this hour: bytes over loopback to a sink that drops them, and a
//! skeleton of a broker's data path that only receives, checks the CRC and answers. No server can
//! be cheaper; figures are read beside these.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::Result;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::batch::{ProduceLimits, TimestampType, check_produce};
use wire::frame::{Split, decode_request, split_frame};
use wire::messages::Request;
use wire::messages::produce::{PartitionProduceResponse, ProduceResponse, TopicProduceResponse};

/// Largest frame the skeleton takes.
const FRAME_BYTES_MAX: usize = 128 << 20;
/// What the skeleton checks of a batch: the same as a server with default settings.
const LIMITS: ProduceLimits = ProduceLimits {
    produce_version: 9,
    batch_bytes_max: FRAME_BYTES_MAX,
    timestamp_type: TimestampType::CreateTime,
};

/// MiB per second over one loopback connection into a sink, and the CPU seconds per GiB that both
/// ends cost together.
pub async fn loopback(seconds: Duration) -> Result<(f64, f64)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let sink = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut buffer = BytesMut::with_capacity(1 << 20);
        let mut total = 0_u64;
        loop {
            buffer.clear();
            match stream.read_buf(&mut buffer).await? {
                0 => return anyhow::Ok(total),
                count => total += count as u64,
            }
        }
    });
    let mut stream = TcpStream::connect(address).await?;
    let block = vec![7_u8; 1 << 20];
    let cpu = crate::process::usage(std::process::id())?.cpu_seconds;
    let start = Instant::now();
    while start.elapsed() < seconds {
        stream.write_all(&block).await?;
    }
    drop(stream);
    let bytes = sink.await?? as f64;
    let elapsed = start.elapsed().as_secs_f64();
    let cpu = crate::process::usage(std::process::id())?.cpu_seconds - cpu;
    Ok((
        bytes / (1 << 20) as f64 / elapsed,
        cpu / (bytes / (1 << 30) as f64),
    ))
}

/// Serves Produce by checking each batch and answering, for ever.
pub async fn skeleton(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            if let Err(error) = answer(stream).await {
                eprintln!("skeleton: {error:#}");
            }
        });
    }
}

async fn answer(mut stream: TcpStream) -> Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        match split_frame(&mut buffer, FRAME_BYTES_MAX)? {
            Split::Frame(frame) => {
                let (header, request) = decode_request(&frame)?;
                let Request::Produce(request) = request else {
                    continue;
                };
                let mut response = ProduceResponse::default();
                for topic in request.topic_data {
                    let mut answer = TopicProduceResponse {
                        name: topic.name,
                        ..Default::default()
                    };
                    for partition in topic.partition_data {
                        if let Some(records) = &partition.records {
                            check_produce(records, LIMITS)?;
                        }
                        answer.partition_responses.push(PartitionProduceResponse {
                            index: partition.index,
                            ..Default::default()
                        });
                    }
                    response.responses.push(answer);
                }
                let response = wire::messages::Response::Produce(response);
                let rope = response.encode(header.correlation_id, header.version)?;
                stream.write_all(&rope.to_bytes()).await?;
            }
            Split::More { reserve_bytes } => {
                buffer.reserve(reserve_bytes.max(64 << 10));
                if stream.read_buf(&mut buffer).await? == 0 {
                    return Ok(());
                }
            }
        }
    }
}
