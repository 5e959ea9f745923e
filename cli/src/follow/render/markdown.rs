//! Markdown of an agent for a terminal, as it comes: headings, lists, quotes, code, emphasis; lines are broken between words.
//!
//! What comes out are the same words with sequences for colours, which [`crate::output::lines`] reads. A mark is left out only where its end is
//! known: until then the text is held back, and what turns out to be none stays as it was.

use unicode_width::UnicodeWidthChar;

/// Most of a line that is held back to see where an emphasis ends, bytes.
const MAX_HELD: usize = 300;
/// Narrowest terminal whose lines are broken.
const MIN_COLUMNS: usize = 20;

const BOLD: (&str, &str) = ("\u{1b}[1m", "\u{1b}[22m");
const ITALIC: (&str, &str) = ("\u{1b}[3m", "\u{1b}[23m");
const CODE: (&str, &str) = ("\u{1b}[36m", "\u{1b}[39m");
const DIM: (&str, &str) = ("\u{1b}[2m", "\u{1b}[22m");
const TITLE: (&str, &str) = ("\u{1b}[1;4m", "\u{1b}[22;24m");

/// A message in progress.
#[derive(Debug)]
pub(super) struct Markdown {
    columns: usize,
    /// What was not drawn yet of the line in progress.
    held: String,
    block: Block,
    /// Columns drawn of the line in progress.
    column: usize,
    /// Spaces before the next word, if there is one on this line.
    spaces: usize,
    /// What the lines begin with that it is broken into.
    indent: String,
    out: String,
}

/// What the line in progress is part of.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Block {
    /// Not known yet.
    Start,
    /// Words, in a style of their own.
    Words(Option<(&'static str, &'static str)>),
    /// As it is: a row of a table.
    Row,
    /// Code, until this fence.
    Code(String),
}

impl Markdown {
    pub(super) fn new() -> Self {
        Self {
            columns: 80,
            held: String::new(),
            block: Block::Start,
            column: 0,
            spaces: 0,
            indent: String::new(),
            out: String::new(),
        }
    }

    /// Draws what can be drawn.
    pub(super) fn push(&mut self, text: &str, columns: usize) -> String {
        self.columns = columns;
        for c in text.chars() {
            if c == '\n' {
                self.end_line();
            } else {
                self.held.push(c);
                self.look();
            }
        }
        std::mem::take(&mut self.out)
    }

    /// Draws the rest: the message has ended, or something else comes between. Code goes on after it.
    pub(super) fn finish(&mut self) -> String {
        if !self.held.is_empty() {
            self.begin(true);
            self.draw_line(true);
        }
        self.out.extend(std::iter::repeat_n(' ', std::mem::take(&mut self.spaces)));
        self.column = 0;
        if !matches!(self.block, Block::Code(_)) {
            self.block = Block::Start;
        }
        std::mem::take(&mut self.out)
    }

    /// A character has come.
    fn look(&mut self) {
        if self.block == Block::Start {
            self.begin(false);
        }
        match self.block {
            Block::Words(_) if self.held.ends_with([' ', '\t']) || self.held.len() > MAX_HELD => self.draw_line(false),
            _ => {}
        }
    }

    fn end_line(&mut self) {
        if self.block == Block::Start {
            self.begin(true);
        }
        self.draw_line(true);
        self.out.push('\n');
        (self.column, self.spaces) = (0, 0);
        if !matches!(self.block, Block::Code(_)) {
            self.block = Block::Start;
        }
    }

