//! `ambient down`: ends the server of this data directory, then its PostgreSQL. Nothing is removed.

use std::{process::ExitCode, time::Duration};

use super::CommandError;
use crate::{
    config::ServerConfig,
    instance::{self, InstanceKind},
    postgres::EmbeddedPostgres,
};

/// Longer than the server takes to drain its actors.
const SERVER_PATIENCE: Duration = Duration::from_secs(40);

pub(super) async fn run(config: &ServerConfig) -> Result<ExitCode, CommandError> {
    let dir = &config.data_dir;
    if !dir.exists() {
        eprintln!("nothing is running: there is no {}", dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let running = instance::running(dir).map_err(CommandError::file(dir))?;
    for up in running.iter().filter(|instance| instance.kind == InstanceKind::Up) {
        let ended = up.terminate(SERVER_PATIENCE).await;
        let ended = ended.map_err(|error| CommandError::Process(format!("server (pid {}): {error}", up.pid)))?;
        if !ended {
            let text = format!("server (pid {}) has not ended after {} s", up.pid, SERVER_PATIENCE.as_secs());
            return Err(CommandError::Process(text));
        }
        eprintln!("server stopped (pid {})", up.pid);
    }
    // Held until PostgreSQL has ended, so that no `up` adopts it meanwhile.
    let lock = instance::lock_for_up(dir).map_err(CommandError::file(dir))?;
    if lock.is_none() {
        let text = format!("an `ambient up` is starting on {}: try again when it is ready", dir.display());
        return Err(CommandError::Process(text));
    }
    if dir.join("postgres").exists() && EmbeddedPostgres::new(dir)?.stop().await? {
        eprintln!("PostgreSQL stopped");
    }
    eprintln!("down; data is kept in {}", dir.display());
    Ok(ExitCode::SUCCESS)
}
