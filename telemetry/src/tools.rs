//! The calls of a turn, from the events of its log: of models, of tools, and what waited for people.

use std::collections::HashMap;

use ambient_persistence::TracedEvent;
use ambient_wire::runner_event::{
    ModelCall, PermissionRequest, RunnerEvent, ToolContent, ToolKind, ToolStatus, Usage, UsageSource, output_in_words,
};
use chrono::{DateTime, TimeDelta, Utc};
use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;

use crate::{
    ids::{Context, SpanId, span_of},
    span::{Draft, SpanKind},
};

/// Types of the events that calls are made of.
pub(crate) const TYPES: [&str; 6] =
    ["usage", "tool.started", "tool.updated", "permission.requested", "permission.closed", "permission.decided"];
/// Most spans below a turn's.
pub(crate) const MAX_CALLS: usize = 1_000;

/// What a turn's models have used.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Used {
    pub(crate) calls: i64,
    pub(crate) provider: String,
    pub(crate) model: String,
    pub(crate) input: u64,
    pub(crate) cached: u64,
    pub(crate) output: u64,
}

/// Calls while a turn's events are read.
pub(crate) struct Calls {
    /// Below the turn's span.
    context: Context,
    session: String,
    turn: String,
    begun: DateTime<Utc>,
    contents: bool,
    tools: Vec<Tool>,
    by_id: HashMap<String, usize>,
    waits: HashMap<String, Wait>,
    spans: Vec<Span>,
    pub(crate) used: Used,
    /// Calls without spans, since there are too many.
    pub(crate) left_out: i64,
}

struct Tool {
    id: String,
    title: String,
    kind: ToolKind,
    status: ToolStatus,
    exit_code: Option<i32>,
    input: Value,
    result: String,
    begun: DateTime<Utc>,
    over: Option<DateTime<Utc>>,
    decided: Vec<(DateTime<Utc>, bool, String)>,
}

struct Wait {
    request: PermissionRequest,
    begun: DateTime<Utc>,
}

impl Calls {
    /// Of a turn whose span is `turn_span`.
    pub(crate) fn new(
        context: Context,
        turn_span: SpanId,
        (session, run, number): (&str, i64, i64),
        begun: DateTime<Utc>,
        contents: bool,
    ) -> Self {
        Self {
            context: context.below(turn_span),
            session: session.to_owned(),
            turn: format!("{run}/{number}"),
            begun,
            contents,
            tools: Vec::new(),
            by_id: HashMap::new(),
            waits: HashMap::new(),
            spans: Vec::new(),
            used: Used::default(),
            left_out: 0,
        }
    }

    pub(crate) fn take(&mut self, event: &TracedEvent) {
        let at = event.at;
        match RunnerEvent::read(&event.data) {
            Some(RunnerEvent::Usage { source: UsageSource::Proxy, model, usage, call, .. }) => {
                self.model(event.seq, at, &model, &usage, &call.unwrap_or_default());
            }
            Some(RunnerEvent::ToolStarted { tool_call_id, title, kind, status, input, .. }) => {
                let Some(tool) = self.tool(&tool_call_id, at) else { return };
                (tool.title, tool.kind, tool.status, tool.input) = (title, kind, status, input);
            }
            Some(RunnerEvent::ToolUpdated { tool_call_id, change }) => {
                let Some(tool) = self.tool(&tool_call_id, at) else { return };
                tool.title = change.title.unwrap_or(std::mem::take(&mut tool.title));
                tool.kind = change.kind.unwrap_or(tool.kind);
                tool.status = change.status.unwrap_or(tool.status);
                tool.exit_code = change.exit_code.or(tool.exit_code);
                tool.input = change.input.unwrap_or(std::mem::take(&mut tool.input));
                let result = change.output.as_ref().and_then(output_in_words).map(str::to_owned);
                if let Some(result) = result.or_else(|| texts(change.content.as_deref()?)) {
                    tool.result = result;
                }
                if matches!(tool.status, ToolStatus::Completed | ToolStatus::Failed) {
                    tool.over.get_or_insert(at);
                }
            }
            Some(RunnerEvent::PermissionRequested { request }) if self.waits.len() < MAX_CALLS => {
                self.waits.insert(request.interrupt_id.clone(), Wait { request, begun: at });
            }
            Some(RunnerEvent::PermissionClosed { interrupt_id, outcome, answer }) => {
                if let Some(wait) = self.waits.remove(&interrupt_id) {
                    self.wait(&wait, at, &word_of(&outcome), answer.map(|answer| word_of(&answer)).as_deref());
                }
            }
            Some(RunnerEvent::PermissionDecided { request, allowed, rule }) => {
                if let Some(tool) = self.tool(&request.tool_call_id, at) {
                    tool.decided.push((at, allowed, rule));
                }
            }
            _ => {}
        }
    }

