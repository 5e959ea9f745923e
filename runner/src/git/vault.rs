//! The runner's own bare repository of a repository's snapshots. The agent can neither read nor write it, and every object in it has been
//! checked: packs come in, are proved to be whole where nothing else can be read, and only then are kept.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Read,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync,
    time::Duration,
};

use ambient_wire::runner_event::RepoPack;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::Mutex;

use super::{
    HISTORIC,
    command::{Git, GitError},
    directory::Directory,
    make_bare,
    mirror::{Mirror, remove_tree},
};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
    file_change::hex,
    life,
    rights::Pinned,
};

/// Largest pack, bytes.
pub(super) const MAX_PACK: u64 = 1 << 30;
/// Timeout for the pack that all turns build on, which is made while the agent works.
const BASE: Duration = Duration::from_secs(300);
/// Prefix of folders where packs come in.
const INCOMING: &str = "incoming-";
/// What a pack is made with, from what standard input names.
pub(super) const PACK: [&str; 5] = ["pack-objects", "--revs", "--stdout", "--quiet", "--delta-base-offset"];
/// Says which base the vault has; written last.
const BASE_FILE: &str = "base.json";
/// Says up to where the packs are stored.
const STORED_FILE: &str = "stored.json";

/// What the packs of all repositories share.
#[derive(Default)]
pub(crate) struct Packing {
    /// One pack at a time.
    pub(super) one: Mutex<()>,
    /// Snapshots that a server has yet to store, by their last pack.
    pub(super) sent: sync::Mutex<BTreeMap<String, (String, Stored)>>,
}

/// A snapshot that is stored, or is to be.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) commit: String,
    pub(super) packs: Vec<RepoPack>,
}

/// What a vault was made for.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Base {
    commit: Option<String>,
    pack: Option<RepoPack>,
}

/// A vault.
pub(super) struct Vault<'a> {
    attempt: &'a Attempt,
    directory: Directory,
    /// The pack that all turns build on; none for what was cloned empty.
    pub(super) base: Option<RepoPack>,
}

/// Where a vault is.
pub(super) fn place(attempt: &Attempt, name: &str) -> PathBuf {
    attempt.paths.packs().join(format!("{name}.git"))
}

/// What is stored of a repository.
pub(super) fn stored(attempt: &Attempt, name: &str) -> Option<Stored> {
    serde_json::from_slice(&std::fs::read(place(attempt, name).join(STORED_FILE)).ok()?).ok()
}

/// Records it, or that nothing is.
///
/// # Errors
/// A system error.
pub(super) fn note_stored(attempt: &Attempt, name: &str, stored: Option<&Stored>) -> std::io::Result<()> {
    life::write_record(&place(attempt, name).join(STORED_FILE), &stored)
}

impl<'a> Vault<'a> {
    /// Opens the one with this base, or makes it from the mirror.
    ///
    /// # Errors
    /// Git's; a system error.
    pub(super) async fn ensure(attempt: &'a Attempt, name: &str, base: Option<&str>, like: &str) -> Result<Self> {
        let io = |e: std::io::Error| Error::io("cannot keep snapshots", &e);
        let place = place(attempt, name);
        let known = std::fs::read(place.join(BASE_FILE)).ok();
        let known = known.and_then(|bytes| serde_json::from_slice::<Base>(&bytes).ok());
        if let Some(known) = known.filter(|known| known.commit.as_deref() == base) {
            let directory = Directory::open(&place).map_err(io)?;
            return Ok(Self { attempt, directory, base: known.pack });
        }
        remove_tree(place.clone()).await.map_err(io)?;
        let created = std::fs::DirBuilder::new().mode(0o700).create(&place);
        created.and_then(|()| make_bare(&place, base, like)).map_err(io)?;
        let mut vault = Self { attempt, directory: Directory::open(&place).map_err(io)?, base: None };
        if let Some(base) = base {
            vault.base = Some(vault.fill(name, base).await?);
        }
        let made = Base { commit: base.map(str::to_owned), pack: vault.base.clone() };
        life::write_record(&place.join(BASE_FILE), &made).map_err(io)?;
        Ok(vault)
    }

    /// The commit that was cloned with its files, without the history below it. It comes from the mirror, which the agent cannot write.
    async fn fill(&self, name: &str, base: &str) -> Result<RepoPack> {
        let mirror = Mirror::open(self.attempt, name)?;
        let incoming = self.incoming().await?;
        let wanted = mirror.git(false, Vec::new()).patience(BASE).input(format!("--shallow {base}\n{base}\n"));
        let taken = self.take_in(wanted, &incoming, BASE).await;
        let kept = match taken {
            Ok(()) => self.keep(&incoming).await,
            Err(error) => Err(error),
        };
        incoming.remove().await;
        kept.map(|pack| RepoPack { base: Some(base.to_owned()), ..pack })
    }

