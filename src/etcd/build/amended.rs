//! A database's meta, and the changes written to a copy of it.

use std::io::{self, Write};

use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::write::Amendment;
use crate::etcd::bbolt::{Meta, Metas, ReadAt};
use crate::sys::fs::OutFile;

/// The valid meta of a database that was checked before.
pub(in crate::etcd) fn chosen(source: &dyn ReadAt, length: u64) -> Result<Meta> {
    Metas::of_file(source, length)
        .doing(Kind::NotChecked, || "reading the database")?
        .map(|metas| metas.chosen)
        .ok_or_else(|| {
            Failure::new(
                Kind::BadBackup,
                "the database lost its meta pages in the meantime",
            )
        })
}

/// Writes an amendment: the pages at the file's end, where `out` stands, then the metas. Before the
/// metas are there nothing leads to the pages.
pub(in crate::etcd) fn write_amendment(out: &mut OutFile, amendment: &Amendment) -> io::Result<()> {
    out.write_all(&amendment.pages)?;
    for (page, bytes) in (0..).zip(&amendment.metas) {
        out.write_at(page * u64::from(amendment.meta.page_size), bytes)?;
    }
    Ok(())
}
