//! Names of packs.

use object_store::path::Path;

use crate::error::StoreError;

/// A pack in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key<'a> {
    /// The files of a commit that was cloned.
    Base {
        /// Project id.
        project: &'a str,
        /// The commit.
        commit: &'a str,
    },
    /// What a turn added.
    Turn {
        /// Project id.
        project: &'a str,
        /// Session id.
        session: &'a str,
        /// SHA-256 of the pack.
        pack: &'a str,
    },
}

impl Key<'_> {
    /// Where it is. The parts come from runners, so each is checked.
    ///
    /// # Errors
    /// A part that is no id.
    pub(crate) fn path(&self) -> Result<Path, StoreError> {
        let odd = |what: &str| Err(StoreError::Local(format!("a pack with an odd {what}")));
        match *self {
            Self::Base { project, commit } => {
                if !is_id(project) || !is_commit(commit) {
                    return odd("base");
                }
                Ok(Path::from(format!("{project}/bases/{commit}.pack")))
            }
            Self::Turn { project, session, pack } => {
                if !is_id(project) || !is_id(session) || !is_pack(pack) {
                    return odd("name");
                }
                Ok(Path::from(format!("{project}/sessions/{session}/{pack}.pack")))
            }
        }
    }
}

pub(crate) fn is_id(text: &str) -> bool {
    let legal = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    (1..=40).contains(&text.len()) && text.bytes().all(legal)
}

/// Whether it is the full name of a git object.
#[must_use]
pub fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && is_hex(text)
}

/// Whether it is a pack's id.
#[must_use]
pub fn is_pack(text: &str) -> bool {
    text.len() == 64 && is_hex(text)
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::Key;

    #[test]
    fn a_key_made_of_anything_but_ids_is_refused() {
        let (project, session, pack) = ("3MPRBY3LpC4o66HBKBbrVbd0zsU", "s_1", "a".repeat(64));
        let key = Key::Turn { project, session, pack: &pack }.path().unwrap();
        assert_eq!(key.as_ref(), format!("{project}/sessions/s_1/{pack}.pack"));
        for odd in ["", "..", "a/b", "a b", "../../x", "a\0"] {
            assert!(Key::Turn { project: odd, session, pack: &pack }.path().is_err(), "{odd:?}");
            assert!(Key::Turn { project, session: odd, pack: &pack }.path().is_err(), "{odd:?}");
            assert!(Key::Turn { project, session, pack: odd }.path().is_err(), "{odd:?}");
            assert!(Key::Base { project, commit: odd }.path().is_err(), "{odd:?}");
        }
        assert!(Key::Base { project, commit: &"A".repeat(40) }.path().is_err());
    }
}
