//! Requests for permission: answered by a rule, or by a person.

use agent_client_protocol::v1::schema as acp;
use ambient_wire::runner_event::{PermissionAnswer, PermissionRequest, RunnerEvent, ToolKind};

use super::{connection::Services, content, tools::Known};
use crate::{
    log::LogError,
    permissions::{Asked, Reply, Verdict, fingerprint},
};

/// Longest command that is shown, bytes.
const MAX_COMMAND: usize = 32 * 1024;

/// What the agent is answered.
pub(super) async fn request(
    services: &Services,
    request: acp::RequestPermissionRequest,
) -> acp::RequestPermissionResponse {
    let options = Options::of(&request.options);
    let outcome = match decide(services, request, &options).await {
        Ok(Some(answer)) => options.choose(answer),
        Ok(None) => None,
        Err(error) => {
            tracing::warn!(%error, "a request for permission cannot be recorded");
            None
        }
    };
    acp::RequestPermissionResponse::new(outcome.map_or(acp::RequestPermissionOutcome::Cancelled, |id| {
        acp::RequestPermissionOutcome::Selected(acp::SelectedPermissionOutcome::new(id))
    }))
}

/// The answer; none if there is no more turn to answer for.
async fn decide(
    services: &Services,
    request: acp::RequestPermissionRequest,
    options: &Options,
) -> Result<Option<PermissionAnswer>, LogError> {
    let (tool_call_id, known) =
        services.updates.call(&request.tool_call.tool_call_id.0, request.tool_call.fields).await?;
    let Some((turn_id, stop)) = services.turn.borrow().clone() else { return Ok(None) };
    let permissions = &services.app.permissions;
    let request = described(services, permissions.next_id(), turn_id, tool_call_id, known, options);
    let asked = Asked { kind: request.kind, command: request.command.as_deref(), paths: &request.paths };
    if let Verdict::Decided { allowed, rule } = permissions.judge(&asked) {
        services.updates.record(RunnerEvent::PermissionDecided { request, allowed, rule }).await?;
        return Ok(Some(if allowed { PermissionAnswer::Once } else { PermissionAnswer::Reject }));
    }
    match permissions.ask(request, stop).await? {
        Reply::Answered(answer) => Ok(Some(answer)),
        Reply::Stopped => Ok(None),
        Reply::Expired => Ok(Some(PermissionAnswer::Reject)),
        Reply::TooMany => {
            let text = "too many requests for permission wait: another was rejected".to_owned();
            services.updates.record(RunnerEvent::AgentNotice { text }).await?;
            Ok(Some(PermissionAnswer::Reject))
        }
    }
}

fn described(
    services: &Services,
    interrupt_id: String,
    turn_id: String,
    tool_call_id: String,
    known: Known,
    options: &Options,
) -> PermissionRequest {
    let command = known.command().or_else(|| {
        // Some agents tell the command in no other way.
        (known.kind == ToolKind::Execute && !known.title.is_empty()).then(|| known.title.trim_matches('`').to_owned())
    });
    let command = command.map(|command| content::marked(content::text(command, MAX_COMMAND)));
    let workspace = services.app.attempt.paths.workspace();
    let directory = services.terminals.directory();
    let relative = |path: &String| {
        let whole = directory.join(path);
        whole.strip_prefix(&workspace).map_or_else(|_| path.clone(), |inside| inside.to_string_lossy().into_owned())
    };
    let paths: Vec<String> = known.paths.iter().map(relative).collect();
    let kind = serde_json::to_string(&known.kind).unwrap_or_default();
    let input = known.input.to_string();
    let parts = [kind.as_str(), &known.title, command.as_deref().unwrap_or_default(), &paths.join("\n"), &input];
    let fingerprint = fingerprint(&parts);
    PermissionRequest {
        interrupt_id,
        turn_id,
        tool_call_id,
        title: known.title,
        kind: known.kind,
        command,
        paths,
        fingerprint,
        answers: options.answers(),
    }
}

/// The agent's options, by kind: their ids, names and order differ from agent to agent.
#[derive(Debug, Default)]
struct Options {
    allow_once: Option<acp::PermissionOptionId>,
    allow_always: Option<acp::PermissionOptionId>,
    reject_once: Option<acp::PermissionOptionId>,
    reject_always: Option<acp::PermissionOptionId>,
}

impl Options {
    fn of(options: &[acp::PermissionOption]) -> Self {
        let first = |kind| options.iter().find(|option| option.kind == kind).map(|option| option.option_id.clone());
        Self {
            allow_once: first(acp::PermissionOptionKind::AllowOnce),
            allow_always: first(acp::PermissionOptionKind::AllowAlways),
            reject_once: first(acp::PermissionOptionKind::RejectOnce),
            reject_always: first(acp::PermissionOptionKind::RejectAlways),
        }
    }

    /// "Always" is kept by a rule of ours, so it needs no option of its own.
    fn answers(&self) -> Vec<PermissionAnswer> {
        let once = self.allow_once.as_ref().map(|_| PermissionAnswer::Once);
        let always = self.allow_always.as_ref().or(self.allow_once.as_ref()).map(|_| PermissionAnswer::Always);
        once.into_iter().chain(always).chain([PermissionAnswer::Reject]).collect()
    }

    /// The option for an answer; without any it is cancelled, which no agent takes for a yes.
    fn choose(&self, answer: PermissionAnswer) -> Option<acp::PermissionOptionId> {
        match answer {
            PermissionAnswer::Once => self.allow_once.clone(),
            // The rule allows what the person was told, and an agent's own "always" more: every command of that program, say.
            PermissionAnswer::Always => self.allow_once.clone().or_else(|| self.allow_always.clone()),
            PermissionAnswer::Reject => self.reject_once.clone().or_else(|| self.reject_always.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_chosen_by_kind_wherever_they_stand() {
        let option = |id: &str, kind| acp::PermissionOption::new(id.to_owned(), "name".to_owned(), kind);
        use acp::PermissionOptionKind::{AllowAlways, AllowOnce, RejectOnce};
        let all = Options::of(&[
            option("aa", AllowAlways),
            option("ab", AllowAlways),
            option("ao", AllowOnce),
            option("ro", RejectOnce),
        ]);
        let id = |answer| all.choose(answer).map(|id| id.0.to_string());
        assert_eq!(id(PermissionAnswer::Once).as_deref(), Some("ao"));
        assert_eq!(id(PermissionAnswer::Always).as_deref(), Some("ao"), "the rule is ours");
        assert_eq!(id(PermissionAnswer::Reject).as_deref(), Some("ro"));
        let few = Options::of(&[option("ao", AllowOnce)]);
        assert_eq!(few.choose(PermissionAnswer::Always).map(|id| id.0.to_string()).as_deref(), Some("ao"));
        assert_eq!(few.choose(PermissionAnswer::Reject), None);
        let only = Options::of(&[option("aa", AllowAlways)]);
        assert_eq!(only.answers(), [PermissionAnswer::Always, PermissionAnswer::Reject]);
        assert_eq!(only.choose(PermissionAnswer::Once), None, "once is never made always");
        assert_eq!(only.choose(PermissionAnswer::Always).map(|id| id.0.to_string()).as_deref(), Some("aa"));
    }
}
