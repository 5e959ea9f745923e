//! Search attributes: which exist, their types, and which values they accept.
//!
//! Custom ones are registered by an operator (`OperatorService.AddSearchAttributes`) and kept in the database; a type never changes, so
//! what a process has read stays true. A value for an unregistered attribute, or of the wrong type, is refused before anything
//! is written, as on Temporal's servers.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use chrono::DateTime;
use serde_json::Value;
use temporalio_common::protos::temporal::api::{
    common::v1::{Payload, SearchAttributes},
    enums::v1::IndexedValueType as Type,
};
use tonic::Status;

use crate::proto;

/// Maximum number of custom attributes.
pub(crate) const MAX_CUSTOM: i64 = 100;
/// As on Temporal's servers: attributes per run, bytes per value, bytes in total.
pub(crate) const MAX_KEYS: usize = 100;
const MAX_VALUE_BYTES: usize = 2 * 1024;
pub(crate) const MAX_TOTAL_BYTES: usize = 40 * 1024;

/// What the engine itself knows about every run: can be queried, not set.
pub(crate) const SYSTEM: &[(&str, Type)] = &[
    ("CloseTime", Type::Datetime),
    ("ExecutionDuration", Type::Int),
    ("ExecutionStatus", Type::Keyword),
    ("ExecutionTime", Type::Datetime),
    ("HistoryLength", Type::Int),
    ("HistorySizeBytes", Type::Int),
    ("ParentRunId", Type::Keyword),
    ("ParentWorkflowId", Type::Keyword),
    ("RootRunId", Type::Keyword),
    ("RootWorkflowId", Type::Keyword),
    ("RunId", Type::Keyword),
    ("StartTime", Type::Datetime),
    ("TaskQueue", Type::Keyword),
    ("WorkflowId", Type::Keyword),
    ("WorkflowType", Type::Keyword),
];

/// Temporal's system attributes that this engine does not keep.
pub(crate) const UNSUPPORTED: &[&str] = &[
    "BuildIds",
    "StateTransitionCount",
    "TemporalPauseInfo",
    "TemporalReportedProblems",
    "TemporalWorkerDeployment",
    "TemporalWorkerDeploymentVersion",
    "TemporalWorkflowVersioningBehavior",
    "VisibilityTime",
];

/// Registered from the start; SDKs set some of them (`TemporalChangeVersion` by patches).
const PREDEFINED: &[(&str, Type)] = &[
    ("BatcherNamespace", Type::Keyword),
    ("BatcherUser", Type::Keyword),
    ("BinaryChecksums", Type::KeywordList),
    ("TemporalChangeVersion", Type::KeywordList),
    ("TemporalNamespaceDivision", Type::Keyword),
    ("TemporalScheduledById", Type::Keyword),
    ("TemporalScheduledStartTime", Type::Datetime),
    ("TemporalSchedulePaused", Type::Bool),
];

/// What this process knows to be registered.
#[derive(Debug, Default)]
pub(crate) struct Registry(RwLock<HashMap<String, Type>>);

impl Registry {
    pub(crate) fn get(&self, name: &str) -> Option<Type> {
        let predefined = PREDEFINED.iter().find(|(n, _)| *n == name).map(|(_, t)| *t);
        predefined.or_else(|| self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).copied())
    }

    /// What is currently registered.
    pub(crate) fn learn(&self, types: &HashMap<String, Type>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).clone_from(types);
    }
}

/// Attributes registered without anyone's doing: system and predefined ones.
pub(crate) fn built_in() -> impl Iterator<Item = (&'static str, Type)> {
    SYSTEM.iter().chain(PREDEFINED).copied()
}

/// The searchable values, as JSON; none if there are none. What cannot be stored as JSON is left out.
pub(crate) fn indexed(attributes: &SearchAttributes) -> Option<Value> {
    let values = attributes.indexed_fields.iter().filter_map(|(name, payload)| {
        let value: Value = serde_json::from_slice(&payload.data).ok()?;
        let storable = !name.contains('\0') && !has_nul(&value) && !value.is_null();
        storable.then(|| (name.clone(), value))
    });
    let object: serde_json::Map<String, Value> = values.collect();
    (!object.is_empty()).then_some(Value::Object(object))
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        // Belongs to no attribute.
        Value::Object(_) => true,
        _ => false,
    }
}

pub(crate) fn is_null(payload: &Payload) -> bool {
    payload.metadata.get("encoding").is_some_and(|e| e == b"binary/null")
        || matches!(&payload.data[..], b"null" | b"[]")
}

fn fits(kind: Type, value: &Value) -> bool {
    match kind {
        Type::Text | Type::Keyword => value.is_string(),
        Type::Int => value.is_i64(),
        Type::Double => value.is_number(),
        Type::Bool => value.is_boolean(),
        Type::Datetime => value.as_str().is_some_and(|text| DateTime::parse_from_rfc3339(text).is_ok()),
        Type::KeywordList => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        Type::Unspecified => false,
    }
}

pub(crate) fn check_value(name: &str, kind: Type, payload: &Payload) -> Result<(), Status> {
    if payload.data.len() > MAX_VALUE_BYTES {
        let (bytes, max) = (payload.data.len(), MAX_VALUE_BYTES);
        return Err(Status::invalid_argument(format!(
            "search attribute {name} value size {bytes} exceeds size limit {max}"
        )));
    }
    let value: Option<Value> = serde_json::from_slice(&payload.data).ok();
    if value.is_some_and(|value| fits(kind, &value) && !has_nul(&value)) {
        return Ok(());
    }
    let text: Option<String> = serde_json::from_slice(&payload.data).ok();
    let text = text.unwrap_or_else(|| String::from_utf8_lossy(&payload.data).into_owned());
    let shown: String = text.chars().take(80).collect();
    Err(Status::invalid_argument(format!("invalid value for search attribute {name} of type {kind:?}: {shown}")))
}

/// Whether a custom attribute may have this name.
pub(crate) fn check_name(name: &str) -> Result<(), Status> {
    proto::name(name, "search attribute")?;
    let legal = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ' ');
    if name.len() > 255 || !name.chars().all(legal) {
        let text = format!("search attribute {name:?}: letters, digits, '_', '-', '.' and ' ' only, 255 bytes at most");
        return Err(Status::invalid_argument(text));
    }
    if SYSTEM.iter().chain(PREDEFINED).any(|(n, _)| *n == name) || UNSUPPORTED.contains(&name) {
        return Err(Status::invalid_argument(format!("search attribute {name} is reserved by system")));
    }
    Ok(())
}
