//! The flags of the configuration.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{LimitFlags, TemporalFlags};

/// Flags of `up`, `server`, `config` and the like: each overrides the variable and the file key of its name.
/// Values are text here; they are parsed in one place with the other layers.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct ConfigFlags {
    /// Configuration file (TOML); else AMBIENT_SERVER_CONFIG, else server.toml in the usual place
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address of the HTTP API [default: 127.0.0.1:7080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// A proxy in front does TLS and authentication; allows other than loopback addresses
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub behind_proxy: Option<String>,
    /// Folder of workspaces, embedded PostgreSQL and tokens
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// Name of this machine as a compute host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Filter of the log, such as info,sqlx=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// First uid for sessions when the server is root [default: 40000]
    #[arg(long, value_name = "UID")]
    pub session_uid_base: Option<String>,
    /// Further folders sessions may read, separated by ':'
    #[arg(long, value_name = "FOLDERS")]
    pub readable_paths: Option<String>,
    /// require, best_effort or off [default: best_effort]
    #[arg(long, value_name = "MODE")]
    pub confinement: Option<String>,
    /// The program that runs inside a session [default: ambient-runner beside this program]
    #[arg(long, value_name = "FILE")]
    pub runner_binary: Option<String>,
    /// File that holds the administrator's token [default: admin-token in the data folder]
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<String>,
    /// What runs the workflows: embedded or temporal [default: embedded]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
    /// Task queue of the lifecycles [default: ambient]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub task_queue: Option<String>,
    /// Days for which the histories of closed executions are kept [default: 30]
    #[arg(long, value_name = "DAYS", hide_short_help = true)]
    pub retention_days: Option<String>,
    /// Commands in flight at once [default: 1024]
    #[arg(long, value_name = "NUMBER")]
    pub permits: Option<String>,
    /// Model of sessions that name none
    #[arg(long, value_name = "MODEL")]
    pub default_model: Option<String>,
    /// What sessions may take.
    #[command(flatten)]
    #[serde(flatten)]
    pub limits: LimitFlags,
    /// What counts with Temporal only.
    #[command(flatten)]
    #[serde(flatten)]
    pub temporal: TemporalFlags,
}
