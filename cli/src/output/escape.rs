//! Text from a server is data: it must not move a cursor, rename a window or hide what follows.

use std::{borrow::Cow, fmt::Write};

/// Whether a terminal would act on the character instead of showing it: controls of C0 and C1, DEL, and the marks that
/// change the direction of the text around them.
fn acts_on_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(text: &str, keep: fn(char) -> bool) -> Cow<'_, str> {
    if !text.chars().any(|c| acts_on_terminal(c) && !keep(c)) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len() + 16);
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            // Programs that write for terminals end lines so; nothing is lost by the usual form.
            '\r' if characters.peek() == Some(&'\n') && keep('\n') => {}
            c if acts_on_terminal(c) && !keep(c) => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    Cow::Owned(shown)
}

/// Text of several lines: all but newlines and tabs is made visible.
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    escaped(text, |c| matches!(c, '\n' | '\t'))
}

/// Text that must stay on one line: newlines and tabs are made visible too.
pub(crate) fn line(text: &str) -> Cow<'_, str> {
    escaped(text, |_| false)
}

/// JSON for a terminal: indented, in the order and with the numbers of the original, and with JSON's own escapes for what a
/// terminal would act on. What is not JSON comes out as harmless text.
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

fn new_line(out: &mut String, depth: usize) {
    out.push('\n');
    // Deep nesting must not make the output grow with its square.
    out.extend(std::iter::repeat_n("  ", depth.min(64)));
}

fn push_in_string(out: &mut String, c: char) {
    if acts_on_terminal(c) {
        // All of them are below U+10000. Writing to a string cannot fail.
        let _ = write!(out, "\\u{:04x}", u32::from(c));
    } else {
        out.push(c);
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
    fn json_on_a_terminal_keeps_its_meaning_order_and_numbers() {
        let source = "{\"b\":[1.50,{}, []],\"a\":\"x:\\\"{,}\\\\\",\"c\":\"\u{9b}31m\u{7f}\"}";
        let shown = json(source);
        let parse = |s: &str| serde_json::from_str::<serde_json::Value>(s).unwrap();
        assert_eq!(parse(&shown), parse(source));
        assert!(!shown.contains(['\u{9b}', '\u{7f}']));
        insta::assert_snapshot!(shown, @r#"
        {
          "b": [
            1.50,
            {},
            []
          ],
          "a": "x:\"{,}\\",
          "c": "\u009b31m\u007f"
        }
        "#);
    }
}
