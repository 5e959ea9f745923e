//! The transaction of an append: locks, verdicts, claims, writes, in that order.
//!
//! Lock order: rows of projects, rows of sessions (by `lock_rank`, then id), streams, names, idempotency keys. Every
//! transaction of this crate that holds more than one of these keeps to it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use ambient_domain::{Entity, Guard, NameClaim, project::Project};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Postgres, Row, Transaction};

use super::{
    AppendError, AppendItem, AppendPart, Appended, Failure, Verdict, at_once,
    write::{self, LastSeqs, Unclaimed},
};
use crate::{begin::begin, entity::Table};

/// A plan is kept for good, since making one costs more than carrying it out; and as it is made when tables are small and kept
/// when they are large, it never reads a whole one.
const BEGIN: &str = "begin; set local plan_cache_mode = force_generic_plan; set local enable_seqscan = off";

type Key = (&'static str, String);

/// Items of a transaction with what has been found out about them.
struct Batch<'a> {
    items: &'a [AppendItem],
    verdicts: Vec<Option<Verdict>>,
    /// Versions of the locked rows.
    versions: HashMap<Key, i64>,
    /// Guards that hold.
    holding: Vec<Guard>,
}

/// One statement where that can do; otherwise, and when it finds something not as expected, locks and verdicts first.
pub(super) async fn run(pool: &PgPool, items: &[AppendItem]) -> Result<Vec<Verdict>, Failure> {
    if let [item] = items
        && let Some(unclaimed) = at_once::relied_on(item)
    {
        if let Some(last_seqs) = at_once::write(begin(pool, BEGIN).await?, item, &unclaimed).await? {
            return Ok(vec![Ok(appended(item, &last_seqs))]);
        }
        if let Some(verdict) = at_once::overtaken(pool, item).await? {
            return Ok(vec![verdict]);
        }
    }
    run_in(begin(pool, BEGIN).await?, pool, items).await
}

/// The same in a transaction that has begun (and may hold locks).
pub(super) async fn run_in(
    mut tx: Transaction<'static, Postgres>,
    pool: &PgPool,
    items: &[AppendItem],
) -> Result<Vec<Verdict>, Failure> {
    let mut batch =
        Batch { items, verdicts: items.iter().map(|_| None).collect(), versions: HashMap::new(), holding: Vec::new() };
    batch.lock(&mut tx).await?;
    batch.judge_versions(&mut tx).await?;
    batch.judge_guards(&mut tx).await?;
    batch.claim_names(&mut tx).await?;
    batch.claim_keys(&mut tx).await?;
    let open: Vec<&AppendItem> = batch.open().collect();
    if open.is_empty() {
        tx.rollback().await?;
        return Ok(batch.finish(&LastSeqs::new()));
    }
    let Some(last_seqs) = write::all(&mut tx, &open, &Unclaimed::default()).await? else {
        tx.rollback().await?;
        return batch.finish_lost_creation(pool).await;
    };
    tx.commit().await.map_err(|error| Failure::InCommit(error.to_string()))?;
    Ok(batch.finish(&last_seqs))
}

