//! Columns: what lists of a Kind filter and order by.
//!
//! A column is stated here and in the migration that adds it to the Kind's table, nowhere else: rows, lists, filters, the
//! document of the API and the proof that rows equal their operations all follow. A test compares the two.

use serde_json::Value;

/// What a column holds.
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
    /// `text[]`; neither filtered nor ordered by.
    Texts,
    /// `jsonb`; neither filtered nor ordered by, but for `labels`, which lists filter by key and value.
    Json,
}

/// A column of the Kind `E`.
#[derive(Debug)]
pub struct Column<E> {
    /// In the table.
    pub name: &'static str,
    /// What it holds.
    pub column_type: ColumnType,
    /// Its value, from the entity's state alone.
    pub value: fn(&E) -> Value,
    /// In the API, where that differs from the table.
    pub api_name: &'static str,
    /// What its filter is for; none: lists do not filter by it.
    pub filter: Option<&'static str>,
    /// Values the filter takes; empty: any.
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

    /// The API has another name for it.
    #[must_use]
    pub const fn shown_as(mut self, api_name: &'static str) -> Self {
        self.api_name = api_name;
        self
    }

    /// Lists filter by its exact value; `about` describes the parameter.
    #[must_use]
    pub const fn filtered(mut self, about: &'static str) -> Self {
        self.filter = Some(about);
        self
    }

    /// The filter takes these values only.
    #[must_use]
    pub const fn one_of(mut self, values: &'static [&'static str]) -> Self {
        self.values = values;
        self
    }

    /// Lists order by it.
    #[must_use]
    pub const fn ordered(mut self) -> Self {
        self.ordered = true;
        self
    }
}
