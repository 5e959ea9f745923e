//! Fields that can be queried, and their values.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use temporalio_common::protos::temporal::api::enums::v1::IndexedValueType as Type;
use tonic::Status;
use uuid::Uuid;

use super::{lexer::refuse, parser::Value};
use crate::search_attributes::UNSUPPORTED;

/// What is compared, and how.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Field {
    /// Expression over `e` (engine.executions) and `r` (engine.runs).
    System(&'static str, Kind),
    /// A key of `e.attributes`.
    Custom(String, Type),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Text,
    Id,
    Status,
    Time,
    Duration,
    Number,
}

/// Expressions, by name.
const SYSTEM: &[(&str, &str, Kind)] = &[
    ("WorkflowId", "e.workflow_id", Kind::Text),
    ("WorkflowType", "e.workflow_type", Kind::Text),
    ("TaskQueue", "e.task_queue", Kind::Text),
    ("RunId", "e.run_id", Kind::Id),
    ("ParentWorkflowId", "e.parent_workflow_id", Kind::Text),
    ("ParentRunId", "e.parent_run_id", Kind::Id),
    ("RootWorkflowId", "e.root_workflow_id", Kind::Text),
    ("RootRunId", "e.root_run_id", Kind::Id),
    ("ExecutionStatus", "e.status", Kind::Status),
    ("StartTime", "e.start_time", Kind::Time),
    // Starts are never delayed here.
    ("ExecutionTime", "e.start_time", Kind::Time),
    ("CloseTime", "e.close_time", Kind::Time),
    ("ExecutionDuration", "(e.close_time - e.start_time)", Kind::Duration),
    ("HistoryLength", "coalesce(r.last_event_id, e.history_length)", Kind::Number),
    ("HistorySizeBytes", "coalesce(r.history_bytes, e.history_bytes)", Kind::Number),
];

/// Fields to order by: an expression that is never null, and its type.
pub(super) const ORDER: &[(&str, &str, &str)] = &[
    ("StartTime", "e.start_time", "timestamptz"),
    ("ExecutionTime", "e.start_time", "timestamptz"),
    ("CloseTime", "coalesce(e.close_time, 'infinity')", "timestamptz"),
    ("WorkflowId", "e.workflow_id", "text"),
    ("WorkflowType", "e.workflow_type", "text"),
    ("HistoryLength", "coalesce(r.last_event_id, e.history_length)", "bigint"),
];

pub(super) const STATUSES: [&str; 7] =
    ["Running", "Completed", "Failed", "Canceled", "Terminated", "ContinuedAsNew", "TimedOut"];

/// Custom attributes by name.
pub(super) type Known = HashMap<String, Type>;

impl Field {
    pub(super) fn is_system(name: &str) -> bool {
        SYSTEM.iter().any(|(n, ..)| *n == name)
    }

    pub(super) fn find(name: &str, known: &Known) -> Result<Self, Status> {
        if let Some((_, expression, kind)) = SYSTEM.iter().find(|(n, ..)| *n == name) {
            return Ok(Self::System(expression, *kind));
        }
        if UNSUPPORTED.contains(&name) {
            return Err(refuse(format_args!("{name} is not supported by this engine")));
        }
        let kind = known.get(name);
        kind.map(|kind| Self::Custom(name.to_owned(), *kind))
            .ok_or_else(|| refuse(format_args!("invalid search attribute: {name:?} is not registered")))
    }
}

/// A value as passed to the database.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Bound {
    Text(String),
    Id(Uuid),
    Status(i16),
    Time(DateTime<Utc>),
    Micros(i64),
    Int(i64),
    Double(f64),
    Bool(bool),
}

fn wrong(name: &str, value: &Value, wanted: &str) -> Status {
    refuse(format_args!("{name}: {value} is not {wanted}"))
}

impl Field {
    /// The value as this field compares it; `name` is for the error.
    pub(super) fn bind(&self, name: &str, value: &Value) -> Result<Bound, Status> {
        match self {
            Self::System(_, kind) => of_kind(*kind, name, value),
            Self::Custom(_, kind) => of_type(*kind, name, value),
        }
    }
}

