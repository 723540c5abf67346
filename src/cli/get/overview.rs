//! `get SET`: numbers by kind and namespace.

use std::fmt::Write as _;
use std::path::Path;

use bytesize::ByteSize;

use super::super::output::json;
use super::super::output::table::{Table, terminal_width};
use super::super::session::Shown;
use crate::error::Result;
use crate::inspect::look::{self, Cell, Overview, Reader, Selection};
use crate::sys::quote::printable;

pub(super) fn run(
    reader: &mut Reader<'_>,
    selection: &Selection,
    revision: Option<i64>,
    scratch: &Path,
) -> Result<Shown> {
    let overview = look::overview(reader, selection, revision, scratch)?;
    Ok(Shown::done(
        text(&overview),
        json::document("get", &overview),
    ))
}

fn text(overview: &Overview) -> String {
    let mut text = format!(
        "{}: revision {}, {} objects of {} kinds\n\n",
        printable(overview.set.clone()),
        overview.revision,
        overview.all.objects,
        overview.kinds.len()
    );
    let mut kinds = Table::new(&["KIND", "OBJECTS", "BYTES"]);
    for row in &overview.kinds {
        kinds.row(cells(row.name.clone(), row.all));
    }
    text.push_str(&kinds.render(terminal_width()));
    if !overview.namespaces.is_empty() {
        let mut namespaces = Table::new(&["NAMESPACE", "OBJECTS", "BYTES"]);
        for (name, cell) in &overview.namespaces {
            namespaces.row(cells(name.clone(), *cell));
        }
        text.push('\n');
        text.push_str(&namespaces.render(terminal_width()));
    }
    if overview.other_keys.objects > 0 {
        let _ = writeln!(
            text,
            "\n{} other keys, which are not objects",
            overview.other_keys.objects
        );
    }
    text
}

fn cells(name: String, cell: Cell) -> Vec<String> {
    vec![
        name,
        cell.objects.to_string(),
        ByteSize(cell.bytes).to_string(),
    ]
}
