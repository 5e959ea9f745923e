//! The workspace's repositories become what the spec says.

use ambient_domain::{
    WorkflowInput,
    session::{Fact, ReconciledRepo, Session},
};
use ambient_live::runner_client::RunnerClient;
use ambient_wire::runner::{RepoSpec, RepoStatus};

use crate::{
    services::{Services, StepError},
    step::Progress,
};

/// Most notices of a repository, and characters of one: runners are not trusted.
const MAX_NOTICES: usize = 8;
const MAX_NOTICE: usize = 500;

pub(super) async fn repos(s: &Services, by: &str, i: &WorkflowInput) -> Result<Progress, StepError> {
    // The newest spec, at every try: people may have mended what made the last one fail.
    let session = s.active_session(i).await?;
    let runner = s.runner(i).await?;
    match bring_about(&runner, &session).await {
        Ok(repos) => s.report(by, i, Fact::Reconciled { generation: session.generation, repos }).await,
        Err((name, error)) => {
            let message = format!("repository '{name}': {error}");
            let fact = Fact::ReconcileFailed {
                generation: session.generation,
                reason: "RepoCloneFailed".to_owned(),
                message: message.clone(),
            };
            s.report(by, i, fact).await?;
            Err(StepError::Retry { reason: "RepoCloneFailed", message })
        }
    }
}

async fn bring_about(runner: &RunnerClient, session: &Session) -> Result<Vec<ReconciledRepo>, (String, String)> {
    let wanted = &session.spec.repos;
    let present = runner.repos().await.map_err(|e| ("*".to_owned(), e.to_string()))?;
    for repo in &present {
        let stays = wanted.iter().any(|w| w.name == repo.name && w.url == repo.url);
        if !stays {
            runner.remove_repo(&repo.name).await.map_err(|e| (repo.name.clone(), e.to_string()))?;
        }
    }
    let mut reconciled = Vec::with_capacity(wanted.len());
    for repo in wanted {
        let spec = RepoSpec { url: repo.url.clone(), branch: repo.branch.clone(), push_to: repo.push_to.clone() };
        let status = runner.ensure_repo(&repo.name, &spec).await.map_err(|e| (repo.name.clone(), e.to_string()))?;
        reconciled.push(as_reconciled(status));
    }
    Ok(reconciled)
}

fn as_reconciled(status: RepoStatus) -> ReconciledRepo {
    let RepoStatus { name, url, branch, head, base: _, cloned_at, notices } = status;
    let notices = notices.iter().take(MAX_NOTICES).map(|notice| notice.chars().take(MAX_NOTICE).collect()).collect();
    ReconciledRepo { name, url, branch, head, cloned_at, notices }
}
