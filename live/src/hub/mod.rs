//! Fan-out of live logs: any number of subscribers, one reader of the table per watched session and process.
//!
//! A channel (a watched session) has a bounded ring of its newest events, which it reads from the table after a hint, at a
//! slow safety interval (one query for all channels), and after hints were lost. Subscribers pull from the ring at their own
//! pace: no subscriber has a queue that can grow. One that has fallen behind the ring reads the table, page by page, until it has caught
//! up. Events are shared, along with their JSON.
//!
//! Invariants: a ring contains contiguous events only; a subscriber's cursor moves over contiguous events only; the table is the
//! truth, a hint never is.

mod beginning;
mod channel;
mod event;
mod ring;
mod subscription;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use ambient_persistence::retry::jittered;
use ambient_persistence::{Database, Hint, HintReceiver, Hints, StoreError};
use tokio::{sync::Semaphore, task::JoinHandle};

pub use beginning::{Beginning, Snapshot};
pub use event::Event;
pub use subscription::{Batch, End, Subscription};

use channel::Channel;

/// Sizes and intervals.
#[derive(Debug, Clone)]
pub struct HubOptions {
    /// Events per ring.
    pub ring_events: usize,
    /// JSON per ring, bytes; one event is kept whatever its size.
    pub ring_bytes: usize,
    /// Events per page of the table, and per batch.
    pub page_events: usize,
    /// Approximate bytes per page of the table.
    pub page_bytes: usize,
    /// Concurrent reads of the table, by channels and by subscribers that have fallen behind, each.
    pub concurrent_reads: usize,
    /// How often all channels are compared with the table, hints or not; jittered.
    pub safety_interval: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            ring_events: 512,
            ring_bytes: 4 * 1024 * 1024,
            page_events: 256,
            page_bytes: 1024 * 1024,
            concurrent_reads: 4,
            safety_interval: Duration::from_secs(5),
        }
    }
}

/// Why a subscription cannot start.
#[derive(Debug, thiserror::Error)]
pub enum SubscribeError {
    /// The events right after the cursor are no longer kept.
    #[error("events up to {} are no longer kept", oldest - 1)]
    TooOld {
        /// Oldest event that is still kept.
        oldest: i64,
        /// What the snapshot covers to start from.
        covers_seq: Option<i64>,
    },
    /// The log has not reached the cursor: it is not a cursor of this log.
    #[error("the log ends at {last}")]
    Ahead {
        /// Last event.
        last: i64,
    },
    /// The hub is shutting down.
    #[error("the server is shutting down")]
    Closed,
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The fan-out of a process. Clones share it.
#[derive(Debug, Clone)]
pub struct LiveHub {
    inner: Arc<Inner>,
    guard: Arc<Guard>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    db: Database,
    options: HubOptions,
    channels: Mutex<Channels>,
    /// Reads by channels.
    filling: Semaphore,
    /// Reads by subscribers that have fallen behind: they never keep the channels waiting.
    catching_up: Semaphore,
}

#[derive(Debug, Default)]
struct Channels {
    closed: bool,
    by_session: HashMap<Arc<str>, Weak<Channel>>,
}

/// Ends the hub's task with its last handle.
#[derive(Debug)]
struct Guard {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
    /// Hints come as long as someone holds this.
    _hints: Hints,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
        self.inner.close();
    }
}

impl LiveHub {
    /// Starts. Must be called in a tokio runtime.
    #[must_use]
    pub fn start(db: Database, hints: Hints, options: HubOptions) -> Self {
        let inner = Arc::new(Inner {
            db,
            filling: Semaphore::new(options.concurrent_reads.max(1)),
            catching_up: Semaphore::new(options.concurrent_reads.max(1)),
            channels: Mutex::default(),
            options,
        });
        let task = tokio::spawn(run(inner.clone(), hints.subscribe()));
        let guard = Arc::new(Guard { inner: inner.clone(), task, _hints: hints });
        Self { inner, guard }
    }

