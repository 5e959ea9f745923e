//! Spans of turns: `invoke_agent`, with what the agent called below it.

use ambient_persistence::{Database, StoreError, TracedEvent, TracedTurn};
use chrono::{DateTime, Utc};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::{Value, json};

use crate::{
    ids::Context,
    origin::turn_span,
    span::{Draft, SpanKind},
    tools::{Calls, TYPES, Used, redacted},
};

/// Events that are read at once, and of a turn at most.
const PAGE: i64 = 500;
const MAX_EVENTS: usize = 50_000;
/// Longest text of an answer that is kept while it is read, bytes.
const MAX_ANSWER: usize = 32 << 10;

/// A turn's spans. With `contents` they say what was said, read and written.
///
/// # Errors
/// When the database cannot be reached.
pub(crate) async fn spans(
    db: &Database,
    turn: &TracedTurn,
    context: Context,
    contents: bool,
) -> Result<Vec<Span>, StoreError> {
    let id = turn_span(&turn.session_id, (turn.run, turn.number));
    let place = (turn.session_id.as_str(), turn.run, turn.number);
    let mut calls = Calls::new(context, id, place, turn.started_at, contents);
    let types: Vec<&str> = TYPES.into_iter().chain(contents.then_some("agent.text")).collect();
    let (mut after, mut read, mut answer) = (turn.first_seq, 0, String::new());
    loop {
        let page = db.events_to_trace(&turn.session_id, (after, turn.last_seq), &types, contents, PAGE).await?;
        for event in &page {
            say(&mut answer, event);
            calls.take(event);
            after = event.seq;
        }
        read += page.len();
        if page.len() < usize::try_from(PAGE).unwrap_or(usize::MAX) || read >= MAX_EVENTS {
            break;
        }
    }
    let (below, used, left_out) = calls.done(turn.ended_at);
    let mut draft = root(turn, context, &used);
    if left_out > 0 {
        draft = draft.number("ambient.spans.left_out", left_out);
    }
    if contents {
        let message = db.message(&turn.session_id, &turn.message_id).await?;
        let asked = message.and_then(|message| message.data["text"].as_str().map(str::to_owned));
        draft = said(draft, "gen_ai.input.messages", "user", asked.as_deref().unwrap_or_default(), None);
        draft = said(draft, "gen_ai.output.messages", "assistant", &answer, turn.stop_reason.as_deref());
    }
    let mut spans = vec![draft.done()];
    spans.extend(below);
    Ok(spans)
}

fn root(turn: &TracedTurn, context: Context, used: &Used) -> Draft {
    let times: (DateTime<Utc>, DateTime<Utc>) = (turn.started_at, turn.ended_at);
    let id = turn_span(&turn.session_id, (turn.run, turn.number));
    let name = if turn.agent.is_empty() { "invoke_agent".to_owned() } else { format!("invoke_agent {}", turn.agent) };
    let mut draft = Draft::new(context, id, &name, SpanKind::Internal, times)
        .word("gen_ai.operation.name", "invoke_agent")
        .word("gen_ai.agent.name", &turn.agent)
        .word_if("gen_ai.agent.id", turn.agent_id.as_deref())
        .word("gen_ai.conversation.id", &turn.session_id)
        .word("ambient.project.id", &turn.project_id)
        .word("ambient.message.id", &turn.message_id)
        .word("ambient.turn.id", &format!("{}-{}", turn.run, turn.number))
        .word("ambient.turn.outcome", &turn.outcome)
        .number("ambient.turn.tool_calls", turn.tool_calls);
    if let Some(reason) = turn.stop_reason.as_deref() {
        draft = draft.words("gen_ai.response.finish_reasons", &[reason]);
    }
    if used.calls > 0 {
        draft = draft
            .number("ambient.turn.model_calls", used.calls)
            .word("gen_ai.provider.name", &used.provider)
            .word("gen_ai.request.model", &used.model)
            .number_if("gen_ai.usage.input_tokens", Some(used.input))
            .number_if("gen_ai.usage.output_tokens", Some(used.output))
            .number_if("gen_ai.usage.cache_read.input_tokens", Some(used.cached).filter(|cached| *cached > 0));
    }
    let code = turn.code.as_deref().unwrap_or_default();
    // What a person stopped has not failed.
    let is_failure = turn.outcome == "error" || (turn.outcome == "interrupted" && code != "Interrupted");
    if is_failure { draft.failed(code, "") } else { draft }
}

/// Collects what the agent says.
fn say(answer: &mut String, event: &TracedEvent) {
    if event.data["type"] == "agent.text"
        && let Some(text) = event.data["text"].as_str()
        && answer.len() < MAX_ANSWER
    {
        answer.push_str(text);
    }
}

/// A message in the form of the conventions. It is cut before it is put in, so that it stays JSON.
fn said(draft: Draft, key: &str, role: &str, text: &str, reason: Option<&str>) -> Draft {
    const MAX: usize = 4_000;
    if text.is_empty() {
        return draft;
    }
    let text: String = redacted(text).chars().take(MAX).collect();
    let mut message = json!({ "role": role, "parts": [{ "type": "text", "content": text }] });
    if let Some(reason) = reason {
        message["finish_reason"] = Value::from(reason);
    }
    draft.content(key, &json!([message]).to_string())
}
