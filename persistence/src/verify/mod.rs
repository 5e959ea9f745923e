//! Whether rows equal their replayed operations and the hash chain is intact. Reads only, in one snapshot, in batches.

use std::collections::{BTreeMap, BTreeSet};

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};
use sqlx::{AssertSqlSafe, PgConnection, Row, postgres::PgRow};

use crate::{
    begin::begin,
    canonical::{GENESIS, Hash, Hashed, hex},
    database::Database,
    entity::{COMMON, StoredEntity},
    error::StoreError,
    kinds::{KindVisitor, visit_kinds},
    load::replay,
};

/// Entities checked together.
const BATCH: i64 = 100;

/// What to verify.
#[derive(Debug, Clone, Default)]
pub struct VerifyScope {
    /// Only this kind.
    pub kind: Option<String>,
    /// Only this entity.
    pub entity_id: Option<String>,
}

/// The findings.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct VerifyReport {
    /// Entities checked, by kind.
    pub entities: BTreeMap<&'static str, u64>,
    /// Operations replayed.
    pub operations: u64,
    /// The first divergence of each entity that has one.
    pub divergences: Vec<Divergence>,
}

/// Where stored data is not what it should be.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{kind} {id} at version {version}: {what}")]
pub struct Divergence {
    /// Entity kind.
    pub kind: &'static str,
    /// Entity id.
    pub id: String,
    /// Version of the operation, or of the row.
    pub version: i64,
    /// What is wrong.
    pub what: DivergenceKind,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DivergenceKind {
    /// An operation's bytes or metadata do not give its hash.
    #[error("the operation does not match its hash (it was changed)")]
    Hash,
    /// An operation does not continue the previous one.
    #[error("the operation's previous_hash is not the hash of the one before")]
    Chain,
    /// A version is missing.
    #[error("the operation of version {0} is missing")]
    Missing(i64),
    /// An operation cannot be read.
    #[error("the operation cannot be read: {0}")]
    Unreadable(String),
    /// From a newer release.
    #[error("schema version {0} is unknown to this release")]
    UnknownSchemaVersion(i32),
    /// Operations without a row.
    #[error("there is no row")]
    NoRow,
    /// A row without operations.
    #[error("there are no operations")]
    NoOperations,
    /// The row is not what its operations give.
    #[error("the row's {field} is {row}, its operations give {replayed}")]
    Row {
        /// Column, or path in `state`.
        field: String,
        /// In the row.
        row: String,
        /// Replayed.
        replayed: String,
    },
}

impl VerifyReport {
    /// Nothing is wrong.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.divergences.is_empty()
    }
}

impl Database {
    /// Verifies entities of every kind within the scope.
    ///
    /// # Errors
    /// When the database cannot be reached; its findings are in the report.
    pub async fn verify(&self, scope: &VerifyScope) -> Result<VerifyReport, StoreError> {
        let mut tx = begin(self.pool(), "begin isolation level repeatable read read only").await?;
        // A long read of one snapshot; it holds no locks that a writer waits for.
        sqlx::raw_sql("set local statement_timeout = 0; set local idle_in_transaction_session_timeout = 0")
            .execute(&mut *tx)
            .await?;
        let mut verification = Verification { tx: &mut tx, scope, report: VerifyReport::default() };
        visit_kinds(&mut verification).await?;
        let report = verification.report;
        tx.rollback().await?;
        Ok(report)
    }
}

struct Verification<'a> {
    tx: &'a mut PgConnection,
    scope: &'a VerifyScope,
    report: VerifyReport,
}

impl KindVisitor for Verification<'_> {
    type Error = StoreError;

    async fn visit<E: StoredEntity>(&mut self) -> Result<(), StoreError> {
        verify_kind::<E>(self.tx, self.scope, &mut self.report).await
    }
}

async fn verify_kind<E: StoredEntity>(
    tx: &mut PgConnection,
    scope: &VerifyScope,
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    if scope.kind.as_ref().is_some_and(|kind| kind != E::KIND) {
        return Ok(());
    }
    report.entities.insert(E::KIND, 0);
    let mut after = String::new();
    loop {
        let ids = next_ids::<E>(tx, scope, &after).await?;
        let Some(last) = ids.last() else { return Ok(()) };
        after.clone_from(last);
        verify_batch::<E>(tx, &ids, report).await?;
    }
}

