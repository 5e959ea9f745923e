//! How a reader that has seen nothing yet starts: with the messages so far in one piece.

use super::{LiveHub, SubscribeError, Subscription};

/// Messages up to a place in the log, as readers pass them on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    covers_seq: i64,
    json: Box<str>,
}

impl Snapshot {
    /// Replaces all events up to this seq.
    #[must_use]
    pub fn covers_seq(&self) -> i64 {
        self.covers_seq
    }

    /// The `MESSAGES_SNAPSHOT` as JSON: see [`crate::snapshot`].
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }
}

/// What a reader gets when it starts to follow a log.
#[derive(Debug)]
pub struct Beginning {
    /// Messages that replace the events up to the subscription's cursor.
    pub snapshot: Option<Snapshot>,
    /// The events after that.
    pub subscription: Subscription,
}

impl LiveHub {
    /// Follows a session's log for a reader that has seen none of it: the newest snapshot and every event after what it
    /// covers; without a snapshot, every event that is kept.
    ///
    /// # Errors
    /// See [`SubscribeError`].
    pub async fn begin(&self, session_id: &str) -> Result<Beginning, SubscribeError> {
        let mut looks = 0;
        loop {
            looks += 1;
            let stored = {
                let _turn = self.inner.catching_up.acquire().await;
                self.inner.db.latest_snapshot_json(session_id).await?
            };
            let snapshot = stored.map(|(covers_seq, json)| Snapshot { covers_seq, json: json.into() });
            let after_seq = snapshot.as_ref().map_or(0, Snapshot::covers_seq);
            match self.subscribe(session_id, after_seq).await {
                // What it covered less than has been removed since it was read: there is a newer one.
                Err(SubscribeError::TooOld { covers_seq: Some(covers), .. }) if covers > after_seq && looks < 3 => {}
                subscribed => return Ok(Beginning { snapshot, subscription: subscribed? }),
            }
        }
    }
}
