//! One WebSocket connection: one task, and no queue but that of its sends.
//!
//! It waits for whichever comes first: a frame from the client, a subscription's batch, the outcome of the oldest send, the keep-alive.
//! Writes happen at once, within a time limit; while writing, it neither reads nor pulls.

use std::{collections::VecDeque, time::Duration};

use ambient_domain::session::Session;
use ambient_live::{Batch, Beginning, End, Subscription};
use ambient_wire::{
    BASE,
    live::{ClientFrame, ServerFrame},
    permission::InterruptAnswer,
};
use axum::extract::ws::{CloseFrame, Message, WebSocket};
use futures::{
    FutureExt, SinkExt, StreamExt,
    future::{self, BoxFuture},
    stream::{self, BoxStream},
};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, timeout};
use tokio_stream::StreamMap;

use super::frames;
use crate::{
    authority::{Access, Edit, View},
    error::{ApiError, ApiResult},
    extract::{Conditions, Fingerprint, WriteOptions, of_json},
};

const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// Keep-alives without a sign of life after which the peer is considered gone.
const PATIENCE: u32 = 4;
/// Keep-alives between two checks that the caller is still allowed to look.
const RECHECK: u32 = 4;
/// A peer that does not accept a write within this time is dropped.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Sends of a connection that are waiting or in progress.
const MAX_SENDS: usize = 8;
/// Most subscription events that leave in one write: the client is heard in between.
const TOGETHER: usize = 64;
/// Longest id of a subscription or send, bytes.
const MAX_ID: usize = 255;

/// Time for a peer at fault to see why it is disconnected.
const LINGER: Duration = Duration::from_secs(1);

const GOING_AWAY: u16 = 1001;
const PROTOCOL: u16 = 1002;
const NOT_TEXT: u16 = 1007;
const POLICY: u16 = 1008;
const TOO_BIG: u16 = 1009;

/// What a subscription delivers.
enum Arrival {
    Events(Batch),
    End(Option<End>),
}

/// What a client sends to a session.
enum Sent {
    Message(String),
    /// To a request.
    Answer(String, InterruptAnswer),
}

/// Why a connection ends.
struct Closed {
    code: Option<u16>,
    reason: &'static str,
}

const GONE: Closed = Closed { code: None, reason: "" };

type Flow<T = ()> = Result<T, Closed>;

/// A connection.
pub(crate) struct Connection {
    access: Access,
    /// The only session that may be followed; none: any.
    only: Option<String>,
    socket: WebSocket,
    subscriptions: StreamMap<String, BoxStream<'static, Arrival>>,
    /// Each subscription's session, for rechecks.
    sessions: Vec<(String, String)>,
    /// The oldest first: a client that does not wait for acks means its messages to be accepted in the order it sent them.
    sends: VecDeque<BoxFuture<'static, ServerFrame>>,
    keep_alive: Interval,
    /// Keep-alives since the peer was last heard from.
    silent: u32,
    /// Keep-alives so far.
    ticks: u32,
}

impl Connection {
    /// A connection, authenticated; for one session only, or for any.
    pub(crate) fn new(socket: WebSocket, access: Access, only: Option<String>) -> Self {
        let mut keep_alive = interval_at(Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            access,
            only,
            socket,
            subscriptions: StreamMap::new(),
            sessions: Vec::new(),
            sends: VecDeque::new(),
            keep_alive,
            silent: 0,
            ticks: 0,
        }
    }

    /// Serves until either side ends it.
    pub(crate) async fn serve(mut self) {
        loop {
            if let Err(Closed { code, reason }) = self.step().await {
                if let Some(code) = code {
                    let close = Message::Close(Some(CloseFrame { code, reason: reason.into() }));
                    // It may already be gone.
                    let _ = timeout(WRITE_TIMEOUT, self.socket.send(close)).await;
                    if matches!(code, PROTOCOL | TOO_BIG | NOT_TEXT) {
                        // What it still sends is not read: if the socket were closed now it would be reset, and the close code lost on its
                        // way.
                        sleep(LINGER).await;
                    }
                }
                return;
            }
        }
    }

