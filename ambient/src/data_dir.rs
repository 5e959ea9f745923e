//! The data directory: made once, with the right mode.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

/// Makes the data directory when it is not there, with what is missing above it. Root's can be passed through by others, who
/// list nothing: sessions and PostgreSQL have uids of their own then. Anybody else's is private. The umask changes nothing.
///
/// # Errors
/// When it cannot be made.
pub fn prepare(dir: &Path) -> io::Result<()> {
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    let missing: Vec<&Path> = dir.ancestors().take_while(|dir| !dir.as_os_str().is_empty() && !dir.exists()).collect();
    missing.into_iter().rev().try_for_each(|dir| make(dir, mode))
}

/// Makes a directory with exactly this mode, whatever the umask; one that is there stays as it is.
///
/// # Errors
/// When it cannot be made.
pub(crate) fn make(dir: &Path, mode: u32) -> io::Result<()> {
    match fs::create_dir(dir) {
        Ok(()) => fs::set_permissions(dir, fs::Permissions::from_mode(mode)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}
