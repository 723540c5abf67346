//! The segments of a WAL: their names, and how their bytes are read.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::{Doing, Failure, Kind, Result};

/// The size etcd preallocates a segment to: 64 million bytes, not 64 MiB.
pub const SEGMENT_SIZE: u64 = 64_000_000;

/// The longest record that is read. etcd bounds a record by what is left of the file only; its
/// requests are 1.5 MiB at most unless configured otherwise.
pub const RECORD_MAX: u64 = 256 << 20;

/// From this size on etcd 3.4 refuses a record, whatever it holds.
pub const RECORD_MAX_3_4: u64 = 10 << 20;

/// The name of a segment: `<sequence>-<first index>.wal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    /// Counts the segments.
    pub sequence: u64,
    /// The first index that may be in the segment.
    pub index: u64,
}

impl SegmentName {
    /// Reads a file's name.
    pub fn parse(name: &str) -> Option<Self> {
        let (sequence, index) = name.strip_suffix(".wal")?.split_once('-')?;
        let number = |digits: &str| {
            let form = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
            form.then(|| u64::from_str_radix(digits, 16).ok())?
        };
        Some(Self {
            sequence: number(sequence)?,
            index: number(index)?,
        })
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}.wal", self.sequence, self.index)
    }
}

/// A place in the WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Which segment, counted from the first that is there.
    pub segment: usize,
    /// Bytes from the segment's start.
    pub offset: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Content {
    File(PathBuf),
    Bytes(Arc<[u8]>),
}

/// A segment that can be read.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Its name.
    pub name: SegmentName,
    /// Its size in bytes; what is appended later is not read.
    pub len: u64,
    pub(super) content: Content,
}

impl Segment {
    /// A segment from memory.
    pub fn from_bytes(name: SegmentName, bytes: impl Into<Arc<[u8]>>) -> Self {
        let bytes = bytes.into();
        Self {
            name,
            len: bytes.len() as u64,
            content: Content::Bytes(bytes),
        }
    }

    pub(super) fn open_at(&self, offset: u64) -> Result<Box<dyn Read + '_>> {
        let left = self.len.saturating_sub(offset);
        match &self.content {
            Content::Bytes(bytes) => {
                let start = usize::try_from(offset).unwrap_or(usize::MAX);
                Ok(Box::new(bytes.get(start..).unwrap_or_default()))
            }
            Content::File(path) => {
                let opened = File::open(path).and_then(|mut file| {
                    file.seek(SeekFrom::Start(offset))?;
                    Ok(file)
                });
                let file = opened.doing(Kind::NotChecked, || opening(path))?;
                Ok(Box::new(file.take(left)))
            }
        }
    }

    pub(super) fn reading(&self, cause: io::Error) -> Failure {
        let what = match &self.content {
            Content::File(path) => path.display().to_string(),
            Content::Bytes(_) => self.name.to_string(),
        };
        Failure::wrap(Kind::NotChecked, cause, format!("reading {what}"))
    }
}

fn opening(path: &Path) -> String {
    format!("opening {}", path.display())
}

/// The segments of one WAL, by name.
#[derive(Debug, Clone, Default)]
pub struct Wal {
    dir: PathBuf,
    pub(super) segments: Vec<Segment>,
    others: Vec<String>,
}

impl Wal {
    /// Lists a directory; opens no file yet.
    pub fn list(dir: &Path) -> Result<Self> {
        let mut wal = Self {
            dir: dir.to_owned(),
            ..Self::default()
        };
        let entries = fs::read_dir(dir).doing(Kind::NotChecked, || opening(dir))?;
        for entry in entries {
            let entry = entry.doing(Kind::NotChecked, || opening(dir))?;
            let file_name = entry.file_name();
            let path = entry.path();
            match file_name.to_str().and_then(SegmentName::parse) {
                Some(name) => {
                    let metadata =
                        fs::metadata(&path).doing(Kind::NotChecked, || opening(&path))?;
                    if !metadata.is_file() {
                        return Err(Failure::new(
                            Kind::NotChecked,
                            format!("{} is not a regular file", path.display()),
                        ));
                    }
                    wal.segments.push(Segment {
                        name,
                        len: metadata.len(),
                        content: Content::File(path),
                    });
                }
                None => wal.others.push(file_name.to_string_lossy().into_owned()),
            }
        }
        wal.segments.sort_by_key(|segment| segment.name);
        wal.others.sort();
        Ok(wal)
    }

    /// A WAL of given segments.
    pub fn of_segments(mut segments: Vec<Segment>) -> Self {
        segments.sort_by_key(|segment| segment.name);
        Self {
            segments,
            ..Self::default()
        }
    }

    /// The directory that was listed; empty for segments from elsewhere.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The segments, in order.
    pub fn segments(&self) -> &[Segment] {
        &self.segments
    }

    /// What else is in the directory: `N.tmp` is etcd's next segment, `*.broken` the copy that a
    /// repair left.
    pub fn others(&self) -> &[String] {
        &self.others
    }

    pub(super) fn name(&self, segment: usize) -> String {
        self.segments
            .get(segment)
            .map(|segment| segment.name.to_string())
            .unwrap_or_default()
    }
}
