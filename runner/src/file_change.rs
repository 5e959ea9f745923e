//! Changing a file of the workspace with the rights of whoever asks: a re-execution of this program that has given up all others.
//!
//! It is in the workspace's folder. Each folder on the way is opened in the one before, following no links, and what is changed is
//! a name in an open folder. A new file is written under a name of its own at the top, where no repository sees it, and gets its own
//! when it is whole and on the disk.

use std::{
    ffi::{CString, OsStr},
    fs::File,
    io::{BufReader, Read, Write as _},
    os::{fd::OwnedFd, unix::ffi::OsStrExt},
    path::Path,
    time::Duration,
};

use ambient_runner_protocol::RunnerError;
use ambient_wire::{content::MAX_FILE, file_name::escape};
use rustix::{
    fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RenameFlags},
    io::Errno,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    beneath,
    error::{Error, Result},
    life,
    workspace_path::{failure, stream_failure},
};

/// The program's name where a command is expected.
pub(crate) const PROGRAM: &str = "ambient:change";
/// Largest order, bytes.
const MAX_ORDER: usize = 64 * 1024;
/// What names of files on their way begin with.
const TEMPORARY: &str = ".ambient-new-";
/// Most entries that are looked at for those: the agent can make as many as it likes.
const MAX_SWEPT: usize = 100_000;
/// Attempts to lock a folder, and the pause between them.
const LOCKS: (usize, Duration) = (50, Duration::from_millis(100));

/// What is to be done. Paths are relative and have no `.` or `..`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Change {
    /// Writes a file; its content follows the order.
    Write {
        path: Vec<u8>,
        parents: bool,
        executable: Option<bool>,
        condition: Condition,
        most: u64,
    },
    Remove {
        path: Vec<u8>,
        recursive: bool,
    },
    Move {
        from: Vec<u8>,
        to: Vec<u8>,
        overwrite: bool,
        parents: bool,
    },
}

/// What must be there before a file is written.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Condition {
    #[default]
    None,
    /// Nothing.
    Absent,
    /// A file.
    Present,
    /// A file with one of these SHA-256 sums, in hexadecimal digits.
    Content(Vec<String>),
}

/// How it ended.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Outcome {
    Done {
        /// Nothing had this path before.
        created: bool,
    },
    Refused(RunnerError),
}

/// Reads an order from standard input, carries it out, and prints the outcome as JSON.
///
/// # Errors
/// In words, if it cannot be understood or the outcome not be printed.
pub(crate) fn run() -> std::result::Result<(), String> {
    let mut input = BufReader::new(std::io::stdin().lock());
    let order = frame(&mut input).map_err(|e| e.to_string())?.filter(|order| order.len() <= MAX_ORDER);
    let order: Change = serde_json::from_slice(&order.unwrap_or_default()).map_err(|e| e.to_string())?;
    let outcome = match carry_out(&order, &mut input) {
        Ok(created) => Outcome::Done { created },
        Err(error) => Outcome::Refused(error.told()),
    };
    let mut out = std::io::stdout().lock();
    let printed = serde_json::to_vec(&outcome).map_err(|e| e.to_string())?;
    out.write_all(&printed).and_then(|()| out.flush()).map_err(|e| e.to_string())
}

/// One piece of the input: its length in four bytes, most significant first, and its bytes. None at the end, which is a piece without bytes:
/// input that merely stops is not whole.
fn frame(input: &mut impl Read) -> std::io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    input.read_exact(&mut length)?;
    let mut bytes = vec![0; u32::from_be_bytes(length) as usize];
    input.read_exact(&mut bytes)?;
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

fn carry_out(change: &Change, input: &mut impl Read) -> Result<bool> {
    let workspace = rustix::fs::open(".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::io("cannot open the workspace", &e.into()))?;
    match change {
        Change::Write { path, parents, executable, condition, most } => {
            let place = Place::open(&workspace, "path", path, *parents)?;
            place.write(&workspace, condition, (*executable, *most), input)
        }
        Change::Remove { path, recursive } => {
            Place::open(&workspace, "path", path, false)?.remove(*recursive).map(|()| false)
        }
        Change::Move { from, to, overwrite, parents } => {
            let from = Place::open(&workspace, "from", from, false)?;
            from.kind()?.ok_or_else(|| from.failure(Errno::NOENT))?;
            from.move_to(&Place::open(&workspace, "to", to, *parents)?, *overwrite)
        }
    }
}

/// A name in an open folder.
struct Place<'a> {
    folder: OwnedFd,
    name: &'a OsStr,
    field: &'static str,
    /// For people.
    path: String,
}

