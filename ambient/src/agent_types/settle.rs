//! What a package manager has unpacked becomes the server's, for all to read and nobody else to write.
//!
//! It was another user's until now, so everything is reached through open folders and no links. A link stays if it leads to something
//! beside it; what is no file, folder or link is removed.

use std::{
    ffi::CStr,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Uid, fchmod, fchown, openat, readlinkat, statat, unlinkat},
    process::{getegid, geteuid},
};

/// Deepest folder: packages of packages are some twenty levels deep.
const MAX_DEPTH: usize = 128;

/// Takes over a folder and everything in it.
///
/// # Errors
/// A system error; it is too deep.
pub(super) fn take_over(folder: &Path) -> std::io::Result<()> {
    content(&open(CWD, folder, OFlags::DIRECTORY)?, 0)
}

fn content(folder: &OwnedFd, depth: usize) -> std::io::Result<()> {
    if depth > MAX_DEPTH {
        return Err(std::io::Error::other(format!("folders are more than {MAX_DEPTH} levels deep")));
    }
    // Before its content: nobody else can exchange any of it from here on.
    own(folder)?;
    let mut entries = Dir::read_from(folder)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let about = statat(folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(about.st_mode) {
            FileType::Directory => content(&open(folder, name, OFlags::DIRECTORY)?, depth + 1)?,
            // One with other names could be changed by them.
            FileType::RegularFile if about.st_nlink == 1 => own(&open(folder, name, OFlags::NONBLOCK)?)?,
            FileType::Symlink if stays(folder, name)? => {
                let (uid, gid) = ours();
                rustix::fs::chownat(folder, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            _ => unlinkat(folder, name, AtFlags::empty())?,
        }
    }
    Ok(())
}

/// Whether a link leads to somewhere relative to itself. Whoever follows it has no more rights by that.
fn stays(folder: &OwnedFd, name: &CStr) -> std::io::Result<bool> {
    Ok(!readlinkat(folder, name, Vec::new())?.as_bytes().starts_with(b"/"))
}

fn own(handle: &OwnedFd) -> std::io::Result<()> {
    let mode = rustix::fs::fstat(handle)?.st_mode;
    let (uid, gid) = ours();
    fchown(handle, uid, gid)?;
    // Readable by all, executable as it was; the change of owner has taken special bits away.
    Ok(fchmod(handle, Mode::from_raw_mode(0o644 | (if mode & 0o111 == 0 { 0 } else { 0o111 })))?)
}

fn ours() -> (Option<Uid>, Option<Gid>) {
    (Some(geteuid()), Some(getegid()))
}

fn open(parent: impl AsFd, path: impl rustix::path::Arg, how: OFlags) -> std::io::Result<OwnedFd> {
    let how = how | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, path, how, Mode::empty())?)
}
