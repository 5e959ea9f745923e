//! Packs in the store.

use std::{
    collections::BTreeMap,
    path::Path as FilePath,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, WriteMultipart, path::Path};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use crate::{
    error::StoreError,
    key::{Key, is_id},
    place::Place,
    scratch::Scratch,
};

/// Timeout for a request of which nothing is transferred, and what each MiB adds to it.
const REQUEST: Duration = Duration::from_secs(15);
const PER_MIB: Duration = Duration::from_millis(500);
/// Packs up to this size are sent in one piece.
const ONE_PIECE: u64 = 8 << 20;
const PIECE: usize = 256 * 1024;
/// After a failure the store is left alone for this long: everyone who waits for it is told at once.
const REST: Duration = Duration::from_secs(20);
/// Most objects that are listed at once.
const MAX_LISTED: usize = 1_000_000;

/// How much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest pack, bytes.
    pub pack: u64,
    /// All packs of a session, bytes, without what sessions share.
    pub session: u64,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct SnapshotStore {
    inner: Arc<Inner>,
}

struct Inner {
    store: Arc<dyn ObjectStore>,
    place: Place,
    limits: Limits,
    /// Where packs are kept until they are checked.
    scratch: Scratch,
    failed: Mutex<Option<(Instant, String)>>,
    swept: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for SnapshotStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SnapshotStore").field("place", &self.inner.place).finish_non_exhaustive()
    }
}

/// What a session has in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SessionPacks {
    /// Project id.
    pub project: String,
    /// Session id.
    pub session: String,
    /// When the newest was written.
    pub newest: DateTime<Utc>,
    /// All together, bytes.
    pub bytes: u64,
}

/// A pack on its way into the store: what has come so far, in a file that goes with this.
pub struct Incoming {
    file: tokio::fs::File,
    path: tempfile::TempPath,
    hash: Sha256,
    bytes: u64,
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

impl SnapshotStore {
    /// Opens the store; an S3-compatible one is not asked yet. What processes that have ended left in `scratch`, a folder of this machine's
    /// servers, is removed.
    ///
    /// # Errors
    /// A folder that cannot be made; settings that cannot be.
    pub fn open(place: Place, limits: Limits, scratch: &FilePath) -> Result<Self, StoreError> {
        let scratch = Scratch::make(scratch)?;
        let store = place.open()?;
        Ok(Self {
            inner: Arc::new(Inner { store, place, limits, scratch, failed: Mutex::default(), swept: Mutex::default() }),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.inner.place
    }

    /// How much is stored.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.inner.limits
    }

    /// Asks the store whether it can be used.
    ///
    /// # Errors
    /// Why not.
    pub async fn check(&self) -> Result<(), StoreError> {
        let first = async { self.inner.store.list(Some(&Path::from("check"))).next().await.transpose().map(drop) };
        self.within(0, async { Ok(first.await?) }).await
    }

    /// A file for a pack that is about to come.
    ///
    /// # Errors
    /// A system error.
    pub fn incoming(&self) -> Result<Incoming, StoreError> {
        let (file, path) = tempfile::NamedTempFile::new_in(&self.inner.scratch.path)?.into_parts();
        Ok(Incoming { file: tokio::fs::File::from_std(file), path, hash: Sha256::new(), bytes: 0 })
    }

    /// Stores a pack that has come whole. It is on the disk, or acknowledged by the store, when this returns.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn put(&self, key: Key<'_>, pack: Incoming) -> Result<(), StoreError> {
        let to = key.path()?;
        let Incoming { mut file, path, bytes, .. } = pack;
        file.flush().await?;
        self.within(bytes, self.send(&to, &path, bytes)).await
    }

