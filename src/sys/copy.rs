//! Copying into a file, giving it room, and changing bytes that are written already.

use std::fs::File;
use std::io::{self, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, copy_file_range, fallocate};
use rustix::io::Errno;

use super::fs::OutFile;
use super::seam::{self, Op};

/// Bytes asked for at once: progress and the wish to stop are seen in between.
const STEP: u64 = 16 << 20;
/// Bytes read and written at once where the kernel does not copy by itself.
const PIECE: usize = 1 << 20;

impl OutFile {
    /// Appends bytes `0..len` of another file. `each` is told how many more have been copied, and
    /// stops the copy by an error.
    ///
    /// The kernel copies, and a file system that can share blocks between files (XFS, btrfs)
    /// shares them instead: `copy_file_range` tries that first (Linux, `fs/read_write.c`).
    pub fn append_from(
        &mut self,
        from: &File,
        len: u64,
        each: &mut dyn FnMut(u64) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut done = 0;
        // The seam must see the bytes.
        while !cfg!(feature = "faults") && done < len {
            let want = usize::try_from((len - done).min(STEP)).unwrap_or(PIECE);
            let (mut read, mut write) = (done, self.offset);
            match copy_file_range(from, Some(&mut read), &self.file, Some(&mut write), want) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(copied) => {
                    done += copied as u64;
                    self.offset += copied as u64;
                    each(copied as u64)?;
                }
                // Between file systems, or on one that cannot.
                Err(
                    Errno::XDEV
                    | Errno::OPNOTSUPP
                    | Errno::NOSYS
                    | Errno::INVAL
                    | Errno::PERM
                    | Errno::BADF,
                ) => break,
                Err(Errno::INTR) => {}
                Err(cause) => return Err(cause.into()),
            }
        }
        self.file.seek(SeekFrom::Start(self.offset))?;
        let mut buffer = vec![0; PIECE];
        while done < len {
            let want = usize::try_from((len - done).min(PIECE as u64)).unwrap_or(PIECE);
            let piece = buffer.get_mut(..want).unwrap_or_default();
            from.read_exact_at(piece, done)?;
            self.write_all(piece)?;
            done += want as u64;
            each(want as u64)?;
        }
        Ok(())
    }

    /// Overwrites bytes that are written already.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        seam::pass(Op::Write(&self.path, offset, data))?;
        self.file.write_all_at(data, offset)?;
        seam::done(Op::Write(&self.path, offset, data));
        Ok(())
    }

    /// Makes the file `len` bytes long, zeros at its end, with room on the disk where the file
    /// system can promise that.
    pub fn preallocate(&mut self, len: u64) -> io::Result<()> {
        seam::pass(Op::Resize(&self.path, len))?;
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(len)?,
            Err(cause) => return Err(cause.into()),
        }
        seam::done(Op::Resize(&self.path, len));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn content(path: &Path) -> Vec<u8> {
        std::fs::read(path).unwrap()
    }

    #[test]
    fn a_part_is_copied_and_changed_and_given_room() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        let bytes: Vec<u8> = (0..3_000_000u32).map(|i| (i % 251) as u8).collect();
        std::fs::write(&from, &bytes).unwrap();
        let to = dir.path().join("to");
        let mut out = OutFile::create(&to).unwrap();
        let mut told = 0;
        let from = File::open(&from).unwrap();
        out.append_from(&from, 2_000_000, &mut |more| {
            told += more;
            Ok(())
        })
        .unwrap();
        assert_eq!(told, 2_000_000);
        assert_eq!(content(&to), bytes[..2_000_000]);
        out.write_all(b"end").unwrap();
        out.write_at(1, b"xx").unwrap();
        out.preallocate(2_000_100).unwrap();
        let now = content(&to);
        assert_eq!(now.len(), 2_000_100);
        assert_eq!(&now[..4], &[0, b'x', b'x', 3]);
        assert_eq!(&now[2_000_000..2_000_004], b"end\0");
    }

    #[test]
    fn a_source_that_is_too_short_and_a_stop_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::write(&from, b"abc").unwrap();
        let from = File::open(&from).unwrap();
        let mut out = OutFile::create(&dir.path().join("to")).unwrap();
        let cut = out.append_from(&from, 4, &mut |_| Ok(())).unwrap_err();
        assert_eq!(cut.kind(), io::ErrorKind::UnexpectedEof);
        let mut out = OutFile::create(&dir.path().join("other")).unwrap();
        let stop = out.append_from(&from, 3, &mut |_| Err(io::Error::other("stop")));
        assert_eq!(stop.unwrap_err().to_string(), "stop");
    }
}
