//! The data directory: created once, with the right mode.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

/// Creates the data directory if it does not exist, with any missing parents. Others can pass through root's, but not
/// list it: sessions and PostgreSQL have their own uids then. Anyone else's is private. The umask has no effect.
///
/// # Errors
/// When it cannot be created.
pub fn prepare(dir: &Path) -> io::Result<()> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    missing.into_iter().rev().try_for_each(|dir| make(dir, mode))
}

/// Creates a directory with exactly this mode, whatever the umask; an existing one is left as it is.
///
/// # Errors
/// When it cannot be created.
pub(crate) fn make(dir: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
