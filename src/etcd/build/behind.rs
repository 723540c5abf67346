//! Entries behind the last one of the bucket `key`, part by part.
//!
//! Each part becomes pages at the database's end before the next is taken, so that memory is that of one part,
//! however many there are.

use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::write::{Change, Changes, amend};
use crate::etcd::bbolt::{FileSource, ReadAt};
use crate::sys::fs::OutFile;

use super::amended::{chosen, write_amendment};

/// Bytes of a part. Its pages are as much again, and may be twice that while they are made.
const PART: usize = 6 << 20;
/// What an entry takes besides its key and its value.
const ENTRY: usize = 96;

/// Takes entries and writes them.
pub(in crate::etcd) struct Behind<'a> {
    out: &'a mut OutFile,
    entries: Vec<(Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl<'a> Behind<'a> {
    /// Continues a database, which stands at its end.
    pub(in crate::etcd) fn new(out: &'a mut OutFile) -> Self {
        Self {
            out,
            entries: Vec::new(),
            bytes: 0,
        }
    }

    /// Takes an entry, above all before it.
    pub(in crate::etcd) fn push(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.bytes += key.len() + value.len() + ENTRY;
        self.entries.push((key, value));
        match self.bytes >= PART {
            true => self.finish(Changes::new()),
            false => Ok(()),
        }
    }

    /// Writes what was taken, and changes of other buckets with it.
    pub(in crate::etcd) fn finish(&mut self, mut changes: Changes) -> Result<()> {
        self.bytes = 0;
        let entries = std::mem::take(&mut self.entries);
        if !entries.is_empty() {
            changes.insert(b"key".to_vec(), Change::Extend(entries));
        }
        if changes.is_empty() {
            return Ok(());
        }
        let file = self.out.file().try_clone().and_then(FileSource::new);
        let file = file.doing(Kind::Store, || "reading the database again")?;
        let meta = chosen(&file, file.size())?;
        let amendment = amend(&file, file.size(), &meta, &changes)?;
        let path = self.out.path().to_owned();
        write_amendment(self.out, &amendment)
            .doing(Kind::Store, || format!("writing {}", path.display()))
    }
}
