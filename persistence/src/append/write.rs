//! Fills the one statement that writes: see [`statement`].

use std::collections::{BTreeMap, HashMap};

use ambient_domain::NameClaim;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, Postgres, Row, postgres::PgArguments, query::Query, types::Json};

use super::{AppendItem, AppendPart, Failure, item::with_body, statement};
use crate::{
    canonical::{GENESIS, before_previous},
    entity::Table,
    error::is_unique_violation,
    idempotency::IdempotencyRecord,
    ids::to_micros,
};

/// What the statement has to check itself, where nothing was locked or claimed before.
#[derive(Default)]
pub(super) struct Unclaimed<'a> {
    /// Projects that must be active.
    pub(super) projects: Vec<&'a str>,
    /// Records whose key must be free.
    pub(super) records: Vec<&'a IdempotencyRecord>,
}

/// Last seq of each live log that was written.
pub(super) type LastSeqs = HashMap<String, i64>;

/// Writes everything of the items. None when something is not as expected: then the transaction has to be rolled back.
pub(super) async fn all(
    tx: &mut PgConnection,
    items: &[&AppendItem],
    unclaimed: &Unclaimed<'_>,
) -> Result<Option<LastSeqs>, Failure> {
    let parts: Vec<&AppendPart> = items.iter().flat_map(|item| &item.parts).collect();
    let tables: BTreeMap<u8, (&'static str, &'static Table)> =
        parts.iter().map(|part| (part.table.lock_rank, (part.kind, part.table))).collect();
    let tables: Vec<_> = tables.into_values().collect();
    let logs = Logs::of(items);
    let query = sqlx::query(AssertSqlSafe(statement::sql(&tables)));
    let query = bind_operations(query.bind(&unclaimed.projects), &parts);
    let query = logs.bind(query);
    let query = bind_effects(query, &parts).bind(Json(unclaimed.records.iter().map(|r| r.row()).collect::<Vec<_>>()));
    let query = tables.iter().fold(query, |query, (_, table)| bind_rows(query, table, &parts));
    let row = match query.fetch_one(tx).await {
        // Another transaction has created the same entity meanwhile.
        Err(error) if is_unique_violation(&error) && creates(&parts) && is_about_creation(&error) => return Ok(None),
        other => other?,
    };
    let (parts, records) = (count(parts.len()), count(unclaimed.records.len()));
    let written = (row.try_get("operations")?, row.try_get("rows")?, row.try_get("records")?);
    if written != (parts, parts, records) {
        return Ok(None);
    }
    let Json(mut last_seqs) = row.try_get::<Json<LastSeqs>, _>("last_seqs")?;
    last_seqs.retain(|session_id, _| logs.counts.get(session_id.as_str()).is_some_and(|(n, _)| *n > 0));
    Ok(Some(last_seqs))
}

fn creates(parts: &[&AppendPart]) -> bool {
    parts.iter().any(|part| part.expected() == 0)
}

fn is_about_creation(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(sqlx::error::DatabaseError::constraint);
    matches!(constraint, Some("operations_pkey" | "session_streams_pkey" | "session_runtime_pkey"))
}

