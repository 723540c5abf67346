//! Reading an archive that nobody vouches for.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType, Header};

use super::certificates;
use super::links::{Landing, follow};
use super::names::{Names, Role, plain_name};
use super::pax::{self, Records};
use super::{ArchiveContents, Entry, EntryKind};
use crate::error::{Doing, Kind, Result};
use crate::etcd::finding::{Finding, Layer, Place};

/// The unit of a tar stream.
const BLOCK: u64 = 512;
/// More than enough for what the kernel lets a file carry.
const MAX_EXTENSION: u64 = 1 << 20;
/// A hostile archive could make any number; these tell enough.
const MAX_FINDINGS: usize = 100;

/// What an archive must keep to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Names must start with one of these directories; any name will do if there is none.
    pub tops: Vec<PathBuf>,
    /// What the node calls the directory that names are relative to: an absolute link below it
    /// leads inside.
    pub node_base: Option<PathBuf>,
    /// Most entries.
    pub max_entries: u64,
    /// Most bytes of the unpacked tar stream.
    pub max_unpacked: u64,
    /// Most bytes of one file.
    pub max_file: u64,
    /// Most bytes of names, link targets and attributes together: what the reader keeps.
    pub max_kept: u64,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            tops: Vec::new(),
            node_base: None,
            max_entries: 200_000,
            max_unpacked: 1 << 30,
            max_file: 256 << 20,
            max_kept: 64 << 20,
        }
    }
}

/// What stands in an archive, and what is wrong with it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveReport {
    /// The entries as far as the archive could be read; all of them if nothing is wrong.
    pub contents: ArchiveContents,
    /// What is wrong. A place is an offset in the archive or in the unpacked tar stream.
    pub findings: Vec<Finding>,
}

/// Reads an archive to its very end: gzip checksum and length, the tar stream's end, nothing
/// after. Each entry must be a directory, file or link with a plain relative name of its own, and
/// links must stay inside. Memory and time are bounded by `rules`.
///
/// An error means that the input could not be read; all that is wrong with what was read is a
/// finding.
pub fn check_archive(input: impl Read, rules: &Rules) -> Result<ArchiveReport> {
    let source = Source {
        inner: input,
        count: 0,
        failure: None,
    };
    let mut gzip = GzDecoder::new(BufReader::with_capacity(1 << 16, source));
    let stream = Stream {
        gzip: RefCell::new(&mut gzip),
        position: Cell::new(0),
        limit: rules.max_unpacked,
        trouble: Cell::new(None),
    };
    let mut reader = Reader {
        rules,
        names: Names::default(),
        files: HashSet::new(),
        links: HashMap::new(),
        kept: 0,
        pending: Pending::default(),
        report: ArchiveReport::default(),
    };
    let outcome = reader.read_stream(&stream);
    let (position, trouble) = (stream.position.get(), stream.trouble.take());
    let mut buffered = gzip.into_inner();
    if outcome.is_ok() {
        reader.expect_end(&mut buffered);
    }
    let source = buffered.into_inner();
    if let Some(failure) = source.failure {
        return Err(failure).doing(Kind::Store, || "reading the archive");
    }
    if let Err(Stop(finding)) = outcome {
        let finding = match trouble {
            Some(Trouble::Limit) => error(
                format!("at most {} bytes unpacked", rules.max_unpacked),
                "more".to_owned(),
            )
            .at(Place::Unpacked(position)),
            Some(Trouble::Gzip(text)) => {
                error("a whole gzip stream".to_owned(), text).at(Place::Offset(source.count))
            }
            None => finding,
        };
        reader.report.findings.push(finding);
    }
    reader.check_links();
    Ok(reader.report)
}

/// Nothing after this can be read.
struct Stop(Finding);

fn error(expected: String, found: String) -> Finding {
    Finding::error(Layer::Archive, expected, found)
}

fn stop(at: u64, expected: impl Into<String>, found: impl Into<String>) -> Stop {
    Stop(error(expected.into(), found.into()).at(Place::Unpacked(at)))
}

