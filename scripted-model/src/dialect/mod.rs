//! The dialects: reading what is asked, writing what is said.

mod anthropic;
mod chat;
mod gemini;
mod responses;

use serde_json::{Value, json};

use crate::{conversation::Conversation, tools::ToolCall};

/// A dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Chat,
    Responses,
    Anthropic,
    Gemini,
}

/// An answer in the making: what each part adds to the stream, and the whole.
pub(crate) trait Answer: Send {
    fn begin(&mut self) -> String {
        String::new()
    }
    fn text(&mut self, piece: &str) -> String;
    fn thought(&mut self, text: &str) -> String;
    fn tool(&mut self, call: &ToolCall) -> String;
    fn end(&mut self) -> String;
    /// The answer in one object, if it is not streamed.
    fn whole(&mut self) -> Value;
}

impl Dialect {
    /// By path, without the query.
    pub(crate) fn of(path: &str) -> Option<Self> {
        match path {
            _ if path.ends_with("/chat/completions") => Some(Self::Chat),
            _ if path.ends_with("/responses") => Some(Self::Responses),
            _ if path.ends_with("/messages") => Some(Self::Anthropic),
            _ if path.ends_with(":generateContent") || path.ends_with(":streamGenerateContent") => Some(Self::Gemini),
            _ => None,
        }
    }

    /// `path` with the query.
    pub(crate) fn read(self, path: &str, body: &Value) -> Conversation {
        match self {
            Self::Chat => chat::read(body),
            Self::Responses => responses::read(body),
            Self::Anthropic => anthropic::read(body),
            Self::Gemini => gemini::read(path, body),
        }
    }

    /// An answer; `call` is a number that no other answer has.
    pub(crate) fn answer(self, call: u64, asked: &Conversation) -> Box<dyn Answer> {
        match self {
            Self::Chat => Box::new(chat::Chat::new(call, asked)),
            Self::Responses => Box::new(responses::Responses::new(call, asked)),
            Self::Anthropic => Box::new(anthropic::Anthropic::new(call, asked)),
            Self::Gemini => Box::new(gemini::Gemini::new(call, asked)),
        }
    }

    /// The body of a refusal.
    pub(crate) fn refusal(self, status: u16) -> Value {
        let message = format!("scripted {status}");
        match self {
            Self::Chat | Self::Responses => {
                json!({ "error": { "message": message, "type": "scripted", "code": status } })
            }
            Self::Anthropic => json!({ "type": "error", "error": { "type": "api_error", "message": message } }),
            Self::Gemini => json!({ "error": { "code": status, "message": message, "status": "INTERNAL" } }),
        }
    }
}

/// The texts of a message's content: a text, or parts with texts.
fn texts(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts: Vec<&str> = parts.iter().filter_map(|part| part["text"].as_str()).collect();
            texts.join(" ")
        }
        _ => String::new(),
    }
}

/// A list, or nothing.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
