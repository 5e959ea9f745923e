//! Requests for permission: asked in the editor, answered there or elsewhere.

use agent_client_protocol::{RequestCancellationHandle, v1::schema as acp};
use ambient_wire::{
    permission::InterruptAnswer,
    runner_event::{PermissionAnswer, PermissionRequest},
};
use futures::FutureExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{super::tools, Conversation, Done, text};
use crate::commands::session::answer;

/// A request for permission that waits.
pub(super) struct Question {
    pub(super) request: PermissionRequest,
    /// Withdraws it from the editor.
    pub(super) asked: Option<RequestCancellationHandle>,
}

impl Conversation {
    /// What becomes of a request for permission.
    pub(super) fn asked(&mut self, data: &Value) {
        let id = text(data, "interrupt_id");
        if data["change"] == "raised" {
            if let Ok(request) = PermissionRequest::deserialize(data) {
                self.questions.entry(id.to_owned()).or_insert(Question { request, asked: None });
            }
        } else if let Some(asked) = self.questions.remove(id).and_then(|question| question.asked) {
            // If the editor's own answer was the one, there is nothing to withdraw.
            let _ = asked.cancel();
        }
    }

    pub(super) fn ask(&mut self, id: String) {
        let Some(question) = self.questions.get_mut(&id) else { return };
        let request = &question.request;
        let paths: Vec<_> = request.paths.iter().map(|path| acp::ToolCallLocation::new(path.clone())).collect();
        let fields = acp::ToolCallUpdateFields::new()
            .title(request.title.clone())
            .kind(tools::kind(request.kind))
            .raw_input(request.command.as_ref().map(|command| json!({ "command": command })))
            .locations((!paths.is_empty()).then_some(paths));
        let call = acp::ToolCallUpdate::new(self.updates.id(&request.tool_call_id), fields);
        let options = request.answers.iter().map(|answer| option(*answer)).collect();
        let asked = self.editor.ask(acp::RequestPermissionRequest::new(self.id.clone(), call, options));
        question.asked = Some(asked.cancellation_handle());
        self.begun.push(async move { Done::Answered(id, asked.block_task().await) }.boxed());
    }

    pub(super) fn answered(
        &mut self,
        id: String,
        answered: agent_client_protocol::Result<acp::RequestPermissionResponse>,
    ) {
        // It was answered elsewhere, and the request withdrawn.
        if !self.questions.contains_key(&id) {
            return;
        }
        let given = match answered.map(|response| response.outcome) {
            Ok(acp::RequestPermissionOutcome::Selected(chosen)) => chosen_answer(&chosen.option_id.0),
            Ok(_) => None,
            Err(error) => {
                self.editor.note(&format!("the editor cannot ask: {}", error.message));
                None
            }
        };
        let Some(given) = given else {
            // A cancelled turn closes it.
            let how = format!("ambient session answer {} {id} once|always|reject", self.session);
            return self.editor.note(&format!("request {id} still waits; answer with '{how}'"));
        };
        let (client, session) = (self.client.clone(), self.session.clone());
        let pass_on = async move {
            let given = InterruptAnswer { answer: given, message: None };
            let passed = answer::post(&client, &session, &id, &given).await.map(drop);
            Done::PassedOn(id, passed)
        };
        self.begun.push(pass_on.boxed());
    }
}

fn option(answer: PermissionAnswer) -> acp::PermissionOption {
    let (id, name, kind) = match answer {
        PermissionAnswer::Once => ("once", "Allow once", acp::PermissionOptionKind::AllowOnce),
        PermissionAnswer::Always => ("always", "Always allow", acp::PermissionOptionKind::AllowAlways),
        PermissionAnswer::Reject => ("reject", "Reject", acp::PermissionOptionKind::RejectOnce),
    };
    acp::PermissionOption::new(id, name, kind)
}

fn chosen_answer(option: &str) -> Option<PermissionAnswer> {
    match option {
        "once" => Some(PermissionAnswer::Once),
        "always" => Some(PermissionAnswer::Always),
        "reject" => Some(PermissionAnswer::Reject),
        _ => None,
    }
}
