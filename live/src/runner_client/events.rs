//! The runner's event log over a WebSocket on its Unix socket.

use std::{path::Path, time::Duration};

use ambient_runner_protocol::{ReaderAck, ReaderHello, RunnerFrame};
use futures::{FutureExt, SinkExt, StreamExt};
use tokio::net::UnixStream;
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, client::IntoClientRequest, http, protocol::WebSocketConfig},
};

use super::{Result, RunnerClientError, within};

/// Largest frame, bytes. The runner sends at most about 1 MiB, unless a single record is larger.
const MAX_FRAME: usize = 16 * 1024 * 1024;
const CONNECT: Duration = Duration::from_secs(5);
const SEND: Duration = Duration::from_secs(10);

/// A connection that reads a runner's log.
#[derive(Debug)]
pub struct RunnerEvents {
    socket: WebSocketStream<UnixStream>,
}

impl RunnerEvents {
    pub(super) async fn connect(path: &Path, token: &str, hello: &ReaderHello) -> Result<Self> {
        let connect = async {
            let stream = UnixStream::connect(path).await.map_err(|e| RunnerClientError::Unreachable(e.to_string()))?;
            let config = WebSocketConfig::default()
                .read_buffer_size(16 * 1024)
                .write_buffer_size(0)
                .max_message_size(Some(MAX_FRAME))
                .max_frame_size(Some(MAX_FRAME));
            let (socket, _) =
                client_async_with_config(upgrade(token)?, stream, Some(config)).await.map_err(|e| failure(&e))?;
            Ok(Self { socket })
        };
        let mut events = Box::pin(within(CONNECT, connect)).await?;
        events.send(hello).await?;
        Ok(events)
    }

    /// The next frame and its size in bytes; none once the runner has closed. Waits as long as there is nothing. Cancel-safe: nothing
    /// is lost.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn next(&mut self) -> Result<Option<(RunnerFrame, usize)>> {
        loop {
            match self.message().await? {
                Some(Message::Ping(_) | Message::Pong(_)) => {}
                message => return message.map(frame).transpose(),
            }
        }
    }

    async fn message(&mut self) -> Result<Option<Message>> {
        match self.socket.next().await {
            None | Some(Err(tungstenite::Error::ConnectionClosed | tungstenite::Error::AlreadyClosed)) => Ok(None),
            Some(Ok(Message::Close(_))) => Ok(None),
            Some(message) => message.map(Some).map_err(|e| failure(&e)),
        }
    }

    /// Like [`Self::next`], but asks for a sign of life after each `interval` without a frame.
    ///
    /// # Errors
    /// See [`RunnerClientError`]; [`RunnerClientError::Timeout`] if none comes within `patience`.
    pub async fn next_while_alive(
        &mut self,
        interval: Duration,
        patience: Duration,
    ) -> Result<Option<(RunnerFrame, usize)>> {
        let mut asked = false;
        loop {
            let limit = if asked { patience } else { interval };
            match tokio::time::timeout(limit, self.message()).await {
                Ok(Ok(Some(Message::Pong(_) | Message::Ping(_)))) => asked = false,
                Ok(message) => return message?.map(frame).transpose(),
                Err(_) if asked => return Err(RunnerClientError::Timeout(patience)),
                Err(_) => {
                    let ping = self.socket.send(Message::Ping(Vec::new().into()));
                    within(SEND, async { ping.await.map_err(|e| failure(&e)) }).await?;
                    asked = true;
                }
            }
        }
    }

    /// The next frame, if it is there already.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub fn next_now(&mut self) -> Result<Option<(RunnerFrame, usize)>> {
        self.next().now_or_never().unwrap_or(Ok(None))
    }

    /// Tells the runner that everything up to `n` is stored.
    ///
    /// # Errors
    /// See [`RunnerClientError`].
    pub async fn ack(&mut self, n: i64) -> Result<()> {
        self.send(&ReaderAck { n }).await
    }

    async fn send(&mut self, frame: &impl serde::Serialize) -> Result<()> {
        let text = serde_json::to_string(frame).map_err(|e| RunnerClientError::Protocol(e.to_string()))?;
        let send = self.socket.send(Message::Text(text.into()));
        within(SEND, async { send.await.map_err(|e| failure(&e)) }).await
    }
}

fn frame(message: Message) -> Result<(RunnerFrame, usize)> {
    let Message::Text(text) = message else {
        return Err(RunnerClientError::Protocol("a binary frame".to_owned()));
    };
    let frame = serde_json::from_str(text.as_str()).map_err(|e| RunnerClientError::Protocol(e.to_string()))?;
    Ok((frame, text.len()))
}

fn upgrade(token: &str) -> Result<http::Request<()>> {
    let protocol = |e: &dyn std::fmt::Display| RunnerClientError::Protocol(e.to_string());
    let mut request = "ws://runner/events".into_client_request().map_err(|e| protocol(&e))?;
    // The error for an invalid value does not show it.
    let mut value = http::HeaderValue::from_str(&format!("Bearer {token}")).map_err(|e| protocol(&e))?;
    value.set_sensitive(true);
    request.headers_mut().insert(http::header::AUTHORIZATION, value);
    Ok(request)
}

fn failure(error: &tungstenite::Error) -> RunnerClientError {
    match error {
        tungstenite::Error::Http(answer) if answer.status() == http::StatusCode::UNAUTHORIZED => {
            RunnerClientError::Unauthorized
        }
        tungstenite::Error::Http(answer) => RunnerClientError::Protocol(format!("status {}", answer.status())),
        tungstenite::Error::Io(_)
        | tungstenite::Error::ConnectionClosed
        | tungstenite::Error::AlreadyClosed
        | tungstenite::Error::Protocol(tungstenite::error::ProtocolError::ResetWithoutClosingHandshake) => {
            RunnerClientError::Unreachable(error.to_string())
        }
        other => RunnerClientError::Protocol(other.to_string()),
    }
}
