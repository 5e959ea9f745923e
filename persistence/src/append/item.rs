//! What is appended, prepared before it is queued: the writer has nothing left to compute.

use std::borrow::Cow;

use ambient_domain::{Context, Effect, Guard, LiveEvent, NameClaim};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::{
    canonical::{self, GENESIS, Hash},
    entity::{StoredEntity, Table},
    error::StoreError,
    idempotency::IdempotencyRecord,
    ids::to_micros,
    load::Current,
};

/// One or more changes, all or nothing.
#[derive(Debug, Clone, Default)]
pub struct AppendItem {
    /// Entities; at least one, none twice.
    pub parts: Vec<AppendPart>,
    /// Stored with the change, so that the request can be repeated.
    pub idempotency: Option<IdempotencyRecord>,
    /// Conditions outside the entities.
    pub guards: Vec<Guard>,
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

/// A decision: the operation that leads from `before` to `after`.
#[derive(Debug)]
pub struct Change<'a, E: StoredEntity> {
    /// The entity that was decided on; none if it is created.
    pub before: Option<&'a Current<E>>,
    /// The entity with all events applied and its new version.
    pub after: &'a E,
    /// The command.
    pub command: &'a E::Command,
    /// The events; at least one.
    pub events: &'a [E::Event],
    /// The context it was decided with.
    pub context: &'a Context,
    /// Where it comes from.
    pub metadata: &'a Metadata,
    /// Texts of messages: put into `data.text` of the live event that names their hash and has no text.
    pub bodies: &'a [String],
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
    pub(super) operation_id: String,
    pub(super) principal: String,
    pub(super) at: DateTime<Utc>,
    pub(super) metadata: Metadata,
    pub(super) previous_hash: Hash,
    pub(super) hash: Hash,
    pub(super) row: Row,
    /// Array of effects, JSON.
    pub(super) effects: Option<String>,
    pub(super) names: Vec<NameClaim>,
    pub(super) live: Live,
}

/// The entity's row, as JSON where it is not a plain value.
#[derive(Debug, Clone)]
pub(super) struct Row {
    /// The entity without its spec.
    pub(super) state: String,
    /// If it differs from the one before.
    pub(super) spec: Option<String>,
    /// The table's own columns, if one other than `updated_at` has changed, or the spec.
    pub(super) columns: Option<String>,
}

/// What goes into the entity's live log.
#[derive(Debug, Clone, Default)]
pub(super) struct Live {
    /// Array of events, JSON.
    pub(super) events: Option<String>,
    pub(super) count: i64,
    /// Messages are activity: a person's message wakes a session just as the agent's own events do.
    pub(super) messages: i64,
}

impl AppendPart {
    /// Prepares a change.
    ///
    /// # Errors
    /// NUL in a text, or a value that would not be read back unchanged.
    pub fn new<E: StoredEntity>(change: &Change<'_, E>) -> Result<Self, StoreError> {
        let Change { before, after, command, events, context, metadata, bodies } = *change;
        let input = canonical::to_bytes("input", command)?;
        let events_bytes = canonical::slice_to_bytes("events", events)?;
        let context_bytes = canonical::to_bytes("context", context)?;
        refuse_nul_in_metadata(metadata)?;
        // They are in no operation, only in the log: one that the database refuses would abort its neighbours' statement too.
        bodies.iter().try_for_each(|body| canonical::text("text", body))?;
        let effects = after.effects(events, context);
        let live = if E::HAS_LIVE_LOG { after.live(events) } else { Vec::new() };
        let mut part = Self {
            kind: E::KIND,
            table: E::TABLE,
            has_live_log: E::HAS_LIVE_LOG,
            entity_id: after.id().to_owned(),
            project_id: after.project_id().to_owned(),
            version: before.map_or(0, |before| before.version()) + 1,
            command: E::command_name(command),
            schema_version: E::SCHEMA_VERSION,
            input,
            events: events_bytes,
            context_bytes,
            operation_id: context.operation_id.clone(),
            principal: context.principal.clone(),
            at: to_micros(context.now),
            metadata: metadata.clone(),
            previous_hash: before.map_or(GENESIS, |before| before.last_hash),
            hash: GENESIS,
            row: row(before.map(|before| &before.state), after)?,
            effects: if effects.is_empty() { None } else { Some(effects_json(&effects)?) },
            names: after.names(events),
            live: Live::of(&live, bodies, after.live_run())?,
        };
        part.hash = part.hashed().hash(&part.previous_hash);
        Ok(part)
    }

    /// Hash of the operation: the entity's `last_hash` afterwards.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// Whether live events go with it.
    #[must_use]
    pub(crate) fn has_live_events(&self) -> bool {
        self.live.count > 0
    }

