//! The connection between hyper and the socket.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use ambient_persistence::new_id;
use axum::http::StatusCode;
use bytes::{Buf, Bytes};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    Exchanges,
    framing::{Framing, Owner, end_of_head, status},
};
use crate::error::{ApiError, Number};

/// How long, and how many bytes, the client's remaining input is drained after such a response.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_DISCARDED: usize = 4 << 20;
/// Largest head of hyper's own responses.
const MAX_BARE: usize = 4096;

/// A connection whose bare failures get the envelope.
#[derive(Debug)]
pub(crate) struct Enveloped<T> {
    inner: T,
    exchanges: Exchanges,
    framing: Framing,
    /// A response of hyper's own, as far as it has arrived.
    bare: Option<Vec<u8>>,
    /// What is written instead.
    replacement: Bytes,
    /// Afterwards: until when, and how many more bytes, are read and discarded.
    discard: Option<(Pin<Box<Sleep>>, usize)>,
}

impl<T> Enveloped<T> {
    /// Stands before a connection.
    pub(crate) fn new(inner: T) -> Self {
        Self {
            inner,
            exchanges: Exchanges::default(),
            framing: Framing::new(),
            bare: None,
            replacement: Bytes::new(),
            discard: None,
        }
    }

    /// The connection's requests, for each one's extensions.
    pub(crate) fn exchanges(&self) -> Exchanges {
        self.exchanges.clone()
    }

    /// Takes part of a response that no route makes; returns how much of the buffer.
    fn take_bare(&mut self, buffer: &[u8]) -> usize {
        let bare = self.bare.get_or_insert_default();
        let before = bare.len();
        bare.extend_from_slice(buffer);
        let Some(end) = end_of_head(bare, before) else {
            if bare.len() > MAX_BARE {
                // Not what it was taken for.
                self.replacement = std::mem::take(bare).into();
                self.over();
            }
            return buffer.len();
        };
        self.replacement = enveloped(&bare[..end]);
        self.over();
        end - before
    }

    fn over(&mut self) {
        self.bare = None;
        self.framing.give_up();
        self.discard = Some((Box::pin(sleep(DISCARD_TIMEOUT)), MAX_DISCARDED));
    }
}

impl<T: AsyncWrite + Unpin> Enveloped<T> {
    fn poll_replacement(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.replacement.has_remaining() {
            let written = ready!(Pin::new(&mut self.inner).poll_write(context, &self.replacement))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.replacement.advance(written);
        }
        Poll::Ready(Ok(()))
    }
}

/// The response that replaces a bare one.
fn enveloped(head: &[u8]) -> Bytes {
    let status = status(head).and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::BAD_REQUEST);
    let (number, request_id) = (Number::of_status(status), new_id());
    tracing::info!(status = status.as_u16(), request_id, "answered what could not be read");
    metrics::counter!(
        "ambient_http_requests_total", "method" => "other", "route" => "unread", "status" => status.as_str().to_owned()
    )
    .increment(1);
    by_hand(status, ApiError::new(number, number.meaning()), &request_id).into()
}

/// A failure as the connection's last response, head and body.
pub(crate) fn by_hand(status: StatusCode, error: ApiError, request_id: &str) -> String {
    let retry = error.retry_after().map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
    let body = error.into_json(request_id.to_owned());
    format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nx-operation-id: {request_id}\r\nconnection: close\r\n\
         content-length: {}\r\n{retry}date: {}\r\n\r\n{body}",
        body.len(),
        chrono::Utc::now().format("%a, %d %b %Y %H:%M:%S GMT"),
    )
}

impl<T: AsyncRead + Unpin> AsyncRead for Enveloped<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Enveloped<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        ready!(this.poll_replacement(context))?;
        if buffer.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if this.bare.is_some() {
            return Poll::Ready(Ok(this.take_bare(buffer)));
        }
        match this.framing.owner(buffer, &this.exchanges) {
            Owner::Nobody => Poll::Ready(Ok(this.take_bare(buffer))),
            Owner::Route(own) => {
                let written = ready!(Pin::new(&mut this.inner).poll_write(context, &buffer[..own]))?;
                this.framing.written(&buffer[..written], &this.exchanges);
                Poll::Ready(Ok(written))
            }
        }
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let ours = this.bare.is_some() || this.replacement.has_remaining();
        if ours || !this.framing.routes_own(buffers, &this.exchanges) {
            let first = buffers.iter().find(|buffer| !buffer.is_empty()).map_or(&[][..], |buffer| buffer);
            return self.poll_write(context, first);
        }
        let written = ready!(Pin::new(&mut this.inner).poll_write_vectored(context, buffers))?;
        let mut left = written;
        for buffer in buffers {
            let part = left.min(buffer.len());
            this.framing.written(&buffer[..part], &this.exchanges);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_replacement(context))?;
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        ready!(this.poll_replacement(context))?;
        ready!(Pin::new(&mut this.inner).poll_shutdown(context))?;
        let mut buffer = [0; 8 * 1024];
        while let Some((until, left)) = &mut this.discard {
            if until.as_mut().poll(context).is_ready() || *left == 0 {
                break;
            }
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut this.inner).poll_read(context, &mut read))?;
            match read.filled().len() {
                0 => break,
                taken => *left = left.saturating_sub(taken),
            }
        }
        Poll::Ready(Ok(()))
    }
}
