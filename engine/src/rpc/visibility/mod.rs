//! The common subset of Temporal's visibility query language, on SQL.
//!
//! `AND`, `OR`, `NOT`, parentheses; `=`, `!=`, `<`, `<=`, `>`, `>=`, `BETWEEN`, `IN`, `STARTS_WITH`, `IS [NOT] NULL` on system and custom search
//! attributes; `GROUP BY ExecutionStatus` for counts; `ORDER BY` one system attribute for lists. Anything not understood is
//! `InvalidArgument` with the offending word.

mod fields;
mod filters;
mod lexer;
mod parser;
mod sql;
#[cfg(test)]
mod tests;

use sqlx::{Postgres, QueryBuilder};
use tonic::Status;

pub(super) use self::filters::Only;
use self::{
    fields::{Field, Known, ORDER, STATUSES},
    lexer::refuse,
    parser::{Filter, Parsed},
};
use crate::engine::Engine;

/// Where `e` and `r` come from.
pub(super) const TABLES: &str = " from engine.executions e left join engine.runs r on r.run_id = e.run_id";

/// A query whose attributes are known.
pub(super) struct Query {
    parsed: Parsed,
    known: Known,
}

/// The order of a list: expression, its type, and whether it is ascending. Runs with equal values are ordered by id.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) expression: &'static str,
    pub(super) kind: &'static str,
    pub(super) ascending: bool,
}

fn names<'a>(filter: &'a Filter, into: &mut Vec<&'a str>) {
    match filter {
        Filter::All(parts) | Filter::Any(parts) => parts.iter().for_each(|part| names(part, into)),
        Filter::Not(inner) => names(inner, into),
        Filter::Test(name, _) => into.push(name),
    }
}

impl Query {
    /// Parses a query; looks up the types of the custom attributes it names.
    pub(super) async fn read(engine: &Engine, query: &str) -> Result<Self, Status> {
        let parsed = parser::parse(query)?;
        let mut wanted = Vec::new();
        if let Some(filter) = &parsed.filter {
            names(filter, &mut wanted);
        }
        let mut known = Known::new();
        for name in wanted.into_iter().filter(|name| !Field::is_system(name)) {
            if !known.contains_key(name)
                && let Some(kind) = engine.attribute_type(name).await?
            {
                known.insert(name.to_owned(), kind);
            }
        }
        Ok(Self { parsed, known })
    }

    /// Appends ` where ...` to a query over [`TABLES`].
    pub(super) fn push_where(&self, sql: &mut QueryBuilder<Postgres>) -> Result<(), Status> {
        sql.push(" where ");
        match &self.parsed.filter {
            Some(filter) => sql::push(sql, filter, &self.known, false),
            None => {
                sql.push("true");
                Ok(())
            }
        }
    }

    /// The order of a list; latest start first by default.
    pub(super) fn order(&self) -> Result<Order, Status> {
        if self.parsed.group_by.is_some() {
            return Err(refuse("\"GROUP BY\" is for counts"));
        }
        let Some((name, ascending)) = &self.parsed.order_by else {
            return Ok(Order { expression: ORDER[0].1, kind: ORDER[0].2, ascending: false });
        };
        let Some((_, expression, kind)) = ORDER.iter().find(|(n, ..)| n == name) else {
            let known: Vec<&str> = ORDER.iter().map(|(n, ..)| *n).collect();
            return Err(refuse(format_args!("{name:?} where one of {} is expected", known.join(", "))));
        };
        Ok(Order { expression, kind, ascending: *ascending })
    }

    /// Whether a count is grouped by status.
    pub(super) fn grouped(&self) -> Result<bool, Status> {
        if let Some((name, _)) = &self.parsed.order_by {
            return Err(refuse(format_args!("ORDER BY {name}: a count has no order")));
        }
        match self.parsed.group_by.as_deref() {
            None => Ok(false),
            Some("ExecutionStatus") => Ok(true),
            Some(other) => Err(refuse(format_args!("{other:?} where ExecutionStatus is expected"))),
        }
    }
}

/// The name of a stored status.
pub(super) fn status_name(status: i16) -> &'static str {
    usize::try_from(status - 1).ok().and_then(|at| STATUSES.get(at)).copied().unwrap_or("Unspecified")
}
