//! Where histories come from: the embedded engine's tables, or any workflow service through the SDK's client.

use std::collections::VecDeque;

use ambient_engine::{After, HistoryReader, StoredRun};
use async_trait::async_trait;
use temporalio_client::{
    Client,
    grpc::WorkflowService,
    tonic::{Code, IntoRequest as _, Status},
};
use temporalio_common::protos::temporal::api::{
    common::v1::WorkflowExecution as ExecutionRef,
    history::v1::History,
    workflowservice::v1::{GetWorkflowExecutionHistoryRequest, ListWorkflowExecutionsRequest},
};

use super::{ReplayError, history::RecordedHistory};

/// Executions per page.
const PAGE: i32 = 500;

/// A stream of histories: all open ones, then the closed ones, latest close first. One is in memory at a time.
#[async_trait]
pub trait HistorySource: Send {
    /// The next one; none: that was all. A history that cannot be understood is an inner `Err`.
    async fn next(&mut self) -> Result<Option<Result<RecordedHistory, String>>, ReplayError>;
}

/// Histories of an embedded engine, read from its tables. Starts nothing and writes nothing.
pub struct EngineHistories {
    reader: HistoryReader,
    task_queue: String,
    found: VecDeque<StoredRun>,
    stage: Stage<After>,
    last: u32,
}

/// How far a listing has got.
enum Stage<T> {
    Open(Option<T>),
    Closed,
    Done,
}

impl EngineHistories {
    /// All open histories of a task queue and the latest `last` closed ones.
    #[must_use]
    pub fn new(reader: HistoryReader, task_queue: &str, last: u32) -> Self {
        Self { reader, task_queue: task_queue.to_owned(), found: VecDeque::new(), stage: Stage::Open(None), last }
    }

    async fn list(&mut self) -> Result<(), ReplayError> {
        let (found, next) = match self.stage {
            Stage::Open(after) => {
                let (found, next) = self.reader.open(after).await?;
                (found, next.map_or(Stage::Closed, |next| Stage::Open(Some(next))))
            }
            Stage::Closed | Stage::Done => (self.reader.closed(self.last).await?, Stage::Done),
        };
        self.found.extend(found.into_iter().filter(|run| run.task_queue == self.task_queue));
        self.stage = next;
        Ok(())
    }
}

#[async_trait]
impl HistorySource for EngineHistories {
    async fn next(&mut self) -> Result<Option<Result<RecordedHistory, String>>, ReplayError> {
        loop {
            let Some(run) = self.found.pop_front() else {
                if matches!(self.stage, Stage::Done) {
                    return Ok(None);
                }
                self.list().await?;
                continue;
            };
            let history = self.reader.history(run.run_id).await?;
            // Removed meanwhile.
            if !history.events.is_empty() {
                let run_id = run.run_id.to_string();
                let recorded = RecordedHistory::new(history, Some((&run.workflow_id, &run_id)));
                return Ok(Some(recorded.map_err(|problem| format!("{} run {run_id}: {problem}", run.workflow_id))));
            }
        }
    }
}

/// Histories behind a client: a Temporal cluster's, or those of a running embedded engine.
pub struct ClientHistories {
    client: Client,
    task_queue: String,
    found: VecDeque<ExecutionRef>,
    stage: Stage<()>,
    token: Vec<u8>,
    left: usize,
}

impl ClientHistories {
    /// All open histories of a task queue in the client's namespace, and the latest `last` closed ones.
    #[must_use]
    pub fn new(client: Client, task_queue: &str, last: u32) -> Self {
        let left = usize::try_from(last).unwrap_or(usize::MAX);
        let task_queue = task_queue.to_owned();
        Self { client, task_queue, found: VecDeque::new(), stage: Stage::Open(None), token: Vec::new(), left }
    }

    fn service(&self) -> Box<dyn WorkflowService> {
        self.client.connection().workflow_service()
    }

    /// Servers list by close time, latest first, by default.
    async fn list(&mut self) -> Result<(), ReplayError> {
        let open = matches!(self.stage, Stage::Open(_));
        let request = ListWorkflowExecutionsRequest {
            namespace: self.client.options().namespace.clone(),
            page_size: if open { PAGE } else { PAGE.min(i32::try_from(self.left).unwrap_or(PAGE)) },
            next_page_token: std::mem::take(&mut self.token),
            query: if open { "ExecutionStatus = 'Running'" } else { "ExecutionStatus != 'Running'" }.to_owned(),
        };
        let answer =
            self.service().list_workflow_executions(request.into_request()).await.map_err(refused)?.into_inner();
        self.token = answer.next_page_token;
        let ours = answer
            .executions
            .into_iter()
            .filter(|info| info.task_queue.is_empty() || info.task_queue == self.task_queue);
        let before = self.found.len();
        self.found.extend(ours.filter_map(|info| info.execution).take(if open { usize::MAX } else { self.left }));
        if !open {
            self.left -= self.found.len() - before;
        }
        self.stage = match (open, self.token.is_empty()) {
            (true, false) => Stage::Open(None),
            (true, true) if self.left > 0 => Stage::Closed,
            (false, false) if self.left > 0 => Stage::Closed,
            _ => Stage::Done,
        };
        Ok(())
    }

    /// A complete history. None: it was removed meanwhile.
    async fn history(&self, execution: &ExecutionRef) -> Result<Option<History>, ReplayError> {
        let (mut history, mut token) = (History::default(), Vec::new());
        loop {
            let request = GetWorkflowExecutionHistoryRequest {
                namespace: self.client.options().namespace.clone(),
                execution: Some(execution.clone()),
                next_page_token: token,
                ..Default::default()
            };
            let answer = match self.service().get_workflow_execution_history(request.into_request()).await {
                Err(status) if status.code() == Code::NotFound => return Ok(None),
                answer => answer.map_err(refused)?.into_inner(),
            };
            history.events.extend(answer.history.unwrap_or_default().events);
            if answer.next_page_token.is_empty() {
                return Ok(Some(history));
            }
            token = answer.next_page_token;
        }
    }
}

#[async_trait]
impl HistorySource for ClientHistories {
    async fn next(&mut self) -> Result<Option<Result<RecordedHistory, String>>, ReplayError> {
        loop {
            let Some(execution) = self.found.pop_front() else {
                if matches!(self.stage, Stage::Done) {
                    return Ok(None);
                }
                self.list().await?;
                continue;
            };
            if let Some(history) = self.history(&execution).await? {
                let recorded = RecordedHistory::new(history, Some((&execution.workflow_id, &execution.run_id)));
                // A list need not contain the task queue; the history does.
                if recorded.as_ref().is_ok_and(|recorded| recorded.task_queue != self.task_queue) {
                    continue;
                }
                let named = |problem| format!("{} run {}: {problem}", execution.workflow_id, execution.run_id);
                return Ok(Some(recorded.map_err(named)));
            }
        }
    }
}

#[expect(clippy::needless_pass_by_value, reason = "used as map_err(refused)")]
fn refused(status: Status) -> ReplayError {
    ReplayError::Service(status.to_string())
}
