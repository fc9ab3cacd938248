//! One connection of a Kafka client: frames out, frames in. Requests may be pipelined; the caller
//! matches answers to requests.

use std::io::IoSlice;
use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use wire::frame::{Split, decode_response, encode_request, split_frame};
use wire::message::RequestBody;

/// Largest answer a client takes.
const FRAME_BYTES_MAX: usize = 512 << 20;

pub struct Reader {
    half: OwnedReadHalf,
    buffer: BytesMut,
}

pub struct Writer {
    half: OwnedWriteHalf,
}

pub async fn dial(address: SocketAddr) -> Result<(Reader, Writer)> {
    let stream = TcpStream::connect(address)
        .await
        .with_context(|| format!("nothing answers at {address}"))?;
    stream.set_nodelay(true)?;
    let (read, write) = stream.into_split();
    Ok((
        Reader {
            half: read,
            buffer: BytesMut::new(),
        },
        Writer { half: write },
    ))
}

impl Reader {
    /// The next frame, without its length.
    pub async fn frame(&mut self) -> Result<Bytes> {
        loop {
            match split_frame(&mut self.buffer, FRAME_BYTES_MAX)? {
                Split::Frame(frame) => return Ok(frame),
                Split::More { reserve_bytes } => self.buffer.reserve(reserve_bytes.max(64 << 10)),
            }
            let count = self.half.read_buf(&mut self.buffer).await?;
            ensure!(count > 0, "the server closed the connection");
        }
    }
}

impl Writer {
    /// Sends the pieces of a frame without joining them.
    pub async fn send(&mut self, mut pieces: Vec<Bytes>) -> Result<()> {
        let mut first = 0;
        while first < pieces.len() {
            let slices: Vec<IoSlice<'_>> = pieces[first..]
                .iter()
                .take(64)
                .map(|piece| IoSlice::new(piece))
                .collect();
            let mut written = self.half.write_vectored(&slices).await?;
            while first < pieces.len() && written >= pieces[first].len() {
                written -= pieces[first].len();
                first += 1;
            }
            if written > 0 {
                pieces[first].advance(written);
            }
        }
        Ok(())
    }
}

/// A connection with one request at a time.
pub struct Client {
    reader: Reader,
    writer: Writer,
    correlation_id: i32,
}

impl Client {
    pub async fn dial(address: SocketAddr) -> Result<Self> {
        let (reader, writer) = dial(address).await?;
        Ok(Client {
            reader,
            writer,
            correlation_id: 0,
        })
    }

    /// Sends a request and waits for its answer.
    pub async fn call<R: RequestBody>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        self.correlation_id += 1;
        let rope = encode_request(request, self.correlation_id, None, version)?;
        self.writer.send(rope.into_pieces()).await?;
        let frame = self.reader.frame().await?;
        let (correlation_id, response) = decode_response::<R>(&frame, version)?;
        ensure!(
            correlation_id == self.correlation_id,
            "an answer to another request"
        );
        Ok(response)
    }
}
