//! Why a command failed, and with which exit code.

use std::{io, net::SocketAddr, path::Path};

use crate::{
    agent_types::{CatalogueError, InstallError},
    compose::ComposeError,
    config::ConfigError,
    port_holder::PortHolder,
    postgres::PostgresError,
    telemetry::TelemetryError,
};

/// Exit code for wrong flags and settings (`EX_USAGE` of sysexits.h).
pub const USAGE: u8 = 64;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logs cannot be written.
    #[error(transparent)]
    Telemetry(#[from] TelemetryError),
    /// The embedded PostgreSQL does not run.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// A part of the server cannot be started.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The address is taken.
    #[error(
        "{listen} is taken by {}: stop it, or choose another address with --listen",
        holder.as_ref().map_or_else(|| "a process of another user".to_owned(), ToString::to_string)
    )]
    PortTaken {
        /// The address.
        listen: SocketAddr,
        /// Who listens there, if we may know.
        holder: Option<PortHolder>,
    },
    /// Cannot listen on the address.
    #[error("listen: {listen}: {source}")]
    Listen {
        /// The address.
        listen: SocketAddr,
        /// The system error.
        source: io::Error,
    },
    /// A file cannot be used.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The system error.
        source: io::Error,
    },
    /// The engine cannot be served.
    #[error(transparent)]
    Serve(#[from] ambient_engine::ServeError),
    /// Histories or operations cannot be read or written.
    #[error(transparent)]
    Replay(#[from] ambient_workflows::replay::ReplayError),
    /// The catalogue of agent types cannot be used.
    #[error(transparent)]
    Catalogue(#[from] CatalogueError),
    /// An agent cannot be installed.
    #[error(transparent)]
    Install(#[from] InstallError),
    /// A server process does not do what it should.
    #[error("{0}")]
    Process(String),
}

impl CommandError {
    pub(super) fn file(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.display().to_string();
        move |source| Self::File { path, source }
    }

    /// The program's exit code.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if matches!(self, Self::Config(_) | Self::Serve(ambient_engine::ServeError::NeedsTls(_))) { USAGE } else { 1 }
    }
}
