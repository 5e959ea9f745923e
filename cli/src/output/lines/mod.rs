//! A program's output, line by line, as a terminal would show it: progress bars leave their last state, colours are kept
//! where there are any, and no other terminal control gets through.
//!
//! On a terminal a line is written while it grows and changes, to a file once it has ended. The part of a line that is kept has a
//! limit; what is beyond it is written and stays.

mod line;
mod pen;
mod sequence;

use std::{io, sync::Arc};

use self::{
    line::Line,
    pen::Pen,
    sequence::{Found, Sequences},
};
use super::Console;

/// Where a text comes from. Sequences and colours of one source do not affect another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The agent's text.
    Words,
    /// Standard output of a tool.
    Output,
    /// Standard error of a tool.
    Errors,
    /// What the agent thinks.
    Thoughts,
    /// What a call came to, in a line of ours.
    Calls,
}

#[derive(Debug, Default)]
struct Stream {
    sequences: Sequences,
    pen: Pen,
}

/// The line in progress, on standard output.
pub(crate) struct Lines {
    console: Arc<Console>,
    streams: [Stream; 5],
    canvas: Canvas,
}

impl Lines {
    pub(crate) fn new(console: Arc<Console>) -> Self {
        let canvas = Canvas { colors: console.has_colors(), ..Canvas::default() };
        Self { console, streams: Default::default(), canvas }
    }

    /// Writes a piece of text.
    pub(crate) fn write(&mut self, source: Source, text: &str) -> io::Result<()> {
        let Stream { sequences, pen } = &mut self.streams[source as usize];
        let (canvas, base) = (&mut self.canvas, base(source));
        (canvas.live, canvas.columns) = (self.console.redraws(), self.console.columns());
        for c in text.chars() {
            sequences.push(c, &mut |found| canvas.take(&found, pen, base));
        }
        self.flush()
    }

    /// The end of a source's text: any open sequence or colour of it ends.
    pub(crate) fn end(&mut self, source: Source) -> io::Result<()> {
        let Stream { sequences, pen } = &mut self.streams[source as usize];
        sequences.finish(&mut |found| self.canvas.take(&found, pen, base(source)));
        *pen = Pen::default();
        self.end_line()
    }

    /// Ends the line in progress.
    pub(crate) fn end_line(&mut self) -> io::Result<()> {
        if self.canvas.has_begun() {
            self.canvas.new_line();
        }
        self.flush()
    }

    fn flush(&mut self) -> io::Result<()> {
        self.canvas.update();
        let out = std::mem::take(&mut self.canvas.out);
        if out.is_empty() { Ok(()) } else { self.console.drawn(&out) }
    }
}

impl Drop for Lines {
    /// A last resort if the caller did not end the line. If that fails there is nobody to report to.
    fn drop(&mut self) {
        let _ = self.end_line();
    }
}

fn base(source: Source) -> Pen {
    match source {
        Source::Errors => Pen::YELLOW,
        Source::Thoughts => Pen::DIM,
        Source::Words | Source::Output | Source::Calls => Pen::default(),
    }
}

/// The current line, and what still has to be written of it.
#[derive(Default)]
struct Canvas {
    out: String,
    line: Line,
    /// Cells that are on the terminal, and whether they have changed since.
    drawn: usize,
    is_stale: bool,
    /// Whether the start of the line is no longer kept and the cursor went back to it.
    is_torn: bool,
    is_back: bool,
    live: bool,
    colors: bool,
    columns: usize,
}

impl Canvas {
    fn take(&mut self, found: &Found<'_>, pen: &mut Pen, base: Pen) {
        match *found {
            Found::Character('\n') => self.new_line(),
            Found::Character('\r') => {
                self.line.carriage_return();
                self.is_back = self.is_torn;
            }
            Found::Character('\u{8}') => self.line.back(),
            Found::Character(c) => self.write(c, pen.or(base)),
            // Other sequences with that final character are private to a terminal.
            Found::Control(parameters, 'm') if parameters.bytes().all(|b| matches!(b, b'0'..=b'9' | b';' | b':')) => {
                pen.apply(parameters);
            }
            Found::Control(parameters, last) => self.line.control(parameters, last),
            Found::Broken(raw) => raw.chars().for_each(|c| self.write(c, base)),
        }
    }

    fn write(&mut self, c: char, pen: Pen) {
        if self.is_back {
            // What is written but not kept cannot be overwritten.
            self.new_line();
        }
        self.line.write(c, pen);
        if self.line.is_full() {
            self.settle();
            self.is_torn = true;
        }
    }

    fn has_begun(&self) -> bool {
        self.is_torn || self.drawn > 0 || !self.line.is_empty()
    }

    fn new_line(&mut self) {
        self.settle();
        self.out.push('\n');
        (self.is_torn, self.is_back) = (false, false);
    }

    /// Writes the rest of the line, and keeps none of it.
    fn settle(&mut self) {
        self.update();
        if std::mem::take(&mut self.is_stale) {
            // It could not be redrawn over what was there.
            self.out.push('\n');
            self.drawn = 0;
        }
        self.line.draw(&mut self.out, self.drawn, self.colors);
        self.line = Line::default();
        self.drawn = 0;
    }

    /// Brings a terminal up to date, as far as that can be done in place: on one row.
    fn update(&mut self) {
        if !self.live {
            return;
        }
        self.is_stale |= self.line.take_changed().is_some_and(|changed| changed < self.drawn);
        if self.is_stale {
            if self.is_torn || self.line.width().max(self.drawn) >= self.columns {
                return;
            }
            self.out.push('\r');
            self.line.draw(&mut self.out, 0, self.colors);
            self.out.push_str("\u{1b}[K");
            self.is_stale = false;
        } else {
            self.line.draw(&mut self.out, self.drawn, self.colors);
        }
        self.drawn = self.line.len();
    }
}

#[cfg(test)]
mod tests;