/// The input, counted; tells its own errors from those of the formats.
struct Source<R> {
    inner: R,
    count: u64,
    failure: Option<io::Error>,
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buf) {
                Ok(count) => {
                    self.count = self.count.saturating_add(wide(count));
                    return Ok(count);
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => {
                    let told = io::Error::new(e.kind(), e.to_string());
                    self.failure = Some(e);
                    return Err(told);
                }
            }
        }
    }
}

fn wide(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Why the tar stream could not be read on.
enum Trouble {
    Limit,
    Gzip(String),
}

/// The unpacked tar stream, counted and bounded. Shared, because the tar reader keeps hold of its
/// input while its entries are looked at.
struct Stream<'a, R> {
    gzip: RefCell<&'a mut GzDecoder<R>>,
    position: Cell<u64>,
    limit: u64,
    trouble: Cell<Option<Trouble>>,
}

impl<R: BufRead> Read for &Stream<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.position.get() >= self.limit {
            self.trouble.set(Some(Trouble::Limit));
            return Err(io::Error::other("too large"));
        }
        match self.gzip.borrow_mut().read(buf) {
            Ok(count) => {
                self.position
                    .set(self.position.get().saturating_add(wide(count)));
                Ok(count)
            }
            Err(e) => {
                self.trouble.set(Some(Trouble::Gzip(e.to_string())));
                Err(e)
            }
        }
    }
}

/// What extension headers said of the entry to come.
#[derive(Default)]
struct Pending {
    name: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    records: Option<Records>,
}

impl Pending {
    fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }
}

struct Reader<'a> {
    rules: &'a Rules,
    names: Names,
    /// Regular files so far, for hard links.
    files: HashSet<PathBuf>,
    links: HashMap<PathBuf, PathBuf>,
    kept: u64,
    pending: Pending,
    report: ArchiveReport,
}

