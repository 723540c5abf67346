//! Reading a segment, which may be anybody's file.

use std::path::Path;

use sha2::{Digest, Sha256};

use super::body::{LEASE, RECORD, TIME};
use super::header::{Header, MAGIC, MAX_BYTES, MAX_HEADER, SCHEMA_VERSION};
use crate::error::{Failure, Kind, Result};
use crate::etcd::mvcc::{KeyValue, KvRevision, RevisionKey};
use crate::sys::small;

/// Bytes of the hash at the end.
const HASH: usize = 32;

/// An entry of the bucket `key`, borrowed from its segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// The parsed key.
    pub key: RevisionKey,
    /// The key's bytes.
    pub key_bytes: &'a [u8],
    /// The value's bytes: `mvccpb.KeyValue`.
    pub value: &'a [u8],
}

/// Where a record is in the file.
#[derive(Debug, Clone, Copy)]
struct At {
    key: u32,
    key_len: u32,
    value_len: u32,
}

/// A segment that was read whole and checked: its hash, its header, and that its records are all changes of
/// its revisions. Memory is the file and 12 bytes a record.
#[derive(Debug)]
pub struct Segment {
    header: Header,
    sha256: [u8; HASH],
    bytes: Vec<u8>,
    records: Vec<At>,
    times: Vec<(i64, i64)>,
    leases: Vec<(i64, i64)>,
}

impl Segment {
    /// Reads a file; `None` if it does not exist.
    ///
    /// # Errors
    /// [`Kind::BadBackup`] for one that is not a whole segment; [`Kind::Store`] if it cannot be
    /// read.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        let Some(bytes) = small::read(path, MAX_BYTES)? else {
            return Ok(None);
        };
        let parsed = Self::parse(bytes);
        let doing = || format!("reading {}", path.display());
        parsed.map(Some).map_err(|failure| failure.doing(doing()))
    }

    /// Reads a file that must be there.
    ///
    /// # Errors
    /// As [`Segment::read`], and [`Kind::BadBackup`] if the file does not exist.
    pub fn open(path: &Path) -> Result<Self> {
        let missing = || {
            let what = format!("{} is missing", path.display());
            Failure::new(Kind::BadBackup, what)
        };
        Self::read(path)?.ok_or_else(missing)
    }

    /// Reads the header of a file alone, unchecked but for its form; `None` if it does not exist.
    ///
    /// # Errors
    /// As [`Segment::read`].
    pub fn header_of(path: &Path) -> Result<Option<Header>> {
        let most = MAGIC.len() as u64 + 4 + u64::from(MAX_HEADER);
        let Some(bytes) = small::read_start(path, most)? else {
            return Ok(None);
        };
        let read = header(&bytes).map(|(header, _)| Some(header));
        read.map_err(|failure| failure.doing(format!("reading {}", path.display())))
    }

    /// Checks the bytes of a file.
    ///
    /// # Errors
    /// [`Kind::BadBackup`] with the offset and what was expected there.
    pub fn parse(bytes: Vec<u8>) -> Result<Self> {
        let Some((content, hash)) = bytes.split_last_chunk::<HASH>() else {
            return Err(bad(0, "a segment", "fewer bytes than its hash has"));
        };
        let sha256: [u8; HASH] = Sha256::digest(content).into();
        let end = content.len();
        if sha256 != *hash {
            return Err(bad(
                end,
                &format!("SHA-256 {}", hex::encode(hash)),
                &hex::encode(sha256),
            ));
        }
        let (header, start) = header(content)?;
        let mut reader = Reader::new(&header);
        let mut at = start;
        while at < end {
            at = reader.frame(content, at)?;
        }
        reader.finish(end)?;
        let Reader {
            records,
            times,
            leases,
            ..
        } = reader;
        Ok(Self {
            header,
            sha256,
            records,
            times,
            leases,
            bytes,
        })
    }

    /// What it says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Its hash, hex.
    pub fn sha256(&self) -> String {
        hex::encode(self.sha256)
    }

    /// The changes, in etcd's order; from both ends.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = Record<'_>> {
        self.records.iter().filter_map(|at| self.record(*at))
    }

    fn record(&self, at: At) -> Option<Record<'_>> {
        let (key, value) = self
            .bytes
            .get(at.key as usize..)?
            .get(..at.key_len as usize + at.value_len as usize)?
            .split_at_checked(at.key_len as usize)?;
        Some(Record {
            key: RevisionKey::parse(key)?,
            key_bytes: key,
            value,
        })
    }

    /// Revisions, and when they arrived in milliseconds since 1970: those whose events came as they
    /// were written. Both ascend.
    pub fn times(&self) -> &[(i64, i64)] {
        &self.times
    }

    /// Leases and their granted times to live, in seconds.
    pub fn leases(&self) -> &[(i64, i64)] {
        &self.leases
    }
}

