//! A follower of a log.

use std::{sync::Arc, time::Duration};

use ambient_persistence::StoreError;
use ambient_persistence::retry::Backoff;
use tokio::sync::watch;

use super::{
    Event, Inner,
    channel::{Channel, Position},
    ring::Taken,
};

/// The next events of a subscription: in order, contiguous, at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// Shared with every other subscriber.
    pub events: Vec<Arc<Event>>,
}

impl Batch {
    /// Seq of its last event: the cursor to resume at.
    #[must_use]
    pub fn last_seq(&self) -> i64 {
        self.events.last().map_or(0, |event| event.seq())
    }
}

/// Why a subscription has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The session was deleted; `session.deleted` was the last event.
    Deleted,
    /// Events that it had not received yet are no longer kept.
    TooOld {
        /// Oldest event that is still kept.
        oldest: i64,
        /// What the snapshot covers to start from.
        covers_seq: Option<i64>,
    },
    /// The hub was shut down: resume elsewhere.
    Closed,
}

/// Follows a session's log from a cursor. Buffers no events of its own.
#[derive(Debug)]
pub struct Subscription {
    hub: Arc<Inner>,
    channel: Arc<Channel>,
    position: watch::Receiver<Position>,
    cursor: i64,
    end: Option<End>,
}

impl Subscription {
    pub(super) fn new(hub: Arc<Inner>, channel: Arc<Channel>, cursor: i64) -> Self {
        let position = channel.position.subscribe();
        Self { hub, channel, position, cursor, end: None }
    }

    /// Seq of the last event delivered.
    #[must_use]
    pub fn cursor(&self) -> i64 {
        self.cursor
    }

    /// Why it has ended, once [`Subscription::next`] has returned none.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        self.end
    }

    /// The next events; waits as long as there are none. None once the subscription has ended. Cancel-safe: nothing
    /// is lost.
    pub async fn next(&mut self) -> Option<Batch> {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
        while self.end.is_none() {
            if self.position.borrow_and_update().closed {
                self.end = Some(End::Closed);
                break;
            }
            match self.channel.take(self.cursor, self.hub.options.page_events) {
                Taken::Events(events) => return Some(self.deliver(events)),
                Taken::UpToDate => {
                    // The sender lives as long as the channel, which this subscription holds.
                    let _ = self.position.changed().await;
                }
                // Apart: a subscriber that waits need not keep the room for it.
                Taken::Behind => match Box::pin(self.read_table()).await {
                    Ok(Some(events)) => return Some(self.deliver(events)),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::warn!(%error, "a subscriber cannot read the table; trying again");
                        tokio::time::sleep(backoff.pause()).await;
                    }
                },
            }
        }
        None
    }

    /// The next page of the table.
    async fn read_table(&mut self) -> Result<Option<Vec<Arc<Event>>>, StoreError> {
        let _turn = self.hub.catching_up.acquire().await;
        let page = self.hub.read(&self.channel.session_id, self.cursor, self.hub.options.page_events).await?;
        let oldest = page.events.first().map_or(self.channel.last() + 1, |event| event.seq);
        if oldest != self.cursor + 1 {
            let covers_seq = self.hub.db.snapshot_seq(&self.channel.session_id).await?;
            self.end = Some(End::TooOld { oldest, covers_seq });
            return Ok(None);
        }
        // Only what follows without a gap: events after a gap come when the gap is filled, or are too old.
        let contiguous = page.events.into_iter().zip(oldest..).take_while(|(event, seq)| event.seq == *seq);
        Ok(Some(contiguous.map(|(event, _)| Arc::new(Event::of(event))).collect()))
    }

    fn deliver(&mut self, mut events: Vec<Arc<Event>>) -> Batch {
        if let Some(at) = events.iter().position(|event| event.is_last()) {
            events.truncate(at + 1);
            self.end = Some(End::Deleted);
        }
        let batch = Batch { events };
        self.cursor = batch.last_seq();
        batch
    }
}
