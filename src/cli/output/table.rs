//! Tables, which leave columns out where a terminal is narrow.

use std::fmt::Write as _;

use crate::sys::quote::printable;

/// What stands where nothing is known.
const NOTHING: &str = "-";

/// How many columns standard output has; `None` if it is not a terminal.
pub(crate) fn terminal_width() -> Option<usize> {
    let out = console::Term::stdout();
    let width = out.is_term().then(|| out.size_checked()).flatten()?.1;
    Some(width.into())
}

/// A cell of which nothing is known.
pub(crate) fn nothing() -> String {
    NOTHING.to_owned()
}

/// Columns as wide as their widest cell, two spaces apart, nothing behind the last.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
    given_up: Vec<String>,
}

impl Table {
    pub(crate) fn new(head: &[&str]) -> Self {
        Self {
            rows: vec![head.iter().map(|&name| name.to_owned()).collect()],
            given_up: Vec::new(),
        }
    }

    /// Columns to leave out, in this order, until the table fits.
    pub(crate) fn giving_up(mut self, names: &[&str]) -> Self {
        self.given_up = names.iter().map(|&name| name.to_owned()).collect();
        self
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells.into_iter().map(printable).collect());
    }

    /// The table. Where it is wider than the terminal it leaves out the columns that it may, one by one,
    /// and names them; where that is not enough, it is a block a row instead.
    pub(crate) fn render(&self, limit: Option<usize>) -> String {
        let table = self.aligned();
        let Some(limit) = limit.filter(|limit| is_wider(&table, *limit)) else {
            return table;
        };
        let mut rows = self.rows.clone();
        let mut missing = Vec::new();
        for name in &self.given_up {
            let head = rows.first().map(Vec::as_slice).unwrap_or_default();
            let Some(at) = head.iter().position(|column| column == name) else {
                continue;
            };
            missing.push(name.to_lowercase());
            rows.iter_mut().for_each(|row| drop(row.remove(at)));
            let narrower = aligned(&rows);
            if !is_wider(&narrower, limit) {
                let missing = missing.join(", ");
                return format!("{narrower}not shown: {missing} (-o json shows all)\n");
            }
        }
        self.blocks()
    }

    /// Every row as its own lines: its first cell, and below it what else is known.
    fn blocks(&self) -> String {
        let Some((head, rows)) = self.rows.split_first() else {
            return String::new();
        };
        let mut text = String::new();
        for row in rows {
            for (place, (name, cell)) in head.iter().zip(row).enumerate() {
                if place == 0 {
                    let _ = writeln!(text, "{cell}");
                } else if cell != NOTHING {
                    let _ = writeln!(text, "  {:<9} {cell}", name.to_lowercase());
                }
            }
        }
        text
    }

    fn aligned(&self) -> String {
        aligned(&self.rows)
    }
}

fn is_wider(table: &str, limit: usize) -> bool {
    table
        .lines()
        .any(|line| console::measure_text_width(line) > limit)
}

fn aligned(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let mut widths = vec![0; columns];
    for row in rows {
        for (widest, cell) in widths.iter_mut().zip(row) {
            *widest = console::measure_text_width(cell).max(*widest);
        }
    }
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let gap = width.saturating_sub(console::measure_text_width(cell)) + 2;
            let _ = write!(line, "{cell}{:gap$}", "");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_does_not_fit() {
        let mut table = Table::new(&["BACKUP", "KEYS", "OCP"]);
        table.row(vec!["backup-1".into(), "5".into(), nothing()]);
        let wide = "BACKUP    KEYS  OCP\nbackup-1  5     -\n";
        assert_eq!(table.render(None), wide);
        assert_eq!(table.render(Some(19)), wide);
        assert_eq!(table.render(Some(18)), "backup-1\n  keys      5\n");
    }
}
