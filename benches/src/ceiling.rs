//! An engine that stores nothing: the cost of client, worker and SDK alone. Knows just enough for the measured
//! workflow: starts, workflow tasks with activities handed out at once, histories, the result.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt;
use prost::Message;
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcRequest, GrpcSuccessResponse};
use temporalio_common::protos::temporal::api::{
    command::v1::{ScheduleActivityTaskCommandAttributes, command::Attributes as C},
    common::v1::{WorkflowExecution, WorkflowType},
    enums::v1::HistoryEventFilterType,
    history::v1::{
        ActivityTaskCompletedEventAttributes, ActivityTaskScheduledEventAttributes, ActivityTaskStartedEventAttributes,
        History, HistoryEvent, MarkerRecordedEventAttributes, WorkflowExecutionCompletedEventAttributes,
        WorkflowExecutionStartedEventAttributes, WorkflowTaskCompletedEventAttributes,
        WorkflowTaskScheduledEventAttributes, WorkflowTaskStartedEventAttributes, history_event::Attributes as A,
    },
    namespace::v1::NamespaceInfo,
    taskqueue::v1::TaskQueue,
    workflowservice::v1 as ws,
};
use tokio::sync::{Notify, Semaphore};
use tonic::Status;

type Reply<T> = Result<T, Status>;

#[derive(Default)]
struct Run {
    workflow_id: String,
    workflow_type: Option<WorkflowType>,
    events: Vec<HistoryEvent>,
    previous_started: i64,
    /// Where the next workflow task goes.
    queue: String,
    task_queue: String,
    closed: Arc<Notify>,
}

impl Run {
    fn append(&mut self, attributes: A) -> i64 {
        let event_id = i64::try_from(self.events.len()).unwrap_or(0) + 1;
        self.events.push(HistoryEvent {
            event_id,
            event_time: Some(std::time::SystemTime::now().into()),
            event_type: attributes.event_type() as i32,
            attributes: Some(attributes),
            ..Default::default()
        });
        event_id
    }
}

struct Queue<T> {
    ready: Semaphore,
    waiting: Mutex<VecDeque<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self { ready: Semaphore::new(0), waiting: Mutex::default() }
    }
}

impl<T> Queue<T> {
    fn put(&self, item: T) {
        lock(&self.waiting).push_back(item);
        self.ready.add_permits(1);
    }

    async fn take(&self) -> Reply<T> {
        self.ready.acquire().await.map_err(|_| Status::unavailable("closed"))?.forget();
        lock(&self.waiting).pop_front().ok_or_else(|| Status::internal("no task"))
    }
}

#[derive(Default)]
struct Nothing {
    runs: Mutex<HashMap<String, Run>>,
    queues: Mutex<HashMap<String, Arc<Queue<String>>>>,
    /// Those the worker has no room to take at once.
    activities: Queue<ws::PollActivityTaskQueueResponse>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The service, for `ConnectionOptions::service_override`.
pub(crate) fn service() -> CallbackBasedGrpcService {
    let engine = Arc::new(Nothing::default());
    CallbackBasedGrpcService {
        callback: Arc::new(move |request| {
            let engine = Arc::clone(&engine);
            async move { engine.call(request).await }.boxed()
        }),
    }
}

fn read<M: Message + Default>(request: &GrpcRequest) -> Reply<M> {
    M::decode(request.proto.clone()).map_err(|e| Status::invalid_argument(e.to_string()))
}

impl Nothing {
    async fn call(&self, request: GrpcRequest) -> Reply<GrpcSuccessResponse> {
        let proto = match request.rpc.as_str() {
            "GetSystemInfo" => ws::GetSystemInfoResponse {
                server_version: "1.29.1".to_owned(),
                capabilities: Some(ws::get_system_info_response::Capabilities {
                    sdk_metadata: true,
                    ..Default::default()
                }),
            }
            .encode_to_vec(),
            "DescribeNamespace" => ws::DescribeNamespaceResponse {
                namespace_info: Some(NamespaceInfo { name: "default".to_owned(), ..Default::default() }),
                ..Default::default()
            }
            .encode_to_vec(),
            "StartWorkflowExecution" => self.start(read(&request)?).encode_to_vec(),
            "PollWorkflowTaskQueue" => self.poll(read(&request)?).await?.encode_to_vec(),
            "RespondWorkflowTaskCompleted" => self.task_completed(read(&request)?)?.encode_to_vec(),
            "RespondActivityTaskCompleted" => self.activity_completed(read(&request)?)?.encode_to_vec(),
            "GetWorkflowExecutionHistory" => self.history(read(&request)?).await?.encode_to_vec(),
            "PollActivityTaskQueue" => self.activities.take().await?.encode_to_vec(),
            "ShutdownWorker" | "RecordWorkerHeartbeat" => Vec::new(),
            other => return Err(Status::unimplemented(other.to_owned())),
        };
        Ok(GrpcSuccessResponse { headers: Default::default(), proto })
    }

