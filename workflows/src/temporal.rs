//! [`ExecutionService`] over a Temporal client: the embedded engine's or a cluster's.

use std::time::Duration;

use ambient_persistence::{Database, new_id};
use ambient_wire::execution::{HistoryEvent, PendingActivity, WorkflowExecution};
use async_trait::async_trait;
use chrono::{DateTime, Utc};
use temporalio_client::{
    RetryOptions,
    grpc::WorkflowService,
    request_extensions::RetryConfigForCall,
    tonic::{Code, Request, Status},
};
use temporalio_common::protos::temporal::api::{
    common::v1::{Payload, Payloads, WorkflowExecution as ExecutionRef},
    enums::v1::{EventType, PendingActivityState, WorkflowExecutionStatus},
    workflow::v1::{PendingActivityInfo, WorkflowExecutionInfo},
    workflowservice::v1::{
        CountWorkflowExecutionsRequest, DescribeWorkflowExecutionRequest, GetWorkflowExecutionHistoryRequest,
        ListWorkflowExecutionsRequest, RequestCancelWorkflowExecutionRequest, SignalWorkflowExecutionRequest,
        TerminateWorkflowExecutionRequest,
    },
};

use crate::{
    engine_client::EngineClient,
    executions::{ENTITY_WORKFLOWS, ExecutionError, ExecutionFilter, ExecutionService},
    project_attribute,
};

/// Largest page of executions the engine is asked for.
const PAGE: i32 = 1_000;
/// Projects per query: more make it too long.
const PROJECTS: usize = 100;
/// How long to retry a request that the engine cannot carry out right now.
const PATIENCE: Duration = Duration::from_secs(3);

/// Executions of one namespace.
pub struct TemporalExecutions {
    client: EngineClient,
    namespace: String,
    db: Database,
    ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
}

impl TemporalExecutions {
    /// Executions behind `client`; `ready` says whether the engine works.
    pub fn new(
        client: EngineClient,
        namespace: String,
        db: Database,
        ready: Box<dyn Fn() -> Result<(), String> + Send + Sync>,
    ) -> Self {
        Self { client, namespace, db, ready }
    }

    fn service(&self) -> Result<Box<dyn WorkflowService>, ExecutionError> {
        let client = self.client.get().map_err(ExecutionError::Unavailable)?;
        // The connection itself retries, not the service under it.
        Ok(Box::new(client.connection().clone()))
    }

    fn of(workflow_id: &str) -> Option<ExecutionRef> {
        Some(ExecutionRef { workflow_id: workflow_id.to_owned(), run_id: String::new() })
    }
}

#[async_trait]
impl ExecutionService for TemporalExecutions {
    async fn list(&self, filter: &ExecutionFilter) -> Result<(Vec<WorkflowExecution>, i64), ExecutionError> {
        let size = filter.size.clamp(0, i64::from(PAGE));
        let skip = (filter.page.max(1) - 1).saturating_mul(size);
        let (mut found, mut total) = (Vec::new(), 0);
        for query in queries(filter)? {
            total += self.count(&query).await?;
            found.extend(self.newest(&query, skip.saturating_add(size)).await?);
        }
        // The newest of each query include the newest of all.
        found.sort_by(|a, b| b.started_at.cmp(&a.started_at).then_with(|| a.id.cmp(&b.id)));
        let skip = usize::try_from(skip).unwrap_or(usize::MAX);
        let page = found.into_iter().skip(skip).take(usize::try_from(size).unwrap_or(0)).collect();
        Ok((page, total))
    }

    async fn get(&self, workflow_id: &str) -> Result<WorkflowExecution, ExecutionError> {
        match self.describe(workflow_id).await {
            Err(ExecutionError::NotFound(_)) => {}
            found => return found,
        }
        match self.pending_dispatch(workflow_id).await {
            // Its start may have left the outbox between the two reads.
            Err(ExecutionError::NotFound(_)) => self.describe(workflow_id).await,
            found => found,
        }
    }

    async fn history(&self, workflow_id: &str, after: i64, size: i64) -> Result<Vec<HistoryEvent>, ExecutionError> {
        let mut events = Vec::new();
        let mut token = Vec::new();
        loop {
            let request = GetWorkflowExecutionHistoryRequest {
                namespace: self.namespace.clone(),
                execution: Self::of(workflow_id),
                maximum_page_size: PAGE,
                next_page_token: token,
                ..Default::default()
            };
            let answer = self.service()?.get_workflow_execution_history(patiently(request)).await;
            let answer = answer.map_err(|status| failed(workflow_id, &status))?.into_inner();
            for event in answer.history.unwrap_or_default().events {
                if event.event_id > after {
                    events.push(history_event(&event));
                }
            }
            let enough = i64::try_from(events.len()).unwrap_or(i64::MAX) >= size;
            if enough || answer.next_page_token.is_empty() {
                events.truncate(usize::try_from(size).unwrap_or(0));
                return Ok(events);
            }
            token = answer.next_page_token;
        }
    }

