//! A watched session: its ring, and the one reader that fills it.

use std::{
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use ambient_persistence::StoreError;
use ambient_persistence::retry::Backoff;
use tokio::sync::{OnceCell, watch};

use super::{
    Event, Inner,
    ring::{Ring, Taken},
};

/// Newest events that a new channel starts with, so that reconnecting readers need no read of the table.
const FIRST_EVENTS: i64 = 64;

const IDLE: u8 = 0;
const READING: u8 = 1;
/// Reading, and another hint has arrived meanwhile: read again.
const READ_AGAIN: u8 = 2;

/// Where a channel is; subscribers wait for it to change.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Position {
    pub(super) last: i64,
    pub(super) closed: bool,
}

#[derive(Debug)]
pub(crate) struct Channel {
    pub(super) session_id: Arc<str>,
    /// Set when the ring knows where it is.
    pub(super) loaded: OnceCell<()>,
    pub(super) position: watch::Sender<Position>,
    ring: RwLock<Ring>,
    state: AtomicU8,
}

impl Channel {
    pub(super) fn new(session_id: &str) -> Self {
        Self {
            session_id: session_id.into(),
            loaded: OnceCell::new(),
            position: watch::Sender::default(),
            ring: RwLock::default(),
            state: AtomicU8::new(IDLE),
        }
    }

    pub(super) fn last(&self) -> i64 {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).last()
    }

    /// Whether the event after `cursor` used to be here and is gone.
    pub(super) fn is_behind(&self, cursor: i64) -> bool {
        cursor < self.ring.read().unwrap_or_else(PoisonError::into_inner).base()
    }

    pub(super) fn take(&self, cursor: i64, most: usize) -> Taken {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).after(cursor, most)
    }

    pub(super) fn shrink_if_idle(&self) {
        self.ring.write().unwrap_or_else(PoisonError::into_inner).shrink_if_idle();
    }

    pub(super) fn close(&self) {
        self.position.send_modify(|position| position.closed = true);
    }

    /// First read: where the log is, and its newest events.
    pub(super) async fn load(&self, hub: &Inner) -> Result<(), StoreError> {
        let last = hub.db.last_seq(&self.session_id).await?;
        self.ring.write().unwrap_or_else(PoisonError::into_inner).reset((last - FIRST_EVENTS).max(0));
        self.fill(hub).await
    }

    /// Has the ring filled from the table, now or right after the read in progress.
    pub(super) fn poke(self: &Arc<Self>, hub: &Arc<Inner>) {
        let next = |state| Some(if state == IDLE { READING } else { READ_AGAIN });
        let before = self.state.fetch_update(Ordering::AcqRel, Ordering::Acquire, next);
        if before == Ok(IDLE) {
            let (channel, hub) = (self.clone(), hub.clone());
            tokio::spawn(async move { channel.read_until_quiet(hub).await });
        }
    }

    async fn read_until_quiet(self: Arc<Self>, hub: Arc<Inner>) {
        let mut backoff = Backoff::new(Duration::from_millis(100), hub.options.safety_interval);
        loop {
            self.state.store(READING, Ordering::Release);
            let read = match self.loaded.get_or_try_init(|| self.load(&hub)).await {
                Ok(()) => self.fill(&hub).await,
                Err(error) => Err(error),
            };
            if let Err(error) = read {
                // One handle is the task's own; without subscribers nobody waits for what could not be read.
                if Arc::strong_count(&self) == 1 || self.position.borrow().closed {
                    self.state.store(IDLE, Ordering::Release);
                    return;
                }
                tracing::warn!(%error, "a live log cannot be read; trying again");
                tokio::time::sleep(backoff.pause()).await;
                continue;
            }
            let quiet = self.state.compare_exchange(READING, IDLE, Ordering::AcqRel, Ordering::Acquire);
            if quiet.is_ok() {
                return;
            }
        }
    }

    /// Reads everything after the ring's last event.
    async fn fill(&self, hub: &Inner) -> Result<(), StoreError> {
        loop {
            let page = {
                let _turn = hub.filling.acquire().await;
                hub.read(&self.session_id, self.last(), hub.options.page_events).await?
            };
            let events: Vec<_> = page.events.into_iter().map(|event| Arc::new(Event::of(event))).collect();
            let last = {
                let mut ring = self.ring.write().unwrap_or_else(PoisonError::into_inner);
                for event in events {
                    ring.push(event, hub.options.ring_events, hub.options.ring_bytes);
                }
                ring.last()
            };
            self.position.send_if_modified(|position| {
                let further = last > position.last;
                position.last = last;
                further
            });
            if !page.more {
                return Ok(());
            }
        }
    }
}
