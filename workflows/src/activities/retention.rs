//! Removes what finished sessions have left and projects no longer keep. Bounded: what is not done in time the next sweep does, and every
//! piece is one transaction that may be repeated.

use std::time::Duration;

use ambient_compute::SessionRef;
use ambient_domain::{
    WorkflowInput,
    retention::KeptDays,
    session::{ConditionStatus, ConditionType, Fact},
};
use ambient_persistence::UnwantedWorkspace;
use chrono::SecondsFormat;
use tokio::time::Instant;

use super::snapshots;
use crate::services::{Services, StepError, StepResult};
use crate::step::Progress;

/// Events removed in a transaction: some tens of milliseconds.
const EVENTS: i64 = 1_000;
/// Sessions, workspaces or projects looked for at once.
const PAGE: i64 = 100;
/// How long one look may take; the sweep's step has more.
const PATIENCE: Duration = Duration::from_secs(120);

/// Reason of the condition of a workspace that was removed.
const REMOVED: &str = "RemovedByRetention";

/// What a look has time for.
struct Look<'a> {
    s: &'a Services,
    until: Instant,
}

/// The sweep's part: what was begun, what was asked for, and from time to time all projects.
pub(super) async fn sweep(s: &Services) -> Result<(), StepError> {
    let _one = s.retention.look().await;
    let look = Look { s, until: Instant::now() + PATIENCE };
    look.remove_workspaces().await?;
    look.requests().await?;
    if s.retention.is_due() && look.all_projects().await? {
        s.retention.done();
    }
    Ok(())
}

/// Does what is asked for as soon as it is. What fails here the sweep repeats.
pub(crate) async fn when_asked(s: Services) {
    loop {
        s.retention.asked().await;
        let _one = s.retention.look().await;
        let look = Look { s: &s, until: Instant::now() + PATIENCE };
        if let Err(error) = look.requests().await {
            tracing::warn!(%error, "retention that was asked for is left to the next sweep");
        }
    }
}

impl Look<'_> {
    fn is_over(&self) -> bool {
        Instant::now() > self.until
    }

    async fn requests(&self) -> Result<(), StepError> {
        for (request, project) in self.s.db.open_retention_requests().await? {
            let kept = self.s.retention.rules.in_force(project.given());
            tracing::info!(project = project.id, by = request.requested_by, ?kept, "applying retention, as asked for");
            if self.project(&project.id, kept).await? {
                snapshots::sweep(self.s, Some(&project.id)).await?;
                self.remove_workspaces().await?;
                self.s.db.retention_done(&request).await?;
            }
        }
        Ok(())
    }

    /// True if none is left.
    async fn all_projects(&self) -> Result<bool, StepError> {
        let rules = &self.s.retention.rules;
        let nothing_said = rules.in_force(ambient_domain::retention::Retention::default());
        let all = nothing_said.events > 0 || nothing_said.workspaces > 0;
        let (mut after, mut is_done) = (String::new(), true);
        while !self.is_over() {
            let projects = self.s.db.projects_to_retain(all, &after, PAGE).await?;
            let Some(last) = projects.last() else { break };
            after.clone_from(&last.id);
            for project in &projects {
                // Where it has no time left for one it has none for the next.
                is_done &= self.project(&project.id, rules.in_force(project.given())).await?;
            }
        }
        self.remove_workspaces().await?;
        Ok(is_done && !self.is_over())
    }

    /// True if nothing is left of what is to be removed.
    async fn project(&self, project_id: &str, kept: KeptDays) -> Result<bool, StepError> {
        let mut is_done = true;
        if kept.events > 0 {
            is_done = self.events(project_id, kept.events).await?;
        }
        while kept.workspaces > 0 && !self.is_over() {
            let given_up = self.s.db.give_up_workspaces(project_id, kept.workspaces, PAGE).await?;
            if i64::try_from(given_up).is_ok_and(|given_up| given_up < PAGE) {
                break;
            }
        }
        Ok(is_done && !self.is_over())
    }

    /// True if none are left.
    async fn events(&self, project_id: &str, days: u32) -> Result<bool, StepError> {
        loop {
            let sessions = self.s.db.sessions_with_old_events(project_id, days, PAGE).await?;
            let mut got_on = false;
            for id in &sessions {
                got_on |= self.events_of(id, days).await?;
            }
            // What cannot be removed now, because somebody has its row, is found again later.
            if sessions.is_empty() || !got_on || self.is_over() {
                return Ok(sessions.is_empty());
            }
        }
    }

    /// Whether some were removed.
    async fn events_of(&self, session_id: &str, days: u32) -> Result<bool, StepError> {
        let mut got_on = false;
        while !self.is_over() {
            let Some(removed) = self.s.db.remove_old_events(session_id, days, EVENTS).await? else { break };
            count("ambient_retention_events_removed_total", removed.events);
            count("ambient_retention_event_bytes_removed_total", removed.bytes);
            got_on = true;
            if !removed.more {
                break;
            }
        }
        Ok(got_on)
    }

    /// Files on this host that nobody works with any more.
    async fn remove_workspaces(&self) -> Result<(), StepError> {
        let mut after = String::new();
        while !self.is_over() {
            let unwanted = self.s.db.unwanted_workspaces(self.s.compute.host(), &after, PAGE).await?;
            let Some(last) = unwanted.last() else { break };
            after.clone_from(&last.session_id);
            for workspace in &unwanted {
                // One that cannot be removed keeps no others.
                if let Err(error) = remove_workspace(self.s, workspace).await {
                    let session = &workspace.session_id;
                    tracing::warn!(session, %error, "an old workspace cannot be removed; the next sweep tries again");
                }
            }
        }
        Ok(())
    }
}

async fn remove_workspace(s: &Services, workspace: &UnwantedWorkspace) -> Result<(), StepError> {
    let UnwantedWorkspace { session_id, project_id, run, at: _ } = workspace;
    let place = SessionRef { project_id: project_id.clone(), session_id: session_id.clone() };
    // None: a later run has begun, which has seen to it that it works in a new one.
    let bytes = s.compute.remove_workspace(&place, *run).await?;
    if s.db.workspace_gone(session_id, *run, bytes).await? {
        let bytes = bytes.unwrap_or(0);
        tracing::info!(session = session_id, bytes, "an old workspace is removed");
        count("ambient_retention_workspaces_removed_total", 1);
        count("ambient_retention_workspace_bytes_removed_total", i64::try_from(bytes).unwrap_or(i64::MAX));
    }
    Ok(())
}

/// Before a run's workspace is made: what was given up of the earlier one must not be found, and people are told why it starts anew.
pub(super) async fn begin_anew(s: &Services, by: &str, i: &WorkflowInput) -> StepResult {
    let Some((workspace, is_gone)) = s.db.given_up_before(&i.session_id, i.run).await? else {
        return Ok(Progress::Done);
    };
    if !is_gone {
        remove_workspace(s, &workspace).await?;
    }
    if i.attempt > 1 {
        return Ok(Progress::Done);
    }
    let at = workspace.at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let message = format!(
        "the workspace was removed by retention on {at}: a new one is made, its repositories are cloned again, and the agent has lost its own records"
    );
    let fact = Fact::Observed {
        condition_type: ConditionType::WorkspaceReady,
        status: ConditionStatus::False,
        reason: REMOVED.to_owned(),
        message,
    };
    s.report(by, i, fact).await
}

pub(super) fn count(name: &'static str, by: i64) {
    metrics::counter!(name).increment(u64::try_from(by).unwrap_or(0));
}
