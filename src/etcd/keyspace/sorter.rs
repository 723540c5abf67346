//! Versions of keys sorted by key, in bounded memory.
//!
//! They are kept until there is no more room, then sorted by key and written to a file as a run. Reading merges the
//! runs: of each key the version that came first counts, and those after it are passed over. What fits is not written.
//!
//! ```text
//! run: records by key ascending, each key once
//! record: length of the key u32, revision i64, create revision i64, version i64 (0 of a deletion),
//!         offset of the value u64, its length u32, its hash u64, its lease i64, the key; little-endian
//! ```
//!
//! Memory: at most twice the room while keys are collected, since tables grow by doubling; while they are merged,
//! [`PIECE`] for each run, and less for more than [`WHOLE`] of them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::Key;
use super::database::Version;
use super::value::ValueAt;
use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::{FileSource, ReadAt};
use crate::sys::fs::OutFile;
use crate::sys::scratch::Scratch;

/// Bytes of each run that are read at once, of more runs less, and the least.
const PIECE: usize = 64 << 10;
const LEAST_PIECE: usize = 4 << 10;
/// How many runs are read by whole pieces.
const WHOLE: usize = 64;
/// Bytes of a record before its key.
const HEAD: usize = 56;

/// One version of a key, apart from the key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Row {
    /// Puts since the key was created; 0 of a deletion.
    pub version: i64,
    /// Its revision.
    pub mod_revision: i64,
    /// Revision at which this life of the key began.
    pub create_revision: i64,
    value_offset: u64,
    value_len: u32,
    pub(super) hash: u64,
    /// Its lease; 0 for none.
    pub lease: i64,
}

impl Row {
    /// The row of a version.
    pub fn of(version: &Version<'_>, hasher: Option<&RandomState>) -> Self {
        let put = !version.tombstone;
        Self {
            version: if put { version.version } else { 0 },
            mod_revision: version.revision.main,
            create_revision: version.create_revision,
            value_offset: version.value_at.offset,
            value_len: version.value_at.len,
            hash: hasher.map_or(0, |hasher| hasher.hash_one(version.value)),
            lease: version.lease,
        }
    }

    /// Where the value is.
    pub fn value_at(&self) -> ValueAt {
        ValueAt {
            offset: self.value_offset,
            len: self.value_len,
        }
    }

    fn write(&self, key: &[u8], out: &mut impl Write) -> std::io::Result<()> {
        let len = u32::try_from(key.len()).map_err(std::io::Error::other)?;
        out.write_all(&len.to_le_bytes())?;
        for number in [self.mod_revision, self.create_revision, self.version] {
            out.write_all(&number.to_le_bytes())?;
        }
        out.write_all(&self.value_offset.to_le_bytes())?;
        out.write_all(&self.value_len.to_le_bytes())?;
        out.write_all(&self.hash.to_le_bytes())?;
        out.write_all(&self.lease.to_le_bytes())?;
        out.write_all(key)
    }

    /// The length of the key, and the rest.
    fn parse(head: &[u8; HEAD]) -> (usize, Self) {
        let u64_at = |at: usize| {
            let bytes = head.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
            u64::from_le_bytes(bytes.unwrap_or_default())
        };
        let u32_at = |at: usize| {
            let bytes = head.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            u32::from_le_bytes(bytes.unwrap_or_default())
        };
        let row = Self {
            mod_revision: u64_at(4).cast_signed(),
            create_revision: u64_at(12).cast_signed(),
            version: u64_at(20).cast_signed(),
            value_offset: u64_at(28),
            value_len: u32_at(36),
            hash: u64_at(40),
            lease: u64_at(48).cast_signed(),
        };
        (u32_at(0) as usize, row)
    }

    fn key<'n>(&self, name: &'n [u8]) -> Key<'n> {
        Key {
            name,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: self.value_at(),
            hash: self.hash,
        }
    }
}

/// Versions in memory: the keys in one piece of memory, and a row each, in the order of their coming.
#[derive(Default)]
struct Held {
    names: Vec<u8>,
    rows: Vec<(usize, u32, Row)>,
}

impl Held {
    fn push(&mut self, key: &[u8], row: Row) {
        let len = u32::try_from(key.len()).unwrap_or(u32::MAX);
        self.rows.push((self.names.len(), len, row));
        self.names.extend_from_slice(key);
    }

    fn size(&self) -> usize {
        self.names.len() + self.rows.len() * size_of::<(usize, u32, Row)>()
    }

    fn name(&self, at: usize, len: u32) -> &[u8] {
        self.names.get(at..at + len as usize).unwrap_or_default()
    }

