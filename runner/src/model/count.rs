//! What an answer says it has used, in each dialect.

use ambient_runner_protocol::ModelDialect;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::budget::Tokens;

/// Longest name of a model, bytes.
const MAX_MODEL: usize = 200;
/// Largest report that is kept, bytes.
const MAX_RAW: usize = 4096;

/// The part of an answer, or of an event of one, that may tell of usage. Everything else is read past.
#[derive(Deserialize, Default)]
struct Part {
    #[serde(rename = "type")]
    kind: Option<String>,
    usage: Option<Value>,
    /// Of OpenAI's.
    model: Option<Value>,
    /// Gemini's.
    #[serde(rename = "modelVersion")]
    model_version: Option<Value>,
    /// Of Anthropic's first event.
    message: Option<Inner>,
    /// Of the last event of OpenAI's responses.
    response: Option<Inner>,
    /// Gemini's.
    #[serde(rename = "usageMetadata")]
    usage_metadata: Option<Value>,
    /// Of OpenAI's chat completions; empty in the chunk that is there for its usage.
    choices: Option<Vec<serde::de::IgnoredAny>>,
}

#[derive(Deserialize, Default)]
struct Inner {
    usage: Option<Value>,
    model: Option<Value>,
}

/// What a part means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Nothing follows that matters.
    pub(super) last: bool,
    /// It says nothing but its usage.
    pub(super) usage_only: bool,
}

/// Reports of one answer, later fields in place of earlier ones.
#[derive(Debug)]
pub(super) struct Reports {
    dialect: ModelDialect,
    fields: Map<String, Value>,
    /// The model that answers, as it says.
    model: Option<String>,
}

impl Reports {
    pub(super) fn new(dialect: ModelDialect) -> Self {
        Self { dialect, fields: Map::new(), model: None }
    }

    /// Takes an event's data.
    pub(super) fn event(&mut self, data: &[u8]) -> Meaning {
        // What cannot be read is the client's to deal with.
        let part: Part = serde_json::from_slice(data).unwrap_or_default();
        let kind = part.kind.as_deref().unwrap_or_default();
        let last = match self.dialect {
            ModelDialect::OpenaiResponses => {
                matches!(kind, "response.completed" | "response.incomplete" | "response.failed")
            }
            ModelDialect::Anthropic => kind == "message_stop",
            // The end of the answer is theirs.
            ModelDialect::OpenaiChat | ModelDialect::Gemini => false,
        };
        let usage_only =
            part.usage.as_ref().is_some_and(Value::is_object) && part.choices.as_ref().is_some_and(Vec::is_empty);
        self.part(part);
        Meaning { last, usage_only }
    }

    /// Takes a whole answer: an object, or a list of what would be events.
    pub(super) fn whole(&mut self, body: &[u8]) {
        if body.trim_ascii_start().starts_with(b"[") {
            let parts: Vec<Part> = serde_json::from_slice(body).unwrap_or_default();
            parts.into_iter().for_each(|part| self.part(part));
        } else {
            self.part(serde_json::from_slice(body).unwrap_or_default());
        }
    }

    fn part(&mut self, part: Part) {
        let (message, response) = (part.message.unwrap_or_default(), part.response.unwrap_or_default());
        let models = [part.model, message.model, response.model, part.model_version];
        let mut models = models.iter().flatten().filter_map(Value::as_str);
        if let Some(model) = models.find(|model| (1..=MAX_MODEL).contains(&model.len())) {
            self.model = Some(model.chars().filter(|c| !c.is_control()).collect());
        }
        let reports = [part.usage, message.usage, response.usage, part.usage_metadata];
        for report in reports.into_iter().flatten() {
            if let Value::Object(fields) = report {
                // What a later report leaves out was said before.
                self.fields.extend(fields.into_iter().filter(|(_, value)| !value.is_null()));
            }
        }
    }

