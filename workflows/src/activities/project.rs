//! Steps of projects.

use std::time::Duration;

use ambient_domain::{
    WorkflowInput,
    project::{Command, Project},
    session::{self, Session},
};

use crate::{
    services::{Services, StepError},
    step::Progress,
};

type Done = Result<Progress, StepError>;

pub(super) async fn ensure_space(s: &Services, i: &WorkflowInput) -> Done {
    match s.db.load::<Project>(&i.project_id).await? {
        Some(project) if project.deleted_at.is_none() => {
            s.compute.ensure_project(&i.project_id).await?;
            Ok(Progress::Done)
        }
        _ => Ok(Progress::Superseded),
    }
}

pub(super) async fn report_provisioned(s: &Services, by: &str, i: &WorkflowInput) -> Done {
    s.command::<Project>(by, &i.project_id, Command::Provisioned).await
}

/// New sessions cannot come: their creation checks, in its own transaction, that the project is Active.
pub(super) async fn delete_sessions(s: &Services, by: &str, i: &WorkflowInput) -> Done {
    for id in s.db.session_ids_of_project(&i.project_id).await? {
        // Also one that never ran: what has a place is waited for until session-delete has removed it.
        s.db.place_session(&id, s.compute.host()).await?;
        s.command::<Session>(by, &id, session::Command::Delete).await?;
    }
    Ok(Progress::Done)
}

pub(super) async fn await_sessions_gone(s: &Services, i: &WorkflowInput) -> Done {
    loop {
        let left = s.db.workspaces_of_project(&i.project_id).await?;
        if left == 0 {
            return Ok(Progress::Done);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

pub(super) async fn delete_space(s: &Services, i: &WorkflowInput) -> Done {
    // Sessions that are still on their way out are gone at a later try.
    s.compute.delete_project(&i.project_id).await.map_err(|error| StepError::retry("SessionsRemain", &error))?;
    Ok(Progress::Done)
}

pub(super) async fn report_deleted(s: &Services, by: &str, i: &WorkflowInput) -> Done {
    s.command::<Project>(by, &i.project_id, Command::DeleteFinished).await
}
