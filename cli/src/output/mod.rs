//! What is printed: tables, JSON, names; data on standard output and everything else on standard error.

pub(crate) mod duration;
pub(crate) mod escape;
pub(crate) mod fields;
pub(crate) mod figures;
pub(crate) mod lines;
pub(crate) mod table;

use std::{
    io::{self, IsTerminal, Write},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::ValueEnum;

/// Format of the data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns for people
    #[default]
    Table,
    /// The API's JSON, unchanged (indented on a terminal); live events one per line
    Json,
    /// Ids only, one per line
    Name,
}

/// An ANSI style.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Bold,
    Dim,
    Red,
    Green,
    Yellow,
    Cyan,
}

impl Style {
    fn code(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Bold => "\u{1b}[1m",
            Self::Dim => "\u{1b}[2m",
            Self::Red => "\u{1b}[31m",
            Self::Green => "\u{1b}[32m",
            Self::Yellow => "\u{1b}[33m",
            Self::Cyan => "\u{1b}[36m",
        }
    }
}

/// One of the two streams.
struct Sink {
    writer: Mutex<Box<dyn Write + Send>>,
    terminal: bool,
    color: bool,
}

impl Sink {
    fn new(writer: Box<dyn Write + Send>, terminal: bool, color: bool) -> Self {
        Self { writer: Mutex::new(writer), terminal, color: color && terminal }
    }

    fn writer(&self) -> MutexGuard<'_, Box<dyn Write + Send>> {
        // A writer is usable whatever its last user did with it.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Text for people: escaped, whoever wrote it.
    fn write(&self, style: Style, text: &str) -> io::Result<()> {
        let text = escape::text(text);
        if !self.color || style == Style::Plain {
            return self.exact(text.as_bytes());
        }
        // A style must not span lines: a reader that shows lines separately would lose it.
        let line = |line: &str| {
            let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
            format!("{}{body}\u{1b}[0m{end}", style.code())
        };
        self.exact(text.split_inclusive('\n').map(line).collect::<String>().as_bytes())
    }

    fn exact(&self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.writer();
        writer.write_all(bytes)?;
        writer.flush()
    }
}

/// Standard output and standard error. What is written for people is escaped here (see [`escape`]); what is written for
/// programs, to anything but a terminal, is exact.
pub(crate) struct Console {
    out: Sink,
    err: Sink,
    quiet: bool,
    /// Whether a line on standard output can be redrawn. While something else draws there, it cannot.
    redraws: Arc<AtomicBool>,
    /// A width that is not asked for.
    width: Option<usize>,
}

