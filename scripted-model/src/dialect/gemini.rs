//! Gemini's `generateContent` and `streamGenerateContent`.

use serde_json::{Value, json};

use super::{Answer, list};
use crate::{conversation::Conversation, figures::Figures, lines::data, tools::ToolCall};

/// Streamed are events if the query asks for them, else a list.
pub(super) fn read(path: &str, body: &Value) -> Conversation {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let (before, method) = path.rsplit_once(':').unwrap_or((path, ""));
    let model = before.rsplit('/').next().unwrap_or_default().to_owned();
    let streamed = method == "streamGenerateContent";
    let stream = streamed && query.contains("alt=sse");
    let mut conversation = Conversation { model, stream, list: streamed && !stream, ..Conversation::default() };
    for content in list(&body["contents"]).filter(|content| content["role"] != "model") {
        for part in list(&content["parts"]) {
            if part.get("functionResponse").is_some() {
                conversation.answered();
            }
            conversation.said(part["text"].as_str().unwrap_or_default());
        }
    }
    for function in list(&body["tools"]).flat_map(|tool| list(&tool["functionDeclarations"])) {
        let schema = function.get("parametersJsonSchema").unwrap_or(&function["parameters"]);
        conversation.tools.declare(&function["name"], schema);
    }
    conversation
}

pub(super) struct Gemini {
    call: u64,
    model: String,
    figures: Figures,
    parts: Vec<Value>,
}

impl Gemini {
    pub(super) fn new(call: u64, asked: &Conversation) -> Self {
        let (model, figures) = (asked.model.clone(), asked.figures());
        Self { call, model, figures, parts: Vec::new() }
    }

    fn response(&self, parts: &[Value], last: bool) -> Value {
        let content = json!({ "role": "model", "parts": parts });
        let mut response = json!({
            "candidates": [{ "content": content, "index": 0 }], "modelVersion": self.model,
            "responseId": format!("r{}", self.call),
        });
        if last {
            response["candidates"][0]["finishReason"] = json!("STOP");
            response["usageMetadata"] = self.usage();
        }
        response
    }

    /// Reasoning is counted beside the candidates in this dialect.
    fn usage(&self) -> Value {
        let Figures { input, cached, output, reasoning } = self.figures;
        json!({
            "promptTokenCount": input, "cachedContentTokenCount": cached, "candidatesTokenCount": output - reasoning,
            "thoughtsTokenCount": reasoning, "totalTokenCount": input + output,
        })
    }

    fn part(&mut self, part: Value) -> String {
        let event = data(&self.response(std::slice::from_ref(&part), false));
        self.parts.push(part);
        event
    }
}

impl Answer for Gemini {
    fn text(&mut self, piece: &str) -> String {
        self.part(json!({ "text": piece }))
    }

    fn thought(&mut self, text: &str) -> String {
        self.part(json!({ "text": text, "thought": true }))
    }

    fn tool(&mut self, call: &ToolCall) -> String {
        self.part(json!({ "functionCall": { "name": call.name, "args": call.arguments } }))
    }

    fn end(&mut self) -> String {
        data(&self.response(&[json!({ "text": "" })], true))
    }

    fn whole(&mut self) -> Value {
        self.response(&self.parts, true)
    }
}