impl<'a> Place<'a> {
    fn open(workspace: &OwnedFd, field: &'static str, path: &'a [u8], parents: bool) -> Result<Self> {
        let shown = escape(path);
        let failed = |error| failure(field, &shown, error);
        let path = Path::new(OsStr::from_bytes(path));
        let name = path.file_name().ok_or_else(|| Error::bad(field, "must name something in the workspace"))?;
        let how = OFlags::PATH | OFlags::DIRECTORY;
        let mut folder = beneath::open(workspace, ".", how).map_err(failed)?;
        for part in path.parent().into_iter().flat_map(Path::iter) {
            folder = match beneath::open(&folder, part, how) {
                Err(Errno::NOENT) if parents => {
                    match rustix::fs::mkdirat(&folder, part, Mode::from_raw_mode(0o777)) {
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(failed(error)),
                    }
                    beneath::open(&folder, part, how)
                }
                opened => opened,
            }
            .map_err(failed)?;
        }
        Ok(Self { folder, name, field, path: shown })
    }

    fn failure(&self, error: Errno) -> Error {
        failure(self.field, &self.path, error)
    }

    /// What has the name, and its permissions; links are not followed.
    fn kind(&self) -> Result<Option<(FileType, Mode)>> {
        match rustix::fs::statat(&self.folder, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some((FileType::from_raw_mode(about.st_mode), Mode::from_raw_mode(about.st_mode)))),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(self.failure(error)),
        }
    }

    /// Permissions of the file that is to be replaced, if there is one and the condition holds.
    fn check(&self, condition: &Condition) -> Result<Option<Mode>> {
        let stale = |reason: String| Err(Error::Stale(reason));
        let mode = match self.kind()? {
            None if matches!(condition, Condition::Present | Condition::Content(_)) => {
                return stale(format!("If-Match: there is no '{}'", self.path));
            }
            None => return Ok(None),
            Some(_) if *condition == Condition::Absent => {
                return stale(format!("If-None-Match: '{}' exists already", self.path));
            }
            Some((FileType::RegularFile, mode)) => mode,
            Some((FileType::Directory, _)) => return Err(self.failure(Errno::ISDIR)),
            Some((FileType::Symlink, _)) => return Err(Error::bad(self.field, "is a symbolic link")),
            Some(_) => return Err(self.failure(Errno::NXIO)),
        };
        if let Condition::Content(wanted) = condition {
            let found = self.hash()?;
            if !found.as_ref().is_some_and(|found| wanted.contains(found)) {
                let found = found.map_or_else(|| "is not known: it is too large".to_owned(), |sum| format!("is {sum}"));
                return stale(format!("If-Match: the SHA-256 of '{}' {found}", self.path));
            }
        }
        Ok(Some(mode))
    }

    /// Of the file's content; none if that is too large.
    fn hash(&self) -> Result<Option<String>> {
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let file = beneath::open(&self.folder, self.name, how).map(File::from).map_err(|e| self.failure(e))?;
        let failed = |e: std::io::Error| stream_failure(self.field, &self.path, &e);
        let about = file.metadata().map_err(failed)?;
        if !about.is_file() {
            return Err(self.failure(Errno::NXIO));
        }
        hash(file, about.len()).map_err(failed)
    }

    /// Whether the file is new.
    fn write(
        &self,
        workspace: &OwnedFd,
        condition: &Condition,
        (executable, most): (Option<bool>, u64),
        input: &mut impl Read,
    ) -> Result<bool> {
        // What is refused anyway is refused before its content has come.
        self.check(condition)?;
        let mut new = New::create(workspace).map_err(|e| self.failure(e))?;
        self.fill(&mut new.file, most, input)?;
        let folder = self.lock()?;
        let before = self.check(condition)?;
        let kept = before.map_or(0o644, |mode| mode.as_raw_mode() & 0o777);
        let mode = match executable {
            Some(true) => kept | (kept & 0o444) >> 2,
            Some(false) => kept & !0o111,
            None => kept,
        };
        let finished = (|| {
            rustix::fs::fchmod(&new.file, Mode::from_raw_mode(mode))?;
            rustix::fs::fsync(&new.file)?;
            new.give(self, *condition == Condition::Absent)?;
            rustix::fs::fsync(&folder)
        })();
        match finished {
            Ok(()) => Ok(before.is_none()),
            Err(Errno::EXIST) => Err(Error::Stale(format!("If-None-Match: '{}' exists already", self.path))),
            Err(error) => Err(self.failure(error)),
        }
    }

    fn fill(&self, file: &mut File, most: u64, input: &mut impl Read) -> Result<()> {
        let mut left = most;
        loop {
            // A caller that goes away leaves nothing behind.
            let piece = frame(input).map_err(|_| Error::bad("body", "broke off"))?;
            let Some(piece) = piece else { return Ok(()) };
            left = left
                .checked_sub(piece.len() as u64)
                .ok_or_else(|| Error::TooLarge(format!("a file may have at most {most} bytes")))?;
            file.write_all(&piece).map_err(|e| stream_failure(self.field, &self.path, &e))?;
        }
    }

    /// The folder, locked against other changes by callers: of two that have seen the same content only one replaces it. The agent
    /// can hold the lock too, and knows no other.
    fn lock(&self) -> Result<OwnedFd> {
        let how = OFlags::RDONLY | OFlags::DIRECTORY;
        let folder = beneath::open(&self.folder, ".", how).map_err(|e| self.failure(e))?;
        for _ in 0..LOCKS.0 {
            match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(folder),
                Err(Errno::AGAIN | Errno::INTR) => std::thread::sleep(LOCKS.1),
                Err(error) => return Err(self.failure(error)),
            }
        }
        Err(self.failure(Errno::BUSY))
    }

    fn remove(&self, recursive: bool) -> Result<()> {
        let (kind, _) = self.kind()?.ok_or_else(|| self.failure(Errno::NOENT))?;
        if kind != FileType::Directory {
            return rustix::fs::unlinkat(&self.folder, self.name, AtFlags::empty()).map_err(|e| self.failure(e));
        }
        if !recursive {
            return Err(Error::bad("recursive", format!("must be true: '{}' is a directory", self.path)));
        }
        let name = CString::new(self.name.as_bytes()).map_err(|_| Error::bad(self.field, "contains NUL"))?;
        // Without a number: something is added all the time.
        let failed = |error| self.failure(Errno::from_io_error(&error).unwrap_or(Errno::BUSY));
        ambient_removal::remove_in(&self.folder, &name).map_err(failed)
    }

    /// Whether nothing had the new path before.
    fn move_to(&self, to: &Self, overwrite: bool) -> Result<bool> {
        let created = to.kind()?.is_none();
        let how = if overwrite { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match rustix::fs::renameat_with(&self.folder, self.name, &to.folder, to.name, how) {
            Ok(()) => Ok(created),
            Err(Errno::INVAL) => Err(Error::bad("to", "is beneath what is to be moved")),
            Err(Errno::ISDIR | Errno::NOTDIR) => {
                Err(Error::Conflict(format!("'{}' exists already, and only one of the two is a directory", to.path)))
            }
            Err(Errno::NOTEMPTY) => Err(Error::Conflict(format!("'{}' is a directory that is not empty", to.path))),
            Err(Errno::EXIST) => Err(to.failure(Errno::EXIST)),
            Err(error) => Err(self.failure(error)),
        }
    }
}

