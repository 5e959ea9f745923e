//! Fills the statement that writes (see [`statement`](super::statement)) and runs it.

use std::collections::HashMap;

use sqlx::{PgConnection, Postgres, Row as _, postgres::PgArguments, query::Query};

use super::{
    AppendPart,
    statement::{Sections, text},
};
use crate::{error::is_unique_violation, idempotency::IdempotencyRecord};

/// A part, with the record to be written with it.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) part: &'a AppendPart,
    pub(super) record: Option<&'a IdempotencyRecord>,
}

/// Entities that were written, each with the last seq of its live log if that was written to.
pub(super) type Written = HashMap<String, Option<i64>>;

/// Writes parts of one table, none of an entity twice, if `projects` are active. In id order, so that all who write the same
/// entities lock them in the same order.
///
/// # Errors
/// When nothing was written.
pub(super) async fn write(
    connection: &mut PgConnection,
    mut lines: Vec<Line<'_>>,
    projects: &[&str],
) -> Result<Written, sqlx::Error> {
    let Some(first) = lines.first() else { return Ok(Written::new()) };
    let (kind, table) = (first.part.kind, first.part.table);
    lines.sort_unstable_by(|a, b| a.part.entity_id.cmp(&b.part.entity_id));
    let sections = sections(&lines, !projects.is_empty());
    let query = bind(sqlx::query(text(kind, table, sections)), &lines, sections);
    let query = if sections.guarded { query.bind(projects) } else { query };
    let row = match query.fetch_one(connection).await {
        // Another transaction has created the same entity meanwhile.
        Err(error) if sections.created && is_about_creation(&error) => return Ok(Written::new()),
        other => other?,
    };
    let mut written: Written = row.try_get::<Vec<String>, _>("ids")?.into_iter().map(|id| (id, None)).collect();
    let (streams, last_seqs): (Vec<String>, Vec<i64>) = (row.try_get("streams")?, row.try_get("last_seqs")?);
    written.extend(streams.into_iter().zip(last_seqs.into_iter().map(Some)));
    Ok(written)
}

fn sections(lines: &[Line<'_>], guarded: bool) -> Sections {
    let any = |wanted: fn(&Line<'_>) -> bool| lines.iter().any(wanted);
    Sections {
        created: any(|line| line.part.creates()),
        narrow: any(|line| !line.part.creates() && line.part.row.columns.is_none()),
        wide: any(|line| !line.part.creates() && line.part.row.columns.is_some()),
        live: any(|line| line.part.live.count > 0 || (line.part.creates() && line.part.has_live_log)),
        effects: any(|line| line.part.has_effects()),
        records: any(|line| line.record.is_some()),
        guarded,
    }
}

fn is_about_creation(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(sqlx::error::DatabaseError::constraint);
    is_unique_violation(error)
        && matches!(constraint, Some("operations_pkey" | "session_streams_pkey" | "session_runtime_pkey"))
}

/// In the order of [`Sections`]' columns.
fn bind<'q>(
    query: Query<'q, Postgres, PgArguments>,
    lines: &[Line<'q>],
    sections: Sections,
) -> Query<'q, Postgres, PgArguments> {
    macro_rules! column {
        ($line:ident => $value:expr) => {
            lines.iter().map(|$line| $value).collect::<Vec<_>>()
        };
    }
    let mut query = query
        .bind(column!(l => l.part.entity_id.as_str()))
        .bind(column!(l => l.part.version))
        .bind(column!(l => l.part.project_id.as_str()))
        .bind(column!(l => l.part.command))
        .bind(column!(l => l.part.schema_version))
        .bind(column!(l => l.part.operation_id.as_str()))
        .bind(column!(l => l.part.at))
        .bind(column!(l => &l.part.previous_hash[..]))
        .bind(column!(l => &l.part.hash[..]))
        .bind(column!(l => l.part.row.state.as_str()))
        .bind(column!(l => l.part.input.as_slice()))
        .bind(column!(l => l.part.events.as_slice()))
        .bind(column!(l => l.part.context_bytes.as_slice()))
        .bind(column!(l => l.part.principal.as_str()))
        .bind(column!(l => l.part.metadata.correlation_id.as_str()))
        .bind(column!(l => l.part.metadata.causation_id.as_deref()))
        .bind(column!(l => l.part.metadata.trace_parent.as_deref()));
    if sections.own() {
        query = query.bind(column!(l => l.part.row.columns.as_deref())).bind(column!(l => l.part.row.spec.as_deref()));
    }
    if sections.live {
        query = query
            .bind(column!(l => l.part.live.events.as_deref()))
            .bind(column!(l => l.part.live.count))
            .bind(column!(l => l.part.live.messages));
    }
    if sections.effects {
        query = query.bind(column!(l => l.part.effects.as_deref()));
    }
    if sections.records {
        query = query
            .bind(column!(l => l.record.map(|record| record.key.method.as_str())))
            .bind(column!(l => l.record.map(|record| record.key.path.as_str())))
            .bind(column!(l => l.record.map(|record| record.key.key.as_str())))
            .bind(column!(l => l.record.map(|record| record.request_hash.as_slice())));
    }
    query
}
