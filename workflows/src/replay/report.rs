//! What a check found, as a table for people and as JSON.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

/// The first history or operation of a kind in which the program decides differently.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FirstDivergence {
    /// The recorded step that it does not take: `activity launch-runner`, or the command.
    pub step: String,
    /// The history event that recorded it; absent for operations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub event_id: Option<i64>,
    /// The history or operation: `session-start/… run …`.
    pub source: String,
    /// In words.
    pub what: String,
}

/// A kind: a workflow, or a command of an entity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReportRow {
    /// `workflow session-start`, `operation session/stop`.
    pub kind: String,
    /// Number of histories or operations checked.
    pub runs: u64,
    /// How many of them the program decides as recorded.
    pub identical: u64,
    /// The first of the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_divergence: Option<FirstDivergence>,
}

/// Everything that was checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    rows: BTreeMap<String, ReportRow>,
}

impl Report {
    /// Counts one.
    pub(super) fn count(&mut self, kind: &str, divergence: Option<FirstDivergence>) {
        let empty = || ReportRow { kind: kind.to_owned(), runs: 0, identical: 0, first_divergence: None };
        let row = self.rows.entry(kind.to_owned()).or_insert_with(empty);
        row.runs += 1;
        match divergence {
            None => row.identical += 1,
            Some(divergence) => {
                row.first_divergence.get_or_insert(divergence);
            }
        }
    }

    /// One row per kind, operations first, by name.
    pub fn rows(&self) -> impl Iterator<Item = &ReportRow> {
        self.rows.values()
    }

    /// How many histories or operations are decided differently.
    #[must_use]
    pub fn diverged(&self) -> u64 {
        self.rows.values().map(|row| row.runs - row.identical).sum()
    }

    /// How many were checked.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.rows.values().map(|row| row.runs).sum()
    }

    /// `{"diverged": 0, "rows": […]}`.
    #[must_use]
    pub fn to_json(&self) -> serde_json::Value {
        let rows: Vec<&ReportRow> = self.rows().collect();
        serde_json::json!({ "diverged": self.diverged(), "runs": self.runs(), "rows": rows })
    }
}

/// The table, followed by the first divergence of each kind in full.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.keys().map(String::len).max().unwrap_or(0).max("KIND".len());
        writeln!(f, "{:width$}  {:>7}  {:>9}  FIRST DIVERGENCE", "KIND", "RUNS", "IDENTICAL")?;
        for row in self.rows() {
            let first = row.first_divergence.as_ref().map_or_else(|| "-".to_owned(), FirstDivergence::place);
            writeln!(f, "{:width$}  {:>7}  {:>9}  {first}", row.kind, row.runs, row.identical)?;
        }
        for row in self.rows() {
            if let Some(first) = &row.first_divergence {
                writeln!(f, "\n{}: {}\n  in {}\n  {}", row.kind, first.place(), first.source, first.what)?;
            }
        }
        Ok(())
    }
}

impl FirstDivergence {
    fn place(&self) -> String {
        match self.event_id {
            Some(event) => format!("{} (event {event})", self.step),
            None => self.step.clone(),
        }
    }
}
