//! Reading the operation log: one operation, or a feed over many entities.
//!
//! A feed is ordered by (xid, position) and stops below the oldest transaction still running: what is read later never belongs
//! before what was read earlier.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Postgres, QueryBuilder, Row, postgres::PgRow};

use crate::{
    canonical::hex,
    database::Database,
    error::StoreError,
    list::{Order, Projects, Scope, push_scope},
};

/// Most operations per page.
const MAX_PAGE: i64 = 1000;

/// An accepted command or fact as it is in the log, complete: its hash can be checked anywhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// KSUID.
    pub id: String,
    /// Entity kind.
    pub entity_kind: String,
    /// Entity id.
    pub entity_id: String,
    /// Version of the entity after it.
    pub version: i64,
    /// Project.
    pub project_id: String,
    /// Name of the command.
    pub command: String,
    /// Schema version of `input` and `events`.
    pub schema_version: i32,
    /// The command.
    pub input: Value,
    /// The events it produced.
    pub events: Value,
    /// The context it was decided with.
    pub context: Value,
    /// Who requested it.
    pub principal: String,
    /// Follows a request through everything it causes.
    pub correlation_id: String,
    /// Operation or workflow that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// W3C trace context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace_parent: Option<String>,
    /// Time of the decision.
    pub occurred_at: DateTime<Utc>,
    /// Hash of the entity's previous operation, hex.
    pub previous_hash: String,
    /// Its own, hex.
    pub hash: String,
}

/// Exact filters; absent = all.
#[derive(Debug, Clone, Default)]
pub struct OperationFilter {
    /// Entity kind.
    pub entity_kind: Option<String>,
    /// Entity id.
    pub entity_id: Option<String>,
    /// Project.
    pub project_id: Option<String>,
    /// Who requested it.
    pub principal: Option<String>,
    /// Name of the command.
    pub command: Option<String>,
    /// One of these commands.
    pub commands: Option<Vec<String>>,
    /// Correlation id.
    pub correlation_id: Option<String>,
    /// At or after.
    pub since: Option<DateTime<Utc>>,
    /// Before.
    pub until: Option<DateTime<Utc>>,
}

/// A page of a feed.
#[derive(Debug, Clone)]
pub struct OperationPage {
    /// In the requested order.
    pub items: Vec<Operation>,
    /// Where the next page starts; valid even if this one is empty and the feed is followed.
    pub next: Option<String>,
}

const COLUMNS: &str = "id, entity_kind, entity_id, version, project_id, command, schema_version, input, events, context, \
    principal, correlation_id, causation_id, trace_parent, occurred_at, previous_hash, hash, xid::text as xid, position";

impl Database {
    /// An operation.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn operation(&self, id: &str) -> Result<Option<Operation>, StoreError> {
        if id.contains('\0') {
            return Ok(None);
        }
        let sql = format!("select {COLUMNS} from ambient.operations where id = $1");
        let row = sqlx::query(AssertSqlSafe(sql)).bind(id).fetch_optional(self.pool()).await?;
        row.as_ref().map(from_row).transpose()
    }

    /// Operations of the scope's projects (a member's: those that are not deleted), oldest (`Order::Ascending`) or newest first,
    /// after an opaque cursor.
    ///
    /// # Errors
    /// When the cursor is malformed or the database cannot be reached.
    pub async fn list_operations(
        &self,
        scope: &Scope,
        filter: &OperationFilter,
        order: Order,
        after: Option<&str>,
        size: i64,
    ) -> Result<OperationPage, StoreError> {
        let after = after.map(parse_cursor).transpose()?;
        let mut query = QueryBuilder::<Postgres>::new(format!(
            "select {COLUMNS} from ambient.operations t where xid < pg_snapshot_xmin(pg_current_snapshot())"
        ));
        push_filter(&mut query, scope, filter)?;
        let (comparison, direction) = match order {
            Order::Ascending => (" > ", " asc"),
            Order::Descending => (" < ", " desc"),
        };
        if let Some((xid, position)) = after {
            query.push(" and (xid, position)").push(comparison).push("(").push_bind(xid).push("::text::xid8, ");
            query.push_bind(position).push(")");
        }
        query.push(" order by t.xid").push(direction).push(", position").push(direction).push(" limit ");
        query.push_bind(size.clamp(1, MAX_PAGE));
        let rows = query.build().fetch_all(self.pool()).await?;
        let items = rows.iter().map(from_row).collect::<Result<Vec<_>, _>>()?;
        let full = i64::try_from(items.len()).is_ok_and(|n| n == size.clamp(1, MAX_PAGE));
        let last = rows.last().filter(|_| full || order == Order::Ascending);
        let next = last.map(cursor).transpose()?;
        Ok(OperationPage { items, next })
    }

    /// How many operations [`Database::list_operations`] finds over all pages.
    ///
    /// # Errors
    /// When the database cannot be reached.
    pub async fn count_operations(&self, scope: &Scope, filter: &OperationFilter) -> Result<i64, StoreError> {
        let mut query = QueryBuilder::<Postgres>::new(
            "select count(*) from ambient.operations t where xid < pg_snapshot_xmin(pg_current_snapshot())",
        );
        push_filter(&mut query, scope, filter)?;
        Ok(query.build_query_scalar().fetch_one(self.pool()).await?)
    }
}

