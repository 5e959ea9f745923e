//! What is printed at the end.

/// Two values of the same kind, measured in turns.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pair {
    pub(crate) ours: f64,
    pub(crate) theirs: f64,
    /// Median of the rounds' ratios, not the ratio of the medians: what slows a round slows both.
    pub(crate) ratio: f64,
}

/// A figure beside what it is compared with.
struct Row {
    figure: String,
    unit: &'static str,
    pair: Pair,
    beside: String,
}

/// Rows in the order they were measured.
pub(crate) struct Table {
    rows: Vec<Row>,
}

impl Table {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    /// A figure with its ceiling or peer.
    pub(crate) fn add(&mut self, figure: impl Into<String>, unit: &'static str, pair: Pair, beside: impl Into<String>) {
        self.rows.push(Row { figure: figure.into(), unit, pair, beside: beside.into() });
    }

    /// A figure that is measured once, with what it is compared with.
    pub(crate) fn compare(
        &mut self,
        figure: impl Into<String>,
        unit: &'static str,
        ours: f64,
        theirs: f64,
        beside: impl Into<String>,
    ) {
        self.add(figure, unit, Pair { ours, theirs, ratio: ours / theirs }, beside);
    }

    /// A table that is also Markdown.
    pub(crate) fn print(&self) {
        let mut lines = vec![["figure", "unit", "ours", "beside", "ratio", "beside what"].map(str::to_owned)];
        for row in &self.rows {
            let Row { figure, unit, pair, beside } = row;
            let values = [number(pair.ours), number(pair.theirs), format!("{:.2}", pair.ratio)];
            let [ours, theirs, ratio] = values;
            lines.push([figure.clone(), (*unit).to_owned(), ours, theirs, ratio, beside.clone()]);
        }
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 6] = std::array::from_fn(width);
        let rule = widths.map(|width| "-".repeat(width));
        lines.insert(1, rule);
        for line in lines {
            let cells: Vec<String> = line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            println!("| {} |", cells.join(" | "));
        }
        println!("\nratio = ours / beside: of rates more is better, of times and sizes less");
    }
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}
