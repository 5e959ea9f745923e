//! The server's configuration: one typed struct, validated once at start.
//!
//! Every setting has one name. It is read, in order of precedence, from the flag `--name`, the environment variable
//! `AMBIENT_NAME`, the TOML file and the default below. An unknown file key is an error that names it. A secret has no
//! flag, because every user of the machine can read a process's arguments.

mod database_url;
mod flags;
mod layers;
mod limits;
mod models;
mod money;
mod otel;
mod prices;
mod retention;
mod secret;
mod snapshots;
mod temporal;

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs, io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use ambient_compute::local::{Network, check_uid_base};
use serde::{Deserialize, Serialize};

use self::layers::Layers;
pub use self::{
    database_url::DatabaseUrl,
    flags::ConfigFlags,
    layers::Origin,
    limits::{LimitConfig, LimitFlags},
    models::{ModelConfig, ModelFlags},
    money::Money,
    otel::{Content, OtelConfig, OtelFlags, Ratio},
    prices::{Price, Prices},
    retention::{RetentionConfig, RetentionFlags},
    secret::Secret,
    snapshots::{SnapshotConfig, SnapshotFlags, SnapshotPlace},
    temporal::{TemporalConfig, TemporalFlags, WorkerVersioning},
};
use crate::{
    agent_types::{Catalogue, CatalogueError, Installer},
    user_ids,
};

/// Environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "AMBIENT_SERVER_CONFIG";

/// Settings of `ambient up` and `ambient server`. The fields are in the order `ambient config` prints them.
#[derive(Debug, Clone, Serialize)]
pub struct ServerConfig {
    /// PostgreSQL to use. `up` starts its own if there is none; `server` and `migrate` need one.
    pub database_url: Option<DatabaseUrl>,
    /// Address the HTTP API listens on.
    pub listen: SocketAddr,
    /// Whether a proxy in front handles TLS and authentication; without it only loopback addresses are allowed.
    pub behind_proxy: bool,
    /// Folder for everything kept outside the database: workspaces, embedded PostgreSQL, tokens. Absolute.
    pub data_dir: PathBuf,
    /// The configuration file, whether it exists or not.
    #[serde(skip)]
    pub config_file: PathBuf,
    /// Name of this machine as a compute host; recorded with every launch, so it must not change.
    pub host: String,
    /// Format of the log on standard error.
    pub log_format: LogFormat,
    /// Filter of the log, such as `info` or `info,sqlx=debug`.
    pub log_level: String,
    /// First uid for sessions if the server is root: a session gets this number plus its slot.
    pub session_uid_base: u32,
    /// Folders sessions may read besides the system's own programs and libraries. Absolute.
    pub readable_paths: Vec<PathBuf>,
    /// Folder that agents are installed to; sessions may read it. Absolute.
    pub agents_dir: PathBuf,
    /// File with further agent types. Absolute.
    pub agent_types_file: Option<PathBuf>,
    /// What to do if the kernel cannot confine a session.
    pub confinement: Confinement,
    /// What a session's agent may reach of the network if neither session nor agent says so.
    pub session_network: SessionNetwork,
    /// The program that runs inside a session. Absolute.
    pub runner_binary: PathBuf,
    /// File with the administrator's token. Absolute.
    pub admin_token_file: PathBuf,
    /// Which engine runs the workflows.
    pub engine: Engine,
    /// Task queue of the lifecycles.
    pub task_queue: String,
    /// Days to keep the histories of closed executions. Applies to a Temporal namespace only if the server creates it.
    pub retention_days: u32,
    /// Commands in flight at once, over all actors; any more are answered 503.
    pub permits: u32,
    /// Model for sessions if neither session, agent nor project names one.
    pub default_model: Option<String>,
    /// Program that runs as the agent if neither session, agent nor project names one.
    pub default_agent_type: String,
    /// What sessions may use, and how much of the disk is reserved for the server.
    #[serde(flatten)]
    pub limits: LimitConfig,
    /// Where sessions' models are asked.
    #[serde(flatten)]
    pub models: ModelConfig,
    /// Where snapshots are kept, how much, and for how long.
    #[serde(flatten)]
    pub snapshots: SnapshotConfig,
    /// For how long what finished sessions have left is kept.
    #[serde(flatten)]
    pub retention: RetentionConfig,
    /// Where traces are exported to.
    #[serde(flatten)]
    pub otel: OtelConfig,
    /// Settings that apply only with Temporal.
    #[serde(flatten)]
    pub temporal: TemporalConfig,
    /// Where each setting came from, by key.
    #[serde(skip)]
    pub origins: BTreeMap<&'static str, Origin>,
    /// What looks like a mistake but does not prevent a start.
    #[serde(skip)]
    pub warnings: Vec<String>,
}