    /// Follows a session's log: every event after `after_seq`, in order, exactly once.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn subscribe(&self, session_id: &str, after_seq: i64) -> Result<Subscription, SubscribeError> {
        let after_seq = after_seq.max(0);
        let channel = self.inner.channel(session_id).ok_or(SubscribeError::Closed)?;
        channel.loaded.get_or_try_init(|| channel.load(&self.inner)).await?;
        if after_seq > channel.last() {
            // Another server may already know more than this ring does.
            let last = self.inner.db.last_seq(session_id).await?;
            if after_seq > last {
                return Err(SubscribeError::Ahead { last });
            }
            channel.poke(&self.inner);
        }
        if channel.is_behind(after_seq) {
            let page = self.inner.read(session_id, after_seq, 1).await?;
            let oldest = page.events.first().map_or(channel.last() + 1, |event| event.seq);
            if oldest > after_seq + 1 {
                let covers_seq = self.inner.db.snapshot_seq(session_id).await?;
                return Err(SubscribeError::TooOld { oldest, covers_seq });
            }
        }
        Ok(Subscription::new(self.inner.clone(), channel, after_seq))
    }

    /// Sessions with a subscriber.
    #[must_use]
    pub fn watched(&self) -> usize {
        self.inner.all().len()
    }

    /// Ends every subscription. Further ones are refused.
    pub fn shutdown(&self) {
        self.guard.task.abort();
        self.inner.close();
    }
}

impl Inner {
    /// The session's channel; none if the hub is closed.
    fn channel(&self, session_id: &str) -> Option<Arc<Channel>> {
        let mut channels = self.lock();
        if channels.closed {
            return None;
        }
        if let Some(channel) = channels.by_session.get(session_id).and_then(Weak::upgrade) {
            return Some(channel);
        }
        let channel = Arc::new(Channel::new(session_id));
        channels.by_session.insert(channel.session_id.clone(), Arc::downgrade(&channel));
        Some(channel)
    }

    fn watched(&self, session_id: &str) -> Option<Arc<Channel>> {
        self.lock().by_session.get(session_id).and_then(Weak::upgrade)
    }

    /// All channels; those without subscribers are dropped.
    fn all(&self) -> Vec<Arc<Channel>> {
        let mut channels = self.lock();
        channels.by_session.retain(|_, channel| channel.strong_count() > 0);
        channels.by_session.values().filter_map(Weak::upgrade).collect()
    }

    fn close(&self) {
        self.lock().closed = true;
        self.all().iter().for_each(|channel| channel.close());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Channels> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(
        &self,
        session_id: &str,
        after: i64,
        limit: usize,
    ) -> Result<ambient_persistence::EventPage, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let bytes = i64::try_from(self.options.page_bytes).unwrap_or(i64::MAX);
        self.db.read_event_page(session_id, after, limit, bytes).await
    }

    /// One query compares all channels with the table.
    async fn compare_all(self: &Arc<Self>) {
        let channels = self.all();
        metrics::gauge!("ambient_live_channels").set(u32::try_from(channels.len()).unwrap_or(u32::MAX));
        if channels.is_empty() {
            return;
        }
        let ids: Vec<String> = channels.iter().map(|channel| channel.session_id.to_string()).collect();
        match self.db.last_seqs(&ids).await {
            Ok(last_seqs) => {
                for (session_id, last) in last_seqs {
                    if let Some(channel) = self.watched(&session_id).filter(|channel| channel.last() < last) {
                        channel.poke(self);
                    }
                }
            }
            Err(error) => tracing::warn!(%error, "live channels cannot be compared with the table; trying again"),
        }
    }
}

/// Turns hints into reads.
async fn run(inner: Arc<Inner>, mut hints: HintReceiver) {
    let mut hints_end = false;
    let mut safety = Box::pin(tokio::time::sleep(jittered(inner.options.safety_interval)));
    loop {
        tokio::select! {
            hint = hints.recv(), if !hints_end => match hint {
                Some(Hint::Live(session_id) | Hint::Recorded(session_id)) => {
                    if let Some(channel) = inner.watched(&session_id) {
                        channel.poke(&inner);
                    }
                }
                Some(Hint::Resync) => inner.compare_all().await,
                Some(_) => {}
                None => hints_end = true,
            },
            () = &mut safety => {
                inner.compare_all().await;
                inner.all().iter().for_each(|channel| channel.shrink_if_idle());
                safety.set(tokio::time::sleep(jittered(inner.options.safety_interval)));
            }
        }
    }
}
