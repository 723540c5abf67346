//! Reading an archive that nobody vouches for.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use flate2::bufread::GzDecoder;
use sha2::{Digest, Sha256};
use tar::{Archive, EntryType, Header};

use super::certificates;
use super::entry::{Pending, RawEntry, Wrong};
use super::links::{Budget, Landing, follow};
use super::names::{Names, Role};
use super::pax;
use super::stream::{Source, Stream, Trouble, wide};
use super::{ArchiveContents, Entry, EntryKind};
use crate::error::{Doing, Failure, Kind, Result};
use crate::finding::{Finding, Layer, Place};

/// The unit of a tar stream.
const BLOCK: u64 = 512;
/// More than enough for what the kernel lets a file carry.
const MAX_EXTENSION: u64 = 1 << 20;
/// Archives that unpack to less may be as dense as they like.
const ALWAYS_FITS: u64 = 16 << 20;
/// A hostile archive could cause any number of findings; these suffice.
const MAX_FINDINGS: usize = 100;

/// What an archive must keep to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// Names must start with one of these directories; if the list is empty, any name is accepted.
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
    /// Most unpacked bytes for each byte of the archive, once they are more than 16 MiB. PEM and
    /// manifests have about 2; gzip itself ends at 1,032.
    pub max_ratio: u64,
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
            max_ratio: 200,
        }
    }
}

impl Rules {
    /// Whether an archive of so much content would unpack to more than these rules allow for its
    /// size; headers count too, so that half as much is the limit.
    pub fn is_dense(&self, content: u64, packed: u64) -> bool {
        content > ALWAYS_FITS / 2 && content > packed.saturating_mul(self.max_ratio / 2)
    }
}

/// What an archive holds, and what is wrong with it.
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
    read_archive(input, rules, &mut Nobody)
}

/// Called with each accepted entry while an archive is read. An error ends the reading and becomes
/// its result.
pub(super) trait Visitor {
    /// An entry begins; a file's hash is still all zeros.
    fn begin(&mut self, entry: &Entry) -> Result<()>;
    /// The next bytes of the file that began.
    fn content(&mut self, part: &[u8]) -> Result<()>;
    /// The entry is over, and complete.
    fn end(&mut self, entry: &Entry) -> Result<()>;
}

struct Nobody;

impl Visitor for Nobody {
    fn begin(&mut self, _: &Entry) -> Result<()> {
        Ok(())
    }

    fn content(&mut self, _: &[u8]) -> Result<()> {
        Ok(())
    }

    fn end(&mut self, _: &Entry) -> Result<()> {
        Ok(())
    }
}

/// As [`check_archive`], with a visitor that sees every entry.
pub(super) fn read_archive(
    input: impl Read,
    rules: &Rules,
    visitor: &mut dyn Visitor,
) -> Result<ArchiveReport> {
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
        visitor,
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
    match outcome {
        Ok(()) => reader.check_ratio(position, source.count),
        Err(Stop::Failed(failure)) => return Err(failure),
        Err(Stop::Found(finding)) => {
            let limit = rules.max_unpacked;
            reader.report.findings.push(match trouble {
                Some(Trouble::Limit) => {
                    error(format!("at most {limit} bytes unpacked"), "more".to_owned())
                        .at(Place::Unpacked(position))
                }
                Some(Trouble::Gzip(text)) => {
                    error("a whole gzip stream".to_owned(), text).at(Place::Offset(source.count))
                }
                None => *finding,
            });
        }
    }
    reader.check_links();
    Ok(reader.report)
}

/// Nothing after this can be read.
enum Stop {
    /// Because of what stands there.
    Found(Box<Finding>),
    /// Because of the visitor.
    Failed(Failure),
}

fn error(expected: String, found: String) -> Finding {
    Finding::error(Layer::Archive, expected, found)
}

fn stop(at: u64, expected: impl Into<String>, found: impl Into<String>) -> Stop {
    let finding = error(expected.into(), found.into()).at(Place::Unpacked(at));
    Stop::Found(Box::new(finding))
}

