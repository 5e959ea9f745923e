//! How much of the file system a session uses: what is in its folders, and unlinked files that are still open.
//!
//! The agent creates these trees: no links are followed, depth and number are bounded, and what a scan misses (deeper folders,
//! files that are only mapped) shows in the file system's own numbers, for which the server has its reserve.

use std::{
    collections::HashSet,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    time::{Duration, Instant},
};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, fstat, openat, statat};

/// Maximum folder depth that is scanned.
const DEPTH: usize = 128;
/// Entries per scan; a session with more counts as above its limit, because anything could be hidden behind them.
pub(super) const ENTRIES: usize = 2_000_000;
/// Time per scan.
const PATIENCE: Duration = Duration::from_secs(5);
/// The unit of `st_blocks`.
const BLOCK: u64 = 512;

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Use {
    pub(super) bytes: u64,
    pub(super) entries: usize,
    /// Files with several names, and open ones, count once.
    seen: HashSet<(u64, u64)>,
}

/// Bytes in `folders`, each with all beneath it.
pub(super) fn measure(folders: &[&Path], processes: &[i32]) -> Use {
    let deadline = Instant::now() + PATIENCE;
    let mut found = Use::default();
    for folder in folders {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        if let Ok(folder) = openat(CWD, *folder, flags, Mode::empty()) {
            found.tree(folder, deadline);
        }
    }
    let device = folders.first().and_then(|folder| folder.metadata().ok()).map(|about| about.dev());
    for pid in processes {
        found.unlinked(*pid, device);
    }
    found
}

impl Use {
    fn tree(&mut self, top: OwnedFd, deadline: Instant) {
        // Each opened folder with the names of subfolders still to be scanned.
        let mut stack = vec![(self.folder(&top), top)];
        while let Some((left, folder)) = stack.last_mut() {
            let Some(name) = left.pop() else {
                stack.pop();
                continue;
            };
            if self.entries > ENTRIES || Instant::now() > deadline {
                return;
            }
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            if let Ok(below) = openat(&*folder, &*name, flags, Mode::empty())
                && stack.len() < DEPTH
            {
                stack.push((self.folder(&below), below));
            }
        }
    }

    /// Counts what is in a folder; returns the names of its subfolders.
    fn folder(&mut self, folder: &OwnedFd) -> Vec<std::ffi::CString> {
        let mut folders = Vec::new();
        if let Ok(about) = fstat(folder) {
            self.count(about.st_dev, about.st_ino, 1, about.st_blocks.unsigned_abs());
        }
        let Ok(entries) = Dir::read_from(folder.as_fd()) else { return folders };
        for entry in entries.flatten().filter(|entry| !matches!(entry.file_name().to_bytes(), b"." | b"..")) {
            self.entries += 1;
            if self.entries > ENTRIES {
                break;
            }
            let Ok(about) = statat(folder, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            if FileType::from_raw_mode(about.st_mode) == FileType::Directory {
                folders.push(entry.file_name().to_owned());
            } else {
                self.count(
                    about.st_dev,
                    about.st_ino,
                    u64::from(about.st_nlink != 1) + 1,
                    about.st_blocks.unsigned_abs(),
                );
            }
        }
        folders
    }

    fn count(&mut self, device: u64, inode: u64, links: u64, blocks: u64) {
        if links == 1 || self.seen.insert((device, inode)) {
            self.bytes += blocks * BLOCK;
        }
    }

    /// Files without a name that a process has open.
    fn unlinked(&mut self, pid: i32, device: Option<u64>) {
        let Ok(open) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return };
        for file in open.flatten() {
            let Ok(about) = file.path().metadata() else { continue };
            if about.is_file() && about.nlink() == 0 && Some(about.dev()) == device {
                self.count(about.dev(), about.ino(), 0, about.blocks());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write};

    use super::*;

    #[test]
    fn files_count_once_links_are_not_followed_and_unlinked_open_files_count() {
        let directory = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        let root = directory.path();
        let block = vec![7; 1 << 20];
        fs::write(outside.path().join("big"), [&block[..], &block[..], &block[..]].concat()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/one"), &block).unwrap();
        fs::hard_link(root.join("a/b/one"), root.join("two")).unwrap();
        std::os::unix::fs::symlink(outside.path(), root.join("a/out")).unwrap();
        let about = |bytes: u64| bytes..bytes + (256 << 10);
        let named = measure(&[root], &[]).bytes;
        assert!(about(1 << 20).contains(&named), "{named}");
        let mut open = fs::File::create(root.join("gone")).unwrap();
        open.write_all(&block).unwrap();
        open.sync_all().unwrap();
        fs::remove_file(root.join("gone")).unwrap();
        let with_open = measure(&[root], &[std::process::id().cast_signed()]).bytes;
        assert!(about(2 << 20).contains(&with_open), "{with_open}");
    }
}
