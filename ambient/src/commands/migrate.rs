//! `ambient migrate`: the schema, without a server.

use std::process::ExitCode;

use super::CommandError;
use crate::{compose, config::ServerConfig, telemetry};

pub(super) async fn run(config: &ServerConfig) -> Result<ExitCode, CommandError> {
    let url = config.require_database_url()?;
    telemetry::init(config.log_format, &config.log_level)?;
    compose::migrate(url.expose()).await?;
    eprintln!("the schema of {url} is up to date");
    Ok(ExitCode::SUCCESS)
}
