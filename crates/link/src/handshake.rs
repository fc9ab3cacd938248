//! The begin of a connection by TLS, on both sides: who the other is, or why nothing came of it, in words that say what to do. It must not know
//! what is said on the connection.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use host::net::TcpStream;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, CertificateError, Error};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use crate::keys::{Keys, Peer, now};
use crate::process::Role;

/// What is asked for in place of a host; whose certificate is good does not depend on it.
const CONTROL: &str = "control";

/// Why there is no connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// The other end closed it, or the network did.
    Closed,
    /// One end refuses the other, for this reason.
    Refused(String),
}

/// The stream of one who has called, and was accepted: what it reads first was read already.
pub(crate) struct Accepted {
    first: Option<u8>,
    stream: client::TlsStream<TcpStream>,
}

/// Begins as the one who calls a process of a role.
pub(crate) async fn call(
    keys: &Keys,
    role: Role,
    stream: TcpStream,
) -> Result<(Accepted, Peer), Failure> {
    let connector = TlsConnector::from(Arc::clone(keys.current().client_to(role)));
    let host =
        ServerName::try_from(CONTROL).map_err(|error| Failure::Refused(error.to_string()))?;
    let stream = connector.connect(host, stream).await;
    let mut stream = stream.map_err(|error| failure(&error))?;
    // The node checks the caller's certificate last, and then says the first word: until it came, nothing that is sent is certain not to be
    // thrown away unread.
    let first = stream.read_u8().await.map_err(|error| failure(&error))?;
    let (_, connection) = stream.get_ref();
    let peer = Peer {
        chain: chain(connection.peer_certificates()),
        called_as: Some(role),
        since: now(),
    };
    let first = Some(first);
    Ok((Accepted { first, stream }, peer))
}

/// Begins as the one who is called.
pub(crate) async fn answer(
    keys: &Keys,
    stream: TcpStream,
) -> Result<(server::TlsStream<TcpStream>, Peer), Failure> {
    let acceptor = TlsAcceptor::from(Arc::clone(&keys.current().server));
    let stream = acceptor.accept(stream).await;
    let stream = stream.map_err(|error| failure(&error))?;
    let (_, connection) = stream.get_ref();
    let peer = Peer {
        chain: chain(connection.peer_certificates()),
        called_as: None,
        since: now(),
    };
    Ok((stream, peer))
}

fn chain(
    certificates: Option<&[rustls::pki_types::CertificateDer<'static>]>,
) -> Vec<rustls::pki_types::CertificateDer<'static>> {
    certificates.unwrap_or_default().to_vec()
}

fn failure(error: &io::Error) -> Failure {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Error>());
    match inner {
        Some(inner) => Failure::Refused(words(inner)),
        None => Failure::Closed,
    }
}

/// What is wrong, said of the other end.
fn words(error: &Error) -> String {
    let said = match error {
        Error::InvalidMessage(_) => {
            "it speaks no TLS: it was started with --plaintext-links, or is no process of Seaway; start all of the cluster with --tls-dir"
        }
        Error::NoCertificatesPresented => {
            "it shows no certificate: it is no process of this cluster, or another program"
        }
        Error::InvalidCertificate(error) => return of_certificate(error),
        Error::AlertReceived(AlertDescription::UnknownCA | AlertDescription::DecryptError) => {
            "it refuses the certificate of this process, which is of another CA than its own: issue all from the CA of the cluster, or name \
             both CAs in the CA's file of every process"
        }
        Error::AlertReceived(AlertDescription::CertificateExpired) => {
            "it refuses the certificate of this process as expired or not valid yet: issue another with `seaway certs issue`, or set the clock \
             of one of the two machines"
        }
        Error::AlertReceived(alert) => {
            return format!("it refuses the certificate of this process ({alert:?})");
        }
        error => return error.to_string(),
    };
    said.to_owned()
}

fn of_certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is of another CA: issue all from the CA of the cluster, or name both CAs in the CA's file of every process"
                .to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "its certificate has expired: issue another with `seaway certs issue`; or the clock of this machine is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "its certificate does not hold yet: the clock of one of the two machines is wrong".to_owned()
        }
        CertificateError::Other(why) => why.0.to_string(),
        error => format!("its certificate cannot be used: {error}"),
    }
}

impl AsyncRead for Accepted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buffer.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buffer.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Accepted {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
