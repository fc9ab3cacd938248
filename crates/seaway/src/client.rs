//! A plain Kafka client for the command line: one connection, one question at a time, every error
//! told as a sentence. It knows no more than any client would.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use host::net::TcpStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::errors::ErrorCode;
use wire::frame::{FRAME_BYTES_MAX, Split, decode_response, encode_request, split_frame};
use wire::message::RequestBody;
use wire::text::Str;

use crate::address::{Address, Bootstrap};
use crate::commands::dev::DATA_DIR;
use crate::data_dir;

/// Time that one address has to accept a connection: Kafka's `socket.connection.setup.timeout.ms`.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Time an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// Which cluster a command is for.
#[derive(clap::Args)]
pub struct Target {
    /// Addresses of the cluster, with commas between them, tried in turn; by default that of the node in
    /// --data-dir.
    #[arg(long, short = 'b', value_name = "HOST:PORT,...")]
    bootstrap: Option<Bootstrap>,
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
        let addresses: Vec<String> = match &target.bootstrap {
            Some(bootstrap) => bootstrap.0.iter().map(Address::to_string).collect(),
            None => vec![data_dir::published(&target.data_dir)?.kafka],
        };
        Ok(Client {
            stream: dial_any(&addresses).await?,
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

/// Connects to the first address that accepts: any agent serves every partition.
async fn dial_any(addresses: &[String]) -> Result<TcpStream> {
    let mut refusals = Vec::new();
    for address in addresses {
        match host::clock::timeout(DIAL_LIMIT, host::net::dial(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => refusals.push(format!("{address}: {error}")),
            Err(_) => refusals.push(format!(
                "{address}: no answer in {} s",
                DIAL_LIMIT.as_secs()
            )),
        }
    }
    bail!(
        "nothing accepts a connection; is the cluster running? {}",
        refusals.join("; ")
    )
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn addresses_are_tried_in_turn() {
        let local = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = host::net::listen(local).await.expect("a free port");
        let alive = listener.local_addr().expect("its address").to_string();
        let closed = host::net::listen(local).await.expect("a free port");
        let dead = closed.local_addr().expect("its address").to_string();
        drop(closed);
        dial_any(&[dead.clone(), alive]).await.expect("the second");
        let error = dial_any(&[dead.clone(), "no.such.host.invalid:1".to_owned()]).await;
        let error = error.expect_err("nobody there").to_string();
        assert!(
            error.contains(&dead) && error.contains("no.such.host.invalid"),
            "{error}"
        );
    }
}
