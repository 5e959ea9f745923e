//! One statement that writes any number of transitions and starts.
//!
//! Every section is a CTE over arrays with one element per row (`unnest`), so the text depends only on which sections
//! there are, and a connection plans each such text once. A statement for one item ([`Statement::for_one`]) has plain values
//! instead where there is one row, which is less work for PostgreSQL.
//!
//! A run's rows depend on `changed` (or `started`): the runs whose row was still as the decision assumed. A secondary row
//! that is not as expected aborts the whole statement (`engine.expect`).

use sqlx::{PgConnection, Postgres, QueryBuilder};
use uuid::Uuid;

/// Adds one column to the rows under construction.
macro_rules! column {
    ($s:expr, $rows:expr, $row:pat => $value:expr, $cast:literal) => {
        $s.column($rows.iter().map(|$row| $value).collect::<Vec<_>>(), $cast)
    };
}
pub(super) use column;

/// A statement under construction.
pub(super) struct Statement {
    sql: QueryBuilder<Postgres>,
    sections: usize,
    /// Sections whose rows must all match.
    expected: Vec<&'static str>,
    first_column: bool,
    /// For a single transition or start only: otherwise there would be too many texts to keep plans for.
    for_one: bool,
    /// The rows under construction are a single one, of plain values.
    one_row: bool,
}

/// Runs that were written.
#[derive(sqlx::FromRow)]
pub(super) struct Written {
    pub(super) changed: Vec<Uuid>,
    pub(super) started: Vec<Uuid>,
}

impl Statement {
    pub(super) fn new() -> Self {
        let sql = QueryBuilder::new("");
        Self { sql, sections: 0, expected: Vec::new(), first_column: true, for_one: false, one_row: false }
    }

    /// A statement for a single transition or start.
    pub(super) fn for_one() -> Self {
        Self { for_one: true, ..Self::new() }
    }

    /// Begins a CTE; what is pushed until [`Self::end`] is its text.
    pub(super) fn section(&mut self, name: &str, sql: &str) -> &mut Self {
        self.sql.push(if self.sections == 0 { "with " } else { ", " });
        self.sections += 1;
        self.sql.push(name).push(" as (").push(sql);
        self
    }

    pub(super) fn end(&mut self, sql: &str) {
        self.sql.push(sql).push(")");
    }

    /// Begins rows; to be followed by their columns and [`Self::rows_end`].
    pub(super) fn rows(&mut self) -> &mut Self {
        self.first_column = true;
        self
    }

    /// One column of the rows.
    pub(super) fn column<T>(&mut self, mut values: Vec<T>, cast: &'static str) -> &mut Self
    where
        T: for<'q> sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
        Vec<T>: for<'q> sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
    {
        if std::mem::take(&mut self.first_column) {
            self.one_row = self.for_one && values.len() == 1;
            self.sql.push(if self.one_row { "(select " } else { "unnest(" });
        } else {
            self.sql.push(", ");
        }
        if self.one_row
            && let Some(value) = values.pop()
        {
            self.sql.push_bind(value).push("::").push(cast);
        } else {
            self.sql.push_bind(values).push("::").push(cast).push("[]");
        }
        self
    }

    /// Names of the columns.
    pub(super) fn rows_end(&mut self, names: &str) -> &mut Self {
        self.sql.push(") k(").push(names).push(")");
        self
    }

    /// More text of a section.
    pub(super) fn text(&mut self, sql: &str) -> &mut Self {
        self.sql.push(sql);
        self
    }

    /// A single value.
    pub(super) fn value<T>(&mut self, value: T) -> &mut Self
    where
        T: for<'q> sqlx::Encode<'q, Postgres> + sqlx::Type<Postgres>,
    {
        self.sql.push_bind(value);
        self
    }

    /// Begins a CTE named `{name}_keys` with the keys of rows that must match; [`Self::keyed`] uses them.
    pub(super) fn keys(&mut self, name: &'static str) -> &mut Self {
        self.section(&format!("{name}_keys"), "select * from ").rows()
    }

    /// Ends the keys with their columns; only those of changed runs count.
    pub(super) fn keys_end(&mut self, names: &str) {
        self.rows_end(names).end(OF_CHANGED);
    }

    /// The CTE that must match every one of its keys; `sql` ends in `returning 1`.
    pub(super) fn keyed(&mut self, name: &'static str, sql: &str) {
        self.section(name, sql).end(" returning 1");
        self.expected.push(name);
    }

    /// Runs the statement.
    pub(super) async fn execute(mut self, connection: &mut PgConnection) -> Result<Written, sqlx::Error> {
        self.sql
            .push(" select array(select run_id from changed) as changed, array(select run_id from started) as started");
        for (position, name) in self.expected.iter().enumerate() {
            self.sql.push(if position == 0 { ", engine.expect(" } else { " and " });
            self.sql.push("(select count(*) from ").push(name).push(") = (select count(*) from ");
            self.sql.push(name).push("_keys)");
        }
        if !self.expected.is_empty() {
            self.sql.push(")");
        }
        self.sql.build_query_as().fetch_one(connection).await
    }
}

/// Restricts a section's rows `k` to runs that were changed. Written so that it becomes a hash look-up.
pub(super) const OF_CHANGED: &str = " where (k.run_id in (select run_id from changed)) is true";
/// The same as an additional condition.
pub(super) const AND_CHANGED: &str = " and (k.run_id in (select run_id from changed)) is true";