fn bad(at: usize, expected: &str, found: &str) -> Failure {
    let what = format!("offset {at}: expected {expected}, found {found}");
    Failure::new(Kind::BadBackup, what)
}

/// The header, and where the frames begin.
fn header(bytes: &[u8]) -> Result<(Header, usize)> {
    let Some((magic, rest)) = bytes.split_first_chunk::<8>() else {
        return Err(bad(0, "a segment", "the end of the file"));
    };
    if *magic != MAGIC {
        return Err(bad(0, "a segment's first bytes", &hex::encode(magic)));
    }
    let Some((length, rest)) = rest.split_first_chunk::<4>() else {
        return Err(bad(8, "the length of the header", "the end of the file"));
    };
    let length = u32::from_le_bytes(*length);
    if length > MAX_HEADER {
        return Err(bad(
            8,
            &format!("a header of at most {MAX_HEADER} bytes"),
            &length.to_string(),
        ));
    }
    let Some(text) = rest.get(..length as usize) else {
        return Err(bad(12, "the whole header", "the end of the file"));
    };
    let header: Header = serde_json::from_slice(text)
        .map_err(|error| bad(12, "the header", &crate::error::cut(error.to_string())))?;
    if header.schema_version > SCHEMA_VERSION {
        return Err(bad(
            12,
            &format!("schema version {SCHEMA_VERSION}"),
            &header.schema_version.to_string(),
        ));
    }
    if header.first_revision < 1 || header.first_revision > header.last_revision {
        let found = format!("{} to {}", header.first_revision, header.last_revision);
        return Err(bad(12, "ascending revisions", &found));
    }
    Ok((header, 12 + length as usize))
}

/// Reads frames, and holds them against the header.
struct Reader<'h> {
    header: &'h Header,
    /// The last record's revision.
    last: Option<KvRevision>,
    /// The time that is still to be given to a revision.
    time: Option<i64>,
    records: Vec<At>,
    times: Vec<(i64, i64)>,
    leases: Vec<(i64, i64)>,
}

impl<'h> Reader<'h> {
    fn new(header: &'h Header) -> Self {
        Self {
            header,
            last: None,
            time: None,
            records: Vec::new(),
            times: Vec::new(),
            leases: Vec::new(),
        }
    }