    /// Says what the line is, if that is known; at its end it is.
    fn begin(&mut self, is_whole: bool) {
        if self.block != Block::Start {
            return;
        }
        let text = self.held.trim_start();
        let before = self.held.len() - text.len();
        let marks = text.chars().take_while(|c| text.starts_with(*c)).count();
        let rest = text.get(marks..).unwrap_or_default();
        match text.chars().next() {
            Some('`' | '~') if marks >= 3 && !rest.contains('`') => {
                if is_whole {
                    self.fence(text[..marks].to_owned());
                }
            }
            Some('`' | '~') if rest.is_empty() && !is_whole => {}
            Some('#') if marks <= 6 && rest.starts_with(' ') => {
                let style = if marks == 1 { TITLE } else { BOLD };
                self.words(before + marks + 1, before, "", Some(style));
            }
            Some('-' | '*' | '_') if is_whole && marks >= 3 && rest.trim().is_empty() => {
                let rule = "─".repeat(self.columns.clamp(3, 40));
                self.held.clear();
                self.styled(DIM, &rule);
                self.block = Block::Row;
            }
            Some('-' | '*' | '+') if marks == 1 && rest.starts_with(' ') => {
                self.words(before + 2, before + 2, "• ", None);
            }
            Some('>') if rest.starts_with(' ') || !rest.is_empty() => {
                self.words(before + 1, before + 2, "│ ", Some(DIM));
            }
            Some('|') => self.block = Block::Row,
            Some('0'..='9') => {
                let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
                let number = text.len() - digits.len();
                match digits.strip_prefix(['.', ')']) {
                    Some(rest) if rest.starts_with(' ') && number <= 3 => {
                        let mark = text[..number + 2].to_owned();
                        self.words(before + number + 2, before + number + 2, &mark, None);
                    }
                    Some("") if !is_whole => {}
                    None if digits.is_empty() && !is_whole => {}
                    _ => self.words(0, before, "", None),
                }
            }
            // More of it may be a mark.
            Some('#' | '-' | '*' | '+' | '_' | '>') if rest.is_empty() && !is_whole => {}
            None if !is_whole => {}
            _ => self.words(0, before, "", None),
        }
    }

    /// The line is words, after a mark of `taken` bytes in whose place `mark` is drawn.
    fn words(&mut self, taken: usize, indent: usize, mark: &str, style: Option<(&'static str, &'static str)>) {
        if taken > 0 {
            let spaces = self.held.len() - self.held.trim_start().len();
            let begins = format!("{}{mark}", &self.held[..spaces]);
            self.held = self.held.split_off(taken.min(self.held.len())).trim_start().to_owned();
            self.column = width_of(&begins);
            self.styled(style.filter(|_| !mark.is_empty()).unwrap_or_default(), &begins);
        }
        let bar = if mark == "│ " { mark } else { "" };
        let indent = format!("{}{bar}", " ".repeat(indent - width_of(bar)));
        // A line that begins far to the right would have no room.
        self.indent = if width_of(&indent) * 2 < self.columns { indent } else { String::new() };
        self.block = Block::Words(style);
    }

    /// A line with a fence begins code.
    fn fence(&mut self, fence: String) {
        let line = std::mem::take(&mut self.held);
        self.styled(DIM, &line);
        self.block = Block::Code(fence);
    }

    fn draw_line(&mut self, is_whole: bool) {
        match self.block.clone() {
            Block::Start => {}
            Block::Row => {
                if is_whole {
                    let row = std::mem::take(&mut self.held);
                    self.out.push_str(&row);
                }
            }
            Block::Code(fence) => {
                if is_whole && !self.held.is_empty() {
                    let line = std::mem::take(&mut self.held);
                    let text = line.trim();
                    let closes = text.starts_with(&fence) && text.chars().all(|c| fence.starts_with(c));
                    self.styled(if closes { DIM } else { CODE }, &line);
                    if closes {
                        self.block = Block::Row;
                    }
                }
            }
            Block::Words(style) => {
                let (runs, is_open) = emphases(&self.held, is_whole || self.held.len() > MAX_HELD);
                if is_open {
                    return;
                }
                self.held.clear();
                self.draw_words(&runs, style);
            }
        }
    }

    fn styled(&mut self, (on, off): (&str, &str), text: &str) {
        self.out.push_str(on);
        self.out.push_str(text);
        self.out.push_str(off);
    }

    /// Draws words, and breaks the line where one does not fit.
    fn draw_words(&mut self, runs: &[Run], style: Option<(&'static str, &'static str)>) {
        let mut word: Vec<Run> = Vec::new();
        let letters = runs.iter().flat_map(|run| run.text.chars().map(move |c| (run.style, c)));
        for (emphasis, c) in letters {
            if c == ' ' {
                self.draw_word(&std::mem::take(&mut word), style);
                self.spaces += 1;
                continue;
            }
            match word.last_mut().filter(|last| last.style == emphasis) {
                Some(last) => last.text.push(c),
                None => word.push(Run { style: emphasis, text: c.to_string() }),
            }
        }
        self.draw_word(&word, style);
    }

