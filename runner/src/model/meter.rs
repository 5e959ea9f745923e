//! Reading along in an answer without holding it up.
//!
//! Events are looked at line by line: in every dialect an event's data is one line. Only lines that can tell of usage are parsed.

use std::{borrow::Cow, time::Instant};

use ambient_runner_protocol::ModelDialect;
use bytes::{Bytes, BytesMut};
use memchr::{memchr, memmem};
use serde_json::{Value, json};

use super::{budget::Tokens, count::Reports};

/// Longest line, and largest whole answer, that is read, bytes. A longer one is passed on unread, and estimated.
const MAX_READ: usize = 8 << 20;
/// Bytes of a request per token of its input, as it is estimated.
const INPUT_BYTES_PER_TOKEN: u64 = 4;
/// Bytes of events per token of output, as it is estimated: most of an event is its wrapping.
const OUTPUT_BYTES_PER_TOKEN: u64 = 32;

/// How an answer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Events,
    /// Events whose client has not asked for the one that tells of usage: it is left out.
    EventsWithoutUsage,
    Whole,
    /// In a form that cannot be read.
    Opaque,
}

/// What a call has used.
#[derive(Debug, PartialEq)]
pub(super) struct Metered {
    pub(super) tokens: Tokens,
    pub(super) raw: Value,
    /// The model that answered, if it says so.
    pub(super) model: Option<String>,
    /// When the first piece of the answer came.
    pub(super) first_piece: Option<Instant>,
}

/// Reads along in one answer.
pub(super) struct Meter {
    form: Form,
    reports: Reports,
    /// The beginning of a line whose end has not come, or of the whole answer.
    waiting: BytesMut,
    /// The line is too long to be read.
    skipping: bool,
    /// The blank line after an event that was left out is left out too.
    swallow_blank: bool,
    is_complete: bool,
    events: u64,
    bytes: u64,
    request_bytes: u64,
    first_piece: Option<Instant>,
}

impl Meter {
    pub(super) fn new(dialect: ModelDialect, request_bytes: usize) -> Self {
        Self {
            form: Form::Opaque,
            reports: Reports::new(dialect),
            waiting: BytesMut::new(),
            skipping: false,
            swallow_blank: false,
            is_complete: false,
            events: 0,
            bytes: 0,
            request_bytes: request_bytes as u64,
            first_piece: None,
        }
    }

    pub(super) fn takes(&mut self, form: Form) {
        self.form = form;
    }

    /// Whether the last piece of the answer must wait until the answer is known to be complete.
    pub(super) fn holds_back(&self) -> bool {
        self.form == Form::Whole
    }

    /// Takes a piece; returns what is for the client.
    pub(super) fn piece(&mut self, piece: Bytes) -> Bytes {
        self.bytes += piece.len() as u64;
        if !piece.is_empty() {
            self.first_piece.get_or_insert_with(Instant::now);
        }
        match self.form {
            Form::Events => {
                self.lines(&piece, None);
                piece
            }
            Form::EventsWithoutUsage => {
                let mut kept = BytesMut::with_capacity(piece.len());
                self.lines(&piece, Some(&mut kept));
                kept.freeze()
            }
            Form::Whole => {
                if self.waiting.len() + piece.len() <= MAX_READ {
                    self.waiting.extend_from_slice(&piece);
                } else {
                    self.form = Form::Opaque;
                    self.waiting = BytesMut::new();
                }
                piece
            }
            Form::Opaque => piece,
        }
    }

    /// The answer has come to its end; returns what of it is still for the client.
    pub(super) fn end(&mut self) -> Bytes {
        let rest = self.waiting.split();
        match self.form {
            Form::Whole => self.reports.whole(&rest),
            Form::EventsWithoutUsage => return rest.freeze(),
            Form::Events | Form::Opaque => {}
        }
        Bytes::new()
    }

    /// Whether the dialect's last event was seen: what was used is known.
    pub(super) fn is_complete(&self) -> bool {
        self.is_complete
    }

    fn lines(&mut self, mut piece: &[u8], mut kept: Option<&mut BytesMut>) {
        while let Some(end) = memchr(b'\n', piece) {
            let (line, rest) = piece.split_at(end + 1);
            piece = rest;
            if self.skipping {
                self.skipping = false;
                if let Some(kept) = kept.as_mut() {
                    kept.extend_from_slice(line);
                }
                continue;
            }
            let line = self.whole_line(line);
            let leave_out = self.line(&line);
            if let Some(kept) = kept.as_mut().filter(|_| !leave_out) {
                kept.extend_from_slice(&line);
            }
        }
        self.begun(piece, kept);
    }