impl Reader<'_> {
    fn read_stream<R: BufRead>(&mut self, stream: &Stream<'_, R>) -> Result<(), Stop> {
        let mut archive = Archive::new(stream);
        let entries = archive
            .entries()
            .map_err(|e| stop(0, "a tar stream", e.to_string()))?;
        let mut next = 0;
        let mut headers: u64 = 0;
        // Raw: the tar crate would hold extension headers of any size in memory.
        for entry in entries.raw(true) {
            let mut entry =
                entry.map_err(|e| stop(next, "a tar header or the end", e.to_string()))?;
            headers = headers.saturating_add(1);
            if headers > self.rules.max_entries.saturating_mul(4) {
                return Err(stop(next, "a bounded number of tar headers", "more"));
            }
            let at = entry.raw_header_position();
            let header = entry.header().clone();
            let size = header
                .entry_size()
                .map_err(|e| stop(at, "an entry's size", e.to_string()))?;
            next = size
                .checked_next_multiple_of(BLOCK)
                .and_then(|blocks| blocks.checked_add(entry.raw_file_position()))
                .ok_or_else(|| stop(at, "an entry's size", format!("{size} bytes")))?;
            self.take(&header, size, at, &mut entry)?;
        }
        if !self.pending.is_empty() {
            return Err(stop(next, "an entry after its extension header", "the end"));
        }
        // The tar crate stops at one zero block, or where the stream ends without any.
        if stream.position.get() != next.saturating_add(BLOCK) {
            return Err(stop(
                next,
                "two zero blocks at the end",
                "the end without them",
            ));
        }
        zeros_to_end(stream)
    }

    fn take(
        &mut self,
        header: &Header,
        size: u64,
        at: u64,
        content: &mut impl Read,
    ) -> Result<(), Stop> {
        let kind = header.entry_type();
        match kind {
            EntryType::GNULongName => {
                let bytes = extension(content, size, at)?;
                set_once(&mut self.pending.name, terminated(bytes), at)
            }
            EntryType::GNULongLink => {
                let bytes = extension(content, size, at)?;
                set_once(&mut self.pending.link, terminated(bytes), at)
            }
            EntryType::XHeader => {
                let bytes = extension(content, size, at)?;
                let records = pax::parse(&bytes)
                    .map_err(|found| stop(at, "PAX records of a plain entry", found))?;
                set_once(&mut self.pending.records, records, at)
            }
            EntryType::XGlobalHeader => Err(stop(at, "no global header", "one")),
            EntryType::GNUSparse => Err(stop(at, "plain files", "a sparse file")),
            _ => self.take_entry(header, size, at, content),
        }
    }

    fn take_entry(
        &mut self,
        header: &Header,
        size: u64,
        at: u64,
        content: &mut impl Read,
    ) -> Result<(), Stop> {
        let pending = std::mem::take(&mut self.pending);
        let records = pending.records.unwrap_or_default();
        if records.size.is_some_and(|told| told != size) {
            return Err(stop(
                at,
                format!("{size} bytes, as the header has it"),
                "another PAX size",
            ));
        }
        if wide(self.report.contents.entries.len()) >= self.rules.max_entries {
            return Err(stop(
                at,
                format!("at most {} entries", self.rules.max_entries),
                "more",
            ));
        }
        let raw_name = records
            .path
            .clone()
            .or(pending.name)
            .unwrap_or_else(|| header.path_bytes().into_owned());
        let raw_link = records
            .link
            .clone()
            .or(pending.link)
            .or_else(|| header.link_name_bytes().map(|link| link.into_owned()));
        self.keep(&raw_name, raw_link.as_deref(), &records, at)?;
        let shown = String::from_utf8_lossy(&raw_name).into_owned();
        let mut kind = match self.kind(header.entry_type(), &raw_name, raw_link, &shown, at) {
            Some(kind) => kind,
            None => return Ok(()),
        };
        let Some(name) = self.name(&raw_name, &kind, &shown, at) else {
            return Ok(());
        };
        match &mut kind {
            EntryKind::File { size: told, sha256 } => {
                *told = size;
                *sha256 = self.content(&name, size, at, content)?;
                self.files.insert(name.clone());
            }
            EntryKind::Symlink { target } => {
                self.links.insert(name.clone(), target.clone());
            }
            EntryKind::HardLink { target } => {
                if !self.files.contains(target) {
                    let found = format!("{} does not", target.display());
                    self.found(
                        at,
                        &shown,
                        "a hard link to a file that stands before it",
                        found,
                    );
                    return Ok(());
                }
            }
            EntryKind::Directory => {}
        }
        if size > 0 && !matches!(kind, EntryKind::File { .. }) {
            self.found(
                at,
                &shown,
                "no content but in a regular file",
                format!("{size} bytes"),
            );
        }
        match owned_entry(header, name, kind, records) {
            Ok(entry) => self.report.contents.entries.push(entry),
            Err(found) => self.found(at, &shown, "mode, owner and time in range", found),
        }
        Ok(())
    }

    /// Counts what stays in memory.
    fn keep(
        &mut self,
        name: &[u8],
        link: Option<&[u8]>,
        records: &Records,
        at: u64,
    ) -> Result<(), Stop> {
        let attributes: usize = records
            .xattrs
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(128))
            .fold(0, usize::saturating_add);
        let parents = name.iter().filter(|b| **b == b'/').count().min(64);
        let more = name
            .len()
            .saturating_mul(parents.saturating_add(4))
            .saturating_add(link.map_or(0, <[u8]>::len).saturating_mul(2))
            .saturating_add(attributes);
        self.kept = self.kept.saturating_add(wide(more));
        if self.kept > self.rules.max_kept {
            let expected = format!(
                "at most {} bytes of names and attributes",
                self.rules.max_kept
            );
            return Err(stop(at, expected, "more"));
        }
        Ok(())
    }

    fn kind(
        &mut self,
        kind: EntryType,
        raw_name: &[u8],
        link: Option<Vec<u8>>,
        shown: &str,
        at: u64,
    ) -> Option<EntryKind> {
        let wanted = "a directory, a regular file or a link";
        let kind = match kind {
            // Before POSIX a directory was a file whose name ends in a slash.
            EntryType::Regular | EntryType::Continuous if raw_name.ends_with(b"/") => {
                self.found(
                    at,
                    shown,
                    wanted,
                    "a regular file whose name ends in a slash",
                );
                return None;
            }
            EntryType::Regular | EntryType::Continuous => EntryKind::File {
                size: 0,
                sha256: [0; 32],
            },
            EntryType::Directory => EntryKind::Directory,
            EntryType::Symlink | EntryType::Link => {
                let link = link.filter(|link| !link.is_empty() && !link.contains(&0));
                let Some(link) = link else {
                    self.found(at, shown, "a link with a target", "none");
                    return None;
                };
                if kind == EntryType::Symlink {
                    EntryKind::Symlink {
                        target: path_of(&link),
                    }
                } else {
                    match plain_name(&link) {
                        Ok(target) => EntryKind::HardLink { target },
                        Err(found) => {
                            self.found(at, shown, "a hard link to an entry before it", found);
                            return None;
                        }
                    }
                }
            }
            other => {
                let found = match other {
                    EntryType::Char => "a character device".to_owned(),
                    EntryType::Block => "a block device".to_owned(),
                    EntryType::Fifo => "a named pipe".to_owned(),
                    other => format!("type {:?}", char::from(other.as_byte())),
                };
                self.found(at, shown, wanted, found);
                return None;
            }
        };
        Some(kind)
    }

    fn name(&mut self, raw: &[u8], kind: &EntryKind, shown: &str, at: u64) -> Option<PathBuf> {
        let name = match plain_name(raw) {
            Ok(name) => name,
            Err(found) => {
                self.found(at, shown, "a plain relative name", found);
                return None;
            }
        };
        let tops = &self.rules.tops;
        if !tops.is_empty() && !tops.iter().any(|top| name.starts_with(top)) {
            let expected = format!("a name below {}", join(tops));
            self.found(at, shown, expected, "another");
            return None;
        }
        let role = match kind {
            EntryKind::Directory => Role::Directory,
            EntryKind::File { .. } | EntryKind::HardLink { .. } => Role::File,
            EntryKind::Symlink { .. } => Role::Symlink,
        };
        if let Err(found) = self.names.add(&name, role) {
            self.found(at, shown, "each name once, below directories", found);
            return None;
        }
        Some(name)
    }

    fn content(
        &mut self,
        name: &Path,
        size: u64,
        at: u64,
        content: &mut impl Read,
    ) -> Result<[u8; 32], Stop> {
        if size > self.rules.max_file {
            let expected = format!("files of at most {} bytes", self.rules.max_file);
            return Err(stop(at, expected, format!("{size} bytes")));
        }
        let mut certificate = certificates::Sieve::for_file(name, size);
        let mut hash = Sha256::new();
        let mut buf = vec![0; 1 << 16];
        let mut read: u64 = 0;
        loop {
            let count = content
                .read(&mut buf)
                .map_err(|e| stop(at, format!("{size} bytes of content"), e.to_string()))?;
            let part = buf.get(..count).unwrap_or_default();
            if part.is_empty() {
                break;
            }
            read = read.saturating_add(wide(count));
            hash.update(part);
            certificate.take(part);
        }
        if read != size {
            return Err(stop(
                at,
                format!("{size} bytes of content"),
                format!("{read}"),
            ));
        }
        certificate.finish(name, &mut self.report.contents.certificates);
        Ok(hash.finalize().into())
    }

    fn found(
        &mut self,
        at: u64,
        name: &str,
        expected: impl Into<String>,
        found: impl Into<String>,
    ) {
        if self.report.findings.len() < MAX_FINDINGS {
            let found = format!("{} ({})", found.into(), name.escape_debug());
            let finding = error(expected.into(), found).at(Place::Unpacked(at));
            self.report.findings.push(finding);
        }
    }

    /// After the tar stream: the gzip member must have been the input's last byte.
    fn expect_end<R: Read>(&mut self, buffered: &mut BufReader<Source<R>>) {
        // An error here is the input's own, and told by its owner.
        let left = buffered.fill_buf().map_or(0, <[u8]>::len);
        if left > 0 {
            let at = buffered.get_ref().count.saturating_sub(wide(left));
            let finding = error(
                "nothing after the gzip stream".to_owned(),
                "more bytes".to_owned(),
            );
            self.report.findings.push(finding.at(Place::Offset(at)));
        }
    }

    fn check_links(&mut self) {
        let mut told = Vec::new();
        for (name, target) in &self.links {
            let landing = follow(name, &self.links, self.rules.node_base.as_deref());
            let what = format!("{} -> {}", name.display(), target.display());
            let tops = &self.rules.tops;
            let out = match &landing {
                Landing::Outside => true,
                Landing::Inside(path) => {
                    !tops.is_empty() && !tops.iter().any(|top| path.starts_with(top))
                }
                Landing::Loop => false,
            };
            if out {
                told.push(error("links that stay inside the archive".to_owned(), what));
            } else if landing == Landing::Loop {
                let expected = "links that lead somewhere".to_owned();
                told.push(Finding::warning(Layer::Archive, expected, what));
            }
        }
        told.sort_by(|a, b| a.found.cmp(&b.found));
        let room = MAX_FINDINGS.saturating_sub(self.report.findings.len());
        self.report.findings.extend(told.into_iter().take(room));
    }
}

