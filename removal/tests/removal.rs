//! Whatever an agent leaves behind is removed, and nothing else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::{
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use ambient_removal::{empty_tree, remove_tree};
use rustix::fs::{CWD, Mode, OFlags};

fn close(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn names(path: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn read_only_and_closed_folders_and_odd_names_are_removed() {
    let home = tempfile::tempdir().unwrap();
    let top = home.path().join("top");
    std::fs::create_dir_all(top.join("a/b/c")).unwrap();
    std::fs::write(top.join("a/b/c/file"), "x").unwrap();
    std::fs::write(top.join("a/.removed-1"), "planted").unwrap();
    std::fs::create_dir_all(top.join(".removed-1/x")).unwrap();
    std::fs::create_dir_all(top.join(".removed-2/y")).unwrap();
    std::fs::write(top.join("line\nbreak \u{1b}[2J"), "").unwrap();
    std::fs::write(top.join(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(b"\xff\xfe")), "").unwrap();
    rustix::fs::mknodat(CWD, top.join("pipe"), rustix::fs::FileType::Fifo, 0o000.into(), 0).unwrap();
    close(&top.join("a/b/c"), 0o000);
    close(&top.join("a/b"), 0o555);
    close(&top.join("a"), 0o100);
    empty_tree(&top).unwrap();
    assert!(names(&top).is_empty());
    std::fs::create_dir_all(top.join("again")).unwrap();
    close(&top, 0o000);
    remove_tree(&top).unwrap();
    remove_tree(&top).unwrap();
    remove_tree(&home.path().join("never/there")).unwrap();
    assert!(names(home.path()).is_empty());
}

#[test]
fn ten_thousand_levels_cost_neither_stack_nor_handles() {
    // In memory: a disk would take too long to create them.
    let home = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let top = home.path().join("top");
    std::fs::create_dir(&top).unwrap();
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::open(&top, flags, Mode::empty()).unwrap();
    for level in 0..10_000 {
        rustix::fs::mkdirat(&at, "d", Mode::RWXU).unwrap();
        if level % 100 == 0 {
            let file = rustix::fs::openat(&at, "f", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            drop(file);
        }
        at = rustix::fs::openat(&at, "d", flags, Mode::empty()).unwrap();
    }
    drop(at);
    remove_tree(&top).unwrap();
    assert!(!top.exists());
}

#[test]
fn links_are_removed_and_what_they_lead_to_stays_also_while_they_change() {
    let home = tempfile::tempdir().unwrap();
    let (kept, top) = (home.path().join("kept"), home.path().join("top"));
    std::fs::create_dir_all(kept.join("deep")).unwrap();
    std::fs::write(kept.join("deep/file"), "kept").unwrap();
    close(&kept, 0o500);
    for round in 0..5 {
        std::fs::create_dir_all(top.join("x/deep")).unwrap();
        symlink(&kept, top.join("link")).unwrap();
        symlink("/", top.join("x/root")).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // A folder becomes a link to elsewhere the next moment.
                while !stop.load(Ordering::Relaxed) {
                    let _ = std::fs::rename(top.join("x"), top.join("y"));
                    let _ = symlink(&kept, top.join("x"));
                    let _ = std::fs::remove_file(top.join("x"));
                    let _ = std::fs::rename(top.join("y"), top.join("x"));
                }
            });
            let tried = empty_tree(&top);
            stop.store(true, Ordering::Relaxed);
            assert!(tried.is_ok() || tried.unwrap_err().raw_os_error() == Some(16), "round {round}");
        });
        remove_tree(&top).unwrap();
    }
    remove_tree(&home.path().join("absent")).unwrap();
    symlink(&kept, &top).unwrap();
    remove_tree(&top).unwrap();
    assert_eq!(std::fs::read_to_string(kept.join("deep/file")).unwrap(), "kept");
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o500, "nor is it touched");
    close(&kept, 0o700);
}
