//! One connection to one member of an etcd, made when it is first needed and again once it is lost. It must not know what is asked,
//! nor of other members.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use host::clock::{self, Instant};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue, TE, USER_AGENT};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};

use crate::grpc::{self, Failure};
use crate::security::Tls;

/// How long connecting may take, TLS included.
const DIAL_LIMIT: Duration = Duration::from_secs(2);
/// A connection on which nothing was heard for so long while a call waited is made anew: the member's machine may be gone.
const QUIET_FOR: Duration = Duration::from_secs(1);
/// The longest answer: 32 of the largest slots, which is how many are asked for at once while it is not known that they are small.
const ANSWER_BYTES_MAX: usize = 40 << 20;
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 16 << 20;

type Sender = SendRequest<Full<Bytes>>;

/// What is asked of a member.
pub(crate) struct Ask<'a> {
    /// gRPC's path: service and method.
    pub(crate) path: &'static str,
    pub(crate) body: Bytes,
    pub(crate) login: Option<&'a HeaderValue>,
    /// How long the caller waits; the member works no longer on it.
    pub(crate) within: Duration,
}

/// A connection to one member.
pub(crate) struct Connection {
    shared: Arc<Shared>,
    sender: Arc<Mutex<Option<Sender>>>,
}

struct Shared {
    address: String,
    tls: Option<Tls>,
    /// When something was last heard, in the boot clock's microseconds.
    heard: AtomicU64,
}

impl Connection {
    pub(crate) fn new(address: String, tls: Option<Tls>) -> Self {
        let shared = Shared {
            address,
            tls,
            heard: AtomicU64::new(0),
        };
        Connection {
            shared: Arc::new(shared),
            sender: Arc::default(),
        }
    }

    /// The message of the answer.
    pub(crate) async fn call(&self, ask: Ask<'_>) -> Result<Bytes, Failure> {
        let answer = self.exchange(ask).await;
        answer.map_err(|failure| match failure {
            Failure::Silent(why) => Failure::Silent(format!("{}: {why}", self.shared.address)),
            failure => failure,
        })
    }

    async fn exchange(&self, ask: Ask<'_>) -> Result<Bytes, Failure> {
        let request = self.request(ask)?;
        let mut sender = self.sender().await?;
        let response = sender.send_request(request).await.map_err(broken)?;
        self.shared.hear();
        let body = read(response).await?;
        self.shared.hear();
        grpc::message(&body)
    }

    /// A call has waited here for an answer that came from elsewhere, or not at all.
    pub(crate) fn doubt(&self) {
        let heard = Instant::from_micros(self.shared.heard.load(Ordering::Relaxed));
        if clock::now().since(heard) < QUIET_FOR {
            return;
        }
        // If it is held, it is being made anew.
        if let Ok(mut sender) = self.sender.try_lock() {
            *sender = None;
        }
    }

    fn request(&self, ask: Ask<'_>) -> Result<Request<Full<Bytes>>, Failure> {
        let scheme = match self.shared.tls {
            Some(_) => "https",
            None => "http",
        };
        let uri = Uri::builder()
            .scheme(scheme)
            .authority(&*self.shared.address)
            .path_and_query(ask.path);
        let uri = uri
            .build()
            .map_err(|error| Failure::Refused(error.to_string()))?;
        let mut request = Request::new(Full::new(ask.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(USER_AGENT, HeaderValue::from_static("seaway"));
        // A member that knows no leader says so at once, instead of waiting for one.
        let hasleader = HeaderName::from_static("hasleader");
        headers.insert(hasleader, HeaderValue::from_static("true"));
        let within = format!("{}m", ask.within.as_millis().clamp(1, 99_999_999));
        if let Ok(within) = HeaderValue::from_str(&within) {
            headers.insert(HeaderName::from_static("grpc-timeout"), within);
        }
        if let Some(login) = ask.login {
            headers.insert(HeaderName::from_static("token"), login.clone());
        }
        Ok(request)
    }

    /// The open connection. It is made in a task of its own, so that it is made even if the call that needs it is answered elsewhere.
    async fn sender(&self) -> Result<Sender, Failure> {
        let state = Arc::clone(&self.sender).lock_owned().await;
        if let Some(sender) = state.as_ref().filter(|sender| !sender.is_closed()) {
            return Ok(sender.clone());
        }
        let (tell, told) = oneshot::channel();
        let shared = Arc::clone(&self.shared);
        host::task::spawn_detached("etcd dial", async move {
            let dialled = shared.dial_into(state).await;
            // Nobody waits any more if the call was answered elsewhere.
            drop(tell.send(dialled));
        });
        told.await
            .unwrap_or_else(|_| Err(Failure::Silent("the process ends".to_owned())))
    }
}

impl Shared {
    fn hear(&self) {
        let now = clock::now().as_micros();
        self.heard.store(now, Ordering::Relaxed);
    }

    async fn dial_into(
        &self,
        mut state: OwnedMutexGuard<Option<Sender>>,
    ) -> Result<Sender, Failure> {
        *state = None;
        let dialled = clock::timeout(DIAL_LIMIT, self.dial()).await;
        let dialled =
            dialled.unwrap_or_else(|_| Err(Failure::Silent("connecting took too long".to_owned())));
        if let Ok(sender) = &dialled {
            self.hear();
            *state = Some(sender.clone());
        }
        dialled
    }

    async fn dial(&self) -> Result<Sender, Failure> {
        let stream = host::net::dial(&self.address).await;
        let stream = stream.map_err(|error| Failure::Silent(error.to_string()))?;
        match &self.tls {
            None => open(stream).await,
            Some(tls) => open(tls.begin(&self.address, stream).await?).await,
        }
    }
}

async fn open(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
) -> Result<Sender, Failure> {
    let opened = Builder::new(TokioExecutor::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .handshake(TokioIo::new(stream));
    let (sender, connection) = opened.await.map_err(broken)?;
    host::task::spawn_detached("etcd connection", async move {
        // Whoever waits for an answer on it is told by that.
        drop(connection.await);
    });
    Ok(sender)
}

/// The body of an answer that says that all is well.
async fn read(response: Response<Incoming>) -> Result<Bytes, Failure> {
    if response.status() != StatusCode::OK {
        return Err(Failure::Silent(format!(
            "it answers {} to gRPC: is it etcd, and is this its client port?",
            response.status()
        )));
    }
    if let Some(ended) = grpc::status(response.headers()) {
        // An answer that ends with its head has no message.
        return match ended {
            Ok(()) => Err(Failure::Silent("its answer is empty".to_owned())),
            Err(failure) => Err(failure),
        };
    }
    let mut body = response.into_body();
    let mut pieces = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(broken)?;
        if let Some(piece) = frame.data_ref() {
            if pieces.len() + piece.len() > ANSWER_BYTES_MAX {
                return Err(Failure::TooLong);
            }
            pieces.extend_from_slice(piece);
        }
        if let Some(trailers) = frame.trailers_ref() {
            return match grpc::status(trailers) {
                Some(ended) => ended.map(|()| pieces.freeze()),
                None => Err(Failure::Silent("its answer has no status".to_owned())),
            };
        }
    }
    Err(Failure::Silent("its answer is cut off".to_owned()))
}

/// An error with its causes.
fn broken(error: hyper::Error) -> Failure {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    Failure::Silent(text)
}
