//! One connection of the live channel.

use std::time::Duration;

use ambient_wire::live::{ClientFrame, SUBPROTOCOL, ServerFrame};
use futures::{SinkExt, StreamExt};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{
        self, Message,
        client::IntoClientRequest,
        handshake::client::{Request, Response},
        http::header::{AUTHORIZATION, HeaderValue, SEC_WEBSOCKET_PROTOCOL},
    },
};

use crate::{
    client::{Client, answer, route::Route},
    error::CliError,
};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The server sends something at least every 15 s.
const SILENCE_TIMEOUT: Duration = Duration::from_secs(45);
const SUBSCRIPTION: &str = "1";

/// Why a connection is no longer usable.
#[derive(Debug)]
pub(super) enum Failure {
    /// Another may work; the cause in words.
    Lost(String),
    /// No other will work either.
    Final(CliError),
}

/// An open connection whose subscription has been requested.
pub(super) struct Channel {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    /// When something was last heard.
    heard_at: Instant,
}

impl Channel {
    pub(super) async fn open(client: &Client, session: &str, after_seq: Option<i64>) -> Result<Self, Failure> {
        let request = request(client, session).map_err(Failure::Final)?;
        let opened = timeout(CONNECT_TIMEOUT, connect_async(request)).await;
        let (stream, _) = opened.map_err(|_| Failure::Lost("no response in time".to_owned()))?.map_err(failure)?;
        let mut channel = Self { stream, heard_at: Instant::now() };
        let channel_name = format!("session:{session}");
        let subscribe = ClientFrame::Subscribe { id: SUBSCRIPTION.to_owned(), channel: channel_name, after_seq };
        channel.send(&subscribe).await?;
        Ok(channel)
    }

    async fn send(&mut self, frame: &ClientFrame) -> Result<(), Failure> {
        let text = serde_json::to_string(frame).map_err(|error| protocol(error.to_string()))?;
        let sent = timeout(CONNECT_TIMEOUT, self.stream.send(Message::text(text))).await;
        sent.map_err(|_| Failure::Lost("the server is not reading".to_owned()))?.map_err(failure)
    }

    /// The next frame; nothing for a keep-alive. Cancel-safe: silence counts on.
    pub(super) async fn next(&mut self) -> Result<Option<ServerFrame>, Failure> {
        let next = timeout_at(self.heard_at + SILENCE_TIMEOUT, self.stream.next()).await;
        let next = next.map_err(|_| Failure::Lost("nothing was heard for 45 s".to_owned()))?;
        self.heard_at = Instant::now();
        match next {
            None => Err(Failure::Lost("the server closed it".to_owned())),
            Some(Err(error)) => Err(failure(error)),
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text)
                .map(Some)
                .map_err(|error| protocol(format!("a frame of the live channel: {error}"))),
            Some(Ok(Message::Close(frame))) => {
                let reason = frame.map(|frame| frame.reason.to_string()).filter(|reason| !reason.is_empty());
                Err(Failure::Lost(reason.unwrap_or_else(|| "the server closed it".to_owned())))
            }
            Some(Ok(_)) => Ok(None),
        }
    }
}

fn protocol(problem: String) -> Failure {
    Failure::Final(CliError::Protocol(problem))
}

fn request(client: &Client, session: &str) -> Result<Request, CliError> {
    let (url, authorization) = client.channel(&Route::new(["sessions", session, "ws"]))?;
    let mut request = url.as_str().into_client_request().map_err(|error| CliError::Protocol(error.to_string()))?;
    request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    if let Some(authorization) = authorization {
        request.headers_mut().insert(AUTHORIZATION, authorization);
    }
    Ok(request)
}

fn failure(error: tungstenite::Error) -> Failure {
    match error {
        tungstenite::Error::Http(response) => refused(&response),
        tungstenite::Error::Url(_) | tungstenite::Error::HttpFormat(_) | tungstenite::Error::Capacity(_) => {
            protocol(error.to_string())
        }
        tungstenite::Error::Io(error) => Failure::Lost(error.to_string()),
        other => Failure::Lost(other.to_string()),
    }
}

/// A handshake that was answered with something else: a refusal is final, a server that is not ready is not.
fn refused(response: &Response) -> Failure {
    let status = response.status().as_u16();
    let header = response.headers().get("x-operation-id").and_then(|value| value.to_str().ok());
    let operation_id = header.unwrap_or_default().to_owned();
    let error = answer::refusal_of(status, response.body().as_deref().unwrap_or_default(), operation_id);
    match status {
        429 | 502..=504 => Failure::Lost(error.to_string()),
        _ => Failure::Final(error),
    }
}
