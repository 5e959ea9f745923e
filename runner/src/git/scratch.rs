//! A folder with our own files for one git that runs as the agent. The agent may change it too, and what is around it meanwhile:
//! everything is created in an open folder, following no links.

use std::{
    fs::File,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};

use crate::{attempt::Attempt, life};

const PRIVATE: u32 = 0o700;

/// Creates one in the agent's temporary folder, with these folders and files.
///
/// # Errors
/// A system error.
pub(super) fn make(attempt: &Attempt, folders: &[&str], files: &[(&str, &[u8])]) -> std::io::Result<PathBuf> {
    let name = format!("tree-{}", life::random_id()?);
    let tmp = rustix::fs::openat(CWD, attempt.paths.tmp(), flags(OFlags::DIRECTORY), Mode::empty())?;
    let top = folder(attempt, tmp.as_fd(), &name)?;
    for name in folders {
        folder(attempt, top.as_fd(), name)?;
    }
    for (name, content) in files {
        let new = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL;
        let mut file = File::from(rustix::fs::openat(&top, *name, flags(new), Mode::from_raw_mode(0o600))?);
        file.write_all(content)?;
        give(attempt, file.as_fd())?;
    }
    Ok(attempt.paths.tmp().join(name))
}

fn folder(attempt: &Attempt, parent: impl AsFd, name: &str) -> std::io::Result<OwnedFd> {
    rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(PRIVATE))?;
    let folder = rustix::fs::openat(&parent, name, flags(OFlags::DIRECTORY), Mode::empty())?;
    give(attempt, folder.as_fd())?;
    Ok(folder)
}

/// For the agent's user, if that is not ours.
fn give(attempt: &Attempt, handle: impl AsFd) -> std::io::Result<()> {
    let Some(user) = attempt.spec.agent_user else { return Ok(()) };
    Ok(rustix::fs::fchown(handle, Some(Uid::from_raw(user)), Some(Gid::from_raw(user)))?)
}

fn flags(more: OFlags) -> OFlags {
    OFlags::NOFOLLOW | OFlags::CLOEXEC | more
}