fn count(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

type PgQuery<'q> = Query<'q, Postgres, PgArguments>;

fn bind_operations<'q>(query: PgQuery<'q>, parts: &[&'q AppendPart]) -> PgQuery<'q> {
    macro_rules! column {
        ($part:ident => $value:expr) => {
            parts.iter().map(|$part| $value).collect::<Vec<_>>()
        };
    }
    query
        .bind(column!(p => p.entity_id.as_str()))
        .bind(column!(p => p.context.operation_id.as_str()))
        .bind(column!(p => p.kind))
        .bind(column!(p => p.version))
        .bind(column!(p => p.project_id.as_str()))
        .bind(column!(p => p.command))
        .bind(column!(p => p.schema_version))
        .bind(column!(p => p.input.as_slice()))
        .bind(column!(p => p.events.as_slice()))
        .bind(column!(p => p.context_bytes.as_slice()))
        .bind(column!(p => p.context.principal.as_str()))
        .bind(column!(p => p.metadata.correlation_id.as_str()))
        .bind(column!(p => p.metadata.causation_id.as_deref()))
        .bind(column!(p => p.metadata.trace_parent.as_deref()))
        .bind(column!(p => to_micros(p.context.now)))
        .bind(column!(p => p.hashed()))
        .bind(&GENESIS[..])
        .bind(before_previous())
}

/// What goes into the live logs.
struct Logs<'a> {
    /// Events of each session, and whether its log begins with them.
    counts: BTreeMap<&'a str, (i64, bool)>,
    events: Vec<Value>,
    /// Sessions with a message: messages are activity; one of a person wakes a session as the agent's own events do.
    active: Vec<&'a str>,
}

impl<'a> Logs<'a> {
    fn of(items: &[&'a AppendItem]) -> Self {
        let mut logs = Self { counts: BTreeMap::new(), events: Vec::new(), active: Vec::new() };
        for item in items {
            for part in item.parts.iter().filter(|part| part.has_live_log) {
                logs.add(part, &item.bodies);
            }
        }
        logs
    }

    /// An entity is in a batch once, so its events are those of one part.
    fn add(&mut self, part: &'a AppendPart, bodies: &[String]) {
        let (n, is_new) = (part.live.len(), part.expected() == 0);
        if n > 0 || is_new {
            self.counts.insert(&part.entity_id, (count(n), is_new));
        }
        for (place, event) in part.live.iter().enumerate() {
            self.events.push(json!({
                "session_id": part.entity_id,
                "from_end": n - place,
                "at": to_micros(part.context.now),
                "type": event.event_type,
                "data": with_body(event.data.clone(), bodies),
                "message_id": event.message_id,
                "run": event.data.get("run").and_then(Value::as_i64).or(part.live_run),
                "operation_id": part.context.operation_id,
            }));
            if event.message_id.is_some() {
                self.active.push(&part.entity_id);
            }
        }
    }

    fn bind<'q>(&self, query: PgQuery<'q>) -> PgQuery<'q>
    where
        'a: 'q,
    {
        query
            .bind(self.counts.keys().copied().collect::<Vec<&'a str>>())
            .bind(self.counts.values().map(|(n, _)| *n).collect::<Vec<_>>())
            .bind(self.counts.values().map(|(_, is_new)| *is_new).collect::<Vec<_>>())
            .bind(Json(self.events.clone()))
            .bind(self.active.clone())
    }
}

/// Effects, and names given back.
fn bind_effects<'q>(query: PgQuery<'q>, parts: &[&'q AppendPart]) -> PgQuery<'q> {
    let effects = || {
        parts
            .iter()
            .flat_map(|p| p.effects.iter().map(|effect| (p.context.operation_id.as_str(), &effect.0, &effect.1)))
    };
    let released: Vec<(&str, &str, &str)> =
        parts.iter().flat_map(|part| part.names.iter().filter_map(|claim| released(claim, &part.entity_id))).collect();
    query
        .bind(effects().map(|(operation_id, _, _)| operation_id).collect::<Vec<_>>())
        .bind(effects().map(|(_, workflow_id, _)| workflow_id.as_str()).collect::<Vec<_>>())
        .bind(effects().map(|(_, _, effect)| effect).collect::<Vec<_>>())
        .bind(released.iter().map(|(scope, _, _)| *scope).collect::<Vec<_>>())
        .bind(released.iter().map(|(_, name, _)| *name).collect::<Vec<_>>())
        .bind(released.iter().map(|(_, _, id)| *id).collect::<Vec<_>>())
}

fn released<'a>(claim: &'a NameClaim, entity_id: &'a str) -> Option<(&'a str, &'a str, &'a str)> {
    match claim {
        NameClaim::Release { scope, name } => Some((scope, name, entity_id)),
        NameClaim::Claim { .. } => None,
    }
}

/// Rows of a table: those to create, those to change.
fn bind_rows<'q>(query: PgQuery<'q>, table: &'static Table, parts: &[&AppendPart]) -> PgQuery<'q> {
    let rows = parts.iter().filter(|part| part.table == table);
    let (created, changed): (Vec<&AppendPart>, Vec<&AppendPart>) = rows.copied().partition(|part| part.expected() == 0);
    let json = |parts: Vec<&AppendPart>| Json(parts.into_iter().map(AppendPart::full_row).collect::<Vec<_>>());
    query.bind(json(created)).bind(json(changed))
}
