//! How untrusted text is shown: it must not move a cursor, rename a window, or say something other than it seems to.
//!
//! The command line's single rule. [`super::Console`] applies it to everything it writes for people, even if a caller forgot to.

use std::{borrow::Cow, fmt::Write};

/// Whether a terminal acts on the character instead of showing it, or shows nothing: C0 and C1 controls, DEL, marks
/// that change the direction of the text around them, line and paragraph separators, and Unicode's default
/// ignorables (zero-width characters, fillers, variation selectors, tags).
pub(super) fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' | '\u{180b}'..='\u{180f}'
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{3164}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether the character must be escaped where it is. A joiner or variation selector after a letter or picture that
/// takes one (not after ASCII, where it could only hide) belongs to it: `👩‍💻`, `क्‍ष`, `1️⃣`.
pub(super) fn is_written_out(c: char, before: Option<char>) -> bool {
    let takes_one = match c {
        '\u{200c}' | '\u{200d}' | '\u{fe00}'..='\u{fe0d}' => before.is_some_and(|b| !b.is_ascii()),
        '\u{fe0e}' | '\u{fe0f}' => before.is_some_and(|b| !b.is_ascii() || matches!(b, '0'..='9' | '#' | '*')),
        _ => false,
    };
    is_hidden(c) && !(takes_one && before.is_some_and(|b| !is_hidden(b) || b == '\u{fe0f}'))
}

fn escaped(text: &str, keep: fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| is_hidden(c) && !keep(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let (mut characters, mut before) = (text.chars().peekable(), None);
    while let Some(c) = characters.next() {
        match c {
            // Programs that write for terminals end lines this way; the usual form loses nothing.
            '\r' if characters.peek() == Some(&'\n') && keep('\n') => {}
            c if is_written_out(c, before) && !keep(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
        before = Some(c);
    }
    Cow::Owned(shown)
}

/// Text of several lines: everything but newlines and tabs is made visible.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// Text that must stay on one line: newlines and tabs are made visible too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// Bytes that arrive in pieces, as text: a character split across two pieces is kept whole, invalid UTF-8 becomes U+FFFD.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pending: Vec<u8>,
}

impl Pieces {
    pub(super) fn push(&mut self, bytes: &[u8]) -> String {
        self.pending.extend_from_slice(bytes);
        let whole = std::mem::take(&mut self.pending);
        let mut shown = String::with_capacity(whole.len());
        let mut chunks = whole.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            shown.push_str(chunk.valid());
            let is_cut = || std::str::from_utf8(chunk.invalid()).is_err_and(|error| error.error_len().is_none());
            if chunks.peek().is_none() && is_cut() {
                self.pending = chunk.invalid().to_vec();
            } else if !chunk.invalid().is_empty() {
                shown.push(char::REPLACEMENT_CHARACTER);
            }
        }
        // The line feed that completes this line ending may be in the next piece.
        if shown.ends_with('\r') && self.pending.is_empty() {
            shown.pop();
            self.pending.push(b'\r');
        }
        shown
    }

    pub(super) fn finish(&mut self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut self.pending)).into_owned()
    }
}