/// Ids from the rows and from the operations: either may be missing.
async fn next_ids<E: StoredEntity>(
    tx: &mut PgConnection,
    scope: &VerifyScope,
    after: &str,
) -> Result<Vec<String>, StoreError> {
    let sql = format!(
        "(select id from {} where id > $1 and ($2::text is null or id = $2) order by id limit $4)
         union
         (select distinct entity_id from ambient.operations
          where entity_kind = $3 and entity_id > $1 and ($2::text is null or entity_id = $2) order by entity_id limit $4)
         order by 1 limit $4",
        E::TABLE.name
    );
    let query = sqlx::query_scalar(AssertSqlSafe(sql)).bind(after).bind(&scope.entity_id).bind(E::KIND).bind(BATCH);
    Ok(query.fetch_all(tx).await?)
}

async fn verify_batch<E: StoredEntity>(
    tx: &mut PgConnection,
    ids: &[String],
    report: &mut VerifyReport,
) -> Result<(), StoreError> {
    let sql = format!("select id, version, to_jsonb(t) as row from {} t where id = any($1)", E::TABLE.name);
    let mut rows: BTreeMap<String, (i64, Value)> = BTreeMap::new();
    for row in sqlx::query(AssertSqlSafe(sql)).bind(ids).fetch_all(&mut *tx).await? {
        rows.insert(row.try_get("id")?, (row.try_get("version")?, row.try_get("row")?));
    }
    for id in ids {
        let (chain, operations) = verify_chain::<E>(tx, id).await?;
        report.operations += operations;
        *report.entities.entry(E::KIND).or_default() += 1;
        let found = chain.and_then(|chain| compare(&chain, rows.get(id)));
        if let Err((version, what)) = found {
            report.divergences.push(Divergence { kind: E::KIND, id: id.clone(), version, what });
        }
    }
    Ok(())
}

type Finding<T> = Result<T, (i64, DivergenceKind)>;

/// The end of an entity's operations.
struct Chain<E> {
    state: Option<E>,
    version: i64,
    hash: Hash,
    operation_id: String,
    schema_version: i32,
}

async fn verify_chain<E: StoredEntity>(
    tx: &mut PgConnection,
    id: &str,
) -> Result<(Finding<Chain<E>>, u64), StoreError> {
    let genesis = Chain { state: None, version: 0, hash: GENESIS, operation_id: String::new(), schema_version: 0 };
    let mut chain: Finding<Chain<E>> = Ok(genesis);
    let mut count = 0;
    // A session has hundreds of operations at most; still, read in pages so that none can exhaust memory.
    let mut after = 0_i64;
    loop {
        let sql = "select * from ambient.operations
                   where entity_kind = $1 and entity_id = $2 and version > $3 order by version limit 500";
        let rows = sqlx::query(sql).bind(E::KIND).bind(id).bind(after).fetch_all(&mut *tx).await?;
        let Some(last) = rows.last() else { return Ok((chain, count)) };
        after = last.try_get("version")?;
        count += rows.len() as u64;
        for row in &rows {
            chain = match chain {
                Ok(before) => next(before, row)?,
                found => found,
            };
        }
    }
}

/// One operation: in sequence, unchanged, readable; then applied.
fn next<E: StoredEntity>(before: Chain<E>, row: &PgRow) -> Result<Finding<Chain<E>>, StoreError> {
    let version: i64 = row.try_get("version")?;
    if version != before.version + 1 {
        return Ok(Err((before.version + 1, DivergenceKind::Missing(before.version + 1))));
    }
    let (previous_hash, hash): (Vec<u8>, Vec<u8>) = (row.try_get("previous_hash")?, row.try_get("hash")?);
    let replayed = hash_of(row)?;
    if replayed[..] != hash {
        return Ok(Err((version, DivergenceKind::Hash)));
    }
    if previous_hash != before.hash {
        return Ok(Err((version, DivergenceKind::Chain)));
    }
    let schema_version: i32 = row.try_get("schema_version")?;
    if schema_version > E::SCHEMA_VERSION {
        return Ok(Err((version, DivergenceKind::UnknownSchemaVersion(schema_version))));
    }
    let (events, at): (Vec<u8>, DateTime<Utc>) = (row.try_get("events")?, row.try_get("occurred_at")?);
    Ok(match replay(before.state, version, &events, at) {
        Ok(state) => Ok(Chain { state, version, hash: replayed, operation_id: row.try_get("id")?, schema_version }),
        Err(error) => Err((version, DivergenceKind::Unreadable(error.to_string()))),
    })
}

