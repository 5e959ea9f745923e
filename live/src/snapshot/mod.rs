//! A session's messages in one piece, so that a long history can be shown at once.
//!
//! Made at the end of each run from the previous snapshot and what followed it. A snapshot is an AG-UI `MESSAGES_SNAPSHOT`
//! (`{type, covers_seq, omitted, messages: [{id, role, content, …}]}`): the tail starts right after it. Deltas of a message that was not
//! complete yet follow in the tail and are to be appended to it, changes of a tool call replace what is there.
//!
//! A tool call is a message with `toolCalls` and, once it has a result, one of role `tool` with id `{tool call}/result`. What the agent
//! thinks is no message.
//!
//! Invariants: the same log gives the same messages, however many pieces it was compacted in; the newest snapshot is complete
//! at any moment, even if a compaction dies between its steps; a repeated compaction finishes them.

mod messages;

use ambient_persistence::{Database, StoreError};

use messages::Messages;
use serde_json::Value;

const PAGE_EVENTS: i64 = 512;
const PAGE_BYTES: i64 = 4 * 1024 * 1024;

/// Why a snapshot could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Events are missing.
    #[error("the events after {after} are missing")]
    Gap {
        /// The last that is known.
        after: i64,
    },
    /// What is stored does not read as a snapshot.
    #[error("the snapshot at {covers_seq} cannot be read")]
    Corrupt {
        /// Its place.
        covers_seq: i64,
    },
}

/// Compacts everything so far; returns the seq it covers. Earlier snapshots are removed once the new one is in place. To be called at the
/// end of a run; may be repeated.
///
/// # Errors
/// When the database cannot be reached.
pub async fn compact(db: &Database, session_id: &str) -> Result<i64, SnapshotError> {
    let (before, messages) = gather(db, session_id).await?;
    let covers_seq = messages.covers_seq;
    if covers_seq > before {
        db.put_snapshot(session_id, covers_seq, &messages.into_data()).await?;
    }
    // Even if there was nothing new: an earlier call may have died before this.
    db.delete_snapshots_below(session_id, covers_seq).await?;
    Ok(covers_seq)
}

/// The messages of everything so far, as [`compact`] would store them. Nothing is stored.
///
/// # Errors
/// When the database cannot be reached.
pub async fn current(db: &Database, session_id: &str) -> Result<Value, SnapshotError> {
    Ok(gather(db, session_id).await?.1.into_data())
}

/// The seq that the newest snapshot covers, and what it and all later events come to.
async fn gather(db: &Database, session_id: &str) -> Result<(i64, Messages), SnapshotError> {
    let mut messages = match db.latest_snapshot(session_id).await? {
        Some(snapshot) => Messages::of(snapshot.covers_seq, snapshot.data)?,
        None => Messages::default(),
    };
    let before = messages.covers_seq;
    loop {
        let page = db.read_event_page(session_id, messages.covers_seq, PAGE_EVENTS, PAGE_BYTES).await?;
        // Retention removes nothing that the newest snapshot does not cover. If it were otherwise, less must not be made of it.
        if page.events.first().is_some_and(|event| event.seq != messages.covers_seq + 1) {
            return Err(SnapshotError::Gap { after: messages.covers_seq });
        }
        page.events.iter().for_each(|event| messages.see(event));
        messages.limit();
        if !page.more {
            return Ok((before, messages));
        }
    }
}
