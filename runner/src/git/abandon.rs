//! Back to the commit that was cloned. Everything that is given up is kept as a commit on no branch, before anything is touched.

use std::time::Duration;

use ambient_wire::{
    git::LeftOutReason,
    git_merge::{GitAbandon, GitAbandoned},
    runner_event::RunnerEvent,
};
use chrono::Utc;

use super::{
    check_object,
    command::{Git, GitError, quoted},
    elsewhere::refuse_in_progress,
    look::count,
    repos::{self, Repos},
    working_tree::{Place, WorkingTree},
};
use crate::error::{Error, Result};

/// Timeout for each git command.
const STEP: Duration = Duration::from_secs(120);

/// `POST /git/abandon`.
///
/// # Errors
/// Bad input; not found; a conflict if not everything can be kept; git's.
pub(crate) async fn abandon(repos: &Repos, request: &GitAbandon) -> Result<GitAbandoned> {
    let abandoned = give_up(repos, request).await?;
    let told = RunnerEvent::RepoAbandoned { repo: request.repo.clone(), abandoned: abandoned.clone() };
    // Whoever dies here has given it up without saying so: asked again, there is nothing to give up, and that is told.
    if let Err(error) = repos.tell(told).await {
        tracing::warn!(%error, repo = request.repo, "what was abandoned cannot be recorded");
    }
    Ok(abandoned)
}

async fn give_up(repos: &Repos, request: &GitAbandon) -> Result<GitAbandoned> {
    let attempt = &*repos.attempt;
    let _one = repos.pushing.lock().await;
    let (directory, known) = repos.directory(&request.repo)?;
    let base = known.base.as_deref();
    let base =
        base.ok_or_else(|| Error::Conflict("the origin was empty: there is no commit to go back to".to_owned()))?;
    refuse_in_progress(attempt, &directory).await?;
    let (branch, head) = repos::position(attempt, &directory).await?;
    let commits = match &head {
        Some(head) => count(attempt, &directory, &format!("{base}..{head}")).await?,
        None => 0,
    };
    let tree = WorkingTree::whole(attempt, Place::new(&directory, &known), STEP).await?;
    let left_out = tree.left_out.clone();
    let is_lost =
        |reason| matches!(reason, LeftOutReason::Unreadable | LeftOutReason::TooLarge | LeftOutReason::NoRoom);
    if let Some(lost) = left_out.iter().find(|left| is_lost(left.reason)) {
        return Err(Error::Conflict(format!("nothing was changed: {}, so it would be lost", lost.words())));
    }
    if !tree.not_checked_out.is_empty() {
        return Err(Error::Conflict("a sparse checkout cannot be abandoned: nothing was changed".to_owned()));
    }
    let files = tree.changes();
    if head.as_deref() == Some(base) && files == 0 {
        let commit = base.to_owned();
        return Ok(GitAbandoned { branch, commit, commits, files, kept: None, reference: None, left_out });
    }
    let object = tree.git().text(&["write-tree"]).await?;
    let mut arguments = vec!["commit-tree", "--no-gpg-sign", &object];
    arguments.extend(head.iter().flat_map(|head| ["-p", head.as_str()]));
    let kept = tree.git().input("What was abandoned\n").text(&arguments).await?;
    check_object(&kept)?;
    let agents = || Git::repository(attempt, &directory).patience(STEP);
    let reference = format!("refs/ambient/abandoned/{}-{}", attempt.spec.run, Utc::now().timestamp_millis());
    agents().run(&["update-ref", &reference, &kept, ""]).await?;
    let old = head.as_deref().unwrap_or_default();
    agents().run(&["update-ref", "-m", "abandon", "HEAD", base, old]).await?;
    if let Err(error) = tree.replace(&object, base).await {
        let undo = if old.is_empty() { ["update-ref", "-d", "HEAD", base] } else { ["update-ref", "HEAD", old, base] };
        agents().run(&undo).await?;
        return Err(match error {
            GitError::Failed { stderr, .. } => Error::Conflict(format!("nothing was changed: {}", quoted(&stderr))),
            error => error.into(),
        });
    }
    agents().run(&["read-tree", base]).await?;
    // Only saves the next git a look at all files. Exit code 1 if one has changed meanwhile.
    agents().run(&["update-index", "-q", "--refresh"]).await.ok();
    let (kept, reference) = (Some(kept), Some(reference));
    Ok(GitAbandoned { branch, commit: base.to_owned(), commits, files, kept, reference, left_out })
}
