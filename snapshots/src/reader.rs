//! What packs hold, as git says in a folder that is thrown away. The program that runs git confined is the runner's.

use std::{path::PathBuf, process::Stdio, sync::Arc, time::Duration};

use ambient_runner_protocol::{Confinement, RunnerError, StoredAnswer, StoredLook, StoredOrder};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::Command,
    sync::Semaphore,
    time::timeout,
};

use crate::{error::StoreError, key::Key, store::SnapshotStore};

/// How many look at once, and how long one waits for its turn.
const AT_ONCE: usize = 4;
const TURN: Duration = Duration::from_secs(20);
/// The program takes 90 s at most.
const PATIENCE: Duration = Duration::from_secs(100);
/// Most bytes before the first newline, and of what the program complains about.
const MAX_LINE: usize = 64 * 1024;

/// How packs are read.
#[derive(Debug, Clone)]
pub struct ReaderOptions {
    /// The runner's program, as the reading user can execute it.
    pub program: PathBuf,
    /// The server's folder.
    pub hidden: PathBuf,
    /// A user id that nothing else has, if the server is root.
    pub user: Option<u32>,
    /// What to do if the kernel lacks a part of the confinement.
    pub confinement: Confinement,
}

/// Looks into packs. Clones share its places.
#[derive(Debug, Clone)]
pub struct Reader {
    store: SnapshotStore,
    options: Arc<ReaderOptions>,
    places: Arc<Semaphore>,
}

/// A stored snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<'a> {
    /// Project id.
    pub project: &'a str,
    /// Session id.
    pub session: &'a str,
    /// The commits whose files it builds on.
    pub bases: Vec<String>,
    /// Its own packs.
    pub packs: Vec<String>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The diff, or the file.
    pub content: Vec<u8>,
    /// There is more of it.
    pub truncated: bool,
    /// Of a file: its mode as git has it.
    pub mode: Option<String>,
}

/// Why nothing was found.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The look was refused.
    #[error("{}", .0.reason)]
    Refused(RunnerError),
    /// Too many look at once.
    #[error("too many stored snapshots are being read")]
    Busy,
    /// The program failed.
    #[error("stored snapshots cannot be read: {0}")]
    Failed(String),
}

impl From<std::io::Error> for ReadError {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

impl Reader {
    /// A reader of this store's packs.
    #[must_use]
    pub fn new(store: SnapshotStore, options: ReaderOptions) -> Self {
        Self { store, options: Arc::new(options), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &SnapshotStore {
        &self.store
    }

    /// Looks; at most so many bytes are given.
    ///
    /// # Errors
    /// See [`ReadError`].
    pub async fn look(&self, stored: &Stored<'_>, look: StoredLook, most: u64) -> Result<Found, ReadError> {
        let place = timeout(TURN, self.places.acquire()).await.map_err(|_| ReadError::Busy)?;
        let _place = place.map_err(|_| ReadError::Busy)?;
        // Nobody but the reading user and we get past this folder.
        let folder = tempfile::Builder::new().prefix("read-").tempdir_in(self.store.scratch())?;
        let looked = self.look_in(&folder, stored, look, most).await;
        let path = folder.keep();
        let removed = tokio::task::spawn_blocking(move || ambient_removal::remove_tree(&path)).await;
        if let Err(error) = removed.map_err(std::io::Error::other).flatten() {
            tracing::warn!(%error, "what was read of a snapshot cannot be removed; the next start removes it");
        }
        looked
    }

    async fn look_in(
        &self,
        folder: &tempfile::TempDir,
        stored: &Stored<'_>,
        look: StoredLook,
        most: u64,
    ) -> Result<Found, ReadError> {
        let Stored { project, session, .. } = *stored;
        let packs = folder.path().join("objects/pack");
        tokio::fs::create_dir_all(&packs).await?;
        let bases = stored.bases.iter().map(|commit| (Key::Base { project, commit }, commit));
        let turns = stored.packs.iter().map(|pack| (Key::Turn { project, session, pack }, pack));
        for (key, name) in bases.chain(turns) {
            self.store.fetch(key, &packs.join(format!("pack-{name}.pack"))).await?;
        }
        if let Some(user) = self.options.user {
            hand_over(folder.path(), user)?;
        }
        let order = StoredOrder {
            folder: folder.path().to_owned(),
            hidden: self.options.hidden.clone(),
            confinement: self.options.confinement,
            look,
            most,
        };
        self.run(&order).await
    }

    async fn run(&self, order: &StoredOrder) -> Result<Found, ReadError> {
        let text = serde_json::to_string(order).map_err(|e| ReadError::Failed(e.to_string()))?;
        let mut command = Command::new(&self.options.program);
        command.args(["read-stored", "--order", &text]).env_clear().current_dir(&order.folder).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(user) = self.options.user {
            command.gid(user).uid(user);
        }
        let mut child = command.spawn()?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let limit = usize::try_from(order.most).unwrap_or(usize::MAX).saturating_add(MAX_LINE);
        let work = async { tokio::join!(take(stdout, limit), take(stderr, MAX_LINE), child.wait()) };
        let late = |_| ReadError::Failed(format!("it took longer than {} s", PATIENCE.as_secs()));
        let (output, words, status) = timeout(PATIENCE, work).await.map_err(late)?;
        let (output, status) = (output?, status?);
        if !status.success() {
            let words = String::from_utf8_lossy(&words.unwrap_or_default()).trim().to_owned();
            return Err(ReadError::Failed(format!("{status}: {words}")));
        }
        let end = output.iter().position(|byte| *byte == b'\n').unwrap_or(output.len());
        match serde_json::from_slice(&output[..end]) {
            Ok(StoredAnswer::Found { truncated, mode }) => {
                Ok(Found { content: output.get(end + 1..).unwrap_or_default().to_vec(), truncated, mode })
            }
            Ok(StoredAnswer::Refused(error)) => Err(ReadError::Refused(error)),
            Err(error) => Err(ReadError::Failed(format!("an odd answer: {error}"))),
        }
    }
}

/// Gives the folder and what we have put into it to the reading user.
fn hand_over(folder: &std::path::Path, user: u32) -> std::io::Result<()> {
    let give = |path: &std::path::Path| std::os::unix::fs::lchown(path, Some(user), Some(user));
    for entry in std::fs::read_dir(folder.join("objects/pack"))? {
        give(&entry?.path())?;
    }
    [folder.join("objects/pack"), folder.join("objects"), folder.to_owned()].iter().try_for_each(|path| give(path))
}

/// Reads to the end and keeps the first `most` bytes.
async fn take<R: AsyncRead + Unpin>(pipe: Option<R>, most: usize) -> std::io::Result<Vec<u8>> {
    let (mut kept, mut buffer) = (Vec::new(), vec![0; 64 * 1024]);
    let Some(mut pipe) = pipe else { return Ok(kept) };
    loop {
        let read = pipe.read(&mut buffer).await?;
        if read == 0 {
            return Ok(kept);
        }
        let room = most - kept.len();
        kept.extend_from_slice(&buffer[..read.min(room)]);
    }
}