    /// None if the answer says nothing of it, or not how much the output was.
    pub(super) fn tokens(&self) -> Option<Tokens> {
        let number = |name: &str| self.fields.get(name).and_then(Value::as_u64);
        let detail = |name: &str, of: &str| self.fields.get(name)?.get(of)?.as_u64();
        match self.dialect {
            ModelDialect::OpenaiChat => Some(Tokens {
                input: number("prompt_tokens")?,
                cached: detail("prompt_tokens_details", "cached_tokens"),
                written: 0,
                output: number("completion_tokens")?,
                reasoning: detail("completion_tokens_details", "reasoning_tokens"),
            }),
            ModelDialect::OpenaiResponses => Some(Tokens {
                input: number("input_tokens")?,
                cached: detail("input_tokens_details", "cached_tokens"),
                written: 0,
                output: number("output_tokens")?,
                reasoning: detail("output_tokens_details", "reasoning_tokens"),
            }),
            ModelDialect::Anthropic => {
                let (read, written) = (number("cache_read_input_tokens"), number("cache_creation_input_tokens"));
                let cached = read.unwrap_or(0).saturating_add(written.unwrap_or(0));
                Some(Tokens {
                    input: number("input_tokens")?.saturating_add(cached),
                    cached: read,
                    written: written.unwrap_or(0),
                    output: number("output_tokens")?,
                    reasoning: None,
                })
            }
            ModelDialect::Gemini => {
                let thoughts = number("thoughtsTokenCount");
                let tools = number("toolUsePromptTokenCount").unwrap_or(0);
                Some(Tokens {
                    input: number("promptTokenCount")?.saturating_add(tools),
                    cached: number("cachedContentTokenCount"),
                    written: 0,
                    // Left out while there is none.
                    output: number("candidatesTokenCount").unwrap_or(0).saturating_add(thoughts.unwrap_or(0)),
                    reasoning: thoughts,
                })
            }
        }
    }

    /// Whether an answer that was broken off may have said less than it used.
    pub(super) fn is_of_a_beginning(&self) -> bool {
        matches!(self.dialect, ModelDialect::Anthropic | ModelDialect::Gemini)
    }

    /// The model that answered.
    pub(super) fn model(&mut self) -> Option<String> {
        self.model.take()
    }

    /// The report as it came; of one that is too large its size.
    pub(super) fn raw(self) -> Value {
        let raw = Value::Object(self.fields);
        let size = raw.to_string().len();
        if size > MAX_RAW { serde_json::json!({ "omitted": size }) } else { raw }
    }
}

#[cfg(test)]
mod tests {
    use super::{Meaning, ModelDialect, Reports, Tokens};

    #[test]
    fn anthropic_counts_the_cached_input_apart_and_the_output_at_the_end() {
        let mut reports = Reports::new(ModelDialect::Anthropic);
        let start = br#"{"type":"message_start","message":{"usage":{"input_tokens":5,"cache_creation_input_tokens":3,
            "cache_read_input_tokens":2,"output_tokens":1}}}"#;
        assert!(!reports.event(start).last);
        reports.event(br#"{"type":"message_delta","delta":{},"usage":{"output_tokens":40,"input_tokens":null}}"#);
        assert_eq!(reports.event(br#"{"type":"message_stop"}"#), Meaning { last: true, usage_only: false });
        let expected = Tokens { input: 10, cached: Some(2), written: 3, output: 40, reasoning: None };
        assert_eq!(reports.tokens(), Some(expected));
        assert_eq!(reports.raw()["cache_creation_input_tokens"], 3);
    }

    #[test]
    fn a_chunk_that_is_there_for_its_usage_is_recognised() {
        let mut reports = Reports::new(ModelDialect::OpenaiChat);
        let delta = reports.event(br#"{"choices":[{"delta":{"content":"\"usage\":{}"}}],"usage":null}"#);
        assert!(!delta.usage_only);
        let last = reports.event(br#"{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":4}}"#);
        assert!(last.usage_only);
        assert_eq!(reports.tokens().map(|tokens| (tokens.input, tokens.output)), Some((9, 4)));
    }

    #[test]
    fn a_list_of_gemini_counts_by_its_last_report_and_nonsense_counts_for_nothing() {
        let mut reports = Reports::new(ModelDialect::Gemini);
        reports.whole(b"not json");
        reports.whole(br#"[{"usageMetadata":{"promptTokenCount":"many"}}]"#);
        assert_eq!(reports.tokens(), None);
        reports.whole(
            br#" [{"usageMetadata":{"promptTokenCount":7}},
                {"usageMetadata":{"promptTokenCount":7,"candidatesTokenCount":2,"thoughtsTokenCount":3}}]"#,
        );
        let tokens = reports.tokens().unwrap();
        assert_eq!((tokens.input, tokens.output, tokens.reasoning), (7, 5, Some(3)));
    }

    #[test]
    fn a_report_without_bounds_is_not_kept() {
        let mut reports = Reports::new(ModelDialect::OpenaiResponses);
        let report = format!(r#"{{"usage":{{"input_tokens":1,"output_tokens":1,"x":"{}"}}}}"#, "x".repeat(5000));
        reports.whole(report.as_bytes());
        assert!(reports.tokens().is_some());
        assert!(reports.raw()["omitted"].as_u64() > Some(5000));
    }
}
