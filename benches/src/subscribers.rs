//! Subscribers over real sockets, which record when each event arrived.

use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt, TryStreamExt, stream};
use tokio::{net::TcpStream, sync::watch, task::JoinSet, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

use crate::Failure;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const PATIENCE: Duration = Duration::from_secs(30);
const EVENT: &str = "{\"op\":\"event\"";

/// Connects, says `first`, and waits for the answer.
pub(crate) async fn connect(url: &str, token: Option<&str>, first: String) -> Result<Socket, Failure> {
    connect_with(url, token, first, WebSocketConfig::default()).await
}

/// The same with small buffers, for many that only wait.
pub(crate) async fn connect_small(url: &str, token: Option<&str>, first: String) -> Result<Socket, Failure> {
    let config = WebSocketConfig::default().read_buffer_size(1_024).write_buffer_size(0);
    connect_with(url, token, first, config).await
}

async fn connect_with(
    url: &str,
    token: Option<&str>,
    first: String,
    config: WebSocketConfig,
) -> Result<Socket, Failure> {
    let mut request = url.into_client_request()?;
    if let Some(token) = token {
        request.headers_mut().insert("authorization", format!("Bearer {token}").parse()?);
        request.headers_mut().insert("sec-websocket-protocol", ambient_wire::live::SUBPROTOCOL.parse()?);
    }
    let (mut socket, _) = timeout(PATIENCE, connect_async_with_config(request, Some(config), false)).await??;
    socket.send(Message::text(first)).await?;
    match timeout(PATIENCE, socket.next()).await?.ok_or("the connection was closed")?? {
        Message::Text(text) if text.as_str().contains("subscribed") || text.as_str().contains("pong") => Ok(socket),
        other => Err(format!("not subscribed: {other}").into()),
    }
}

/// The next event as text.
pub(crate) async fn next_event(socket: &mut Socket) -> Result<String, Failure> {
    loop {
        match timeout(PATIENCE, socket.next()).await?.ok_or("the connection was closed")?? {
            Message::Text(text) if text.as_str().starts_with(EVENT) => return Ok(text.as_str().to_owned()),
            _ => {}
        }
    }
}

/// Connected subscribers in groups; every one counts what it gets.
pub(crate) struct Subscribers {
    tasks: JoinSet<Result<(usize, Vec<Instant>), Failure>>,
    enough: watch::Sender<usize>,
}

impl Subscribers {
    /// `each` subscribers of each of `groups`; `open` connects one.
    pub(crate) async fn open<F>(groups: usize, each: usize, open: impl Fn(usize) -> F) -> Result<Self, Failure>
    where
        F: Future<Output = Result<Socket, Failure>>,
    {
        let connecting = (0..groups * each).map(|n| {
            let connecting = open(n % groups);
            async move { Ok::<_, Failure>((n % groups, connecting.await?)) }
        });
        let sockets: Vec<_> = stream::iter(connecting).buffer_unordered(32).try_collect().await?;
        let (enough, told) = watch::channel(usize::MAX);
        let mut tasks = JoinSet::new();
        for (group, socket) in sockets {
            let told = told.clone();
            tasks.spawn(async move { Ok((group, collect(socket, told).await?)) });
        }
        Ok(Self { tasks, enough })
    }

    /// Group and times of every subscriber, when each has `events` of them.
    pub(crate) async fn finish(mut self, events: usize) -> Result<Vec<(usize, Vec<Instant>)>, Failure> {
        self.enough.send_replace(events);
        let mut all = Vec::with_capacity(self.tasks.len());
        while let Some(arrivals) = timeout(PATIENCE, self.tasks.join_next()).await? {
            all.push(arrivals??);
        }
        Ok(all)
    }
}

/// Notes arrivals until there are enough.
async fn collect(mut socket: Socket, mut enough: watch::Receiver<usize>) -> Result<Vec<Instant>, Failure> {
    let mut arrivals = Vec::new();
    while arrivals.len() < *enough.borrow_and_update() {
        tokio::select! {
            message = socket.next() => match message.ok_or("the connection was closed")?? {
                Message::Text(text) if text.as_str().starts_with(EVENT) => arrivals.push(Instant::now()),
                _ => {}
            },
            changed = enough.changed() => changed?,
        }
    }
    Ok(arrivals)
}
