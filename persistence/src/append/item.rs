//! What is appended, prepared before the transaction begins.

use ambient_domain::{Context, Effect, Guard, LiveEvent, NameClaim};
use serde_json::{Map, Value};

use crate::{
    canonical,
    entity::{StoredEntity, Table},
    error::StoreError,
    idempotency::IdempotencyRecord,
    ids::to_micros,
};

/// One or more changes, all or nothing.
#[derive(Debug, Clone, Default)]
pub struct AppendItem {
    /// Entities; at least one, none twice.
    pub parts: Vec<AppendPart>,
    /// Remembered with the change, so that the request can be repeated.
    pub idempotency: Option<IdempotencyRecord>,
    /// Conditions outside the entities.
    pub guards: Vec<Guard>,
    /// Texts of messages: put into `data.text` of the live event that names their hash and has no text.
    pub bodies: Vec<String>,
}

/// Where a command comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Metadata {
    /// Follows a request through operations, workflows and logs.
    pub correlation_id: String,
    /// Operation or workflow that caused this one.
    pub causation_id: Option<String>,
    /// W3C trace context.
    pub trace_parent: Option<String>,
}

/// A change of one entity: operation, row and what follows.
#[derive(Debug, Clone)]
pub struct AppendPart {
    pub(super) kind: &'static str,
    pub(super) table: &'static Table,
    pub(super) has_live_log: bool,
    pub(super) entity_id: String,
    pub(super) project_id: String,
    pub(super) version: i64,
    pub(super) command: &'static str,
    pub(super) schema_version: i32,
    pub(super) input: Vec<u8>,
    pub(super) events: Vec<u8>,
    pub(super) context_bytes: Vec<u8>,
    pub(super) context: Context,
    pub(super) metadata: Metadata,
    /// The entity's columns and `state`; bookkeeping columns are added by the append.
    pub(super) row: Map<String, Value>,
    pub(super) effects: Vec<(String, Value)>,
    pub(super) names: Vec<NameClaim>,
    pub(super) live: Vec<LiveEvent>,
    pub(super) live_run: Option<i64>,
}

impl AppendPart {
    /// Prepares the operation that leads from `before` to `after`.
    ///
    /// # Errors
    /// NUL in a text, or a value that would not be read back as it is.
    pub fn new<E: StoredEntity>(
        before: Option<&E>,
        after: &E,
        command: &E::Command,
        events: &[E::Event],
        context: &Context,
        metadata: &Metadata,
    ) -> Result<Self, StoreError> {
        let events_vec = events.to_vec();
        let input = canonical::to_bytes("input", command)?;
        let events_bytes = canonical::to_bytes("events", &events_vec)?;
        let context_bytes = canonical::to_bytes("context", context)?;
        refuse_nul_in_metadata(metadata)?;
        let state = serde_json::to_value(after).map_err(|_| StoreError::Unfaithful { field: "state" })?;
        let mut row = after.columns();
        row.insert("state".to_owned(), state);
        let effect = |effect: &Effect| {
            let value = serde_json::to_value(effect).map_err(|_| StoreError::Unfaithful { field: "effect" })?;
            Ok((effect.workflow_id().to_owned(), value))
        };
        Ok(Self {
            kind: E::KIND,
            table: E::TABLE,
            has_live_log: E::HAS_LIVE_LOG,
            entity_id: after.id().to_owned(),
            project_id: after.project_id().to_owned(),
            version: before.map_or(0, E::version) + 1,
            command: E::command_name(command),
            schema_version: E::SCHEMA_VERSION,
            input,
            events: events_bytes,
            context_bytes,
            context: context.clone(),
            metadata: metadata.clone(),
            row,
            effects: after.effects(events, context).iter().map(effect).collect::<Result<_, StoreError>>()?,
            names: after.names(events),
            live: if E::HAS_LIVE_LOG { after.live(events) } else { Vec::new() },
            live_run: after.live_run(),
        })
    }

    /// Whether live events go with it.
    #[must_use]
    pub fn has_live_events(&self) -> bool {
        !self.live.is_empty()
    }

    /// Whether effects go with it.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        !self.effects.is_empty()
    }

    /// Entity id.
    #[must_use]
    pub fn entity_id(&self) -> &str {
        &self.entity_id
    }

    pub(super) fn expected(&self) -> i64 {
        self.version - 1
    }

    /// What the operation's hash covers after the previous hash, which is known only under the row's lock.
    pub(super) fn hashed(&self) -> Vec<u8> {
        canonical::Hashed {
            id: &self.context.operation_id,
            entity_kind: self.kind,
            entity_id: &self.entity_id,
            version: self.version,
            project_id: &self.project_id,
            command: self.command,
            schema_version: self.schema_version,
            input: &self.input,
            events: &self.events,
            context: &self.context_bytes,
            principal: &self.context.principal,
            correlation_id: &self.metadata.correlation_id,
            causation_id: self.metadata.causation_id.as_deref(),
            trace_parent: self.metadata.trace_parent.as_deref(),
            occurred_at: to_micros(self.context.now).timestamp_micros(),
        }
        .after_previous()
    }

    /// The whole row, as the table takes it, but for `last_hash`.
    pub(super) fn full_row(&self) -> Value {
        let mut row = self.row.clone();
        let mut set = |column: &str, value: Value| row.insert(column.to_owned(), value);
        set("id", self.entity_id.clone().into());
        set("project_id", self.project_id.clone().into());
        set("version", self.version.into());
        set("schema_version", self.schema_version.into());
        set("last_operation_id", self.context.operation_id.clone().into());
        Value::Object(row)
    }
}

fn refuse_nul_in_metadata(metadata: &Metadata) -> Result<(), StoreError> {
    canonical::text("correlation_id", &metadata.correlation_id)?;
    canonical::text("causation_id", metadata.causation_id.as_deref().unwrap_or_default())?;
    canonical::text("trace_parent", metadata.trace_parent.as_deref().unwrap_or_default())
}

/// Puts the bodies of messages where only their hash is.
pub(super) fn with_body(mut data: Value, bodies: &[String]) -> Value {
    if data.get("text").is_some() {
        return data;
    }
    let body = data
        .get("sha256")
        .and_then(Value::as_str)
        .and_then(|hash| bodies.iter().find(|body| canonical::sha256_hex(body.as_bytes()) == hash));
    if let Some(body) = body {
        data["text"] = Value::String(body.clone());
    }
    data
}
