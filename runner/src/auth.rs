//! The run's bearer token.

use std::{path::PathBuf, sync::RwLock};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

/// Compares a token with the token file, in constant time.
pub(crate) struct Auth {
    file: PathBuf,
    /// Digest of the token last read.
    known: RwLock<Option<[u8; 32]>>,
}

impl Auth {
    pub(crate) fn new(file: PathBuf) -> Self {
        Self { file, known: RwLock::new(None) }
    }

    /// The file is read again when a token does not match: a refreshed token works at once, and a running drain continues
    /// with the old one after the file is gone.
    pub(crate) fn allows(&self, token: &str) -> bool {
        let digest = digest(token.as_bytes());
        let matches = |known: &Option<[u8; 32]>| known.is_some_and(|known| bool::from(known.ct_eq(&digest)));
        if self.known.read().is_ok_and(|known| matches(&known)) {
            return true;
        }
        let Ok(bytes) = std::fs::read(&self.file) else { return false };
        let token = bytes.trim_ascii();
        let current = (!token.is_empty()).then(|| self::digest(token));
        if let Ok(mut known) = self.known.write() {
            *known = current;
        }
        matches(&current)
    }
}

fn digest(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}
