//! The engine's options.

use std::time::Duration;

/// A week: a failure on a Friday can be investigated after the weekend, and a version that runs for some days replays histories of
/// every kind before the next one is deployed.
const DEFAULT_RETENTION: Duration = Duration::from_secs(7 * 24 * 3600);

/// How an engine identifies itself, and how long it keeps histories.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// The one namespace served; requests for another are `NotFound`.
    pub namespace: String,
    /// Shown to people as the owner of this process's row.
    pub identity: String,
    /// How long, at least, the history of a closed run is kept; zero means forever.
    pub retention: Duration,
    /// The engine's own connections for handing out and taking in tasks, besides the pool, two that write, three that listen and send
    /// hints, and the one that keeps the lease.
    pub connections: usize,
    /// Longest that a change waits for the workflow task it causes, to be written with its end. Under load a task waits its turn; a
    /// worker slower than this costs a second statement.
    pub deferral: Duration,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            namespace: "default".to_owned(),
            identity: format!("{}@engine", std::process::id()),
            retention: DEFAULT_RETENTION,
            connections: 8,
            deferral: Duration::from_millis(250),
        }
    }
}

#[cfg(test)]
impl EngineOptions {
    /// Changes wait for their tasks, however slow the machine is.
    pub(crate) fn patient() -> Self {
        Self { deferral: Duration::from_secs(20), ..Self::default() }
    }
}
