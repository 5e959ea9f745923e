//! Anthropic's messages.

use serde_json::{Value, json};

use super::{Answer, list};
use crate::{conversation::Conversation, figures::Figures, lines::named, tools::ToolCall};

pub(super) fn read(body: &Value) -> Conversation {
    let model = body["model"].as_str().unwrap_or_default().to_owned();
    let mut conversation = Conversation { model, stream: body["stream"] == true, ..Conversation::default() };
    for message in list(&body["messages"]).filter(|message| message["role"] == "user") {
        if let Some(text) = message["content"].as_str() {
            conversation.said(text);
        }
        for part in list(&message["content"]) {
            match part["type"].as_str() {
                Some("tool_result") => conversation.answered(),
                Some("text") => conversation.said(part["text"].as_str().unwrap_or_default()),
                _ => {}
            }
        }
    }
    for tool in list(&body["tools"]) {
        conversation.tools.declare(&tool["name"], &tool["input_schema"]);
    }
    conversation
}

pub(super) struct Anthropic {
    call: u64,
    model: String,
    figures: Figures,
    /// Blocks that are complete.
    blocks: Vec<Value>,
    /// Text of the block that is not.
    open: Option<String>,
    calls_tools: bool,
}

impl Anthropic {
    pub(super) fn new(call: u64, asked: &Conversation) -> Self {
        let (model, figures) = (asked.model.clone(), asked.figures());
        Self { call, model, figures, blocks: Vec::new(), open: None, calls_tools: false }
    }

    /// Input in three parts, as this dialect has it: what was neither read from the cache nor written to it is `input_tokens`.
    fn usage(&self, output: u64) -> Value {
        let Figures { input, cached, .. } = self.figures;
        json!({
            "input_tokens": input - cached, "cache_creation_input_tokens": 0, "cache_read_input_tokens": cached,
            "output_tokens": output,
        })
    }

    fn message(&self, content: &[Value], stop_reason: &Value, output: u64) -> Value {
        json!({
            "id": format!("msg_{}", self.call), "type": "message", "role": "assistant", "model": self.model,
            "content": content, "stop_reason": stop_reason, "stop_sequence": null, "usage": self.usage(output),
        })
    }

    fn start(&self, block: &Value) -> String {
        named(&json!({ "type": "content_block_start", "index": self.blocks.len(), "content_block": block }))
    }

    fn delta(&self, delta: &Value) -> String {
        named(&json!({ "type": "content_block_delta", "index": self.blocks.len(), "delta": delta }))
    }

    fn stop(&mut self, block: Value) -> String {
        let stop = named(&json!({ "type": "content_block_stop", "index": self.blocks.len() }));
        self.blocks.push(block);
        stop
    }

    fn close_text(&mut self) -> String {
        match self.open.take() {
            Some(text) => self.stop(json!({ "type": "text", "text": text })),
            None => String::new(),
        }
    }

    fn reason(&self) -> Value {
        json!(if self.calls_tools { "tool_use" } else { "end_turn" })
    }
}

impl Answer for Anthropic {
    fn begin(&mut self) -> String {
        named(&json!({ "type": "message_start", "message": self.message(&[], &Value::Null, 1) }))
    }

    fn text(&mut self, piece: &str) -> String {
        let start = match &mut self.open {
            Some(text) => {
                text.push_str(piece);
                String::new()
            }
            None => {
                self.open = Some(piece.to_owned());
                self.start(&json!({ "type": "text", "text": "" }))
            }
        };
        start + &self.delta(&json!({ "type": "text_delta", "text": piece }))
    }

    fn thought(&mut self, text: &str) -> String {
        let close = self.close_text();
        let start = self.start(&json!({ "type": "thinking", "thinking": "", "signature": "" }));
        let think = self.delta(&json!({ "type": "thinking_delta", "thinking": text }));
        let sign = self.delta(&json!({ "type": "signature_delta", "signature": "c2ln" }));
        let stop = self.stop(json!({ "type": "thinking", "thinking": text, "signature": "c2ln" }));
        [close, start, think, sign, stop].concat()
    }

    fn tool(&mut self, call: &ToolCall) -> String {
        let close = self.close_text();
        self.calls_tools = true;
        let id = format!("toolu_{}_{}", self.call, self.blocks.len());
        let start = self.start(&json!({ "type": "tool_use", "id": id, "name": call.name, "input": {} }));
        let input = self.delta(&json!({ "type": "input_json_delta", "partial_json": call.arguments.to_string() }));
        let stop = self.stop(json!({ "type": "tool_use", "id": id, "name": call.name, "input": call.arguments }));
        [close, start, input, stop].concat()
    }

    fn end(&mut self) -> String {
        let close = self.close_text();
        let delta = json!({ "stop_reason": self.reason(), "stop_sequence": null });
        let usage = json!({ "output_tokens": self.figures.output });
        let delta = named(&json!({ "type": "message_delta", "delta": delta, "usage": usage }));
        [close, delta, named(&json!({ "type": "message_stop" }))].concat()
    }

    fn whole(&mut self) -> Value {
        self.close_text();
        self.message(&self.blocks, &self.reason(), self.figures.output)
    }
}
