//! Files that change from one user id of a session to the other.
//!
//! Nothing of the session is alive meanwhile. If its agent had its runner's user id and no namespaces it could write here too, so
//! everything is reached through open folders and no links, and nobody but the owner may write afterwards. A file that has other
//! names is replaced by a copy; links, pipes, sockets, sparse files and folders deeper than any of ours are not ours,
//! and are removed.
//!
//! What already has its owner is not examined again, so the owner changes last: a crash before that leaves the work to be redone.

use std::{
    fs::File,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Stat, Uid},
    io::Errno,
};

use super::layout::random_id;

/// Deepest folder; git's own need fewer than ten levels.
const MAX_DEPTH: usize = 64;
const NOT_OTHERS: u32 = 0o755;

/// Makes `user` the owner of a folder and everything in it; does nothing if it already is, or if the folder does not exist. Repeated after
/// a crash it continues, because the folder itself comes last.
///
/// # Errors
/// A system error.
pub(super) fn hand_over(path: &Path, user: u32) -> std::io::Result<()> {
    let Some(folder) = open_folder(CWD, path)? else { return Ok(()) };
    let about = rustix::fs::fstat(&folder)?;
    if is_of(&about, user) {
        return Ok(());
    }
    // Root's meanwhile: neither id counts as its owner.
    own(&folder, 0)?;
    content(&folder, user, 0)?;
    rustix::fs::fchmod(&folder, only_owner_writes(&about))?;
    Ok(own(&folder, user)?)
}

