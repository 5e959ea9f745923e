//! Wake-ups between parts and processes. A hint is never the truth: whoever gets one reads the rows.
//!
//! Within this process a hint is delivered at once; to other processes by NOTIFY, from one connection per process, after the
//! commit, coalesced, below 8 kB. A lost connection or a receiver that fell behind shows up as [`Hint::Resync`]: re-read
//! whatever you wait for. Receivers also re-read at a slow interval of their own.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use sqlx::{
    Connection, PgConnection,
    postgres::{PgConnectOptions, PgListener, PgPoolOptions},
};
use tokio::{
    sync::{Notify, broadcast},
    task::JoinHandle,
};

use crate::{database::Database, ids::new_id};

const CHANNEL: &str = "ambient_hints";
/// NOTIFY takes 8000 bytes; the sender's id and a margin are subtracted.
const MAX_PAYLOAD: usize = 7_500;
/// Hints waiting for the notifier; any more become one Resync.
const MAX_PENDING: usize = 4_096;
/// Hints a receiver may lag behind.
const BUFFER: usize = 1_024;
const RECONNECT_PAUSE: Duration = Duration::from_millis(500);
const ALIVE_CHECK: Duration = Duration::from_secs(10);
const WAIT: Duration = Duration::from_secs(5);

/// What may have changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Hint {
    /// The live log of this session, or the session itself.
    Live(String),
    /// The live log of this session: what its runner has recorded. It is no news to whoever reads that.
    Recorded(String),
    /// The outbox.
    Outbox,
    /// What the sessions of this project have used of models.
    Usage(String),
    /// Projects or agents, whose rules hold for the sessions below them.
    Owners,
    /// Anything: hints were lost.
    Resync,
}

/// Publishes and receives hints. Clones share one hub.
#[derive(Debug, Clone)]
pub struct Hints {
    hub: Arc<Hub>,
}

