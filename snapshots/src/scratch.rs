//! A folder for what is on its way, one per process.

use std::{
    fs::{DirBuilder, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Its file, which the process holds locked as long as it lives.
const LOCK: &str = "lock";

/// The folder.
#[derive(Debug)]
pub(crate) struct Scratch {
    pub(crate) path: PathBuf,
    _lock: File,
}

impl Scratch {
    /// Makes one in `parent`, and removes those of processes that have ended.
    ///
    /// # Errors
    /// A system error.
    pub(crate) fn make(parent: &Path) -> std::io::Result<Self> {
        DirBuilder::new().recursive(true).create(parent)?;
        // Others pass through to what is theirs.
        let open = |path: &Path| std::fs::set_permissions(path, Permissions::from_mode(0o711));
        open(parent)?;
        for entry in std::fs::read_dir(parent)? {
            let path = entry?.path();
            let lock = File::open(path.join(LOCK));
            if lock.is_ok_and(|lock| lock.try_lock().is_ok()) {
                ambient_removal::remove_tree(&path)?;
            }
        }
        // Locked before it has its name: whoever finds it finds it held.
        let made = tempfile::Builder::new().prefix("making-").tempdir_in(parent)?;
        let lock = File::create(made.path().join(LOCK))?;
        lock.lock()?;
        let made = made.keep();
        open(&made)?;
        let path = parent.join(made.file_name().unwrap_or_default().to_string_lossy().replacen("making-", "of-", 1));
        std::fs::rename(&made, &path)?;
        Ok(Self { path, _lock: lock })
    }
}

#[cfg(test)]
mod tests {
    use super::Scratch;

    #[test]
    fn a_folder_lives_as_long_as_its_process_holds_it() {
        let parent = tempfile::tempdir().unwrap();
        let (one, two) = (Scratch::make(parent.path()).unwrap(), Scratch::make(parent.path()).unwrap());
        std::fs::write(one.path.join("x"), "x").unwrap();
        assert!(one.path.exists() && two.path.exists());
        let path = one.path.clone();
        drop(one);
        let three = Scratch::make(parent.path()).unwrap();
        assert!(!path.exists() && two.path.exists() && three.path.exists());
    }
}
