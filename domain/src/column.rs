//! Columns: what lists of a Kind filter and order by.
//!
//! A column is declared here and in the migration that adds it to the Kind's table, nowhere else: rows, lists, filters, the
//! API's document and the proof that rows equal their operations all follow. A test compares the two.

use serde_json::Value;

/// What a column contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColumnType {
    /// `text`.
    Text,
    /// `boolean`.
    Boolean,
    /// `bigint` or `integer`.
    Integer,
    /// `timestamptz`.
    Time,
    /// `text[]`; lists neither filter nor order by it.
    Texts,
    /// `jsonb`; lists neither filter nor order by it, except for `labels`, which lists filter by key and value.
    Json,
}

/// A column of the Kind `E`.
#[derive(Debug)]
pub struct Column<E> {
    /// Name in the table.
    pub name: &'static str,
    /// What it holds.
    pub column_type: ColumnType,
    /// Its value, from the entity's state alone.
    pub value: fn(&E) -> Value,
    /// Name in the API, if different from the table's.
    pub api_name: &'static str,
    /// What its filter is for; none: lists do not filter by it.
    pub filter: Option<&'static str>,
    /// Values that the filter takes; empty: any.
    pub values: &'static [&'static str],
    /// Whether lists order by it.
    pub ordered: bool,
}

impl<E> Column<E> {
    /// A column that lists neither filter nor order by.
    #[must_use]
    pub const fn new(name: &'static str, column_type: ColumnType, value: fn(&E) -> Value) -> Self {
        Self { name, column_type, value, api_name: name, filter: None, values: &[], ordered: false }
    }

    /// Gives it another name in the API.
    #[must_use]
    pub const fn shown_as(mut self, api_name: &'static str) -> Self {
        self.api_name = api_name;
        self
    }

    /// Lets lists filter by its exact value; `about` describes the parameter.
    #[must_use]
    pub const fn filtered(mut self, about: &'static str) -> Self {
        self.filter = Some(about);
        self
    }

    /// Restricts the filter to these values.
    #[must_use]
    pub const fn one_of(mut self, values: &'static [&'static str]) -> Self {
        self.values = values;
        self
    }

    /// Lets lists order by it.
    #[must_use]
    pub const fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }
}
