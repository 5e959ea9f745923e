//! Makes the workspace's repositories, and the playbook, match the spec.

use ambient_domain::{
    WorkflowInput,
    session::{
        self, Condition, ConditionStatus, ConditionType, Fact, Lifecycle, PLAYBOOK_FAILED, ReconciledPlaybook,
        ReconciledRepo, Repo, Session,
    },
};
use ambient_live::{NewFile, RunnerClient, RunnerClientError};
use ambient_persistence::UploadRow;
use ambient_runner_protocol::{PlaybookStatus, RepoSpec, RepoStatus};
use ambient_wire::{
    git::Submodules,
    playbook::Playbook,
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
        Ok((repos, playbook)) => {
            let marks_running = then == Then::Running;
            if marks_running {
                put_uploads(s, by, i).await?;
            }
            let generation = session.generation;
            s.report(by, i, Fact::Reconciled { generation, repos, playbook, marks_running }).await
        }
        Err(InTheWay { condition_type, reason, message }) => {
            // By itself: a `ReconcileFailed` that says the same as the last one changes nothing, not even "Cloning".
            s.report(by, i, is_not(condition_type, reason, message.clone())).await?;
            let generation = session.generation;
            let fact = Fact::ReconcileFailed { generation, reason: reason.to_owned(), message: message.clone() };
            s.report(by, i, fact).await?;
            Err(StepError::Retry { reason, message })
        }
    }
}

/// What is as wanted.
type AsWanted = (Vec<ReconciledRepo>, Option<ReconciledPlaybook>);

/// What keeps the workspace from being as wanted.
struct InTheWay {
    condition_type: ConditionType,
    reason: &'static str,
    message: String,
}

impl InTheWay {
    fn repo(name: &str, error: &RunnerClientError) -> Self {
        let message = format!("repository '{name}': {error}");
        Self { condition_type: ConditionType::ReposReconciled, reason: CLONE_FAILED, message }
    }

    fn playbook(error: &RunnerClientError) -> Self {
        let message = match error {
            RunnerClientError::Refused { status: 404, .. } => {
                "the session's runner is of an earlier release: stop and start the session".to_owned()
            }
            error => error.to_string(),
        };
        Self { condition_type: ConditionType::WorkflowReconciled, reason: PLAYBOOK_FAILED, message }
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

/// The new state, or what is in the way and why.
async fn bring_about(
    s: &Services,
    by: &str,
    i: &WorkflowInput,
    session: &Session,
) -> Result<Result<AsWanted, InTheWay>, StepError> {
    let runner = s.runner(i).await?;
    let repos = match repos_there(s, by, i, (session, &runner)).await? {
        Ok(repos) => repos,
        Err(error) => return Ok(Err(error)),
    };
    Ok(playbook_there(s, by, i, (session, &runner)).await?.map(|playbook| (repos, playbook)))
}

/// The playbook that the agent goes by, after the repositories: it is they that it works on.
async fn playbook_there(
    s: &Services,
    by: &str,
    i: &WorkflowInput,
    (session, runner): (&Session, &RunnerClient),
) -> Result<Result<Option<ReconciledPlaybook>, InTheWay>, StepError> {
    let before = session.reconciled_workflow.as_ref();
    let Some(wanted) = &session.spec.active_workflow else {
        if before.is_some() {
            match runner.clear_playbook().await {
                // A runner of an earlier release has none.
                Ok(()) | Err(RunnerClientError::Refused { status: 404, .. }) => {}
                Err(error) => return Ok(Err(InTheWay::playbook(&error))),
            }
            s.db.remove_playbook(&i.session_id).await?;
        }
        return Ok(Ok(None));
    };
    let condition_type = ConditionType::WorkflowReconciled;
    if before.is_none_or(|before| before.playbook != *wanted) && !keeps_failing(session, condition_type) {
        let message = format!("the playbook is being cloned from {}", wanted.git_url);
        s.report(by, i, is_not(condition_type, "Cloning", message)).await?;
    }
    let session::Playbook { git_url, branch, path } = wanted.clone();
    match runner.ensure_playbook(&Playbook { git_url, branch, path }).await {
        Ok(PlaybookStatus { reconciled, metadata }) => {
            let metadata = serde_json::to_value(&metadata)
                .map_err(|error| StepError::Fatal { reason: PLAYBOOK_FAILED, message: error.to_string() })?;
            s.db.put_playbook(&i.session_id, &reconciled.commit, &metadata).await?;
            let (commit, reconciled_at) = (reconciled.commit, reconciled.reconciled_at);
            Ok(Ok(Some(ReconciledPlaybook { playbook: wanted.clone(), commit, reconciled_at })))
        }
        Err(error) => Ok(Err(InTheWay::playbook(&error))),
    }
}

async fn repos_there(
    s: &Services,
    by: &str,
    i: &WorkflowInput,
    (session, runner): (&Session, &RunnerClient),
) -> Result<Result<Vec<ReconciledRepo>, InTheWay>, StepError> {
    let wanted = &session.spec.repos;
    let present = match runner.repos().await {
        Ok(present) => present,
        Err(error) => return Ok(Err(InTheWay::repo("*", &error))),
    };
    let (stay, go): (Vec<_>, Vec<_>) =
        present.iter().partition(|there| wanted.iter().any(|w| w.name == there.name && w.url == there.url));
    for repo in go {
        if let Err(error) = runner.remove_repo(&repo.name).await {
            return Ok(Err(InTheWay::repo(&repo.name, &error)));
        }
    }
    let mut reconciled = Vec::with_capacity(wanted.len());
    for repo in wanted {
        if !stay.iter().any(|there| there.name == repo.name && !there.missing)
            && !keeps_failing(session, ConditionType::ReposReconciled)
        {
            tell_of_clone(s, by, i, repo).await?;
        }
        let spec = as_asked(session, repo);
        match runner.ensure_repo(&repo.name, &spec).await {
            Ok(status) => reconciled.push(as_reconciled(status)),
            Err(error) => return Ok(Err(InTheWay::repo(&repo.name, &error))),
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
fn keeps_failing(session: &Session, condition_type: ConditionType) -> bool {
    let failed = |c: &Condition| matches!(c.reason.as_str(), CLONE_FAILED | PLAYBOOK_FAILED);
    matches!(session.lifecycle, Lifecycle::Running { .. })
        && session.condition(condition_type).is_some_and(|c| failed(c) && c.observed_generation == session.generation)
}

fn repos_are_not(reason: &str, message: String) -> Fact {
    is_not(ConditionType::ReposReconciled, reason, message)
}

fn is_not(condition_type: ConditionType, reason: &str, message: String) -> Fact {
    Fact::Observed { condition_type, status: ConditionStatus::False, reason: reason.to_owned(), message }
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
