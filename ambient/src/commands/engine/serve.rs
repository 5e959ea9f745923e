//! `ambient engine serve`: the engine as a gRPC server.

use std::{fs, path::Path, process::ExitCode, time::Duration};

use ambient_engine::{Engine, EngineOptions, ServeLimits, Tls};
use ambient_postgres::connect_options;
use sqlx::postgres::PgPoolOptions;

use super::{CommandError, ServeFlags};
use crate::commands::say::say;
use crate::{
    commands::{database, server},
    telemetry,
};

/// Connections for reading, besides the engine's own.
const CONNECTIONS: u32 = 10;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
const DAY: Duration = Duration::from_secs(24 * 3600);

pub(super) async fn run(flags: ServeFlags) -> Result<ExitCode, CommandError> {
    let config = flags.engine.load()?;
    telemetry::init(config.log_format, &config.log_level)?;
    let tls = tls(&flags)?;
    if tls.is_none() && !flags.listen.ip().is_loopback() {
        // Before the database is touched.
        return Err(ambient_engine::ServeError::NeedsTls(flags.listen).into());
    }
    if !flags.listen.ip().is_loopback() && flags.tls_client_ca.is_none() {
        tracing::warn!(
            "without --tls-client-ca anyone who reaches {} can read and change every workflow",
            flags.listen
        );
    }
    let database = database::found(&config).await?;
    let listener = server::listen(flags.listen)?;
    let address = listener.local_addr().map_err(|source| CommandError::Listen { listen: flags.listen, source })?;
    let failed = |error: &dyn std::fmt::Display| CommandError::Process(error.to_string());
    let database = connect_options(database.expose()).map_err(|error| failed(&format!("database: {error}")))?;
    let pool = PgPoolOptions::new()
        .max_connections(CONNECTIONS)
        .acquire_timeout(CONNECT_TIMEOUT)
        .connect_with(database)
        .await
        .map_err(|error| failed(&format!("database: {error}")))?;
    let options = EngineOptions {
        identity: format!("{}@{} (serve)", std::process::id(), config.host),
        retention: DAY * flags.retention_days,
        ..EngineOptions::default()
    };
    let engine = Engine::start(pool, options).await.map_err(|error| failed(&error))?;
    let ended = server::shutdown().map_err(|error| failed(&format!("signals: {error}")))?;
    tracing::info!(%address, tls = tls.is_some(), "ready");
    say(address);
    engine.serve(listener, tls, ServeLimits::default(), ended).await?;
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}

fn tls(flags: &ServeFlags) -> Result<Option<Tls>, CommandError> {
    let (Some(certificate), Some(key)) = (&flags.tls_cert, &flags.tls_key) else { return Ok(None) };
    let read = |path: &Path| fs::read(path).map_err(CommandError::file(path));
    let client_authority = flags.tls_client_ca.as_deref().map(read).transpose()?;
    Ok(Some(Tls { certificate: read(certificate)?, key: read(key)?, client_authority }))
}