fn push_filter(query: &mut QueryBuilder<Postgres>, scope: &Scope, filter: &OperationFilter) -> Result<(), StoreError> {
    push_scope(query, scope, Projects::NotDeleted);
    let exact = [
        ("entity_kind", &filter.entity_kind),
        ("entity_id", &filter.entity_id),
        ("project_id", &filter.project_id),
        ("principal", &filter.principal),
        ("command", &filter.command),
        ("correlation_id", &filter.correlation_id),
    ];
    for (column, value) in exact {
        if let Some(value) = value {
            crate::canonical::text(column, value)?;
            query.push(" and ").push(column).push(" = ").push_bind(value.clone());
        }
    }
    if let Some(commands) = &filter.commands {
        query.push(" and command = any(").push_bind(commands.clone()).push(")");
    }
    if let Some(since) = filter.since {
        query.push(" and occurred_at >= ").push_bind(since);
    }
    if let Some(until) = filter.until {
        query.push(" and occurred_at < ").push_bind(until);
    }
    Ok(())
}

/// A row's position in a feed.
fn cursor(row: &PgRow) -> Result<String, StoreError> {
    let (xid, position): (String, i64) = (row.try_get("xid")?, row.try_get("position")?);
    Ok(format!("{xid}.{position}"))
}

fn parse_cursor(cursor: &str) -> Result<(String, i64), StoreError> {
    let parse = || {
        let (xid, position) = cursor.split_once('.')?;
        let digits = |text: &str| (1..=18).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
        let xid: u64 = xid.parse().ok().filter(|_| digits(xid) && digits(position))?;
        Some((xid.to_string(), position.parse().ok()?))
    };
    parse().ok_or_else(|| StoreError::bad_query("after", "is not a cursor of this list"))
}

pub(crate) fn from_row(row: &PgRow) -> Result<Operation, StoreError> {
    let id: String = row.try_get("id")?;
    let json = |column: &str| {
        let bytes: Vec<u8> = row.try_get(column)?;
        serde_json::from_slice(&bytes).map_err(|e| StoreError::corrupt(format!("{column} of operation {id}"), &e))
    };
    let bytes = |column: &str| row.try_get::<Vec<u8>, _>(column).map(|bytes| hex(&bytes));
    Ok(Operation {
        entity_kind: row.try_get("entity_kind")?,
        entity_id: row.try_get("entity_id")?,
        version: row.try_get("version")?,
        project_id: row.try_get("project_id")?,
        command: row.try_get("command")?,
        schema_version: row.try_get("schema_version")?,
        input: json("input")?,
        events: json("events")?,
        context: json("context")?,
        principal: row.try_get("principal")?,
        correlation_id: row.try_get("correlation_id")?,
        causation_id: row.try_get("causation_id")?,
        trace_parent: row.try_get("trace_parent")?,
        occurred_at: row.try_get("occurred_at")?,
        previous_hash: bytes("previous_hash")?,
        hash: bytes("hash")?,
        id,
    })
}
