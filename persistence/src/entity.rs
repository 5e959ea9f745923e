//! How entities are stored in their tables.

use ambient_domain::{Column, ColumnType, Entity};
use serde_json::{Map, Value, json};

/// A table of entity rows.
#[derive(Debug, PartialEq, Eq)]
pub struct Table {
    /// Qualified name.
    pub name: &'static str,
    /// Position in the fixed order in which tables are locked.
    pub lock_rank: u8,
    /// The entity's own columns, besides those every entity table has.
    pub columns: &'static [&'static str],
}

/// Columns of every entity table, besides the bookkeeping ones the append fills in.
pub(crate) const COMMON: [&str; 11] = [
    "id",
    "project_id",
    "version",
    "schema_version",
    "last_operation_id",
    "last_hash",
    "state",
    "spec",
    "created_at",
    "updated_at",
    "deleted_at",
];

/// Those of the common columns that every Kind's lists filter and order by.
pub(crate) const LISTED: [(&str, ColumnType); 6] = [
    ("id", ColumnType::Text),
    ("project_id", ColumnType::Text),
    ("version", ColumnType::Integer),
    ("created_at", ColumnType::Time),
    ("updated_at", ColumnType::Time),
    ("deleted_at", ColumnType::Time),
];

/// An entity with a table. Implemented by the registry ([`crate::KINDS`]), from the Kind's own columns.
pub trait StoredEntity: Entity {
    /// Its table.
    const TABLE: &'static Table;

    /// Values of the table's own columns and of `created_at`, `updated_at`, `deleted_at`.
    fn columns(&self) -> Map<String, Value> {
        let times = [
            ("created_at", json!(self.created_at())),
            ("updated_at", json!(self.updated_at())),
            ("deleted_at", json!(self.deleted_at())),
        ];
        let own = Self::COLUMNS.iter().map(|column| (column.name, (column.value)(self)));
        times.into_iter().chain(own).map(|(name, value)| (name.to_owned(), value)).collect()
    }
}

/// Names of columns, for a [`Table`].
///
/// # Panics
/// At compile time, if `N` is not their number.
#[must_use]
pub const fn column_names<E, const N: usize>(columns: &[Column<E>]) -> [&'static str; N] {
    assert!(columns.len() == N);
    let mut names = [""; N];
    let mut i = 0;
    while i < N {
        names[i] = columns[i].name;
        i += 1;
    }
    names
}