    /// What is seldom done is boxed: its room, kilobytes, would be kept by every connection that waits.
    async fn step(&mut self) -> Flow {
        tokio::select! {
            message = self.socket.recv() => match message {
                Some(Ok(message)) => Box::pin(self.received(message)).await,
                Some(Err(error)) => Err(fault_of(&error)),
                None => Err(GONE),
            },
            Some((id, arrival)) = self.subscriptions.next(), if !self.subscriptions.is_empty() => {
                self.arrived(id, arrival).await?;
                self.with_it().await
            }
            frame = oldest_done(&mut self.sends) => self.say(&frame).await,
            _ = self.keep_alive.tick() => Box::pin(self.stay_alive()).await,
        }
    }

    /// What other subscriptions have ready leaves in the same write.
    async fn with_it(&mut self) -> Flow {
        for _ in 0..TOGETHER {
            let Some(Some((id, arrival))) = self.subscriptions.next().now_or_never() else { break };
            self.arrived(id, arrival).await?;
        }
        write(self.socket.flush()).await
    }

    async fn received(&mut self, message: Message) -> Flow {
        self.silent = 0;
        let text = match message {
            Message::Text(text) => text,
            Message::Binary(_) => return self.say(&frames::error(None, "bad_frame", "frames are JSON text")).await,
            Message::Close(_) => {
                // Sends the answer to it, which has already been queued.
                write(self.socket.flush()).await?;
                return Err(GONE);
            }
            Message::Ping(_) | Message::Pong(_) => return Ok(()),
        };
        match serde_json::from_str(text.as_str()) {
            Ok(frame) => self.asked(frame).await,
            Err(error) => {
                self.say(&frames::error(None, "bad_frame", format!("in the frame: {}", of_json(&error)))).await
            }
        }
    }

    async fn asked(&mut self, frame: ClientFrame) -> Flow {
        match frame {
            ClientFrame::Ping {} => self.say(&ServerFrame::Pong {}).await,
            ClientFrame::Unsubscribe { id } => {
                self.forget(&id);
                Ok(())
            }
            ClientFrame::Subscribe { id, channel, after_seq } => match self.subscribe(&id, &channel, after_seq).await {
                Ok((snapshot, subscribed)) => {
                    // First, so that a client told where to continue has it.
                    if let Some(snapshot) = snapshot {
                        write(self.socket.send(Message::text(snapshot))).await?;
                    }
                    self.say(&subscribed).await
                }
                Err(refused) => self.say(&refused).await,
            },
            ClientFrame::Send { id, session, text } => self.send(id, session, Sent::Message(text)).await,
            ClientFrame::Answer { id, session, interrupt_id, answer, message } => {
                self.send(id, session, Sent::Answer(interrupt_id, InterruptAnswer { answer, message })).await
            }
        }
    }

    /// Starts a subscription; returns the frames to answer with, or the refusal.
    async fn subscribe(
        &mut self,
        id: &str,
        channel: &str,
        after_seq: Option<i64>,
    ) -> Result<(Option<String>, ServerFrame), Box<ServerFrame>> {
        let refuse = |code: &str, reason: &str| Err(Box::new(frames::error(Some(id.to_owned()), code, reason)));
        let Some(session_id) = channel.strip_prefix("session:") else {
            return refuse("not_found", "no such channel; use session:<id>");
        };
        if id.len() > MAX_ID || after_seq.is_some_and(|seq| seq < 0) {
            return refuse("bad_frame", "id must have at most 255 bytes, after_seq must be 0 or more");
        }
        if self.subscriptions.contains_key(id) {
            return refuse("bad_frame", "this id is in use");
        }
        if self.subscriptions.len() >= self.access.state().config().max_subscriptions {
            return refuse("busy", "too many subscriptions on this connection");
        }
        if let Err(reason) = self.may_use(session_id) {
            return refuse("refused", reason);
        }
        let session = self.access.authorize::<Session, View>(session_id).await;
        let session = session.map_err(|error| Box::new(frames::failure(id.to_owned(), &error)))?;
        let begun =
            session.follow(after_seq).await.map_err(|error| Box::new(frames::not_subscribed(id.to_owned(), error)))?;
        let Beginning { snapshot, subscription } = begun;
        let seq = subscription.cursor();
        self.subscriptions.insert(id.to_owned(), arrivals(subscription));
        self.sessions.push((id.to_owned(), session_id.to_owned()));
        let snapshot = snapshot.map(|snapshot| frames::snapshot(id, &snapshot));
        Ok((snapshot, ServerFrame::Subscribed { id: id.to_owned(), seq }))
    }