impl<'a> Batch<'a> {
    /// Items that nothing speaks against so far.
    fn open(&self) -> impl Iterator<Item = &'a AppendItem> {
        let (items, verdicts) = (self.items, &self.verdicts);
        items.iter().zip(verdicts).filter(|(_, verdict)| verdict.is_none()).map(|(item, _)| item)
    }

    fn open_parts(&self) -> impl Iterator<Item = &'a AppendPart> {
        self.open().flat_map(|item| &item.parts)
    }

    fn each_open(&self) -> Vec<(usize, &'a AppendItem)> {
        self.items.iter().enumerate().filter(|(i, _)| self.verdicts[*i].is_none()).collect()
    }

    fn refuse(&mut self, index: usize, error: AppendError) {
        self.verdicts[index] = Some(Err(error));
    }

    /// Locks every row that will be written or must stay as it is, and reads where the entities stand.
    async fn lock(&mut self, tx: &mut PgConnection) -> Result<(), Failure> {
        let mut tables: BTreeMap<u8, (&'static Table, &'static str, BTreeSet<String>)> = BTreeMap::new();
        for part in self.items.iter().flat_map(|item| &item.parts) {
            let entry = tables.entry(part.table.lock_rank).or_insert((part.table, part.kind, BTreeSet::new()));
            entry.2.insert(part.entity_id.clone());
        }
        let guarded = self.guarded_projects();
        // Share and exclusive locks of one table in two statements could meet another batch's in the other order.
        let projects = tables.get_mut(&<Project as crate::StoredEntity>::TABLE.lock_rank);
        if let Some((_, _, ids)) = projects {
            ids.extend(guarded.iter().cloned());
        }
        let (projects, others): (Vec<_>, Vec<_>) =
            tables.into_values().partition(|(_, kind, _)| *kind == Project::KIND);
        for (table, kind, ids) in projects {
            self.lock_rows(tx, table, kind, ids).await?;
        }
        self.lock_guarded_projects(tx, guarded).await?;
        for (table, kind, ids) in others {
            self.lock_rows(tx, table, kind, ids).await?;
        }
        Ok(())
    }

    async fn lock_rows(
        &mut self,
        tx: &mut PgConnection,
        table: &'static Table,
        kind: &'static str,
        ids: BTreeSet<String>,
    ) -> Result<(), Failure> {
        let sql = format!("select id, version from {} where id = any($1) order by id for no key update", table.name);
        let ids: Vec<String> = ids.into_iter().collect();
        for row in sqlx::query(AssertSqlSafe(sql)).bind(ids).fetch_all(tx).await? {
            self.versions.insert((kind, row.try_get("id")?), row.try_get("version")?);
        }
        Ok(())
    }

    fn guarded_projects(&self) -> Vec<String> {
        let id = |guard: &Guard| match guard {
            Guard::ProjectActive { project_id } => Some(project_id.clone()),
            Guard::LogNotNewer { .. } => None,
        };
        let ids: BTreeSet<String> = self.items.iter().flat_map(|item| &item.guards).filter_map(id).collect();
        ids.into_iter().collect()
    }

    /// The lock lets many create sessions at once, and a Terminating waits for all of them.
    async fn lock_guarded_projects(&mut self, tx: &mut PgConnection, ids: Vec<String>) -> Result<(), Failure> {
        if ids.is_empty() {
            return Ok(());
        }
        let sql = "select id from ambient.projects where id = any($1) and phase = 'Active' and deleted_at is null
                   order by id for share";
        let active: Vec<String> = sqlx::query_scalar(sql).bind(&ids).fetch_all(tx).await?;
        for project_id in ids {
            if active.contains(&project_id) {
                self.holding.push(Guard::ProjectActive { project_id });
            }
        }
        Ok(())
    }

    /// A version that is not the expected one: success when the item's own operations are there, else a conflict.
    async fn judge_versions(&mut self, tx: &mut PgConnection) -> Result<(), Failure> {
        let mut writers: HashSet<Key> = HashSet::new();
        let mut behind = Vec::new();
        for (index, item) in self.each_open() {
            let actual = |part: &AppendPart| {
                let stored = self.versions.get(&key(part)).copied().unwrap_or(0);
                // A second item of the batch for the same entity comes too late.
                stored + i64::from(writers.contains(&key(part)))
            };
            match item.parts.iter().find(|part| actual(part) != part.expected()) {
                Some(part) => behind.push((index, conflict(part, actual(part)))),
                None => writers.extend(item.parts.iter().map(key)),
            }
        }
        for (index, error) in behind {
            let verdict = if is_in(tx, &self.items[index]).await? { Ok(repeated()) } else { Err(error) };
            self.verdicts[index] = Some(verdict);
        }
        Ok(())
    }

    async fn judge_guards(&mut self, tx: &mut PgConnection) -> Result<(), Failure> {
        self.lock_streams(tx).await?;
        for (index, item) in self.each_open() {
            let failed = item.guards.iter().find(|guard| !self.holding.contains(guard));
            if let Some(guard) = failed.cloned() {
                self.refuse(index, AppendError::Guard(guard));
            }
        }
        Ok(())
    }

    /// Locks the streams that are guarded, and with several writers every stream that will be written, in order of id.
    async fn lock_streams(&mut self, tx: &mut PgConnection) -> Result<(), Failure> {
        let guards: Vec<&Guard> = self.open().flat_map(|item| &item.guards).filter(|g| is_about_log(g)).collect();
        let mut ids: BTreeSet<&str> =
            self.open_parts().filter(|p| p.has_live_events()).map(|p| &*p.entity_id).collect();
        if guards.is_empty() && ids.len() < 2 {
            return Ok(());
        }
        ids.extend(guards.iter().filter_map(|guard| match guard {
            Guard::LogNotNewer { session_id, .. } => Some(session_id.as_str()),
            Guard::ProjectActive { .. } => None,
        }));
        let ids: Vec<String> = ids.into_iter().map(str::to_owned).collect();
        let sql = "select session_id, next_seq from ambient.session_streams where session_id = any($1)
                   order by session_id for no key update";
        let rows: Vec<(String, i64)> = sqlx::query_as(sql).bind(ids).fetch_all(tx).await?;
        let next: HashMap<String, i64> = rows.into_iter().collect();
        for guard in guards {
            if let Guard::LogNotNewer { session_id, seq } = guard
                && next.get(session_id).is_none_or(|next| next - 1 <= *seq)
            {
                self.holding.push(guard.clone());
            }
        }
        Ok(())
    }

    /// Claims names in order; a taken one is a conflict of its item only.
    async fn claim_names(&mut self, tx: &mut PgConnection) -> Result<(), Failure> {
        let mut claims: BTreeMap<(String, String), String> = BTreeMap::new();
        for part in self.open_parts() {
            for (scope, name) in part.names.iter().filter_map(claimed) {
                claims.entry((scope.clone(), name.clone())).or_insert_with(|| part.entity_id.clone());
            }
        }
        if claims.is_empty() {
            return Ok(());
        }
        let owners = insert_names(tx, &claims).await?;
        for (index, item) in self.each_open() {
            let of_another = |part: &AppendPart| {
                let names = part.names.iter().filter_map(claimed).map(|(scope, name)| (scope.clone(), name.clone()));
                names.into_iter().find(|name| owners.get(name) != Some(&part.entity_id))
            };
            if let Some((scope, name)) = item.parts.iter().find_map(of_another) {
                self.release(tx, item).await?;
                self.refuse(index, AppendError::NameTaken { scope, name });
            }
        }
        Ok(())
    }

    /// Gives back what an item has claimed before it failed.
    async fn release(&self, tx: &mut PgConnection, item: &AppendItem) -> Result<(), Failure> {
        for part in &item.parts {
            for (scope, name) in part.names.iter().filter_map(claimed) {
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

    /// Writes the idempotency records; a key in use is a conflict of its item only.
    async fn claim_keys(&mut self, tx: &mut PgConnection) -> Result<(), Failure> {
        let mut keyed = self.each_open();
        keyed.retain(|(_, item)| item.idempotency.is_some());
        keyed.sort_by(|(_, a), (_, b)| {
            let key = |item: &&'a AppendItem| item.idempotency.as_ref().map(|record| &record.key);
            key(a).cmp(&key(b))
        });
        for (index, item) in keyed {
            let Some(record) = &item.idempotency else { continue };
            if record.insert(tx).await? {
                continue;
            }
            // The record may be this item's own, of a transaction that was in doubt.
            if is_in(tx, item).await? {
                self.verdicts[index] = Some(Ok(repeated()));
            } else {
                self.release(tx, item).await?;
                self.refuse(index, AppendError::KeyUsed);
            }
        }
        Ok(())
    }

    /// A created entity was there when its row was written: another transaction was faster.
    async fn finish_lost_creation(mut self, pool: &PgPool) -> Result<Vec<Verdict>, Failure> {
        let [item] = self.items else { return Err(Failure::Entangled) };
        let mut connection = pool.acquire().await?;
        let verdict = if is_in(&mut connection, item).await? {
            Ok(repeated())
        } else {
            let created = item.parts.iter().find(|part| part.expected() == 0).or(item.parts.first());
            created.map_or(Err(AppendError::Unavailable("an item without parts".to_owned())), |p| Err(conflict(p, 1)))
        };
        self.verdicts[0] = Some(verdict);
        Ok(self.finish(&LastSeqs::new()))
    }

    fn finish(self, last_seqs: &LastSeqs) -> Vec<Verdict> {
        let verdicts = self.verdicts.into_iter().zip(self.items);
        verdicts.map(|(verdict, item)| verdict.unwrap_or_else(|| Ok(appended(item, last_seqs)))).collect()
    }
}

fn appended(item: &AppendItem, last_seqs: &LastSeqs) -> Appended {
    let last_seq = item.parts.iter().filter_map(|part| last_seqs.get(&part.entity_id)).max().copied();
    Appended { repeated: false, last_seq }
}

fn key(part: &AppendPart) -> Key {
    (part.kind, part.entity_id.clone())
}

pub(super) fn conflict(part: &AppendPart, actual: i64) -> AppendError {
    AppendError::Conflict { kind: part.kind, id: part.entity_id.clone(), actual }
}

pub(super) fn repeated() -> Appended {
    Appended { repeated: true, last_seq: None }
}

fn is_about_log(guard: &Guard) -> bool {
    matches!(guard, Guard::LogNotNewer { .. })
}

pub(super) fn claimed(claim: &NameClaim) -> Option<(&String, &String)> {
    match claim {
        NameClaim::Claim { scope, name } => Some((scope, name)),
        NameClaim::Release { .. } => None,
    }
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
            .bind(&part.context.operation_id)
            .fetch_one(&mut *connection)
            .await?;
        if !found {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Claims what is free, in order; returns the owner of each name afterwards.
async fn insert_names(
    tx: &mut PgConnection,
    claims: &BTreeMap<(String, String), String>,
) -> Result<HashMap<(String, String), String>, sqlx::Error> {
    let scopes: Vec<&str> = claims.keys().map(|(scope, _)| scope.as_str()).collect();
    let names: Vec<&str> = claims.keys().map(|(_, name)| name.as_str()).collect();
    let ids: Vec<&str> = claims.values().map(String::as_str).collect();
    let insert = "insert into ambient.names (scope, name, entity_id)
                  select * from unnest($1::text[], $2::text[], $3::text[]) as c(scope, name, entity_id)
                  order by c.scope collate \"C\", c.name collate \"C\" on conflict do nothing";
    sqlx::query(insert).bind(&scopes).bind(&names).bind(&ids).execute(&mut *tx).await?;
    let select = "select scope, name, entity_id from ambient.names
                  where (scope, name) in (select * from unnest($1::text[], $2::text[]))";
    let rows: Vec<(String, String, String)> = sqlx::query_as(select).bind(&scopes).bind(&names).fetch_all(tx).await?;
    Ok(rows.into_iter().map(|(scope, name, id)| ((scope, name), id)).collect())
}
