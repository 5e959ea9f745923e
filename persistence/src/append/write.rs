//! The writes of an append: one statement a table, for all items together.

use std::collections::{BTreeMap, HashMap};

use ambient_domain::NameClaim;
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, types::Json};

use super::{AppendPart, Failure, item::with_body, transaction::Batch};
use crate::{
    entity::{COMMON, Table},
    ids::to_micros,
};

/// Writes everything. Returns the last seq of each live log, or none when an entity to be created exists.
pub(super) async fn all(tx: &mut PgConnection, batch: &mut Batch<'_>) -> Result<Option<HashMap<String, i64>>, Failure> {
    let hashes: Vec<Vec<u8>> = batch.open_parts().map(|part| part.hash(batch.previous_hash(part))).collect();
    if !rows(tx, batch, &hashes).await? {
        return Ok(None);
    }
    operations(tx, batch, &hashes).await?;
    let last_seqs = live_events(tx, batch).await?;
    effects(tx, batch).await?;
    released_names(tx, batch).await?;
    Ok(Some(last_seqs))
}

/// Rows, created ones first. False when one exists already.
async fn rows(tx: &mut PgConnection, batch: &Batch<'_>, hashes: &[Vec<u8>]) -> Result<bool, Failure> {
    let mut created: BTreeMap<u8, (&'static Table, Vec<Value>)> = BTreeMap::new();
    let mut changed: BTreeMap<u8, (&'static Table, Vec<Value>)> = BTreeMap::new();
    let mut streams = Vec::new();
    for (part, hash) in batch.open_parts().zip(hashes) {
        let map = if part.expected() == 0 { &mut created } else { &mut changed };
        map.entry(part.table.lock_rank).or_insert((part.table, Vec::new())).1.push(part.full_row(hash));
        if part.expected() == 0 && part.has_live_log {
            streams.push(part.entity_id.as_str());
        }
    }
    for (table, rows) in created.into_values() {
        let expected = rows.len() as u64;
        let columns = columns(table).join(", ");
        let sql = format!(
            "insert into {0} ({columns}) select {columns} from jsonb_populate_recordset(null::{0}, $1) r
             order by r.id on conflict (id) do nothing",
            table.name
        );
        if sqlx::query(AssertSqlSafe(sql)).bind(Json(rows)).execute(&mut *tx).await?.rows_affected() != expected {
            return Ok(false);
        }
    }
    for (table, rows) in changed.into_values() {
        let columns = columns(table);
        let values: Vec<String> = columns.iter().map(|column| format!("r.{column}")).collect();
        let sql = format!(
            "update {0} t set ({1}) = row({2}) from jsonb_populate_recordset(null::{0}, $1) r where t.id = r.id",
            table.name,
            columns.join(", "),
            values.join(", ")
        );
        sqlx::query(AssertSqlSafe(sql)).bind(Json(rows)).execute(&mut *tx).await?;
    }
    if !streams.is_empty() {
        new_streams(tx, &streams).await?;
    }
    Ok(true)
}

fn columns(table: &Table) -> Vec<&'static str> {
    COMMON.iter().chain(table.columns).copied().collect()
}

async fn new_streams(tx: &mut PgConnection, ids: &[&str]) -> Result<(), sqlx::Error> {
    let sql = "with s as (insert into ambient.session_streams (session_id) select unnest($1::text[]))
               insert into ambient.session_runtime (session_id, last_activity_at) select unnest($1::text[]), now()";
    sqlx::query(sql).bind(ids).execute(tx).await?;
    Ok(())
}

async fn operations(tx: &mut PgConnection, batch: &Batch<'_>, hashes: &[Vec<u8>]) -> Result<(), sqlx::Error> {
    let parts: Vec<&AppendPart> = batch.open_parts().collect();
    let previous: Vec<&[u8]> = parts.iter().map(|p| batch.previous_hash(p)).collect();
    let times: Vec<DateTime<Utc>> = parts.iter().map(|p| to_micros(p.context.now)).collect();
    macro_rules! column {
        ($part:ident => $value:expr) => {
            parts.iter().map(|$part| $value).collect::<Vec<_>>()
        };
    }
    let sql = "insert into ambient.operations (id, entity_kind, entity_id, version, project_id, command, schema_version,
                   input, events, context, principal, correlation_id, causation_id, trace_parent, occurred_at,
                   previous_hash, hash)
               select * from unnest($1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::integer[],
                   $8::bytea[], $9::bytea[], $10::bytea[], $11::text[], $12::text[], $13::text[], $14::text[],
                   $15::timestamptz[], $16::bytea[], $17::bytea[])";
    sqlx::query(sql)
        .bind(column!(p => p.context.operation_id.as_str()))
        .bind(column!(p => p.kind))
        .bind(column!(p => p.entity_id.as_str()))
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
        .bind(times)
        .bind(previous)
        .bind(hashes)
        .execute(tx)
        .await?;
    Ok(())
}