/// Keys of the configuration file except the limits', the models', the snapshots', retention's, the traces' and Temporal's, in the order of [`ServerConfig`].
const SERVER_KEYS: &[&str] = &[
    "database_url",
    "listen",
    "behind_proxy",
    "data_dir",
    "host",
    "log_format",
    "log_level",
    "session_uid_base",
    "readable_paths",
    "agents_dir",
    "agent_types_file",
    "confinement",
    "session_network",
    "runner_binary",
    "admin_token_file",
    "engine",
    "task_queue",
    "retention_days",
    "permits",
    "default_model",
    "default_agent_type",
];

/// Keys of the configuration file, in display order.
pub fn keys() -> impl Iterator<Item = &'static str> {
    SERVER_KEYS
        .iter()
        .chain(limits::KEYS)
        .chain(models::KEYS)
        .chain(snapshots::KEYS)
        .chain(retention::KEYS)
        .chain(otel::KEYS)
        .chain(temporal::KEYS)
        .copied()
}

/// Format of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// How sessions are confined.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confinement {
    /// A session that the kernel cannot confine is not started.
    Require,
    /// What the kernel lacks is shown as a condition of the session.
    BestEffort,
    /// Sessions may read what the server may read.
    Off,
}

impl Confinement {
    /// In the runner's form.
    pub(crate) fn of_runner(self) -> ambient_runner_protocol::Confinement {
        match self {
            Self::Require => ambient_runner_protocol::Confinement::Require,
            Self::BestEffort => ambient_runner_protocol::Confinement::BestEffort,
            Self::Off => ambient_runner_protocol::Confinement::Off,
        }
    }
}

/// What a session's agent may reach of the network: `open`, `none`, or hosts separated by commas.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SessionNetwork(pub Network);

impl TryFrom<String> for SessionNetwork {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse::<Network>().map(Self).map_err(|problem| format!("{} {}", problem.field, problem.reason))
    }
}

impl From<SessionNetwork> for String {
    fn from(network: SessionNetwork) -> Self {
        network.0.to_string()
    }
}

/// Which engine runs the workflows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The engine in this process, on the same PostgreSQL.
    Embedded,
    /// A Temporal cluster.
    Temporal,
}

/// Why there is no usable configuration. Every message names the setting and where its value came from.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration file {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system error.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file {}: {message}", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Line, column and reason.
        message: String,
    },
    /// The file has a key that no setting has.
    #[error("configuration file {}: unknown key `{key}`; known keys are {}", path.display(), keys().collect::<Vec<_>>().join(", "))]
    UnknownKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value is not allowed.
    #[error("{key}: {message} (from {origin})")]
    Invalid {
        /// The setting.
        key: &'static str,
        /// What is wrong with it; never repeats a secret.
        message: String,
        /// Where the value came from.
        origin: Origin,
    },
    /// A setting without a default on this machine is not set.
    #[error("{key} is not set: {hint}")]
    Missing {
        /// The setting.
        key: &'static str,
        /// How to set it.
        hint: &'static str,
    },
}

impl ServerConfig {
    /// Reads and validates the configuration of this process.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting.
    pub fn load(flags: &ConfigFlags) -> Result<Self, ConfigError> {
        Self::resolve(flags, std::env::vars_os())
    }

