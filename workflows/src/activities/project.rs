//! Steps of projects.

use std::time::Duration;

use ambient_domain::{
    Entity, WorkflowInput,
    project::{Command, Project},
    session::Session,
};
use ambient_persistence::{KindVisitor, StoredEntity, visit_kinds};

use super::snapshots;
use crate::{
    services::{Services, StepError, StepResult},
    step::Progress,
};

/// Entities deleted before the next ones are looked up.
const PAGE: i64 = 500;

pub(super) async fn ensure_space(s: &Services, i: &WorkflowInput) -> StepResult {
    match s.db.load::<Project>(&i.project_id).await? {
        Some(project) if project.deleted_at.is_none() => {
            s.compute.ensure_project(&i.project_id).await?;
            Ok(Progress::Done)
        }
        _ => Ok(Progress::Superseded),
    }
}

pub(super) async fn report_provisioned(s: &Services, by: &str, i: &WorkflowInput) -> StepResult {
    s.command::<Project>(by, &i.project_id, Command::Provisioned).await
}

/// Everything in it, of every Kind. Nothing new can appear: creation checks, in its own transaction, that the project is Active.
pub(super) async fn delete_contents(s: &Services, by: &str, i: &WorkflowInput) -> StepResult {
    visit_kinds(&mut Contents { services: s, by, project_id: &i.project_id }).await?;
    Ok(Progress::Done)
}

struct Contents<'a> {
    services: &'a Services,
    by: &'a str,
    project_id: &'a str,
}

impl KindVisitor for Contents<'_> {
    type Error = StepError;

    async fn visit<E: StoredEntity>(&mut self) -> Result<(), StepError> {
        if !E::IN_PROJECT {
            return Ok(());
        }
        let Self { services: s, by, project_id } = *self;
        let mut after = String::new();
        loop {
            let ids = s.db.ids_of_project::<E>(project_id, &after, PAGE).await?;
            let Some(last) = ids.last() else { return Ok(()) };
            after.clone_from(last);
            for id in &ids {
                if E::KIND == Session::KIND {
                    // Even one that never ran: one with a placement is waited for until session-delete has removed it.
                    s.db.place_session(id, s.compute.host()).await?;
                }
                s.command::<E>(by, id, E::deletion()).await?;
            }
        }
    }
}

pub(super) async fn await_sessions_gone(s: &Services, i: &WorkflowInput) -> StepResult {
    loop {
        let left = s.db.workspaces_of_project(&i.project_id).await?;
        if left == 0 {
            return Ok(Progress::Done);
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

pub(super) async fn delete_space(s: &Services, i: &WorkflowInput) -> StepResult {
    // Sessions that are still being deleted will be gone at a later attempt.
    s.compute.delete_project(&i.project_id).await.map_err(|error| StepError::retry("SessionsRemain", &error))?;
    snapshots::forget_project(s, &i.project_id).await;
    Ok(Progress::Done)
}

pub(super) async fn report_deleted(s: &Services, by: &str, i: &WorkflowInput) -> StepResult {
    s.command::<Project>(by, &i.project_id, Command::DeleteFinished).await
}
