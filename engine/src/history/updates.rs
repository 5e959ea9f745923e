//! Workflow updates: admitted, delivered with a workflow task, accepted, completed or rejected.
//!
//! An update in flight is part of the run's state, so that it is decided on like everything else and any process can deliver
//! it. It becomes part of the history when a worker accepts it; a rejected one leaves no event. If there is no
//! workflow task to deliver it with, a speculative one is made: its events are written only when it ends with something to
//! keep (its ids are reserved until then, as for later attempts).

use prost::Message;
use temporalio_common::protos::temporal::api::{
    enums::v1::WorkflowTaskFailedCause as Cause,
    failure::v1::{ApplicationFailureInfo, Failure, failure::FailureInfo},
    history::v1::{
        WorkflowExecutionUpdateAcceptedEventAttributes, WorkflowExecutionUpdateCompletedEventAttributes,
        history_event::Attributes as A,
    },
    protocol::v1::{Message as ProtocolMessage, message::SequencingId},
    update::v1::{Acceptance, Rejection, Request, Response},
    workflowservice::v1::RespondWorkflowTaskCompletedRequest,
};
use tonic::Status;
use uuid::Uuid;

use super::{Transition, commands::Refused};
use crate::model::{Delivery, InFlight, RecordedUpdate, Run, TaskState, Updates};

/// Most updates admitted and not completed at the same time, as on Temporal's servers.
const MAX_IN_FLIGHT: usize = 10;
/// Most updates per run.
const MAX_TOTAL: usize = 2000;
/// From this many updates on, workflows are advised to continue as new.
pub(super) const SUGGEST_CONTINUE_UPDATES: usize = 1800;
/// Most bytes of admitted requests.
const MAX_IN_FLIGHT_BYTES: usize = 20 * 1024 * 1024;
/// From this attempt on, the workflow task is considered to be failing for good: its run admits no updates.
pub(crate) const FAILING_ATTEMPT: i32 = 3;
/// Events that a speculative task may hand out again and again because it is discarded.
const MAX_SHIPPED_AGAIN: i64 = 10;

const TYPE_URL: &str = "type.googleapis.com/temporal.api.update.v1.";

impl Updates {
    pub(crate) fn find(&self, id: &str) -> Option<&InFlight> {
        self.in_flight.iter().find(|u| u.id == id)
    }

    /// All updates so far, except rejected ones.
    pub(super) fn total(&self) -> usize {
        self.in_flight.len() + usize::try_from(self.completed).unwrap_or(usize::MAX)
    }

    /// Updates the next workflow task has to deliver.
    fn wait_for_task(&self) -> bool {
        self.in_flight.iter().any(|u| !u.is_accepted())
    }

    fn check_limits(&self, request: &Request) -> Result<(), Status> {
        if self.in_flight.len() >= MAX_IN_FLIGHT {
            return Err(Status::resource_exhausted(format!(
                "limit on number of concurrent in-flight updates has been reached ({MAX_IN_FLIGHT})"
            )));
        }
        self.check_total()?;
        if self.encoded_len() + request.encoded_len() >= MAX_IN_FLIGHT_BYTES {
            return Err(Status::resource_exhausted(format!(
                "limit on total payload size of in-flight updates has been reached ({MAX_IN_FLIGHT_BYTES} bytes)"
            )));
        }
        Ok(())
    }

    fn check_total(&self) -> Result<(), Status> {
        if self.total() >= MAX_TOTAL {
            return Err(Status::failed_precondition(format!(
                "The limit on the total number of distinct updates in this workflow has been reached ({MAX_TOTAL}). Make \
                 sure any duplicate updates share an Update ID so the server can deduplicate them, and consider rejecting \
                 updates that you aren't going to process. You can also Continue-as-New to avoid this; we recommend you \
                 check Continue-as-New Suggested in your Workflow."
            )));
        }
        Ok(())
    }
}

/// The messages that go out with the task in flight.
pub(crate) fn messages(run: &Run) -> Vec<ProtocolMessage> {
    let sequencing = SequencingId::EventId(run.task_started_id() - 1);
    let due = run.updates.in_flight.iter().filter(|u| !u.is_accepted() && u.delivery() == Delivery::ThisTask);
    due.filter_map(|update| {
        Some(ProtocolMessage {
            id: format!("{}/request", update.id),
            protocol_instance_id: update.id.clone(),
            sequencing_id: Some(sequencing),
            body: Some(prost_types::Any {
                type_url: format!("{TYPE_URL}Request"),
                value: update.request.as_ref()?.encode_to_vec(),
            }),
        })
    })
    .collect()
}

impl Run {
    /// Whether the task was made for an update and nothing has been appended since: it may leave no trace.
    pub(crate) fn task_is_speculative(&self) -> bool {
        self.task_is_transient()
            && self.wft_state != TaskState::None
            && self.wft_attempt == 1
            && self.last_event_id == self.wft_base_id
    }
}

