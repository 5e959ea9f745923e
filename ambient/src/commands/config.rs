//! `ambient config`: what is in force, and why.

use std::process::ExitCode;

use crate::config::ServerConfig;

pub(super) fn run(config: &ServerConfig) -> ExitCode {
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    println!("{}", config.to_redacted_toml());
    ExitCode::SUCCESS
}
