//! The root of the agent's mount namespace: a small tmpfs with bind mounts of what may be seen; everything else is left behind.
//!
//! Landlock does not keep a process from connecting to a Unix socket by path, nor from seeing that a file exists; what is
//! not in the root has no path. Everything is read-only except what the rights name, `/tmp` and `/dev/shm`.

use std::{
    collections::BTreeMap,
    ffi::{CString, OsString},
    io::ErrorKind,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, mount_remount, unmount,
};

use crate::{
    confine::{DEVICES, SYSTEM, resolver},
    rights::Rights,
};

/// Any directory that every system has: what it hides is visible again once the root is left.
const STAGING: &str = "/usr";
/// Where the machine's root is until it is detached.
const OLD: &str = "/.old";
/// Memory that an agent may fill with files, in each of the two.
const TMPFS: &str = "mode=1777,size=536870912,nr_inodes=262144";
/// What the kernel lets root's user id change without a capability, if the session runs as root.
const KERNEL: [&str; 5] = ["/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"];

/// The whole machine's cgroups.
const GROUPS: &str = "/sys/fs/cgroup";

/// Something at a path of the new root.
#[derive(Debug)]
enum Piece {
    /// From the machine's root.
    Bind {
        source: PathBuf,
        writable: bool,
    },
    /// Empty, and stays so.
    Hidden,
    /// In memory.
    Memory,
    Link(PathBuf),
    Processes,
    Terminals,
}

/// Builds the root and enters it; returns what it lacks, in words.
///
/// # Errors
/// In words, if the kernel refuses.
pub(super) fn build(rights: &Rights) -> Result<Vec<String>, String> {
    let pieces = pieces(rights)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(told("making mounts private", Path::new("/")))?;
    memory(Path::new(STAGING), "mode=0755,size=16777216,nr_inodes=65536")?;
    let staging = Path::new(STAGING);
    let old = staging.join(OLD.trim_start_matches('/'));
    std::fs::create_dir(&old).map_err(|e| format!("making {}: {e}", old.display()))?;
    rustix::process::pivot_root(staging, &old).map_err(told("entering", staging))?;
    std::env::set_current_dir("/").map_err(|e| format!("entering the root: {e}"))?;
    let mut missing = Vec::new();
    for (path, piece) in &pieces {
        put(path, piece, &mut missing)?;
    }
    for path in KERNEL.map(Path::new).into_iter().filter(|path| path.exists()) {
        // Mounted onto itself, so that it can be read-only separately.
        if mount_bind_recursive(path, path).is_err() {
            missing.push(format!("protection of {}", path.display()));
        }
    }
    unmount(OLD, UnmountFlags::DETACH).map_err(told("leaving", Path::new(OLD)))?;
    std::fs::remove_dir(OLD).map_err(|e| format!("removing {OLD}: {e}"))?;
    close(&pieces)?;
    Ok(missing)
}

