//! OpenAI's chat completions.

use serde_json::{Value, json};

use super::{Answer, list, texts};
use crate::{conversation::Conversation, figures::Figures, lines::data, tools::ToolCall};

pub(super) fn read(body: &Value) -> Conversation {
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let (stream, stream_usage) = (body["stream"] == true, body["stream_options"]["include_usage"] == true);
    let mut conversation = Conversation { model, stream, stream_usage, ..Conversation::default() };
    for message in list(&body["messages"]) {
        match message["role"].as_str() {
            Some("user") => conversation.said(&texts(&message["content"])),
            Some("tool") => conversation.answered(),
            _ => {}
        }
    }
    for tool in list(&body["tools"]) {
        conversation.tools.declare(&tool["function"]["name"], &tool["function"]["parameters"]);
    }
    conversation
}

pub(super) struct Chat {
    call: u64,
    model: String,
    figures: Figures,
    stream_usage: bool,
    text: String,
    tools: Vec<Value>,
}

impl Chat {
    pub(super) fn new(call: u64, asked: &Conversation) -> Self {
        let (model, figures, stream_usage) = (asked.model.clone(), asked.figures(), asked.stream_usage);
        Self { call, model, figures, stream_usage, text: String::new(), tools: Vec::new() }
    }

    fn chunk(&self, choices: &Value, usage: &Value) -> String {
        data(&json!({
            "id": format!("chatcmpl-{}", self.call), "object": "chat.completion.chunk", "created": 1, "model": self.model,
            "choices": choices, "usage": usage,
        }))
    }

    fn delta(&self, delta: &Value) -> String {
        self.chunk(&json!([{ "index": 0, "delta": delta, "finish_reason": null }]), &Value::Null)
    }

    fn reason(&self) -> &'static str {
        if self.tools.is_empty() { "stop" } else { "tool_calls" }
    }

    fn usage(&self) -> Value {
        let Figures { input, cached, output, reasoning } = self.figures;
        json!({
            "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output,
            "prompt_tokens_details": { "cached_tokens": cached },
            "completion_tokens_details": { "reasoning_tokens": reasoning },
        })
    }
}

impl Answer for Chat {
    fn begin(&mut self) -> String {
        self.delta(&json!({ "role": "assistant", "content": "" }))
    }

    fn text(&mut self, piece: &str) -> String {
        self.text.push_str(piece);
        self.delta(&json!({ "content": piece }))
    }

    fn thought(&mut self, text: &str) -> String {
        self.delta(&json!({ "reasoning_content": text }))
    }

    fn tool(&mut self, call: &ToolCall) -> String {
        let index = self.tools.len();
        let tool = json!({
            "index": index, "id": format!("call_{}_{index}", self.call), "type": "function",
            "function": { "name": call.name, "arguments": call.arguments.to_string() },
        });
        self.tools.push(tool.clone());
        self.delta(&json!({ "tool_calls": [tool] }))
    }

    /// The usage comes in a chunk of its own, if it was asked for.
    fn end(&mut self) -> String {
        let finish = json!([{ "index": 0, "delta": {}, "finish_reason": self.reason() }]);
        let finish = self.chunk(&finish, &Value::Null);
        let usage = if self.stream_usage { self.chunk(&json!([]), &self.usage()) } else { String::new() };
        format!("{finish}{usage}data: [DONE]\n\n")
    }

    fn whole(&mut self) -> Value {
        let mut message = json!({ "role": "assistant", "content": self.text });
        if !self.tools.is_empty() {
            message["tool_calls"] = json!(self.tools);
        }
        json!({
            "id": format!("chatcmpl-{}", self.call), "object": "chat.completion", "created": 1, "model": self.model,
            "choices": [{ "index": 0, "message": message, "finish_reason": self.reason() }], "usage": self.usage(),
        })
    }
}
