//! What belongs to the platform, and so cannot be an origin: sessions may not read or write each other's workspaces, or the server's files,
//! through a URL.

use std::{io::ErrorKind, path::Path};

use super::directory::{Directory, Identity, identify_path};
use crate::{
    attempt::Attempt,
    error::{Error, Result},
};

/// The platform's folders and files.
pub(super) struct Platform {
    places: Vec<Identity>,
    /// Every directory that one of them is in.
    above: Vec<Identity>,
}

impl Platform {
    /// As they currently are.
    ///
    /// # Errors
    /// A system error.
    pub(super) fn of(attempt: &Attempt) -> Result<Self> {
        let root = &attempt.paths.root;
        // `{data}/projects/{project}/sessions/{session}`, if compute has laid the session out there.
        let laid_out = root.parent().is_some_and(|p| p.ends_with("sessions"))
            && root.ancestors().nth(3).is_some_and(|p| p.ends_with("projects"));
        let own = root.ancestors().take(if laid_out { 4 } else { 1 });
        let mut platform = Self { places: Vec::new(), above: Vec::new() };
        for path in own.chain(attempt.spec.platform_paths.iter().map(std::path::PathBuf::as_path)) {
            platform.add(path).map_err(|e| Error::io("cannot look at the platform's own directories", &e))?;
        }
        Ok(platform)
    }

    fn add(&mut self, path: &Path) -> std::io::Result<()> {
        let real = match std::fs::canonicalize(path) {
            Ok(real) => real,
            Err(error) if unreachable(&error) => path.to_owned(),
            Err(error) => return Err(error),
        };
        self.places.extend(identify(&real)?);
        for above in real.ancestors().skip(1) {
            self.above.extend(identify(above)?);
        }
        Ok(())
    }

    /// Refuses a directory that is one of the platform's, is inside one, or contains one.
    ///
    /// # Errors
    /// Bad input that names `url`.
    pub(super) fn refuse(&self, directory: &Directory) -> Result<()> {
        let what = directory.path.display();
        let ancestry = directory.ancestry().map_err(|e| Error::bad("url", format!("{what}: {e}")))?;
        if ancestry.iter().any(|place| self.places.contains(place)) {
            return Err(Error::bad("url", format!("leads into a directory of the platform: {what}")));
        }
        if self.above.contains(&directory.identity) {
            return Err(Error::bad("url", format!("leads to a directory that contains one of the platform's: {what}")));
        }
        Ok(())
    }
}

/// What cannot be seen from here cannot be reached through an origin either: git has no more rights.
fn identify(path: &Path) -> std::io::Result<Option<Identity>> {
    match identify_path(path) {
        Ok(identity) => Ok(Some(identity)),
        Err(error) if unreachable(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

fn unreachable(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied | ErrorKind::NotADirectory)
}