/// The whole root, by path: parents come first.
fn pieces(rights: &Rights) -> Result<BTreeMap<PathBuf, Piece>, String> {
    let mut pieces = BTreeMap::new();
    for hidden in &rights.hidden {
        pieces.insert(hidden.clone(), Piece::Hidden);
    }
    for path in SYSTEM.iter().map(Path::new).filter(|path| *path != Path::new("/proc")) {
        match std::fs::read_link(path) {
            Ok(target) => drop(pieces.insert(path.to_owned(), Piece::Link(target))),
            Err(_) => bind(&mut pieces, path, false)?,
        }
    }
    for device in DEVICES.iter().map(Path::new).filter(|path| !path.ends_with("ptmx") && !path.ends_with("pts")) {
        bind(&mut pieces, device, true)?;
    }
    for (path, piece) in [
        ("/proc", Piece::Processes),
        ("/tmp", Piece::Memory),
        ("/dev/shm", Piece::Memory),
        ("/dev/pts", Piece::Terminals),
        ("/dev/ptmx", Piece::Link("pts/ptmx".into())),
        ("/dev/fd", Piece::Link("/proc/self/fd".into())),
        ("/dev/stdin", Piece::Link("/proc/self/fd/0".into())),
        ("/dev/stdout", Piece::Link("/proc/self/fd/1".into())),
        ("/dev/stderr", Piece::Link("/proc/self/fd/2".into())),
        ("/var/tmp", Piece::Link("/tmp".into())),
        ("/var/run", Piece::Link("/run".into())),
        ("/run", Piece::Hidden),
    ] {
        pieces.insert(path.into(), piece);
    }
    // They name sessions, and what else runs here. The run's own stay, with its limits: language runtimes size themselves by them.
    if Path::new(GROUPS).is_dir() {
        pieces.insert(GROUPS.into(), Piece::Hidden);
        for group in rights.groups.iter().filter_map(|group| group.parent()).filter(|run| run.starts_with(GROUPS)) {
            bind(&mut pieces, group, false)?;
        }
    }
    for path in resolver().iter().chain(&rights.read) {
        bind(&mut pieces, path, false)?;
    }
    for path in &rights.write {
        bind(&mut pieces, path, true)?;
    }
    for pin in &rights.pinned {
        bind(&mut pieces, &pin.path, pin.write)?;
    }
    Ok(pieces)
}

/// At its path, and where its path leads; nothing if it does not exist.
fn bind(pieces: &mut BTreeMap<PathBuf, Piece>, path: &Path, writable: bool) -> Result<(), String> {
    let source = match std::fs::canonicalize(path) {
        Ok(source) => source,
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) && !writable => {
            return Ok(());
        }
        Err(error) if error.kind() == ErrorKind::NotFound && path.starts_with("/dev") => return Ok(()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    if source == Path::new("/") {
        return Err(format!("{}: the whole machine cannot be shown", path.display()));
    }
    for at in [path.to_owned(), source.clone()] {
        let kept = matches!(pieces.get(&at), Some(Piece::Bind { writable: true, .. }));
        if !kept {
            pieces.insert(at, Piece::Bind { source: source.clone(), writable });
        }
    }
    Ok(())
}

fn put(path: &Path, piece: &Piece, missing: &mut Vec<String>) -> Result<(), String> {
    match piece {
        Piece::Bind { source, .. } => {
            let source = Path::new(OLD).join(source.strip_prefix("/").unwrap_or(source));
            let directory = source.metadata().map_err(|e| format!("{}: {e}", source.display()))?.is_dir();
            make(path, directory)?;
            mount_bind_recursive(&source, path).map_err(told("binding", path))
        }
        Piece::Hidden => {
            make(path, true)?;
            memory(path, "mode=0755,size=4096,nr_inodes=4096")
        }
        Piece::Memory => {
            make(path, true)?;
            memory(path, TMPFS)
        }
        Piece::Link(target) => {
            if let Some(parent) = path.parent() {
                make(parent, true)?;
            }
            std::os::unix::fs::symlink(target, path).map_err(|e| format!("{}: {e}", path.display()))
        }
        Piece::Terminals => {
            make(path, true)?;
            let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
            let options = c"newinstance,ptmxmode=0666,mode=0600";
            mount("devpts", path, "devpts", flags, options).map_err(told("terminals at", path))
        }
        Piece::Processes => processes(path, missing),
    }
}

/// A fresh `/proc` shows only this PID namespace. Where parts of the machine's are covered (in most containers) the kernel
/// refuses one.
fn processes(path: &Path, missing: &mut Vec<String>) -> Result<(), String> {
    make(path, true)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if mount("proc", path, "proc", flags, None).is_ok() {
        return Ok(());
    }
    missing.push("a /proc of its own: the agent sees the processes of the machine".to_owned());
    mount_bind_recursive(format!("{OLD}/proc"), path).map_err(told("binding", path))
}

fn memory(path: &Path, options: &str) -> Result<(), String> {
    let options = CString::new(options).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV;
    mount("tmpfs", path, "tmpfs", flags, options.as_c_str()).map_err(told("memory at", path))
}

/// A place to mount on.
fn make(path: &Path, directory: bool) -> Result<(), String> {
    let made = if directory {
        std::fs::create_dir_all(path)
    } else {
        path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            let there = path.symlink_metadata().is_ok();
            if there { Ok(()) } else { std::fs::File::create_new(path).map(drop) }
        })
    };
    made.map_err(|e| format!("making {}: {e}", path.display()))
}

