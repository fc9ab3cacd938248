//! A Kafka connection of a simulated client, over the simulated network, and the choice of the server to
//! ask: the next one after every disappointment, since any of them may be the one that leads. It must
//! not know what is asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use host::clock;
use host::net::TcpStream;
use host::seeded::{self, Place};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::frame::{FRAME_BYTES_MAX, Split, decode_response, encode_request, split_frame};
use wire::message::RequestBody;
use wire::text::Str;

/// Offsets by key.
pub(super) type Positions = BTreeMap<&'static str, i64>;

/// Where servers listen.
pub(super) const PORT: u16 = 9092;
/// How long a server may take to accept a connection.
const DIAL_LIMIT: Duration = Duration::from_secs(1);
/// Pause before the next server is tried.
const ELSEWHERE: Duration = Duration::from_millis(50);

/// The address at which a server listens.
pub(super) fn address(place: Place) -> SocketAddr {
    SocketAddr::new(place.ip().into(), PORT)
}

/// Something about the connection failed; what was asked on it may have been done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

pub(super) struct Connection {
    stream: TcpStream,
    buffer: BytesMut,
    next_id: i32,
}

impl Connection {
    pub(super) async fn open(server: Place) -> Result<Self, Broken> {
        let address = address(server).to_string();
        let dialled = clock::timeout(DIAL_LIMIT, host::net::dial(&address)).await;
        Ok(Connection {
            stream: dialled.map_err(|_| Broken)?.map_err(|_| Broken)?,
            buffer: BytesMut::new(),
            next_id: 0,
        })
    }

    /// Sends a request; the number comes back with its answer.
    pub(super) async fn send<R: RequestBody>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<i32, Broken> {
        self.next_id += 1;
        let client_id = Str::from_static("town");
        let rope = encode_request(request, self.next_id, Some(&client_id), version);
        let bytes = rope.map_err(|_| Broken)?.to_bytes();
        self.stream.write_all(&bytes).await.map_err(|_| Broken)?;
        Ok(self.next_id)
    }

    /// The next answer. Dropping the future loses nothing.
    pub(super) async fn receive(&mut self) -> Result<Bytes, Broken> {
        loop {
            match split_frame(&mut self.buffer, FRAME_BYTES_MAX).map_err(|_| Broken)? {
                Split::Frame(frame) => return Ok(frame),
                Split::More { reserve_bytes } => self.buffer.reserve(reserve_bytes),
            }
            let count = self.stream.read_buf(&mut self.buffer).await;
            if count.map_err(|_| Broken)? == 0 {
                return Err(Broken);
            }
        }
    }

    async fn call<R: RequestBody>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Broken> {
        let id = self.send(request, version).await?;
        let frame = self.receive().await?;
        let (answered, response) = decode_response::<R>(&frame, version).map_err(|_| Broken)?;
        (answered == id).then_some(response).ok_or(Broken)
    }
}

/// One question at a time, to one of several servers.
pub(super) struct Client {
    servers: Vec<Place>,
    at: usize,
    connection: Option<Connection>,
    /// What the server remembers of its fetches; `None`: it has nothing remembered.
    pub(super) session: Option<Session>,
}

/// A fetch session (KIP-227), as the client knows it.
#[derive(Default)]
pub(super) struct Session {
    pub(super) id: i32,
    pub(super) epoch: i32,
    /// What the server was told to read, and from where on.
    pub(super) named: Positions,
}

impl Client {
    /// A client that begins with any of them.
    pub(super) fn new(servers: Vec<Place>) -> Self {
        let at = seeded::draw(|rng| rng.below(servers.len() as u64)) as usize;
        Client {
            servers,
            at,
            connection: None,
            session: seeded::draw(|rng| rng.once_in(2)).then(Session::default),
        }
    }

    /// The server that is asked now.
    pub(super) fn server(&self) -> Place {
        self.servers[self.at]
    }

    /// Asks; without an answer within `patience` the next server is asked next.
    pub(super) async fn call<R: RequestBody>(
        &mut self,
        request: &R,
        version: i16,
        patience: Duration,
    ) -> Result<R::Response, Broken> {
        let answer = clock::timeout(patience, self.call_here(request, version)).await;
        let answer = answer.unwrap_or(Err(Broken));
        if answer.is_err() {
            self.elsewhere().await;
        }
        answer
    }

    async fn call_here<R: RequestBody>(
        &mut self,
        request: &R,
        version: i16,
    ) -> Result<R::Response, Broken> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => Connection::open(self.server()).await?,
        };
        let response = connection.call(request, version).await?;
        self.connection = Some(connection);
        Ok(response)
    }

    /// The next server may know more.
    pub(super) async fn elsewhere(&mut self) {
        self.skip();
        clock::sleep(ELSEWHERE).await;
    }

    /// Turns to the next server.
    pub(super) fn skip(&mut self) {
        self.connection = None;
        self.session = self.session.take().map(|_| Session::default());
        self.at = (self.at + 1) % self.servers.len();
    }
}
