//! A span in OTLP's form, with bounded texts.

use chrono::{DateTime, Utc};
pub(crate) use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value},
    trace::v1::{Status, span::Event, status::StatusCode},
};

use crate::ids::{Context, SpanId};

/// Longest text of an attribute that is a name, an id or a word, characters.
const MAX_WORD: usize = 200;
/// Longest text of what was said, read or written, characters.
const MAX_CONTENT: usize = 8_192;
/// Most events of a span.
const MAX_EVENTS: usize = 128;

/// A span while it is put together.
#[derive(Debug, Clone)]
pub(crate) struct Draft(Span);

impl Draft {
    /// A span of this id and name between two times.
    pub(crate) fn new(
        context: Context,
        id: SpanId,
        name: &str,
        kind: SpanKind,
        (start, end): (DateTime<Utc>, DateTime<Utc>),
    ) -> Self {
        Self(Span {
            trace_id: context.trace.to_vec(),
            span_id: id.to_vec(),
            parent_span_id: context.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
            // Sampled: others are not exported.
            flags: 1,
            name: word(name),
            kind: kind as i32,
            start_time_unix_nano: nanos(start),
            // Clocks of two machines may disagree.
            end_time_unix_nano: nanos(end.max(start)),
            ..Span::default()
        })
    }

    /// With a name, an id or a word.
    pub(crate) fn word(mut self, key: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.0.attributes.push(attribute(key, Value::StringValue(word(value))));
        }
        self
    }

    /// With one of these if there is one.
    pub(crate) fn word_if(self, key: &str, value: Option<&str>) -> Self {
        match value {
            Some(value) => self.word(key, value),
            None => self,
        }
    }

    /// With a list of words.
    pub(crate) fn words(mut self, key: &str, values: &[&str]) -> Self {
        let values = values.iter().map(|value| AnyValue { value: Some(Value::StringValue(word(value))) }).collect();
        self.0.attributes.push(attribute(key, Value::ArrayValue(ArrayValue { values })));
        self
    }

    /// With a number.
    pub(crate) fn number(mut self, key: &str, value: i64) -> Self {
        self.0.attributes.push(attribute(key, Value::IntValue(value)));
        self
    }

    /// With a number if there is one.
    pub(crate) fn number_if(self, key: &str, value: Option<u64>) -> Self {
        match value {
            Some(value) => self.number(key, i64::try_from(value).unwrap_or(i64::MAX)),
            None => self,
        }
    }

    /// With seconds if there are some.
    pub(crate) fn seconds_if(mut self, key: &str, value: Option<f64>) -> Self {
        if let Some(value) = value {
            self.0.attributes.push(attribute(key, Value::DoubleValue(value)));
        }
        self
    }

    /// With what was said, read or written: only where the server's settings ask for it.
    pub(crate) fn content(mut self, key: &str, value: &str) -> Self {
        if !value.is_empty() {
            self.0.attributes.push(attribute(key, Value::StringValue(cleaned(value, MAX_CONTENT, true))));
        }
        self
    }

    /// It failed, of this class.
    pub(crate) fn failed(mut self, class: &str, message: &str) -> Self {
        self = self.word("error.type", if class.is_empty() { "_OTHER" } else { class });
        self.0.status = Some(Status { message: word(message), code: StatusCode::Error as i32 });
        self
    }

    /// Something happened in it; beyond a number of events only how many more.
    pub(crate) fn event(&mut self, at: DateTime<Utc>, name: &str, words: &[(&str, &str)]) {
        if self.0.events.len() >= MAX_EVENTS {
            self.0.dropped_events_count += 1;
            return;
        }
        let told = words.iter().filter(|(_, value)| !value.is_empty());
        let attributes = told.map(|(key, value)| attribute(key, Value::StringValue(word(value)))).collect();
        self.0.events.push(Event {
            time_unix_nano: nanos(at),
            name: word(name),
            attributes,
            dropped_attributes_count: 0,
        });
    }

    pub(crate) fn done(self) -> Span {
        self.0
    }
}

/// An attribute that is a word.
pub(crate) fn word_attribute(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(word(value)))
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

/// What an agent or a caller calls something: one line, cut off.
fn word(text: &str) -> String {
    cleaned(text, MAX_WORD, false)
}

/// Whatever is shown of it is text: control characters are left out, except for ends of lines where there may be several.
fn cleaned(text: &str, most: usize, lines: bool) -> String {
    let is_kept = |c: &char| !c.is_control() || (lines && matches!(c, '\n' | '\t'));
    let mut kept: String = text.chars().filter(is_kept).take(most).collect();
    if text.chars().filter(is_kept).nth(most).is_some() {
        kept.push('…');
    }
    kept
}

fn nanos(at: DateTime<Utc>) -> u64 {
    at.timestamp_nanos_opt().and_then(|nanos| u64::try_from(nanos).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_cut_and_cleaned_and_times_are_in_order() {
        let context = Context { trace: [1; 16], parent: None, sampled: true };
        let start = DateTime::from_timestamp(100, 0).unwrap();
        let end = DateTime::from_timestamp(90, 0).unwrap();
        let name = format!("a\u{1b}[31m\nb{}", "x".repeat(500));
        let mut draft = Draft::new(context, [2; 8], &name, SpanKind::Internal, (start, end)).word("empty", "");
        for _ in 0..MAX_EVENTS + 3 {
            draft.event(start, "again", &[("a", "b")]);
        }
        let span = draft.content("text", "one\ntwo\u{7}").done();
        assert!(span.name.starts_with("a[31mbxxx") && span.name.chars().count() == MAX_WORD + 1, "{}", span.name);
        assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (100_000_000_000, 100_000_000_000));
        assert_eq!((span.events.len(), span.dropped_events_count), (MAX_EVENTS, 3));
        assert_eq!(span.attributes, [attribute("text", Value::StringValue("one\ntwo".to_owned()))]);
    }
}
