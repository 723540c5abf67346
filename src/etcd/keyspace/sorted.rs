//! All keys of a store in order, in bounded memory.
//!
//! One pass over the database gives the versions, newest first. They are kept until [`ROOM`] is full, then sorted by key and
//! written to a file as a run. Reading merges the runs: the first version of a key is its newest, and those after it
//! are passed over. A store whose keys fit writes no file.
//!
//! ```text
//! run: records by key ascending, newest first
//! record: length of the key u32, revision i64, create revision i64, version i64 (0 of a deletion),
//!         offset of the value u64, its length u32, its hash u64, the key; little-endian
//! ```
//!
//! Memory: at most twice [`ROOM`] while keys are collected, since tables grow by doubling; while they are merged,
//! [`PIECE`] for each run, one run for about 200,000 versions.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use super::database::{Database, Version};
use super::value::ValueAt;
use super::{Key, Keyspace};
use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::{FileSource, Order, ReadAt};
use crate::sys::fs::OutFile;
use crate::sys::scratch::Scratch;

/// Bytes of keys and their rows that are held before they are written.
pub const ROOM: usize = 16 << 20;
/// Bytes of each run that are read at once.
const PIECE: usize = 64 << 10;
/// Bytes of a record before its key.
const HEAD: usize = 48;

/// What is read, and where what does not fit goes.
pub struct Ask<'a> {
    /// As the keys were at this revision; by default the current one.
    pub revision: Option<i64>,
    /// Which keys.
    pub wants: &'a (dyn Fn(&[u8]) -> bool + Sync),
    /// Keys that come back by themselves, too, at once.
    pub aside: &'a (dyn Fn(&[u8]) -> bool + Sync),
    /// Hashes the values. Two stores hash alike by the same state.
    pub hasher: Option<&'a RandomState>,
    /// A folder for scratch files.
    pub scratch: &'a Path,
    /// Bytes that are held: [`ROOM`], less in a test.
    pub room: usize,
}

/// One version of a key, apart from the key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Row {
    /// 0 of a deletion.
    version: i64,
    mod_revision: i64,
    create_revision: i64,
    value_offset: u64,
    value_len: u32,
    hash: u64,
}

impl Row {
    fn of(version: &Version<'_>, hasher: Option<&RandomState>) -> Self {
        let put = !version.tombstone;
        Self {
            version: if put { version.version } else { 0 },
            mod_revision: version.revision.main,
            create_revision: version.create_revision,
            value_offset: version.value_at.offset,
            value_len: version.value_at.len,
            hash: hasher.map_or(0, |hasher| hasher.hash_one(version.value)),
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
        };
        (u32_at(0) as usize, row)
    }

    fn key<'n>(&self, name: &'n [u8]) -> Key<'n> {
        Key {
            name,
            create_revision: self.create_revision,
            mod_revision: self.mod_revision,
            version: self.version,
            value: ValueAt {
                offset: self.value_offset,
                len: self.value_len,
            },
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
        let path = Self::path(&folder);
        let file = OutFile::create(&path).doing(Kind::Store, || writing(&path))?;
        Ok(Self {
            folder,
            out: BufWriter::with_capacity(256 << 10, file),
            ends: Vec::new(),
        })
    }

    fn path(folder: &Scratch) -> PathBuf {
        folder.path().join("keys")
    }

    fn write(&mut self, held: &mut Held) -> Result<()> {
        held.sort();
        let path = Self::path(&self.folder);
        let mut size = self.ends.last().copied().unwrap_or_default();
        for (at, len, row) in &held.rows {
            let name = held.name(*at, *len);
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
    /// Which run: those of lower numbers are newer.
    number: usize,
    at: u64,
    end: u64,
    piece: Vec<u8>,
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
        let more = (PIECE.max(len) - left) as u64;
        let more = more.min(self.end - self.at);
        let from = self.piece.len();
        self.piece.resize(from + more as usize, 0);
        let into = self.piece.get_mut(from..).unwrap_or_default();
        file.read_exact_at(into, self.at)?;
        self.at += more;
        Ok(self.piece.len() >= len)
    }
}

/// In a heap, the run with the smallest key is the greatest; of one key, that with the newer version.
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

/// The keys that are alive, ascending, one after the other.
pub struct Sorted {
    from: From,
    /// The key that was met last, alive or not. No key is empty.
    last: Vec<u8>,
    row: Row,
    /// The revision that it shows.
    pub revision: i64,
}

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

    /// Goes to the newest version of the next key.
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

/// Reads the keys of a store in one pass, and those that are wanted aside.
///
/// # Errors
/// As [`Keyspace::read`], and [`Kind::Store`] if the scratch file cannot be written.
pub fn sorted<'a>(database: &Database<'a>, ask: &Ask<'_>) -> Result<(Sorted, Keyspace<'a>)> {
    let (at, current) = database.at(ask.revision)?;
    let revision = at.unwrap_or(current);
    let mut aside = Keyspace::collector(database, revision);
    let (mut held, mut runs) = (Held::default(), None::<Runs>);
    database.walk(Order::Descending, &mut |version| {
        if at.is_some_and(|at| version.revision.main > at) {
            return Ok(true);
        }
        if (ask.aside)(version.key) {
            aside.take(version);
        }
        if (ask.wants)(version.key) {
            held.push(version.key, Row::of(version, ask.hasher));
            if held.size() > ask.room {
                let runs = match &mut runs {
                    Some(runs) => runs,
                    none => none.insert(Runs::make(ask.scratch)?),
                };
                runs.write(&mut held)?;
            }
        }
        Ok(true)
    })?;
    let from = match runs {
        None => {
            held.sort();
            From::Memory { held, next: 0 }
        }
        Some(mut runs) => {
            runs.write(&mut held)?;
            drop(held);
            merged(runs)?
        }
    };
    let sorted = Sorted {
        from,
        last: Vec::new(),
        row: Row::default(),
        revision,
    };
    Ok((sorted, aside.done()))
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
    let mut at = 0;
    for (number, end) in ends.into_iter().enumerate() {
        let mut run = Run {
            number,
            at,
            end,
            piece: Vec::new(),
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