    fn may_use(&self, session_id: &str) -> Result<(), &'static str> {
        match &self.only {
            Some(only) if only != session_id => Err("this connection is for one session only; use /live for several"),
            _ => Ok(()),
        }
    }

    async fn send(&mut self, id: String, session_id: String, what: Sent) -> Flow {
        match self.accept(id, session_id, what) {
            Ok(()) => Ok(()),
            Err(refused) => self.say(&refused).await,
        }
    }

    /// Begins a send; reports the outcome once it is known.
    fn accept(&mut self, id: String, session_id: String, what: Sent) -> Result<(), Box<ServerFrame>> {
        let refuse = |code: &str, reason: &str| Err(Box::new(frames::error(Some(id.clone()), code, reason)));
        if !(1..=MAX_ID).contains(&id.len()) || !id.bytes().all(|b| b.is_ascii_graphic()) {
            return refuse("bad_frame", "id must be 1 to 255 visible ASCII characters");
        }
        if self.sends.len() >= MAX_SENDS {
            return refuse("busy", "too many sends in progress");
        }
        if let Err(reason) = self.may_use(&session_id) {
            return refuse("refused", reason);
        }
        let access = self.access.clone();
        let sent = async move {
            match what.accepted(&access, &session_id, &id).await {
                Ok(message_id) => ServerFrame::Ack { id, message_id },
                Err(error) => frames::not_sent(id, &error),
            }
        };
        self.sends.push_back(sent.boxed());
        Ok(())
    }

    async fn arrived(&mut self, id: String, arrival: Arrival) -> Flow {
        let end = match arrival {
            Arrival::Events(batch) => return self.feed(&id, &batch).await,
            Arrival::End(end) => end,
        };
        self.forget(&id);
        match end {
            Some(End::Deleted) => self.say(&ServerFrame::Ended { id, reason: "deleted".to_owned() }).await,
            Some(End::TooOld { oldest, covers_seq }) => self.say(&frames::too_old(id, oldest, covers_seq)).await,
            Some(End::Closed) | None => Err(Closed { code: Some(GOING_AWAY), reason: "the server is shutting down" }),
        }
    }

    /// A batch; it leaves with the next flush, or when the socket's buffer is full.
    async fn feed(&mut self, id: &str, batch: &Batch) -> Flow {
        let frames = frames::EventFrames::of(id);
        for event in &batch.events {
            write(self.socket.feed(Message::text(frames.text(event)))).await?;
        }
        Ok(())
    }

    async fn say(&mut self, frame: &ServerFrame) -> Flow {
        write(self.socket.send(Message::text(frames::text(frame)))).await
    }

    async fn stay_alive(&mut self) -> Flow {
        self.silent += 1;
        self.ticks += 1;
        if self.silent > PATIENCE {
            return Err(Closed { code: Some(POLICY), reason: "silent for a minute" });
        }
        if self.ticks.is_multiple_of(RECHECK) {
            self.recheck().await?;
        }
        write(self.socket.feed(Message::Ping(axum::body::Bytes::new()))).await?;
        self.say(&ServerFrame::Pong {}).await
    }

    /// Roles may be revoked, and a run's token ends with the run. A deleted session ends its subscription by itself.
    async fn recheck(&mut self) -> Flow {
        if self.access.recheck().await.is_err_and(|error| error.number() == crate::error::Number::Unauthenticated) {
            return Err(Closed { code: Some(POLICY), reason: "the credentials are no longer valid" });
        }
        for (id, session_id) in self.sessions.clone() {
            let looked = self.access.authorize::<Session, View>(&session_id).await;
            if let Err(error) = looked.map(drop)
                && error.number() == crate::error::Number::NotFound
                && self.access.is_there(&session_id).await
            {
                self.forget(&id);
                self.say(&frames::failure(id, &error)).await?;
            }
        }
        Ok(())
    }

    fn forget(&mut self, id: &str) {
        self.subscriptions.remove(id);
        self.sessions.retain(|(subscription, _)| subscription != id);
    }
}