    /// Like [`ServerConfig::load`], with a given environment.
    ///
    /// # Errors
    /// [`ConfigError`], naming the setting.
    pub fn resolve(
        flags: &ConfigFlags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let mut layers = Layers::new(flags, environment)?;
        let data_dir = match layers.take::<PathBuf>("data_dir")? {
            Some(dir) => dir,
            None => default_data_dir(&layers)?,
        };
        let config = Self {
            database_url: layers.take("database_url")?,
            listen: layers.take("listen")?.unwrap_or(SocketAddr::from(([127, 0, 0, 1], 7080))),
            behind_proxy: layers.take("behind_proxy")?.unwrap_or(false),
            host: layers.take("host")?.unwrap_or_else(host_name),
            log_format: layers.take("log_format")?.unwrap_or(LogFormat::Auto),
            log_level: layers.take("log_level")?.unwrap_or_else(|| "info".to_owned()),
            // Above what adduser assigns, below 65,536: a container's user namespace often ends there.
            session_uid_base: layers.take("session_uid_base")?.unwrap_or(40_000),
            readable_paths: layers.take("readable_paths")?.unwrap_or_default(),
            agents_dir: layers.take("agents_dir")?.unwrap_or_else(|| beside(&data_dir)),
            agent_types_file: layers.take("agent_types_file")?,
            confinement: layers.take("confinement")?.unwrap_or(Confinement::BestEffort),
            session_network: layers.take("session_network")?.unwrap_or_default(),
            runner_binary: layers.take("runner_binary")?.unwrap_or_else(default_runner),
            admin_token_file: layers.take("admin_token_file")?.unwrap_or_else(|| data_dir.join("admin-token")),
            engine: layers.take("engine")?.unwrap_or(Engine::Embedded),
            task_queue: layers.take("task_queue")?.unwrap_or_else(|| ambient_workflows::TASK_QUEUE.to_owned()),
            retention_days: layers.take("retention_days")?.unwrap_or(30),
            permits: layers.take("permits")?.unwrap_or(1024),
            default_model: layers.take("default_model")?,
            default_agent_type: layers.take("default_agent_type")?.unwrap_or_else(|| "script".to_owned()),
            limits: LimitConfig::take(&mut layers)?,
            models: ModelConfig::take(&mut layers)?,
            snapshots: SnapshotConfig::take(&mut layers)?,
            retention: RetentionConfig::take(&mut layers)?,
            otel: OtelConfig::take(&mut layers)?,
            temporal: TemporalConfig::take(&mut layers)?,
            data_dir,
            config_file: layers.path.clone(),
            warnings: layers.warnings,
            origins: layers.origins,
        };
        config.validate()?;
        Ok(config)
    }

    /// Programs that can run as agents.
    ///
    /// # Errors
    /// If the file with further ones cannot be used.
    pub fn agent_types(&self) -> Result<Catalogue, CatalogueError> {
        Catalogue::load(self.agent_types_file.as_deref(), &self.agents_dir)
    }

    /// With what agents are installed.
    #[must_use]
    pub fn installer(&self) -> Installer {
        let is_root = rustix::process::geteuid().is_root();
        let user = is_root.then(|| user_ids::installer(self.session_uid_base));
        Installer { runner: self.runner_binary.clone(), user, confinement: self.confinement.of_runner() }
    }

    /// The database's URL.
    ///
    /// # Errors
    /// [`ConfigError::Missing`] when none is set.
    pub fn require_database_url(&self) -> Result<&DatabaseUrl, ConfigError> {
        self.database_url.as_ref().ok_or(ConfigError::Missing {
            key: "database_url",
            hint: "set AMBIENT_DATABASE_URL or database_url in the configuration file; only `ambient up` starts its own PostgreSQL",
        })
    }

