//! Lists of entities: paging, order, exact filters. Columns come from an allow list, values are bound.

use ambient_domain::{
    ColumnType::{self, Boolean, Integer, Json, Text, Texts, Time},
    project::{SubjectType, member_name},
};
use chrono::{DateTime, Utc};
use sqlx::{Postgres, QueryBuilder};

use crate::{
    database::Database,
    entity::{LISTED, StoredEntity},
    error::StoreError,
    load::{STATE, from_row},
};

/// Most items per page.
pub(crate) const MAX_SIZE: i64 = 65_500;

/// Direction of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Smallest or oldest first.
    Ascending,
    /// Largest or newest first.
    Descending,
}

/// What to list.
#[derive(Debug, Clone)]
pub struct ListQuery {
    /// Page number, from 1.
    pub page: i64,
    /// Items per page, at most 65500; 0 = only the total.
    pub size: i64,
    /// Columns; empty = newest first.
    pub order_by: Vec<(String, Order)>,
    /// Exact values by column, or `labels.<key>`; phase `New` = never started.
    pub filters: Vec<(String, String)>,
    /// Include deleted ones.
    pub with_deleted: bool,
}

impl Default for ListQuery {
    fn default() -> Self {
        Self { page: 1, size: 100, order_by: Vec::new(), filters: Vec::new(), with_deleted: false }
    }
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// The page's items.
    pub items: Vec<T>,
    /// Page number, from 1.
    pub page: i64,
    /// Number of matches.
    pub total: i64,
}

/// Whose projects (and their sessions) may be seen. Every list has a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every project: for administrators and the platform's own work.
    All,
    /// These projects.
    Projects(Vec<String>),
    /// Projects in which the user or one of the groups has a role.
    Member {
        /// User name.
        user: String,
        /// Groups.
        groups: Vec<String>,
    },
}

impl Database {
    /// Entities of the scope.
    ///
    /// # Errors
    /// [`StoreError::BadQuery`] names the field; or the database cannot be reached.
    pub async fn list<E: StoredEntity>(&self, scope: &Scope, query: &ListQuery) -> Result<Page<E>, StoreError> {
        if query.page < 1 {
            return Err(StoreError::bad_query("page", "must be 1 or more"));
        }
        if !(0..=MAX_SIZE).contains(&query.size) {
            return Err(StoreError::bad_query("size", format!("must be 0 to {MAX_SIZE}")));
        }
        let mut count = QueryBuilder::new(format!("select count(*) from {} t", E::TABLE.name));
        push_where::<E>(&mut count, scope, query)?;
        let total: i64 = count.build_query_scalar().fetch_one(self.pool()).await?;
        if query.size == 0 || total == 0 {
            return Ok(Page { items: Vec::new(), page: query.page, total });
        }
        let mut select = QueryBuilder::new(format!("select {STATE} from {} t", E::TABLE.name));
        push_where::<E>(&mut select, scope, query)?;
        push_order::<E>(&mut select, query)?;
        select.push(" limit ").push_bind(query.size);
        select.push(" offset ").push_bind((query.page - 1).saturating_mul(query.size));
        let rows = select.build().fetch_all(self.pool()).await?;
        let items = rows.iter().map(from_row).collect::<Result<_, _>>()?;
        Ok(Page { items, page: query.page, total })
    }
}

fn push_where<E: StoredEntity>(
    sql: &mut QueryBuilder<Postgres>,
    scope: &Scope,
    query: &ListQuery,
) -> Result<(), StoreError> {
    sql.push(if query.with_deleted { " where true" } else { " where t.deleted_at is null" });
    push_scope(sql, scope, Projects::All);
    query.filters.iter().try_for_each(|(name, value)| push_filter::<E>(sql, name, value))
}

/// Which of a member's projects count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Projects {
    All,
    NotDeleted,
}

/// Rows of `t` whose `project_id` is in the scope.
pub(crate) fn push_scope(sql: &mut QueryBuilder<Postgres>, scope: &Scope, which: Projects) {
    match scope {
        Scope::All => {}
        Scope::Projects(ids) => {
            sql.push(" and t.project_id = any(").push_bind(ids.clone()).push(")");
        }
        Scope::Member { user, groups } => {
            let mut members = vec![member_name(SubjectType::User, user)];
            members.extend(groups.iter().map(|group| member_name(SubjectType::Group, group)));
            sql.push(" and t.project_id in (select p.id from ambient.projects p where p.members && ");
            sql.push_bind(members);
            sql.push(if which == Projects::NotDeleted { " and p.deleted_at is null)" } else { ")" });
        }
    }
}

fn push_filter<E: StoredEntity>(sql: &mut QueryBuilder<Postgres>, name: &str, value: &str) -> Result<(), StoreError> {
    if value.contains('\0') || name.contains('\0') {
        return Err(StoreError::bad_query(name.escape_debug().to_string(), "must not contain NUL"));
    }
    if let Some(key) = name.strip_prefix("labels.") {
        sql.push(" and t.labels @> jsonb_build_object(").push_bind(key.to_owned()).push("::text, ");
        sql.push_bind(value.to_owned()).push("::text)");
        return Ok(());
    }
    let (column, column_type) = find::<E>(name).ok_or_else(|| unknown::<E>(name, name))?;
    if column == "phase" && value == "New" {
        sql.push(" and t.phase is null");
        return Ok(());
    }
    sql.push(" and t.").push(column).push(" = ");
    let bad = |what: &str| StoreError::bad_query(name, format!("must be {what}"));
    match column_type {
        Text => sql.push_bind(value.to_owned()),
        Boolean => sql.push_bind(value.parse::<bool>().map_err(|_| bad("true or false"))?),
        Integer => sql.push_bind(value.parse::<i64>().map_err(|_| bad("an integer"))?),
        Time => sql.push_bind(value.parse::<DateTime<Utc>>().map_err(|_| bad("an RFC 3339 time"))?),
        Texts | Json => return Err(unknown::<E>(name, name)),
    };
    Ok(())
}

/// The requested order, then the id, so that pages neither repeat nor miss a row.
fn push_order<E: StoredEntity>(sql: &mut QueryBuilder<Postgres>, query: &ListQuery) -> Result<(), StoreError> {
    sql.push(" order by ");
    if query.order_by.is_empty() {
        sql.push("t.created_at desc, t.id desc");
        return Ok(());
    }
    for (name, order) in &query.order_by {
        let (column, _) = find::<E>(name).ok_or_else(|| unknown::<E>("order_by", name))?;
        sql.push("t.").push(column);
        sql.push(if *order == Order::Ascending { " asc, " } else { " desc nulls last, " });
    }
    sql.push("t.id");
    Ok(())
}

/// A Kind's orderable columns: the common ones, and its own.
fn listed<E: StoredEntity>() -> impl Iterator<Item = (&'static str, ColumnType)> {
    let own = E::COLUMNS.iter().map(|column| (column.name, column.column_type));
    LISTED.into_iter().chain(own).filter(|(_, column_type)| !matches!(column_type, Texts | Json))
}

fn find<E: StoredEntity>(name: &str) -> Option<(&'static str, ColumnType)> {
    listed::<E>().find(|(column, _)| *column == name)
}

fn unknown<E: StoredEntity>(field: &str, name: &str) -> StoreError {
    let known: Vec<&str> = listed::<E>().map(|(column, _)| column).collect();
    let reason = format!("no column '{}'; the columns are {}", name.escape_debug(), known.join(", "));
    StoreError::bad_query(field, reason)
}
