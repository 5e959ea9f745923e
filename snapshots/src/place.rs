//! Where the store is.

use std::{
    fmt,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use object_store::{
    ClientOptions, ObjectStore, RetryConfig, aws::AmazonS3Builder, local::LocalFileSystem, path::Path,
    prefix::PrefixStore,
};
use tokio::time::timeout;

use crate::{error::StoreError, transport::Transport};

/// Retries of one request, and the time for all of them: whoever reads a log waits for it.
const RETRIES: usize = 4;
const RETRY: Duration = Duration::from_secs(10);
/// Timeout for a check.
const CHECK: Duration = Duration::from_secs(15);
/// What is still incomplete after this long was left by a process that has ended.
const STAGED: Duration = Duration::from_secs(24 * 3600);
/// Deepest folder.
const MAX_DEPTH: usize = 8;

/// Where packs are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder of this machine; created if it is not there, and closed to everyone else.
    Folder(PathBuf),
    /// An S3-compatible store.
    S3(S3),
}

/// A bucket.
#[derive(Clone, PartialEq, Eq)]
pub struct S3 {
    /// Its name.
    pub bucket: String,
    /// What the keys begin with; empty for nothing.
    pub prefix: String,
    /// URL of the service; AWS's own if absent.
    pub endpoint: Option<String>,
    /// Region.
    pub region: String,
    /// Access key id and secret; without them the usual variables and the machine's role are tried.
    pub credentials: Option<(String, String)>,
}

impl fmt::Debug for S3 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("S3")
            .field("bucket", &self.bucket)
            .field("prefix", &self.prefix)
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::S3(S3 { bucket, prefix, endpoint, .. }) => {
                write!(f, "s3://{bucket}")?;
                if !prefix.is_empty() {
                    write!(f, "/{prefix}")?;
                }
                endpoint.as_ref().map_or(Ok(()), |endpoint| write!(f, " at {endpoint}"))
            }
        }
    }
}

impl Place {
    /// Whether servers on other machines can have the same one.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self, Self::S3(_))
    }

    /// Asks an S3-compatible store whether it can be used, and changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), StoreError> {
        if !self.is_shared() {
            return Ok(());
        }
        let store = self.open()?;
        let looked = async { store.list(Some(&Path::from("check"))).next().await.transpose().map(drop) };
        let late = |_| StoreError::Unavailable(format!("there was no answer within {} s", CHECK.as_secs()));
        Ok(timeout(CHECK, looked).await.map_err(late)??)
    }

    pub(crate) fn open(&self) -> Result<Arc<dyn ObjectStore>, StoreError> {
        match self {
            Self::Folder(path) => {
                let io = |e: std::io::Error| StoreError::Local(format!("{}: {e}", path.display()));
                std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(io)?;
                remove_staged(path, STAGED).map_err(io)?;
                let folder = LocalFileSystem::new_with_prefix(path)?;
                Ok(Arc::new(folder.with_fsync(true).with_automatic_cleanup(true)))
            }
            Self::S3(s3) => {
                let is_plain = s3.endpoint.as_ref().is_some_and(|endpoint| endpoint.starts_with("http://"));
                let mut builder = match &s3.credentials {
                    Some((id, secret)) => AmazonS3Builder::new().with_access_key_id(id).with_secret_access_key(secret),
                    None => AmazonS3Builder::from_env(),
                };
                builder = builder
                    .with_bucket_name(&s3.bucket)
                    .with_region(&s3.region)
                    .with_client_options(ClientOptions::new().with_allow_http(is_plain))
                    .with_retry(RetryConfig { max_retries: RETRIES, retry_timeout: RETRY, ..RetryConfig::default() })
                    .with_http_connector(Transport);
                if let Some(endpoint) = &s3.endpoint {
                    builder = builder.with_endpoint(endpoint);
                }
                let store = builder.build()?;
                Ok(match s3.prefix.as_str() {
                    "" => Arc::new(store),
                    prefix => Arc::new(PrefixStore::new(store, prefix)),
                })
            }
        }
    }
}

/// Removes packs that were never complete: the local store writes them under their name with `#` and a number, and lists them nowhere.
fn remove_staged(folder: &std::path::Path, older_than: Duration) -> std::io::Result<()> {
    let mut folders = vec![(folder.to_owned(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            let about = entry.metadata()?;
            if about.is_dir() && depth < MAX_DEPTH {
                folders.push((entry.path(), depth + 1));
            }
            let is_old = about.modified()?.elapsed().is_ok_and(|age| age > older_than);
            let name = entry.file_name();
            let is_staged = name.to_string_lossy().contains(".pack#");
            if about.is_file() && is_staged && is_old {
                std::fs::remove_file(entry.path())?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Duration, remove_staged};

    #[test]
    fn only_what_was_never_complete_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("p/sessions/s");
        std::fs::create_dir_all(&deep).unwrap();
        for name in ["a.pack", "a.pack#1", "b"] {
            std::fs::write(deep.join(name), "x").unwrap();
        }
        remove_staged(folder.path(), Duration::from_secs(60)).unwrap();
        assert_eq!(std::fs::read_dir(&deep).unwrap().count(), 3);
        remove_staged(folder.path(), Duration::ZERO).unwrap();
        let mut left: Vec<_> = std::fs::read_dir(&deep).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["a.pack", "b"]);
    }
}
