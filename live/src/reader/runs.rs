//! What records of a runner's log say about its run: what has become of the repositories, and why the last turn did not finish.

use ambient_persistence::RunChange;
use ambient_wire::{
    git::GitPushed,
    git_merge::GitAbandoned,
    repo::{RepoOutcome, RepoOutputStatus},
    runner_event::{RunnerEvent, TurnOutcome, TurnResult},
};
use chrono::{DateTime, Utc};

use super::turns::{MAX_WORDS, short};

/// Longest name of a repository, branch or commit, and longest URL, characters: runners are not trusted.
const MAX_NAME: usize = 300;
const MAX_URL: usize = 2_100;
/// Most repositories that a batch tells of.
const MAX_REPOS: usize = 200;

/// Takes in what an event says.
pub(super) fn take(run: &mut RunChange, index: usize, at: DateTime<Utc>, event: &RunnerEvent) {
    match event {
        RunnerEvent::RepoPushed { repo, pushed } => note(run, status_of_push(repo, pushed, at)),
        RunnerEvent::RepoPushFailed { repo, url, branch, reason } => {
            let status = status(repo, RepoOutcome::Failed, at);
            let message = Some(short(reason, MAX_WORDS));
            note(run, RepoOutputStatus { url: Some(url.clone()), branch: Some(branch.clone()), message, ..status });
        }
        RunnerEvent::RepoAbandoned { repo, abandoned } => {
            let GitAbandoned { branch, kept, .. } = abandoned.clone();
            note(run, RepoOutputStatus { branch, commit: kept, ..status(repo, RepoOutcome::Abandoned, at) });
        }
        RunnerEvent::TurnResult { result, message, .. } => run.turn = Some(why_unfinished(result, message)),
        RunnerEvent::TurnEnded { result, .. } => {
            // Its words are those of its result, which an earlier batch may have brought.
            if result.outcome == TurnOutcome::Finished {
                run.turn = Some(None);
            }
            run.turn_ended = Some(index);
        }
        _ => {}
    }
}

fn status_of_push(repo: &str, pushed: &GitPushed, at: DateTime<Utc>) -> RepoOutputStatus {
    let GitPushed { url, branch, commit, .. } = pushed.clone();
    let status = status(repo, RepoOutcome::Pushed, at);
    RepoOutputStatus { url: Some(url), branch: Some(branch), commit: Some(commit), ..status }
}

fn status(repo: &str, status: RepoOutcome, at: DateTime<Utc>) -> RepoOutputStatus {
    RepoOutputStatus { repo: repo.to_owned(), status, url: None, branch: None, commit: None, message: None, at }
}

fn note(run: &mut RunChange, status: RepoOutputStatus) {
    let cut = |text: Option<String>, most: usize| text.map(|text| short(&text, most));
    let repo = short(&status.repo, MAX_NAME);
    let RepoOutputStatus { url, branch, commit, .. } = status.clone();
    let (url, branch, commit) = (cut(url, MAX_URL), cut(branch, MAX_NAME), cut(commit, MAX_NAME));
    let status = RepoOutputStatus { repo: repo.clone(), url, branch, commit, ..status };
    let has_room = run.repos.len() < MAX_REPOS || run.repos.contains_key(&repo);
    if let Some(told) = serde_json::to_value(status).ok().filter(|_| has_room) {
        run.repos.insert(repo, told);
    }
}

/// In words; nothing if it did finish.
fn why_unfinished(result: &TurnResult, message: &str) -> Option<String> {
    if result.outcome == TurnOutcome::Finished {
        return None;
    }
    let parts = [result.code.as_deref().unwrap_or_default(), message];
    let told: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    Some(if told.is_empty() { "Error".to_owned() } else { short(&told.join(": "), MAX_WORDS) })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn taken(events: &[serde_json::Value]) -> RunChange {
        let mut run = RunChange::default();
        for (index, event) in events.iter().enumerate() {
            take(&mut run, index, DateTime::UNIX_EPOCH, &RunnerEvent::read(event).unwrap());
        }
        run
    }

    #[test]
    fn what_was_said_last_of_a_repository_counts() {
        let pushed = json!({"type": "repo.pushed", "repo": "a", "url": "file:///a", "branch": "x", "commit": "12", "commits": 1,
            "created": true, "uncommitted": 0});
        let failed =
            json!({"type": "repo.push_failed", "repo": "b", "url": "file:///b", "branch": "y", "reason": "refused"});
        let abandoned = json!({"type": "repo.abandoned", "repo": "a", "branch": "main", "commit": "10", "commits": 1, "files": 0,
            "kept": "11", "reference": "refs/x", "left_out": []});
        let run = taken(&[pushed.clone(), failed.clone()]);
        assert_eq!((&run.repos["a"]["status"], &run.repos["a"]["commit"]), (&json!("pushed"), &json!("12")));
        assert_eq!((&run.repos["b"]["status"], &run.repos["b"]["message"]), (&json!("failed"), &json!("refused")));
        let run = taken(&[failed, pushed, abandoned]);
        let a = &run.repos["a"];
        assert_eq!(
            (&a["status"], &a["branch"], &a["commit"], &a["url"]),
            (&json!("abandoned"), &json!("main"), &json!("11"), &json!(null))
        );
        assert_eq!((run.turn, run.turn_ended), (None, None));
    }

    #[test]
    fn the_last_turn_says_what_went_wrong_and_one_that_finishes_that_nothing_did() {
        let failed = json!({"type": "turn.result", "turn_id": "s/1/1", "outcome": "error", "code": "PushFailed", "message": "no"});
        let run = taken(std::slice::from_ref(&failed));
        assert_eq!(run.turn, Some(Some("PushFailed: no".to_owned())));
        let ended = |outcome: &str| json!({"type": "turn.ended", "turn_id": "s/1/1", "message_id": "m", "last_message_seq": 1, "outcome": outcome});
        let run = taken(&[failed, ended("error")]);
        assert_eq!((run.turn, run.turn_ended), (Some(Some("PushFailed: no".to_owned())), Some(1)));
        assert_eq!(taken(&[ended("error")]).turn, None, "the words came before");
        let finished = json!({"type": "turn.result", "turn_id": "s/1/2", "outcome": "finished"});
        assert_eq!(taken(&[finished]).turn, Some(None));
    }
}