    /// The line with its beginning from earlier pieces.
    fn whole_line<'a>(&mut self, end: &'a [u8]) -> Cow<'a, [u8]> {
        if self.waiting.is_empty() {
            return Cow::Borrowed(end);
        }
        let mut line = self.waiting.split();
        line.extend_from_slice(end);
        Cow::Owned(line.to_vec())
    }

    /// A line whose end has not come yet.
    fn begun(&mut self, beginning: &[u8], kept: Option<&mut BytesMut>) {
        if !self.skipping && self.waiting.len() + beginning.len() <= MAX_READ {
            self.waiting.extend_from_slice(beginning);
            return;
        }
        self.skipping = true;
        let waiting = self.waiting.split();
        if let Some(kept) = kept {
            kept.extend_from_slice(&waiting);
            kept.extend_from_slice(beginning);
        }
    }

    /// Takes a line; true if it is not for the client.
    fn line(&mut self, line: &[u8]) -> bool {
        let Some(data) = line.strip_prefix(b"data:") else {
            let is_swallowed = self.swallow_blank && line.trim_ascii().is_empty();
            self.swallow_blank = false;
            return is_swallowed;
        };
        self.events += 1;
        self.is_complete |= data.trim_ascii() == b"[DONE]";
        if !may_tell(data) {
            return false;
        }
        let meaning = self.reports.event(data);
        self.is_complete |= meaning.last;
        self.swallow_blank = meaning.usage_only && self.form == Form::EventsWithoutUsage;
        self.swallow_blank
    }

    /// What was used. Where the answer does not say it, or was broken off before it did, by an estimate.
    pub(super) fn metered(mut self, is_whole: bool) -> Metered {
        let (reported, model, first_piece) = (self.reports.tokens(), self.reports.model(), self.first_piece);
        let is_final = is_whole || self.is_complete || !self.reports.is_of_a_beginning();
        if let Some(tokens) = reported.filter(|_| is_final) {
            return Metered { tokens, raw: self.reports.raw(), model, first_piece };
        }
        let estimated = Tokens {
            input: self.request_bytes.div_ceil(INPUT_BYTES_PER_TOKEN),
            output: self.events.max(self.bytes / OUTPUT_BYTES_PER_TOKEN),
            ..Tokens::default()
        };
        let tokens = match reported {
            Some(said) => Tokens { output: said.output.max(estimated.output), ..said },
            None => estimated,
        };
        let report = std::mem::replace(&mut self.reports, Reports::new(ModelDialect::Gemini)).raw();
        Metered { tokens, raw: json!({ "estimated": true, "reported": report }), model, first_piece }
    }
}

/// Whether an event's data may tell of usage, or be the last. Most do not, and need not be parsed.
fn may_tell(data: &[u8]) -> bool {
    let is_empty = |at: usize| {
        let rest = &data[at + b"\"usage".len()..];
        rest.starts_with(b"\":null") || rest.starts_with(b"\": null")
    };
    memmem::find_iter(data, b"\"usage").any(|at| !is_empty(at))
        || memmem::find(data, b"\"message_stop\"").is_some()
        || memmem::find(data, b"\"response.").is_some_and(|at| is_end(&data[at..]))
}

/// Whether this is the type of an event that ends an answer of OpenAI's responses.
fn is_end(from: &[u8]) -> bool {
    ["\"response.completed\"", "\"response.incomplete\"", "\"response.failed\""]
        .iter()
        .any(|kind| from.starts_with(kind.as_bytes()))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::{prop, proptest};

    use super::{Form, MAX_READ, Meter, ModelDialect};

    const CHAT: &str = "data: {\"choices\":[{\"delta\":{\"content\":\"a\"}}],\"usage\":null}\r\n\r\n: comment\n\n\
                        data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":4}}\n\ndata: [DONE]\n\n";

    fn read(text: &str, form: Form, cuts: &[usize]) -> (Meter, String) {
        let mut meter = Meter::new(ModelDialect::OpenaiChat, 400);
        meter.takes(form);
        let (mut out, mut from) = (Vec::new(), 0);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % text.len()).collect();
        cuts.sort_unstable();
        for cut in cuts.into_iter().chain([text.len()]) {
            out.extend_from_slice(&meter.piece(Bytes::copy_from_slice(&text.as_bytes()[from..cut])));
            from = cut;
        }
        out.extend_from_slice(&meter.end());
        (meter, String::from_utf8(out).unwrap())
    }

    proptest! {
        #[test]
        fn however_it_is_cut_the_usage_is_found_and_only_it_is_left_out(cuts in prop::collection::vec(0_usize..1000, 0..8)) {
            let (meter, passed) = read(CHAT, Form::Events, &cuts);
            assert_eq!(passed, CHAT);
            let metered = meter.metered(true);
            assert_eq!((metered.tokens.input, metered.tokens.output), (9, 4));
            let (meter, passed) = read(CHAT, Form::EventsWithoutUsage, &cuts);
            let usage = CHAT.find("data: {\"choices\":[],").unwrap();
            let done = CHAT.find("data: [DONE]").unwrap();
            assert_eq!(passed, format!("{}{}", &CHAT[..usage], &CHAT[done..]));
            assert_eq!(meter.metered(true).tokens.output, 4);
        }
    }

    #[test]
    fn what_was_broken_off_or_does_not_say_is_estimated() {
        let (meter, _) = read(&CHAT[..CHAT.find("\r\n").unwrap()], Form::Events, &[]);
        let metered = meter.metered(false);
        assert_eq!((metered.tokens.input, metered.tokens.output), (100, 1));
        assert_eq!(metered.raw["estimated"], true);
    }

    #[test]
    fn a_line_without_end_is_passed_on_and_not_kept() {
        let mut meter = Meter::new(ModelDialect::OpenaiChat, 0);
        meter.takes(Form::EventsWithoutUsage);
        let mut passed = 0;
        for _ in 0..20 {
            passed += meter.piece(Bytes::from(vec![b'x'; 1 << 20])).len();
            assert!(meter.waiting.len() <= MAX_READ);
        }
        passed += meter.piece(Bytes::from_static(b"\n")).len() + meter.end().len();
        assert_eq!(passed, (20 << 20) + 1);
        meter.piece(Bytes::from_static(CHAT.as_bytes()));
        assert_eq!(meter.metered(true).tokens.input, 9);
    }
}
