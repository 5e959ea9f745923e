//! One object: names and values, one per line.

use std::fmt::Write;

use super::escape;

/// Lines of a name and its value. No value can start a line of its own.
#[derive(Debug)]
pub(crate) struct Fields {
    width: usize,
    text: String,
}

impl Fields {
    /// Values start in column `width`.
    pub(crate) fn new(width: usize) -> Self {
        Self { width, text: String::new() }
    }

    /// Adds a value that is shown on one line.
    pub(crate) fn add(&mut self, name: &str, value: impl AsRef<str>) {
        self.line(&format!("{name}:"), value.as_ref());
    }

    /// Adds a text of several lines, aligned under each other.
    pub(crate) fn add_text(&mut self, name: &str, text: &str) {
        let mut label = format!("{name}:");
        for line in text.trim_end().lines() {
            self.line(&std::mem::take(&mut label), line);
        }
    }

    fn line(&mut self, label: &str, value: &str) {
        let (label, value) = (escape::line(label), escape::line(value));
        // Writing to a string cannot fail.
        let _ = writeln!(self.text, "{}", format!("{label:<width$}{value}", width = self.width).trim_end());
    }

    pub(crate) fn into_text(self) -> String {
        self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_value_looks_like_another_field() {
        let mut fields = Fields::new(9);
        fields.add("Name", "x\nPhase:   Completed\u{200b}");
        fields.add_text("Prompt", "one\nPhase:   Completed\n\n");
        fields.add("Version", "3");
        insta::assert_snapshot!(fields.into_text(), @r"
        Name:    x\nPhase:   Completed\u{200b}
        Prompt:  one
                 Phase:   Completed
        Version: 3
        ");
    }
}
