//! Values that a tail has written and that a later entry may look at.

use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::base::Spill;
use crate::error::{Doing, Failure, Kind, Result};
use crate::sys::fs::OutFile;
use crate::sys::scratch::Scratch;

/// Of the room, the part that is held before it is written to the file.
const PART: usize = 8;

/// Values one behind the other: the newest in memory, those before in a file, if there is a folder for one.
pub(super) struct Kept<'a> {
    scratch: Option<Spill<'a>>,
    file: Option<(OutFile, Scratch)>,
    held: Vec<u8>,
    /// Bytes in the file.
    written: u64,
}

impl<'a> Kept<'a> {
    pub(super) fn new(scratch: Option<Spill<'a>>) -> Self {
        Self {
            scratch,
            file: None,
            held: Vec::new(),
            written: 0,
        }
    }

    /// Keeps a value: where it is.
    pub(super) fn push(&mut self, value: &[u8]) -> Result<(u64, u32)> {
        let at = self.written + self.held.len() as u64;
        let len = u32::try_from(value.len())
            .map_err(|_| Failure::new(Kind::Unexpected, "a value of more than 4 GiB"))?;
        self.held.extend_from_slice(value);
        match self.scratch {
            Some(Spill { dir, room }) if self.held.len() > room / PART => self.write(dir)?,
            _ => {}
        }
        Ok((at, len))
    }

    fn write(&mut self, scratch: &Path) -> Result<()> {
        let (out, _) = match &mut self.file {
            Some(file) => file,
            none => {
                let folder = Scratch::make(scratch, "values")?;
                none.insert((folder.file("values")?, folder))
            }
        };
        let written = out.write_all(&self.held);
        written.doing(Kind::Store, || format!("writing {}", out.path().display()))?;
        self.written += self.held.len() as u64;
        self.held.clear();
        Ok(())
    }

    /// Reads a value.
    pub(super) fn read(&self, at: u64, len: u32) -> Result<Vec<u8>> {
        let mut value = vec![0; len as usize];
        if let Some(within) = at.checked_sub(self.written) {
            let within = usize::try_from(within).unwrap_or(usize::MAX);
            let found = self.held.get(within..within.saturating_add(value.len()));
            value.copy_from_slice(found.ok_or_else(missing)?);
            return Ok(value);
        }
        let (out, _) = self.file.as_ref().ok_or_else(missing)?;
        let read = out.file().read_exact_at(&mut value, at);
        read.doing(Kind::Store, || format!("reading {}", out.path().display()))?;
        Ok(value)
    }
}

fn missing() -> Failure {
    Failure::new(Kind::Unexpected, "a value that was kept is missing")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_from_memory_and_from_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, room) = (folder.path(), 800);
        for scratch in [None, Some(Spill { dir, room })] {
            let mut kept = Kept::new(scratch);
            let values: Vec<Vec<u8>> = (0..50u8).map(|n| vec![n; usize::from(n)]).collect();
            let places: Vec<_> = values.iter().map(|v| kept.push(v).unwrap()).collect();
            assert_eq!(kept.file.is_some(), scratch.is_some());
            for (value, (at, len)) in values.iter().zip(places) {
                assert_eq!(&kept.read(at, len).unwrap(), value);
            }
        }
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 0);
    }
}
