//! An event as subscribers share it.

use ambient_persistence::StoredEvent;

/// Type of the last event of a log.
pub(super) const DELETED: &str = "session.deleted";

/// An event of a session's live log, serialised once.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    seq: i64,
    event_type: Box<str>,
    json: Box<str>,
}

impl Event {
    pub(super) fn of(event: StoredEvent) -> Self {
        let StoredEvent { seq, event_type, data, at, .. } = event;
        let wire = ambient_wire::live::Event { seq, event_type, data, at };
        // A value from the database has string keys and finite numbers: it can be serialised.
        let json = serde_json::to_string(&wire).unwrap_or_else(|_| format!("{{\"seq\":{seq}}}"));
        Self { seq, event_type: wire.event_type.into(), json: json.into() }
    }

    /// Place in the session's log.
    #[must_use]
    pub fn seq(&self) -> i64 {
        self.seq
    }

    /// `user.message`, `session.phase`, or an AG-UI event type.
    #[must_use]
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// The event as a JSON object: [`ambient_wire::live::Event`]. Starts with `{`, and has at least one field.
    #[must_use]
    pub fn json(&self) -> &str {
        &self.json
    }

    pub(super) fn is_last(&self) -> bool {
        &*self.event_type == DELETED
    }
}