/// Gives a folder or file to root, if it belongs to someone else; its group stays. Does nothing if it does not exist.
///
/// # Errors
/// A system error; it is a link.
pub(super) fn make_roots(path: &Path, mode: u32) -> std::io::Result<()> {
    let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let handle = match rustix::fs::openat(CWD, path, how, Mode::empty()) {
        Ok(handle) => handle,
        Err(Errno::NOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if rustix::fs::fstat(&handle)?.st_uid != 0 {
        rustix::fs::fchmod(&handle, Mode::from_raw_mode(mode))?;
        rustix::fs::fchown(&handle, Some(Uid::ROOT), None)?;
    }
    Ok(())
}

/// The same for what is in a folder of root's. Root's own things in it stay so, and get its group.
///
/// # Errors
/// A system error.
pub(super) fn hand_over_content(path: &Path, user: u32) -> std::io::Result<()> {
    match open_folder(CWD, path)? {
        Some(folder) => content(&folder, user, 0),
        None => Ok(()),
    }
}

fn content(folder: &OwnedFd, user: u32, depth: usize) -> std::io::Result<()> {
    let mut entries = Dir::read_from(folder)?;
    while let Some(entry) = entries.read() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        let about = match rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            about => about?,
        };
        let kind = FileType::from_raw_mode(about.st_mode);
        let is_stranger = about.st_uid != 0 && !is_of(&about, user);
        match kind {
            FileType::Directory if depth == MAX_DEPTH => {
                remove_tree(folder, name)?;
                continue;
            }
            FileType::Directory => {
                let Some(inner) = open_folder(folder, name)? else { continue };
                content(&inner, user, depth + 1)?;
            }
            FileType::RegularFile => {}
            _ if is_stranger => {
                rustix::fs::unlinkat(folder, name, AtFlags::empty())?;
                continue;
            }
            _ => {}
        }
        if is_stranger {
            file(folder, name, user)?;
        } else if about.st_uid == 0 && about.st_gid != 0 {
            rustix::fs::chownat(folder, name, None, Some(Gid::from_raw(user)), AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

/// A file, or a folder itself.
fn file(folder: &OwnedFd, name: &std::ffi::CStr, user: u32) -> std::io::Result<()> {
    let how = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = rustix::fs::openat(folder, name, how, Mode::empty())?;
    let about = rustix::fs::fstat(&file)?;
    let is_file = FileType::from_raw_mode(about.st_mode) == FileType::RegularFile;
    if is_file && about.st_nlink > 1 {
        // Its copy would be larger than it is.
        let has_holes = about.st_blocks.saturating_mul(512) < about.st_size;
        if has_holes {
            return Ok(rustix::fs::unlinkat(folder, name, AtFlags::empty())?);
        }
        return replace(folder, name, file, user, &about);
    }
    rustix::fs::fchmod(&file, only_owner_writes(&about))?;
    Ok(own(&file, user)?)
}

/// Whoever uses its other name keeps the old file.
fn replace(folder: &OwnedFd, name: &std::ffi::CStr, file: OwnedFd, user: u32, about: &Stat) -> std::io::Result<()> {
    let new = format!(".copy-{}", random_id()?);
    let how = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut copy = File::from(rustix::fs::openat(folder, &new, how, Mode::from_raw_mode(0o600))?);
    std::io::copy(&mut File::from(file), &mut copy)?;
    own(&copy, user)?;
    rustix::fs::fchmod(&copy, only_owner_writes(about))?;
    copy.sync_all()?;
    Ok(rustix::fs::renameat(folder, &new, folder, name)?)
}

fn remove_tree(folder: &OwnedFd, name: &std::ffi::CStr) -> std::io::Result<()> {
    let within = Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string());
    ambient_removal::remove_tree(&within.join(std::ffi::OsStr::from_bytes(name.to_bytes())))
}

fn open_folder(parent: impl AsFd, path: impl rustix::path::Arg) -> std::io::Result<Option<OwnedFd>> {
    let how = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    match rustix::fs::openat(parent, path, how, Mode::empty()) {
        Ok(folder) => Ok(Some(folder)),
        Err(Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn own(handle: impl AsFd, user: u32) -> rustix::io::Result<()> {
    rustix::fs::fchown(handle, Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))
}

fn is_of(about: &Stat, user: u32) -> bool {
    about.st_uid == user && about.st_gid == user
}

fn only_owner_writes(about: &Stat) -> Mode {
    Mode::from_raw_mode(about.st_mode & NOT_OTHERS)
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::fs::{MetadataExt, PermissionsExt, lchown},
        path::Path,
    };

    use super::{hand_over, hand_over_content};

    const AGENT: u32 = 1_900_000_000;
    const RUNNER: u32 = 1_900_012_500;

    fn owners(top: &Path) -> Vec<(u32, u32)> {
        let mut all = vec![top.to_owned()];
        let mut i = 0;
        while i < all.len() {
            if all[i].symlink_metadata().unwrap().is_dir() {
                all.extend(std::fs::read_dir(&all[i]).unwrap().map(|entry| entry.unwrap().path()));
            }
            i += 1;
        }
        all.iter().map(|path| path.symlink_metadata().unwrap()).map(|about| (about.uid(), about.gid())).collect()
    }

    fn tree(top: &Path) {
        std::fs::create_dir_all(top.join("a/b")).unwrap();
        for file in ["f", "a/f", "a/b/f"] {
            std::fs::write(top.join(file), "x").unwrap();
            std::fs::set_permissions(top.join(file), std::fs::Permissions::from_mode(0o666)).unwrap();
        }
        for path in ["", "f", "a", "a/f", "a/b", "a/b/f"] {
            lchown(top.join(path), Some(AGENT), Some(AGENT)).unwrap();
        }
    }

    #[test]
    fn a_folder_that_was_handed_over_by_half_is_handed_over_again() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let top = directory.path().join("mirrors");
        tree(&top);
        // As a crash leaves it: root's, and a part is done.
        lchown(&top, Some(0), Some(0)).unwrap();
        lchown(top.join("a/f"), Some(RUNNER), Some(RUNNER)).unwrap();
        for user in [AGENT, RUNNER, RUNNER, AGENT] {
            hand_over(&top, user).unwrap();
            assert!(owners(&top).iter().all(|owner| *owner == (user, user)), "{:?}", owners(&top));
        }
        assert_eq!(top.join("a/b/f").metadata().unwrap().mode() & 0o777, 0o644);
        hand_over(&directory.path().join("none"), RUNNER).unwrap();
    }

    #[test]
    fn what_is_roots_stays_roots_and_links_lead_nowhere() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let (run, outside) = (directory.path().join("1"), directory.path().join("outside"));
        tree(&run);
        tree(&outside);
        lchown(&run, Some(0), Some(AGENT)).unwrap();
        lchown(run.join("f"), Some(0), Some(0)).unwrap();
        lchown(run.join("a"), Some(0), Some(AGENT)).unwrap();
        std::os::unix::fs::symlink(&outside, run.join("link")).unwrap();
        lchown(run.join("link"), Some(AGENT), Some(AGENT)).unwrap();
        let deep = run.join("d/".repeat(super::MAX_DEPTH + 6));
        std::fs::create_dir_all(&deep).unwrap();
        for folder in deep.ancestors().take_while(|folder| *folder != run) {
            lchown(folder, Some(AGENT), Some(AGENT)).unwrap();
        }
        // A name of a file that has 1 GiB of nothing.
        let holes = std::fs::File::create(outside.join("holes")).unwrap();
        holes.set_len(1 << 30).unwrap();
        lchown(outside.join("holes"), Some(AGENT), Some(AGENT)).unwrap();
        std::fs::hard_link(outside.join("holes"), run.join("holes")).unwrap();
        hand_over_content(&run, RUNNER).unwrap();
        let owner = |path: &str| {
            let about = run.join(path).symlink_metadata().unwrap();
            (about.uid(), about.gid())
        };
        assert_eq!((owner(""), owner("f"), owner("a")), ((0, AGENT), (0, 0), (0, RUNNER)));
        assert_eq!((owner("a/f"), owner("d")), ((RUNNER, RUNNER), (RUNNER, RUNNER)));
        assert!(["link", "holes"].iter().all(|name| run.join(name).symlink_metadata().is_err()));
        assert!(!deep.exists() && run.join("d/".repeat(super::MAX_DEPTH)).exists());
        assert!(owners(&outside).iter().all(|owner| *owner == (AGENT, AGENT)));
    }
}
