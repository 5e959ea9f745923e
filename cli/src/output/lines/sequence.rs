//! The ECMA-48 control sequences in a text that arrives in pieces.

/// Longest sequence, and longest string within one (a title, a link), characters. Anything longer is text.
const MAX_SEQUENCE: usize = 64;
const MAX_STRING: usize = 4096;

/// The parts of a text.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// A character, including C0 and C1 controls.
    Character(char),
    /// A control sequence without intermediates: its parameters and its final character.
    Control(&'a str, char),
    /// Something that started like a sequence but is not one: text to be shown.
    Broken(&'a str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum State {
    #[default]
    Text,
    /// After ESC.
    Escape,
    /// After ESC and an intermediate.
    Designation,
    Control,
    /// In the string of OSC, DCS, APC, PM and SOS.
    String,
    /// After ESC in a string.
    StringEscape,
}

/// Separates characters from sequences. Complete sequences other than control sequences are dropped.
#[derive(Debug, Default)]
pub(super) struct Sequences {
    state: State,
    /// What has arrived of the current sequence.
    raw: String,
}

impl Sequences {
    /// Takes the next character.
    pub(super) fn push(&mut self, c: char, found: &mut impl FnMut(Found<'_>)) {
        if self.state == State::Text && c != '\u{1b}' {
            return found(Found::Character(c));
        }
        let most = if matches!(self.state, State::String | State::StringEscape) { MAX_STRING } else { MAX_SEQUENCE };
        let Some(next) = self.next(c).filter(|_| self.raw.len() < most) else {
            // The character does not belong to it, and may start another.
            self.finish(found);
            return self.push(c, found);
        };
        self.raw.push(c);
        if next == State::Text {
            if let Some(body) = self.raw.strip_prefix("\u{1b}[").filter(|_| self.state == State::Control)
                && let Some((end, last)) = body.char_indices().next_back()
            {
                found(Found::Control(&body[..end], last));
            }
            self.raw.clear();
        }
        self.state = next;
    }

    /// The state after a character; none if it does not fit.
    fn next(&self, c: char) -> Option<State> {
        match (self.state, c) {
            (State::Text, _) => Some(State::Escape),
            (State::Escape, '[') => Some(State::Control),
            (State::Escape, ']' | 'P' | '_' | '^' | 'X') => Some(State::String),
            (State::Escape | State::Designation, ' '..='/') => Some(State::Designation),
            (State::Escape | State::Designation, '0'..='~') => Some(State::Text),
            (State::Control, ' '..='?') => Some(State::Control),
            (State::Control, '@'..='~') => Some(State::Text),
            (State::String, '\u{7}' | '\u{9c}') => Some(State::Text),
            (State::String, '\u{1b}') => Some(State::StringEscape),
            (State::String, c) if !c.is_control() => Some(State::String),
            (State::StringEscape, '\\') => Some(State::Text),
            _ => None,
        }
    }

    /// The end of the text: an unfinished sequence is not one.
    pub(super) fn finish(&mut self, found: &mut impl FnMut(Found<'_>)) {
        if !self.raw.is_empty() {
            found(Found::Broken(&self.raw));
        }
        self.raw.clear();
        self.state = State::Text;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> String {
        let (mut sequences, mut out) = (Sequences::default(), String::new());
        let mut tell = |found: Found<'_>| match found {
            Found::Character(c) => out.push(c),
            Found::Control(parameters, last) => out += &format!("<{parameters}|{last}>"),
            Found::Broken(raw) => out += &format!("({raw})"),
        };
        text.chars().for_each(|c| sequences.push(c, &mut tell));
        sequences.finish(&mut tell);
        out
    }

    #[test]
    fn sequences_are_told_from_text_and_what_is_none_stays_text() {
        for (text, expected) in [
            ("a\u{1b}[31mb\u{1b}[Kc\u{1b}[?25l", "a<31|m>b<|K>c<?25|l>"),
            ("\u{1b}]0;title\u{7}a\u{1b}]8;;http://x/\u{1b}\\link\u{1b}]8;;\u{9c}", "alink"),
            ("\u{1b}P1$r\u{1b}\\a\u{1b}_G\u{1b}\\\u{1b}(Bb\u{1b}7c\u{1b}#8", "abc"),
            ("\u{1b}[12", "(\u{1b}[12)"),
            ("\u{1b}[1\u{1b}[2m", "(\u{1b}[1)<2|m>"),
            ("\u{1b}[1\n", "(\u{1b}[1)\n"),
            ("\u{1b}]0;never ends\nnext", "(\u{1b}]0;never ends)\nnext"),
            ("\u{1b}]0;x\u{1b}[1m", "(\u{1b}]0;x\u{1b})[1m"),
            ("\u{1b}\u{1b}", "(\u{1b})(\u{1b})"),
            ("\u{1b}é\u{9b}31m", "(\u{1b})é\u{9b}31m"),
        ] {
            assert_eq!(found(text), expected, "{text:?}");
        }
        let endless = format!("\u{1b}]0;{}", "x".repeat(10_000));
        assert_eq!(found(&endless).replace(['(', ')'], ""), endless, "nothing is swallowed");
    }
}
