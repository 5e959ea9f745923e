//! Reading runs and what belongs to them.

use chrono::{DateTime, Utc};
use sqlx::FromRow;
use tonic::Status;
use uuid::Uuid;

use super::Store;
use crate::{
    model::{Activity, Child, Loaded, Run, Target},
    proto::db,
};

#[derive(FromRow)]
struct LoadedRow {
    #[sqlx(flatten)]
    run: Run,
    now: DateTime<Utc>,
    wall: DateTime<Utc>,
}

impl Store {
    /// An open run; none if there is none or it has closed.
    pub(crate) async fn load(&self, target: &Target) -> Result<Option<Loaded>, Status> {
        #[cfg(test)]
        if let Some(tables) = &self.tables {
            return tables.load(target).await;
        }
        let query = match target {
            Target::Run(run) | Target::Exact(_, run) => sqlx::query_as::<_, LoadedRow>(
                "select r.*, clock_timestamp() + (select shift from engine.clock) as now, clock_timestamp() as wall from engine.runs r where r.run_id = $1",
            )
            .bind(run),
            Target::Current(workflow) => sqlx::query_as::<_, LoadedRow>(
                "select r.*, clock_timestamp() + (select shift from engine.clock) as now, clock_timestamp() as wall
                 from engine.runs r join engine.workflows w using (run_id) where w.workflow_id = $1 and w.status = 1",
            )
            .bind(workflow),
        };
        let mut lane = self.lanes.take().await.map_err(db)?;
        let row = query.fetch_optional(lane.connection()).await;
        let row = lane.finish(row).map_err(db)?;
        let fits = |row: &LoadedRow| !matches!(target, Target::Exact(workflow, _) if *workflow != row.run.workflow_id);
        Ok(row.filter(fits).map(|r| Loaded { run: r.run, now: r.now, wall: r.wall }))
    }

    /// The newest run of a workflow id, or the given run if it belongs to it, open or closed.
    pub(crate) async fn resolve(&self, workflow_id: &str, run_id: Option<Uuid>) -> Result<Uuid, Status> {
        let mut lane = self.lanes.take().await.map_err(db)?;
        let found = match run_id {
            Some(run) => {
                sqlx::query_scalar(
                    "select run_id from engine.executions where run_id = $1 and ($2 = '' or workflow_id = $2)",
                )
                .bind(run)
                .bind(workflow_id)
                .fetch_optional(lane.connection())
                .await
            }
            None => {
                sqlx::query_scalar("select run_id from engine.workflows where workflow_id = $1")
                    .bind(workflow_id)
                    .fetch_optional(lane.connection())
                    .await
            }
        };
        let found: Option<Uuid> = lane.finish(found).map_err(db)?;
        found.ok_or_else(|| {
            Status::not_found(match run_id {
                Some(run) => format!("workflow execution not found: workflow id {workflow_id:?}, run id {run}"),
                None => format!("workflow not found for ID: {workflow_id}"),
            })
        })
    }

    pub(crate) async fn activities(&self, run_id: Uuid) -> Result<Vec<Activity>, Status> {
        sqlx::query_as("select * from engine.activities where run_id = $1 order by scheduled_event_id")
            .bind(run_id)
            .fetch_all(&self.pool)
            .await
            .map_err(db)
    }

    pub(crate) async fn activity(&self, run_id: Uuid, scheduled_event_id: i64) -> Result<Option<Activity>, Status> {
        #[cfg(test)]
        if let Some(tables) = &self.tables {
            return tables.activity(run_id, scheduled_event_id).await;
        }
        let mut lane = self.lanes.take().await.map_err(db)?;
        let row = sqlx::query_as("select * from engine.activities where run_id = $1 and scheduled_event_id = $2")
            .bind(run_id)
            .bind(scheduled_event_id)
            .fetch_optional(lane.connection())
            .await;
        lane.finish(row).map_err(db)
    }

    pub(crate) async fn children(&self, run_id: Uuid) -> Result<Vec<Child>, Status> {
        sqlx::query_as(
            "select initiated_event_id, started_event_id, workflow_id, workflow_type, child_run_id, close_policy
             from engine.children where run_id = $1 order by initiated_event_id",
        )
        .bind(run_id)
        .fetch_all(&self.pool)
        .await
        .map_err(db)
    }

    /// Pending timers: id and Started event.
    pub(crate) async fn timers(&self, run_id: Uuid) -> Result<Vec<(String, i64)>, Status> {
        sqlx::query_as("select timer_id, started_event_id from engine.timers where run_id = $1")
            .bind(run_id)
            .fetch_all(&self.pool)
            .await
            .map_err(db)
    }

    /// Stored appends that contain events after `after`, oldest first, at most `limit`.
    pub(crate) async fn history(&self, run_id: Uuid, after: i64, limit: i64) -> Result<Vec<Vec<u8>>, Status> {
        // The append that contains after+1 is the last one that begins at or before it.
        sqlx::query_scalar(
            "select data from engine.history
             where run_id = $1 and first_event_id >= coalesce((select max(first_event_id) from engine.history
                                                               where run_id = $1 and first_event_id <= $2), 0)
             order by first_event_id limit $3",
        )
        .bind(run_id)
        .bind(after + 1)
        .bind(limit)
        .fetch_all(&self.pool)
        .await
        .map_err(db)
    }
}