    /// The spans, with what is still open ending at this time.
    pub(crate) fn done(mut self, ended: DateTime<Utc>) -> (Vec<Span>, Used, i64) {
        for (_, wait) in std::mem::take(&mut self.waits) {
            self.wait(&wait, ended, "open", None);
        }
        for tool in std::mem::take(&mut self.tools) {
            let span = self.tool_span(tool, ended);
            self.push(span);
        }
        (self.spans, self.used, self.left_out)
    }

    fn push(&mut self, span: Span) {
        if self.spans.len() < MAX_CALLS {
            self.spans.push(span);
        } else {
            self.left_out += 1;
        }
    }

    fn span_of(&self, kind: &str, id: &str) -> SpanId {
        span_of(kind, &[&self.session, &self.turn, id])
    }

    /// The call with this id, which begins now if it is new; none if there are too many.
    fn tool(&mut self, id: &str, at: DateTime<Utc>) -> Option<&mut Tool> {
        if let Some(place) = self.by_id.get(id) {
            return self.tools.get_mut(*place);
        }
        if self.tools.len() >= MAX_CALLS {
            self.left_out += 1;
            return None;
        }
        self.by_id.insert(id.to_owned(), self.tools.len());
        self.tools.push(Tool {
            id: id.to_owned(),
            title: String::new(),
            kind: ToolKind::Other,
            status: ToolStatus::Pending,
            exit_code: None,
            input: Value::Null,
            result: String::new(),
            begun: at,
            over: None,
            decided: Vec::new(),
        });
        self.tools.last_mut()
    }

    fn model(&mut self, seq: i64, at: DateTime<Utc>, model: &str, usage: &Usage, call: &ModelCall) {
        let provider = provider(&call.provider);
        let used = &mut self.used;
        used.calls += 1;
        provider.clone_into(&mut used.provider);
        model.clone_into(&mut used.model);
        used.input = used.input.saturating_add(usage.input_tokens.unwrap_or(0));
        used.cached = used.cached.saturating_add(usage.cached_input_tokens.unwrap_or(0));
        used.output = used.output.saturating_add(usage.output_tokens.unwrap_or(0));
        let took = TimeDelta::try_milliseconds(i64::try_from(call.millis).unwrap_or(i64::MAX)).unwrap_or_default();
        let begun = at.checked_sub_signed(took).unwrap_or(at).max(self.begun);
        #[allow(clippy::cast_precision_loss, reason = "milliseconds of a call")]
        let first_piece = call.first_piece_millis.map(|millis| millis as f64 / 1000.0);
        let name = if model.is_empty() { "chat".to_owned() } else { format!("chat {model}") };
        let id = self.span_of("model", &seq.to_string());
        let draft = Draft::new(self.context, id, &name, SpanKind::Client, (begun, at))
            .word("gen_ai.operation.name", "chat")
            .word("gen_ai.provider.name", provider)
            .word("gen_ai.conversation.id", &self.session)
            .word("gen_ai.request.model", model)
            .word_if("gen_ai.response.model", call.response_model.as_deref())
            .number_if("gen_ai.usage.input_tokens", usage.input_tokens)
            .number_if("gen_ai.usage.output_tokens", usage.output_tokens)
            .number_if("gen_ai.usage.cache_read.input_tokens", usage.cached_input_tokens)
            .number_if("gen_ai.usage.reasoning.output_tokens", usage.reasoning_tokens)
            .number_if("ambient.usage.cost_micros", usage.cost_micros)
            .word_if("ambient.usage.currency", usage.currency.as_deref())
            .seconds_if("gen_ai.response.time_to_first_chunk", first_piece);
        let draft = if call.broken_off { draft.failed("broken_off", "") } else { draft };
        self.push(draft.done());
    }

