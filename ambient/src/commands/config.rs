//! `ambient config`: the effective settings, and where they come from.

use std::process::ExitCode;

use super::{Output, say};
use crate::config::ServerConfig;

pub(super) fn run(config: &ServerConfig, output: Output) -> ExitCode {
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    match output {
        Output::Json => say::print(&format!("{}\n", config.to_redacted_json())),
        Output::Table => say::print(&format!("{}\n", config.to_redacted_toml())),
    }
    ExitCode::SUCCESS
}