/// Why no more can be read.
fn fault_of(error: &axum::Error) -> Closed {
    use tokio_tungstenite::tungstenite::{Error, error::ProtocolError::ResetWithoutClosingHandshake};
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<Error>());
    match cause {
        Some(Error::Capacity(_)) => Closed { code: Some(TOO_BIG), reason: "the message is too big" },
        Some(Error::Utf8(_)) => Closed { code: Some(NOT_TEXT), reason: "the text is not UTF-8" },
        Some(Error::Protocol(ResetWithoutClosingHandshake)) => GONE,
        Some(Error::Protocol(_)) => Closed { code: Some(PROTOCOL), reason: "WebSocket protocol error" },
        _ => GONE,
    }
}

fn arrivals(subscription: Subscription) -> BoxStream<'static, Arrival> {
    let next = |state: Option<Subscription>| async move {
        let mut subscription = state?;
        match subscription.next().await {
            Some(batch) => Some((Arrival::Events(batch), Some(subscription))),
            None => Some((Arrival::End(subscription.end()), None)),
        }
    };
    stream::unfold(Some(subscription), next).boxed()
}

/// The outcome of the oldest send; the next begins only after it. If this is dropped, the send goes on where it was.
async fn oldest_done(sends: &mut VecDeque<BoxFuture<'static, ServerFrame>>) -> ServerFrame {
    let Some(oldest) = sends.front_mut() else { return future::pending().await };
    let frame = oldest.await;
    sends.pop_front();
    frame
}

impl Sent {
    /// Has it accepted; returns the id of its message, if it has one.
    async fn accepted(self, access: &Access, session_id: &str, key: &str) -> ApiResult<Option<String>> {
        let session = access.authorize::<Session, Edit>(session_id).await?;
        let path = format!("{BASE}/sessions/{session_id}/ws");
        let body = match &self {
            Self::Message(text) => text.clone().into_bytes(),
            Self::Answer(id, answer) => {
                serde_json::to_vec(&(id, answer)).map_err(|error| ApiError::internal(&error))?
            }
        };
        let fingerprint = Fingerprint::of(&axum::http::Method::POST, &path, None, &body);
        let conditions = Conditions { if_match: None, idempotency_key: Some(key.to_owned()) };
        let options = WriteOptions { conditions: &conditions, fingerprint: &fingerprint };
        match self {
            Self::Message(text) => Ok(Some(session.send(text, Vec::new(), false, options).await?.message_id)),
            Self::Answer(id, answer) => {
                let has_message = answer.message.is_some();
                // The message's id is that of the operation that accepted both.
                Ok(session.answer(&id, answer, options).await?.operation_id.filter(|_| has_message))
            }
        }
    }
}

/// Writes within the time limit; a peer that cannot be written to is considered gone.
async fn write(writing: impl Future<Output = Result<(), axum::Error>>) -> Flow {
    match timeout(WRITE_TIMEOUT, writing).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(GONE),
    }
}
