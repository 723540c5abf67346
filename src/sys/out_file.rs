//! A file being written, each write through a [failpoint](super::failpoints).

use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use super::failpoints::{self, Op};

/// The mode of every file the tool makes on its own account.
pub const FILE_MODE: u32 = 0o600;

/// The mode of every directory the tool makes on its own account.
pub const DIR_MODE: u32 = 0o700;

/// A file being written from its start to its end.
#[derive(Debug)]
pub struct OutFile {
    pub(super) file: File,
    pub(super) path: PathBuf,
    pub(super) offset: u64,
}

impl OutFile {
    /// Makes a file that must not exist yet, mode 0600.
    pub fn create(path: &Path) -> io::Result<Self> {
        failpoints::pass(Op::Create(path))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(FILE_MODE)
            .open(path)?;
        failpoints::done(Op::Create(path));
        Ok(Self {
            file,
            path: path.to_owned(),
            offset: 0,
        })
    }

    /// Opens a file to write from its byte `len` on, which becomes its end.
    pub fn go_on(path: &Path, len: u64) -> io::Result<Self> {
        let file = Self::append_at(path, len)?;
        if file.file.metadata()?.len() != len {
            failpoints::pass(Op::Resize(path, len))?;
            file.file.set_len(len)?;
            failpoints::done(Op::Resize(path, len));
        }
        Ok(file)
    }

    /// Opens a file to write from its byte `offset` on; what is behind that stays.
    pub fn append_at(path: &Path, offset: u64) -> io::Result<Self> {
        let mut file = Self {
            file: OpenOptions::new()
                .read(true)
                .write(true)
                .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits() as i32)
                .open(path)?,
            path: path.to_owned(),
            offset: 0,
        };
        file.go_on_at(offset)?;
        Ok(file)
    }

    /// Bytes written so far.
    pub fn len(&self) -> u64 {
        self.offset
    }

    /// Whether nothing has been written yet.
    pub fn is_empty(&self) -> bool {
        self.offset == 0
    }

    /// Where the file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the content durable.
    pub fn sync(&mut self) -> io::Result<()> {
        failpoints::pass(Op::SyncFile(&self.path))?;
        self.file.sync_all()?;
        failpoints::done(Op::SyncFile(&self.path));
        Ok(())
    }

    /// The open file, for advice to the kernel; writing goes through [`Write`].
    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Write for OutFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        failpoints::pass(Op::Write(&self.path, self.offset, data))?;
        let written = self.file.write(data)?;
        failpoints::done(Op::Write(
            &self.path,
            self.offset,
            data.get(..written).unwrap_or(data),
        ));
        self.offset += written as u64;
        Ok(written)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        // A failpoint takes a call's bytes in one piece.
        if cfg!(feature = "faults") {
            let whole: Vec<u8> = pieces
                .iter()
                .flat_map(|piece| piece.iter().copied())
                .collect();
            return self.write(&whole);
        }
        let written = self.file.write_vectored(pieces)?;
        self.offset += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The directory that holds an entry; `.` for a bare name.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