    fn validate(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() && !self.behind_proxy {
            let text = "is not a loopback address; with a proxy in front that handles TLS and authentication, set behind_proxy = true";
            return Err(self.invalid("listen", format!("{} {text}", self.listen)));
        }
        let paths = [
            ("data_dir", &self.data_dir),
            ("runner_binary", &self.runner_binary),
            ("agents_dir", &self.agents_dir),
            ("admin_token_file", &self.admin_token_file),
        ];
        let readable = self.readable_paths.iter().map(|path| ("readable_paths", path));
        let readable = readable.chain(self.agent_types_file.iter().map(|path| ("agent_types_file", path)));
        if let Some((key, path)) = paths.into_iter().chain(readable).find(|(_, path)| !path.is_absolute()) {
            return Err(self.invalid(key, format!("`{}` is not an absolute path", path.display())));
        }
        // Sessions have their own /tmp and /run, to which these lead.
        if let Some(elsewhere) = ["/var/tmp", "/var/run"].into_iter().find(|folder| self.data_dir.starts_with(folder)) {
            let reason =
                format!("`{}` cannot be used by sessions, whose {elsewhere} is their own", self.data_dir.display());
            return Err(self.invalid("data_dir", reason));
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        if self.host.is_empty() || self.host.len() > 253 || !self.host.chars().all(legal) {
            return Err(self.invalid("host", "must be 1 to 253 letters, digits, '-', '.' or '_'".to_owned()));
        }
        if let Err(error) = tracing_subscriber::EnvFilter::try_new(&self.log_level) {
            return Err(self.invalid("log_level", error.to_string()));
        }
        // 2^31 is where some tools stop understanding a uid.
        if !(1_000..=0x7fff_0000).contains(&self.session_uid_base) {
            return Err(self.invalid("session_uid_base", "must be from 1000 to 2147418112".to_owned()));
        }
        check_uid_base(self.session_uid_base).map_err(|problem| self.invalid("session_uid_base", problem))?;
        if !(1..=65_536).contains(&self.permits) {
            return Err(self.invalid("permits", "must be from 1 to 65536".to_owned()));
        }
        if self.task_queue.is_empty() || self.task_queue.len() > 200 || !self.task_queue.chars().all(legal) {
            return Err(self.invalid("task_queue", "must be 1 to 200 letters, digits, '-', '.' or '_'".to_owned()));
        }
        if !(1..=3_650).contains(&self.retention_days) {
            return Err(self.invalid("retention_days", "must be from 1 to 3650".to_owned()));
        }
        let problems = [
            self.limits.problem(),
            self.models.problem(),
            self.snapshots.problem(),
            self.retention.problem(),
            self.otel.problem(),
            self.temporal.problem(),
        ];
        if let Some((key, message)) = problems.into_iter().flatten().next() {
            return Err(self.invalid(key, message));
        }
        Ok(())
    }

    fn invalid(&self, key: &'static str, message: String) -> ConfigError {
        ConfigError::Invalid { key, message, origin: self.origins.get(key).cloned().unwrap_or(Origin::Default) }
    }

    /// Each setting as `{"value", "origin"}`; null if it is not set; passwords are replaced.
    #[must_use]
    pub fn to_redacted_json(&self) -> serde_json::Value {
        let table = toml::Table::try_from(self).unwrap_or_default();
        let entry = |key: &'static str| {
            let origin = self.origins.get(key).unwrap_or(&Origin::Default).to_string();
            (key.to_owned(), serde_json::json!({ "value": table.get(key), "origin": origin }))
        };
        keys().map(entry).collect::<serde_json::Map<_, _>>().into()
    }

    /// The configuration as TOML with the origin of each setting; passwords are replaced.
    #[must_use]
    pub fn to_redacted_toml(&self) -> String {
        let table = toml::Table::try_from(self).unwrap_or_default();
        let line = |key: &'static str| {
            let origin = self.origins.get(key).unwrap_or(&Origin::Default);
            table.get(key).map_or_else(|| format!("# {key} is not set"), |value| format!("{key} = {value}  # {origin}"))
        };
        keys().map(line).collect::<Vec<_>>().join("\n")
    }
}

/// Agents are not kept in the data folder, of which sessions see nothing but their own.
fn beside(data_dir: &Path) -> PathBuf {
    let mut name = data_dir.file_name().unwrap_or_default().to_owned();
    name.push("-agents");
    data_dir.with_file_name(name)
}

fn default_data_dir(layers: &Layers) -> Result<PathBuf, ConfigError> {
    if rustix::process::geteuid().is_root() {
        return Ok("/var/lib/ambient".into());
    }
    let share = layers.path_variable("XDG_DATA_HOME");
    share
        .or_else(|| layers.path_variable("HOME").map(|home| home.join(".local/share")))
        .map(|dir| dir.join("ambient"))
        .ok_or(ConfigError::Missing { key: "data_dir", hint: "there is no HOME; set AMBIENT_DATA_DIR" })
}

fn default_runner() -> PathBuf {
    let own = std::env::current_exe().unwrap_or_default();
    own.parent().unwrap_or(Path::new("/usr/bin")).join("ambient-runner")
}

fn host_name() -> String {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    if name.trim().is_empty() { "localhost".to_owned() } else { name.trim().to_owned() }
}

#[cfg(test)]
mod tests;
