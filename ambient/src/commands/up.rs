//! `ambient up`: PostgreSQL and the server, on this machine, in the foreground.

use std::{process::ExitCode, time::Duration};

use tokio::time::{Instant, sleep};

use super::{CommandError, say::say, server};
use crate::{
    config::ServerConfig,
    instance::{self, Instance, InstanceKind, UpLock},
    postgres::EmbeddedPostgres,
    telemetry,
};

/// How long another `up` may take to become ready: a first start creates a database, one after a crash recovers it.
const OTHER_UP_PATIENCE: Duration = Duration::from_secs(180);

pub(super) async fn run(mut config: ServerConfig) -> Result<ExitCode, CommandError> {
    let _lock = match lock_or_find(&config).await? {
        Ok(lock) => lock,
        Err(other) => {
            // The context may point to another server by now.
            server::write_context(&config, &other.url);
            say(&other.url);
            eprintln!("ambient is already up (pid {}); stop it with: ambient down", other.pid);
            return Ok(ExitCode::SUCCESS);
        }
    };
    telemetry::init(config.log_format, &config.log_level)?;
    let listener = server::listen(config.listen)?;
    let mut _keeper = None;
    if config.database_url.is_none() {
        let postgres = EmbeddedPostgres::new(&config.data_dir)?;
        let running = postgres.start().await?;
        tracing::info!(pid = running.postmaster.pid(), adopted = running.adopted, "PostgreSQL is ready");
        config.database_url = Some(running.url);
        _keeper = Some(postgres.keep());
    }
    // PostgreSQL stays when the server ends, so that an upgrade or a crash of the server does not cost a recovery;
    // `ambient down` ends it.
    server::serve(config, listener, InstanceKind::Up).await
}

/// Takes the data directory, or finds the `up` that has it, waiting until that is ready or gone.
async fn lock_or_find(config: &ServerConfig) -> Result<Result<UpLock, Instance>, CommandError> {
    let dir = &config.data_dir;
    let deadline = Instant::now() + OTHER_UP_PATIENCE;
    loop {
        if let Some(lock) = instance::lock_for_up(dir).map_err(CommandError::file(dir))? {
            return Ok(Ok(lock));
        }
        let running = instance::running(dir).map_err(CommandError::file(dir))?;
        if let Some(up) = running.into_iter().find(|instance| instance.kind == InstanceKind::Up) {
            return Ok(Err(up));
        }
        if Instant::now() >= deadline {
            let seconds = OTHER_UP_PATIENCE.as_secs();
            let text = format!("another `ambient up` has had {} for {seconds} s and is not ready", dir.display());
            return Err(CommandError::Process(text));
        }
        sleep(Duration::from_millis(100)).await;
    }
}