fn owned_entry(
    header: &Header,
    name: PathBuf,
    kind: EntryKind,
    records: Records,
) -> Result<Entry, String> {
    let id = |told: io::Result<u64>| -> Result<u32, String> {
        let told = told.map_err(|e| e.to_string())?;
        u32::try_from(told).map_err(|_| format!("owner {told}"))
    };
    let modified = match records.modified {
        Some(time) => time,
        // Before 1970 GNU tar writes a negative number, of which this takes the low 64 bits.
        None => i64::from_ne_bytes(header.mtime().map_err(|e| e.to_string())?.to_ne_bytes()),
    };
    Ok(Entry {
        name,
        kind,
        mode: header.mode().map_err(|e| e.to_string())? & 0o7777,
        uid: records.uid.map_or_else(|| id(header.uid()), Ok)?,
        gid: records.gid.map_or_else(|| id(header.gid()), Ok)?,
        modified: modified.max(0),
        xattrs: records.xattrs,
    })
}

fn path_of(bytes: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(bytes))
}

fn join(paths: &[PathBuf]) -> String {
    let texts: Vec<String> = paths.iter().map(|p| p.display().to_string()).collect();
    texts.join(" or ")
}

fn extension(content: &mut impl Read, size: u64, at: u64) -> Result<Vec<u8>, Stop> {
    if size > MAX_EXTENSION {
        let expected = format!("an extension header of at most {MAX_EXTENSION} bytes");
        return Err(stop(at, expected, format!("{size} bytes")));
    }
    let mut bytes = Vec::new();
    let read = content
        .read_to_end(&mut bytes)
        .map_err(|e| stop(at, "an extension header", e.to_string()))?;
    if wide(read) != size {
        return Err(stop(
            at,
            format!("{size} bytes of an extension header"),
            format!("{read}"),
        ));
    }
    Ok(bytes)
}

