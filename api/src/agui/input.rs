//! What a client sends.

use ambient_wire::{
    agui::{InputMessage, ResumeEntry, ResumeStatus, RunAgentInput},
    permission::InterruptAnswer,
    runner_event::PermissionAnswer,
};
use serde_json::Value;

use crate::error::{ApiError, ApiResult};

/// Most interrupts answered at once.
const MAX_RESUME: usize = 100;

/// What a run begins with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Wish {
    /// A message of the user, with the client's id of it.
    Message { id: String, text: String },
    /// Answers to interrupts; at least one.
    Answers(Vec<(String, InterruptAnswer)>),
}

/// What is asked for.
pub(crate) fn wish(input: &RunAgentInput) -> ApiResult<Wish> {
    if !input.resume.is_empty() {
        if input.resume.len() > MAX_RESUME {
            return Err(ApiError::invalid("resume", format!("must have at most {MAX_RESUME} entries")));
        }
        let answers = input.resume.iter().enumerate();
        return answers.map(|(n, entry)| answer(n, entry)).collect::<ApiResult<_>>().map(Wish::Answers);
    }
    let newest = input.messages.iter().enumerate().rev().find(|(_, message)| message.role == "user");
    let Some((n, message)) = newest else {
        return Err(ApiError::invalid("messages", "must have one of role user, unless there is resume"));
    };
    let text = text(&format!("messages[{n}].content"), message)?;
    if text.trim().is_empty() {
        return Err(ApiError::invalid(format!("messages[{n}].content"), "must say something"));
    }
    Ok(Wish::Message { id: message.id.clone(), text })
}

/// A text, or parts that are texts.
fn text(field: &str, message: &InputMessage) -> ApiResult<String> {
    match &message.content {
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let part = |(n, part): (usize, &Value)| match (part["type"].as_str(), part["text"].as_str()) {
                (Some("text"), Some(text)) => Ok(text.to_owned()),
                _ => Err(ApiError::invalid(format!("{field}[{n}].type"), "must be text: nothing else is supported")),
            };
            Ok(parts.iter().enumerate().map(part).collect::<ApiResult<Vec<_>>>()?.join("\n"))
        }
        _ => Err(ApiError::invalid(field, "must be a text or a list of parts")),
    }
}

fn answer(n: usize, entry: &ResumeEntry) -> ApiResult<(String, InterruptAnswer)> {
    let reject = InterruptAnswer { answer: PermissionAnswer::Reject, message: None };
    let payload = &entry.payload;
    let answer = match entry.status {
        ResumeStatus::Cancelled => reject,
        ResumeStatus::Resolved => {
            let message = payload["message"].as_str().map(str::to_owned);
            let given = match (payload["answer"].as_str(), payload["approved"].as_bool()) {
                (Some("once"), _) | (None, Some(true)) => PermissionAnswer::Once,
                (Some("always"), _) => PermissionAnswer::Always,
                (Some("reject"), _) | (None, Some(false)) => PermissionAnswer::Reject,
                _ => {
                    let field = format!("resume[{n}].payload.answer");
                    return Err(ApiError::invalid(field, "must be once, always or reject, or approved a truth value"));
                }
            };
            InterruptAnswer { answer: given, message: message.filter(|_| given == PermissionAnswer::Reject) }
        }
    };
    Ok((entry.interrupt_id.clone(), answer))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn wish_of(input: &Value) -> ApiResult<Wish> {
        let mut all = json!({"threadId": "t", "runId": "r", "messages": []});
        all.as_object_mut().unwrap().extend(input.as_object().unwrap().clone());
        wish(&serde_json::from_value(all).unwrap())
    }

    #[test]
    fn the_newest_message_of_the_user_is_sent_and_what_is_not_text_is_refused_by_its_place() {
        let messages = json!({"protocolVersion": "1.0", "tools": [], "state": {}, "messages": [
            {"id": "a", "role": "user", "content": "one"},
            {"id": "b", "role": "user", "content": [{"type": "text", "text": "two"}, {"type": "text", "text": "lines"}]},
            {"id": "c", "role": "assistant", "toolCalls": []},
        ]});
        assert_eq!(wish_of(&messages).unwrap(), Wish::Message { id: "b".to_owned(), text: "two\nlines".to_owned() });
        for (content, field) in [
            (json!([{"type": "text", "text": "x"}, {"type": "image", "source": {}}]), "messages[0].content[1].type"),
            (json!(7), "messages[0].content"),
            (json!(" "), "messages[0].content"),
        ] {
            let error = wish_of(&json!({"messages": [{"id": "a", "role": "user", "content": content}]})).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
        assert!(wish_of(&json!({})).unwrap_err().to_string().contains("messages"));
    }

    #[test]
    fn interrupts_are_answered_in_our_words_or_approved_and_a_cancelled_one_is_rejected() {
        let entry =
            |status: &str, payload: Value| json!({"interruptId": "1-1-1", "status": status, "payload": payload});
        for (entry, answer, message) in [
            (entry("resolved", json!({"answer": "always", "message": "ignored"})), PermissionAnswer::Always, None),
            (entry("resolved", json!({"approved": true})), PermissionAnswer::Once, None),
            (entry("resolved", json!({"approved": false})), PermissionAnswer::Reject, None),
            (
                entry("resolved", json!({"answer": "reject", "message": "use cp"})),
                PermissionAnswer::Reject,
                Some("use cp"),
            ),
            (entry("cancelled", Value::Null), PermissionAnswer::Reject, None),
        ] {
            let answer = InterruptAnswer { answer, message: message.map(str::to_owned) };
            let wish = wish_of(&json!({"resume": [entry]})).unwrap();
            assert_eq!(wish, Wish::Answers(vec![("1-1-1".to_owned(), answer)]));
        }
        let error = wish_of(&json!({"resume": [entry("resolved", json!({"answer": "maybe"}))]})).unwrap_err();
        assert!(error.to_string().contains("resume[0].payload.answer"));
    }
}
