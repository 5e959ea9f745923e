//! Executions that are all pending dispatch: what the outbox of the test's own database says.

use ambient_persistence::Database;
use ambient_wire::execution::{HistoryEvent, WorkflowExecution};
use ambient_workflows::executions::{ExecutionError, ExecutionFilter, ExecutionService};
use async_trait::async_trait;
use serde_json::Value;

pub struct TestExecutions {
    pub database: Database,
}

type Result<T> = std::result::Result<T, ExecutionError>;

impl TestExecutions {
    /// Ids of workflows, of these projects.
    async fn ids(&self, project_ids: Option<&[String]>) -> Vec<String> {
        let sql = "select distinct workflow_id from ambient.outbox where effect->>'effect' = 'start_workflow'
            and ($1::text[] is null or effect->'input'->>'project_id' = any($1)) order by 1";
        sqlx::query_scalar(sql).bind(project_ids).fetch_all(self.database.pool()).await.unwrap()
    }

    async fn known(&self, id: &str) -> Result<()> {
        let known = self.ids(None).await.iter().any(|known| known == id);
        if known { Ok(()) } else { Err(ExecutionError::NotFound(id.to_owned())) }
    }
}

fn execution(id: &str) -> WorkflowExecution {
    WorkflowExecution {
        kind: "WorkflowExecution".to_owned(),
        id: id.to_owned(),
        href: String::new(),
        run_id: String::new(),
        workflow: id.split('/').next().unwrap().to_owned(),
        status: "PendingDispatch".to_owned(),
        started_at: None,
        closed_at: None,
        history_length: 0,
        pending_activities: Vec::new(),
    }
}

#[async_trait]
impl ExecutionService for TestExecutions {
    async fn list(&self, filter: &ExecutionFilter) -> Result<(Vec<WorkflowExecution>, i64)> {
        let of = |id: &String| filter.entity_id.as_ref().is_none_or(|entity| id.split('/').nth(1) == Some(entity));
        let all: Vec<_> =
            self.ids(filter.project_ids.as_deref()).await.into_iter().filter(of).map(|id| execution(&id)).collect();
        let total = i64::try_from(all.len()).unwrap();
        let skip = usize::try_from((filter.page - 1) * filter.size).unwrap();
        Ok((all.into_iter().skip(skip).take(usize::try_from(filter.size).unwrap()).collect(), total))
    }
    async fn get(&self, id: &str) -> Result<WorkflowExecution> {
        self.known(id).await.map(|()| execution(id))
    }
    async fn history(&self, id: &str, _: i64, _: i64) -> Result<Vec<HistoryEvent>> {
        self.known(id).await.map(|()| Vec::new())
    }
    async fn signal(&self, id: &str, _: &str, _: &Value) -> Result<()> {
        self.known(id).await
    }
    async fn cancel(&self, id: &str, _: &str) -> Result<()> {
        self.known(id).await
    }
    async fn terminate(&self, id: &str, _: &str) -> Result<()> {
        self.known(id).await
    }
    fn readiness(&self) -> std::result::Result<(), String> {
        Ok(())
    }
}
