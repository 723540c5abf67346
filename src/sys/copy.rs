//! Shares blocks between files, reserves room, and overwrites bytes in place.

use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use super::failpoints::{self, Op};
use super::fs::OutFile;

impl OutFile {
    /// Makes the empty file share the blocks of another one, cut to `len` bytes, where the file
    /// system can do that (XFS, btrfs); says whether it did. It takes no time and no room.
    pub fn clone_from(&mut self, from: &File, len: u64) -> io::Result<bool> {
        // A file system that cannot, or two different ones: the caller copies the bytes.
        if rustix::fs::ioctl_ficlone(&self.file, from).is_err() {
            return Ok(false);
        }
        failpoints::pass(Op::Resize(&self.path, len))?;
        self.file.set_len(len)?;
        failpoints::done(Op::Resize(&self.path, len));
        self.go_on_at(len)?;
        Ok(true)
    }

    /// Overwrites bytes that are written already.
    pub fn write_at(&mut self, offset: u64, data: &[u8]) -> io::Result<()> {
        failpoints::pass(Op::Write(&self.path, offset, data))?;
        self.file.write_all_at(data, offset)?;
        failpoints::done(Op::Write(&self.path, offset, data));
        Ok(())
    }

    /// Makes the file `len` bytes long, zeros at its end, with room on the disk where the file
    /// system can promise that.
    pub fn preallocate(&mut self, len: u64) -> io::Result<()> {
        failpoints::pass(Op::Resize(&self.path, len))?;
        match fallocate(&self.file, FallocateFlags::empty(), 0, len) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => self.file.set_len(len)?,
            Err(cause) => return Err(cause.into()),
        }
        failpoints::done(Op::Resize(&self.path, len));
        Ok(())
    }

    /// Keeps `room` bytes on the disk behind what is written, as zeros: later writes there need no
    /// free space. A file system without a call for it gets the zeros written.
    pub fn reserve(&mut self, room: u64) -> io::Result<()> {
        let (start, len) = (self.offset, self.offset + room);
        failpoints::pass(Op::Resize(&self.path, len))?;
        match fallocate(&self.file, FallocateFlags::empty(), start, room) {
            Ok(()) => {}
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => zero(&self.file, start, room)?,
            Err(cause) => return Err(cause.into()),
        }
        failpoints::done(Op::Resize(&self.path, len));
        Ok(())
    }

    /// Writes zeros over the next `len` bytes; the next write still begins before them.
    pub fn overwrite(&mut self, len: u64) -> io::Result<()> {
        let zeros = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.write_at(self.offset, &zeros)
    }

    /// Lets the next write begin at an earlier place.
    pub fn rewind_to(&mut self, offset: u64) -> io::Result<()> {
        self.go_on_at(offset)
    }

    /// Lets the next write begin there.
    pub fn go_on_at(&mut self, offset: u64) -> io::Result<()> {
        self.file.seek(SeekFrom::Start(offset))?;
        self.offset = offset;
        Ok(())
    }
}

fn zero(file: &File, start: u64, len: u64) -> io::Result<()> {
    let zeros = [0; 4096];
    let mut at = start;
    while at < start + len {
        let piece = (start + len - at).min(zeros.len() as u64) as usize;
        file.write_all_at(zeros.get(..piece).unwrap_or_default(), at)?;
        at += piece as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn bytes_are_changed_in_place_and_room_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut out = OutFile::create(&path).unwrap();
        out.write_all(b"abc").unwrap();
        out.write_at(1, b"xx").unwrap();
        out.preallocate(100).unwrap();
        out.write_all(b"end").unwrap();
        let now = std::fs::read(&path).unwrap();
        assert_eq!(now.len(), 100);
        assert_eq!(&now[..7], b"axxend\0");
    }

    #[test]
    fn a_clone_is_cut_and_continued_or_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let from = dir.path().join("from");
        std::fs::write(&from, vec![7; 10_000]).unwrap();
        let path = dir.path().join("to");
        let mut out = OutFile::create(&path).unwrap();
        let cloned = out.clone_from(&File::open(&from).unwrap(), 8192).unwrap();
        out.write_all(b"end").unwrap();
        let expected = if cloned { 8195 } else { 3 };
        assert_eq!(std::fs::read(&path).unwrap().len(), expected);
        assert_eq!(out.len(), expected as u64);
    }
}
