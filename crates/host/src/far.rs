//! Addresses that are made to look far away: a rehearsal, on one machine, for clusters whose processes are in several regions.
//! Connections to them go through this process once more, which passes bytes on half a round trip later, either way. It must not
//! know what is spoken on them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::clock::{self, Instant};

/// Bytes that are read at one time, and how many such reads may be on their way in one direction.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 1_024;

static FAR: OnceLock<Far> = OnceLock::new();

#[derive(Debug)]
struct Far {
    /// The round trip to each address that is far away.
    round_trips: BTreeMap<String, Duration>,
    /// Where this process passes bytes on to each of them.
    passages: Mutex<BTreeMap<String, SocketAddr>>,
}

/// Makes addresses (host:port) look as far away as their round trips say, from now on. Only the first call counts.
pub fn set(round_trips: BTreeMap<String, Duration>) {
    let far = Far {
        round_trips,
        passages: Mutex::default(),
    };
    // A process says it once, at its start.
    drop(FAR.set(far));
}

/// Connects to an address that is far away; `None` if it is not.
pub(crate) async fn dial(address: &str) -> Option<io::Result<TcpStream>> {
    let far = FAR.get()?;
    let round_trip = *far.round_trips.get(address)?;
    clock::sleep(round_trip).await;
    let passage = match far.passage(address, round_trip).await {
        Ok(passage) => passage,
        Err(error) => return Some(Err(error)),
    };
    Some(TcpStream::connect(passage).await)
}

impl Far {
    async fn passage(&self, address: &str, round_trip: Duration) -> io::Result<SocketAddr> {
        let known = || self.passages.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(passage) = known().get(address) {
            return Ok(*passage);
        }
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let passage = listener.local_addr()?;
        // Two that find none at the same time make two, of which the later is used from then on.
        known().insert(address.to_owned(), passage);
        crate::task::spawn_detached(
            "far passage",
            pass_on(listener, address.to_owned(), round_trip),
        );
        Ok(passage)
    }
}

async fn pass_on(listener: TcpListener, address: String, round_trip: Duration) {
    while let Ok((near, _)) = listener.accept().await {
        let address = address.clone();
        crate::task::spawn_detached("far connection", async move {
            let Ok(far) = TcpStream::connect(&address).await else {
                // The caller sees its connection closed, as it would see it refused.
                return;
            };
            // Without either option small messages would only be later than they are to be.
            drop(near.set_nodelay(true));
            drop(far.set_nodelay(true));
            let (near_in, near_out) = near.into_split();
            let (far_in, far_out) = far.into_split();
            let late = round_trip / 2;
            // The end of one direction is passed on; both are over when one fails.
            let there = carry(near_in, far_out, late);
            let back = carry(far_in, near_out, late);
            drop(tokio::try_join!(there, back));
        });
    }
}

/// Carries bytes from one side to the other, each piece so much later than it came.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    late: Duration,
) -> io::Result<()> {
    let (pieces, mut due) = mpsc::channel::<(Instant, Vec<u8>)>(PIECES);
    let reading = async move {
        loop {
            let mut piece = Vec::with_capacity(PIECE_BYTES);
            let read = from.read_buf(&mut piece).await;
            let is_end = !matches!(read, Ok(bytes) if bytes > 0);
            if pieces.send((clock::now() + late, piece)).await.is_err() {
                return Ok(());
            }
            if is_end {
                return read.map(drop);
            }
        }
    };
    let writing = async move {
        while let Some((at, piece)) = due.recv().await {
            clock::sleep_until(at).await;
            match piece.is_empty() {
                true => to.shutdown().await?,
                false => to.write_all(&piece).await?,
            }
        }
        Ok(())
    };
    // A read that fails is told after what was read before it has been written.
    let (read, written) = tokio::join!(reading, writing);
    read.and(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_far_address_answers_a_round_trip_later_and_its_end_is_seen() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let round_trip = Duration::from_millis(40);
        set(BTreeMap::from([(address.clone(), round_trip)]));
        let serving = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4];
            stream.read_exact(&mut asked).await.unwrap();
            stream.write_all(&asked).await.unwrap();
        });
        let begun = clock::now();
        let mut stream = dial(&address).await.expect("it is far").unwrap();
        stream.write_all(b"ping").await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"ping");
        // One to connect, and one for the answer.
        assert!(clock::now().since(begun) >= round_trip * 2);
        serving.await.unwrap();
        assert!(dial("127.0.0.1:1").await.is_none());
    }
}
