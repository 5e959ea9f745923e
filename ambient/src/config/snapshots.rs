//! Where snapshots of sessions' repositories are kept, how much of them, and for how long.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use ambient_domain::quantity::Bytes;
use ambient_snapshots::{Limits, Place, S3};
use clap::Args;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{ConfigError, layers::Layers, models::url_problem, secret::Secret};

/// Keys of these settings, in the order of [`SnapshotConfig`].
pub(super) const KEYS: &[&str] = &[
    "snapshot_store",
    "snapshot_s3_endpoint",
    "snapshot_s3_region",
    "snapshot_s3_access_key",
    "snapshot_s3_secret_key",
    "snapshot_pack_limit",
    "snapshot_session_limit",
    "snapshot_keep_days",
];
/// Those that are secrets.
pub(super) const SECRETS: [&str; 1] = ["snapshot_s3_secret_key"];

/// Largest pack that runners make; a higher limit changes nothing.
const LARGEST_PACK: u64 = 1 << 30;
/// Highest number of days.
const MOST_DAYS: u32 = 36_500;

/// The snapshot store.
#[derive(Debug, Clone, Serialize)]
pub struct SnapshotConfig {
    /// Where it is.
    pub snapshot_store: SnapshotPlace,
    /// URL of an S3-compatible service other than AWS.
    pub snapshot_s3_endpoint: Option<Url>,
    /// Its region.
    pub snapshot_s3_region: String,
    /// Id of the access key; without it the usual `AWS_*` variables and the machine's role are tried.
    pub snapshot_s3_access_key: Option<String>,
    /// Its secret.
    pub snapshot_s3_secret_key: Option<Secret>,
    /// Largest pack that is stored.
    pub snapshot_pack_limit: Bytes,
    /// Most that a session may store.
    pub snapshot_session_limit: Bytes,
    /// Days to keep the snapshots of sessions that are over, after the last one; 0 = until the session is deleted.
    pub snapshot_keep_days: u32,
}

/// Flags of these settings. The secret key has none.
#[derive(Debug, Clone, Default, Args, Serialize)]
pub struct SnapshotFlags {
    /// Where snapshots are kept: folder (in the data folder), s3://BUCKET/PREFIX, or none [default: folder]
    #[arg(long, value_name = "PLACE", hide_short_help = true)]
    pub(crate) snapshot_store: Option<String>,
    /// URL of an S3-compatible service [default: AWS]
    #[arg(long, value_name = "URL", hide_short_help = true)]
    pub(crate) snapshot_s3_endpoint: Option<String>,
    /// Region of the bucket [default: us-east-1]
    #[arg(long, value_name = "REGION", hide_short_help = true)]
    pub(crate) snapshot_s3_region: Option<String>,
    /// Id of the access key [default: from the AWS_ variables, or the machine's role]
    #[arg(long, value_name = "ID", hide_short_help = true)]
    pub(crate) snapshot_s3_access_key: Option<String>,
    /// Largest snapshot pack that is stored [default: 512Mi]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) snapshot_pack_limit: Option<String>,
    /// Most that a session's snapshots may take [default: 2Gi]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) snapshot_session_limit: Option<String>,
    /// Days to keep the snapshots of sessions that are over; 0 = until the session is deleted [default: 90]
    #[arg(long, value_name = "DAYS", hide_short_help = true)]
    pub(crate) snapshot_keep_days: Option<String>,
}

/// `folder`, `none`, or `s3://bucket/prefix`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum SnapshotPlace {
    /// In the data folder.
    Folder,
    /// Nowhere.
    Nowhere,
    /// An S3-compatible store.
    S3 {
        /// Its bucket.
        bucket: String,
        /// What its keys begin with; may be empty.
        prefix: String,
    },
}

