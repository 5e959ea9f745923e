//! Updates of an open run, as its row keeps them.

use prost::Message;
use temporalio_common::protos::temporal::api::update::v1::Request;
use uuid::Uuid;

/// The updates of an open run.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Updates {
    /// In order of admission.
    #[prost(message, repeated, tag = "1")]
    pub(crate) in_flight: Vec<InFlight>,
    /// How many have been completed.
    #[prost(uint32, tag = "2")]
    pub(crate) completed: u32,
}

/// An update that has no outcome yet.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct InFlight {
    #[prost(string, tag = "1")]
    pub(crate) id: String,
    /// Identifies this admission of the id: after a rejection the id may be used again.
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) admission: Vec<u8>,
    /// Until it is accepted, unless it is in the history (`WorkflowExecutionUpdateAdmitted`).
    #[prost(message, optional, tag = "3")]
    pub(crate) request: Option<Request>,
    /// 0: not accepted.
    #[prost(int64, tag = "4")]
    pub(crate) accepted_event_id: i64,
    #[prost(enumeration = "Delivery", tag = "5")]
    pub(crate) delivery: i32,
}

/// Which workflow task delivers an update to its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub(crate) enum Delivery {
    /// The one that is scheduled or in flight.
    ThisTask = 0,
    /// The next one: the update arrived while one was in flight.
    NextTask = 1,
    /// The previous one did; its worker is still working on it (local activities).
    Delivered = 2,
}

/// Where an accepted update is in the history; 0 means not yet.
#[derive(Clone, Debug)]
pub(crate) struct RecordedUpdate {
    pub(crate) id: String,
    pub(crate) accepted_event_id: i64,
    pub(crate) completed_event_id: i64,
}

impl InFlight {
    pub(crate) fn admission(&self) -> Uuid {
        Uuid::from_slice(&self.admission).unwrap_or_default()
    }

    pub(crate) fn is_accepted(&self) -> bool {
        self.accepted_event_id != 0
    }
}

impl TryFrom<Vec<u8>> for Updates {
    type Error = sqlx::Error;

    fn try_from(bytes: Vec<u8>) -> Result<Self, Self::Error> {
        <Self as Message>::decode(bytes.as_slice()).map_err(|e| sqlx::Error::Decode(e.into()))
    }
}