fn hash_of(row: &PgRow) -> Result<Hash, StoreError> {
    let text = |column: &str| row.try_get::<String, _>(column);
    let optional = |column: &str| row.try_get::<Option<String>, _>(column);
    let bytes = |column: &str| row.try_get::<Vec<u8>, _>(column);
    let (causation_id, trace_parent) = (optional("causation_id")?, optional("trace_parent")?);
    let hashed = Hashed {
        id: &text("id")?,
        entity_kind: &text("entity_kind")?,
        entity_id: &text("entity_id")?,
        version: row.try_get("version")?,
        project_id: &text("project_id")?,
        command: &text("command")?,
        schema_version: row.try_get("schema_version")?,
        input: &bytes("input")?,
        events: &bytes("events")?,
        context: &bytes("context")?,
        principal: &text("principal")?,
        correlation_id: &text("correlation_id")?,
        causation_id: causation_id.as_deref(),
        trace_parent: trace_parent.as_deref(),
        occurred_at: row.try_get::<DateTime<Utc>, _>("occurred_at")?.timestamp_micros(),
    };
    Ok(hashed.hash(&bytes("previous_hash")?))
}

/// Compares the row with what its operations give.
fn compare<E: StoredEntity>(chain: &Chain<E>, row: Option<&(i64, Value)>) -> Finding<()> {
    let Some((row_version, row)) = row else { return Err((chain.version, DivergenceKind::NoRow)) };
    let Some(state) = &chain.state else { return Err((*row_version, DivergenceKind::NoOperations)) };
    if *row_version > chain.version {
        return Err((*row_version, DivergenceKind::Missing(chain.version + 1)));
    }
    let expected = expected_row(state, chain);
    let empty = Map::new();
    let row = row.as_object().unwrap_or(&empty);
    let fields: BTreeSet<&String> = expected.keys().chain(row.keys()).collect();
    for field in fields {
        let (found, wanted) = (row.get(field).unwrap_or(&Value::Null), expected.get(field).unwrap_or(&Value::Null));
        if let Some((field, found, wanted)) = first_difference(field, found, wanted) {
            let what = DivergenceKind::Row { field, row: found.to_string(), replayed: wanted.to_string() };
            return Err((*row_version, what));
        }
    }
    Ok(())
}

fn expected_row<E: StoredEntity>(state: &E, chain: &Chain<E>) -> Map<String, Value> {
    let mut expected = state.columns();
    debug_assert!(
        expected.keys().all(|key| COMMON.contains(&key.as_str()) || E::TABLE.columns.contains(&key.as_str()))
    );
    expected.insert("id".to_owned(), state.id().into());
    expected.insert("project_id".to_owned(), state.project_id().into());
    expected.insert("version".to_owned(), state.version().into());
    expected.insert("schema_version".to_owned(), chain.schema_version.into());
    expected.insert("last_operation_id".to_owned(), chain.operation_id.clone().into());
    expected.insert("last_hash".to_owned(), format!("\\x{}", hex(&chain.hash)).into());
    let mut state = serde_json::to_value(state).unwrap_or(Value::Null);
    let spec = state.as_object_mut().and_then(|state| state.remove("spec"));
    expected.insert("state".to_owned(), state);
    expected.insert("spec".to_owned(), spec.unwrap_or(Value::Null));
    expected
}

/// Path and values of the first difference. Column times are compared as times: Postgres writes them in its own format.
fn first_difference<'a>(path: &str, row: &'a Value, replayed: &'a Value) -> Option<(String, &'a Value, &'a Value)> {
    match (row, replayed) {
        (Value::Object(a), Value::Object(b)) => {
            let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            keys.into_iter().find_map(|key| {
                let path = format!("{path}.{key}");
                // An absent field and a null one are different in a state.
                match (a.get(key), b.get(key)) {
                    (Some(a), Some(b)) => first_difference(&path, a, b),
                    (a, b) => Some((path, a.unwrap_or(&Value::Null), b.unwrap_or(&Value::Null))),
                }
            })
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            let mut pairs = a.iter().zip(b).enumerate();
            pairs.find_map(|(i, (a, b))| first_difference(&format!("{path}[{i}]"), a, b))
        }
        _ if row == replayed || same_number(row, replayed) => None,
        _ if !path.starts_with("state") && same_time(row, replayed) => None,
        _ => Some((path.to_owned(), row, replayed)),
    }
}

fn same_number(a: &Value, b: &Value) -> bool {
    matches!((a, b), (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64())
}

fn same_time(a: &Value, b: &Value) -> bool {
    let time = |value: &Value| value.as_str().and_then(|text| text.parse::<DateTime<Utc>>().ok());
    matches!((time(a), time(b)), (Some(a), Some(b)) if a == b)
}

#[cfg(test)]
mod tests;