#[derive(Debug)]
struct Hub {
    /// Identifies this process's own notifications, which it has already delivered.
    process: String,
    sender: broadcast::Sender<Hint>,
    pending: Mutex<HashSet<Hint>>,
    wake: Notify,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

impl Drop for Hub {
    fn drop(&mut self) {
        let tasks = self.tasks.get_mut().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Receives hints.
#[derive(Debug)]
pub struct HintReceiver {
    receiver: broadcast::Receiver<Hint>,
    closed: bool,
}

impl HintReceiver {
    /// The next hint. A receiver that fell behind gets [`Hint::Resync`]. None once the hub has ended.
    pub async fn recv(&mut self) -> Option<Hint> {
        if self.closed {
            return None;
        }
        match self.receiver.recv().await {
            Ok(hint) => Some(hint),
            Err(broadcast::error::RecvError::Lagged(_)) => {
                // What is still buffered is covered by the resync.
                self.receiver = self.receiver.resubscribe();
                Some(Hint::Resync)
            }
            Err(broadcast::error::RecvError::Closed) => {
                self.closed = true;
                None
            }
        }
    }
}

impl Hints {
    /// Hints within this process only: for tests, and for tools that write nothing.
    #[must_use]
    pub fn local() -> Self {
        let hub = Hub {
            process: new_id(),
            sender: broadcast::channel(BUFFER).0,
            pending: Mutex::default(),
            wake: Notify::new(),
            tasks: Mutex::default(),
        };
        Self { hub: Arc::new(hub) }
    }

    /// Hints from all processes on this database. Two connections outside the pool are kept: one notifies, one listens; both
    /// are restored if lost. Must be called in a tokio runtime. The tasks end with the last clone or with [`Hints::stop`].
    #[must_use]
    pub fn start(db: &Database) -> Self {
        let hints = Self::local();
        let options = db.connect_options().clone();
        let weak = Arc::downgrade(&hints.hub);
        let notifier = tokio::spawn(notify(weak.clone(), options.clone().application_name("ambient-notifier")));
        let listener = tokio::spawn(listen(weak, options.application_name("ambient-listener")));
        let mut tasks = hints.hub.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.extend([notifier, listener]);
        drop(tasks);
        hints
    }

    /// Tells this process at once and the others soon. Only after the commit.
    pub fn publish(&self, hint: Hint) {
        // Nobody listening is fine.
        let _ = self.hub.sender.send(hint.clone());
        let mut pending = self.hub.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if pending.len() >= MAX_PENDING {
            pending.clear();
            pending.insert(Hint::Resync);
        } else {
            pending.insert(hint);
        }
        drop(pending);
        self.hub.wake.notify_one();
    }

    /// Receives from now on. Subscribe first, then read the rows.
    #[must_use]
    pub fn subscribe(&self) -> HintReceiver {
        HintReceiver { receiver: self.hub.sender.subscribe(), closed: false }
    }

    /// Ends the connections.
    pub fn stop(&self) {
        self.hub.tasks.lock().unwrap_or_else(PoisonError::into_inner).drain(..).for_each(|task| task.abort());
    }
}

/// Sends what is pending, as long as the hub lives; what accumulates during one NOTIFY goes with the next.
async fn notify(hub: std::sync::Weak<Hub>, options: PgConnectOptions) {
    let mut connection: Option<PgConnection> = None;
    loop {
        let Some(hub) = hub.upgrade() else { return };
        let pending = std::mem::take(&mut *hub.pending.lock().unwrap_or_else(PoisonError::into_inner));
        if pending.is_empty() {
            let wake = tokio::time::timeout(ALIVE_CHECK, hub.wake.notified());
            // Either way the loop looks again.
            let _ = wake.await;
            continue;
        }
        for payload in payloads(&hub.process, pending) {
            if let Err(error) = send(&mut connection, &options, &payload).await {
                tracing::warn!(%error, "notifier: connection lost; other processes catch up by re-reading");
                connection = None;
                tokio::time::sleep(RECONNECT_PAUSE).await;
            }
        }
    }
}

async fn send(
    connection: &mut Option<PgConnection>,
    options: &PgConnectOptions,
    payload: &str,
) -> Result<(), sqlx::Error> {
    let work = async {
        if connection.is_none() {
            let mut new = PgConnection::connect_with(options).await?;
            // A hint may be lost in a crash, so it need not wait for the disk. No data is ever written here.
            sqlx::raw_sql("set synchronous_commit = off").execute(&mut new).await?;
            *connection = Some(new);
        }
        if let Some(connection) = connection {
            sqlx::query("select pg_notify($1, $2)").bind(CHANNEL).bind(payload).execute(connection).await?;
        }
        Ok(())
    };
    tokio::time::timeout(WAIT, work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

/// Payloads: the sender's id, then one hint per line.
fn payloads(process: &str, pending: HashSet<Hint>) -> Vec<String> {
    if pending.contains(&Hint::Resync) {
        return vec![format!("{process}\nR")];
    }
    let mut payloads = vec![process.to_owned()];
    for hint in pending {
        let line = encode(&hint);
        let last = payloads.len() - 1;
        if payloads[last].len() + line.len() + 1 > MAX_PAYLOAD {
            payloads.push(format!("{process}\n{line}"));
        } else {
            payloads[last].push('\n');
            payloads[last].push_str(&line);
        }
    }
    payloads
}

fn encode(hint: &Hint) -> String {
    match hint {
        Hint::Live(id) => format!("L{id}"),
        Hint::Recorded(id) => format!("E{id}"),
        Hint::Outbox => "O".to_owned(),
        Hint::Usage(id) => format!("U{id}"),
        Hint::Owners => "W".to_owned(),
        Hint::Resync => "R".to_owned(),
    }
}

/// Unknown lines, from a newer release, are taken as "anything".
fn decode(line: &str) -> Hint {
    let mut chars = line.chars();
    match (chars.next(), chars.as_str()) {
        (Some('L'), id) => Hint::Live(id.to_owned()),
        (Some('E'), id) => Hint::Recorded(id.to_owned()),
        (Some('O'), "") => Hint::Outbox,
        (Some('U'), id) => Hint::Usage(id.to_owned()),
        (Some('W'), "") => Hint::Owners,
        _ => Hint::Resync,
    }
}

/// Listens as long as the hub lives; every new connection begins with a Resync.
async fn listen(hub: std::sync::Weak<Hub>, options: PgConnectOptions) {
    loop {
        let session = listen_once(&hub, &options).await;
        let Some(hub) = hub.upgrade() else { return };
        if let Err(error) = session {
            tracing::warn!(%error, "listener: connection lost");
        }
        // Waiters must not depend on a connection that is gone.
        let _ = hub.sender.send(Hint::Resync);
        drop(hub);
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

async fn listen_once(hub: &std::sync::Weak<Hub>, options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(WAIT).connect_with(options.clone()).await?;
    let mut listener = PgListener::connect_with(&pool).await?;
    // The outer loop reconnects and also sends Resync.
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    if let Some(hub) = hub.upgrade() {
        let _ = hub.sender.send(Hint::Resync);
    }
    loop {
        match tokio::time::timeout(ALIVE_CHECK, listener.try_recv()).await {
            Ok(Ok(Some(notification))) => {
                let Some(hub) = hub.upgrade() else { return Ok(()) };
                deliver(&hub, notification.payload());
            }
            Ok(Ok(None)) => return Ok(()),
            Ok(Err(error)) => return Err(error),
            Err(_) if hub.strong_count() == 0 => return Ok(()),
            Err(_) => check_alive(&mut listener).await?,
        }
    }
}

/// A check finds a connection that has silently gone (a partition).
async fn check_alive(listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let ask = sqlx::query("select 1").execute(listener);
    tokio::time::timeout(WAIT, ask).await.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map(|_| ())
}

fn deliver(hub: &Hub, payload: &str) {
    let mut lines = payload.split('\n');
    if lines.next() == Some(hub.process.as_str()) {
        return;
    }
    for line in lines {
        let _ = hub.sender.send(decode(line));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_hints_are_split_below_the_limit_of_notify_and_none_is_lost() {
        let sent: HashSet<Hint> = (0..2000)
            .map(|i| Hint::Live(format!("{i:027}")))
            .chain([Hint::Outbox, Hint::Usage("p".to_owned())])
            .collect();
        let payloads = payloads("me", sent.clone());
        assert!(payloads.iter().all(|p| p.len() < 8000 && p.starts_with("me\n")));
        let received: HashSet<Hint> = payloads.iter().flat_map(|p| p.split('\n').skip(1)).map(decode).collect();
        assert_eq!(received, sent);
    }

    #[test]
    fn an_unknown_hint_is_taken_as_resync() {
        assert_eq!(decode("X?"), Hint::Resync);
    }

    #[tokio::test]
    async fn a_receiver_that_falls_behind_is_told_to_resync() {
        let hints = Hints::local();
        let mut receiver = hints.subscribe();
        for i in 0..BUFFER * 2 {
            hints.publish(Hint::Live(i.to_string()));
        }
        assert_eq!(receiver.recv().await, Some(Hint::Resync));
        hints.publish(Hint::Outbox);
        assert_eq!(receiver.recv().await, Some(Hint::Outbox));
    }
}
