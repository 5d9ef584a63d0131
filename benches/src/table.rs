//! Tables for people.

use comfy_table::{Cell, Table, presets};

/// A table of measurements, printed when it is done.
pub(crate) struct Report {
    title: String,
    table: Table,
}

impl Report {
    /// A table with a title and column names.
    pub(crate) fn new(title: &str, columns: &[&str]) -> Self {
        let mut table = Table::new();
        table.load_style(presets::ASCII_MARKDOWN).set_header(columns);
        Self { title: title.to_owned(), table }
    }

    /// Adds a row.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.table.add_row(cells.into_iter().map(Cell::new));
    }

    /// Prints it.
    pub(crate) fn print(self) {
        println!("\n## {}\n\n{}", self.title, self.table);
    }
}

/// A rate, by people.
pub(crate) fn rate(per_second: f64) -> String {
    if per_second >= 100.0 { format!("{per_second:.0}/s") } else { format!("{per_second:.1}/s") }
}

/// A ratio, by people.
pub(crate) fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

/// Mebibytes, by people.
pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / 1_048_576.0)
}
