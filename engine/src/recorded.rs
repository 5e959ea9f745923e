//! Events as they are written: encoded once, shared by everything that keeps them.

use std::{ops::Deref, sync::Arc};

use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;

/// Number of the field `events` of a `History`.
const EVENTS: u32 = 1;

/// An event that will not change any more.
#[derive(Clone, Debug)]
pub(crate) struct Recorded(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    event: HistoryEvent,
    encoded: Vec<u8>,
}

impl Recorded {
    pub(crate) fn new(event: HistoryEvent) -> Self {
        let encoded = event.encode_to_vec();
        Self(Arc::new(Inner { event, encoded }))
    }

    /// Encoded size, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.encoded.len()
    }
}

impl Deref for Recorded {
    type Target = HistoryEvent;

    fn deref(&self) -> &HistoryEvent {
        &self.0.event
    }
}

/// For workers and readers.
pub(crate) fn copies<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> Vec<HistoryEvent> {
    events.into_iter().map(|event| event.0.event.clone()).collect()
}

/// An encoded `History` of these events.
pub(crate) fn history(events: &[Recorded]) -> Vec<u8> {
    let framing = 11;
    let mut history = Vec::with_capacity(events.iter().map(|e| e.bytes() + framing).sum());
    for event in events {
        encode_key(EVENTS, WireType::LengthDelimited, &mut history);
        encode_varint(event.bytes() as u64, &mut history);
        history.extend_from_slice(&event.0.encoded);
    }
    history
}

#[cfg(test)]
mod tests {
    use temporalio_common::protos::temporal::api::history::v1::History;

    use super::*;

    #[test]
    fn recorded_events_are_encoded_as_a_history() {
        let event = |event_id| HistoryEvent { event_id, version: 7 * event_id, ..Default::default() };
        let events = vec![event(1), event(300), HistoryEvent::default()];
        let recorded: Vec<_> = events.iter().cloned().map(Recorded::new).collect();
        assert_eq!(history(&recorded), History { events: events.clone() }.encode_to_vec());
        assert_eq!(copies(&recorded), events);
    }
}
