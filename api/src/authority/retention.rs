//! What retention keeps of sessions, and what it has removed.

use ambient_domain::{project::Project, retention::Retention, session::Session};
use ambient_persistence::Removed;
use ambient_wire::retention::{
    KeptDays, ProjectRetention, RetentionDue, RetentionQuery, RetentionRequest, SessionRetention, SessionRetentionDue,
};
use chrono::{DateTime, SecondsFormat, Utc};

use super::{
    access::Authorized,
    right::{Edit, Right},
};
use crate::error::{ApiError, ApiResult, Number};

impl<R: Right> Authorized<Project, R> {
    /// What is in force, and what it would remove.
    pub(crate) async fn retention(&self, query: RetentionQuery, size: i64) -> ApiResult<ProjectRetention> {
        let (database, rules) = (&self.access.state.parts().database, *self.access.state.retention());
        let RetentionQuery { event_days, workspace_days, snapshot_days, size: _ } = query;
        let asked = Retention { event_days, workspace_days, snapshot_days };
        asked.validate()?;
        let policy = self.target.spec.settings.retention.overridden_by(asked);
        let kept = rules.in_force(policy);
        let losses = database.retention_preview(&self.target.id, kept, size).await?;
        let due = losses.first().map_or_else(RetentionDue::default, |first| {
            let listed: i64 = losses.iter().map(|loss| loss.events).sum();
            let bytes: i64 = losses.iter().map(|loss| loss.event_bytes).sum();
            RetentionDue {
                sessions: first.all_sessions,
                events: first.all_events,
                estimated_event_bytes: scaled(bytes, first.all_events, listed),
                workspaces: first.all_workspaces,
                snapshot_bytes: first.all_snapshot_bytes,
            }
        });
        let sessions = losses.into_iter().map(|loss| SessionRetentionDue {
            id: loss.id,
            name: loss.display_name,
            events: loss.events,
            estimated_event_bytes: loss.event_bytes,
            workspace: loss.workspace,
            host: loss.host.filter(|_| loss.workspace),
            snapshot_bytes: loss.snapshot_bytes,
        });
        let Retention { event_days, workspace_days, snapshot_days } = policy;
        Ok(ProjectRetention {
            kind: "ProjectRetention".to_owned(),
            project_id: self.target.id.clone(),
            policy: ambient_wire::retention::Retention { event_days, workspace_days, snapshot_days },
            in_force: KeptDays {
                event_days: kept.events,
                workspace_days: kept.workspaces,
                snapshot_days: kept.snapshots,
            },
            min_days: rules.min_days,
            max_days: rules.max_days,
            due,
            sessions: sessions.collect(),
            request: database.retention_request(&self.target.id).await?.map(request),
        })
    }
}

/// What so many events have, if some of them have so many bytes.
fn scaled(bytes: i64, all: i64, some: i64) -> i64 {
    if some == 0 {
        return 0;
    }
    i64::try_from(i128::from(bytes) * i128::from(all) / i128::from(some)).unwrap_or(i64::MAX)
}

fn request(request: ambient_persistence::RetentionRequest) -> RetentionRequest {
    let ambient_persistence::RetentionRequest { project_id: _, requested_at, requested_by, done_at } = request;
    RetentionRequest { requested_by, requested_at, done_at }
}

impl Authorized<Project, Edit> {
    /// Has it applied at once.
    pub(crate) async fn apply_retention(&self) -> ApiResult<RetentionRequest> {
        let kept = self.access.state.retention().in_force(self.target.spec.settings.retention);
        if kept == ambient_domain::retention::KeptDays::default() {
            return Err(ApiError::new(
                Number::Conflict,
                "the Project keeps everything for ever: there is nothing to remove",
            ));
        }
        let parts = self.access.state.parts();
        let asked = parts.database.request_retention(&self.target.id, &self.access.principal.name).await?;
        parts.retention.ask();
        Ok(request(asked))
    }
}

impl<R: Right> Authorized<Session, R> {
    /// What retention has removed of it; none if nothing.
    pub(crate) async fn removed(&self) -> ApiResult<Option<Removed>> {
        Ok(self.access.state.parts().database.removed(&self.target.id).await?)
    }

    /// The oldest event that is kept, if earlier ones were removed.
    ///
    /// # Errors
    /// Gone, if events right after `after_seq` were; 0 means from the oldest that there is.
    pub(crate) async fn kept_after(&self, after_seq: i64) -> ApiResult<Option<i64>> {
        let oldest = self.oldest_kept().await?;
        if after_seq > 0 && oldest.is_some_and(|oldest| after_seq + 1 < oldest) {
            return self.gone().await?.map_or(Ok(oldest), Err);
        }
        Ok(oldest)
    }

    async fn oldest_kept(&self) -> ApiResult<Option<i64>> {
        Ok(self.removed().await?.map(|removed| removed.retained_from_seq).filter(|oldest| *oldest > 1))
    }

    /// What to tell of something among the events that are no longer kept; none if all are.
    pub(crate) async fn gone(&self) -> ApiResult<Option<ApiError>> {
        let Some(oldest) = self.oldest_kept().await? else { return Ok(None) };
        let covers_seq = self.access.state.parts().database.snapshot_seq(&self.target.id).await?;
        Ok(Some(ApiError::too_old(oldest, covers_seq)))
    }

    /// When its last workspace was removed, if no run has made another.
    pub(crate) async fn workspace_removed_at(&self) -> ApiResult<Option<DateTime<Utc>>> {
        let removed = self.removed().await?;
        let removed = removed.filter(|removed| removed.workspace_run == self.target.run_number());
        Ok(removed.and_then(|removed| removed.workspace_removed_at))
    }
}

/// As sessions show it.
pub(crate) fn shown(removed: &Removed) -> SessionRetention {
    let Removed {
        retained_from_seq,
        events_removed,
        events_removed_at,
        workspace_run,
        workspace_removed_at,
        snapshots_removed_at,
    } = *removed;
    SessionRetention {
        retained_from_seq,
        events_removed,
        events_removed_at,
        workspace_removed_after_run: workspace_run,
        workspace_removed_at,
        snapshots_removed_at,
    }
}

/// As people are told.
pub(super) fn on(at: DateTime<Utc>) -> String {
    format!("removed by retention on {}", at.to_rfc3339_opts(SecondsFormat::Secs, true))
}
