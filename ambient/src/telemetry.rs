//! Logs: spans and events on standard error, text for people, JSON for machines.

use std::io::{self, IsTerminal};

use tracing_subscriber::{EnvFilter, Layer, Registry, layer::SubscriberExt, util::SubscriberInitExt};

use crate::config::LogFormat;

/// PostgreSQL's notices ("relation exists, skipping") are of no interest unless asked for.
const QUIET: &str = "sqlx::postgres::notice=warn";

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be parsed.
    #[error("log_level: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// This process has already set up its logs.
    #[error("logs: {0}")]
    Twice(#[from] tracing_subscriber::util::TryInitError),
}

/// Sends the process's spans and events to standard error, once per process. Writing is synchronous, so nothing needs
/// to be flushed at the end and nothing is lost in a crash.
///
/// # Errors
/// [`TelemetryError`].
pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let json = match format {
        LogFormat::Auto => !io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines: Box<dyn Layer<Registry> + Send + Sync> = if json {
        // The innermost span has the correlation id; the list of all would repeat it on every line.
        Box::new(lines.json().flatten_event(true).with_current_span(true).with_span_list(false))
    } else {
        Box::new(lines.with_ansi(io::stderr().is_terminal()).with_target(false))
    };
    // The first directives are the ones that a setting for the same target overrides.
    let filter = EnvFilter::try_new(format!("{QUIET},{level}"))?;
    tracing_subscriber::registry().with(lines.with_filter(filter)).try_init()?;
    Ok(())
}

/// The process's metrics, recorded from the first call on; none if another recorder is set.
#[must_use]
pub fn metrics() -> Option<metrics_exporter_prometheus::PrometheusHandle> {
    metrics_exporter_prometheus::PrometheusBuilder::new().install_recorder().ok()
}