    fn tool_span(&self, tool: Tool, ended: DateTime<Utc>) -> Span {
        let id = self.span_of("tool", &tool.id);
        let kind = word_of(&tool.kind);
        let status = word_of(&tool.status);
        let times = (tool.begun, tool.over.unwrap_or(ended));
        // A title is mostly what the tool is told to do, and so is no name.
        let mut draft = Draft::new(self.context, id, &format!("execute_tool {kind}"), SpanKind::Internal, times)
            .word("gen_ai.operation.name", "execute_tool")
            .word("gen_ai.tool.name", &kind)
            .word("gen_ai.tool.call.id", &tool.id)
            .word("gen_ai.conversation.id", &self.session)
            .word("ambient.tool.status", &status);
        if let Some(code) = tool.exit_code {
            draft = draft.number("process.exit.code", i64::from(code));
        }
        for (at, allowed, rule) in tool.decided {
            let rule = if self.contents { rule.as_str() } else { "" };
            let allowed = if allowed { "allowed" } else { "rejected" };
            draft.event(at, "permission.decided", &[("ambient.permission.answer", allowed), ("ambient.rule", rule)]);
        }
        if self.contents {
            draft = draft.content("ambient.tool.title", &redacted(&tool.title));
            if !tool.input.is_null() {
                draft = draft.content("gen_ai.tool.call.arguments", &redacted(&tool.input.to_string()));
            }
            draft = draft.content("gen_ai.tool.call.result", &redacted(&tool.result));
        }
        match (tool.status, tool.exit_code) {
            (ToolStatus::Failed, Some(code)) => draft.failed(&format!("exit_{code}"), "").done(),
            (ToolStatus::Failed, None) => draft.failed("tool_failed", "").done(),
            _ => draft.done(),
        }
    }

    /// What waited for people hangs on the call that it is about.
    fn wait(&mut self, wait: &Wait, over: DateTime<Utc>, outcome: &str, answer: Option<&str>) {
        let PermissionRequest { interrupt_id, tool_call_id, kind, title, .. } = &wait.request;
        let context = if self.by_id.contains_key(tool_call_id) {
            self.context.below(self.span_of("tool", tool_call_id))
        } else {
            self.context
        };
        let kind = word_of(kind);
        let id = self.span_of("permission", interrupt_id);
        let mut draft = Draft::new(context, id, &format!("permission {kind}"), SpanKind::Internal, (wait.begun, over))
            .word("ambient.interrupt.id", interrupt_id)
            .word("gen_ai.tool.call.id", tool_call_id)
            .word("ambient.permission.outcome", outcome)
            .word_if("ambient.permission.answer", answer);
        if self.contents {
            draft = draft.content("ambient.tool.title", &redacted(title));
        }
        self.push(draft.done());
    }
}

/// By the names of the conventions.
fn provider(dialect: &str) -> &str {
    match dialect {
        "gemini" => "gcp.gemini",
        "" => "_OTHER",
        other => other,
    }
}

/// As it is written in a log.
fn word_of(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

fn texts(content: &[ToolContent]) -> Option<String> {
    let texts = content.iter().filter_map(|part| match part {
        ToolContent::Text { text } => Some(text.as_str()),
        _ => None,
    });
    Some(texts.collect::<Vec<_>>().join("\n")).filter(|text| !text.is_empty())
}

pub(crate) fn redacted(text: &str) -> String {
    ambient_wire::redact::text(text).into_owned()
}
