//! How turns are shown.

use std::collections::BTreeMap;

use ambient_domain::session::{Phase, Session};
use ambient_persistence::{Removed, TurnRow, UsageRow};
use ambient_wire::turn::{Turn, TurnRepo, TurnStatus};
use serde::Deserialize;
use serde_json::Value;

use crate::{stored::StoredSnapshot, usage};

/// `{run}-{number}`.
pub(crate) fn parse(id: &str) -> Option<(i64, i64)> {
    let (run, number) = id.split_once('-')?;
    let positive = |text: &str| text.parse::<i64>().ok().filter(|value| *value > 0 && value.to_string() == text);
    Some((positive(run)?, positive(number)?))
}

/// A turn of the session, with the rows of usage that are its own among these.
pub(crate) fn shown(session: &Session, row: TurnRow, used: &[UsageRow], removed: Option<&Removed>) -> Turn {
    let status = status(session, &row);
    let removed = removed.filter(|removed| row.first_seq < removed.retained_from_seq);
    Turn {
        kind: "Turn".to_owned(),
        id: format!("{}-{}", row.run, row.number),
        session_id: session.id.clone(),
        run: row.run,
        number: row.number,
        message_id: row.message_id,
        status,
        code: row.code,
        message: row.message,
        exit_code: row.exit_code,
        stop_reason: row.stop_reason,
        started_at: row.started_at,
        ended_at: row.ended_at,
        first_seq: row.first_seq,
        last_seq: row.last_seq,
        tool_calls: row.tool_calls,
        permission_requests: row.permission_requests,
        usage: usage::total(used.iter().filter(|used| (used.run, used.turn) == (row.run, row.number))),
        repos: repos(&row.repos),
        events_removed_at: removed.and_then(|removed| removed.events_removed_at),
    }
}

fn status(session: &Session, row: &TurnRow) -> TurnStatus {
    match row.outcome.as_deref() {
        Some("finished") => TurnStatus::Finished,
        Some("interrupted") => TurnStatus::Interrupted,
        Some(_) => TurnStatus::Error,
        None if row.is_last && row.run == session.run_number() && is_active(session) => TurnStatus::Working,
        None => TurnStatus::Lost,
    }
}

fn is_active(session: &Session) -> bool {
    matches!(session.phase(), Some(Phase::Creating | Phase::Running | Phase::Stopping))
}

/// What was told of each repository, in the order of their names; later words replace earlier ones.
fn repos(told: &Value) -> Vec<TurnRepo> {
    let mut repos: BTreeMap<&str, TurnRepo> = BTreeMap::new();
    for told in told.as_array().into_iter().flatten() {
        let Some(name) = told["repo"].as_str() else { continue };
        let repo = repos.entry(name).or_insert_with(|| TurnRepo { repo: name.to_owned(), ..TurnRepo::default() });
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let (snapshot, position) = (&told["snapshot"], &told["position"]);
        if snapshot.is_object() {
            repo.snapshot = text(&snapshot["commit"]);
            repo.head = text(&snapshot["head"]);
            repo.base = text(&snapshot["base"]);
            repo.changes = Deserialize::deserialize(&snapshot["changes"]).ok().flatten();
            let stored = StoredSnapshot::deserialize(snapshot).ok();
            (repo.stored, repo.not_stored) = stored.map(|stored| stored.state()).unwrap_or_default();
        }
        if position.is_object() {
            (repo.branch, repo.head) = (text(&position["branch"]), text(&position["head"]));
        }
        repo.pushed = Deserialize::deserialize(&told["pushed"]).ok().flatten().or(repo.pushed.take());
        repo.problem = text(&told["failed"]).or(repo.problem.take());
    }
    repos.into_values().collect()
}

/// Adds the patches of its snapshots.
pub(crate) fn with_patches(mut turn: Turn, snapshots: &[Value]) -> Turn {
    for snapshot in snapshots {
        let repo = turn.repos.iter_mut().find(|repo| snapshot["repo"] == *repo.repo);
        if let Some(repo) = repo {
            repo.patch = snapshot["patch"].as_str().map(str::to_owned);
            repo.patch_truncated = snapshot["patch_truncated"] == true;
        }
    }
    turn
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_id_is_a_run_and_a_number() {
        assert_eq!(parse("1-12"), Some((1, 12)));
        for odd in ["", "1", "1-", "-1", "0-1", "1-0", "01-1", "1-1-1", "+1-1", "1-99999999999999999999"] {
            assert_eq!(parse(odd), None, "{odd}");
        }
    }

    #[test]
    fn what_was_told_of_a_repository_in_pieces_is_one() {
        let changes = json!({"since": null, "commits": [], "more_commits": false, "more_files": false,
                             "files": [{"path": "a", "added": 1, "removed": 0}]});
        let told = json!([
            {"repo": "b", "failed": "disk full"},
            {"repo": "a", "pushed": {"url": "u", "branch": "x", "commit": "1", "commits": 1, "created": true, "uncommitted": 0}},
            {"repo": "a", "snapshot": {"commit": "s", "head": "h", "base": null, "changes": changes, "left_out": 0}},
            {"repo": "a", "position": {"branch": "main", "head": "h2"}},
            {"odd": 1},
        ]);
        let [a, b] = &repos(&told)[..] else { panic!() };
        assert_eq!(
            (a.branch.as_deref(), a.head.as_deref(), a.snapshot.as_deref()),
            (Some("main"), Some("h2"), Some("s"))
        );
        assert_eq!(a.pushed.as_ref().map(|pushed| &*pushed.branch), Some("x"));
        assert_eq!(a.changes.as_ref().map(|changes| changes.files.len()), Some(1));
        assert_eq!((b.problem.as_deref(), b.snapshot.as_deref()), (Some("disk full"), None));
        assert_eq!(repos(&json!(null)), []);
    }
}