/// A file on its way. Gone if it gets no other name.
struct New<'a> {
    workspace: &'a OwnedFd,
    file: File,
    name: Option<String>,
}

impl<'a> New<'a> {
    fn create(workspace: &'a OwnedFd) -> rustix::io::Result<Self> {
        let id = life::random_id().map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        let name = format!("{TEMPORARY}{id}");
        let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(workspace, &name, how, Mode::from_raw_mode(0o600))?;
        Ok(Self { workspace, file: file.into(), name: Some(name) })
    }

    /// Gives it its place, instead of what has it.
    fn give(&mut self, place: &Place<'_>, must_be_new: bool) -> rustix::io::Result<()> {
        let how = if must_be_new { RenameFlags::NOREPLACE } else { RenameFlags::empty() };
        if let Some(name) = &self.name {
            rustix::fs::renameat_with(self.workspace, name, &place.folder, place.name, how)?;
        }
        self.name = None;
        Ok(())
    }
}

impl Drop for New<'_> {
    fn drop(&mut self) {
        if let Some(name) = &self.name {
            let _ = rustix::fs::unlinkat(self.workspace, name, AtFlags::empty());
        }
    }
}

/// Removes what processes that were killed have left.
pub(crate) fn sweep(workspace: &Path) {
    let left = std::fs::read_dir(workspace).into_iter().flatten().flatten().take(MAX_SWEPT);
    for entry in left.filter(|entry| entry.file_name().as_bytes().starts_with(TEMPORARY.as_bytes())) {
        // Never a folder, and no link is followed.
        let _ = std::fs::remove_file(entry.path());
    }
}

/// SHA-256 of a file's content, in hexadecimal digits; none if that is more than can be written.
///
/// # Errors
/// A system error.
pub(crate) fn hash(file: impl Read, size: u64) -> std::io::Result<Option<String>> {
    if size > MAX_FILE {
        return Ok(None);
    }
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 64 * 1024]);
    // Not more than that, however fast it grows.
    let mut file = file.take(MAX_FILE);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(Some(hex(&hasher.finalize()))),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// In hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