impl TryFrom<String> for SnapshotPlace {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.as_str() {
            "folder" => return Ok(Self::Folder),
            "none" => return Ok(Self::Nowhere),
            _ => {}
        }
        let form = || "must be folder, none, or s3://BUCKET or s3://BUCKET/PREFIX".to_owned();
        let place = text.strip_prefix("s3://").ok_or_else(form)?;
        let (bucket, prefix) = place.split_once('/').unwrap_or((place, ""));
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
        let prefix = prefix.trim_matches('/');
        let is_part = |part: &str| !part.is_empty() && part != ".." && part != "." && part.chars().all(legal);
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(legal) {
            return Err("the bucket's name must have 3 to 63 letters, digits, '-', '.' or '_'".to_owned());
        }
        if !prefix.is_empty() && !prefix.split('/').all(is_part) {
            return Err(
                "the prefix must consist of letters, digits, '-', '.' and '_', with '/' between parts".to_owned()
            );
        }
        Ok(Self::S3 { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl fmt::Display for SnapshotPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder => f.write_str("folder"),
            Self::Nowhere => f.write_str("none"),
            Self::S3 { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::S3 { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

impl From<SnapshotPlace> for String {
    fn from(place: SnapshotPlace) -> Self {
        place.to_string()
    }
}

impl SnapshotConfig {
    pub(super) fn take(layers: &mut Layers) -> Result<Self, ConfigError> {
        Ok(Self {
            snapshot_store: layers.take("snapshot_store")?.unwrap_or(SnapshotPlace::Folder),
            snapshot_s3_endpoint: layers.take("snapshot_s3_endpoint")?,
            snapshot_s3_region: layers.take("snapshot_s3_region")?.unwrap_or_else(|| "us-east-1".to_owned()),
            snapshot_s3_access_key: layers.take("snapshot_s3_access_key")?,
            snapshot_s3_secret_key: layers.take("snapshot_s3_secret_key")?,
            snapshot_pack_limit: layers.take("snapshot_pack_limit")?.unwrap_or(Bytes::new(512 << 20)),
            snapshot_session_limit: layers.take("snapshot_session_limit")?.unwrap_or(Bytes::new(2 << 30)),
            snapshot_keep_days: layers.take("snapshot_keep_days")?.unwrap_or(90),
        })
    }

    /// Where the store is, for a server with this data folder; none if there is none.
    #[must_use]
    pub fn place(&self, data_dir: &Path) -> Option<Place> {
        match &self.snapshot_store {
            SnapshotPlace::Nowhere => None,
            SnapshotPlace::Folder => Some(Place::Folder(folder(data_dir))),
            SnapshotPlace::S3 { bucket, prefix } => Some(Place::S3(S3 {
                bucket: bucket.clone(),
                prefix: prefix.clone(),
                endpoint: self.snapshot_s3_endpoint.as_ref().map(|url| url.as_str().trim_end_matches('/').to_owned()),
                region: self.snapshot_s3_region.clone(),
                credentials: self
                    .snapshot_s3_access_key
                    .clone()
                    .zip(self.snapshot_s3_secret_key.as_ref().map(|secret| secret.expose().to_owned())),
            })),
        }
    }

    /// How much is kept.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits { pack: self.snapshot_pack_limit.get().min(LARGEST_PACK), session: self.snapshot_session_limit.get() }
    }

    /// The first invalid setting, and why.
    pub(super) fn problem(&self) -> Option<(&'static str, String)> {
        if let Some(problem) = self.snapshot_s3_endpoint.as_ref().and_then(url_problem) {
            return Some(("snapshot_s3_endpoint", problem.to_owned()));
        }
        let is_s3 = matches!(self.snapshot_store, SnapshotPlace::S3 { .. });
        let of_s3 = [
            ("snapshot_s3_endpoint", self.snapshot_s3_endpoint.is_some()),
            ("snapshot_s3_access_key", self.snapshot_s3_access_key.is_some()),
            ("snapshot_s3_secret_key", self.snapshot_s3_secret_key.is_some()),
        ];
        if let Some((key, _)) = of_s3.iter().find(|(_, is_set)| *is_set && !is_s3) {
            return Some((key, format!("is set, but snapshot_store = \"{}\" is no s3://", self.snapshot_store)));
        }
        match (&self.snapshot_s3_access_key, &self.snapshot_s3_secret_key) {
            (Some(_), None) => return Some(("snapshot_s3_access_key", "needs snapshot_s3_secret_key too".to_owned())),
            (None, Some(_)) => return Some(("snapshot_s3_secret_key", "needs snapshot_s3_access_key too".to_owned())),
            _ => {}
        }
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if self.snapshot_s3_region.is_empty() || !self.snapshot_s3_region.chars().all(legal) {
            return Some(("snapshot_s3_region", "must consist of letters, digits and '-'".to_owned()));
        }
        if self.snapshot_keep_days > MOST_DAYS {
            return Some(("snapshot_keep_days", format!("must be from 0 to {MOST_DAYS}")));
        }
        None
    }
}

/// The store in a data folder.
fn folder(data_dir: &Path) -> PathBuf {
    data_dir.join("snapshots")
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use ambient_snapshots::Place;

    use super::super::{ConfigFlags, ServerConfig};

    fn config(file: &str) -> Result<ServerConfig, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("server.toml");
        std::fs::write(&path, format!("data_dir = \"/d\"\n{file}")).unwrap();
        let flags = ConfigFlags { config: Some(path), ..ConfigFlags::default() };
        ServerConfig::resolve(&flags, []).map_err(|error| error.to_string())
    }

    #[test]
    fn snapshots_go_to_a_folder_a_bucket_or_nowhere() {
        let place = |file: &str| config(file).unwrap().snapshots.place(Path::new("/d"));
        assert_eq!(place(""), Some(Place::Folder("/d/snapshots".into())));
        assert_eq!(place("snapshot_store = \"none\""), None);
        let file = "snapshot_store = \"s3://packs/a/b/\"\nsnapshot_s3_endpoint = \"http://127.0.0.1:9000\"\n\
                    snapshot_s3_access_key = \"id\"\nsnapshot_s3_secret_key = \"canary\"\n";
        let Some(Place::S3(s3)) = place(file) else { panic!() };
        assert_eq!((&*s3.bucket, &*s3.prefix, s3.endpoint.as_deref()), ("packs", "a/b", Some("http://127.0.0.1:9000")));
        assert_eq!(s3.credentials, Some(("id".to_owned(), "canary".to_owned())));
        let config = config(file).unwrap();
        let shown = format!("{}{}{config:?}{s3:?}", config.to_redacted_toml(), config.to_redacted_json());
        assert!(!shown.contains("canary") && shown.contains("s3://packs/a/b"), "{shown}");
    }

    #[test]
    fn faults_are_named() {
        let s3 = "snapshot_store = \"s3://packs\"\n";
        let faults = [
            ("snapshot_store = \"disk\"".to_owned(), "snapshot_store: must be folder, none, or s3://"),
            ("snapshot_store = \"s3://a\"".to_owned(), "snapshot_store: the bucket's name must"),
            ("snapshot_store = \"s3://abc/../x\"".to_owned(), "snapshot_store: the prefix must"),
            ("snapshot_s3_endpoint = \"http://x\"".to_owned(), "snapshot_s3_endpoint: is set, but snapshot_store"),
            (format!("{s3}snapshot_s3_endpoint = \"ftp://x\""), "snapshot_s3_endpoint: must be https"),
            (format!("{s3}snapshot_s3_access_key = \"x\""), "snapshot_s3_access_key: needs snapshot_s3_secret_key"),
            (format!("{s3}snapshot_s3_secret_key = \"canary\""), "snapshot_s3_secret_key: needs"),
            ("snapshot_keep_days = 40000".to_owned(), "snapshot_keep_days: must be from 0"),
            ("snapshot_pack_limit = \"big\"".to_owned(), "snapshot_pack_limit: must be a number of bytes"),
        ];
        for (file, fault) in faults {
            let error = config(&file).unwrap_err();
            assert!(error.starts_with(fault) && !error.contains("canary"), "{error}");
        }
    }
}