    fn draw_word(&mut self, word: &[Run], style: Option<(&'static str, &'static str)>) {
        let width: usize = word.iter().map(|run| width_of(&run.text)).sum();
        if width == 0 {
            return;
        }
        let (begin, end) = style.unwrap_or_default();
        let spaces = std::mem::take(&mut self.spaces);
        // The last column stays free: some terminals break a line that ends in it.
        let fits = self.column + spaces + width < self.columns || self.columns < MIN_COLUMNS;
        if fits || self.column <= width_of(&self.indent) {
            self.out.extend(std::iter::repeat_n(' ', spaces));
            self.column += spaces;
        } else {
            let indent = self.indent.clone();
            self.out.push('\n');
            self.styled((begin, end), &indent);
            self.column = width_of(&indent);
        }
        for run in word {
            let (on, off) = run.style.unwrap_or_default();
            // A style that ends another's takes it up again.
            self.out.extend([begin, on, run.text.as_str(), off, end]);
        }
        self.column += width;
    }
}

fn width_of(text: &str) -> usize {
    text.chars().filter_map(UnicodeWidthChar::width).sum()
}

/// A piece of text with an emphasis.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Run {
    style: Option<(&'static str, &'static str)>,
    text: String,
}

/// The marks of emphases, the longer ones first. Two underscores are a part of names more often than a mark.
const MARKS: [(&str, (&str, &str)); 3] = [("**", BOLD), ("*", ITALIC), ("_", ITALIC)];

/// The emphases in a text, and whether one of them has not ended yet; in a whole text that is none.
fn emphases(text: &str, is_whole: bool) -> (Vec<Run>, bool) {
    let (mut runs, mut plain, mut is_open, mut at) = (Vec::new(), String::new(), false, 0);
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        let found = if c == '`' { code(rest) } else { emphasis(text, at) };
        match found {
            Some(Found { style, text: inner, length }) => {
                if !plain.is_empty() {
                    runs.push(Run { style: None, text: std::mem::take(&mut plain) });
                }
                runs.push(Run { style: Some(style), text: inner.to_owned() });
                at += length;
            }
            None => {
                let opens = c == '`' || opens(text, at).is_some();
                is_open |= opens && !is_whole;
                // All marks of one sort together: the rest of them is none either.
                let marks = if opens { rest.len() - rest.trim_start_matches(c).len() } else { c.len_utf8() };
                plain.push_str(&rest[..marks]);
                at += marks;
            }
        }
    }
    if !plain.is_empty() {
        runs.push(Run { style: None, text: plain });
    }
    (runs, is_open)
}

struct Found<'a> {
    style: (&'static str, &'static str),
    text: &'a str,
    length: usize,
}

/// Code at the start of a text: up to as many backticks as it begins with.
fn code(text: &str) -> Option<Found<'_>> {
    let marks = text.len() - text.trim_start_matches('`').len();
    let mut at = marks;
    while let Some(next) = text[at..].find('`') {
        let start = at + next;
        let run = text[start..].len() - text[start..].trim_start_matches('`').len();
        if run == marks {
            let inner = &text[marks..start];
            let inner = inner.strip_prefix(' ').and_then(|inner| inner.strip_suffix(' ')).unwrap_or(inner);
            return Some(Found { style: CODE, text: inner, length: start + marks });
        }
        at = start + run;
    }
    None
}

/// The mark of an emphasis that can begin here: no glob, no product, no name with underscores.
fn opens(text: &str, at: usize) -> Option<(&'static str, (&'static str, &'static str))> {
    let (mark, style) = MARKS.into_iter().find(|(mark, _)| text[at..].starts_with(mark))?;
    let before = text[..at].chars().next_back();
    let after = text[at + mark.len()..].chars().next();
    let is_free = before.is_none_or(|c| c.is_whitespace() || matches!(c, '(' | '[' | '"' | '\'' | '—' | ':'));
    // What comes next may not be known yet.
    let has_word = after.is_none_or(|c| c.is_alphanumeric() || matches!(c, '`' | '"' | '\'' | '(' | '['));
    (is_free && has_word).then_some((mark, style))
}