impl Transition {
    /// Admits an update. Some: this very update is already in flight, and nothing changes.
    pub(crate) fn admit_update(&mut self, request: &Request, admission: Uuid) -> Result<Option<Uuid>, Status> {
        if self.run.wft_attempt >= FAILING_ATTEMPT {
            return Err(Status::failed_precondition(
                "Unable to perform workflow execution update due to Workflow Task in failed state.",
            ));
        }
        let id = request.meta.as_ref().map_or("", |m| m.update_id.as_str());
        if let Some(known) = self.run.updates.find(id) {
            return Ok(Some(known.admission()));
        }
        self.run.updates.check_limits(request)?;
        self.hold_update(id, Some(request.clone()), admission);
        if self.run.wft_state == TaskState::None {
            self.schedule_speculative_task();
        }
        Ok(None)
    }

    /// Puts an update in flight. Without a request, the request is in the history.
    pub(crate) fn hold_update(&mut self, id: &str, request: Option<Request>, admission: Uuid) {
        let in_flight = self.run.wft_state == TaskState::Started;
        let delivery = if in_flight { Delivery::NextTask } else { Delivery::ThisTask };
        self.run.updates.in_flight.push(InFlight {
            id: id.to_owned(),
            admission: admission.as_bytes().to_vec(),
            request,
            accepted_event_id: 0,
            delivery: delivery as i32,
        });
    }

    /// An update in the history of the run this one is reset from.
    pub(super) fn reopen_update(&mut self, update: &RecordedUpdate) {
        if update.completed_event_id == 0 {
            self.hold_update(&update.id, None, Uuid::new_v4());
            if let Some(held) = self.run.updates.in_flight.last_mut() {
                held.accepted_event_id = update.accepted_event_id;
            }
        } else {
            self.run.updates.completed += 1;
        }
        self.recorded_updates.push(update.clone());
    }

    /// Whether a completion leaves nothing to keep: the task was made for updates, and all were rejected.
    pub(super) fn is_discarded_by(&self, request: &RespondWorkflowTaskCompletedRequest) -> bool {
        let again = request.capabilities.is_some_and(|c| c.discard_speculative_workflow_task_with_events);
        let shipped = self.run.last_event_id - self.run.previous_started_id - 1;
        let only_rejections =
            request.messages.iter().all(|m| m.body.as_ref().is_some_and(|b| kind(&b.type_url) == "Rejection"));
        self.run.task_is_speculative()
            && !self.has_buffered()
            && request.commands.is_empty()
            && !request.force_create_new_workflow_task
            && only_rejections
            && shipped <= if again { MAX_SHIPPED_AGAIN } else { 0 }
    }

    /// The task is over: what it did not deliver goes with the next one. `heartbeat`: its worker continues with what it has.
    pub(super) fn redeliver_updates(&mut self, heartbeat: bool) {
        for update in self.run.updates.in_flight.iter_mut().filter(|u| !u.is_accepted()) {
            let delivery = match (heartbeat, update.delivery()) {
                (true, Delivery::ThisTask | Delivery::Delivered) => Delivery::Delivered,
                _ => Delivery::ThisTask,
            };
            update.set_delivery(delivery);
        }
    }

    /// A task for the updates that wait for one, unless there is a task anyway.
    pub(super) fn ensure_task_for_updates(&mut self) {
        if self.run.wft_state == TaskState::None && !self.is_closed() && self.run.updates.wait_for_task() {
            self.schedule_speculative_task();
        }
    }

    /// A worker's message about an update.
    pub(super) fn update_message(&mut self, message: &ProtocolMessage) -> Result<(), Refused> {
        let refuse =
            |text: String| Refused::task(Cause::BadUpdateWorkflowExecutionMessage, format!("{text} ({})", message.id));
        let id = message.protocol_instance_id.as_str();
        let Some(body) = &message.body else { return Err(refuse("message with nil body".to_owned())) };
        let unreadable = |e: prost::DecodeError| refuse(format!("unable to unmarshal message: {e}"));
        match kind(&body.type_url) {
            "Acceptance" => self.accept_update(id, &decode(&body.value).map_err(unreadable)?),
            "Rejection" => self.reject_update(id, decode::<Rejection>(&body.value).map_err(unreadable)?),
            "Response" => self.complete_update(id, decode(&body.value).map_err(unreadable)?),
            _ => return Err(refuse(format!("Message type {} not supported", body.type_url))),
        }
        .map_err(|error| match error {
            Unmet::Status(status) => refuse(status.message().to_owned()),
            Unmet::Unknown => refuse(format!(
                "update {id} wasn't found on the server. This is most likely a transient error which will be resolved \
                 automatically by retries"
            )),
            Unmet::State(text) => refuse(format!("invalid state transition attempted for Update {id}: {text}")),
        })
    }

