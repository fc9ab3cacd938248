//! Sockets: listening and dialling on TCP with the options every connection of ours wants. It
//! must not know what is spoken on them.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

#[cfg(feature = "simulated")]
use crate::seeded;

const BACKLOG: u32 = 1024;

/// Waits for connections to one address.
#[derive(Debug)]
pub struct TcpListener(ListenerOf);

#[derive(Debug)]
enum ListenerOf {
    Os(tokio::net::TcpListener),
    #[cfg(feature = "simulated")]
    Seeded(seeded::Listener),
}

/// A connection.
#[derive(Debug)]
pub struct TcpStream(StreamOf);

#[derive(Debug)]
enum StreamOf {
    Os(tokio::net::TcpStream),
    #[cfg(feature = "simulated")]
    Seeded(seeded::Stream),
}

/// Listens on `address`, even if the port's last owner died a moment ago.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    #[cfg(feature = "simulated")]
    if seeded::is_simulated() {
        return Ok(TcpListener(ListenerOf::Seeded(seeded::listen(address)?)));
    }
    let socket = match address {
        SocketAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
        SocketAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(TcpListener(ListenerOf::Os(socket.listen(BACKLOG)?)))
}

/// Accepts the next connection, without Nagle's delay.
pub async fn accept(listener: &TcpListener) -> io::Result<(TcpStream, SocketAddr)> {
    match &listener.0 {
        ListenerOf::Os(listener) => {
            let (stream, peer) = listener.accept().await?;
            stream.set_nodelay(true)?;
            Ok((TcpStream(StreamOf::Os(stream)), peer))
        }
        #[cfg(feature = "simulated")]
        ListenerOf::Seeded(listener) => {
            let (stream, peer) = std::future::poll_fn(|cx| listener.poll_accept(cx)).await;
            Ok((TcpStream(StreamOf::Seeded(stream)), peer))
        }
    }
}

/// The addresses of a host name or IP address, with `port`; at least one.
pub async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    #[cfg(feature = "simulated")]
    if seeded::is_simulated() {
        let ip = host.parse().map_err(io::Error::other)?;
        return Ok(vec![SocketAddr::new(ip, port)]);
    }
    let found: Vec<SocketAddr> = tokio::net::lookup_host((host, port)).await?.collect();
    if found.is_empty() {
        return Err(io::Error::other("the name has no address"));
    }
    Ok(found)
}

/// Connects to `address` (host:port), without Nagle's delay.
pub async fn dial(address: &str) -> io::Result<TcpStream> {
    #[cfg(feature = "simulated")]
    if seeded::is_simulated() {
        let address = address.parse().map_err(io::Error::other)?;
        return Ok(TcpStream(StreamOf::Seeded(seeded::dial(address).await?)));
    }
    let stream = match crate::far::dial(address).await {
        Some(dialled) => dialled?,
        None => tokio::net::TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    Ok(TcpStream(StreamOf::Os(stream)))
}

impl TcpListener {
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.0 {
            ListenerOf::Os(listener) => listener.local_addr(),
            #[cfg(feature = "simulated")]
            ListenerOf::Seeded(listener) => Ok(listener.local_addr()),
        }
    }
}

impl TcpStream {
    /// Writes what there is room for; `WouldBlock` if there is none.
    pub fn try_write_vectored(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match &self.0 {
            StreamOf::Os(stream) => stream.try_write_vectored(slices),
            #[cfg(feature = "simulated")]
            StreamOf::Seeded(stream) => stream.try_write(slices),
        }
    }

    /// Ready once there may be something to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            StreamOf::Os(stream) => stream.poll_read_ready(cx),
            #[cfg(feature = "simulated")]
            StreamOf::Seeded(stream) => stream.poll_read_ready(cx).map(Ok),
        }
    }

    /// Ready once there may be room to write.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.0 {
            StreamOf::Os(stream) => stream.poll_write_ready(cx),
            #[cfg(feature = "simulated")]
            StreamOf::Seeded(stream) => stream.poll_write_ready(cx).map(Ok),
        }
    }
}

impl AsyncRead for TcpStream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            StreamOf::Os(stream) => Pin::new(stream).poll_read(cx, buffer),
            #[cfg(feature = "simulated")]
            StreamOf::Seeded(stream) => {
                let read = stream.poll_read(cx, buffer.initialize_unfilled());
                read.map_ok(|count| buffer.advance(count))
            }
        }
    }
}

impl AsyncWrite for TcpStream {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().0 {
            StreamOf::Os(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            #[cfg(feature = "simulated")]
            StreamOf::Seeded(stream) => {
                std::task::ready!(stream.poll_write_ready(cx));
                Poll::Ready(stream.try_write(slices))
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back on this side.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().0 {
            StreamOf::Os(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "simulated")]
            StreamOf::Seeded(stream) => {
                let _ = cx;
                stream.shut_down();
                Poll::Ready(Ok(()))
            }
        }
    }
}
