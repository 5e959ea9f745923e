//! What a finished turn hands in: its pushes, each under the session's permissions.
//!
//! Where a rule says `ask`, people are shown what would go to the origin, and what they allow is that commit: nothing that the agent has left
//! running can put another in its place.

use ambient_wire::{
    git::GitPushed,
    runner_event::{PermissionAnswer, PermissionRequest, RunnerEvent, ToolChange, ToolContent, ToolKind, ToolStatus},
};
use serde_json::json;

use crate::{
    error::{Error, Result},
    git::{
        push::{self, Proposal},
        repos::Destination,
    },
    life,
    log::LogError,
    permissions::{Reply, Verdict, denied, fingerprint, push_command},
    turn::{Turn, TurnEnd},
};

/// Longest reason why a push failed, characters.
const MAX_REASON: usize = 4_000;
/// Longest text of a tool call, bytes.
const MAX_TEXT: usize = 64 * 1024;

/// All pushes; a turn of which one fails has failed. Each is recorded before the next begins, and one that fails does not keep others back.
///
/// # Errors
/// When the log fails.
pub(crate) async fn all(turn: &Turn) -> std::result::Result<TurnEnd, LogError> {
    let mut failed = None;
    for destination in turn.app.repos.to_push() {
        let Some(pushed) = one(turn, &destination).await? else { return Ok(TurnEnd::Stopped) };
        let Destination { repo, url, branch } = destination;
        let event = match pushed {
            Ok(pushed) => RunnerEvent::RepoPushed { repo, pushed },
            Err(error) => {
                let reason: String = error.to_string().chars().take(MAX_REASON).collect();
                let why = || format!("repository '{repo}' cannot be pushed to branch '{branch}': {reason}");
                failed.get_or_insert_with(why);
                RunnerEvent::RepoPushFailed { repo, url, branch, reason }
            }
        };
        turn.app.log.append(vec![event]).await?;
    }
    Ok(failed.map_or(TurnEnd::Finished, |reason| TurnEnd::failed("PushFailed", reason, None)))
}

/// None: the turn was stopped.
async fn one(turn: &Turn, destination: &Destination) -> std::result::Result<Option<Result<GitPushed>>, LogError> {
    let repos = &turn.app.repos;
    let Destination { repo, branch, .. } = destination;
    let commit = match turn.app.permissions.judge_push(repo, branch) {
        Verdict::Decided { allowed: true, .. } => None,
        Verdict::Decided { allowed: false, rule } => return Ok(Some(Err(denied(&rule)))),
        Verdict::Ask => {
            let Some(proposal) = unless_stopped(turn, push::propose(repos, repo, branch)).await else {
                return Ok(None);
            };
            let proposal = match proposal {
                Ok(proposal) => proposal,
                Err(error) => return Ok(Some(Err(error))),
            };
            let commit = proposal.commit.clone();
            // What is there already changes nothing.
            if proposal.commits > 0 {
                match ask(turn, destination, proposal).await? {
                    Some(Ok(())) => {}
                    Some(Err(error)) => return Ok(Some(Err(error))),
                    None => return Ok(None),
                }
            }
            Some(commit)
        }
    };
    Ok(unless_stopped(turn, push::carry(repos, repo, branch, commit)).await)
}

async fn unless_stopped<T>(turn: &Turn, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        biased;
        () = turn.stopped() => None,
        done = work => Some(done),
    }
}

/// Asks whether this may go to the origin; why not, if it may not. None: the turn was stopped.
async fn ask(
    turn: &Turn,
    destination: &Destination,
    proposal: Proposal,
) -> std::result::Result<Option<Result<()>>, LogError> {
    let Proposal { commit, commits, log, files, patch, is_cut } = proposal;
    let Destination { repo, url, branch } = destination;
    let app = &turn.app;
    // Agents choose the ids of their calls: this one cannot be guessed, so they cannot say anything of it.
    let id = match life::random_id() {
        Ok(id) => id,
        Err(error) => return Ok(Some(Err(Error::io("cannot make an id", &error)))),
    };
    let tool_call_id = format!("push-{id}");
    let title = title(destination, commits);
    let cut = is_cut.then_some(&b"There is more than is shown here: look at the session's diff.\n"[..]);
    let content = cut.into_iter().chain([&log[..], &files, &patch]).map(shown).collect();
    let started = RunnerEvent::ToolStarted {
        tool_call_id: tool_call_id.clone(),
        title: title.clone(),
        kind: ToolKind::Push,
        status: ToolStatus::Pending,
        input: json!({ "repo": repo, "url": url, "branch": branch, "commit": commit, "commits": commits }),
        locations: Vec::new(),
        content,
    };
    app.log.append(vec![started]).await?;
    let request = PermissionRequest {
        interrupt_id: app.permissions.next_id(),
        turn_id: turn.run_id.clone(),
        tool_call_id: tool_call_id.clone(),
        title,
        kind: ToolKind::Push,
        command: Some(push_command(repo, branch)),
        paths: Vec::new(),
        fingerprint: fingerprint(&["push", url, branch, &commit]),
        answers: vec![PermissionAnswer::Once, PermissionAnswer::Always, PermissionAnswer::Reject],
    };
    let refused = |why: &str| Some(Err(Error::Conflict(why.to_owned())));
    let answer = match app.permissions.ask(request, turn.stop.clone()).await? {
        Reply::Answered(PermissionAnswer::Once | PermissionAnswer::Always) => Some(Ok(())),
        Reply::Answered(PermissionAnswer::Reject) => refused("the push was rejected"),
        Reply::Expired => refused("nobody allowed the push in time"),
        Reply::TooMany => refused("too many requests for permission wait"),
        Reply::Stopped => None,
    };
    let status = if matches!(answer, Some(Ok(()))) { ToolStatus::Completed } else { ToolStatus::Failed };
    let change = ToolChange { status: Some(status), ..ToolChange::default() };
    app.log.append(vec![RunnerEvent::ToolUpdated { tool_call_id, change }]).await?;
    Ok(answer)
}

/// JSON contains text, and the log no NUL. What is not UTF-8 grows by that, so it is cut again.
fn shown(bytes: &[u8]) -> ToolContent {
    let mut text = String::from_utf8_lossy(bytes).replace('\0', "\u{fffd}");
    text.truncate(text.floor_char_boundary(MAX_TEXT));
    ToolContent::Text { text }
}

fn title(destination: &Destination, commits: u64) -> String {
    let Destination { repo, url, branch } = destination;
    let commits = if commits == 1 { "1 commit".to_owned() } else { format!("{commits} commits") };
    format!("Push {commits} of {repo} to branch {branch} of {url}")
}
