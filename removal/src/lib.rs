//! Removes file trees that someone hostile has made, and may still be changing.
//!
//! Unreadable folders, 10,000 levels of them, links to elsewhere, names that change under our hands: everything is reached only
//! through an open handle of the folder it is in, no link is followed, and depth costs neither stack nor handles nor path
//! length: a folder within a folder is first moved up to the top, so that there are never more than three open handles.

use std::{
    ffi::{CStr, CString},
    io::ErrorKind,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags},
    io::Errno,
};

/// Passes over one folder before someone who adds to it faster than it is emptied has won.
const MOST_PASSES: usize = 1_000;
/// Names remembered at a time; the next pass finds the others.
const MOST_LEFT: usize = 10_000;
/// Names tried for a folder that is moved up.
const MOST_NAMES: usize = 10_000;

/// Removes whatever is at `path`, even a link or a file; it is fine if it is already gone.
///
/// # Errors
/// A system error, if something cannot be removed with our rights, or is added to all the time.
pub fn remove_tree(path: &Path) -> std::io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(ErrorKind::InvalidInput.into());
    };
    let name = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name))?;
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let parent = match rustix::fs::open(parent, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Ok(parent) => parent,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    remove_in(parent, &name)
}

/// Removes whatever has a name in an open folder, even a link or a file; it is fine if it is already gone.
///
/// # Errors
/// Same as [`remove_tree`].
pub fn remove_in(parent: impl AsFd, name: &CStr) -> std::io::Result<()> {
    for _ in 0..MOST_PASSES {
        if removed(&parent, name)? {
            return Ok(());
        }
        let top = match open(&parent, name) {
            Ok(top) => top,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
            Err(error) => return Err(error.into()),
        };
        empty(&top)?;
    }
    Err(busy())
}

/// Removes everything in the folder `path`, which stays.
///
/// # Errors
/// Same as [`remove_tree`]; and if it is not a folder.
pub fn empty_tree(path: &Path) -> std::io::Result<()> {
    let name = CString::new(std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str()))?;
    let top = open(CWD, &name)?;
    Ok(empty(&top)?)
}

/// Empties a folder, its deep parts step by step.
fn empty(top: &OwnedFd) -> rustix::io::Result<()> {
    let mut moved = 0;
    for _ in 0..MOST_PASSES {
        let mut found = false;
        let mut entries = Dir::read_from(top)?;
        while let Some(entry) = entries.read() {
            let entry = entry?;
            if is_self_or_parent(entry.file_name()) {
                continue;
            }
            found = true;
            let name = entry.file_name();
            if entry.file_type() != FileType::Directory && removed(top, name)? {
                continue;
            }
            let mut left = vec![name.to_owned()];
            while let Some(name) = left.pop() {
                match open(top, &name) {
                    Ok(folder) => flatten(&folder, top, &mut moved, &mut left)?,
                    Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
                    Err(error) => return Err(error),
                }
                removed(top, &name)?;
            }
        }
        if !found {
            return Ok(());
        }
    }
    Err(Errno::BUSY)
}

/// Removes the files of a folder and moves its folders to the top; their new names are added to `left`.
fn flatten(folder: &OwnedFd, top: &OwnedFd, moved: &mut usize, left: &mut Vec<CString>) -> rustix::io::Result<()> {
    let mut entries = Dir::read_from(folder)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        let is_folder = entry.file_type() == FileType::Directory;
        if is_self_or_parent(name) || (!is_folder && removed(folder, name)?) {
            continue;
        }
        left.extend(move_up(folder, name, top, moved)?);
        if left.len() >= MOST_LEFT {
            break;
        }
    }
    Ok(())
}

fn move_up(folder: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut usize) -> rustix::io::Result<Option<CString>> {
    // Its `..` changes, which is a write to it. What is no longer a folder is found by the next pass.
    match open(folder, name) {
        Ok(_) | Err(Errno::NOTDIR | Errno::LOOP) => {}
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    }
    for _ in 0..MOST_NAMES {
        *moved += 1;
        let new = CString::new(format!(".removed-{moved}")).unwrap_or_default();
        match rustix::fs::renameat_with(folder, name, top, &new, RenameFlags::NOREPLACE) {
            Ok(()) => return Ok(Some(new)),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Err(Errno::BUSY)
}

/// True if it is gone; false if it is a non-empty folder, or one that its folder does not let go of.
fn removed(parent: impl AsFd, name: &CStr) -> rustix::io::Result<bool> {
    for flags in [AtFlags::empty(), AtFlags::REMOVEDIR] {
        match rustix::fs::unlinkat(&parent, name, flags) {
            Ok(()) | Err(Errno::NOENT) => return Ok(true),
            // Linux says ISDIR, POSIX PERM.
            Err(Errno::ISDIR | Errno::PERM) if flags.is_empty() => {}
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOTDIR) => return Ok(false),
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

/// Opens a folder itself, with the permissions to list and change it.
fn open(parent: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let handle = rustix::fs::openat(parent, name, flags | OFlags::PATH, Mode::empty())?;
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&handle)?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // This kind of handle cannot be changed by itself; its link in /proc leads to it and nowhere else.
        let link = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&handle));
        rustix::fs::chmod(link, Mode::RWXU)?;
    }
    rustix::fs::openat(&handle, c".", OFlags::RDONLY | flags, Mode::empty())
}

fn is_self_or_parent(name: &CStr) -> bool {
    matches!(name.to_bytes(), b"." | b"..")
}

fn busy() -> std::io::Error {
    std::io::Error::other("something is added all the time")
}
