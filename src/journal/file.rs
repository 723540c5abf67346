//! The journal of an operation that changes the node: what it is about to do, and what it has done.
//!
//! # Format
//!
//! A text file, mode 0600, one record per line, only appended to:
//!
//! ```text
//! <8 hex digits> <JSON object>\n
//! ```
//!
//! The digits are the CRC-32C (Castagnoli) of the JSON's bytes. Every object has `time` (RFC 3339)
//! and `record`; the first record is `begin` and holds the whole plan, so that nothing but the
//! journal is needed to resume or roll back:
//!
//! | record | besides |
//! | --- | --- |
//! | `begin` | `schema` (1), `tool`, `id`, `kind`, `about`, `steps` |
//! | `doing`, `undoing` | `step`, counted from 0 |
//! | `done`, `undone` | `step`, and `facts` if the step found some |
//! | `resumed` | - |
//! | `completed` | - |
//! | `rolling-back` | `why` |
//! | `rolled-back`, `committing`, `committed` | - |
//!
//! # Invariants
//!
//! - The file appears with its first record complete and durable: it is written under another name,
//!   fsynced and renamed.
//! - Each record is durable before the work that it announces begins, and before anything follows
//!   the work that it confirms.
//! - A last line that is incomplete or has a wrong sum was being written when the machine stopped.
//!   The work that it announces had not begun, so the line is ignored, and overwritten by the next
//!   record. A wrong line before the last is damage, and an error.
//! - The file is longer than its records: zeros after them reserve the room for all records of the
//!   plan and of its rollback, so a full disk cannot stop a rollback. Readers stop at the zeros.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::trust;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::sys::fs::{self, OutFile};

/// The name of the file in an operation's folder.
pub const FILE: &str = "journal";
/// The name of the log next to it: one event per line, for watchers.
pub const LOG: &str = "log";
/// The version of the format.
pub const SCHEMA: u32 = 1;
/// Longer journals are not read: a plan has some dozens of steps.
const MAX_BYTES: u64 = 16 << 20;
/// The reserved room: bytes for reasons and facts, and bytes for each step, which has a record
/// before and after it, forward and back.
const ROOM: u64 = 32 << 10;
const ROOM_A_STEP: u64 = 1 << 10;
/// Bytes of the sum and the blank after it.
const SUM: usize = 9;

/// What an operation is, written once at its beginning.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begin {
    /// The version of this format.
    pub schema: u32,
    /// The version of the tool that wrote it.
    pub tool: String,
    /// The operation's name, which is its folder's too.
    pub id: String,
    /// What kind it is: `restore`, …
    pub kind: String,
    /// What it is about, for those who show it and for the steps.
    pub about: Value,
    /// The steps, in order.
    pub steps: Vec<Value>,
}

/// One line's content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// The plan.
    Begin(Begin),
    /// A step is about to act.
    Doing {
        /// Which.
        step: usize,
    },
    /// A step has acted.
    Done {
        /// Which.
        step: usize,
        /// What it found out, for later steps.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        facts: Option<Value>,
    },
    /// A step is about to be undone.
    Undoing {
        /// Which.
        step: usize,
    },
    /// A step is undone.
    Undone {
        /// Which.
        step: usize,
        /// What undoing the step found out, for the steps that are undone after it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        facts: Option<Value>,
    },
    /// Another process continues.
    Resumed,
    /// All steps are done.
    Completed,
    /// From here on it rolls back.
    RollingBack {
        /// Why.
        why: String,
    },
    /// Everything is undone.
    RolledBack,
    /// What is kept for a rollback is being removed.
    Committing,
    /// It is removed.
    Committed,
}

/// A record and when it was written.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When.
    pub time: Timestamp,
    /// What.
    #[serde(flatten)]
    pub record: Record,
}

/// A journal that records are added to.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Writable,
}

/// Whether records can be added. A rollback is possible from a journal on a file system that became
/// read-only, too.
#[derive(Debug)]
enum Writable {
    Yes(OutFile),
    No(io::Error),
}

impl Journal {
    /// Makes the journal in an operation's folder, durable with its first record and with the room
    /// for the others.
    pub fn create(dir: &Path, begin: Begin, time: Timestamp) -> Result<Self> {
        let path = dir.join(FILE);
        let doing = || format!("writing {}", path.display());
        let room = ROOM + ROOM_A_STEP * begin.steps.len() as u64;
        let line = encoded(&Line {
            time,
            record: Record::Begin(begin),
        })?;
        fs::write_atomic_with_room(&path, &line, room)?;
        let file = OutFile::append_at(&path, line.len() as u64).doing(Kind::Store, doing)?;
        Ok(Self {
            path,
            file: Writable::Yes(file),
        })
    }