/// Everything becomes read-only except what is meant to be written. Based on what the kernel lists as mounted, because a bind brings
/// along what is mounted below.
fn close(pieces: &BTreeMap<PathBuf, Piece>) -> Result<(), String> {
    let writable = |path: &Path| {
        matches!(
            pieces.get(path),
            Some(Piece::Bind { writable: true, .. } | Piece::Memory | Piece::Processes | Piece::Terminals)
        )
    };
    let mounts = std::fs::read("/proc/self/mountinfo").map_err(|e| format!("what is mounted: {e}"))?;
    for line in mounts.split(|byte| *byte == b'\n') {
        let fields: Vec<_> = line.split(|byte| *byte == b' ').collect();
        let [_, _, _, _, path, options, ..] = fields.as_slice() else { continue };
        let path = PathBuf::from(unescape(path));
        if !writable(&path) && !is_covered(pieces, &path) {
            let flags = MountFlags::BIND | MountFlags::RDONLY | flags(options);
            mount_remount(&path, flags, c"").map_err(told("closing", &path))?;
        }
    }
    Ok(())
}

/// True for what came along with a bind and is beneath something that hides it: it has no path any more.
fn is_covered(pieces: &BTreeMap<PathBuf, Piece>, path: &Path) -> bool {
    let nearest = path.ancestors().find_map(|above| pieces.get(above).map(|piece| (above, piece)));
    matches!(nearest, Some((above, Piece::Hidden)) if above != path)
}

/// Flags that a mount currently has: those of the machine may not be removed.
fn flags(options: &[u8]) -> MountFlags {
    let mut flags = MountFlags::empty();
    for option in options.split(|byte| *byte == b',') {
        flags |= match option {
            b"nosuid" => MountFlags::NOSUID,
            b"nodev" => MountFlags::NODEV,
            b"noexec" => MountFlags::NOEXEC,
            b"noatime" => MountFlags::NOATIME,
            b"nodiratime" => MountFlags::NODIRATIME,
            b"relatime" => MountFlags::RELATIME,
            b"nosymfollow" => MountFlags::NOSYMFOLLOW,
            _ => MountFlags::empty(),
        };
    }
    if !flags.intersects(MountFlags::NOATIME | MountFlags::RELATIME) {
        flags |= MountFlags::STRICTATIME;
    }
    flags
}

/// `\040` and the like, as the kernel writes spaces, tabs, newlines and backslashes.
fn unescape(text: &[u8]) -> OsString {
    let mut plain = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let code = (*first == b'\\').then(|| std::str::from_utf8(tail.get(..3)?).ok()).flatten();
        match code.and_then(|code| u8::from_str_radix(code, 8).ok()) {
            Some(byte) => {
                plain.push(byte);
                rest = &tail[3..];
            }
            None => {
                plain.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(plain)
}

fn told(what: &'static str, path: &Path) -> impl FnOnce(rustix::io::Errno) -> String {
    let path = path.to_owned();
    move |error| format!("{what} {}: {}", path.display(), std::io::Error::from(error))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::unescape;

    #[test]
    fn names_of_mounts_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescape(br"/a\040b\134c\011"), OsStr::new("/a b\\c\t"));
        assert_eq!(unescape(br"/a\9"), OsStr::new(r"/a\9"));
    }
}
