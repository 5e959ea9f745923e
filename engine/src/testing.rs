//! What the tests inside the engine share: calls as they come from the wire, without a wire.

#![allow(clippy::unwrap_used, reason = "tests")]

use prost::Message;
use temporalio_common::protos::temporal::api::{
    command::v1::ScheduleActivityTaskCommandAttributes,
    common::v1::{ActivityType, WorkflowType},
    workflowservice::v1 as ws,
};
use tonic::Status;

use crate::{engine::Engine, proto, rpc::WORKFLOW_SERVICE, service};

pub(crate) const NAMESPACE: &str = "default";

pub(crate) async fn call<R: Message + Default>(engine: &Engine, rpc: &str, request: impl Message) -> Result<R, Status> {
    let call =
        service::Call { service: WORKFLOW_SERVICE.to_owned(), rpc: rpc.to_owned(), request: request.encode_to_vec() };
    let answer = service::answer(engine.clone(), call).await?.take();
    Ok(R::decode(answer.as_slice()).unwrap())
}

/// A run of workflow `w` on queue `q` whose first task is with its worker; returns the task's token.
pub(crate) async fn begun(engine: &Engine) -> Vec<u8> {
    let start = ws::StartWorkflowExecutionRequest {
        namespace: NAMESPACE.into(),
        workflow_id: "w".into(),
        request_id: "r".into(),
        workflow_type: Some(WorkflowType { name: "any".into() }),
        task_queue: Some(proto::queue("q")),
        ..Default::default()
    };
    let _: ws::StartWorkflowExecutionResponse = call(engine, "StartWorkflowExecution", start).await.unwrap();
    let task_queue = Some(proto::queue("q"));
    let poll = ws::PollWorkflowTaskQueueRequest { namespace: NAMESPACE.into(), task_queue, ..Default::default() };
    let task: ws::PollWorkflowTaskQueueResponse = call(engine, "PollWorkflowTaskQueue", poll).await.unwrap();
    task.task_token
}

/// An activity on queue `q`, with this many milliseconds from start to close.
pub(crate) fn activity(id: &str, timeout_ms: i64) -> ScheduleActivityTaskCommandAttributes {
    ScheduleActivityTaskCommandAttributes {
        activity_id: id.into(),
        activity_type: Some(ActivityType { name: "any".into() }),
        task_queue: Some(proto::queue("q")),
        start_to_close_timeout: Some(proto::duration(timeout_ms)),
        ..Default::default()
    }
}
