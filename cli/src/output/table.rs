//! Aligned columns.

use unicode_width::UnicodeWidthStr;

use super::escape;

/// Rows under a heading; the last column is never padded.
#[derive(Debug)]
pub(crate) struct Table {
    headings: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(headings: [&'static str; N]) -> Self {
        Self { headings: headings.to_vec(), rows: Vec::new() }
    }

    /// A table whose headings are not known at compile time.
    pub(crate) fn of(headings: Vec<&'static str>) -> Self {
        Self { headings, rows: Vec::new() }
    }

    /// Adds a row; cells are shown on one line, and as `-` if empty.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.add(cells.into());
    }

    /// Like [`Table::row`], with as many cells as there are headings.
    pub(crate) fn add(&mut self, cells: Vec<String>) {
        let shown = |cell: String| if cell.is_empty() { "-".to_owned() } else { escape::line(&cell).into_owned() };
        self.rows.push(cells.into_iter().map(shown).collect());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The table, each line preceded by `indent`.
    pub(crate) fn render(&self, indent: &str) -> String {
        let headings: Vec<String> = self.headings.iter().map(|&heading| heading.to_owned()).collect();
        let mut widths = vec![0; headings.len()];
        for row in self.rows.iter().chain([&headings]) {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width());
            }
        }
        let mut text = String::new();
        for row in [&headings].into_iter().chain(&self.rows) {
            let mut line = indent.to_owned();
            for (cell, width) in row.iter().zip(&widths) {
                line += cell;
                line.extend(std::iter::repeat_n(' ', width + 3 - cell.width()));
            }
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// `value` cut to `limit` characters, with an ellipsis.
pub(crate) fn cut(value: &str, limit: usize) -> String {
    if value.chars().count() <= limit {
        return value.to_owned();
    }
    value.chars().take(limit.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_cells_stay_on_their_line() {
        let mut table = Table::new(["NAME", "PHASE", "REASON"]);
        table.row(["demo".to_owned(), "Running".to_owned(), String::new()]);
        table.row(["a longer näme".to_owned(), "New".to_owned(), "two\nlines".to_owned()]);
        insta::assert_snapshot!(table.render(""), @r"
        NAME            PHASE     REASON
        demo            Running   -
        a longer näme   New       two\nlines
        ");
    }

    #[test]
    fn long_values_are_cut_between_characters() {
        assert_eq!(cut("übermäßig", 5), "über…");
        assert_eq!(cut("kurz", 5), "kurz");
    }
}
