//! Live channels over WebSocket.

use std::time::Duration;

use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Message, client::IntoClientRequest},
};

use super::{PATIENCE, Server};

/// One subscription of a session on one connection.
pub(crate) struct Channel {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

impl Channel {
    /// Subscribes to what comes after `after_seq`.
    pub(crate) async fn open(server: &Server, id: &str, after_seq: i64) -> Option<Self> {
        Self::connect(&server.address(), &server.token(), id, after_seq).await
    }

    async fn connect(address: &str, token: &str, id: &str, after_seq: i64) -> Option<Self> {
        let url = format!("ws://{address}/api/ambient/v1/live");
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request.headers_mut().insert("sec-websocket-protocol", "ambient.v1".parse().unwrap());
        let (socket, _) = timeout(Duration::from_secs(10), connect_async(request)).await.ok()?.ok()?;
        let mut channel = Self { socket };
        let subscribe =
            json!({"op": "subscribe", "id": "s", "channel": format!("session:{id}"), "after_seq": after_seq});
        channel.socket.send(Message::text(subscribe.to_string())).await.ok()?;
        Some(channel)
    }

    /// Next frame that is not a keep-alive; none when the connection is lost.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        loop {
            let message = timeout(PATIENCE, self.socket.next()).await.expect("no frame in time")?.ok()?;
            let Message::Text(text) = message else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["op"] != "pong" && frame["op"] != "subscribed" {
                return Some(frame);
            }
        }
    }
}

/// A client that follows a session until it is over, and comes back where it was after every loss of its connection.
pub(crate) struct Follower {
    task: tokio::task::JoinHandle<Vec<Value>>,
}

impl Follower {
    pub(crate) fn start(server: &Server, id: &str) -> Self {
        let (address, token, id) = (server.address(), server.token(), id.to_owned());
        let task = tokio::spawn(async move {
            let mut seen: Vec<Value> = Vec::new();
            let last = |seen: &[Value]| seen.last().map_or(0, |event: &Value| event["seq"].as_i64().unwrap());
            loop {
                let channel = Channel::connect(&address, &token, &id, last(&seen)).await;
                let Some(mut channel) = channel else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                };
                while let Some(frame) = channel.next().await {
                    if frame["op"] != "event" {
                        break;
                    }
                    let over = frame["type"] == "session.phase"
                        && ["Completed", "Failed", "Stopped"].iter().any(|phase| frame["data"]["phase"] == *phase);
                    seen.push(frame);
                    if over {
                        return seen;
                    }
                }
            }
        });
        Self { task }
    }

    /// Everything that was seen, in the order it was seen.
    pub(crate) async fn finish(self) -> Vec<Value> {
        timeout(PATIENCE, self.task).await.expect("the follower did not see the end").unwrap()
    }
}