impl Console {
    /// The process's own streams; colours only on a terminal, and redrawing only if it supports that.
    pub(crate) fn of_process(color: bool, dumb: bool, quiet: bool) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let (out_terminal, err_terminal) = (out.is_terminal(), err.is_terminal());
        Self {
            out: Sink::new(Box::new(out), out_terminal, color && !dumb),
            err: Sink::new(Box::new(err), err_terminal, color && !dumb),
            quiet,
            redraws: Arc::new(AtomicBool::new(out_terminal && !dumb)),
            width: None,
        }
    }

    /// A terminal that others write to too: whoever shares it decides when a line can be redrawn.
    pub(crate) fn shared<W: Write + Send + Clone + 'static>(
        writer: &W,
        redraws: Arc<AtomicBool>,
        color: bool,
        quiet: bool,
    ) -> Self {
        let sink = || Sink::new(Box::new(writer.clone()), true, color);
        Self { out: sink(), err: sink(), quiet, redraws, width: None }
    }

    /// Whether standard output is a terminal.
    pub(crate) fn out_is_terminal(&self) -> bool {
        self.out.terminal
    }

    /// Complete bytes: exact for programs, escaped text on a terminal.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stream = self.byte_stream(false);
        stream.write(bytes)?;
        stream.finish()
    }

    /// For bytes that arrive in pieces; `raw`: exact on a terminal too.
    pub(crate) fn byte_stream(&self, raw: bool) -> ByteStream<'_> {
        let pieces = (self.out.terminal && !raw).then(escape::Pieces::default);
        ByteStream { console: self, pieces }
    }

    /// Data for people.
    pub(crate) fn data(&self, text: &str) -> io::Result<()> {
        self.out.write(Style::Plain, text)
    }

    /// Styled data for people.
    pub(crate) fn styled(&self, style: Style, text: &str) -> io::Result<()> {
        self.out.write(style, text)
    }

    /// Names, one per line; exact for programs, unless one would take several lines.
    pub(crate) fn names<'a>(&self, names: impl Iterator<Item = &'a str>) -> io::Result<()> {
        let shown = |name: &'a str| {
            if self.out.terminal || name.contains('\n') { escape::line(name) } else { name.into() }.into_owned() + "\n"
        };
        self.out.exact(names.map(shown).collect::<String>().as_bytes())
    }

    /// JSON from the API: unchanged, but readable and escaped on a terminal.
    pub(crate) fn json(&self, source: &str) -> io::Result<()> {
        let text = if self.out.terminal { escape::json(source) } else { source.trim_end().to_owned() };
        self.out.exact((text + "\n").as_bytes())
    }

    /// JSON on one line: unchanged, but escaped on a terminal.
    pub(crate) fn json_line(&self, source: &str) -> io::Result<()> {
        let text = if self.out.terminal { escape::json_line(source) } else { source.to_owned() };
        self.out.exact((text + "\n").as_bytes())
    }

    /// A progress line; not printed when quiet. If standard error is closed there is nobody to report to.
    pub(crate) fn progress(&self, style: Style, line: &str) {
        if !self.quiet {
            let _ = self.err.write(style, &format!("{}\n", escape::line(line)));
        }
    }

    /// A hint; not printed when quiet.
    pub(crate) fn note(&self, line: &str) {
        self.progress(Style::Plain, line);
    }

    /// A line that is printed even when quiet.
    pub(crate) fn warn(&self, line: &str) {
        let _ = self.err.write(Style::Yellow, &format!("{line}\n"));
    }

    /// An error's report.
    pub(crate) fn error(&self, report: &str) {
        // Escaped whatever was typed: terminals and their logs are kept.
        let _ = self.err.write(Style::Red, &ambient_wire::redact::text(report));
    }

    fn redraws(&self) -> bool {
        self.redraws.load(Ordering::Relaxed)
    }

    pub(crate) fn has_colors(&self) -> bool {
        self.out.color
    }

    /// Width of the terminal.
    pub(crate) fn columns(&self) -> usize {
        if let Some(width) = self.width {
            return width;
        }
        let size = if self.out.terminal { terminal_size::terminal_size_of(io::stdout()) } else { None };
        size.map_or(80, |(width, _)| usize::from(width.0))
    }

    /// Prints what [`lines`] has drawn, which alone may contain escape sequences.
    fn drawn(&self, drawing: &str) -> io::Result<()> {
        self.out.exact(drawing.as_bytes())
    }
}

/// Bytes on their way to standard output.
pub(crate) struct ByteStream<'a> {
    console: &'a Console,
    /// On a terminal.
    pieces: Option<escape::Pieces>,
}

impl ByteStream<'_> {
    pub(crate) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.pieces {
            Some(pieces) => self.console.data(&pieces.push(bytes)),
            None => self.console.out.exact(bytes),
        }
    }

    /// Flushes the rest.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.pieces.as_mut().map_or(Ok(()), |pieces| self.console.data(&pieces.finish()))
    }
}

#[cfg(test)]
pub(crate) mod capture {
    //! A console whose output can be read back.

    use super::*;

    /// What was written to a stream.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn bytes(&self) -> Vec<u8> {
            self.0.lock().unwrap().clone()
        }
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.bytes()).unwrap()
        }
    }

    impl Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// A console, its standard output and its standard error.
    pub(crate) fn console(terminal: bool, color: bool) -> (Arc<Console>, Captured, Captured) {
        let (out, err) = (Captured::default(), Captured::default());
        let sink = |captured: &Captured| Sink::new(Box::new(captured.clone()), terminal, color);
        (
            Arc::new(Console {
                out: sink(&out),
                err: sink(&err),
                quiet: false,
                redraws: Arc::new(terminal.into()),
                width: Some(80),
            }),
            out,
            err,
        )
    }

    #[test]
    fn colours_are_for_terminals_only_and_never_span_lines() {
        let (plain, out, _) = console(false, true);
        plain.styled(Style::Red, "a\nb\n").unwrap();
        assert_eq!(out.text(), "a\nb\n");
        let (colored, out, _) = console(true, true);
        colored.styled(Style::Red, "a\nb\n").unwrap();
        assert_eq!(out.text(), "\u{1b}[31ma\u{1b}[0m\n\u{1b}[31mb\u{1b}[0m\n");
        let (terminal, out, _) = console(true, false);
        terminal.styled(Style::Red, "a").unwrap();
        assert_eq!(out.text(), "a");
    }

    #[test]
    fn json_is_unchanged_for_programs() {
        let (console, out, _) = console(false, false);
        console.json("{\"b\":1.0,\n \"a\":2}\n").unwrap();
        assert_eq!(out.text(), "{\"b\":1.0,\n \"a\":2}\n");
    }
}