    /// By key; of one key in the order of their coming, which is that of their places.
    fn sort(&mut self) {
        let Self { names, rows } = self;
        let name = |at: usize, len: u32| names.get(at..at + len as usize).unwrap_or_default();
        rows.sort_unstable_by(|a, b| name(a.0, a.1).cmp(name(b.0, b.1)).then(a.0.cmp(&b.0)));
    }
}

/// The name of the file of runs.
const RUNS: &str = "keys";

/// The file of runs.
struct Runs {
    folder: Scratch,
    out: BufWriter<OutFile>,
    /// Where each ends.
    ends: Vec<u64>,
}

impl Runs {
    fn make(base: &Path) -> Result<Self> {
        let folder = Scratch::make(base, "sort")?;
        let file = folder.file(RUNS)?;
        Ok(Self {
            folder,
            out: BufWriter::with_capacity(256 << 10, file),
            ends: Vec::new(),
        })
    }

    fn path(folder: &Scratch) -> PathBuf {
        folder.path().join(RUNS)
    }

    fn write(&mut self, held: &mut Held) -> Result<()> {
        held.sort();
        let path = Self::path(&self.folder);
        let mut size = self.ends.last().copied().unwrap_or_default();
        let mut last = None;
        for (at, len, row) in &held.rows {
            let name = held.name(*at, *len);
            if last.replace(name) == Some(name) {
                continue;
            }
            let written = row.write(name, &mut self.out);
            written.doing(Kind::Store, || writing(&path))?;
            size += (HEAD + name.len()) as u64;
        }
        self.ends.push(size);
        held.names.clear();
        held.rows.clear();
        Ok(())
    }
}

fn writing(path: &Path) -> String {
    format!("writing {}", path.display())
}

/// A run, read piece by piece.
struct Run {
    /// Which run: those of lower numbers came first.
    number: usize,
    at: u64,
    end: u64,
    piece: Vec<u8>,
    /// Bytes that are read at once.
    most: usize,
    /// Where in the piece the next record begins.
    next: usize,
    name: Vec<u8>,
    row: Row,
}

impl Run {
    /// Reads the next record into `name` and `row`; whether there is one.
    fn advance(&mut self, file: &FileSource) -> std::io::Result<bool> {
        let mut head = [0; HEAD];
        if !self.fill(file, HEAD)? {
            return Ok(false);
        }
        head.copy_from_slice(self.taken(HEAD)?);
        let (len, row) = Row::parse(&head);
        if !self.fill(file, len)? {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        self.name.clear();
        let from = self.next;
        self.next += len;
        let name = self.piece.get(from..self.next).unwrap_or_default();
        self.name.extend_from_slice(name);
        self.row = row;
        Ok(true)
    }

    fn taken(&mut self, len: usize) -> std::io::Result<&[u8]> {
        let from = self.next;
        self.next += len;
        let taken = self.piece.get(from..self.next);
        taken.ok_or_else(|| std::io::ErrorKind::UnexpectedEof.into())
    }

    /// Sees to it that so many bytes are in the piece; false at the end.
    fn fill(&mut self, file: &FileSource, len: usize) -> std::io::Result<bool> {
        let left = self.piece.len() - self.next;
        if left >= len {
            return Ok(true);
        }
        if left == 0 && self.at == self.end && len > 0 {
            return Ok(false);
        }
        self.piece.drain(..self.next);
        self.next = 0;
        let more = (self.most.max(len) - left) as u64;
        let more = more.min(self.end - self.at);
        let from = self.piece.len();
        self.piece.resize(from + more as usize, 0);
        let into = self.piece.get_mut(from..).unwrap_or_default();
        file.read_exact_at(into, self.at)?;
        self.at += more;
        Ok(self.piece.len() >= len)
    }
}

/// In a heap, the run with the smallest key is the greatest; of one key, that which came first.
impl Ord for Run {
    fn cmp(&self, other: &Self) -> Ordering {
        Reverse((&self.name, self.number)).cmp(&Reverse((&other.name, other.number)))
    }
}

impl PartialOrd for Run {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Run {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Run {}

/// Takes versions in any order of their keys.
pub struct Sorter<'a> {
    held: Held,
    runs: Option<Runs>,
    room: usize,
    scratch: Option<&'a Path>,
}

impl<'a> Sorter<'a> {
    /// Holds so many bytes, and writes what is more to a file in the folder `scratch`; without one, holds all.
    pub fn new(room: usize, scratch: Option<&'a Path>) -> Self {
        Self {
            held: Held::default(),
            runs: None,
            room,
            scratch,
        }
    }

