//! The transaction of an item: locks, verdict, claims, writes, in that order.
//!
//! Lock order: rows of projects, rows of the other tables (by `lock_rank`, then id), streams, names, idempotency keys. Every
//! transaction in this crate that holds more than one of these follows it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use ambient_domain::{Guard, NameClaim, project::Project};
use ambient_postgres::{Lane, Lanes};
use sqlx::{AssertSqlSafe, PgConnection, Row, raw_sql};

use super::{
    AppendError, AppendItem, AppendPart, AppendResult, Appended, Failure,
    write::{Line, write},
};
use crate::entity::Table;

/// Tables by lock rank, with what is done to each.
type ByTable<T> = BTreeMap<u8, (&'static Table, T)>;

/// State of the locked rows.
type Versions = HashMap<(&'static str, String), i64>;

/// Appends an item under locks.
pub(super) async fn run(lanes: &Lanes, item: &AppendItem) -> Result<AppendResult, Failure> {
    let mut lane = lanes.take().await?;
    raw_sql("begin").execute(lane.connection()).await?;
    run_in(lane, item).await
}

/// The same in a transaction that has begun, and may hold the lock of the item's row. A lane that is dropped midway is
/// closed, and everything is rolled back.
pub(super) async fn run_in(mut lane: Lane, item: &AppendItem) -> Result<AppendResult, Failure> {
    let tx = lane.connection();
    let mut refused = refuse(tx, item).await?;
    let mut last_seq = None;
    if refused.is_none() {
        match write_all(tx, item).await? {
            Some(seq) => last_seq = seq,
            // A created entity existed when its row was written: another transaction was faster.
            None => refused = Some(lost_creation(item)),
        }
    }
    if let Some(error) = refused {
        raw_sql("rollback").execute(lane.connection()).await?;
        let is_in = is_in(lane.connection(), item).await;
        return Ok(if lane.finish(is_in)? { Ok(repeated()) } else { Err(error) });
    }
    let committed = raw_sql("commit").execute(lane.connection()).await;
    lane.finish(committed).map_err(|error| Failure::InCommit(error.to_string()))?;
    Ok(Ok(Appended { repeated: false, last_seq }))
}

/// Takes the locks and makes the claims, or says what prevents it.
async fn refuse(tx: &mut PgConnection, item: &AppendItem) -> Result<Option<AppendError>, Failure> {
    let (versions, active) = lock_rows(tx, item).await?;
    // The version comes first: only for a decision on the current state is it worth checking the conditions.
    let actual = |part: &AppendPart| versions.get(&(part.kind, part.entity_id.clone())).copied().unwrap_or(0);
    if let Some(part) = item.parts.iter().find(|part| actual(part) != part.expected()) {
        return Ok(Some(conflict(part, actual(part))));
    }
    let ends = lock_streams(tx, item).await?;
    let holds = |guard: &&Guard| match guard {
        Guard::ProjectActive { project_id } => active.contains(project_id),
        Guard::LogNotNewer { session_id, seq } => ends.get(session_id).is_none_or(|end| end <= seq),
    };
    if let Some(guard) = item.guards.iter().find(|guard| !holds(guard)) {
        return Ok(Some(AppendError::Guard(guard.clone())));
    }
    if let Some(taken) = claim_names(tx, item).await? {
        return Ok(Some(taken));
    }
    match &item.idempotency {
        Some(record) if !record.insert(tx).await? => Ok(Some(AppendError::KeyUsed)),
        _ => Ok(None),
    }
}

/// Locks every row that will be written or must stay as it is; returns the state of the entities, and which of the guarded
async fn lock_rows(tx: &mut PgConnection, item: &AppendItem) -> Result<(Versions, BTreeSet<String>), Failure> {
    let mut tables: ByTable<(&'static str, BTreeSet<&str>)> = ByTable::new();
    for part in &item.parts {
        let (_, (_, ids)) = tables.entry(part.table.lock_rank).or_insert((part.table, (part.kind, BTreeSet::new())));
        ids.insert(&part.entity_id);
    }
    let guarded: BTreeSet<&str> = item.guards.iter().filter_map(guarded_project).collect();
    let mut versions = Versions::new();
    let mut active = BTreeSet::new();
    // Share and exclusive locks on one table in two statements could meet another transaction's in the opposite order.
    let projects = tables.remove(&<Project as crate::StoredEntity>::TABLE.lock_rank);
    if let Some((table, (kind, mut ids))) = projects {
        ids.extend(&guarded);
        lock_table(tx, table, kind, &ids, &mut versions).await?;
    }
    if !guarded.is_empty() {
        // The lock lets many create sessions at once, and makes a Terminating wait for all of them.
        let sql = "select id from ambient.projects where id = any($1) and phase = 'Active' and deleted_at is null
                   order by id for share";
        let ids: Vec<&str> = guarded.into_iter().collect();
        active.extend(sqlx::query_scalar::<_, String>(sql).bind(&ids).fetch_all(&mut *tx).await?);
    }
    for (table, (kind, ids)) in tables.into_values() {
        lock_table(tx, table, kind, &ids, &mut versions).await?;
    }
    Ok((versions, active))
}

async fn lock_table(
    tx: &mut PgConnection,
    table: &'static Table,
    kind: &'static str,
    ids: &BTreeSet<&str>,
    versions: &mut Versions,
) -> Result<(), Failure> {
    let sql = format!("select id, version from {} where id = any($1) order by id for no key update", table.name);
    let ids: Vec<&str> = ids.iter().copied().collect();
    for row in sqlx::query(AssertSqlSafe(sql)).bind(ids).fetch_all(tx).await? {
        versions.insert((kind, row.try_get("id")?), row.try_get("version")?);
    }
    Ok(())
}

fn guarded_project(guard: &Guard) -> Option<&str> {
    match guard {
        Guard::ProjectActive { project_id } => Some(project_id),
        Guard::LogNotNewer { .. } => None,
    }
}

/// Locks the guarded streams, and with several writers every stream that will be written; returns the last seq of each.
async fn lock_streams(tx: &mut PgConnection, item: &AppendItem) -> Result<HashMap<String, i64>, Failure> {
    let guarded: BTreeSet<&str> = item.guards.iter().filter_map(guarded_log).collect();
    let mut ids: BTreeSet<&str> =
        item.parts.iter().filter(|part| part.has_live_events()).map(|part| part.entity_id.as_str()).collect();
    if guarded.is_empty() && ids.len() < 2 {
        return Ok(HashMap::new());
    }
    ids.extend(guarded);
    let ids: Vec<&str> = ids.into_iter().collect();
    let sql = "select session_id, next_seq - 1 from ambient.session_streams where session_id = any($1)
               order by session_id for no key update";
    let rows: Vec<(String, i64)> = sqlx::query_as(sql).bind(ids).fetch_all(tx).await?;
    Ok(rows.into_iter().collect())
}

fn guarded_log(guard: &Guard) -> Option<&str> {
    match guard {
        Guard::LogNotNewer { session_id, .. } => Some(session_id),
        Guard::ProjectActive { .. } => None,
    }
}

/// Releases names and claims others, in order. Returns the first that belongs to another entity, if any.
async fn claim_names(tx: &mut PgConnection, item: &AppendItem) -> Result<Option<AppendError>, Failure> {
    let mut claimed: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    let mut released: BTreeSet<(&str, &str, &str)> = BTreeSet::new();
    for part in &item.parts {
        for claim in &part.names {
            match claim {
                NameClaim::Claim { scope, name } => {
                    claimed.entry((scope, name)).or_insert(&part.entity_id);
                }
                NameClaim::Release { scope, name } => {
                    released.insert((scope, name, &part.entity_id));
                }
            }
        }
    }
    for (scope, name, entity_id) in released {
        let sql = "delete from ambient.names where scope = $1 and name = $2 and entity_id = $3";
        sqlx::query(sql).bind(scope).bind(name).bind(entity_id).execute(&mut *tx).await?;
    }
    for ((scope, name), entity_id) in claimed {
        let sql = "insert into ambient.names (scope, name, entity_id) values ($1, $2, $3) on conflict do nothing";
        let done = sqlx::query(sql).bind(scope).bind(name).bind(entity_id).execute(&mut *tx).await?;
        if done.rows_affected() == 0 {
            let sql = "select exists (select from ambient.names where scope = $1 and name = $2 and entity_id = $3)";
            let query = sqlx::query_scalar(sql).bind(scope).bind(name).bind(entity_id);
            if !query.fetch_one(&mut *tx).await? {
                return Ok(Some(AppendError::NameTaken { scope: scope.to_owned(), name: name.to_owned() }));
            }
        }
    }
    Ok(None)
}

/// Writes every part, table by table. None if one is not written; the last seq of a live log, if one was written to.
async fn write_all(tx: &mut PgConnection, item: &AppendItem) -> Result<Option<Option<i64>>, Failure> {
    let mut tables: ByTable<Vec<Line<'_>>> = ByTable::new();
    for part in &item.parts {
        let (_, lines) = tables.entry(part.table.lock_rank).or_insert((part.table, Vec::new()));
        // Its record has already been written.
        lines.push(Line { part, record: None });
    }
    let mut last_seq = None;
    for (_, lines) in tables.into_values() {
        let count = lines.len();
        let written = write(tx, lines, &[]).await?;
        if written.len() != count {
            return Ok(None);
        }
        last_seq = last_seq.max(written.into_values().flatten().max());
    }
    Ok(Some(last_seq))
}

fn lost_creation(item: &AppendItem) -> AppendError {
    let created = item.parts.iter().find(|part| part.creates()).or(item.parts.first());
    created.map_or_else(|| AppendError::Unavailable("an item without parts".to_owned()), |part| conflict(part, 1))
}

pub(super) fn conflict(part: &AppendPart, actual: i64) -> AppendError {
    AppendError::Conflict { kind: part.kind, id: part.entity_id.clone(), actual }
}

pub(super) fn repeated() -> Appended {
    Appended { repeated: true, last_seq: None }
}

/// Whether all operations of an item are in the log, under the ids and versions it gave them.
pub(super) async fn is_in(connection: &mut PgConnection, item: &AppendItem) -> Result<bool, sqlx::Error> {
    for part in &item.parts {
        let sql = "select exists (select from ambient.operations
                   where entity_kind = $1 and entity_id = $2 and version = $3 and id = $4)";
        let found: bool = sqlx::query_scalar(sql)
            .bind(part.kind)
            .bind(&part.entity_id)
            .bind(part.version)
            .bind(&part.operation_id)
            .fetch_one(&mut *connection)
            .await?;
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}
