//! Follows a session's live log over WebSocket: every event exactly once and in order, across lost connections.
//!
//! The cursor is the seq of the last event that was handed out. A connection resumes after it; an event at or before it
//! is dropped, and one that would leave a gap counts as a lost connection. A reader that starts without a cursor may first get the
//! messages so far in one piece, in place of the events up to the seq they cover.

mod channel;
pub(crate) mod render;

use std::time::{Duration, Instant};

use ambient_wire::live::{Event, ServerFrame};
use futures::{FutureExt, future::BoxFuture};
use serde_json::Value;
use tokio::time::sleep_until;

use self::channel::{Channel, Failure};
use crate::{
    client::{Client, retry::Backoff},
    error::CliError,
    exit::Exit,
    output::{Style, escape},
};

/// How long to keep trying to resume a lost connection by default.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

/// A connection that lasted this long was a good one, even if no event arrived.
const STABLE: Duration = Duration::from_secs(5);

/// What following yields.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Step {
    /// The messages so far.
    Snapshot(Snapshot),
    /// The next event.
    Event(Event),
    /// The channel has ended for good.
    Ended(String),
}

/// Messages that replace the events up to a seq.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Snapshot {
    /// The next event is the one after this.
    pub(crate) covers_seq: i64,
    /// The AG-UI event `MESSAGES_SNAPSHOT`.
    pub(crate) data: Value,
}

/// The way to the server. What was begun goes on when waiting for it was given up.
enum Connection {
    /// None before then.
    Due(tokio::time::Instant),
    Opening(BoxFuture<'static, Result<Channel, Failure>>),
    Open(Box<Channel>),
}

/// A reader of a session's live log.
pub(crate) struct Follower {
    client: Client,
    session: String,
    /// Last event handed out; unknown until the server has said where it starts.
    cursor: Option<i64>,
    connection: Connection,
    backoff: Backoff,
    /// When the current connection was subscribed.
    subscribed_at: Option<Instant>,
    /// Whether there has been a connection: failures before the first mean the server cannot be reached.
    connected_once: bool,
    /// Whether a reported loss has not been followed by a reconnection yet.
    told_lost: bool,
}

impl Follower {
    /// Follows after `after_seq`; without it, starts with the messages so far.
    pub(crate) fn new(client: &Client, session: &str, after_seq: Option<i64>, patience: Duration) -> Self {
        Self {
            client: client.clone(),
            session: session.to_owned(),
            cursor: after_seq,
            connection: Connection::Due(tokio::time::Instant::now()),
            backoff: Backoff::new(patience),
            subscribed_at: None,
            connected_once: false,
            told_lost: false,
        }
    }

    /// The next event. Cancel-safe (`select!`): nothing is lost, and what was begun is not begun anew.
    pub(crate) async fn next(&mut self) -> Result<Step, CliError> {
        loop {
            let result = match &mut self.connection {
                Connection::Open(channel) => channel.next().await,
                Connection::Opening(opening) => match opening.await {
                    Ok(channel) => {
                        (self.connection, self.connected_once) = (Connection::Open(Box::new(channel)), true);
                        Ok(None)
                    }
                    Err(failure) => Err(failure),
                },
                Connection::Due(at) => {
                    sleep_until(*at).await;
                    self.connection = Connection::Opening(self.open());
                    continue;
                }
            };
            match result {
                Ok(Some(frame)) => match self.accept(frame) {
                    Ok(Some(step)) => return Ok(step),
                    Ok(None) => {}
                    Err(failure) => self.failed(failure)?,
                },
                Ok(None) => {}
                Err(failure) => self.failed(failure)?,
            }
        }
    }

    fn open(&self) -> BoxFuture<'static, Result<Channel, Failure>> {
        let (client, session, cursor) = (self.client.clone(), self.session.clone(), self.cursor);
        async move { Channel::open(&client, &session, cursor).await }.boxed()
    }

