//! The one reader of the log: a WebSocket with a cursor, an epoch, and acknowledgements.

use std::{sync::Mutex, time::Duration};

use ambient_runner_protocol::{ReaderAck, ReaderHello, RunnerFrame};
use axum::extract::ws::{Message, WebSocket};
use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tokio::{sync::watch, time::timeout};

use crate::log::EventLog;

/// Most records per frame.
const MAX_RECORDS: usize = 256;
/// Timeout for a reader's hello.
const HELLO_PATIENCE: Duration = Duration::from_secs(10);
/// Timeout for a reader to take a frame.
const SEND_PATIENCE: Duration = Duration::from_secs(30);

/// Which connection is reading, and how far it has stored.
pub(crate) struct Readers {
    current: watch::Sender<Current>,
    acked: watch::Sender<i64>,
    /// Serialises the decision which connection is current.
    admission: Mutex<()>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Current {
    epoch: i64,
    connection: u64,
}

impl Readers {
    pub(crate) fn new() -> Self {
        Self { current: watch::Sender::default(), acked: watch::Sender::default(), admission: Mutex::default() }
    }

    /// Makes a new connection the current one, or returns the higher epoch that exists.
    fn admit(&self, epoch: i64) -> Result<u64, i64> {
        let _one = self.admission.lock();
        let current = *self.current.borrow();
        if epoch < current.epoch {
            return Err(current.epoch);
        }
        let connection = current.connection + 1;
        self.current.send_replace(Current { epoch, connection });
        Ok(connection)
    }

    /// Waits until the reader has stored everything up to `n`, or the time is up.
    pub(crate) async fn acknowledged(&self, n: i64, patience: Duration) -> bool {
        let mut acked = self.acked.subscribe();
        timeout(patience, acked.wait_for(|acked| *acked >= n)).await.is_ok_and(|waited| waited.is_ok())
    }
}

/// Serves one connection until it ends or another one replaces it.
pub(crate) async fn serve(readers: &Readers, log: &EventLog, log_id: &str, socket: WebSocket) {
    let (mut sink, mut stream) = socket.split();
    let Ok(Some(hello)) = timeout(HELLO_PATIENCE, hello(&mut stream)).await else { return };
    let connection = match readers.admit(hello.epoch) {
        Ok(connection) => connection,
        Err(epoch) => {
            let _ = send(&mut sink, &RunnerFrame::Superseded { epoch }).await;
            let _ = timeout(SEND_PATIENCE, sink.close()).await;
            return;
        }
    };
    let after = if hello.log_id == log_id { hello.after.max(0) } else { 0 };
    tokio::select! {
        () = deliver((readers, log, log_id), &mut sink, connection, after) => {}
        () = acknowledge(readers, log, &mut stream, connection) => {}
    }
    let _ = timeout(SEND_PATIENCE, sink.close()).await;
}

async fn hello(stream: &mut SplitStream<WebSocket>) -> Option<ReaderHello> {
    loop {
        match stream.next().await? {
            Ok(Message::Text(text)) => return serde_json::from_str(text.as_str()).ok(),
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            _ => return None,
        }
    }
}

async fn deliver(
    (readers, log, log_id): (&Readers, &EventLog, &str),
    sink: &mut SplitSink<WebSocket, Message>,
    connection: u64,
    after: i64,
) {
    let mut last = log.last();
    let mut current = readers.current.subscribe();
    let welcome = RunnerFrame::Welcome { log_id: log_id.to_owned(), last: *last.borrow() };
    if send(sink, &welcome).await.is_err() {
        return;
    }
    let mut cursor = after;
    loop {
        let now = *current.borrow_and_update();
        if now.connection != connection {
            let _ = send(sink, &RunnerFrame::Superseded { epoch: now.epoch }).await;
            return;
        }
        if *last.borrow_and_update() > cursor {
            match records(log, sink, cursor).await {
                Some(n) => cursor = n,
                None => return,
            }
            continue;
        }
        tokio::select! {
            changed = last.changed() => if changed.is_err() { return },
            changed = current.changed() => if changed.is_err() { return },
        }
    }
}

/// Sends the next records; returns the number of the last one.
async fn records(log: &EventLog, sink: &mut SplitSink<WebSocket, Message>, cursor: i64) -> Option<i64> {
    let log = log.clone();
    let read = tokio::task::spawn_blocking(move || log.read(cursor, MAX_RECORDS)).await.ok()?;
    let records = read.inspect_err(|error| tracing::error!(%error, "cannot read the event log")).ok()?;
    let n = records.last()?.n;
    send(sink, &RunnerFrame::Records { records }).await.ok()?;
    Some(n)
}

async fn acknowledge(readers: &Readers, log: &EventLog, stream: &mut SplitStream<WebSocket>, connection: u64) {
    while let Some(Ok(message)) = stream.next().await {
        let Message::Text(text) = message else { continue };
        let Ok(ack) = serde_json::from_str::<ReaderAck>(text.as_str()) else { return };
        let current = readers.current.borrow().connection == connection;
        if current && ack.n <= *log.last().borrow() {
            readers.acked.send_if_modified(|acked| {
                let further = ack.n > *acked;
                *acked = ack.n.max(*acked);
                further
            });
        }
    }
}

async fn send(sink: &mut SplitSink<WebSocket, Message>, frame: &RunnerFrame) -> Result<(), ()> {
    let text = serde_json::to_string(frame).map_err(|_| ())?;
    match timeout(SEND_PATIENCE, sink.send(Message::Text(text.into()))).await {
        Ok(Ok(())) => Ok(()),
        _ => Err(()),
    }
}
