//! `ambient config`: what is in force, and why.

use std::process::ExitCode;

use super::Output;
use crate::config::ServerConfig;

pub(super) fn run(config: &ServerConfig, output: Output) -> ExitCode {
    for warning in &config.warnings {
        eprintln!("warning: {warning}");
    }
    match output {
        Output::Json => println!("{}", config.to_redacted_json()),
        Output::Table => println!("{}", config.to_redacted_toml()),
    }
    ExitCode::SUCCESS
}