    async fn signal(&self, workflow_id: &str, signal: &str, input: &serde_json::Value) -> Result<(), ExecutionError> {
        let request = SignalWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: Self::of(workflow_id),
            signal_name: signal.to_owned(),
            input: Some(json_payload(input)),
            request_id: new_id(),
            identity: "ambient-api".to_owned(),
            ..Default::default()
        };
        let sent = self.service()?.signal_workflow_execution(patiently(request)).await;
        sent.map(|_| ()).map_err(|status| failed(workflow_id, &status))
    }

    async fn cancel(&self, workflow_id: &str, reason: &str) -> Result<(), ExecutionError> {
        let request = RequestCancelWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: Self::of(workflow_id),
            reason: reason.to_owned(),
            request_id: new_id(),
            identity: "ambient-api".to_owned(),
            ..Default::default()
        };
        let sent = self.service()?.request_cancel_workflow_execution(patiently(request)).await;
        sent.map(|_| ()).map_err(|status| failed(workflow_id, &status))
    }

    async fn terminate(&self, workflow_id: &str, reason: &str) -> Result<(), ExecutionError> {
        let request = TerminateWorkflowExecutionRequest {
            namespace: self.namespace.clone(),
            workflow_execution: Self::of(workflow_id),
            reason: reason.to_owned(),
            identity: "ambient-api".to_owned(),
            ..Default::default()
        };
        let sent = self.service()?.terminate_workflow_execution(patiently(request)).await;
        sent.map(|_| ()).map_err(|status| failed(workflow_id, &status))
    }

    fn readiness(&self) -> Result<(), String> {
        (self.ready)()
    }
}

impl TemporalExecutions {
    async fn describe(&self, workflow_id: &str) -> Result<WorkflowExecution, ExecutionError> {
        let request =
            DescribeWorkflowExecutionRequest { namespace: self.namespace.clone(), execution: Self::of(workflow_id) };
        let answer = self.service()?.describe_workflow_execution(patiently(request)).await;
        let answer = answer.map_err(|status| failed(workflow_id, &status))?.into_inner();
        let info = answer.workflow_execution_info;
        let info = info.ok_or_else(|| ExecutionError::Unavailable("an answer without an execution".to_owned()))?;
        let mut found = execution(info);
        found.pending_activities = answer.pending_activities.into_iter().map(pending).collect();
        Ok(found)
    }

    async fn count(&self, query: &str) -> Result<i64, ExecutionError> {
        let request = CountWorkflowExecutionsRequest { namespace: self.namespace.clone(), query: query.to_owned() };
        let answer = self.service()?.count_workflow_executions(patiently(request)).await;
        Ok(answer.map_err(|status| failed("", &status))?.into_inner().count)
    }

    /// The newest executions of a query, at most `limit`.
    async fn newest(&self, query: &str, limit: i64) -> Result<Vec<WorkflowExecution>, ExecutionError> {
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let (mut found, mut token) = (Vec::new(), Vec::new());
        while found.len() < limit {
            let request = ListWorkflowExecutionsRequest {
                namespace: self.namespace.clone(),
                page_size: PAGE.min(i32::try_from(limit - found.len()).unwrap_or(PAGE)),
                next_page_token: token,
                query: query.to_owned(),
            };
            let answer = self.service()?.list_workflow_executions(patiently(request)).await;
            let answer = answer.map_err(|status| failed("", &status))?.into_inner();
            found.extend(answer.executions.into_iter().map(execution));
            if answer.next_page_token.is_empty() {
                break;
            }
            token = answer.next_page_token;
        }
        Ok(found)
    }

    /// An execution whose start has not been dispatched yet: only the outbox knows it.
    async fn pending_dispatch(&self, workflow_id: &str) -> Result<WorkflowExecution, ExecutionError> {
        let pending = self.db.outbox_pending_for(workflow_id).await;
        if !pending.map_err(|error| ExecutionError::Unavailable(error.to_string()))? {
            return Err(ExecutionError::NotFound(workflow_id.to_owned()));
        }
        Ok(WorkflowExecution {
            workflow: workflow_id.split('/').next().unwrap_or_default().to_owned(),
            status: "PendingDispatch".to_owned(),
            ..named(workflow_id)
        })
    }
}

