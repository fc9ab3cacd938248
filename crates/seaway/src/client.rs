//! A plain Kafka client for the command line: one connection, one question at a time, every error
//! told as a sentence. It knows no more than any client would.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use host::net::TcpStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::errors::ErrorCode;
use wire::frame::{FRAME_BYTES_MAX, Split, decode_response, encode_request, split_frame};
use wire::message::RequestBody;
use wire::text::Str;

use crate::commands::dev::DATA_DIR;
use crate::data_dir;

/// Time an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Which cluster a command is for.
#[derive(clap::Args)]
pub struct Target {
    /// Address of the cluster, HOST:PORT; by default that of the node in --data-dir.
    #[arg(long, short = 'b', value_name = "HOST:PORT")]
    bootstrap: Option<String>,
    /// Data directory of a running `seaway dev`.
    #[arg(long, value_name = "DIR", default_value = DATA_DIR)]
    data_dir: PathBuf,
}

/// A connection to the cluster.
pub struct Client {
    stream: TcpStream,
    buffer: BytesMut,
    correlation_id: i32,
}

impl Client {
    /// Connects to the cluster that `target` names.
    pub async fn connect(target: &Target) -> Result<Self> {
        let address = match &target.bootstrap {
            Some(address) => address.clone(),
            None => data_dir::published(&target.data_dir)?.kafka,
        };
        let stream = host::net::dial(&address)
            .await
            .with_context(|| format!("nothing answers at {address}; is the cluster running?"))?;
        Ok(Client {
            stream,
            buffer: BytesMut::new(),
            correlation_id: 0,
        })
    }

    /// Asks, and waits for the answer.
    pub async fn call<R: RequestBody>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        match host::clock::timeout(ANSWER_LIMIT, self.exchange(request, version)).await {
            Ok(response) => response,
            Err(_) => bail!("no answer within {} s", ANSWER_LIMIT.as_secs()),
        }
    }

    async fn exchange<R: RequestBody>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        self.correlation_id += 1;
        let client_id = Str::from_static("seaway-cli");
        let rope = encode_request(request, self.correlation_id, Some(&client_id), version)?;
        for piece in rope.pieces() {
            self.stream.write_all(piece).await?;
        }
        let frame = self.frame().await?;
        let (correlation_id, response) = decode_response::<R>(&frame, version)?;
        ensure!(
            correlation_id == self.correlation_id,
            "the answer is to another question"
        );
        Ok(response)
    }

    async fn frame(&mut self) -> Result<Bytes> {
        loop {
            match split_frame(&mut self.buffer, FRAME_BYTES_MAX)? {
                Split::Frame(frame) => return Ok(frame),
                Split::More { reserve_bytes } => self.buffer.reserve(reserve_bytes),
            }
            let count = self.stream.read_buf(&mut self.buffer).await?;
            ensure!(count > 0, "the cluster closed the connection");
        }
    }
}

/// Turns an error code of an answer into an error that names it; `what` was asked for.
pub fn check(code: i16, message: Option<&Str>, what: &str) -> Result<()> {
    if code == 0 {
        return Ok(());
    }
    let name = ErrorCode::from_code(code).map_or("an unknown error", ErrorCode::name);
    match message {
        Some(message) if !message.is_empty() => bail!("{what}: {} ({name})", message.as_str()),
        _ => bail!("{what}: {name} ({code})"),
    }
}
