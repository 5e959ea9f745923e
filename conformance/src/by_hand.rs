//! A worker driven by hand: it answers what it takes when a case says so, or never, like a lost worker.

use std::time::Duration;

use serde_json::{Value, json};
use temporalio_client::{
    WorkflowStartOptions,
    tonic::{Code, IntoRequest as _, Status},
};
use temporalio_common::protos::temporal::api::{
    command::v1::{Command, CompleteWorkflowExecutionCommandAttributes, command::Attributes},
    common::v1::Payloads,
    enums::v1::{CommandType, TaskQueueKind, TaskQueueType, WorkflowTaskFailedCause},
    failure::v1::{ApplicationFailureInfo, Failure, failure::FailureInfo},
    taskqueue::v1::{StickyExecutionAttributes, TaskQueue},
    workflowservice::v1::{
        DescribeTaskQueueRequest, PollActivityTaskQueueRequest, PollActivityTaskQueueResponse,
        PollWorkflowTaskQueueRequest, PollWorkflowTaskQueueResponse, RecordActivityTaskHeartbeatRequest,
        RespondActivityTaskCompletedRequest, RespondWorkflowTaskCompletedRequest, RespondWorkflowTaskFailedRequest,
    },
};

use crate::{
    backend::NAMESPACE,
    case::{Meanwhile, camel, raw},
};

/// Starts the workflow where only hands take its tasks; each may take two seconds.
pub fn by_hand(mut options: WorkflowStartOptions) -> WorkflowStartOptions {
    options.task_queue = format!("{}-lost", options.workflow_id);
    options.task_timeout = Some(Duration::from_secs(2));
    options
}

fn payloads(value: Value) -> Option<Payloads> {
    Some(Payloads { payloads: raw(value).payloads })
}

/// `ok`, or the code of the refusal.
fn told<T>(answer: Result<T, Status>) -> Value {
    match answer {
        Ok(_) => json!("ok"),
        Err(status) => json!(format!("{:?}", Code::from(status.code() as i32))),
    }
}

/// What a worker is given with a task, as it is compared.
pub fn given(task: &PollWorkflowTaskQueueResponse) -> Value {
    let events = task.history.iter().flat_map(|history| &history.events);
    let events: Vec<String> = events.map(|event| camel(event.event_type().as_str_name())).collect();
    json!({
        "attempt": task.attempt,
        "started": task.started_event_id,
        "previous": task.previous_started_event_id,
        "events": events,
    })
}

impl Meanwhile {
    fn queue(&self) -> TaskQueue {
        TaskQueue { name: format!("{}-lost", self.id), ..Default::default() }
    }

    /// The queue that only the worker itself is asked at.
    fn sticky(&self) -> TaskQueue {
        let (name, normal_name) = (format!("{}-sticky", self.id), self.queue().name);
        TaskQueue { name, kind: TaskQueueKind::Sticky.into(), normal_name }
    }

    /// Takes the next workflow task of `$-lost`.
    pub async fn take(&self) -> PollWorkflowTaskQueueResponse {
        self.take_from(self.queue()).await
    }

    /// Takes the next workflow task of the worker's own queue.
    pub async fn take_sticky(&self) -> PollWorkflowTaskQueueResponse {
        self.take_from(self.sticky()).await
    }

    async fn take_from(&self, queue: TaskQueue) -> PollWorkflowTaskQueueResponse {
        loop {
            let request = PollWorkflowTaskQueueRequest {
                namespace: NAMESPACE.to_owned(),
                task_queue: Some(queue.clone()),
                identity: "by hand".to_owned(),
                ..Default::default()
            };
            let mut service = self.client.connection().workflow_service();
            let task = service.poll_workflow_task_queue(request.into_request()).await.unwrap().into_inner();
            if !task.task_token.is_empty() {
                return task;
            }
        }
    }

    /// Waits until somebody polls the worker's own queue.
    pub async fn sticky_is_polled(&self) {
        self.wait("a poller of the sticky queue", || async {
            let request = DescribeTaskQueueRequest {
                namespace: NAMESPACE.to_owned(),
                task_queue: Some(self.sticky()),
                task_queue_type: TaskQueueType::Workflow.into(),
                ..Default::default()
            };
            let mut service = self.client.connection().workflow_service();
            let answer = service.describe_task_queue(request.into_request()).await;
            answer.is_ok_and(|answer| !answer.into_inner().pollers.is_empty())
        })
        .await;
    }