/// GNU tar ends a long name with a zero byte.
fn terminated(mut bytes: Vec<u8>) -> Vec<u8> {
    if bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

fn set_once<T>(slot: &mut Option<T>, value: T, at: u64) -> Result<(), Stop> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(stop(
            at,
            "one extension header of a kind for an entry",
            "two",
        )),
    }
}

/// After the first zero block: at least one more, and nothing else up to the end.
fn zeros_to_end<R: BufRead>(mut stream: &Stream<'_, R>) -> Result<(), Stop> {
    let mut buf = vec![0; 1 << 15];
    let mut total: u64 = 0;
    loop {
        let at = stream.position.get();
        let count = stream
            .read(&mut buf)
            .map_err(|e| stop(at, "the end of the tar stream", e.to_string()))?;
        let part = buf.get(..count).unwrap_or_default();
        if part.is_empty() {
            break;
        }
        if let Some(index) = part.iter().position(|b| *b != 0) {
            let at = at.saturating_add(wide(index));
            return Err(stop(
                at,
                "zeros up to the end of the tar stream",
                "other bytes",
            ));
        }
        total = total.saturating_add(wide(count));
    }
    if total == 0 || !total.is_multiple_of(BLOCK) {
        let at = stream.position.get();
        return Err(stop(
            at,
            "two zero blocks at the end",
            format!("one and {total} bytes"),
        ));
    }
    Ok(())
}