    /// Takes a version. Of several of one key the first counts.
    ///
    /// # Errors
    /// [`Kind::Store`] if the scratch file cannot be written.
    pub fn push(&mut self, key: &[u8], row: Row) -> Result<()> {
        self.held.push(key, row);
        let Some(scratch) = self.scratch.filter(|_| self.held.size() > self.room) else {
            return Ok(());
        };
        let runs = match &mut self.runs {
            Some(runs) => runs,
            none => none.insert(Runs::make(scratch)?),
        };
        runs.write(&mut self.held)
    }

    /// The keys in order.
    ///
    /// # Errors
    /// [`Kind::Store`] if the scratch file cannot be written or read.
    pub fn sorted(mut self, revision: i64) -> Result<Sorted> {
        let from = match self.runs {
            None => {
                self.held.sort();
                let held = self.held;
                From::Memory { held, next: 0 }
            }
            Some(mut runs) => {
                runs.write(&mut self.held)?;
                drop(self.held);
                merged(runs)?
            }
        };
        Ok(Sorted {
            from,
            last: Vec::new(),
            row: Row::default(),
            revision,
        })
    }
}

/// The keys, ascending, one after the other.
pub struct Sorted {
    from: From,
    /// The key that was met last, alive or not. No key is empty.
    last: Vec<u8>,
    row: Row,
    /// The revision that it shows.
    pub revision: i64,
}

/// Where the keys come from.
enum From {
    Memory {
        held: Held,
        next: usize,
    },
    Disk {
        file: FileSource,
        path: PathBuf,
        heap: BinaryHeap<Run>,
        _folder: Scratch,
    },
}

impl Sorted {
    /// The next key.
    ///
    /// # Errors
    /// [`Kind::Store`] if the scratch file cannot be read.
    pub fn next_key(&mut self) -> Result<Option<Key<'_>>> {
        while self.advance()? {
            if self.row.version != 0 {
                return Ok(Some(self.row.key(&self.last)));
            }
        }
        Ok(None)
    }

    /// The next key, alive or not, and the version of it that came first.
    ///
    /// # Errors
    /// As [`Sorted::next_key`].
    pub fn next_row(&mut self) -> Result<Option<(&[u8], Row)>> {
        let more = self.advance()?;
        Ok(more.then_some((self.last.as_slice(), self.row)))
    }

    /// Goes to the first version of the next key.
    fn advance(&mut self) -> Result<bool> {
        loop {
            match &mut self.from {
                From::Memory { held, next } => {
                    let Some((at, len, row)) = held.rows.get(*next).copied() else {
                        return Ok(false);
                    };
                    *next += 1;
                    let name = held.name(at, len);
                    if self.last != name {
                        self.last.clear();
                        self.last.extend_from_slice(name);
                        self.row = row;
                        return Ok(true);
                    }
                }
                From::Disk {
                    file, path, heap, ..
                } => {
                    let Some(mut run) = heap.peek_mut() else {
                        return Ok(false);
                    };
                    let is_new = self.last != run.name;
                    if is_new {
                        // The run's buffer is filled again by its next record.
                        std::mem::swap(&mut self.last, &mut run.name);
                        self.row = run.row;
                    }
                    let more = run.advance(file);
                    if !more.doing(Kind::Store, || format!("reading {}", path.display()))? {
                        PeekMut::pop(run);
                    }
                    if is_new {
                        return Ok(true);
                    }
                }
            }
        }
    }
}

fn merged(runs: Runs) -> Result<From> {
    let Runs { folder, out, ends } = runs;
    let path = Runs::path(&folder);
    // A scratch file is read by this run alone: it need not be on the disk.
    let flushed = out
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error);
    drop(flushed.doing(Kind::Store, || writing(&path))?);
    let doing = || format!("reading {}", path.display());
    let file = FileSource::open(&path).doing(Kind::Store, doing)?;
    let mut heap = BinaryHeap::with_capacity(ends.len());
    let most = (PIECE * WHOLE / ends.len().max(WHOLE)).max(LEAST_PIECE);
    let mut at = 0;
    for (number, end) in ends.into_iter().enumerate() {
        let mut run = Run {
            number,
            at,
            end,
            piece: Vec::new(),
            most,
            next: 0,
            name: Vec::new(),
            row: Row::default(),
        };
        at = end;
        if run.advance(&file).doing(Kind::Store, doing)? {
            heap.push(run);
        }
    }
    Ok(From::Disk {
        file,
        path,
        heap,
        _folder: folder,
    })
}