struct Reader<'a> {
    rules: &'a Rules,
    visitor: &'a mut dyn Visitor,
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
            // An entry may have three extension headers before its own.
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
        let raw = RawEntry::new(header, std::mem::take(&mut self.pending), size);
        if raw.records.size.is_some_and(|told| told != size) {
            let expected = format!("{size} bytes, as the header has it");
            return Err(stop(at, expected, "another PAX size"));
        }
        let most = self.rules.max_entries;
        if wide(self.report.contents.entries.len()) >= most {
            return Err(stop(at, format!("at most {most} entries"), "more"));
        }
        self.kept = self.kept.saturating_add(raw.kept());
        if self.kept > self.rules.max_kept {
            let most = self.rules.max_kept;
            let expected = format!("at most {most} bytes of names and attributes");
            return Err(stop(at, expected, "more"));
        }
        let checked = raw.entry().and_then(|entry| self.place(entry));
        let mut entry = match checked {
            Ok(entry) => entry,
            Err(wrong) => {
                // The reading continues, so that all that is wrong shows at once.
                self.found(at, &raw.shown(), wrong);
                return Ok(());
            }
        };
        self.visitor.begin(&entry).map_err(Stop::Failed)?;
        if let EntryKind::File { sha256, .. } = &mut entry.kind {
            *sha256 = self.content(&entry.name, size, at, content)?;
        }
        self.visitor.end(&entry).map_err(Stop::Failed)?;
        self.report.contents.entries.push(entry);
        Ok(())
    }

    /// Adds an entry, unless its name or type is refused.
    fn place(&mut self, entry: Entry) -> Result<Entry, Wrong> {
        let tops = &self.rules.tops;
        if !tops.is_empty() && !tops.iter().any(|top| entry.name.starts_with(top)) {
            return Err(Wrong::new(
                format!("a name below {}", join(tops)),
                "another",
            ));
        }
        let role = match &entry.kind {
            EntryKind::Directory => Role::Directory,
            EntryKind::File { .. } | EntryKind::HardLink { .. } => Role::File,
            EntryKind::Symlink { .. } => Role::Symlink,
        };
        if let EntryKind::HardLink { target } = &entry.kind
            && !self.files.contains(target)
        {
            let found = format!("{} does not", target.display());
            return Err(Wrong::new(
                "a hard link to a file that stands before it",
                found,
            ));
        }
        self.names
            .add(&entry.name, role)
            .map_err(|found| Wrong::new("each name once, below directories", found))?;
        match &entry.kind {
            EntryKind::File { .. } => {
                self.files.insert(entry.name.clone());
            }
            EntryKind::Symlink { target } => {
                self.links.insert(entry.name.clone(), target.clone());
            }
            EntryKind::Directory | EntryKind::HardLink { .. } => {}
        }
        Ok(entry)
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
            self.visitor.content(part).map_err(Stop::Failed)?;
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

    fn found(&mut self, at: u64, name: &str, wrong: Wrong) {
        if self.report.findings.len() < MAX_FINDINGS {
            let found = format!("{} ({name})", wrong.found);
            let finding = error(wrong.expected, found).at(Place::Unpacked(at));
            self.report.findings.push(finding);
        }
    }

    /// After the tar stream: the gzip member must have been the input's last byte.
    fn expect_end<R: Read>(&mut self, buffered: &mut BufReader<Source<R>>) {
        // An error here is the input's own, and its owner reports it.
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

    fn check_ratio(&mut self, unpacked: u64, packed: u64) {
        let most = packed.saturating_mul(self.rules.max_ratio);
        if unpacked > most.max(ALWAYS_FITS) {
            let expected = format!("at most {most} bytes unpacked from {packed}");
            self.report
                .findings
                .push(error(expected, format!("{unpacked}")));
        }
    }

    fn check_links(&mut self) {
        let mut told = Vec::new();
        let mut budget = Budget::default();
        let mut links: Vec<_> = self.links.iter().collect();
        // The budget may end before the last one: which are followed must not depend on a map's
        // order.
        links.sort();
        for (name, target) in links {
            let base = self.rules.node_base.as_deref();
            let landing = follow(name, &self.links, base, &mut budget);
            if landing == Landing::Unknown {
                let expected = "links that can be followed in bounded time".to_owned();
                told.push(error(expected, format!("{} links", self.links.len())));
                break;
            }
            let what = format!("{} -> {}", name.display(), target.display());
            let tops = &self.rules.tops;
            let out = match &landing {
                Landing::Outside => true,
                Landing::Inside(path) => {
                    !tops.is_empty() && !tops.iter().any(|top| path.starts_with(top))
                }
                Landing::Loop | Landing::Unknown => false,
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
