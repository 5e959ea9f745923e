//! Colours and emphasis in a program's output: SGR sequences, read and written. Those that hide text (conceal, blink) are
//! not included.

use std::fmt::Write;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Color {
    #[default]
    Default,
    Indexed(u8),
    Rgb(u8, u8, u8),
}

/// SGR numbers for bold, dim, italic, underlined, inverse and struck out.
const EMPHASES: [u16; 6] = [1, 2, 3, 4, 7, 9];

/// How a character is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Pen {
    foreground: Color,
    background: Color,
    emphases: [bool; EMPHASES.len()],
}

impl Pen {
    /// The pen for a stream that is shown differently from the other.
    pub(super) const YELLOW: Self =
        Self { foreground: Color::Indexed(3), background: Color::Default, emphases: [false; EMPHASES.len()] };

    /// The pen for what is only beside the matter.
    pub(super) const DIM: Self = Self {
        foreground: Color::Default,
        background: Color::Default,
        emphases: [false, true, false, false, false, false],
    };

    /// Applies the parameters of an SGR sequence.
    pub(super) fn apply(&mut self, parameters: &str) {
        let mut groups = parameters.split(';');
        while let Some(group) = groups.next() {
            let mut parts = group.split(':');
            let number = parts.next().and_then(number);
            match number {
                // Colons bind a colour's numbers to it; semicolons make them separate parameters.
                Some(which @ (38 | 48)) => {
                    let color = if group.contains(':') { color(parts, true) } else { color(&mut groups, false) };
                    // The following ones may belong to it.
                    let Some(color) = color else { return };
                    *(if which == 38 { &mut self.foreground } else { &mut self.background }) = color;
                }
                // `4:0` means no underline.
                Some(4) if group == "4:0" => self.emphasize(4, false),
                Some(number) => self.apply_number(number),
                None => {}
            }
        }
    }

    fn apply_number(&mut self, number: u16) {
        let indexed = |base: u16, from: u8| Color::Indexed(u8::try_from(number - base).unwrap_or_default() + from);
        match number {
            0 => *self = Self::default(),
            21 => self.emphasize(4, true),
            22 => {
                self.emphasize(1, false);
                self.emphasize(2, false);
            }
            23 | 24 | 27 | 29 => self.emphasize(number - 20, false),
            30..=37 => self.foreground = indexed(30, 0),
            39 => self.foreground = Color::Default,
            40..=47 => self.background = indexed(40, 0),
            49 => self.background = Color::Default,
            90..=97 => self.foreground = indexed(90, 8),
            100..=107 => self.background = indexed(100, 8),
            _ => self.emphasize(number, true),
        }
    }

    fn emphasize(&mut self, number: u16, on: bool) {
        if let Some(n) = EMPHASES.iter().position(|known| *known == number) {
            self.emphases[n] = on;
        }
    }

    /// This pen, with the other's settings where nothing was chosen.
    pub(super) fn or(self, other: Self) -> Self {
        if self == Self::default() { other } else { self }
    }

    /// Writes a piece of a line with this pen.
    pub(super) fn draw(self, out: &mut String, text: &str) {
        if self == Self::default() {
            return out.push_str(text);
        }
        let emphases = EMPHASES.iter().zip(self.emphases).filter(|(_, on)| *on).map(|(number, _)| number.to_string());
        let codes: Vec<_> = emphases.chain(code(self.foreground, 30)).chain(code(self.background, 40)).collect();
        // Writing to a string cannot fail.
        let _ = write!(out, "\u{1b}[{}m{text}\u{1b}[0m", codes.join(";"));
    }
}

/// A missing number is 0, as SGR defines.
fn number(text: &str) -> Option<u16> {
    if text.is_empty() { Some(0) } else { text.parse().ok() }
}

/// The colour after 38 or 48: `5;n` or `2;r;g;b`, with colons `2::r:g:b` too.
fn color<'a>(mut numbers: impl Iterator<Item = &'a str>, colons: bool) -> Option<Color> {
    let byte = |text: Option<&str>| u8::try_from(number(text?)?).ok();
    match numbers.next() {
        Some("5") => byte(numbers.next()).map(Color::Indexed),
        Some("2") => {
            let numbers: Vec<_> = if colons { numbers.collect() } else { numbers.take(3).collect() };
            // With colons a colour space, usually empty, may come first.
            let [r, g, b, ..] = numbers[usize::from(numbers.len() > 3)..] else { return None };
            Some(Color::Rgb(byte(Some(r))?, byte(Some(g))?, byte(Some(b))?))
        }
        _ => None,
    }
}

fn code(color: Color, base: u16) -> Option<String> {
    match color {
        Color::Default => None,
        Color::Indexed(n @ 0..8) => Some((base + u16::from(n)).to_string()),
        Color::Indexed(n @ 8..16) => Some((base + 52 + u16::from(n)).to_string()),
        Color::Indexed(n) => Some(format!("{};5;{n}", base + 8)),
        Color::Rgb(r, g, b) => Some(format!("{};2;{r};{g};{b}", base + 8)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pen_is_what_the_sequences_made_of_it() {
        let drawn = |parameters: &[&str]| {
            let (mut pen, mut out) = (Pen::default(), String::new());
            parameters.iter().for_each(|parameters| pen.apply(parameters));
            pen.draw(&mut out, "x");
            out.trim_end_matches("\u{1b}[0m").trim_end_matches('x').replace('\u{1b}', "")
        };
        for (parameters, expected) in [
            (&["31"][..], "[31m"),
            (&["1;31", "42"], "[1;31;42m"),
            (&["1;2;4", "22"], "[4m"),
            (&["91;107"], "[91;107m"),
            (&["38;5;200;1"], "[1;38;5;200m"),
            (&["38;2;1;2;3;4"], "[4;38;2;1;2;3m"),
            (&["38:2:1:2:3", "48:2::4:5:6"], "[38;2;1;2;3;48;2;4;5;6m"),
            (&["38:5:3;4:3"], "[4;33m"),
            (&["4", "4:0"], ""),
            (&["31", ""], ""),
            (&["31", "0;0;;m", "99999", "38", "38;9;9", "48;5;999"], ""),
            // Text is never hidden.
            (&["8", "5", "6"], ""),
        ] {
            assert_eq!(drawn(parameters), expected, "{parameters:?}");
        }
    }
}