fn emphasis(text: &str, at: usize) -> Option<Found<'_>> {
    let (mark, style) = opens(text, at)?;
    let start = at + mark.len();
    let ends = text[start..].match_indices(mark).map(|(end, _)| start + end).find(|end| {
        let (inside, mut after) = (text[..*end].chars().next_back(), text[end + mark.len()..].chars());
        // A dot that is no full stop belongs to a name.
        let outside = after.next().and_then(|c| if c == '.' { after.next() } else { Some(c) });
        *end > start
            && inside.is_some_and(|c| !c.is_whitespace() && !mark.contains(c))
            && outside.is_none_or(|c| !c.is_alphanumeric() && !mark.contains(c))
    })?;
    let inner = &text[start..ends];
    // Code within stays readable without its marks.
    Some(Found { style, text: inner.trim_matches('`'), length: ends + mark.len() - at })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Drawn in pieces of that size, with colours as names.
    fn drawn(text: &str, columns: usize, size: usize) -> String {
        let mut markdown = Markdown::new();
        let letters: Vec<char> = text.chars().collect();
        let pieces = letters.chunks(size).map(|piece| markdown.push(&piece.iter().collect::<String>(), columns));
        let mut out: String = pieces.collect();
        out += &markdown.finish();
        let names = [
            ("1", "<b>"),
            ("22", "</>"),
            ("3", "<i>"),
            ("23", "</i>"),
            ("36", "<c>"),
            ("39", "</c>"),
            ("2", "<d>"),
            ("1;4", "<t>"),
            ("22;24", "</t>"),
        ];
        for (code, name) in names {
            out = out.replace(&format!("\u{1b}[{code}m"), name);
        }
        out
    }

    const SAMPLE: &str = "# Title\nSome **bold** and *slanted* words, `code` and\na [link](http://x).\n\n- first\n  - second `a b`\n10. tenth\n\
                          > quoted **words**\n\n```rust\nfn main() { a * b * c }\n\n```\n| a | b |\n---\nend";

    #[test]
    fn blocks_and_emphases_are_drawn_however_the_text_is_cut() {
        let whole = drawn(SAMPLE, 80, 1000);
        insta::assert_snapshot!(whole);
        for size in 1..9 {
            assert_eq!(drawn(SAMPLE, 80, size), whole, "pieces of {size}");
        }
    }

    #[test]
    fn what_is_no_emphasis_stays_as_it_is() {
        for text in [
            "2 * 3 * 4",
            "src/**/*.rs and *.md",
            "snake_case_name and __init__.py",
            "a ** b",
            "5 *",
            "**",
            "`",
            "a `b",
            "#5 is a number",
            "-1",
            "- ",
            "1.5 is more",
            "1986",
            "f(**kwargs) x",
            "*args, **kwargs",
            "<b>",
            "a_b_ c",
            "~",
            "2020. ",
        ] {
            for size in [1, 3, 100] {
                assert_eq!(drawn(text, 80, size).replace("• ", "- "), text, "pieces of {size}");
            }
        }
        assert_eq!(drawn("(**a**), **`b`**:", 80, 1), "(<b>a</>), <b>b</>:");
    }

    #[test]
    fn lines_are_broken_between_words_and_go_on_below_the_text() {
        let text = "- one two three four five six\nseven eight nine ten eleven\n";
        insta::assert_snapshot!(drawn(text, 20, 4), @r"
        • one two three
          four five six
        seven eight nine
        ten eleven
        ");
        let quoted = drawn("> one two three four\n", 20, 4);
        assert_eq!(quoted.replace("<d>", "").replace("</>", ""), "│ one two three\n│ four\n");
        let long = "x".repeat(50);
        assert_eq!(drawn(&long, 20, 7), long, "a word that is too long is the terminal's");
        assert_eq!(drawn("a b c d e f", 5, 1), "a b c d e f", "a terminal that is too narrow breaks lines itself");
    }

    #[test]
    fn something_in_between_takes_what_is_held() {
        let mut markdown = Markdown::new();
        assert_eq!(markdown.push("a **b", 80), "a");
        assert_eq!(markdown.finish(), " **b");
        assert_eq!(markdown.push("c** d", 80), "c**");
        assert_eq!(markdown.finish(), " d");
    }
}
