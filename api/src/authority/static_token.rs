//! Tokens named in the configuration.

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::principal::Principal;

/// A token that stands for a principal. Only its hash is kept.
#[derive(Debug, Clone)]
pub struct StaticToken {
    sha256: [u8; 32],
    principal: Principal,
}

impl StaticToken {
    /// From the token itself.
    #[must_use]
    pub fn new(token: &str, principal: Principal) -> Self {
        Self { sha256: Sha256::digest(token.as_bytes()).into(), principal }
    }

    pub(super) fn is(&self, sha256: &[u8]) -> bool {
        self.sha256.ct_eq(sha256).into()
    }
    pub(super) fn principal(&self) -> &Principal {
        &self.principal
    }
}
