//! Records the commands that workers send, by workflow.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures::FutureExt as _;
use prost::Message as _;
use temporalio_client::callback_based::{CallbackBasedGrpcService, GrpcRequest};
use temporalio_common::protos::temporal::api::{
    command::v1::Command,
    workflowservice::v1::{
        PollWorkflowTaskQueueResponse, RespondWorkflowTaskCompletedRequest, RespondWorkflowTaskCompletedResponse,
    },
};

/// Commands in the order in which they were accepted, by run id.
#[derive(Clone, Default)]
pub struct Recorder(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    /// Which run a task token is of.
    tokens: BTreeMap<Vec<u8>, String>,
    commands: BTreeMap<String, Vec<Command>>,
    /// Tasks completed, by run id.
    completed: BTreeMap<String, usize>,
}

impl Recorder {
    /// `service`, with every accepted command noted.
    pub fn wrap(&self, service: CallbackBasedGrpcService) -> CallbackBasedGrpcService {
        let noted = Arc::clone(&self.0);
        CallbackBasedGrpcService {
            callback: Arc::new(move |request: GrpcRequest| {
                let (noted, rpc, sent) = (Arc::clone(&noted), request.rpc.clone(), request.proto.clone());
                let answer = (service.callback)(request);
                async move {
                    let answer = answer.await?;
                    let mut noted = noted.lock().unwrap_or_else(PoisonError::into_inner);
                    match rpc.as_str() {
                        "PollWorkflowTaskQueue" => noted.given(&answer.proto),
                        "RespondWorkflowTaskCompleted" => {
                            noted.completed(&sent);
                            noted.given_with(&answer.proto);
                        }
                        _ => {}
                    }
                    Ok(answer)
                }
                .boxed()
            }),
        }
    }

    /// How many tasks of a run were completed.
    pub fn completed(&self, run_id: &str) -> usize {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.completed.get(run_id).copied().unwrap_or_default()
    }

    /// The commands of a run so far.
    pub fn commands(&self, run_id: &str) -> Vec<Command> {
        let noted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        noted.commands.get(run_id).cloned().unwrap_or_default()
    }
}

impl Noted {
    fn given(&mut self, proto: &[u8]) {
        if let Ok(task) = PollWorkflowTaskQueueResponse::decode(proto) {
            self.remember(task);
        }
    }

    /// The next task may come with the answer to the one before.
    fn given_with(&mut self, proto: &[u8]) {
        if let Some(task) =
            RespondWorkflowTaskCompletedResponse::decode(proto).ok().and_then(|answer| answer.workflow_task)
        {
            self.remember(task);
        }
    }

    fn remember(&mut self, task: PollWorkflowTaskQueueResponse) {
        if let Some(run) = task.workflow_execution {
            self.tokens.insert(task.task_token, run.run_id);
        }
    }

    fn completed(&mut self, proto: &[u8]) {
        let Ok(done) = RespondWorkflowTaskCompletedRequest::decode(proto) else { return };
        if let Some(run) = self.tokens.remove(&done.task_token) {
            *self.completed.entry(run.clone()).or_default() += 1;
            self.commands.entry(run).or_default().extend(done.commands);
        }
    }
}
