//! A plain Kafka client for the command line: one connection, one request at a time, repeated while
//! the cluster says that it cannot answer just now; every error told as a sentence. It knows no
//! more than any client would.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
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
/// Time an answer may take: the cluster itself gives a request up after thirty seconds.
const ANSWER_LIMIT: Duration = Duration::from_secs(40);
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
    pub code: Option<ErrorCode>,
    /// True if Kafka's clients would ask again.
    pub passes: bool,
}

/// Nothing accepted a connection, so nothing was sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unreached(String);

/// The answer did not come in time.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", ANSWER_LIMIT.as_secs())]
struct Unanswered;

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

/// What is known of a request that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It failed for good.
    Failed,
    /// It was not carried out, and may be later.
    NotDone,
    /// It may have been carried out.
    Unknown,
}

fn fate(error: &anyhow::Error) -> Fate {
    match error.downcast_ref::<Refused>() {
        Some(refused) if refused.code == Some(ErrorCode::RequestTimedOut) => Fate::Unknown,
        Some(refused) if refused.passes => Fate::NotDone,
        Some(_) => Fate::Failed,
        None if error.is::<Unreached>() => Fate::NotDone,
        None if error.is::<std::io::Error>() || error.is::<Unanswered>() => Fate::Unknown,
        None => Fate::Failed,
    }
}

/// A connection to the cluster.
pub struct Client {
    /// The addresses to try; those that the node in `data_dir` tells if there are none.
    addresses: Vec<String>,
    data_dir: PathBuf,
    /// `None` after it broke, until the next request.
    stream: Option<TcpStream>,
    buffer: BytesMut,
    correlation_id: i32,
}

impl Client {
    /// Connects to the cluster that `target` names.
    pub async fn connect(target: &Target) -> Result<Self> {
        let named = target.bootstrap.iter().flat_map(|bootstrap| &bootstrap.0);
        let mut client = Client {
            addresses: named.map(Address::to_string).collect(),
            data_dir: target.data_dir.clone(),
            stream: None,
            buffer: BytesMut::new(),
            correlation_id: 0,
        };
        client.dial().await?;
        Ok(client)
    }

    /// A client of these addresses, which are tried in turn; it connects with its first request.
    pub fn of(addresses: Vec<String>) -> Self {
        Client {
            addresses,
            data_dir: PathBuf::new(),
            stream: None,
            buffer: BytesMut::new(),
            correlation_id: 0,
        }
    }

    /// Sends a request that changes nothing, or the same if it is made twice, until `read` finds an
    /// answer in the response; on a new connection if this one breaks.
    pub async fn ask<R: RequestBody, T>(
        &mut self,
        request: &R,
        version: i16,
        read: impl Fn(R::Response) -> Result<T>,
    ) -> Result<T> {
        let mut patience = Patience::start();
        loop {
            match self.call(request, version).await.and_then(&read) {
                Err(error) if fate(&error) != Fate::Failed => patience.pause_after(error).await?,
                answer => return answer,
            }
        }
    }

    /// Sends a request that changes something until it is done. Once an outcome was unknown,
    /// the error `done` of a later attempt says that an earlier one has done it: `None` then.
    pub async fn order<R: RequestBody, T>(
        &mut self,
        request: &R,
        version: i16,
        done: ErrorCode,
        read: impl Fn(R::Response) -> Result<T>,
    ) -> Result<Option<T>> {
        let (mut patience, mut in_doubt) = (Patience::start(), false);
        loop {
            let error = match self.call(request, version).await.and_then(&read) {
                Ok(answer) => return Ok(Some(answer)),
                Err(error) => error,
            };
            let refused = error.downcast_ref::<Refused>();
            if in_doubt && refused.is_some_and(|refused| refused.code == Some(done)) {
                return Ok(None);
            }
            match fate(&error) {
                Fate::Failed => return Err(error),
                Fate::NotDone => {}
                Fate::Unknown => in_doubt = true,
            }
            patience.pause_after(error).await?;
        }
    }

    /// Opens a connection unless there is one.
    async fn dial(&mut self) -> Result<&mut TcpStream> {
        let stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                self.buffer.clear();
                // A node that starts again may listen elsewhere.
                let addresses = match self.addresses.is_empty() {
                    true => {
                        let told = data_dir::published(&self.data_dir);
                        vec![told.map_err(|error| Unreached(format!("{error:#}")))?.kafka]
                    }
                    false => self.addresses.clone(),
                };
                dial_any(&addresses).await?
            }
        };
        Ok(self.stream.insert(stream))
    }

    /// Sends a request once and waits for the answer. Whatever is left of a failed exchange goes with
    /// its connection.
    async fn call<R: RequestBody>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        // Dialling has limits of its own, and what was never sent has not been done.
        self.dial().await?;
        let exchange = self.exchange(request, version);
        let answer = host::clock::timeout(ANSWER_LIMIT, exchange).await;
        let answer = answer.unwrap_or_else(|_| Err(Unanswered.into()));
        if answer.is_err() {
            self.stream = None;
        }
        answer
    }

    async fn exchange<R: RequestBody>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        self.correlation_id += 1;
        let client_id = Str::from_static("seaway-cli");
        let rope = encode_request(request, self.correlation_id, Some(&client_id), version)?;
        let stream = self.dial().await?;
        for piece in rope.pieces() {
            stream.write_all(piece).await?;
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
            let stream = self.stream.as_mut().ok_or(std::io::ErrorKind::NotConnected);
            let stream = stream.map_err(std::io::Error::from)?;
            let count = stream.read_buf(&mut self.buffer).await?;
            if count == 0 {
                let closed = "the cluster closed the connection";
                return Err(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, closed).into());
            }
        }
    }
}

/// Connects to the first address that accepts: any agent serves every partition.
async fn dial_any(addresses: &[String]) -> Result<TcpStream, Unreached> {
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
    Err(Unreached(format!(
        "nothing accepts a connection; is the cluster running? {}",
        refusals.join("; ")
    )))
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
    Err(Refused {
        sentence,
        code: known,
        passes,
    })
}

#[cfg(test)]
mod tests;
