//! Opens what is beneath a folder, following no links: what an agent does to the tree meanwhile cannot lead outside.

use std::os::fd::{AsFd, OwnedFd};

use rustix::{
    fs::{Mode, OFlags, ResolveFlags},
    path::Arg,
};

/// Opens a path beneath an open folder.
///
/// # Errors
/// A system error; `LOOP` for a link on the way, `XDEV` for a path that leads out.
pub(crate) fn open(folder: impl AsFd, path: impl Arg, how: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(folder, path, how | OFlags::CLOEXEC, Mode::empty(), resolve)
}
