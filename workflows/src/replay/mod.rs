//! Whether this program can continue what another one has started: recorded histories replayed against its workflows.
//!
//! Invariants: nothing is written to where histories come from; one batch of histories per core is in memory, no more than a long one,
//! so a check of any number needs no more memory than the longest of them; a history is replayed against the workflows that a
//! worker of this program has, and no others; a divergence always belongs to one history, replayed by itself.

mod check;
mod file;
mod history;
mod replayer;
mod report;
mod source;

pub use check::{CheckOptions, check_file, check_histories, check_operations, export};
pub use file::{ExportEnd, ExportHeader, ExportReader, ExportWriter, Exported, FORMAT, FORMAT_VERSION};
pub use history::RecordedHistory;
pub use replayer::{Divergence, ReplayResult, replay, workflows};
pub use report::{FirstDivergence, Report, ReportRow};
pub use source::{ClientHistories, EngineHistories, HistorySource};

/// Why a check or an export could not be carried out. A divergence is not among these: it is in the report.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The operation log cannot be read.
    #[error("operations: {0}")]
    Store(#[from] ambient_persistence::StoreError),
    /// The embedded engine's histories cannot be read.
    #[error("histories: {0}")]
    Engine(#[from] ambient_engine::EngineError),
    /// The workflow service does not respond, or refuses.
    #[error("histories: {0}")]
    Service(String),
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: String,
        /// The system error.
        source: std::io::Error,
    },
    /// A file is not an export, is from a newer release, or is truncated.
    #[error("{path}, line {line}: {problem}")]
    Format {
        /// The file.
        path: String,
        /// Line, from 1.
        line: u64,
        /// What is wrong.
        problem: String,
    },
    /// This program's workflows cannot be replayed at all.
    #[error("the replayer: {0}")]
    Replayer(String),
}
