//! A plain Kafka client for the command line: one connection, one request at a time, repeated while
//! the cluster says that it cannot answer just now; every error told as a sentence. It knows no
//! more than any client would.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail, ensure};
use bytes::{Bytes, BytesMut};
use host::backoff::Backoff;
use host::clock::{self, Instant};
use host::net::TcpStream;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::errors::ErrorCode;
use wire::frame::{FRAME_BYTES_MAX, Split, decode_response, encode_request, split_frame};
use wire::message::RequestBody;
use wire::text::Str;

use crate::address::{Address, Bootstrap};
use crate::commands::dev::DATA_DIR;
use crate::data_dir;

/// How long one address may take to accept: Kafka's `socket.connection.setup.timeout.ms`.
const DIAL_LIMIT: Duration = Duration::from_secs(10);
/// Time an answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);
/// How long a request is repeated that the cluster cannot answer just now.
const REPEAT_LIMIT: Duration = Duration::from_secs(60);
/// The pauses between these repetitions.
const REPEAT_BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));

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

/// The error with which the cluster answered.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct Refused {
    sentence: String,
    /// True if Kafka's clients would ask again.
    pub passes: bool,
}

/// How long a request is repeated, and the pauses between.
pub struct Patience {
    deadline: Instant,
    pauses: host::backoff::Pauses,
}

impl Patience {
    pub fn start() -> Self {
        Patience {
            deadline: clock::now() + REPEAT_LIMIT,
            pauses: REPEAT_BACKOFF.start(),
        }
    }

    /// Pauses if there is time for another try after `error`; else returns the error.
    pub async fn pause_after(&mut self, error: anyhow::Error) -> Result<()> {
        if clock::now() >= self.deadline {
            return Err(error.context(format!("for {} s", REPEAT_LIMIT.as_secs())));
        }
        self.pauses.pause().await;
        Ok(())
    }
}

/// True if the cluster refused only for the moment.
pub fn passes(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Refused>()
        .is_some_and(|refused| refused.passes)
}

/// True if a connection broke or could not be made: a request that changes nothing may be repeated
/// then.
fn is_lost(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some()
}

/// A connection to the cluster.
pub struct Client {
    addresses: Vec<String>,
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
            addresses,
            buffer: BytesMut::new(),
            correlation_id: 0,
        })
    }

    /// Sends a request that changes nothing, until `read` finds an answer in the response; on a new
    /// connection if this one breaks.
    pub async fn ask<R: RequestBody, T>(
        &mut self,
        request: &R,
        version: i16,
        read: impl Fn(R::Response) -> Result<T>,
    ) -> Result<T> {
        let mut patience = Patience::start();
        loop {
            match self.call(request, version).await.and_then(&read) {
                Ok(answer) => return Ok(answer),
                Err(error) if passes(&error) => patience.pause_after(error).await?,
                Err(error) if is_lost(&error) => {
                    patience.pause_after(error).await?;
                    self.reconnect().await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends a request that changes something; repeats it if the cluster refused it for the moment,
    /// since then nothing was done. If the connection breaks, the change may have been made: the
    /// error says so.
    pub async fn order<R: RequestBody, T>(
        &mut self,
        request: &R,
        version: i16,
        read: impl Fn(R::Response) -> Result<T>,
    ) -> Result<T> {
        let mut patience = Patience::start();
        loop {
            match self.call(request, version).await.and_then(&read) {
                Err(error) if passes(&error) => patience.pause_after(error).await?,
                answer => return answer,
            }
        }
    }

    /// Opens a new connection and drops the old one with what is left on it.
    async fn reconnect(&mut self) -> Result<()> {
        self.stream = dial_any(&self.addresses).await?;
        self.buffer.clear();
        Ok(())
    }

    /// Sends a request once and waits for the answer.
    async fn call<R: RequestBody>(&mut self, request: &R, version: i16) -> Result<R::Response> {
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
            "the answer does not belong to the request: is this a Kafka server?"
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
            if count == 0 {
                let closed = "the cluster closed the connection";
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, closed).into());
            }
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

/// Turns the error code of an answer into an error that names it; `what` is what the request was
/// for.
pub fn check(code: i16, message: Option<&Str>, what: &str) -> Result<(), Refused> {
    if code == 0 {
        return Ok(());
    }
    let known = ErrorCode::from_code(code);
    let name = known.map_or("an unknown error", ErrorCode::name);
    let sentence = match message {
        Some(message) if !message.is_empty() => format!("{what}: {} ({name})", message.as_str()),
        _ => format!("{what}: {name} ({code})"),
    };
    // "Unknown topic" and the like rest on current metadata here: asking again does not help.
    let passes = known.is_some_and(|code| {
        code.is_retriable()
            && !matches!(
                code,
                ErrorCode::UnknownTopicOrPartition | ErrorCode::UnknownTopicId
            )
    });
    Err(Refused { sentence, passes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_passes_is_told_from_what_does_not() {
        let passes = |code| check(code, None, "t").expect_err("an error").passes;
        assert!(passes(ErrorCode::KafkaStorageError.code()));
        assert!(passes(ErrorCode::LeaderNotAvailable.code()));
        assert!(!passes(ErrorCode::UnknownTopicOrPartition.code()));
        assert!(!passes(ErrorCode::TopicAuthorizationFailed.code()));
    }

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