/// JSON for a terminal: indented, with the original's order and numbers, and with JSON's own escapes for what
/// would be invisible. What is not JSON comes out as escaped text.
pub(crate) fn json(source: &str) -> String {
    let mut out = String::with_capacity(source.len() * 2);
    let (mut depth, mut in_string, mut after_backslash) = (0_usize, false, false);
    let mut characters = source.trim().chars().peekable();
    while let Some(c) = characters.next() {
        if in_string {
            push_in_string(&mut out, c);
            in_string = c != '"' || after_backslash;
            after_backslash = c == '\\' && !after_backslash;
            continue;
        }
        match c {
            '{' | '[' => {
                out.push(c);
                while characters.next_if(|next| next.is_whitespace()).is_some() {}
                if characters.peek().is_some_and(|next| matches!(next, '}' | ']')) {
                    out.extend(characters.next());
                } else {
                    depth += 1;
                    new_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                new_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                new_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => {
                in_string = c == '"';
                push_in_string(&mut out, c);
            }
        }
    }
    out
}

/// JSON for a terminal, on one line.
pub(crate) fn json_line(source: &str) -> String {
    let mut out = String::with_capacity(source.len());
    source.chars().for_each(|c| push_in_string(&mut out, c));
    out
}

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    // Deep nesting must not make the output grow quadratically.
    out.extend(std::iter::repeat_n("  ", depth.min(64)));
}

fn push_in_string(out: &mut String, c: char) {
    if !is_hidden(c) {
        return out.push(c);
    }
    for unit in c.encode_utf16(&mut [0; 2]) {
        // Writing to a string cannot fail.
        let _ = write!(out, "\\u{unit:04x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_act_on_is_made_visible() {
        assert_eq!(text("plain\n\tümlaut ✓"), "plain\n\tümlaut ✓");
        assert_eq!(text("\u{1b}[2J\u{7}\u{9b}31m"), "\\u{1b}[2J\\u{7}\\u{9b}31m");
        assert_eq!(text("a\r\nb\rc"), "a\nb\\rc");
        assert_eq!(text("safe\u{202e}exe.txt"), "safe\\u{202e}exe.txt");
        assert_eq!(line("two\nlines\tone cell"), "two\\nlines\\tone cell");
    }

    #[test]
    fn what_would_not_be_seen_is_made_visible_and_what_belongs_to_a_character_is_kept() {
        for hidden in
            "\u{200b}\u{2028}\u{2029}\u{feff}\u{200d}\u{2060}\u{ad}\u{e0041}\u{85}\u{7f}\u{3164}\u{fe0f}".chars()
        {
            let name = format!("a{hidden}b");
            assert_eq!(line(&name), format!("a{}b", hidden.escape_default()), "{name:?}");
            assert!(!text(&name).contains(hidden), "{name:?}");
        }
        for whole in
            ["👩\u{200d}💻", "1\u{fe0f}\u{20e3}", "❤\u{fe0f}\u{200d}🔥", "क\u{94d}\u{200d}ष", "می\u{200c}خواهم"]
        {
            assert_eq!(line(whole), whole);
        }
        assert_eq!(line("é\u{200d}\u{200d}x"), "é\u{200d}\\u{200d}x");
    }

    #[test]
    fn bytes_in_pieces_are_the_text_they_are_whole() {
        let bytes =
            "a\r\nü€😀\r\u{feff}".as_bytes().iter().copied().chain([0xff, b'z', 0xe2, 0x82]).collect::<Vec<_>>();
        for size in 1..bytes.len() {
            let mut pieces = Pieces::default();
            let mut shown: String = bytes.chunks(size).map(|piece| text(&pieces.push(piece)).into_owned()).collect();
            shown += &text(&pieces.finish());
            assert_eq!(shown, "a\nü€😀\\r\\u{feff}\u{fffd}z\u{fffd}", "pieces of {size}");
        }
    }

    #[test]
    fn json_on_a_terminal_keeps_its_meaning_order_and_numbers() {
        let source = "{\"b\":[1.50,{}, []],\"a\":\"x:\\\"{,}\\\\\",\"c\":\"\u{9b}31m\u{7f}\u{e0041}\"}";
        let shown = json(source);
        let parse = |s: &str| serde_json::from_str::<serde_json::Value>(s).unwrap();
        assert_eq!(parse(&shown), parse(source));
        assert_eq!(parse(&json_line(source)), parse(source));
        assert!(!shown.contains(is_hidden_in_json) && !json_line(source).contains(is_hidden));
        insta::assert_snapshot!(shown, @r#"
        {
          "b": [
            1.50,
            {},
            []
          ],
          "a": "x:\"{,}\\",
          "c": "\u009b31m\u007f\udb40\udc41"
        }
        "#);
    }

    fn is_hidden_in_json(c: char) -> bool {
        c != '\n' && is_hidden(c)
    }
}
