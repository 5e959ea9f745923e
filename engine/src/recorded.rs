//! Events as they are stored: encoded once, shared by everything that keeps them, decoded only when someone looks inside.

use bytes::Bytes;
use prost::Message;
use temporalio_common::protos::temporal::api::history::v1::HistoryEvent;
use tonic::Status;

/// An event that will not change any more.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    event_id: i64,
    encoded: Bytes,
}

/// A `History` whose events stay encoded.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct RawHistory {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    events: Vec<Bytes>,
}

/// The id of a `HistoryEvent`.
#[derive(Clone, PartialEq, Message)]
struct Numbered {
    #[prost(int64, tag = "1")]
    event_id: i64,
}

impl Recorded {
    pub(crate) fn new(event: &HistoryEvent) -> Self {
        Self { event_id: event.event_id, encoded: event.encode_to_vec().into() }
    }

    pub(crate) fn event_id(&self) -> i64 {
        self.event_id
    }

    /// Encoded size, bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.encoded.len()
    }

    pub(crate) fn decode(&self) -> Result<HistoryEvent, Status> {
        HistoryEvent::decode(self.encoded.clone()).map_err(|e| unreadable(&e))
    }
}

/// For those who look inside.
pub(crate) fn decoded<'a>(events: impl IntoIterator<Item = &'a Recorded>) -> Result<Vec<HistoryEvent>, Status> {
    events.into_iter().map(Recorded::decode).collect()
}

/// The events of these appends. Each is a copy: keeping an event must not keep its whole append alive.
pub(crate) fn read(appends: &[Vec<u8>]) -> Result<Vec<Recorded>, Status> {
    let mut read = Vec::new();
    for append in appends {
        let history = RawHistory::decode(append.as_slice()).map_err(|e| unreadable(&e))?;
        for encoded in history.events {
            let Numbered { event_id } = Numbered::decode(encoded.clone()).map_err(|e| unreadable(&e))?;
            read.push(Recorded { event_id, encoded });
        }
    }
    Ok(read)
}

fn unreadable(error: &prost::DecodeError) -> Status {
    Status::data_loss(format!("stored history cannot be read: {error}"))
}

impl<'a> FromIterator<&'a Recorded> for RawHistory {
    fn from_iter<I: IntoIterator<Item = &'a Recorded>>(events: I) -> Self {
        Self { events: events.into_iter().map(|event| event.encoded.clone()).collect() }
    }
}

/// An encoded `History` of these events.
pub(crate) fn history(events: &[Recorded]) -> Vec<u8> {
    events.iter().collect::<RawHistory>().encode_to_vec()
}

#[cfg(test)]
mod tests {
    use temporalio_common::protos::temporal::api::history::v1::{
        History, WorkflowExecutionStartedEventAttributes, history_event::Attributes,
    };

    use super::*;

    #[test]
    fn events_are_stored_as_a_history_and_read_back() {
        let started = WorkflowExecutionStartedEventAttributes { workflow_id: "w".into(), ..Default::default() };
        let attributes = Some(Attributes::WorkflowExecutionStartedEventAttributes(started));
        let event = |event_id| HistoryEvent { event_id, version: 7 * event_id, ..Default::default() };
        let events = vec![HistoryEvent { attributes, ..event(1) }, event(300), HistoryEvent::default()];
        let recorded: Vec<_> = events.iter().map(Recorded::new).collect();
        let stored = history(&recorded);
        assert_eq!(stored, History { events: events.clone() }.encode_to_vec());
        let read = read(&[stored, Vec::new()]).unwrap();
        assert_eq!(read.iter().map(Recorded::event_id).collect::<Vec<_>>(), [1, 300, 0]);
        assert_eq!(decoded(&read).unwrap(), events);
    }
}
