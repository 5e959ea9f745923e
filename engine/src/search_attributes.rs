//! Search attributes: which there are, of which type, and what may be written under their names.
//!
//! Custom ones are registered by an operator (`OperatorService.AddSearchAttributes`) and kept in the database; a type never changes, so
//! what a process has learnt stays true. A value under a name that is not registered, or of another type, is refused before anything
//! is written, as on Temporal's servers.

use std::{
    collections::HashMap,
    sync::{PoisonError, RwLock},
};

use chrono::DateTime;
use serde_json::Value;
use temporalio_common::protos::temporal::api::{
    command::v1::{Command, command::Attributes as C},
    common::v1::{Payload, SearchAttributes},
    enums::v1::IndexedValueType as Type,
};
use tonic::Status;

use crate::{
    engine::Engine,
    proto::{self, db},
};

/// Custom attributes, at most.
pub(crate) const MAX_CUSTOM: i64 = 100;
/// As on Temporal's servers: attributes of a run, bytes of a value, bytes of all.
const MAX_KEYS: usize = 100;
const MAX_VALUE_BYTES: usize = 2 * 1024;
const MAX_TOTAL_BYTES: usize = 40 * 1024;

/// What the engine itself knows of every run: may be asked for, not set.
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

/// System attributes of Temporal's that this engine does not keep.
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
    fn get(&self, name: &str) -> Option<Type> {
        let predefined = PREDEFINED.iter().find(|(n, _)| *n == name).map(|(_, t)| *t);
        predefined.or_else(|| self.0.read().unwrap_or_else(PoisonError::into_inner).get(name).copied())
    }
}

/// Attributes that are registered without anybody having done it: system and predefined ones.
pub(crate) fn built_in() -> impl Iterator<Item = (&'static str, Type)> {
    SYSTEM.iter().chain(PREDEFINED).copied()
}

/// The values to search by, as JSON; none when there are none. What cannot be stored as JSON is left out.
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
        // Of no attribute.
        Value::Object(_) => true,
        _ => false,
    }
}

fn is_null(payload: &Payload) -> bool {
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

fn check_value(name: &str, kind: Type, payload: &Payload) -> Result<(), Status> {
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

/// The attributes a command sets, on whichever run.
fn set_by(command: &mut Command) -> Option<&mut SearchAttributes> {
    match command.attributes.as_mut()? {
        C::UpsertWorkflowSearchAttributesCommandAttributes(a) => a.search_attributes.as_mut(),
        C::ContinueAsNewWorkflowExecutionCommandAttributes(a) => a.search_attributes.as_mut(),
        C::StartChildWorkflowExecutionCommandAttributes(a) => a.search_attributes.as_mut(),
        _ => None,
    }
}

impl Engine {
    /// The type of a custom or predefined attribute.
    pub(crate) async fn attribute_type(&self, name: &str) -> Result<Option<Type>, Status> {
        if let Some(known) = self.inner.attributes.get(name) {
            return Ok(Some(known));
        }
        self.custom_attributes().await?;
        Ok(self.inner.attributes.get(name))
    }

    /// The custom attributes, as registered now.
    pub(crate) async fn custom_attributes(&self) -> Result<HashMap<String, Type>, Status> {
        let rows: Vec<(String, i16)> = sqlx::query_as("select name, type from engine.search_attributes")
            .fetch_all(&self.inner.store.pool)
            .await
            .map_err(db)?;
        let types = rows.into_iter().filter_map(|(name, kind)| Some((name, Type::try_from(i32::from(kind)).ok()?)));
        let types: HashMap<String, Type> = types.collect();
        self.inner.attributes.0.write().unwrap_or_else(PoisonError::into_inner).clone_from(&types);
        Ok(types)
    }

    /// Checks the attributes of a request that starts a run, and adds the types of their values: that is how histories show them.
    pub(crate) async fn accept_search_attributes(
        &self,
        attributes: Option<&mut SearchAttributes>,
    ) -> Result<(), Status> {
        let Some(attributes) = attributes else { return Ok(()) };
        self.check_search_attributes(attributes).await?;
        self.with_types(Some(attributes)).await
    }

    /// Refuses (`InvalidArgument`) attributes that are not registered, the engine's own, or values of another type.
    async fn check_search_attributes(&self, attributes: &SearchAttributes) -> Result<(), Status> {
        let fields = &attributes.indexed_fields;
        if fields.len() > MAX_KEYS {
            let (count, max) = (fields.len(), MAX_KEYS);
            return Err(Status::invalid_argument(format!("number of search attributes {count} exceeds limit {max}")));
        }
        let total: usize = fields.iter().map(|(name, payload)| name.len() + payload.data.len()).sum();
        if total > MAX_TOTAL_BYTES {
            let text = format!("total size of search attributes {total} exceeds size limit {MAX_TOTAL_BYTES}");
            return Err(Status::invalid_argument(text));
        }
        let mut names: Vec<&String> = fields.keys().collect();
        names.sort();
        for name in names {
            if SYSTEM.iter().any(|(n, _)| n == name) || UNSUPPORTED.contains(&name.as_str()) {
                let text = format!("{name} attribute can't be set in SearchAttributes");
                return Err(Status::invalid_argument(text));
            }
            let Some(kind) = self.attribute_type(name).await? else {
                let namespace = &self.inner.options.namespace;
                return Err(Status::invalid_argument(format!(
                    "Namespace {namespace} has no mapping defined for search attribute {name}"
                )));
            };
            match fields.get(name) {
                Some(payload) if !is_null(payload) => check_value(name, kind, payload)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// As [`Self::accept_search_attributes`], for the commands of a workflow task: why the task has failed
    /// (`BAD_SEARCH_ATTRIBUTES`), if it has.
    pub(crate) async fn refused_search_attributes(&self, commands: &mut [Command]) -> Result<Option<String>, Status> {
        for attributes in commands.iter_mut().filter_map(set_by) {
            match self.accept_search_attributes(Some(attributes)).await {
                Err(status) if status.code() == tonic::Code::InvalidArgument => {
                    return Ok(Some(status.message().to_owned()));
                }
                checked => checked?,
            }
        }
        Ok(None)
    }

    /// Adds to each value what type it has, which clients need to read it.
    pub(crate) async fn with_types(&self, attributes: Option<&mut SearchAttributes>) -> Result<(), Status> {
        for (name, payload) in attributes.into_iter().flat_map(|a| a.indexed_fields.iter_mut()) {
            if !payload.metadata.contains_key("type")
                && let Some(kind) = self.attribute_type(name).await?
            {
                payload.metadata.insert("type".to_owned(), format!("{kind:?}").into_bytes());
            }
        }
        Ok(())
    }
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