    /// Whether effects go with it.
    #[must_use]
    pub fn has_effects(&self) -> bool {
        self.effects.is_some()
    }

    /// Entity id.
    #[must_use]
    pub fn entity_id(&self) -> &str {
        &self.entity_id
    }

    pub(super) fn expected(&self) -> i64 {
        self.version - 1
    }

    pub(super) fn creates(&self) -> bool {
        self.version == 1
    }

    fn hashed(&self) -> canonical::Hashed<'_> {
        canonical::Hashed {
            id: &self.operation_id,
            entity_kind: self.kind,
            entity_id: &self.entity_id,
            version: self.version,
            project_id: &self.project_id,
            command: self.command,
            schema_version: self.schema_version,
            input: &self.input,
            events: &self.events,
            context: &self.context_bytes,
            principal: &self.principal,
            correlation_id: &self.metadata.correlation_id,
            causation_id: self.metadata.causation_id.as_deref(),
            trace_parent: self.metadata.trace_parent.as_deref(),
            occurred_at: self.at.timestamp_micros(),
        }
    }
}

fn json<T: Serialize>(field: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|_| StoreError::Unfaithful { field })
}

fn row<E: StoredEntity>(before: Option<&E>, after: &E) -> Result<Row, StoreError> {
    let mut state = serde_json::to_value(after).map_err(|_| StoreError::Unfaithful { field: "state" })?;
    let spec = state.as_object_mut().and_then(|state| state.remove("spec"));
    let spec = spec.filter(|_| before.is_none_or(|before| !after.has_spec_of(before)));
    let columns = after.columns();
    let same = before.is_some_and(|before| same_but_for_time(&before.columns(), &columns));
    Ok(Row {
        state: json("state", &state)?,
        spec: spec.as_ref().map(|spec| json("state", spec)).transpose()?,
        columns: if same && spec.is_none() { None } else { Some(json("state", &columns)?) },
    })
}

fn same_but_for_time(before: &Map<String, Value>, after: &Map<String, Value>) -> bool {
    after.iter().all(|(column, value)| column == "updated_at" || before.get(column) == Some(value))
}

fn effects_json(effects: &[Effect]) -> Result<String, StoreError> {
    #[derive(Serialize)]
    struct Row<'a> {
        workflow_id: &'a str,
        effect: &'a Effect,
    }
    let rows: Vec<_> = effects.iter().map(|effect| Row { workflow_id: effect.workflow_id(), effect }).collect();
    json("effect", &rows)
}

impl Live {
    fn of(events: &[LiveEvent], bodies: &[String], live_run: Option<i64>) -> Result<Self, StoreError> {
        #[derive(Serialize)]
        struct Row<'a> {
            /// The last event of an operation has 1: the stream's next seq is known only when they are written.
            from_end: usize,
            r#type: &'a str,
            data: Cow<'a, Value>,
            message_id: Option<&'a str>,
            run: Option<i64>,
        }
        if events.is_empty() {
            return Ok(Self::default());
        }
        let numbered = events.iter().enumerate();
        let rows = numbered.map(|(place, event)| Row {
            from_end: events.len() - place,
            r#type: &event.event_type,
            data: with_body(&event.data, bodies),
            message_id: event.message_id.as_deref(),
            run: event.data.get("run").and_then(Value::as_i64).or(live_run),
        });
        let rows: Vec<_> = rows.collect();
        Ok(Self {
            events: Some(json("live event", &rows)?),
            count: count(events.len()),
            messages: count(events.iter().filter(|event| event.message_id.is_some()).count()),
        })
    }
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn refuse_nul_in_metadata(metadata: &Metadata) -> Result<(), StoreError> {
    canonical::text("correlation_id", &metadata.correlation_id)?;
    canonical::text("causation_id", metadata.causation_id.as_deref().unwrap_or_default())?;
    canonical::text("trace_parent", metadata.trace_parent.as_deref().unwrap_or_default())
}

/// Inserts a message's body where there is only its hash.
fn with_body<'a>(data: &'a Value, bodies: &[String]) -> Cow<'a, Value> {
    if bodies.is_empty() || data.get("text").is_some() {
        return Cow::Borrowed(data);
    }
    let hash = data.get("sha256").and_then(Value::as_str);
    let is_it = |body: &&String| Some(canonical::sha256_hex(body.as_bytes()).as_str()) == hash;
    let Some(body) = bodies.iter().find(is_it) else { return Cow::Borrowed(data) };
    let mut data = data.clone();
    data["text"] = Value::String(body.clone());
    Cow::Owned(data)
}