fn of_kind(kind: Kind, name: &str, value: &Value) -> Result<Bound, Status> {
    match (kind, value) {
        (Kind::Text, Value::Text(text)) => Ok(Bound::Text(text.clone())),
        (Kind::Text, _) => Err(wrong(name, value, "a text in quotes")),
        // What is not a run id matches no run.
        (Kind::Id, Value::Text(text)) => Ok(Bound::Id(Uuid::parse_str(text).unwrap_or_default())),
        (Kind::Id, _) => Err(wrong(name, value, "a run id")),
        (Kind::Status, _) => status(value).ok_or_else(|| wrong(name, value, "an execution status")),
        (Kind::Time, _) => time(value).ok_or_else(|| wrong(name, value, "an RFC 3339 time")),
        (Kind::Duration, _) => {
            duration(value).map(Bound::Micros).ok_or_else(|| wrong(name, value, "a duration (such as '1h30m')"))
        }
        (Kind::Number, Value::Int(number)) => Ok(Bound::Int(*number)),
        (Kind::Number, _) => Err(wrong(name, value, "a whole number")),
    }
}

#[allow(clippy::cast_precision_loss, reason = "a double is asked for")]
fn of_type(kind: Type, name: &str, value: &Value) -> Result<Bound, Status> {
    match (kind, value) {
        (Type::Keyword | Type::KeywordList | Type::Text, Value::Text(text)) => Ok(Bound::Text(text.clone())),
        (Type::Int, Value::Int(number)) => Ok(Bound::Int(*number)),
        (Type::Double, Value::Int(number)) => Ok(Bound::Double(*number as f64)),
        (Type::Double, Value::Double(number)) => Ok(Bound::Double(*number)),
        (Type::Bool, Value::Bool(value)) => Ok(Bound::Bool(*value)),
        (Type::Bool, Value::Text(text)) if text == "true" || text == "false" => Ok(Bound::Bool(text == "true")),
        (Type::Datetime, _) => time(value).ok_or_else(|| wrong(name, value, "an RFC 3339 time")),
        (Type::Int, _) => Err(wrong(name, value, "a whole number")),
        (Type::Double, _) => Err(wrong(name, value, "a number")),
        (Type::Bool, _) => Err(wrong(name, value, "true or false")),
        _ => Err(wrong(name, value, "a text in quotes")),
    }
}

fn status(value: &Value) -> Option<Bound> {
    let number = match value {
        Value::Text(text) => STATUSES.iter().position(|name| name == text).and_then(|at| i16::try_from(at + 1).ok()),
        Value::Int(number) => i16::try_from(*number).ok().filter(|n| (1..=7).contains(n)),
        _ => None,
    };
    number.map(Bound::Status)
}

/// RFC 3339, or nanoseconds since 1970.
fn time(value: &Value) -> Option<Bound> {
    let time = match value {
        Value::Text(text) => DateTime::parse_from_rfc3339(text).ok()?.to_utc(),
        Value::Int(nanos) => DateTime::from_timestamp_nanos(*nanos),
        _ => return None,
    };
    Some(Bound::Time(time))
}

/// Microseconds of `1h30m5.5s`, `hh:mm:ss` or nanoseconds.
fn duration(value: &Value) -> Option<i64> {
    match value {
        Value::Int(nanos) => Some(nanos / 1000),
        Value::Text(text) if text.contains(':') => {
            let mut parts = text.split(':').map(|part| part.parse::<i64>().ok().filter(|n| *n >= 0));
            let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
            let whole = hours.checked_mul(3600)?.checked_add(minutes.checked_mul(60)?)?.checked_add(seconds)?;
            if parts.next().is_some() { None } else { whole.checked_mul(1_000_000) }
        }
        Value::Text(text) => with_units(text),
        _ => None,
    }
}

#[allow(clippy::cast_possible_truncation, reason = "bounded before")]
fn with_units(text: &str) -> Option<i64> {
    const UNITS: [(&str, f64); 7] =
        [("ns", 0.001), ("us", 1.0), ("µs", 1.0), ("ms", 1e3), ("s", 1e6), ("m", 60e6), ("h", 3600e6)];
    let mut rest = text;
    let mut micros = 0.0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(digits);
        let (unit, size) = UNITS.iter().find(|(unit, _)| after.starts_with(unit))?;
        micros += number.parse::<f64>().ok()? * size;
        rest = &after[unit.len()..];
    }
    (micros < 9e18).then_some(micros as i64)
}