    fn queue(&self, name: &str) -> Arc<Queue<String>> {
        Arc::clone(lock(&self.queues).entry(name.to_owned()).or_default())
    }

    fn schedule(&self, run_id: &str, run: &mut Run) {
        run.append(A::WorkflowTaskScheduledEventAttributes(WorkflowTaskScheduledEventAttributes::default()));
        self.queue(&run.queue).put(run_id.to_owned());
    }

    fn start(&self, request: ws::StartWorkflowExecutionRequest) -> ws::StartWorkflowExecutionResponse {
        let mut runs = lock(&self.runs);
        let run_id = uuid::Uuid::new_v4().to_string();
        let mut run = Run {
            workflow_id: request.workflow_id.clone(),
            workflow_type: request.workflow_type.clone(),
            queue: request.task_queue.clone().unwrap_or_default().name,
            task_queue: request.task_queue.clone().unwrap_or_default().name,
            ..Default::default()
        };
        run.append(A::WorkflowExecutionStartedEventAttributes(WorkflowExecutionStartedEventAttributes {
            workflow_type: request.workflow_type,
            task_queue: request.task_queue,
            input: request.input,
            workflow_id: request.workflow_id,
            original_execution_run_id: run_id.clone(),
            first_execution_run_id: run_id.clone(),
            // Without it the worker takes every task with a local activity for late.
            workflow_task_timeout: Some(prost_types::Duration { seconds: 10, nanos: 0 }),
            attempt: 1,
            ..Default::default()
        }));
        self.schedule(&run_id, &mut run);
        runs.insert(run_id.clone(), run);
        ws::StartWorkflowExecutionResponse { run_id, started: true, ..Default::default() }
    }

    async fn poll(&self, request: ws::PollWorkflowTaskQueueRequest) -> Reply<ws::PollWorkflowTaskQueueResponse> {
        let name = request.task_queue.unwrap_or_default().name;
        let run_id = self.queue(&name).take().await?;
        let mut runs = lock(&self.runs);
        let run = runs.get_mut(&run_id).ok_or_else(|| Status::not_found("run"))?;
        let scheduled_event_id = i64::try_from(run.events.len()).unwrap_or(0);
        let started = run.append(A::WorkflowTaskStartedEventAttributes(WorkflowTaskStartedEventAttributes {
            scheduled_event_id,
            ..Default::default()
        }));
        let events = run.events[usize::try_from(run.previous_started).unwrap_or(0)..].to_vec();
        Ok(ws::PollWorkflowTaskQueueResponse {
            task_token: run_id.clone().into_bytes(),
            workflow_execution: Some(WorkflowExecution { workflow_id: run.workflow_id.clone(), run_id }),
            workflow_type: run.workflow_type.clone(),
            previous_started_event_id: run.previous_started,
            started_event_id: started,
            attempt: 1,
            history: Some(History { events }),
            workflow_execution_task_queue: Some(TaskQueue { name: run.task_queue.clone(), ..Default::default() }),
            ..Default::default()
        })
    }

    fn task_completed(
        &self,
        request: ws::RespondWorkflowTaskCompletedRequest,
    ) -> Reply<ws::RespondWorkflowTaskCompletedResponse> {
        let run_id = String::from_utf8_lossy(&request.task_token).into_owned();
        let mut runs = lock(&self.runs);
        let run = runs.get_mut(&run_id).ok_or_else(|| Status::not_found("run"))?;
        run.previous_started = i64::try_from(run.events.len()).unwrap_or(0);
        let workflow_task_completed_event_id =
            run.append(A::WorkflowTaskCompletedEventAttributes(WorkflowTaskCompletedEventAttributes {
                scheduled_event_id: run.previous_started - 1,
                started_event_id: run.previous_started,
                sdk_metadata: request.sdk_metadata,
                ..Default::default()
            }));
        if let Some(queue) = request.sticky_attributes.and_then(|s| s.worker_task_queue) {
            run.queue = queue.name;
        }
        let mut activity_tasks = Vec::new();
        for command in request.commands {
            match command.attributes {
                Some(C::ScheduleActivityTaskCommandAttributes(a)) => {
                    let id = run.append(scheduled(&a, workflow_task_completed_event_id));
                    let eager = a.request_eager_execution;
                    let task = activity(&run_id, run, id, a);
                    if eager { activity_tasks.push(task) } else { self.activities.put(task) }
                }
                Some(C::RecordMarkerCommandAttributes(a)) => {
                    run.append(A::MarkerRecordedEventAttributes(MarkerRecordedEventAttributes {
                        marker_name: a.marker_name,
                        details: a.details,
                        workflow_task_completed_event_id,
                        header: a.header,
                        failure: a.failure,
                    }));
                }
                Some(C::CompleteWorkflowExecutionCommandAttributes(a)) => {
                    run.append(A::WorkflowExecutionCompletedEventAttributes(
                        WorkflowExecutionCompletedEventAttributes {
                            result: a.result,
                            workflow_task_completed_event_id,
                            ..Default::default()
                        },
                    ));
                    run.closed.notify_one();
                }
                _ => return Err(Status::unimplemented("command")),
            }
        }
        Ok(ws::RespondWorkflowTaskCompletedResponse { activity_tasks, ..Default::default() })
    }