    /// Opens a journal to add to it, and returns its records.
    pub fn open(dir: &Path) -> Result<(Self, Vec<Line>)> {
        let path = dir.join(FILE);
        let read = read_with_length(&path)?;
        let opened = OutFile::append_at(&path, read.good).and_then(|mut file| {
            // Not left to the next record, which may be shorter than what is there.
            if read.torn > 0 {
                file.overwrite(read.torn)?;
                file.sync()?;
            }
            Ok(file)
        });
        let file = match opened {
            Ok(file) => Writable::Yes(file),
            Err(cause) if cause.kind() == io::ErrorKind::ReadOnlyFilesystem => Writable::No(cause),
            Err(cause) => {
                let what = format!("opening {}", path.display());
                return Err(Failure::wrap(Kind::Store, cause, what));
            }
        };
        Ok((Self { path, file }, read.lines))
    }

    /// Adds a record; it is durable when this returns. What a failed attempt wrote is overwritten by
    /// the next one.
    pub fn append(&mut self, record: Record, time: Timestamp) -> Result<Line> {
        let line = Line { time, record };
        let bytes = encoded(&line)?;
        let written = match &mut self.file {
            Writable::Yes(file) => append(file, &bytes),
            Writable::No(cause) => Err(io::Error::new(cause.kind(), cause.to_string())),
        };
        written.doing(Kind::Store, || format!("writing {}", self.path.display()))?;
        Ok(line)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn append(file: &mut OutFile, bytes: &[u8]) -> io::Result<()> {
    let start = file.len();
    let written = file.write_all(bytes).and_then(|()| file.sync());
    if written.is_err() {
        file.rewind_to(start)?;
        // The next record may be shorter than this one. If not even zeros can be written, the
        // failure above is the one to report.
        let _ = file.overwrite(bytes.len() as u64);
    }
    written
}

/// Reads the journal in an operation's folder.
pub fn read(dir: &Path) -> Result<Vec<Line>> {
    read_with_length(&dir.join(FILE)).map(|read| read.lines)
}

/// What a journal's file holds.
struct Content {
    lines: Vec<Line>,
    /// Bytes that they are.
    good: u64,
    /// Bytes of an incomplete record behind them.
    torn: u64,
}

fn encoded(line: &Line) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(line)
        .doing(Kind::Unexpected, || "writing a journal's record as JSON")?;
    let mut bytes = format!("{:08x} ", crc32c::crc32c(&json)).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    Ok(bytes)
}

fn read_with_length(path: &Path) -> Result<Content> {
    let doing = || format!("reading the journal {}", path.display());
    trust::check(path).map_err(|failure| failure.doing(doing()))?;
    let mut bytes = Vec::new();
    File::open(path)
        .and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes))
        .doing(Kind::Store, doing)?;
    if bytes.len() as u64 > MAX_BYTES {
        let what = format!("expected at most {MAX_BYTES} bytes");
        return Err(damaged(path, what));
    }
    parse(path, bytes)
}

/// The records of a journal's bytes; `path` is for messages.
///
/// # Errors
/// [`Kind::Busy`] if a record before the last one is damaged, or there is no plan.
pub fn records(path: &Path, bytes: Vec<u8>) -> Result<Vec<Line>> {
    parse(path, bytes).map(|content| content.lines)
}

fn parse(path: &Path, mut bytes: Vec<u8>) -> Result<Content> {
    let used = bytes.iter().rposition(|byte| *byte != 0);
    bytes.truncate(used.map_or(0, |last| last + 1));
    let mut lines = Vec::new();
    let mut good = 0;
    let mut rest = bytes.as_slice();
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        let (line, after) = (rest.get(..end), rest.get(end + 1..));
        let (line, after) = (line.unwrap_or_default(), after.unwrap_or_default());
        let number = lines.len() + 1;
        match decoded(line) {
            Ok(line) => lines.push(line),
            // A record that a crash interrupted is the last thing in the file.
            Err(_) if after.is_empty() && number > 1 => break,
            Err(what) => return Err(damaged(path, format!("line {number}: {what}"))),
        }
        good += end as u64 + 1;
        rest = after;
    }
    match lines.first().map(|line| &line.record) {
        Some(Record::Begin(begin)) if begin.schema == SCHEMA => Ok(Content {
            torn: bytes.len() as u64 - good,
            lines,
            good,
        }),
        Some(Record::Begin(begin)) => Err(damaged(
            path,
            format!(
                "expected schema {SCHEMA}, found {}: another version of the tool wrote it",
                begin.schema
            ),
        )),
        _ => Err(damaged(
            path,
            "expected a plan in line 1, found none".to_owned(),
        )),
    }
}