    /// An empty folder for a pack. What a crash has left of earlier ones goes.
    ///
    /// # Errors
    /// A system error.
    pub(super) async fn incoming(&self) -> Result<Incoming> {
        let io = |e: std::io::Error| Error::io("cannot make a folder for the pack", &e);
        for left in std::fs::read_dir(&self.directory.path).map_err(io)? {
            let left = left.map_err(io)?;
            if left.file_name().to_string_lossy().starts_with(INCOMING) {
                remove_tree(left.path()).await.map_err(io)?;
            }
        }
        let name = format!("{INCOMING}{}", life::random_id().map_err(io)?);
        std::fs::create_dir_all(self.directory.path.join(&name).join("pack")).map_err(io)?;
        Ok(Incoming { directory: self.directory.open_in(Path::new(&name)).map_err(io)? })
    }

    /// Git that sees the vault and what has come in, and nothing else.
    fn checking(&self, incoming: &Incoming, write: bool) -> Git<'a> {
        let pinned: Vec<Pinned> = vec![self.directory.pinned(false), incoming.directory.pinned(write)];
        let git = Git::tool(self.attempt, pinned).bounded(MAX_PACK);
        git.variable("GIT_OBJECT_DIRECTORY", &incoming.directory.path)
            .variable("GIT_ALTERNATE_OBJECT_DIRECTORIES", self.directory.path.join("objects"))
    }

    /// Takes what another git packs. Every object in it is checked, and everything it refers to must be in it or in the vault.
    ///
    /// # Errors
    /// A conflict, if the pack is refused; git's.
    pub(super) async fn take_in(&self, other: Git<'_>, incoming: &Incoming, patience: Duration) -> Result<()> {
        let limit = format!("--max-input-size={MAX_PACK}");
        let own = self.checking(incoming, true).patience(patience);
        let packed = other.pipe(&PACK, own, &["index-pack", "--stdin", "--threads=1", &limit, HISTORIC]).await;
        packed.map_err(|error| match error {
            GitError::Failed { stderr, .. } if stderr.contains("exceeds maximum allowed size") => {
                Error::TooLarge(format!("its pack has more than {MAX_PACK} bytes"))
            }
            error @ GitError::Failed { .. } => Error::Conflict(format!("its pack cannot be made: {error}")),
            error => error.into(),
        })
    }

    /// The tree that a name stands for.
    ///
    /// # Errors
    /// Git's.
    pub(super) async fn tree(&self, incoming: &Incoming, name: &str) -> Result<String> {
        let wanted = format!("{name}^{{tree}}");
        let arguments = ["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted];
        Ok(self.checking(incoming, false).text(&arguments).await?)
    }

    /// Moves a pack into the vault, its index last, and offers it to servers.
    ///
    /// # Errors
    /// A system error.
    pub(super) async fn keep(&self, incoming: &Incoming) -> Result<RepoPack> {
        let (from, to) = (incoming.directory.path.join("pack"), self.directory.path.join("objects/pack"));
        let paths = self.attempt.paths.clone();
        let keep = move || {
            let mut files: Vec<_> = std::fs::read_dir(from)?.collect::<std::io::Result<_>>()?;
            let is = |file: &std::fs::DirEntry, kind: &str| file.path().extension().is_some_and(|e| e == kind);
            files.sort_by_key(|file| is(file, "idx"));
            let pack = files.iter().find(|file| is(file, "pack")).ok_or_else(|| std::io::Error::other("no pack"))?;
            let (id, bytes) = digest(&pack.path())?;
            let outgoing = paths.outgoing_pack(&id);
            match std::fs::hard_link(pack.path(), &outgoing) {
                Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            files.iter().try_for_each(|file| std::fs::rename(file.path(), to.join(file.file_name())))?;
            File::open(paths.outgoing())?.sync_all()?;
            Ok(RepoPack { id, bytes, base: None })
        };
        let kept = tokio::task::spawn_blocking(keep).await.map_err(std::io::Error::other).flatten();
        kept.map_err(|e| Error::io("cannot keep the pack", &e))
    }
}

/// SHA-256 and size of a file that is on the disk afterwards.
fn digest(path: &Path) -> std::io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    file.sync_all()?;
    let (mut hash, mut bytes, mut buffer) = (Sha256::new(), 0, vec![0; 64 * 1024]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((hex(&hash.finalize()), bytes));
        }
        hash.update(&buffer[..read]);
        bytes += read as u64;
    }
}

/// A folder in a vault for one pack, until it has been checked.
pub(super) struct Incoming {
    directory: Directory,
}

impl Incoming {
    pub(super) async fn remove(self) {
        if let Err(error) = remove_tree(self.directory.path.clone()).await {
            tracing::warn!(%error, "a pack that was taken in cannot be removed; the next one's arrival removes it");
        }
    }
}
