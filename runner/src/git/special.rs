//! Pipes, sockets and devices where git reads files: it would wait for them forever.

use std::ffi::CStr;

use rustix::{
    fd::{AsFd, BorrowedFd},
    fs::{AtFlags, Dir, FileType, Mode, OFlags, statat},
    io::Errno,
};

/// What git reads by itself.
const FILES: [&CStr; 6] = [c"HEAD", c"config", c"packed-refs", c"shallow", c"commondir", c"gitdir"];
const TREES: [&CStr; 3] = [c"refs", c"objects", c"info"];
/// Most entries examined: beyond that, a git that hangs is killed when its time is up.
const MAX_ENTRIES: usize = 200_000;

/// Name of something in a repository's folder that is neither a file, a folder nor a link to one.
///
/// # Errors
/// A system error.
pub(super) fn find(repository: impl AsFd) -> std::io::Result<Option<String>> {
    let repository = repository.as_fd();
    for name in FILES {
        if is_special(repository, name)? {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    let mut left = MAX_ENTRIES;
    for name in TREES {
        if let Some(found) = below(repository, name, &mut left)? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn below(parent: BorrowedFd<'_>, name: &CStr, left: &mut usize) -> std::io::Result<Option<String>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let folder = match rustix::fs::openat(parent, name, flags, Mode::empty()) {
        Ok(folder) => folder,
        // Git will not get in either.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let inner = entry.file_name();
        if matches!(inner.to_bytes(), b"." | b"..") {
            continue;
        }
        if *left == 0 {
            return Ok(None);
        }
        *left -= 1;
        let found = match entry.file_type() {
            FileType::RegularFile => None,
            FileType::Directory => below(folder.as_fd(), inner, left)?,
            // Including what this file system does not report.
            _ if is_special(folder.as_fd(), inner)? => Some(inner.to_string_lossy().into_owned()),
            FileType::Unknown => below(folder.as_fd(), inner, left)?,
            _ => None,
        };
        if let Some(found) = found {
            return Ok(Some(format!("{}/{found}", name.to_string_lossy())));
        }
    }
    Ok(None)
}

/// Links are followed, as git does.
fn is_special(folder: BorrowedFd<'_>, name: &CStr) -> std::io::Result<bool> {
    match statat(folder, name, AtFlags::empty()) {
        Ok(about) => Ok(!matches!(FileType::from_raw_mode(about.st_mode), FileType::RegularFile | FileType::Directory)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::ACCESS) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
