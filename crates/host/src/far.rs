//! Addresses that are made to look far away: a rehearsal, on one machine, for clusters whose processes are in several regions.
//! Connections to them go through this process once more, which passes bytes on half a round trip later, either way; an address
//! that refuses is seen to refuse, as it is across any distance. It must not know what is spoken on them.

use std::collections::BTreeMap;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::clock::{self, Instant};

/// Bytes that are read at one time, and how many such reads may be on their way in one direction.
const PIECE_BYTES: usize = 64 << 10;
const PIECES: usize = 1_024;

static FAR: OnceLock<BTreeMap<String, Duration>> = OnceLock::new();

/// Makes addresses (host:port) look as far away as their round trips say, from now on. Only the first call counts.
pub fn set(round_trips: BTreeMap<String, Duration>) {
    // A process says it once, at its start.
    drop(FAR.set(round_trips));
}

/// Connects to an address that is far away; `None` if it is not.
pub(crate) async fn dial(address: &str) -> Option<io::Result<TcpStream>> {
    let round_trip = *FAR.get()?.get(address)?;
    clock::sleep(round_trip).await;
    Some(connect(address, round_trip).await)
}

async fn connect(address: &str, round_trip: Duration) -> io::Result<TcpStream> {
    let far = TcpStream::connect(address).await?;
    let (near, passage) = pair().await?;
    // Without it small messages would only be later than they are to be.
    far.set_nodelay(true)?;
    passage.set_nodelay(true)?;
    crate::task::spawn_detached("far connection", async move {
        let (near_in, near_out) = passage.into_split();
        let (far_in, far_out) = far.into_split();
        let late = round_trip / 2;
        // The end of one direction is passed on; both are over when one fails.
        let there = carry(near_in, far_out, late);
        let back = carry(far_in, near_out, late);
        drop(tokio::try_join!(there, back));
    });
    Ok(near)
}

/// The two ends of a connection within this process.
async fn pair() -> io::Result<(TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let near = TcpStream::connect(listener.local_addr()?).await?;
    loop {
        let (passage, from) = listener.accept().await?;
        // Whoever else has found the port is not let in.
        if from == near.local_addr()? {
            return Ok((near, passage));
        }
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
        // Nobody listens there any more.
        let refused = dial(&address).await.expect("it is far").unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
    }
}
