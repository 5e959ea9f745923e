//! The configuration flags.

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use super::{LimitFlags, ModelFlags, OtelFlags, RetentionFlags, SnapshotFlags, TemporalFlags};

/// Flags of `up`, `server`, `config` and the like: each overrides the variable and the file key of its name.
/// Values are text here; they are parsed in one place along with the other layers.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct ConfigFlags {
    /// Configuration file (TOML) [default: AMBIENT_SERVER_CONFIG, else server.toml in the usual place]
    #[arg(long, value_name = "FILE")]
    #[serde(skip)]
    pub config: Option<PathBuf>,
    /// Address of the HTTP API [default: 127.0.0.1:7080]
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<String>,
    /// A proxy in front handles TLS and authentication; allows addresses other than loopback
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL")]
    pub behind_proxy: Option<String>,
    /// Folder for workspaces, embedded PostgreSQL and tokens
    #[arg(long, value_name = "FOLDER")]
    pub data_dir: Option<String>,
    /// Name of this machine as a compute host
    #[arg(long, value_name = "NAME")]
    pub host: Option<String>,
    /// Log format: auto, text or json [default: auto]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<String>,
    /// Log filter, such as info,sqlx=debug [default: info]
    #[arg(long, value_name = "FILTER")]
    pub log_level: Option<String>,
    /// First uid for sessions if the server is root [default: 40000]
    #[arg(long, value_name = "UID")]
    pub session_uid_base: Option<String>,
    /// Additional folders that sessions may read, separated by ':'
    #[arg(long, value_name = "FOLDERS")]
    pub readable_paths: Option<String>,
    /// Folder that agents are installed to [default: the data folder's name with -agents]
    #[arg(long, value_name = "FOLDER")]
    pub agents_dir: Option<String>,
    /// File with further agent types, in the form of the release's catalogue
    #[arg(long, value_name = "FILE")]
    pub agent_types_file: Option<String>,
    /// Confinement of sessions: require, best_effort or off [default: best_effort]
    #[arg(long, value_name = "MODE")]
    pub confinement: Option<String>,
    /// Network of sessions that say nothing: open, none, or hosts separated by commas [default: open]
    #[arg(long, value_name = "NETWORK")]
    pub session_network: Option<String>,
    /// The program that runs inside a session [default: ambient-runner next to this program]
    #[arg(long, value_name = "FILE")]
    pub runner_binary: Option<String>,
    /// File with the administrator's token [default: admin-token in the data folder]
    #[arg(long, value_name = "FILE")]
    pub admin_token_file: Option<String>,
    /// Which engine runs the workflows: embedded or temporal [default: embedded]
    #[arg(long, value_name = "ENGINE")]
    pub engine: Option<String>,
    /// Task queue of the lifecycles [default: ambient]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub task_queue: Option<String>,
    /// Days to keep the histories of closed executions [default: 30]
    #[arg(long, value_name = "DAYS", hide_short_help = true)]
    pub retention_days: Option<String>,
    /// Maximum number of commands in flight at once [default: 1024]
    #[arg(long, value_name = "NUMBER")]
    pub permits: Option<String>,
    /// Model for sessions that name none
    #[arg(long, value_name = "MODEL")]
    pub default_model: Option<String>,
    /// Program that runs as the agent of sessions that name none [default: script]
    #[arg(long, value_name = "TYPE")]
    pub default_agent_type: Option<String>,
    /// What sessions may use.
    #[command(flatten)]
    #[serde(flatten)]
    pub limits: LimitFlags,
    /// Where sessions' models are asked.
    #[command(flatten)]
    #[serde(flatten)]
    pub models: ModelFlags,
    /// Where snapshots are kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub snapshots: SnapshotFlags,
    /// For how long what finished sessions have left is kept.
    #[command(flatten)]
    #[serde(flatten)]
    pub retention: RetentionFlags,
    /// Where traces are exported to.
    #[command(flatten)]
    #[serde(flatten)]
    pub otel: OtelFlags,
    /// Settings that apply only with Temporal.
    #[command(flatten)]
    #[serde(flatten)]
    pub temporal: TemporalFlags,
}