/// The visibility queries for a filter; together they find what it asks for, each once. An entity's executions have its id as
/// the second part of theirs, so there is one query per workflow; a project's have a search attribute. Values are checked here, since
/// they become part of a text.
fn queries(filter: &ExecutionFilter) -> Result<Vec<String>, ExecutionError> {
    let mut common = Vec::new();
    let fields = [("workflow", "WorkflowType", &filter.workflow), ("status", "ExecutionStatus", &filter.status)];
    for (field, column, value) in fields {
        if let Some(value) = value {
            common.push(format!("{column} = '{}'", plain(field, value)?));
        }
    }
    let of_projects = match &filter.project_ids {
        Some(ids) => ids.chunks(PROJECTS).map(|ids| Ok(Some(among(ids)?))).collect::<Result<_, ExecutionError>>()?,
        None => vec![None],
    };
    let of_entity = match &filter.entity_id {
        Some(entity) => {
            let entity = plain("entity_id", entity)?;
            let wanted = |workflow: &&&str| filter.workflow.as_deref().is_none_or(|w| w == **workflow);
            let of = |workflow: &&str| Some(format!("WorkflowId STARTS_WITH '{workflow}/{entity}/'"));
            ENTITY_WORKFLOWS.iter().filter(wanted).map(of).collect()
        }
        None => vec![None],
    };
    let pairs = of_projects.iter().flat_map(|projects| of_entity.iter().map(move |entity| (projects, entity)));
    let query = |(projects, entity): (&Option<String>, &Option<String>)| {
        let terms = common.iter().chain(projects).chain(entity).map(String::as_str);
        terms.collect::<Vec<_>>().join(" AND ")
    };
    Ok(pairs.map(query).collect())
}

/// That an execution works for one of these projects.
fn among(project_ids: &[String]) -> Result<String, ExecutionError> {
    let ids = project_ids.iter().map(|id| Ok(format!("'{}'", plain("project_id", id)?)));
    let ids = ids.collect::<Result<Vec<_>, ExecutionError>>()?;
    Ok(format!("{} IN ({})", project_attribute::NAME, ids.join(", ")))
}

fn plain<'a>(field: &str, value: &'a str) -> Result<&'a str, ExecutionError> {
    let well_formed = !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_./".contains(&b));
    if well_formed {
        return Ok(value);
    }
    let problem = "must be letters, digits, '-', '_', '.' and '/'".to_owned();
    Err(ExecutionError::Invalid { field: field.to_owned(), problem })
}

/// A request that is retried while the engine briefly has no answer: a server that is restarting, or an execution that is about to
/// close and accepts no signals until it has. Not for long: a person is waiting.
fn patiently<T>(request: T) -> Request<T> {
    let retries = RetryOptions::builder().max_elapsed_time(Some(PATIENCE)).build();
    let mut request = Request::new(request);
    request.extensions_mut().insert(RetryConfigForCall(retries));
    request
}

fn failed(workflow_id: &str, status: &Status) -> ExecutionError {
    match status.code() {
        Code::NotFound if status.message().contains("completed") || status.message().contains("closed") => {
            ExecutionError::Closed(workflow_id.to_owned())
        }
        // A missing namespace says nothing about an execution.
        Code::NotFound if status.message().starts_with("Namespace") || status.message().starts_with("namespace") => {
            ExecutionError::Unavailable(status.message().to_owned())
        }
        Code::NotFound => ExecutionError::NotFound(workflow_id.to_owned()),
        Code::InvalidArgument => {
            ExecutionError::Invalid { field: "query".to_owned(), problem: status.message().to_owned() }
        }
        _ => ExecutionError::Unavailable(status.to_string()),
    }
}

fn named(workflow_id: &str) -> WorkflowExecution {
    WorkflowExecution {
        kind: "WorkflowExecution".to_owned(),
        id: workflow_id.to_owned(),
        href: format!("{}/workflow_executions/{}", ambient_wire::BASE, workflow_id.replace('/', "%2F")),
        run_id: String::new(),
        workflow: String::new(),
        status: String::new(),
        started_at: None,
        closed_at: None,
        history_length: 0,
        pending_activities: Vec::new(),
    }
}

fn execution(info: WorkflowExecutionInfo) -> WorkflowExecution {
    let status = info.status();
    let reference = info.execution.unwrap_or_default();
    WorkflowExecution {
        run_id: reference.run_id,
        workflow: info.r#type.unwrap_or_default().name,
        status: status_name(status).to_owned(),
        started_at: info.start_time.and_then(time),
        closed_at: info.close_time.and_then(time),
        history_length: info.history_length,
        ..named(&reference.workflow_id)
    }
}

