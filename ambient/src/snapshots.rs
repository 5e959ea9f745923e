//! The snapshot store of a server.

use std::path::PathBuf;

use ambient_persistence::Database;
use ambient_snapshots::{Reader, ReaderOptions, SnapshotStore, StoreError};

use crate::{config::ServerConfig, user_ids};

/// Opens the store, and says what it is good for. One that cannot be reached keeps no server from starting: what it misses, events say.
///
/// # Errors
/// A folder that cannot be made.
pub(crate) async fn open(config: &ServerConfig, db: &Database) -> Result<Option<SnapshotStore>, StoreError> {
    let Some(place) = config.snapshots.place(&config.data_dir) else {
        tracing::warn!(
            "snapshots are not stored (snapshot_store = \"none\"): turns can be looked at only while their workspace exists"
        );
        return Ok(None);
    };
    let others = db.other_hosts(&config.host).await.unwrap_or_default();
    if !place.is_shared() && !others.is_empty() {
        let others = others.join(", ");
        tracing::warn!(
            %others,
            "snapshots are in a folder of this server, but other servers run sessions of this database too: none sees the others'; \
             set snapshot_store to an s3:// place"
        );
    }
    let store = SnapshotStore::open(place, config.snapshots.limits(), &config.data_dir.join("snapshot-scratch"))?;
    if let Err(error) = store.check().await {
        tracing::warn!(place = %store.place(), %error, "the snapshot store cannot be used right now");
    }
    Ok(Some(store))
}

/// Looks into its packs.
pub(crate) fn reader(config: &ServerConfig, store: SnapshotStore) -> Reader {
    let is_root = rustix::process::geteuid().is_root();
    let options = ReaderOptions {
        program: if is_root { installed(config) } else { config.runner_binary.clone() },
        hidden: config.data_dir.clone(),
        user: is_root.then(|| user_ids::reader(config.session_uid_base)),
        confinement: config.confinement.of_runner(),
    };
    Reader::new(store, options)
}

/// Where compute has put the runner, so that other users can execute it.
fn installed(config: &ServerConfig) -> PathBuf {
    config.data_dir.join("bin/ambient-runner")
}
