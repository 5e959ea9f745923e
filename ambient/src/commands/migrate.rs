//! `ambient migrate`: the schema, without a server.

use std::process::ExitCode;

use super::{CommandError, database};
use crate::{compose, config::ServerConfig, telemetry};

pub(super) async fn run(config: &ServerConfig) -> Result<ExitCode, CommandError> {
    telemetry::init(config.log_format, &config.log_level)?;
    let url = database::found(config).await?;
    compose::migrate(url.expose()).await?;
    eprintln!("the schema of {url} is up to date");
    Ok(ExitCode::SUCCESS)
}
