//! Directories that are opened before anything is said about them: a name can be made to lead elsewhere, a handle cannot.

use std::{
    ffi::OsString,
    io::Read,
    os::{fd::OwnedFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Access, AtFlags, Dir, FileType, Mode, OFlags},
    io::Errno,
};

use super::special;
use crate::{beneath, rights::Pinned};

/// Longest file that points to another place.
const MAX_POINTER: u64 = 16 * 1024;
/// Deepest directory.
const MAX_DEPTH: usize = 1024;

/// Which directory it is, wherever it is visible.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
}

/// An open directory.
#[derive(Debug)]
pub(super) struct Directory {
    handle: OwnedFd,
    /// Its real location.
    pub(super) path: PathBuf,
    pub(super) identity: Identity,
}

impl Directory {
    /// Opens a directory; links are followed.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn open(path: &Path) -> std::io::Result<Self> {
        Self::new(rustix::fs::open(path, flags(OFlags::DIRECTORY), Mode::empty())?)
    }

    /// Opens a directory named in this one.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn open_in(&self, path: &Path) -> std::io::Result<Self> {
        Self::new(rustix::fs::openat(&self.handle, path, flags(OFlags::DIRECTORY), Mode::empty())?)
    }

    fn new(handle: OwnedFd) -> std::io::Result<Self> {
        let identity = identify(&handle)?;
        let own = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        let path = PathBuf::from(OsString::from_vec(rustix::fs::readlink(own, Vec::new())?.into_bytes()));
        Ok(Self { handle, path, identity })
    }

    /// The type of a name in it; nothing if there is none. Links are not followed.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn kind(&self, name: &str) -> std::io::Result<Option<FileType>> {
        match rustix::fs::statat(&self.handle, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(about) => Ok(Some(FileType::from_raw_mode(about.st_mode))),
            Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Checks that this process can read a name in it; a missing one is fine.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn check_readable(&self, name: &str) -> std::io::Result<()> {
        match rustix::fs::accessat(&self.handle, name, Access::READ_OK, AtFlags::EACCESS) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Text of a small file in it; nothing if there is none. Links are not followed.
    ///
    /// # Errors
    /// A system error; not a regular file, or too long.
    pub(super) fn read(&self, name: &str) -> std::io::Result<Option<String>> {
        let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.handle, name, how, Mode::empty()) {
            Ok(file) => std::fs::File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if !file.metadata()?.is_file() {
            return Err(std::io::Error::other(format!("{name} is no file")));
        }
        let mut text = String::new();
        file.take(MAX_POINTER + 1).read_to_string(&mut text)?;
        if text.len() as u64 > MAX_POINTER {
            return Err(std::io::Error::other(format!("{name} has more than {MAX_POINTER} bytes")));
        }
        Ok(Some(text))
    }

    /// Whether this path exists beneath it, following no links.
    pub(super) fn has(&self, path: &Path) -> bool {
        beneath::open(&self.handle, path, OFlags::PATH | OFlags::NOFOLLOW).is_ok()
    }

    /// Whether a non-empty folder has this path beneath it, following no links.
    pub(super) fn is_filled(&self, path: &Path) -> bool {
        let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW;
        let Ok(folder) = beneath::open(&self.handle, path, how) else { return false };
        let mut entries = Dir::read_from(&folder).into_iter().flatten().flatten();
        entries.any(|entry| !matches!(entry.file_name().to_bytes(), b"." | b".."))
    }

    /// See [`special::find`].
    ///
    /// # Errors
    /// A system error.
    pub(super) fn special(&self) -> std::io::Result<Option<String>> {
        special::find(&self.handle)
    }

    /// This directory and its ancestors, up to the root.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn ancestry(&self) -> std::io::Result<Vec<Identity>> {
        let mut all = vec![self.identity];
        let mut current = rustix::fs::openat(&self.handle, "..", flags(OFlags::DIRECTORY), Mode::empty())?;
        while let identity = identify(&current)?
            && all.last() != Some(&identity)
        {
            if all.len() > MAX_DEPTH {
                return Err(std::io::Error::other("it is too deep"));
            }
            all.push(identity);
            current = rustix::fs::openat(&current, "..", flags(OFlags::DIRECTORY), Mode::empty())?;
        }
        Ok(all)
    }

    /// The right to read it, or to write too.
    pub(super) fn pinned(&self, write: bool) -> Pinned {
        let Identity { device, inode } = self.identity;
        Pinned { path: self.path.clone(), device, inode, write }
    }
}

/// Identity of what a path leads to.
///
/// # Errors
/// A system error.
pub(super) fn identify_path(path: &Path) -> std::io::Result<Identity> {
    identify(&rustix::fs::open(path, flags(OFlags::empty()), Mode::empty())?)
}

fn identify(handle: &OwnedFd) -> std::io::Result<Identity> {
    let about = rustix::fs::fstat(handle)?;
    Ok(Identity { device: about.st_dev, inode: about.st_ino })
}

fn flags(more: OFlags) -> OFlags {
    OFlags::PATH | OFlags::CLOEXEC | more
}
