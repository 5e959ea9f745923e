//! What turns say about stored snapshots.

use ambient_wire::runner_event::RepoPack;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{ApiError, ApiResult, Number};

/// A snapshot of a repository, as a turn has it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(crate) struct StoredSnapshot {
    /// Its files.
    pub(crate) tree: Option<String>,
    /// Where the repository was cloned at.
    pub(crate) base: Option<String>,
    #[serde(default)]
    packs: Vec<RepoPack>,
    #[serde(default)]
    not_stored: Option<String>,
}

/// The last snapshot of a repository among what was told of a turn.
pub(crate) fn snapshot(told: &Value, repo: &str) -> Option<StoredSnapshot> {
    let told = told.as_array()?.iter().rev();
    let mut snapshots = told.filter(|told| told["repo"] == repo && told["snapshot"].is_object());
    StoredSnapshot::deserialize(&snapshots.next()?["snapshot"]).ok()
}

/// The named repository, or the only one of which a turn has a snapshot.
pub(crate) fn repo(told: &Value, given: Option<String>) -> ApiResult<String> {
    if let Some(given) = given {
        return Ok(given);
    }
    let told = told.as_array().into_iter().flatten().filter(|told| told["snapshot"].is_object());
    let mut names: Vec<&str> = told.filter_map(|told| told["repo"].as_str()).collect();
    names.sort_unstable();
    names.dedup();
    match names.as_slice() {
        [only] => Ok((*only).to_owned()),
        [] => Err(ApiError::new(Number::NotFound, "the turn has no snapshot of a repository")),
        several => {
            let problem = format!("is required; there are {}", several.join(", "));
            Err(ApiError::new(Number::Conflict, format!("repo: {problem}")).at("repo", problem))
        }
    }
}

impl StoredSnapshot {
    /// Its tree, and the packs that hold it: bases, then its own.
    ///
    /// # Errors
    /// A conflict that says why it is not stored.
    pub(crate) fn packs(&self, whose: &str) -> ApiResult<(String, Vec<String>, Vec<String>)> {
        let conflict = |reason: String| Err(ApiError::new(Number::Conflict, reason));
        if let Some(reason) = &self.not_stored {
            return conflict(format!("the snapshot of {whose} is not stored: {reason}"));
        }
        let Some(tree) = self.tree.clone().filter(|_| !self.packs.is_empty()) else {
            return conflict(format!("the snapshot of {whose} is not stored: its runner was of an earlier release"));
        };
        let bases = self.packs.iter().filter_map(|pack| pack.base.clone()).collect();
        let packs = self.packs.iter().filter(|pack| pack.base.is_none()).map(|pack| pack.id.clone()).collect();
        Ok((tree, bases, packs))
    }

    /// Whether it is stored, and if not, why.
    pub(crate) fn state(&self) -> (bool, Option<String>) {
        (!self.packs.is_empty() && self.not_stored.is_none(), self.not_stored.clone())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_snapshot_without_packs_says_why() {
        let pack = json!({"id": "a", "bytes": 1});
        let base = json!({"id": "b", "bytes": 1, "base": "c"});
        let told = json!([
            {"repo": "new", "snapshot": {"commit": "1", "base": "c", "tree": "t", "packs": [base, pack]}},
            {"repo": "old", "snapshot": {"commit": "1", "base": null}},
            {"repo": "no", "snapshot": {"commit": "1", "base": "c", "tree": "t", "packs": [], "not_stored": "too large"}},
            {"repo": "failed", "failed": "x"},
        ]);
        let of = |repo: &str| snapshot(&told, repo).unwrap();
        assert_eq!(of("new").packs("x").unwrap(), ("t".to_owned(), vec!["c".to_owned()], vec!["a".to_owned()]));
        assert_eq!(of("new").state(), (true, None));
        assert_eq!(of("no").state(), (false, Some("too large".to_owned())));
        assert!(of("old").packs("turn 1-1").is_err() && of("no").packs("turn 1-1").is_err());
        assert_eq!(snapshot(&told, "failed"), None);
        assert!(repo(&told, None).is_err() && repo(&json!([{"repo": "a", "failed": "x"}]), None).is_err());
        assert_eq!(repo(&json!([{"repo": "a", "snapshot": {}}]), None).unwrap(), "a");
    }
}
