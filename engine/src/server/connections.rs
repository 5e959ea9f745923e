//! Connections: each has a slot, and a deadline until its first call.
//!
//! Pings detect a peer that has gone or fallen silent only once its connection speaks HTTP/2. Before that (bytes that do not arrive,
//! or trickle in, a TLS session in which nothing is said) only the deadline ends it.

use std::{
    io::{Error, ErrorKind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use ambient_connections::{Places, Socket};
use futures::{Stream, stream};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpListener,
    time::{Sleep, sleep},
};
use tonic::transport::server::{Connected, TlsConnectInfo};

use super::Limits;

/// Pause after a failed accept, which most likely means no file descriptors are left.
const AFTER_FAILURE: Duration = Duration::from_millis(100);

/// Whether a connection has made a call.
#[derive(Debug, Clone, Default)]
pub(super) struct HasCalled(Arc<AtomicBool>);

/// A connection in its slot.
pub(super) struct Connection {
    socket: Socket,
    has_called: HasCalled,
    /// Until its first call.
    deadline: Option<Pin<Box<Sleep>>>,
}

/// Incoming connections; one without a free slot is closed at once, and its client retries.
pub(super) fn accept(
    listener: TcpListener,
    places: Places,
    limits: Limits,
) -> impl Stream<Item = Result<Connection, Error>> {
    stream::unfold((listener, places, limits), |(listener, places, limits)| async move {
        let accepted = loop {
            match listener.accept().await {
                Ok((stream, peer)) => match places.take(peer.ip()) {
                    Some(place) => break Ok(Connection::new(Socket::new(stream, place, limits.write), &limits)),
                    None => metrics::counter!("engine_connections_refused_total").increment(1),
                },
                Err(error) => {
                    tracing::warn!(%error, "connection not accepted");
                    sleep(AFTER_FAILURE).await;
                    break Err(error);
                }
            }
        };
        Some((accepted, (listener, places, limits)))
    })
}

impl HasCalled {
    /// Notes the call on the connection that it came by.
    pub(super) fn note(extensions: &tonic::codegen::http::Extensions) {
        let plain = extensions.get::<Self>();
        let connection = plain.or_else(|| extensions.get::<TlsConnectInfo<Self>>().map(TlsConnectInfo::get_ref));
        if let Some(Self(called)) = connection {
            called.store(true, Ordering::Relaxed);
        }
    }
}

impl Connection {
    fn new(socket: Socket, limits: &Limits) -> Self {
        let deadline = Some(Box::pin(sleep(limits.first_call)));
        Self { socket, has_called: HasCalled::default(), deadline }
    }

    /// An error once the first call is overdue.
    fn check(&mut self, cx: &mut Context<'_>) -> Result<(), Error> {
        if self.has_called.0.load(Ordering::Relaxed) {
            self.deadline = None;
        }
        match self.deadline.as_mut().map(|deadline| deadline.as_mut().poll(cx)) {
            Some(Poll::Ready(())) => Err(Error::new(ErrorKind::TimedOut, "the connection has made no call")),
            Some(Poll::Pending) | None => Ok(()),
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = HasCalled;

    fn connect_info(&self) -> HasCalled {
        self.has_called.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<Result<(), Error>> {
        let this = self.get_mut();
        if let Err(overdue) = this.check(cx) {
            return Poll::Ready(Err(overdue));
        }
        Pin::new(&mut this.socket).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[std::io::IoSlice<'_>],
    ) -> Poll<Result<usize, Error>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }
}