/// Live events, with seq from the stream's row: its lock makes commit order equal seq order.
async fn live_events(tx: &mut PgConnection, batch: &Batch<'_>) -> Result<HashMap<String, i64>, sqlx::Error> {
    let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
    for part in batch.open_parts().filter(|part| part.has_live_events()) {
        *counts.entry(&part.entity_id).or_default() += i64::try_from(part.live.len()).unwrap_or(i64::MAX);
    }
    if counts.is_empty() {
        return Ok(HashMap::new());
    }
    let ids: Vec<&str> = counts.keys().copied().collect();
    let sql = "update ambient.session_streams s set next_seq = s.next_seq + c.n
               from unnest($1::text[], $2::bigint[]) as c(id, n) where s.session_id = c.id
               returning s.session_id, s.next_seq - c.n";
    let counts: Vec<i64> = counts.into_values().collect();
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).bind(&ids).bind(counts).fetch_all(&mut *tx).await?;
    let mut next: HashMap<String, i64> = rows.into_iter().collect();
    let mut events = Events::default();
    for item in batch.open() {
        for part in item.parts.iter().filter(|part| part.has_live_events()) {
            events.add(part, &item.bodies, next.entry(part.entity_id.clone()).or_insert(1));
        }
    }
    events.insert(tx).await?;
    next.values_mut().for_each(|next| *next -= 1);
    Ok(next)
}

/// Columns of new live events.
#[derive(Default)]
struct Events<'a> {
    session: Vec<&'a str>,
    seq: Vec<i64>,
    at: Vec<DateTime<Utc>>,
    event_type: Vec<&'a str>,
    data: Vec<Value>,
    message: Vec<Option<&'a str>>,
    run: Vec<Option<i64>>,
    operation: Vec<&'a str>,
    active: Vec<&'a str>,
}

impl<'a> Events<'a> {
    fn add(&mut self, part: &'a AppendPart, bodies: &[String], next_seq: &mut i64) {
        for event in &part.live {
            self.session.push(&part.entity_id);
            self.seq.push(*next_seq);
            self.at.push(to_micros(part.context.now));
            self.event_type.push(&event.event_type);
            self.run.push(event.data.get("run").and_then(Value::as_i64).or(part.live_run));
            self.data.push(with_body(event.data.clone(), bodies));
            self.message.push(event.message_id.as_deref());
            self.operation.push(&part.context.operation_id);
            if event.message_id.is_some() {
                self.active.push(&part.entity_id);
            }
            *next_seq += 1;
        }
    }

    async fn insert(self, tx: &mut PgConnection) -> Result<(), sqlx::Error> {
        let sql = "insert into ambient.session_events (session_id, seq, at, type, data, message_id, run, operation_id)
                   select * from unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::text[], $5::jsonb[], $6::text[],
                       $7::bigint[], $8::text[])";
        sqlx::query(sql)
            .bind(self.session)
            .bind(self.seq)
            .bind(self.at)
            .bind(self.event_type)
            .bind(self.data)
            .bind(self.message)
            .bind(self.run)
            .bind(self.operation)
            .execute(&mut *tx)
            .await?;
        if !self.active.is_empty() {
            // Messages are activity; a message of a person wakes a session as the agent's own events do.
            sqlx::query("update ambient.session_runtime set last_activity_at = now() where session_id = any($1)")
                .bind(self.active)
                .execute(tx)
                .await?;
        }
        Ok(())
    }
}

/// Effects, in order: their position is the order in which they are carried out.
async fn effects(tx: &mut PgConnection, batch: &Batch<'_>) -> Result<(), sqlx::Error> {
    let (mut kinds, mut ids, mut operations, mut workflows, mut values) = (vec![], vec![], vec![], vec![], vec![]);
    for part in batch.open_parts() {
        for (workflow_id, effect) in &part.effects {
            kinds.push(part.kind);
            ids.push(part.entity_id.as_str());
            operations.push(part.context.operation_id.as_str());
            workflows.push(workflow_id.as_str());
            values.push(effect);
        }
    }
    if kinds.is_empty() {
        return Ok(());
    }
    let sql = "insert into ambient.outbox (entity_kind, entity_id, operation_id, workflow_id, effect)
               select kind, id, operation, workflow, effect
               from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[])
                   with ordinality as e(kind, id, operation, workflow, effect, place)
               order by place";
    sqlx::query(sql).bind(kinds).bind(ids).bind(operations).bind(workflows).bind(values).execute(tx).await?;
    Ok(())
}

async fn released_names(tx: &mut PgConnection, batch: &Batch<'_>) -> Result<(), sqlx::Error> {
    for part in batch.open_parts() {
        for claim in &part.names {
            let NameClaim::Release { scope, name } = claim else { continue };
            sqlx::query("delete from ambient.names where scope = $1 and name = $2 and entity_id = $3")
                .bind(scope)
                .bind(name)
                .bind(&part.entity_id)
                .execute(&mut *tx)
                .await?;
        }
    }
    Ok(())
}