    async fn respond(&self, task: &PollWorkflowTaskQueueResponse, commands: Vec<Command>, sticky: bool) -> Value {
        let sticky = sticky.then(|| StickyExecutionAttributes {
            worker_task_queue: Some(self.sticky()),
            schedule_to_start_timeout: Some(Duration::from_secs(10).try_into().unwrap()),
        });
        let request = RespondWorkflowTaskCompletedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: task.task_token.clone(),
            commands,
            sticky_attributes: sticky,
            identity: "by hand".to_owned(),
            ..Default::default()
        };
        let mut service = self.client.connection().workflow_service();
        told(service.respond_workflow_task_completed(request.into_request()).await)
    }

    /// Answers that the workflow has completed.
    pub async fn complete(&self, task: &PollWorkflowTaskQueueResponse, result: impl Into<Value>) -> Value {
        let result = payloads(result.into());
        let end = CompleteWorkflowExecutionCommandAttributes { result };
        let command = Command {
            command_type: CommandType::CompleteWorkflowExecution.into(),
            attributes: Some(Attributes::CompleteWorkflowExecutionCommandAttributes(end)),
            ..Default::default()
        };
        self.respond(task, vec![command], false).await
    }

    /// Answers that the workflow goes on, and that the worker wants to be asked itself.
    pub async fn stick(&self, task: &PollWorkflowTaskQueueResponse) -> Value {
        self.respond(task, Vec::new(), true).await
    }

    /// Answers that the worker could not do the task.
    pub async fn fail_task(&self, task: &PollWorkflowTaskQueueResponse) -> Value {
        let info = ApplicationFailureInfo { r#type: "ByHand".to_owned(), ..Default::default() };
        let failure = Failure {
            message: "by hand".to_owned(),
            source: "conformance".to_owned(),
            failure_info: Some(FailureInfo::ApplicationFailureInfo(info)),
            ..Default::default()
        };
        let request = RespondWorkflowTaskFailedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: task.task_token.clone(),
            cause: WorkflowTaskFailedCause::WorkflowWorkerUnhandledFailure.into(),
            failure: Some(failure),
            identity: "by hand".to_owned(),
            ..Default::default()
        };
        let mut service = self.client.connection().workflow_service();
        told(service.respond_workflow_task_failed(request.into_request()).await)
    }

    /// Takes the next activity of `$-lost`.
    pub async fn take_activity(&self) -> PollActivityTaskQueueResponse {
        loop {
            let request = PollActivityTaskQueueRequest {
                namespace: NAMESPACE.to_owned(),
                task_queue: Some(self.queue()),
                identity: "by hand".to_owned(),
                ..Default::default()
            };
            let mut service = self.client.connection().workflow_service();
            let task = service.poll_activity_task_queue(request.into_request()).await.unwrap().into_inner();
            if !task.task_token.is_empty() {
                return task;
            }
        }
    }

    pub async fn heartbeat(&self, task: &PollActivityTaskQueueResponse, details: impl Into<Value>) -> Value {
        let request = RecordActivityTaskHeartbeatRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: task.task_token.clone(),
            details: payloads(details.into()),
            identity: "by hand".to_owned(),
            ..Default::default()
        };
        let mut service = self.client.connection().workflow_service();
        told(service.record_activity_task_heartbeat(request.into_request()).await)
    }

    pub async fn complete_activity(&self, task: &PollActivityTaskQueueResponse, result: impl Into<Value>) -> Value {
        let request = RespondActivityTaskCompletedRequest {
            namespace: NAMESPACE.to_owned(),
            task_token: task.task_token.clone(),
            result: payloads(result.into()),
            identity: "by hand".to_owned(),
            ..Default::default()
        };
        let mut service = self.client.connection().workflow_service();
        told(service.respond_activity_task_completed(request.into_request()).await)
    }
}

/// What a worker is given with an attempt of an activity, as it is compared.
pub fn given_attempt(task: &PollActivityTaskQueueResponse) -> Value {
    let readable = |payloads: &Option<Payloads>| -> Vec<Value> {
        let payloads = payloads.iter().flat_map(|payloads| &payloads.payloads);
        payloads.map(|payload| serde_json::from_slice(&payload.data).unwrap_or_default()).collect()
    };
    json!({
        "attempt": task.attempt,
        "input": readable(&task.input),
        "heartbeat": readable(&task.heartbeat_details),
    })
}
