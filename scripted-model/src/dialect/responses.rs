//! OpenAI's responses.

use serde_json::{Value, json};

use super::{Answer, list, texts};
use crate::{
    conversation::Conversation,
    figures::Figures,
    lines::named,
    tools::{Declared, ToolCall},
};

const RESULTS: [&str; 3] = ["function_call_output", "custom_tool_call_output", "local_shell_call_output"];

pub(super) fn read(body: &Value) -> Conversation {
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let mut conversation = Conversation { model, stream: body["stream"] == true, ..Conversation::default() };
    if let Some(text) = body["input"].as_str() {
        conversation.said(text);
    }
    for item in list(&body["input"]) {
        match item["type"].as_str() {
            Some(kind) if RESULTS.contains(&kind) => conversation.answered(),
            None | Some("message") if item["role"] == "user" => conversation.said(&texts(&item["content"])),
            _ => {}
        }
    }
    for tool in list(&body["tools"]) {
        match (tool["type"].as_str(), tool["name"].as_str()) {
            (Some("function"), _) => conversation.tools.declare(&tool["name"], &tool["parameters"]),
            (Some("custom"), Some(name)) => {
                conversation.tools.declared.insert(name.to_owned(), Declared::Freeform);
            }
            _ => {}
        }
    }
    conversation
}

pub(super) struct Responses {
    call: u64,
    figures: Figures,
    /// Events so far.
    sequence: u64,
    /// Items that are complete.
    output: Vec<Value>,
    /// Text of the message that is not.
    open: Option<String>,
}

impl Responses {
    pub(super) fn new(call: u64, asked: &Conversation) -> Self {
        Self { call, figures: asked.figures(), sequence: 0, output: Vec::new(), open: None }
    }

    fn event(&mut self, kind: &str, mut event: Value) -> String {
        self.sequence += 1;
        event["type"] = json!(kind);
        event["sequence_number"] = json!(self.sequence);
        named(&event)
    }

    fn id(&self, of: &str) -> String {
        format!("{of}_{}_{}", self.call, self.output.len())
    }

    fn added(&mut self, item: &Value) -> String {
        let index = self.output.len();
        self.event("response.output_item.added", json!({ "output_index": index, "item": item }))
    }

    fn done(&mut self, item: Value) -> String {
        let index = self.output.len();
        let event = self.event("response.output_item.done", json!({ "output_index": index, "item": item }));
        self.output.push(item);
        event
    }

    fn message(&self, text: &str, status: &str) -> Value {
        let part = json!({ "type": "output_text", "text": text, "annotations": [] });
        let content = if status == "completed" { json!([part]) } else { json!([]) };
        json!({ "id": self.id("msg"), "type": "message", "role": "assistant", "status": status, "content": content })
    }

    fn open_text(&mut self) -> String {
        if self.open.is_some() {
            return String::new();
        }
        self.open = Some(String::new());
        let (item, message) = (self.id("msg"), self.message("", "in_progress"));
        let added = self.added(&message);
        let part = json!({ "type": "output_text", "text": "", "annotations": [] });
        let part = json!({ "item_id": item, "output_index": self.output.len(), "content_index": 0, "part": part });
        added + &self.event("response.content_part.added", part)
    }

    fn close_text(&mut self) -> String {
        let Some(text) = self.open.take() else { return String::new() };
        let (item, index) = (self.id("msg"), self.output.len());
        let place = json!({ "item_id": item, "output_index": index, "content_index": 0 });
        let (mut whole, mut part) = (place.clone(), place);
        whole["text"] = json!(text);
        part["part"] = json!({ "type": "output_text", "text": text, "annotations": [] });
        let message = self.message(&text, "completed");
        let events = [
            self.event("response.output_text.done", whole),
            self.event("response.content_part.done", part),
            self.done(message),
        ];
        events.concat()
    }

    fn response(&self, status: &str) -> Value {
        let mut response = json!({
            "id": format!("resp_{}", self.call), "object": "response", "created_at": 1, "status": status,
            "output": self.output,
        });
        if status == "completed" {
            let Figures { input, cached, output, reasoning } = self.figures;
            response["usage"] = json!({
                "input_tokens": input, "input_tokens_details": { "cached_tokens": cached }, "output_tokens": output,
                "output_tokens_details": { "reasoning_tokens": reasoning }, "total_tokens": input + output,
            });
        }
        response
    }
}

impl Answer for Responses {
    fn begin(&mut self) -> String {
        let response = self.response("in_progress");
        self.event("response.created", json!({ "response": response }))
    }

    fn text(&mut self, piece: &str) -> String {
        let opened = self.open_text();
        if let Some(text) = &mut self.open {
            text.push_str(piece);
        }
        let (item, index) = (self.id("msg"), self.output.len());
        let delta = json!({ "item_id": item, "output_index": index, "content_index": 0, "delta": piece });
        opened + &self.event("response.output_text.delta", delta)
    }

    fn thought(&mut self, text: &str) -> String {
        let closed = self.close_text();
        let item = self.id("rs");
        let added = self.added(&json!({ "id": item, "type": "reasoning", "summary": [] }));
        let (place, part) = (self.output.len(), json!({ "type": "summary_text", "text": "" }));
        let begun = json!({ "item_id": item, "output_index": place, "summary_index": 0, "part": part });
        let begun = self.event("response.reasoning_summary_part.added", begun);
        let delta = json!({ "item_id": item, "output_index": place, "summary_index": 0, "delta": text });
        let delta = self.event("response.reasoning_summary_text.delta", delta);
        let summary = json!([{ "type": "summary_text", "text": text }]);
        let done = self.done(json!({ "id": item, "type": "reasoning", "summary": summary }));
        [closed, added, begun, delta, done].concat()
    }

    fn tool(&mut self, call: &ToolCall) -> String {
        let closed = self.close_text();
        let call_id = self.id("call");
        let item = match &call.arguments {
            Value::String(input) => json!({
                "id": self.id("ct"), "type": "custom_tool_call", "status": "completed", "call_id": call_id,
                "name": call.name, "input": input,
            }),
            arguments => json!({
                "id": self.id("fc"), "type": "function_call", "status": "completed", "call_id": call_id,
                "name": call.name, "arguments": arguments.to_string(),
            }),
        };
        let added = self.added(&item);
        [closed, added, self.done(item)].concat()
    }

    fn end(&mut self) -> String {
        let closed = self.close_text();
        let response = self.response("completed");
        closed + &self.event("response.completed", json!({ "response": response }))
    }

    fn whole(&mut self) -> Value {
        self.close_text();
        self.response("completed")
    }
}