fn decoded(line: &[u8]) -> Result<Line, String> {
    let (sum, json) = line.split_at_checked(SUM).ok_or("it is truncated")?;
    let sum = std::str::from_utf8(sum)
        .ok()
        .and_then(|sum| sum.strip_suffix(' '))
        .and_then(|sum| u32::from_str_radix(sum, 16).ok())
        .ok_or("expected a checksum of 8 hex digits")?;
    let found = crc32c::crc32c(json);
    if found != sum {
        return Err(format!(
            "expected the checksum {sum:08x}, found {found:08x}"
        ));
    }
    serde_json::from_slice(json).map_err(|e| e.to_string())
}

fn damaged(path: &Path, what: String) -> Failure {
    Failure::new(Kind::Busy, what)
        .doing(format!("reading the journal {}", path.display()))
        .with(Fact::Path(PathBuf::from(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begin() -> Begin {
        Begin {
            schema: SCHEMA,
            tool: "0.1.0".to_owned(),
            id: "restore-1".to_owned(),
            kind: "restore".to_owned(),
            about: serde_json::json!({"set": "backup-1\n"}),
            steps: vec![Value::from("a"), Value::from("b")],
        }
    }

    fn written(dir: &Path) -> Vec<Line> {
        let now = Timestamp::UNIX_EPOCH;
        let mut journal = Journal::create(dir, begin(), now).unwrap();
        for step in 0..2 {
            journal.append(Record::Doing { step }, now).unwrap();
            let facts = Some(serde_json::json!({"id": u64::MAX}));
            journal.append(Record::Done { step, facts }, now).unwrap();
        }
        journal.append(Record::Completed, now).unwrap();
        read(dir).unwrap()
    }

    #[test]
    fn cut_at_every_byte_it_loses_the_last_record_at_most() {
        let dir = tempfile::tempdir().unwrap();
        let lines = written(dir.path());
        assert_eq!(lines.len(), 6);
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        // Behind the last record there are zeros, the room for those to come.
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        for cut in (0..=used).chain([used + 1, whole.len() - 1, whole.len()]) {
            let kept = whole.get(..cut).unwrap();
            std::fs::write(&path, kept).unwrap();
            if cut < first {
                assert!(read(dir.path()).is_err(), "cut at {cut}");
                continue;
            }
            let complete = kept.iter().filter(|b| **b == b'\n').count();
            let (mut journal, found) = Journal::open(dir.path()).unwrap();
            assert_eq!(found, lines[..complete], "cut at {cut}");
            // What follows is readable again.
            journal
                .append(Record::Resumed, Timestamp::UNIX_EPOCH)
                .unwrap();
            let again = read(dir.path()).unwrap();
            assert_eq!(again.len(), complete + 1);
            assert_eq!(again.last().unwrap().record, Record::Resumed);
        }
    }

    #[test]
    fn an_incomplete_record_in_the_room_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let lines = written(dir.path());
        let path = dir.path().join(FILE);
        let whole = std::fs::read(&path).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // Of a record that spans two blocks only the second may have reached the disk.
        for torn in [&b"1234 {\"time"[..], &b"\0\0\0\0time\":1}\n"[..]] {
            let mut bytes = whole.clone();
            bytes[used..used + torn.len()].copy_from_slice(torn);
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(dir.path()).unwrap(), lines);
            let (mut journal, found) = Journal::open(dir.path()).unwrap();
            assert_eq!(found, lines);
            let added = journal
                .append(Record::RolledBack, Timestamp::UNIX_EPOCH)
                .unwrap();
            assert_eq!(read(dir.path()).unwrap().last(), Some(&added));
            assert_eq!(std::fs::read(&path).unwrap().len(), whole.len());
        }
    }

    #[test]
    fn damage_before_the_end_is_an_error_with_its_line() {
        let dir = tempfile::tempdir().unwrap();
        written(dir.path());
        let path = dir.path().join(FILE);
        let mut whole = std::fs::read(&path).unwrap();
        let used = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        // The room for later records is kept behind them.
        assert!(whole.len() as u64 - used as u64 > ROOM);
        whole.truncate(used);
        let last = whole[..whole.len() - 1]
            .iter()
            .rposition(|b| *b == b'\n')
            .unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            std::fs::write(&path, &bytes).unwrap();
            match read(dir.path()) {
                // Without the line end between them the last two are one that is wrong.
                Ok(lines) => {
                    let kept = if at == last { 4 } else { 5 };
                    assert!(at >= last && lines.len() == kept, "flipped at {at}");
                }
                Err(failure) => {
                    assert!(at < last, "flipped at {at}: {failure}");
                    assert_eq!(failure.kind(), Kind::Busy);
                }
            }
        }
        // Zeros behind the end, as a file system may leave them after a crash.
        let mut bytes = whole.clone();
        bytes.extend_from_slice(&[0; 512]);
        std::fs::write(&path, &bytes).unwrap();
        assert_eq!(read(dir.path()).unwrap().len(), 6);
    }
}
