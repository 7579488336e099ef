//! Tables for the terminal.

use comfy_table::{CellAlignment, Table, presets::UTF8_FULL_CONDENSED};

/// A table whose first column is text and whose others are numbers.
pub(crate) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_header(header.to_vec());
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A figure with its standard error to so many digits, "–" where there is none.
pub(crate) fn with_error(figure: String, error: Option<f64>, digits: usize) -> String {
    match error {
        Some(error) => format!("{figure} ± {error:.digits$}"),
        None => format!("{figure} ± –"),
    }
}