    /// Reads the frame at an offset; where the next one is.
    fn frame(&mut self, bytes: &[u8], at: usize) -> Result<usize> {
        let cut = || bad(at, "a whole frame", "the end of the file");
        let rest = bytes.get(at..).ok_or_else(cut)?;
        let (kind, rest) = rest.split_first().ok_or_else(cut)?;
        match *kind {
            RECORD => {
                let (key_len, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
                let (value_len, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
                let lengths = [*key_len, *value_len].map(u32::from_le_bytes);
                let [key_len, value_len] = lengths;
                let (key, rest) = rest.split_at_checked(key_len as usize).ok_or_else(cut)?;
                let value = rest.get(..value_len as usize).ok_or_else(cut)?;
                self.record(at, key, value)?;
                let start = at + 9;
                self.records.push(At {
                    // The file has at most MAX_BYTES.
                    key: u32::try_from(start).map_err(|_| cut())?,
                    key_len,
                    value_len,
                });
                Ok(start + key.len() + value.len())
            }
            TIME => {
                let (millis, _) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
                self.time(at, i64::from_le_bytes(*millis))?;
                Ok(at + 9)
            }
            LEASE => {
                let (id, rest) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
                let (ttl, _) = rest.split_first_chunk::<8>().ok_or_else(cut)?;
                self.lease(at, i64::from_le_bytes(*id), i64::from_le_bytes(*ttl))?;
                Ok(at + 17)
            }
            other => Err(bad(at, "a frame of kind 1 to 3", &format!("kind {other}"))),
        }
    }

    fn record(&mut self, at: usize, key: &[u8], value: &[u8]) -> Result<()> {
        if !self.leases.is_empty() {
            return Err(bad(at, "no record behind a lease", "a record"));
        }
        let Some(parsed) = RevisionKey::parse(key) else {
            return Err(bad(
                at,
                "a revision as key",
                &hex::encode(key.get(..32).unwrap_or(key)),
            ));
        };
        let revision = parsed.revision;
        let next = match self.last {
            None => revision == first_of(self.header.first_revision),
            Some(last) => {
                let within = last.main == revision.main && revision.sub == last.sub + 1;
                within || revision == first_of(last.main.saturating_add(1))
            }
        };
        if !next || revision.main > self.header.last_revision {
            let after = match self.last {
                None => format!("revision {}/0", self.header.first_revision),
                Some(last) => format!("the revision after {last}"),
            };
            return Err(bad(at, &after, &revision.to_string()));
        }
        sound(parsed, value).map_err(|expected| bad(at, expected, "another value"))?;
        if let Some(millis) = self.time.take() {
            self.times.push((revision.main, millis));
        }
        self.last = Some(revision);
        Ok(())
    }

    fn time(&mut self, at: usize, millis: i64) -> Result<()> {
        // Times are what a clock said: that they do not run backwards was seen to when they were
        // written.
        let before = self.times.last().map(|(_, millis)| *millis);
        if before.is_some_and(|before| before > millis) || self.time.is_some() {
            return Err(bad(at, "an ascending time", &millis.to_string()));
        }
        self.time = Some(millis);
        Ok(())
    }

    fn lease(&mut self, at: usize, id: i64, ttl: i64) -> Result<()> {
        let ascends = self.leases.last().is_none_or(|(last, _)| *last < id);
        if id == 0 || ttl <= 0 || !ascends {
            return Err(bad(
                at,
                "an ascending lease",
                &format!("{id:x} with {ttl} s"),
            ));
        }
        self.leases.push((id, ttl));
        Ok(())
    }

    fn finish(&self, end: usize) -> Result<()> {
        let last = self.last.map(|last| last.main);
        if last != Some(self.header.last_revision) {
            let expected = format!("revision {}", self.header.last_revision);
            return Err(bad(
                end,
                &expected,
                &format!("revision {}", last.unwrap_or(0)),
            ));
        }
        let counts = (self.records.len() as u64, self.leases.len() as u64);
        if counts != (self.header.records, self.header.leases) || self.time.is_some() {
            let expected = format!(
                "{} records, {} leases",
                self.header.records, self.header.leases
            );
            return Err(bad(end, &expected, &format!("{}, {}", counts.0, counts.1)));
        }
        Ok(())
    }
}

fn first_of(main: i64) -> KvRevision {
    KvRevision { main, sub: 0 }
}

/// Whether a value is what etcd has under this key; otherwise what it should be.
fn sound(key: RevisionKey, value: &[u8]) -> Result<(), &'static str> {
    let decoded = KeyValue::decode(value).map_err(|_| "a value as etcd writes it")?;
    let (kv, None) = decoded else {
        return Err("a value without unknown fields");
    };
    let main = key.revision.main;
    if kv.key.is_empty() {
        return Err("a value with a key");
    }
    if key.tombstone {
        let plain = KeyValue {
            key: kv.key,
            ..KeyValue::default()
        };
        return match kv == plain {
            true => Ok(()),
            false => Err("a tombstone with a key only"),
        };
    }
    let fits = kv.mod_revision == main
        && (1..=main).contains(&kv.create_revision)
        && kv.version >= 1
        && (kv.version == 1) == (kv.create_revision == main);
    match fits {
        true => Ok(()),
        false => Err("a value of its own revision"),
    }
}
