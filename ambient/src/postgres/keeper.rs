//! Restarts the server when it dies under a running `up`: nobody else would.

use std::time::Duration;

use ambient_persistence::retry::Backoff;
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

use super::EmbeddedPostgres;

/// Between two checks.
const LOOK: Duration = Duration::from_millis(500);
/// Pause after a failed start: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// A server that lived this long did not die from what the last start left behind.
const WELL: Duration = Duration::from_secs(60);

/// Ends with this value; the server stays.
#[derive(Debug)]
pub struct Keeper(JoinHandle<()>);

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl EmbeddedPostgres {
    /// Looks after the server from now on. Keep the returned value as long as the server is needed.
    #[must_use]
    pub fn keep(self) -> Keeper {
        Keeper(tokio::spawn(keep(self)))
    }
}

async fn keep(postgres: EmbeddedPostgres) {
    let mut backoff = Backoff::new(FIRST_PAUSE, LONGEST_PAUSE);
    let mut started = Instant::now();
    loop {
        sleep(LOOK).await;
        if postgres.postmaster().is_some() {
            continue;
        }
        if started.elapsed() > WELL {
            backoff.reset();
        } else {
            sleep(backoff.pause()).await;
        }
        tracing::error!(log = %postgres.log().display(), "PostgreSQL has died; restarting it");
        match postgres.start().await {
            Ok(running) => tracing::info!(pid = running.postmaster.pid(), "PostgreSQL is ready again"),
            Err(error) => tracing::error!(%error, "PostgreSQL cannot be restarted; trying later"),
        }
        started = Instant::now();
    }
}