    async fn send(&self, to: &Path, from: &FilePath, bytes: u64) -> Result<(), StoreError> {
        let mut file = tokio::fs::File::open(from).await?;
        if bytes <= ONE_PIECE {
            let mut all = Vec::with_capacity(usize::try_from(bytes).unwrap_or_default());
            file.read_to_end(&mut all).await?;
            self.inner.store.put(to, PutPayload::from(all)).await?;
            return Ok(());
        }
        let mut upload = WriteMultipart::new(self.inner.store.put_multipart(to).await?);
        let mut buffer = vec![0; PIECE];
        loop {
            let read = file.read(&mut buffer).await?;
            if read == 0 {
                upload.finish().await?;
                return Ok(());
            }
            upload.wait_for_capacity(2).await?;
            upload.write(&buffer[..read]);
        }
    }

    /// When a pack was last written; none if it is not there.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn written(&self, key: Key<'_>) -> Result<Option<DateTime<Utc>>, StoreError> {
        let path = key.path()?;
        match self.within(0, async { Ok(self.inner.store.head(&path).await?) }).await {
            Ok(about) => Ok(Some(about.last_modified)),
            Err(StoreError::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Copies a pack into a new file.
    ///
    /// # Errors
    /// Not found; too large; when the store cannot be used.
    pub async fn fetch(&self, key: Key<'_>, to: &FilePath) -> Result<u64, StoreError> {
        let path = key.path()?;
        let found = self.within(0, async { Ok(self.inner.store.get(&path).await?) }).await?;
        let size = found.meta.size;
        if size > self.inner.limits.pack {
            return Err(StoreError::TooLarge(format!("the stored pack has {size} bytes")));
        }
        let copy = async {
            let mut file = tokio::fs::File::create_new(to).await?;
            let mut pieces = found.into_stream();
            let mut left = size;
            while let Some(piece) = pieces.try_next().await? {
                let length = piece.len() as u64;
                left =
                    left.checked_sub(length).ok_or_else(|| StoreError::Unavailable("it gave too much".to_owned()))?;
                file.write_all(&piece).await?;
            }
            file.flush().await?;
            if left == 0 { Ok(size) } else { Err(StoreError::Unavailable("it gave too little".to_owned())) }
        };
        self.within(size, copy).await
    }

    /// Size of all packs of a session.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn session_bytes(&self, project: &str, session: &str) -> Result<u64, StoreError> {
        Ok(self.list(&format!("{project}/sessions/{session}")).await?.iter().map(|(_, _, bytes)| bytes).sum())
    }

    /// Removes the packs of a session; none are fine.
    ///
    /// # Errors
    /// When the store cannot be used: some may be left.
    pub async fn remove_session(&self, project: &str, session: &str) -> Result<u64, StoreError> {
        self.remove(&format!("{}/sessions/{}", checked(project)?, checked(session)?)).await
    }

    /// Removes everything of a project.
    ///
    /// # Errors
    /// When the store cannot be used: some may be left.
    pub async fn remove_project(&self, project: &str) -> Result<u64, StoreError> {
        self.remove(checked(project)?).await
    }

    /// Removes the base at a commit.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn remove_base(&self, project: &str, commit: &str) -> Result<(), StoreError> {
        let path = Key::Base { project, commit }.path()?;
        match self.within(0, async { Ok(self.inner.store.delete(&path).await?) }).await {
            Err(StoreError::NotFound) => Ok(()),
            removed => removed,
        }
    }

    /// What is stored: sessions, and by project the bases with the time when each was last written.
    ///
    /// # Errors
    /// When the store cannot be used.
    pub async fn contents(&self) -> Result<(Vec<SessionPacks>, Vec<(String, String, DateTime<Utc>)>), StoreError> {
        let mut sessions: BTreeMap<(String, String), SessionPacks> = BTreeMap::new();
        let mut bases = Vec::new();
        for (path, written, bytes) in self.list("").await? {
            let parts: Vec<String> = path.parts().map(|part| part.as_ref().to_owned()).collect();
            match &parts[..] {
                [project, kind, session, _] if kind == "sessions" => {
                    let (project, session) = (project.clone(), session.clone());
                    let packs = sessions.entry((project.clone(), session.clone())).or_insert_with(|| SessionPacks {
                        project,
                        session,
                        newest: written,
                        bytes: 0,
                    });
                    packs.newest = packs.newest.max(written);
                    packs.bytes += bytes;
                }
                [project, kind, name] if kind == "bases" => {
                    let commit = name.strip_suffix(".pack").unwrap_or(name);
                    bases.push((project.clone(), commit.to_owned(), written));
                }
                // Someone else's.
                _ => {}
            }
        }
        Ok((sessions.into_values().collect(), bases))
    }

