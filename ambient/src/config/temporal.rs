//! The settings that apply only with `engine = "temporal"`.

use std::path::PathBuf;

use clap::Args;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, layers::Layers, secret::Secret};

/// Keys of these settings, in the order of [`TemporalConfig`].
pub(super) const KEYS: &[&str] = &[
    "temporal_address",
    "temporal_namespace",
    "temporal_tls",
    "temporal_tls_ca",
    "temporal_tls_cert",
    "temporal_tls_key",
    "temporal_tls_server_name",
    "temporal_api_key",
    "worker_versioning",
    "worker_deployment",
    "worker_build_id",
];

/// Which Temporal cluster, and how the worker identifies itself to it.
#[derive(Debug, Clone, Serialize)]
pub struct TemporalConfig {
    /// Frontend, `host:port`.
    #[serde(rename = "temporal_address")]
    pub address: String,
    /// Namespace of all executions, for this database only. Created if it is missing and the cluster allows it.
    #[serde(rename = "temporal_namespace")]
    pub namespace: String,
    /// TLS with the system's CAs; also turned on by any of the next four settings and by an API key.
    #[serde(rename = "temporal_tls")]
    pub tls: bool,
    /// PEM file of the CA that signed the cluster's certificate. Absolute.
    #[serde(rename = "temporal_tls_ca")]
    pub tls_ca: Option<PathBuf>,
    /// PEM file of the server's own certificate, for mTLS. Absolute.
    #[serde(rename = "temporal_tls_cert")]
    pub tls_cert: Option<PathBuf>,
    /// PEM file of that certificate's key. Absolute.
    #[serde(rename = "temporal_tls_key")]
    pub tls_key: Option<PathBuf>,
    /// Name in the cluster's certificate, if it is not the address's.
    #[serde(rename = "temporal_tls_server_name")]
    pub tls_server_name: Option<String>,
    /// API key, sent with every call.
    #[serde(rename = "temporal_api_key")]
    pub api_key: Option<Secret>,
    /// Whether the cluster routes executions by the worker's build.
    pub worker_versioning: WorkerVersioning,
    /// Name of the worker deployment.
    pub worker_deployment: String,
    /// Build id of the worker; the program's checksum if not set.
    pub worker_build_id: Option<String>,
}

/// Whether the cluster routes executions by the worker's build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkerVersioning {
    /// Any worker works on any execution.
    Off,
    /// An execution stays with the build that it started with.
    Pinned,
    /// An execution moves to the current build.
    AutoUpgrade,
}

/// Flags of these settings. The API key has none.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct TemporalFlags {
    /// With engine temporal: its frontend [default: 127.0.0.1:7233]
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) temporal_address: Option<String>,
    /// With engine temporal: namespace of all executions [default: default]
    #[arg(long, value_name = "NAME")]
    pub(crate) temporal_namespace: Option<String>,
    /// TLS to Temporal
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL", hide_short_help = true)]
    pub(crate) temporal_tls: Option<String>,
    /// CA of Temporal's certificate, PEM
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) temporal_tls_ca: Option<String>,
    /// This server's own certificate for mTLS, PEM
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) temporal_tls_cert: Option<String>,
    /// Key of that certificate, PEM
    #[arg(long, value_name = "FILE", hide_short_help = true)]
    pub(crate) temporal_tls_key: Option<String>,
    /// Name in Temporal's certificate
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) temporal_tls_server_name: Option<String>,
    /// Routing of executions by the worker's build: off, pinned or auto_upgrade [default: off]
    #[arg(long, value_name = "MODE", hide_short_help = true)]
    pub(crate) worker_versioning: Option<String>,
    /// Name of the worker deployment [default: ambient]
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) worker_deployment: Option<String>,
    /// Build id of the worker [default: the program's checksum]
    #[arg(long, value_name = "ID", hide_short_help = true)]
    pub(crate) worker_build_id: Option<String>,
}

impl TemporalConfig {
    pub(super) fn take(layers: &mut Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            address: layers.take("temporal_address")?.unwrap_or_else(|| "127.0.0.1:7233".to_owned()),
            namespace: layers.take("temporal_namespace")?.unwrap_or_else(|| "default".to_owned()),
            tls: layers.take("temporal_tls")?.unwrap_or(false),
            tls_ca: layers.take("temporal_tls_ca")?,
            tls_cert: layers.take("temporal_tls_cert")?,
            tls_key: layers.take("temporal_tls_key")?,
            tls_server_name: layers.take("temporal_tls_server_name")?,
            api_key: layers.take("temporal_api_key")?,
            worker_versioning: layers.take("worker_versioning")?.unwrap_or(WorkerVersioning::Off),
            worker_deployment: layers.take("worker_deployment")?.unwrap_or_else(|| "ambient".to_owned()),
            worker_build_id: layers.take("worker_build_id")?,
        })
    }

    /// Whether the connection is encrypted.
    #[must_use]
    pub fn uses_tls(&self) -> bool {
        self.tls
            || self.tls_ca.is_some()
            || self.tls_cert.is_some()
            || self.tls_server_name.is_some()
            || self.api_key.is_some()
    }

    /// The frontend as a URL.
    ///
    /// # Errors
    /// What is wrong with the address.
    pub fn target(&self) -> Result<Url, String> {
        let scheme = if self.uses_tls() { "https" } else { "http" };
        let wrong = || format!("`{}` is not host:port", self.address);
        let url = Url::parse(&format!("{scheme}://{}", self.address)).map_err(|_| wrong())?;
        let port_is_there = self.address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let nothing_else = url.path() == "/" && url.query().is_none() && url.username().is_empty();
        if port_is_there && nothing_else && url.has_host() { Ok(url) } else { Err(wrong()) }
    }

    /// The first invalid setting, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if let Err(problem) = self.target() {
            return Some(("temporal_address", problem));
        }
        if self.namespace.is_empty() || self.namespace.len() > 255 {
            return Some(("temporal_namespace", "must have 1 to 255 bytes".to_owned()));
        }
        let files = [
            ("temporal_tls_ca", &self.tls_ca),
            ("temporal_tls_cert", &self.tls_cert),
            ("temporal_tls_key", &self.tls_key),
        ];
        for (key, file) in files {
            if let Some(path) = file.as_ref().filter(|path| !path.is_absolute()) {
                return Some((key, format!("`{}` is not an absolute path", path.display())));
            }
        }
        match (&self.tls_cert, &self.tls_key) {
            (Some(_), None) => Some(("temporal_tls_cert", "needs temporal_tls_key".to_owned())),
            (None, Some(_)) => Some(("temporal_tls_key", "needs temporal_tls_cert".to_owned())),
            _ if self.worker_deployment.is_empty() || self.worker_deployment.contains('.') => {
                Some(("worker_deployment", "must be a name without '.'".to_owned()))
            }
            _ => None,
        }
    }
}