    fn activity_completed(
        &self,
        request: ws::RespondActivityTaskCompletedRequest,
    ) -> Reply<ws::RespondActivityTaskCompletedResponse> {
        let token = String::from_utf8_lossy(&request.task_token).into_owned();
        let (run_id, scheduled) = token.split_once('/').ok_or_else(|| Status::invalid_argument("token"))?;
        let scheduled_event_id = scheduled.parse().map_err(|_| Status::invalid_argument("token"))?;
        let mut runs = lock(&self.runs);
        let run = runs.get_mut(run_id).ok_or_else(|| Status::not_found("run"))?;
        let started_event_id = run.append(A::ActivityTaskStartedEventAttributes(ActivityTaskStartedEventAttributes {
            scheduled_event_id,
            attempt: 1,
            ..Default::default()
        }));
        run.append(A::ActivityTaskCompletedEventAttributes(ActivityTaskCompletedEventAttributes {
            result: request.result,
            scheduled_event_id,
            started_event_id,
            ..Default::default()
        }));
        self.schedule(run_id, run);
        Ok(ws::RespondActivityTaskCompletedResponse::default())
    }

    /// The whole history for a worker that has forgotten the run; its end for a client that waits for the result.
    async fn history(
        &self,
        request: ws::GetWorkflowExecutionHistoryRequest,
    ) -> Reply<ws::GetWorkflowExecutionHistoryResponse> {
        let filter = request.history_event_filter_type();
        let run_id = request.execution.unwrap_or_default().run_id;
        if filter != HistoryEventFilterType::CloseEvent {
            let events = lock(&self.runs).get(&run_id).map(|run| run.events.clone());
            let history = Some(History { events: events.ok_or_else(|| Status::not_found("run"))? });
            return Ok(ws::GetWorkflowExecutionHistoryResponse { history, ..Default::default() });
        }
        let closed = lock(&self.runs).get(&run_id).map(|r| Arc::clone(&r.closed));
        closed.ok_or_else(|| Status::not_found("run"))?.notified().await;
        let last = lock(&self.runs).remove(&run_id).and_then(|r| r.events.last().cloned());
        let history = Some(History { events: last.into_iter().collect() });
        Ok(ws::GetWorkflowExecutionHistoryResponse { history, ..Default::default() })
    }
}

fn scheduled(a: &ScheduleActivityTaskCommandAttributes, completed: i64) -> A {
    A::ActivityTaskScheduledEventAttributes(ActivityTaskScheduledEventAttributes {
        activity_id: a.activity_id.clone(),
        activity_type: a.activity_type.clone(),
        task_queue: a.task_queue.clone(),
        input: a.input.clone(),
        start_to_close_timeout: a.start_to_close_timeout,
        workflow_task_completed_event_id: completed,
        ..Default::default()
    })
}

fn activity(
    run_id: &str,
    run: &Run,
    scheduled: i64,
    a: ScheduleActivityTaskCommandAttributes,
) -> ws::PollActivityTaskQueueResponse {
    let now = Some(std::time::SystemTime::now().into());
    ws::PollActivityTaskQueueResponse {
        task_token: format!("{run_id}/{scheduled}").into_bytes(),
        workflow_namespace: "default".to_owned(),
        workflow_type: run.workflow_type.clone(),
        workflow_execution: Some(WorkflowExecution { workflow_id: run.workflow_id.clone(), run_id: run_id.to_owned() }),
        activity_type: a.activity_type,
        activity_id: a.activity_id,
        input: a.input,
        scheduled_time: now,
        current_attempt_scheduled_time: now,
        started_time: now,
        attempt: 1,
        start_to_close_timeout: a.start_to_close_timeout,
        ..Default::default()
    }
}
