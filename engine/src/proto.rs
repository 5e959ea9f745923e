//! Conversions between Temporal's protobuf types and ours, and the errors on the wire.
//!
//! Nothing here panics on client input: every conversion that can fail names the field.

use chrono::{DateTime, TimeDelta, Utc};
use prost::Message;
use prost_types::{Duration, Timestamp};
use temporalio_common::protos::temporal::api::{
    common::v1::{Payload, Payloads, WorkflowExecution},
    enums::v1::TaskQueueKind,
    history::v1::{History, HistoryEvent, history_event::Attributes},
    taskqueue::v1::TaskQueue,
};
use tonic::Status;
use uuid::Uuid;

/// Longest duration accepted from a client: 100 years, so that adding it to a time cannot overflow.
const MAX_DURATION_MS: i64 = 100 * 366 * 86_400_000;
/// Longest id, type or queue name, as on Temporal servers.
pub(crate) const MAX_NAME_BYTES: usize = 1000;

pub(crate) fn timestamp(time: DateTime<Utc>) -> Timestamp {
    Timestamp::from(time)
}

/// A text as the SDKs' default converter encodes it.
pub(crate) fn json_payloads(text: &str) -> Payloads {
    let metadata = [("encoding".to_owned(), b"json/plain".to_vec())].into();
    let data = serde_json::Value::from(text).to_string().into_bytes();
    Payloads { payloads: vec![Payload { metadata, data, ..Default::default() }] }
}

/// An optional duration in milliseconds; none is 0.
pub(crate) fn millis(duration: Option<&Duration>, field: &str) -> Result<i64, Status> {
    let Some(d) = duration else { return Ok(0) };
    if d.seconds < 0 || d.nanos < 0 {
        return Err(Status::invalid_argument(format!("{field} must not be negative")));
    }
    let ms = d.seconds.saturating_mul(1000).saturating_add(i64::from(d.nanos).div_euclid(1_000_000));
    // Less than a millisecond is still a wait, not "none".
    let ms = if ms == 0 && d.nanos > 0 { 1 } else { ms };
    Ok(ms.min(MAX_DURATION_MS))
}

/// Like [`millis`], for durations of our own or already validated ones.
pub(crate) fn millis_or_zero(duration: Option<&Duration>) -> i64 {
    millis(duration, "").unwrap_or(0)
}

#[allow(clippy::cast_possible_truncation, reason = "remainder of a second fits")]
pub(crate) fn duration(ms: i64) -> Duration {
    Duration { seconds: ms.div_euclid(1000), nanos: (ms.rem_euclid(1000) * 1_000_000) as i32 }
}

pub(crate) fn after(time: DateTime<Utc>, ms: i64) -> DateTime<Utc> {
    time + TimeDelta::milliseconds(ms)
}

/// `time + ms`, or none if `ms` is 0 ("no limit").
pub(crate) fn deadline(time: DateTime<Utc>, ms: i64) -> Option<DateTime<Utc>> {
    (ms > 0).then(|| after(time, ms))
}

/// The earlier of two optional times.
pub(crate) fn earlier(a: Option<DateTime<Utc>>, b: Option<DateTime<Utc>>) -> Option<DateTime<Utc>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// A non-empty, reasonably short, NUL-free name.
pub(crate) fn name(value: &str, field: &str) -> Result<(), Status> {
    if value.is_empty() {
        return Err(Status::invalid_argument(format!("{field} is not set")));
    }
    optional_name(value, field)
}

/// Like [`name`], but may be empty.
pub(crate) fn optional_name(value: &str, field: &str) -> Result<(), Status> {
    if value.len() > MAX_NAME_BYTES {
        return Err(Status::invalid_argument(format!("{field} is longer than {MAX_NAME_BYTES} bytes")));
    }
    if value.contains('\0') {
        return Err(Status::invalid_argument(format!("{field} contains a NUL")));
    }
    Ok(())
}

/// A run id as clients send it; empty means none.
pub(crate) fn run_id(value: &str) -> Result<Option<Uuid>, Status> {
    if value.is_empty() {
        return Ok(None);
    }
    Uuid::parse_str(value).map(Some).map_err(|_| Status::invalid_argument("run_id is not a valid run id"))
}

pub(crate) fn execution(workflow_id: &str, run_id: Uuid) -> WorkflowExecution {
    WorkflowExecution { workflow_id: workflow_id.to_owned(), run_id: run_id.to_string() }
}

pub(crate) fn queue(name: &str) -> TaskQueue {
    TaskQueue { name: name.to_owned(), kind: TaskQueueKind::Normal as i32, ..Default::default() }
}

pub(crate) fn event(id: i64, time: DateTime<Utc>, attributes: Attributes) -> HistoryEvent {
    HistoryEvent {
        event_id: id,
        event_time: Some(timestamp(time)),
        event_type: attributes.event_type() as i32,
        attributes: Some(attributes),
        ..Default::default()
    }
}

/// Decodes something this engine has stored itself.
pub(crate) fn stored<M: Message + Default>(bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|e| Status::data_loss(format!("stored record cannot be read: {e}")))
}

/// Decodes stored appends into one list of events.
pub(crate) fn events<B: AsRef<[u8]>>(batches: &[B]) -> Result<Vec<HistoryEvent>, Status> {
    let mut history = History::default();
    for batch in batches {
        history.merge(batch.as_ref()).map_err(|e| Status::data_loss(format!("stored history cannot be read: {e}")))?;
    }
    Ok(history.events)
}

/// A database that cannot respond: clients retry `Unavailable`.
#[allow(clippy::needless_pass_by_value, reason = "used as map_err(db)")]
pub(crate) fn db(error: sqlx::Error) -> Status {
    tracing::debug!(%error, "database");
    Status::unavailable(format!("database: {error}"))
}

/// Decodes a client's request.
pub(crate) fn decode<M: Message + Default>(rpc: &str, bytes: &[u8]) -> Result<M, Status> {
    M::decode(bytes).map_err(|e| Status::invalid_argument(format!("{rpc}: request cannot be read: {e}")))
}