    /// Handles a frame: an event to hand out, nothing, or a failed connection.
    fn accept(&mut self, frame: ServerFrame) -> Result<Option<Step>, Failure> {
        match frame {
            // A snapshot that covers less than what was handed out says nothing new.
            ServerFrame::Snapshot { covers_seq, data, .. } if self.cursor.is_none_or(|cursor| cursor < covers_seq) => {
                self.cursor = Some(covers_seq);
                Ok(Some(Step::Snapshot(Snapshot { covers_seq, data })))
            }
            ServerFrame::Subscribed { seq, .. } => {
                self.subscribed(seq);
                Ok(None)
            }
            ServerFrame::Event { event, .. } => match self.cursor {
                Some(cursor) if event.seq <= cursor => Ok(None),
                Some(cursor) if event.seq > cursor + 1 => {
                    Err(Failure::Lost(format!("seq {} came after {cursor}", event.seq)))
                }
                _ => {
                    self.cursor = Some(event.seq);
                    self.backoff.succeeded();
                    Ok(Some(Step::Event(event)))
                }
            },
            ServerFrame::Ended { reason, .. } => Ok(Some(Step::Ended(reason))),
            ServerFrame::Error { code, reason, covers_seq, .. } => {
                self.refused(&code, reason, covers_seq).map(|()| None)
            }
            ServerFrame::Snapshot { .. } | ServerFrame::Ack { .. } | ServerFrame::Pong {} => Ok(None),
        }
    }

    fn subscribed(&mut self, seq: i64) {
        if std::mem::take(&mut self.told_lost) {
            self.client.console().progress(Style::Dim, "connection is back");
        }
        self.subscribed_at = Some(Instant::now());
        self.cursor.get_or_insert(seq);
    }

    fn refused(&mut self, code: &str, reason: String, covers_seq: Option<i64>) -> Result<(), Failure> {
        match code {
            "too_old" if self.cursor.is_some() => {
                let seq = self.cursor.take().unwrap_or_default();
                let reason = escape::line(&reason).into_owned();
                let goes_on = covers_seq.map_or_else(
                    || "what is left".to_owned(),
                    |covers| format!("the messages up to seq {covers}, and then what is left"),
                );
                self.client
                    .console()
                    .warn(&format!("events after seq {seq} are no longer kept ({reason}); continuing with {goes_on}"));
                self.connection = Connection::Due(tokio::time::Instant::now());
                Ok(())
            }
            "busy" => Err(Failure::Lost(reason)),
            "not_found" => Err(Failure::Final(CliError::refused(Exit::NotFound, reason))),
            "bad_frame" => Err(Failure::Final(CliError::refused(Exit::Rejected, reason))),
            _ => Err(Failure::Final(CliError::refused(Exit::Failure, reason))),
        }
    }

    /// Says when to reconnect.
    fn failed(&mut self, failure: Failure) -> Result<(), CliError> {
        self.connection = Connection::Due(tokio::time::Instant::now());
        let cause = match failure {
            Failure::Final(error) => return Err(error),
            Failure::Lost(cause) => cause,
        };
        // A connection that never lasts must not be retried forever.
        if self.subscribed_at.take().is_some_and(|at| at.elapsed() >= STABLE) {
            self.backoff.succeeded();
        }
        let Some(delay) = self.backoff.failed(None) else {
            return Err(self.given_up(cause));
        };
        if !std::mem::replace(&mut self.told_lost, true) {
            self.say_lost(&cause);
        }
        self.connection = Connection::Due(tokio::time::Instant::now() + delay);
        Ok(())
    }

    fn given_up(&self, cause: String) -> CliError {
        match self.cursor {
            Some(after_seq) if self.connected_once => {
                CliError::Lost { after_seq, seconds: self.backoff.patience().as_secs(), cause }
            }
            _ => CliError::Unreachable { url: self.client.server(), cause, sent: false },
        }
    }

    fn say_lost(&self, cause: &str) {
        let seq = self.cursor.unwrap_or_default();
        let line = if self.connected_once {
            format!("connection lost; resuming after seq {seq} … ({cause})")
        } else {
            format!("cannot follow yet; trying again … ({cause})")
        };
        self.client.console().progress(Style::Yellow, &line);
    }
}

#[cfg(test)]
mod tests;
