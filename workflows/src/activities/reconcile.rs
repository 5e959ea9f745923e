//! Makes the workspace's repositories match the spec.

use ambient_domain::{
    WorkflowInput,
    session::{self, ConditionStatus, ConditionType, Fact, Lifecycle, ReconciledRepo, Repo, Session},
};
use ambient_live::NewFile;
use ambient_persistence::UploadRow;
use ambient_runner_protocol::{RepoSpec, RepoStatus};
use ambient_wire::{
    git::Submodules,
    repo::{PushTo, RepoOutput},
};
use bytes::Bytes;
use futures::{StreamExt, stream};

use crate::{
    services::{Services, StepError},
    step::Progress,
};

/// Most notices per repository, and characters of each: runners are not trusted.
const MAX_NOTICES: usize = 8;
const MAX_NOTICE: usize = 500;

/// Reason of the conditions while the repositories are not as wanted.
const CLONE_FAILED: &str = "RepoCloneFailed";
/// The same, while a file cannot be put into the workspace.
const UPLOAD_FAILED: &str = "UploadFailed";

/// The session's state once its repositories are as wanted.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    AsBefore,
    Running,
}

pub(super) async fn repos(s: &Services, by: &str, i: &WorkflowInput, then: Then) -> Result<Progress, StepError> {
    // The newest spec, at every attempt: people may have fixed what made the last one fail.
    let session = s.active_session(i).await?;
    // The step is repeated after it was done: what people have changed since is up to the supervisor, and its failure ends no run.
    if then == Then::Running && matches!(session.lifecycle, Lifecycle::Running { .. }) {
        return Ok(Progress::Done);
    }
    match bring_about(s, by, i, &session).await? {
        Ok(repos) => {
            let marks_running = then == Then::Running;
            if marks_running {
                put_uploads(s, by, i).await?;
            }
            s.report(by, i, Fact::Reconciled { generation: session.generation, repos, marks_running }).await
        }
        Err((name, error)) => {
            let message = format!("repository '{name}': {error}");
            // By itself: a `ReconcileFailed` that says the same as the last one changes nothing, not even "Cloning".
            s.report(by, i, repos_are_not(CLONE_FAILED, message.clone())).await?;
            let fact = Fact::ReconcileFailed {
                generation: session.generation,
                reason: CLONE_FAILED.to_owned(),
                message: message.clone(),
            };
            s.report(by, i, fact).await?;
            Err(StepError::Retry { reason: CLONE_FAILED, message })
        }
    }
}

/// Puts files that people have handed in into the workspace. Before the agent: a file that is put there twice has changed nothing.
async fn put_uploads(s: &Services, by: &str, i: &WorkflowInput) -> Result<(), StepError> {
    let files = s.db.uploads(&i.session_id).await?;
    if files.is_empty() {
        return Ok(());
    }
    let runner = s.runner(i).await?;
    for UploadRow { path, sha256, executable, .. } in files {
        let Some(content) = s.db.upload(&i.session_id, &path, &sha256).await? else { continue };
        let content = stream::iter([Ok(Bytes::from(content))]).boxed();
        let file =
            NewFile { parents: true, executable: Some(executable), if_match: None, if_none_match: None, content };
        if let Err(error) = runner.write(&path, file).await {
            let message = format!("file '{path}' that was handed in: {error}");
            s.report(by, i, repos_are_not(UPLOAD_FAILED, message.clone())).await?;
            return Err(StepError::Retry { reason: UPLOAD_FAILED, message });
        }
        s.db.remove_upload(&i.session_id, &path, Some(&sha256)).await?;
    }
    Ok(())
}

/// The repositories' new state, or the one that is in the way and why.
async fn bring_about(
    s: &Services,
    by: &str,
    i: &WorkflowInput,
    session: &Session,
) -> Result<Result<Vec<ReconciledRepo>, (String, String)>, StepError> {
    let runner = s.runner(i).await?;
    let wanted = &session.spec.repos;
    let present = match runner.repos().await {
        Ok(present) => present,
        Err(error) => return Ok(Err(("*".to_owned(), error.to_string()))),
    };
    let (stay, go): (Vec<_>, Vec<_>) =
        present.iter().partition(|there| wanted.iter().any(|w| w.name == there.name && w.url == there.url));
    for repo in go {
        if let Err(error) = runner.remove_repo(&repo.name).await {
            return Ok(Err((repo.name.clone(), error.to_string())));
        }
    }
    let mut reconciled = Vec::with_capacity(wanted.len());
    for repo in wanted {
        if !stay.iter().any(|there| there.name == repo.name && !there.missing) && !keeps_failing(session) {
            tell_of_clone(s, by, i, repo).await?;
        }
        let spec = as_asked(session, repo);
        match runner.ensure_repo(&repo.name, &spec).await {
            Ok(status) => reconciled.push(as_reconciled(status)),
            Err(error) => return Ok(Err((repo.name.clone(), error.to_string()))),
        }
    }
    Ok(Ok(reconciled))
}

/// Before it: it may take long.
async fn tell_of_clone(s: &Services, by: &str, i: &WorkflowInput, repo: &Repo) -> Result<(), StepError> {
    let message = format!("repository '{}' is being cloned from {}", repo.name, repo.url);
    s.report(by, i, repos_are_not("Cloning", message)).await.map(drop)
}

/// Whether an attempt with this spec has failed while the session runs. More follow until someone changes the spec, and the failure says more
/// than "Cloning"; each change back and forth would also be an operation.
fn keeps_failing(session: &Session) -> bool {
    matches!(session.lifecycle, Lifecycle::Running { .. })
        && session
            .condition(ConditionType::ReposReconciled)
            .is_some_and(|c| c.reason == CLONE_FAILED && c.observed_generation == session.generation)
}

fn repos_are_not(reason: &str, message: String) -> Fact {
    Fact::Observed {
        condition_type: ConditionType::ReposReconciled,
        status: ConditionStatus::False,
        reason: reason.to_owned(),
        message,
    }
}

/// As the runner is asked for it: what is pushed automatically has a branch by then.
fn as_asked(session: &Session, repo: &Repo) -> RepoSpec {
    let Repo { name, url, branch, output, auto_push, submodules: which } = repo.clone();
    let unnamed = || auto_push.then(|| session::default_branch(&session.id));
    let output = RepoOutput {
        push_to: match output.push_to {
            session::PushTo::Same => PushTo::Same,
            session::PushTo::Fork => PushTo::Fork,
            session::PushTo::None => PushTo::None,
        },
        target_repo: output.target_repo,
        target_branch: output.target_branch.or_else(unnamed),
    };
    let main = session.spec.main_repo().is_some_and(|main| main.name == name);
    RepoSpec { url, branch, output, auto_push, main, submodules: submodules(which) }
}

fn submodules(which: session::Submodules) -> Submodules {
    match which {
        session::Submodules::None => Submodules::None,
        session::Submodules::Shallow => Submodules::Shallow,
        session::Submodules::Recursive => Submodules::Recursive,
    }
}

fn as_reconciled(status: RepoStatus) -> ReconciledRepo {
    let RepoStatus { name, url, branch, head, base: _, cloned_at, missing: _, notices } = status;
    let notices = notices.iter().take(MAX_NOTICES).map(|notice| notice.chars().take(MAX_NOTICE).collect()).collect();
    ReconciledRepo { name, url, branch, head, cloned_at, notices, problem: None }
}
