//! What the session's agent and project say about permissions, while it runs: reported as a fact when it is not what the session has. The
//! runner is then told of it like of any other change of permissions.

use std::{convert::Infallible, time::Duration};

use ambient_domain::{
    agent::Agent,
    project::Project,
    session::{Fact, Session},
};
use ambient_persistence::{RulerVersions, StoreError, retry::Backoff};
use tokio::{sync::watch, time::timeout};

use super::{Context, FactError, RunRef};
use crate::permissions;

/// Timeout of a look, and of the report of what it found.
const LOOK: Duration = Duration::from_secs(10);

/// Why what they say is not reported.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Fact(#[from] FactError),
    #[error("no answer within {LOOK:?}")]
    Timeout,
}

/// Looks at once, as they may have changed since the launch, and whenever agent or project have changed.
pub(super) async fn keep_up(
    context: &Context,
    run: &RunRef,
    mut rulers: watch::Receiver<Option<RulerVersions>>,
) -> Infallible {
    let mut backoff = Backoff::new(Duration::from_millis(100), context.options.longest_pause);
    loop {
        // Before the look: it sees what changed earlier, what changes later wakes it.
        let seen = above(*rulers.borrow_and_update());
        match timeout(LOOK, report(context, run)).await.unwrap_or(Err(Failed::Timeout)) {
            Ok(()) => {
                backoff.reset();
                // An error would mean that the registry is gone, and with it whoever waits here.
                if rulers.wait_for(|now| above(*now) != seen).await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
            Err(error) => {
                tracing::warn!(session = run.session_id, %error, "what agent and project say cannot be reported; trying again");
                tokio::time::sleep(backoff.pause()).await;
            }
        }
    }
}

/// Versions of agent and project. The session's own changes with every fact.
fn above(rulers: Option<RulerVersions>) -> Option<(i64, i64)> {
    rulers.map(|versions| (versions.agent_version, versions.project_version))
}

async fn report(context: &Context, run: &RunRef) -> Result<(), Failed> {
    let session = context.db.load::<Session>(&run.session_id).await?;
    let Some(session) = session.filter(Session::has_runner) else { return Ok(()) };
    let Some(attempt) = session.run().filter(|now| now.number == run.run).map(|now| now.attempt) else { return Ok(()) };
    let agent = match &session.spec.agent_id {
        Some(id) => context.db.load::<Agent>(id).await?.filter(|agent| agent.project_id == session.project_id),
        None => None,
    };
    // Without a project the session is about to be removed.
    let Some(project) = context.db.load::<Project>(&session.project_id).await? else { return Ok(()) };
    let permissions = permissions::inherited(agent.as_ref(), &project.spec);
    if permissions == session.inherited_permissions {
        return Ok(());
    }
    let fact = Fact::PermissionsInherited { permissions, since_launch: true };
    Ok(context.facts.report(&run.session_id, run.run, attempt, fact).await?)
}