    /// Whether this process has not swept the store for so long; then it is about to.
    #[must_use]
    pub fn sweep_is_due(&self, every: Duration) -> bool {
        let mut swept = self.inner.swept.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = swept.is_none_or(|at| at.elapsed() >= every);
        if is_due {
            *swept = Some(Instant::now());
        }
        is_due
    }

    async fn list(&self, prefix: &str) -> Result<Vec<(Path, DateTime<Utc>, u64)>, StoreError> {
        let prefix = (!prefix.is_empty()).then(|| Path::from(prefix));
        let list = async {
            let listed = self.inner.store.list(prefix.as_ref()).take(MAX_LISTED + 1);
            let listed = listed.map_ok(|about| (about.location, about.last_modified, about.size));
            let listed: Vec<_> = listed.try_collect().await?;
            // A part must not be taken for the whole: what is missing would be removed.
            if listed.len() > MAX_LISTED {
                return Err(StoreError::TooLarge(format!("the snapshot store has more than {MAX_LISTED} packs")));
            }
            Ok(listed)
        };
        self.within(64 << 20, list).await
    }

    async fn remove(&self, prefix: &str) -> Result<u64, StoreError> {
        let mut removed = 0;
        for (path, _, _) in self.list(prefix).await? {
            match self.within(0, async { Ok(self.inner.store.delete(&path).await?) }).await {
                Ok(()) | Err(StoreError::NotFound) => removed += 1,
                Err(error) => return Err(error),
            }
        }
        if let Place::Folder(root) = &self.inner.place {
            // Its folders stay when its packs go.
            let (folder, root) = (root.join(prefix), root.clone());
            let removing = tokio::task::spawn_blocking(move || {
                if folder != root { ambient_removal::remove_tree(&folder) } else { Ok(()) }
            });
            removing.await.map_err(std::io::Error::other).flatten()?;
        }
        Ok(removed)
    }

    /// A request that transfers so much. Right after a failure nobody asks again.
    async fn within<T>(&self, bytes: u64, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let failed = self.inner.failed.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, reason)) = failed.filter(|(at, _)| at.elapsed() < REST) {
            return Err(StoreError::Unavailable(reason));
        }
        let limit = REQUEST + PER_MIB * u32::try_from(bytes >> 20).unwrap_or(u32::MAX);
        let done = match timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(StoreError::Unavailable(format!("there was no answer within {} s", limit.as_secs()))),
        };
        let failed = match &done {
            Err(StoreError::Unavailable(reason)) => Some((Instant::now(), reason.clone())),
            _ => None,
        };
        *self.inner.failed.lock().unwrap_or_else(PoisonError::into_inner) = failed;
        done
    }

    pub(crate) fn scratch(&self) -> &FilePath {
        &self.inner.scratch.path
    }
}

fn checked(id: &str) -> Result<&str, StoreError> {
    if is_id(id) { Ok(id) } else { Err(StoreError::Local("an odd id".to_owned())) }
}

impl Incoming {
    /// The next piece.
    ///
    /// # Errors
    /// A system error.
    pub async fn write(&mut self, piece: &[u8]) -> Result<(), StoreError> {
        self.hash.update(piece);
        self.bytes += piece.len() as u64;
        Ok(self.file.write_all(piece).await?)
    }

    /// Bytes that have come.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// SHA-256 of what has come, in hex.
    #[must_use]
    pub fn sha256(&self) -> String {
        self.hash.clone().finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}
