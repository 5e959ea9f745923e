//! One line of a program's output as a terminal would show it: later text overwrites earlier text.

use unicode_width::UnicodeWidthChar;

use super::pen::Pen;
use crate::output::escape;

/// Most characters of a line that are kept so that they can be overwritten.
pub(super) const MAX_LINE: usize = 8 * 1024;

/// A cell of the line: a character with its combining marks; empty in the right half of a wide one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Cell {
    text: String,
    pen: Pen,
}

impl Cell {
    fn blank() -> Self {
        Self { text: " ".to_owned(), pen: Pen::default() }
    }

    fn marks(&self) -> usize {
        self.text.chars().count().saturating_sub(1)
    }
}

/// A line.
#[derive(Debug, Default)]
pub(super) struct Line {
    cells: Vec<Cell>,
    cursor: usize,
    /// Combining marks in the cells.
    marks: usize,
    /// Leftmost cell changed since it was last asked for.
    changed: Option<usize>,
}

impl Line {
    /// Writes a character; an invisible one is escaped.
    pub(super) fn write(&mut self, c: char, pen: Pen) {
        let before = self.before().and_then(|at| self.cells[at].text.chars().last());
        if c == '\t' {
            // Kept as it is: whoever reads the line may rely on it.
            self.put(c, 1, pen);
        } else if escape::is_written_out(c, before) {
            c.escape_default().for_each(|c| self.put(c, 1, pen));
        } else {
            self.put(c, c.width().unwrap_or(1), pen);
        }
    }

    /// The character left of the cursor.
    fn before(&self) -> Option<usize> {
        self.cells[..self.cursor.min(self.cells.len())].iter().rposition(|cell| !cell.text.is_empty())
    }

    fn put(&mut self, c: char, width: usize, pen: Pen) {
        if width == 0
            && let Some(at) = self.before()
        {
            self.cells[at].text.push(c);
            self.marks += 1;
            return self.touch(at);
        }
        while self.cells.len() < self.cursor {
            self.set(self.cells.len(), Cell::blank());
        }
        self.split(self.cursor);
        self.split(self.cursor + width.max(1));
        self.set(self.cursor, Cell { text: c.to_string(), pen });
        for right in 1..width {
            self.set(self.cursor + right, Cell { text: String::new(), pen });
        }
        self.cursor += width.max(1);
    }

    fn set(&mut self, at: usize, cell: Cell) {
        self.touch(at);
        match self.cells.get_mut(at) {
            Some(old) => self.marks -= std::mem::replace(old, cell).marks(),
            None => self.cells.push(cell),
        }
    }

    fn touch(&mut self, at: usize) {
        self.changed = Some(self.changed.map_or(at, |changed| changed.min(at)));
    }

    /// If a wide character is cut in two, nothing of it is left.
    fn split(&mut self, at: usize) {
        if at > 0 && self.cells.get(at).is_some_and(|cell| cell.text.is_empty()) {
            self.set(at - 1, Cell::blank());
            self.set(at, Cell::blank());
        }
    }

    /// Carries out movements on the line and erasures; anything else has no meaning here.
    pub(super) fn control(&mut self, parameters: &str, last: char) {
        let count = if parameters.is_empty() { Ok(0) } else { parameters.parse::<usize>() };
        let Ok(count) = count.map(|count| count.min(MAX_LINE)) else { return };
        match (last, count) {
            ('C', count) => self.cursor = (self.cursor + count.max(1)).min(MAX_LINE),
            ('D', count) => self.cursor = self.cursor.saturating_sub(count.max(1)),
            ('G', count) => self.cursor = count.max(1) - 1,
            ('K', 0) => self.erase(self.cursor, self.cells.len()),
            ('K', 1) => self.erase(0, self.cursor + 1),
            ('K', 2) => self.erase(0, self.cells.len()),
            _ => {}
        }
    }

    fn erase(&mut self, from: usize, to: usize) {
        if from >= self.cells.len() {
            return;
        }
        self.split(from);
        self.split(to);
        if to < self.cells.len() {
            (from..to).for_each(|at| self.set(at, Cell::blank()));
        } else {
            self.marks -= self.cells.drain(from..).map(|cell| cell.marks()).sum::<usize>();
            self.touch(from);
        }
    }

    pub(super) fn carriage_return(&mut self) {
        self.cursor = 0;
    }

    pub(super) fn back(&mut self) {
        self.cursor = self.cursor.saturating_sub(1);
    }

    pub(super) fn is_full(&self) -> bool {
        self.cells.len() + self.marks >= MAX_LINE
    }

    pub(super) fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.cells.len()
    }

    /// Columns it takes at most.
    pub(super) fn width(&self) -> usize {
        self.cells.iter().map(|cell| if cell.text == "\t" { 8 } else { 1 }).sum()
    }

    /// Leftmost cell changed since this was last asked for; none if nothing has.
    pub(super) fn take_changed(&mut self) -> Option<usize> {
        self.changed.take()
    }

    /// Draws everything from a cell on.
    pub(super) fn draw(&self, out: &mut String, from: usize, colors: bool) {
        for run in self.cells[from.min(self.cells.len())..].chunk_by(|a, b| a.pen == b.pen) {
            let text: String = run.iter().map(|cell| cell.text.as_str()).collect();
            let pen = run.first().map(|cell| cell.pen).filter(|_| colors).unwrap_or_default();
            pen.draw(out, &text);
        }
    }
}