fn status_name(status: WorkflowExecutionStatus) -> &'static str {
    match status {
        WorkflowExecutionStatus::Unspecified => "Unknown",
        WorkflowExecutionStatus::Running => "Running",
        WorkflowExecutionStatus::Completed => "Completed",
        WorkflowExecutionStatus::Failed => "Failed",
        WorkflowExecutionStatus::Canceled => "Canceled",
        WorkflowExecutionStatus::Terminated => "Terminated",
        WorkflowExecutionStatus::ContinuedAsNew => "ContinuedAsNew",
        WorkflowExecutionStatus::TimedOut => "TimedOut",
        WorkflowExecutionStatus::Paused => "Paused",
    }
}

fn pending(info: PendingActivityInfo) -> PendingActivity {
    let state = match info.state() {
        PendingActivityState::Started => "Started",
        PendingActivityState::CancelRequested => "CancelRequested",
        _ => "Scheduled",
    };
    PendingActivity {
        state: state.to_owned(),
        attempt: info.attempt,
        last_failure: info.last_failure.map(|failure| failure.message),
        next_retry_at: info.next_attempt_schedule_time.and_then(time),
        activity: info.activity_type.unwrap_or_default().name,
    }
}

fn history_event(event: &temporalio_common::protos::temporal::api::history::v1::HistoryEvent) -> HistoryEvent {
    HistoryEvent {
        event_id: event.event_id,
        event_type: event_type_name(event.event_type()),
        at: event.event_time.and_then(time),
        attributes: attributes(event),
    }
}

/// The attributes themselves: their JSON repeats their type, as the event does.
fn attributes(event: &temporalio_common::protos::temporal::api::history::v1::HistoryEvent) -> serde_json::Value {
    match serde_json::to_value(&event.attributes).unwrap_or_default() {
        serde_json::Value::Object(of_type) => {
            of_type.into_iter().next().map_or_else(Default::default, |(_, inner)| inner)
        }
        other => other,
    }
}

/// `EVENT_TYPE_TIMER_FIRED` -> `TimerFired`, as people know it.
fn event_type_name(event_type: EventType) -> String {
    let words = event_type.as_str_name().trim_start_matches("EVENT_TYPE_").split('_');
    words.map(|word| word[..1].to_owned() + &word[1..].to_lowercase()).collect()
}

fn json_payload(value: &serde_json::Value) -> Payloads {
    // "Nothing" is an encoding of its own, which handlers without input expect.
    let (encoding, data) = match value {
        serde_json::Value::Null => ("binary/null", Vec::new()),
        value => ("json/plain", value.to_string().into_bytes()),
    };
    let metadata = [("encoding".to_owned(), encoding.as_bytes().to_vec())].into();
    let payload = Payload { metadata, data, ..Default::default() };
    Payloads { payloads: vec![payload] }
}

fn time(timestamp: prost_types::Timestamp) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(timestamp.seconds, u32::try_from(timestamp.nanos).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Option<Vec<String>> {
        Some(words.iter().map(|word| (*word).to_owned()).collect())
    }

    #[test]
    fn a_filter_becomes_queries_that_find_each_execution_once() {
        let all = ExecutionFilter::default();
        assert_eq!(queries(&all).unwrap(), [""]);
        let none = ExecutionFilter { project_ids: words(&[]), ..all.clone() };
        assert_eq!(queries(&none).unwrap(), [""; 0], "of no project there is none");
        let (workflow, status) = (Some("session-stop".to_owned()), Some("Running".to_owned()));
        let filter = ExecutionFilter { workflow, status, project_ids: words(&["a", "b"]), ..all.clone() };
        let expected =
            "WorkflowType = 'session-stop' AND ExecutionStatus = 'Running' AND AmbientProjectId IN ('a', 'b')";
        assert_eq!(queries(&filter).unwrap(), [expected]);
        let of_session = ExecutionFilter { entity_id: Some("s".to_owned()), project_ids: words(&["a"]), ..filter };
        let expected = "WorkflowType = 'session-stop' AND ExecutionStatus = 'Running' AND AmbientProjectId IN ('a') \
            AND WorkflowId STARTS_WITH 'session-stop/s/'";
        assert_eq!(queries(&of_session).unwrap(), [expected]);
        let many = ExecutionFilter { project_ids: Some(vec!["a".to_owned(); PROJECTS + 1]), ..all.clone() };
        assert_eq!(queries(&many).unwrap().len(), 2);
        let quoted = ExecutionFilter { project_ids: words(&["a' OR WorkflowId != '"]), ..all };
        assert!(matches!(queries(&quoted), Err(ExecutionError::Invalid { field, .. }) if field == "project_id"));
    }
}
