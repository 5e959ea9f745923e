//! `ambient engine ...`: the workflow engine by itself.

mod check;
mod drain;
mod serve;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Args, Subcommand};

use super::{CommandError, Output};
use crate::config::{ConfigFlags, ServerConfig};

/// Commands of the embedded engine; they use the server's database.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Serve the engine as gRPC, for Temporal's command line, SDKs and workers in other processes
    Serve(ServeFlags),
    /// Verify every history and open run in the database; changes nothing
    Check(EngineFlags),
    /// Start nothing new, and list what is left: once nothing is, another engine can be chosen
    Drain(drain::DrainFlags),
}

/// Flags of every engine command.
#[derive(Debug, Clone, Args)]
pub struct EngineFlags {
    /// Configuration file (TOML) [default: AMBIENT_SERVER_CONFIG, else server.toml in the usual place]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Folder of the PostgreSQL that `up` runs, used if no database is configured
    #[arg(long, value_name = "FOLDER")]
    data_dir: Option<String>,
    /// Log format: auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    log_format: Option<String>,
    /// Log filter, such as info,sqlx=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    log_level: Option<String>,
}

/// Flags of `engine serve`.
#[derive(Debug, Args)]
pub struct ServeFlags {
    #[command(flatten)]
    engine: EngineFlags,
    /// Address to listen on; port 0 picks a free one. Anything but loopback needs TLS
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7233")]
    listen: SocketAddr,
    /// The server's certificate (PEM, with its chain)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The certificate's private key (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// CA of clients' certificates (PEM): clients without one are refused
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Days to keep the histories of closed runs; 0 keeps them forever
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