    fn accept_update(&mut self, id: &str, acceptance: &Acceptance) -> Result<(), Unmet> {
        if self.is_closed() {
            return Ok(());
        }
        let position = match self.run.updates.in_flight.iter().position(|u| u.id == id) {
            Some(position) => position,
            // Lost on the way, but the worker has it: as good as admitted.
            None => self.resurrect(id, acceptance.accepted_request.as_ref())?,
        };
        let update = &mut self.run.updates.in_flight[position];
        if update.is_accepted() {
            return Err(Unmet::State("received Acceptance while accepted"));
        }
        if acceptance.accepted_request_sequencing_event_id == 0 {
            return Err(Unmet::State("accepted_request_sequencing_event_id is not set"));
        }
        let attributes = WorkflowExecutionUpdateAcceptedEventAttributes {
            protocol_instance_id: id.to_owned(),
            accepted_request_message_id: format!("{}/request", update.id),
            accepted_request_sequencing_event_id: acceptance.accepted_request_sequencing_event_id,
            accepted_request: update.request.take(),
        };
        let event_id = self.append(A::WorkflowExecutionUpdateAcceptedEventAttributes(attributes));
        self.run.updates.in_flight[position].accepted_event_id = event_id;
        self.recorded_updates.push(RecordedUpdate {
            id: id.to_owned(),
            accepted_event_id: event_id,
            completed_event_id: 0,
        });
        Ok(())
    }

    fn resurrect(&mut self, id: &str, request: Option<&Request>) -> Result<usize, Unmet> {
        let request = request.ok_or(Unmet::Unknown)?;
        self.run.updates.check_total().map_err(Unmet::Status)?;
        self.hold_update(id, Some(request.clone()), Uuid::nil());
        Ok(self.run.updates.in_flight.len() - 1)
    }

    fn complete_update(&mut self, id: &str, response: Response) -> Result<(), Unmet> {
        if self.is_closed() {
            return Ok(());
        }
        let position = self.run.updates.in_flight.iter().position(|u| u.id == id).ok_or(Unmet::Unknown)?;
        let accepted_event_id = self.run.updates.in_flight[position].accepted_event_id;
        if accepted_event_id == 0 {
            return Err(Unmet::State("received Response before it was accepted"));
        }
        if response.outcome.is_none() || response.meta.as_ref().is_none_or(|m| m.update_id != id) {
            return Err(Unmet::State("outcome or meta.update_id of the Response is not set"));
        }
        let completed_event_id = self.append(A::WorkflowExecutionUpdateCompletedEventAttributes(
            WorkflowExecutionUpdateCompletedEventAttributes {
                meta: response.meta,
                accepted_event_id,
                outcome: response.outcome,
            },
        ));
        self.run.updates.in_flight.remove(position);
        self.run.updates.completed += 1;
        self.recorded_updates.retain(|r| r.id != id);
        self.recorded_updates.push(RecordedUpdate { id: id.to_owned(), accepted_event_id, completed_event_id });
        Ok(())
    }

    fn reject_update(&mut self, id: &str, rejection: Rejection) -> Result<(), Unmet> {
        let Some(position) = self.run.updates.in_flight.iter().position(|u| u.id == id) else {
            // Nobody waits for it any more.
            return if rejection.rejected_request.is_some() { Ok(()) } else { Err(Unmet::Unknown) };
        };
        if self.run.updates.in_flight[position].is_accepted() {
            return Err(Unmet::State("received Rejection while accepted"));
        }
        let update = self.run.updates.in_flight.remove(position);
        self.rejected_updates.push((update.admission(), rejection.failure.unwrap_or_default()));
        Ok(())
    }

    /// A worker that completes its task without a word about an update does not support updates.
    pub(super) fn reject_unprocessed_updates(&mut self) {
        let (unprocessed, kept) = std::mem::take(&mut self.run.updates.in_flight)
            .into_iter()
            .partition::<Vec<_>, _>(|u| !u.is_accepted() && u.delivery() != Delivery::NextTask);
        self.run.updates.in_flight = kept;
        self.rejected_updates.extend(unprocessed.iter().map(|u| (u.admission(), unprocessed_failure())));
    }

    /// The completion was rejected: what it was to deliver is not retried.
    pub(crate) fn drop_delivered_updates(&mut self) {
        self.run.updates.in_flight.retain(|u| u.is_accepted() || u.delivery() == Delivery::NextTask);
    }
}

/// Why a message about an update is rejected.
enum Unmet {
    /// No such update.
    Unknown,
    /// In the wrong state for it.
    State(&'static str),
    Status(Status),
}

fn kind(type_url: &str) -> &str {
    type_url.strip_prefix(TYPE_URL).unwrap_or("")
}

fn decode<M: Message + Default>(bytes: &[u8]) -> Result<M, prost::DecodeError> {
    M::decode(bytes)
}

fn server_failure(message: &str, kind: &str) -> Failure {
    Failure {
        message: message.to_owned(),
        source: "Server".to_owned(),
        failure_info: Some(FailureInfo::ApplicationFailureInfo(ApplicationFailureInfo {
            r#type: kind.to_owned(),
            non_retryable: true,
            ..Default::default()
        })),
        ..Default::default()
    }
}

fn unprocessed_failure() -> Failure {
    let message = "Workflow Update is rejected because it wasn't processed by worker. Probably, Workflow Update is not \
                   supported by the worker.";
    server_failure(message, "UnprocessedUpdate")
}

/// The outcome of an accepted update whose workflow closed first.
pub(crate) fn closed_failure() -> Failure {
    let message = "Workflow Update failed because the Workflow completed before the Update completed.";
    server_failure(message, "AcceptedUpdateCompletedWorkflow")
}
