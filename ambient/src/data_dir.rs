//! The data directory: made once, with the right mode.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

/// Makes the data directory when it is not there. Root's can be passed through by others, who list nothing: sessions
/// and PostgreSQL have uids of their own then. Anybody else's is private.
///
/// # Errors
/// When it cannot be made.
pub fn prepare(dir: &Path) -> io::Result<()> {
    if dir.exists() {
        return Ok(());
    }
    fs::create_dir_all(dir)?;
    let mode = if rustix::process::geteuid().is_root() { 0o711 } else { 0o700 };
    fs::set_permissions(dir, fs::Permissions::from_mode(mode))
}
