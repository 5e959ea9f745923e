//! What is printed: tables, JSON, names; data on standard output and all else on standard error.

pub(crate) mod duration;
pub(crate) mod escape;
pub(crate) mod table;

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use clap::ValueEnum;

/// Form of the data on standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// Aligned columns for people
    #[default]
    Table,
    /// The API's JSON, unchanged (indented on a terminal); live events one a line
    Json,
    /// Ids only, one a line
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
        // A writer is usable whatever its last user did.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, style: Style, text: &str) -> io::Result<()> {
        let mut writer = self.writer();
        if self.color && style != Style::Plain {
            // A style must not span lines: a reader that shows lines apart would lose it.
            for line in text.split_inclusive('\n') {
                let (body, end) = line.strip_suffix('\n').map_or((line, ""), |body| (body, "\n"));
                write!(writer, "{}{body}\u{1b}[0m{end}", style.code())?;
            }
        } else {
            writer.write_all(text.as_bytes())?;
        }
        writer.flush()
    }
}

/// Standard output and standard error.
pub(crate) struct Console {
    out: Sink,
    err: Sink,
    quiet: bool,
}

impl Console {
    /// The process's own streams; colours only on a terminal.
    pub(crate) fn of_process(color: bool, quiet: bool) -> Self {
        let (out, err) = (io::stdout(), io::stderr());
        let (out_terminal, err_terminal) = (out.is_terminal(), err.is_terminal());
        Self {
            out: Sink::new(Box::new(out), out_terminal, color),
            err: Sink::new(Box::new(err), err_terminal, color),
            quiet,
        }
    }

    /// Whether standard output is a terminal.
    pub(crate) fn out_is_terminal(&self) -> bool {
        self.out.terminal
    }

    /// Data, as it is.
    pub(crate) fn bytes(&self, bytes: &[u8]) -> io::Result<()> {
        let mut writer = self.out.writer();
        writer.write_all(bytes)?;
        writer.flush()
    }

    /// Data; the caller has escaped it.
    pub(crate) fn data(&self, text: &str) -> io::Result<()> {
        self.out.write(Style::Plain, text)
    }

    /// Styled data; the caller has escaped it.
    pub(crate) fn styled(&self, style: Style, text: &str) -> io::Result<()> {
        self.out.write(style, text)
    }

    /// JSON of the API: unchanged, but readable and harmless on a terminal.
    pub(crate) fn json(&self, source: &str) -> io::Result<()> {
        let text = if self.out.terminal { escape::json(source) } else { source.trim_end().to_owned() };
        self.data(&(text + "\n"))
    }

    /// A line of progress; not said when quiet. There is nobody to tell when standard error is closed.
    pub(crate) fn progress(&self, style: Style, line: &str) {
        if !self.quiet {
            let _ = self.err.write(style, &format!("{line}\n"));
        }
    }

    /// A line of advice; not said when quiet.
    pub(crate) fn note(&self, line: &str) {
        self.progress(Style::Plain, line);
    }

    /// A line that is said also when quiet.
    pub(crate) fn warn(&self, line: &str) {
        let _ = self.err.write(Style::Yellow, &format!("{line}\n"));
    }

    /// An error's report.
    pub(crate) fn error(&self, report: &str) {
        // Whatever was typed: terminals and their logs are kept.
        let _ = self.err.write(Style::Red, &ambient_wire::redact::text(report));
    }
}

#[cfg(test)]
pub(crate) mod capture {
    //! A console whose output can be read.

    use std::sync::Arc;

    use super::*;

    /// What was written to a stream.
    #[derive(Clone, Default)]
    pub(crate) struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        pub(crate) fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
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
        (Arc::new(Console { out: sink(&out), err: sink(&err), quiet: false }), out, err)
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
