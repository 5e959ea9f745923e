//! `ambient engine ...`: the workflow engine by itself.

mod check;
mod drain;
mod serve;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{CommandError, Output};
use crate::config::{ConfigFlags, ServerConfig};

/// Commands of the embedded engine; its database is the server's.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Serve the engine as gRPC, for Temporal's command line, SDKs and workers of other processes
    Serve(ServeFlags),
    /// Verify every history and open run in the database; changes nothing
    Check(EngineFlags),
    /// Start nothing new, and tell what is left: another engine can be chosen when nothing is
    Drain(drain::DrainFlags),
}

/// Flags every command of the engine has.
#[derive(Debug, Clone, Args)]
pub struct EngineFlags {
    /// Configuration file (TOML); else AMBIENT_SERVER_CONFIG, else server.toml in the usual place
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the PostgreSQL that `up` runs, where no database is configured
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Filter of the log, such as info,sqlx=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

/// Flags of `engine serve`.
#[derive(Debug, Args)]
pub struct ServeFlags {
    #[command(flatten)]
    engine: EngineFlags,
    /// Address to listen on; port 0 takes a free one. Other than loopback needs TLS
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7233")]
    listen: SocketAddr,
    /// Certificate of the server (PEM, with its chain)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Authority of clients' certificates (PEM): clients without one are refused
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Days for which the histories of closed runs are kept; 0 keeps them for ever
    #[arg(long, value_name = "DAYS", default_value_t = 7)]
    retention_days: u32,
}

impl EngineFlags {
    fn load(&self) -> Result<ServerConfig, CommandError> {
        let Self { config, data_dir, log_format, log_level } = self.clone();
        Ok(ServerConfig::load(&ConfigFlags { config, data_dir, log_format, log_level, ..ConfigFlags::default() })?)
    }
}

impl EngineCommand {
    pub(super) async fn run(self, output: Output) -> Result<ExitCode, CommandError> {
        match self {
            Self::Serve(flags) => serve::run(flags).await,
            Self::Check(flags) => check::run(&flags.load()?, output).await,
            Self::Drain(flags) => drain::run(flags, output).await,
        }
    }
}
