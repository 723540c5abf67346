//! The inspection: threads, passes and the report.
//!
//! Each page is read once: while one thread hashes the file, another decodes the pages as they come and
//! remembers what it can ([`StreamCheck`]). Then the trees are walked, and what was not remembered is
//! read again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::options::{Options, Progress};
use super::packed::Packed;
use super::pieces::{Pieces, Reader, Wanted};
use super::pipeline::{is_unusual, unusual};
use super::read_ordering::{Leader, OrderedReads};
use super::report::{Report, assemble};
use super::skeleton::{Room, Skeleton};
use super::stream::{Remembered, StreamCheck};
use super::trailer::{Digests, Hashing, Shape, Trailer};
use super::walk::{Seen, Walk, Walked};
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::{Meta, Metas, Origin, ReadAt};
use crate::etcd::hashkv::{At, HashKv, NoHash};
use crate::finding::{Findings, Layer, Place};

/// Bytes between two calls of the progress callback.
const PROGRESS_STEP: u64 = 8 << 20;

/// Inspects a snapshot or a copy of a database. The report says what is wrong with it; a
/// failure means that it could not be read.
pub fn inspect(
    source: &dyn ReadAt,
    options: &Options,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report> {
    inspect_and_copy(source, options, None, progress)
}

/// Gets the bytes before the trailer, in order.
pub type Copying<'a> = &'a mut (dyn FnMut(&[u8]) -> io::Result<()> + Send + 'a);

/// The same, and `copy` gets exactly the bytes that are hashed. Without [`Options::trailer`] nothing is
/// hashed or copied.
///
/// # Errors
/// As [`inspect`], and that of the copy.
pub fn inspect_and_copy(
    source: &dyn ReadAt,
    options: &Options,
    copy: Option<Copying<'_>>,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report> {
    let size = source.size();
    let shape = Shape::of(size);
    let mut findings = Findings::keeping(options.findings);
    let packed = Packed::of(source).doing(Kind::NotChecked, || "reading the database")?;
    if let Some(packed) = packed {
        findings.error(Layer::Trailer, Place::Offset(0), || {
            ("etcd's database".into(), packed.told("FILE"))
        });
    } else if shape == Shape::Odd {
        report_odd(size, &mut findings);
    }
    let data = shape.data(size);
    let origin = match shape {
        Shape::Sealed => Origin::Streamed,
        Shape::Unsealed | Shape::Odd => Origin::File,
    };
    let metas = Metas::read(source, data, origin, &mut findings)
        .doing(Kind::NotChecked, || "reading the database")?;
    let chosen = metas.map(|metas| metas.chosen);
    let database = chosen.and_then(|meta| meta.database_size());
    let meter = Meter::new(size, progress);
    let ordered = OrderedReads::new(source);
    let pieces = Pieces::new(source, data);
    let copy = copy.filter(|_| options.trailer);
    let looks = options.trailer && options.remember > 0 && chosen.is_some();
    // Both before any thread starts: nobody may wait for a reader that never begins.
    let hash = options.trailer.then(|| Hash {
        pieces: pieces.reader(),
        leader: ordered.leader(),
        hashing: Hashing::new(size, database),
    });
    let second = (looks || copy.is_some()).then(|| Second {
        pieces: pieces.reader(),
        copy,
    });
    let followed: &dyn ReadAt = if hash.is_some() { &ordered } else { source };
    let inspection = Inspection {
        source: followed,
        data,
        options,
        meter: &meter,
    };
    let (digests, walk) = std::thread::scope(|scope| {
        let hashing = hash.map(|hash| scope.spawn(|| hash.run(source, &ordered, &meter)));
        let walk = inspection.take_and_walk(chosen, second, &mut findings);
        (hashing.map(|h| h.join()).transpose(), walk)
    });
    let digests = digests
        .map_err(|_| Failure::new(Kind::Unexpected, "the hashing thread ended early"))?
        .transpose()
        .doing(Kind::NotChecked, || "hashing the database")?;
    let walk = walk.doing(Kind::NotChecked, || "reading the database")?;
    if let Some(digests) = &digests {
        report_digests(digests, shape, database, &mut findings);
    }
    let mut report = assemble(size, digests, walk, options, findings);
    report.raw_copy = shape == Shape::Unsealed && metas.is_some_and(|metas| metas.of_own_file());
    Ok(report)
}

/// The hashes of a snapshot that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// SHA-256 of the whole file, trailer included.
    pub file: [u8; 32],
    /// SHA-256 of the database, which the trailer has been compared with.
    pub database: [u8; 32],
}

/// Inspects a snapshot that passed through a [`StreamCheck`] while it was written, and whose trailer
/// has been checked. The report is that of [`inspect`], provided that `source` returns the bytes that
/// passed, which the caller proves.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_received(
    source: &dyn ReadAt,
    stream: StreamCheck,
    sums: &Sums,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Report> {
    let (options, remembered) = stream.end();
    let report = match remembered {
        Some(remembered) => received(source, &options, remembered, sums, progress)?,
        None => None,
    };
    match report {
        Some(report) => Ok(report),
        None => inspect(source, &options, progress),
    }
}

/// Nothing comes back if anything is not as usual.
fn received(
    source: &dyn ReadAt,
    options: &Options,
    remembered: Remembered,
    sums: &Sums,
    progress: &(dyn Fn(Progress) + Sync),
) -> Result<Option<Report>> {
    let reading = || "reading the database";
    let size = source.size();
    let data = Shape::Sealed.data(size);
    let packed = Packed::of(source).doing(Kind::NotChecked, reading)?;
    if Shape::of(size) != Shape::Sealed || packed.is_some() {
        return Ok(None);
    }
    let mut findings = Findings::keeping(options.findings);
    let metas = Metas::read(source, data, Origin::Streamed, &mut findings);
    let Some(metas) = metas.doing(Kind::NotChecked, reading)? else {
        return Ok(None);
    };
    let chosen = metas.chosen;
    // A stream ends where the database does; what could be behind it is hashed bytes that no page has.
    if chosen.database_size() != Some(data) || u64::from(chosen.page_size) != remembered.page_size {
        return Ok(None);
    }
    let meter = Meter::new(size, progress);
    meter.hashed(size);
    let inspection = Inspection {
        source,
        data,
        options,
        meter: &meter,
    };
    let walked = inspection.walk_remembered(chosen, remembered, &mut findings);
    let Some(walked) = walked.doing(Kind::NotChecked, reading)? else {
        return Ok(None);
    };
    let digests = Digests {
        trailer: Trailer::Ok {
            sha256: hex::encode(sums.database),
        },
        file: sums.file,
        stray: None,
    };
    Ok(Some(assemble(
        size,
        Some(digests),
        Some(walked),
        options,
        findings,
    )))
}

/// What the thread that hashes has.
struct Hash<'a> {
    pieces: Reader<'a>,
    leader: Leader<'a>,
    hashing: Hashing,
}

impl Hash<'_> {
    fn run(
        self,
        source: &dyn ReadAt,
        ordered: &OrderedReads<'_>,
        meter: &Meter<'_>,
    ) -> io::Result<Digests> {
        let Self {
            mut pieces,
            leader: _leader,
            mut hashing,
        } = self;
        pieces.each(|piece| {
            hashing.take(piece);
            ordered.advance(piece.len() as u64);
            meter.hashed(piece.len() as u64);
            Wanted::More
        })?;
        hashing.end(source)
    }
}

/// The reader beside the one that hashes: it copies what it reads, if that is asked for.
struct Second<'p, 'c> {
    pieces: Reader<'p>,
    copy: Option<Copying<'c>>,
}

impl Second<'_, '_> {
    /// Shows each piece that is left, until `take` has had enough, or a copy fails.
    fn each(&mut self, mut take: impl FnMut(&[u8]) -> Wanted) -> io::Result<()> {
        let Self { pieces, copy } = self;
        let mut copied = Ok(());
        pieces.each(|piece| {
            if let Some(copy) = copy {
                copied = copy(piece);
            }
            match copied {
                Ok(()) => take(piece),
                Err(_) => Wanted::NoMore,
            }
        })?;
        copied
    }
}

/// What all ways to walk the trees share.
struct Inspection<'a> {
    source: &'a dyn ReadAt,
    data: u64,
    options: &'a Options,
    meter: &'a Meter<'a>,
}

impl Inspection<'_> {
    /// Takes the pieces as far as there is room to remember what is in them, and then walks the trees. What
    /// is left to be copied then is copied meanwhile.
    fn take_and_walk(
        &self,
        chosen: Option<Meta>,
        mut second: Option<Second<'_, '_>>,
        findings: &mut Findings,
    ) -> io::Result<Option<Walked>> {
        let remembered = match (chosen, &mut second) {
            (Some(meta), Some(second)) if self.options.remember > 0 => self.look(meta, second)?,
            _ => None,
        };
        // Without a copy the reader leaves now, so that nobody waits for it.
        let copies = second.filter(|second| second.copy.is_some());
        std::thread::scope(|scope| {
            let rest = copies.map(|mut second| scope.spawn(move || second.each(|_| Wanted::More)));
            let walked = chosen.map(|meta| self.walk(meta, remembered, findings));
            match rest.map(std::thread::ScopedJoinHandle::join) {
                Some(Err(_)) => Err(io::Error::other("the copying thread ended early")),
                Some(Ok(Err(error))) => Err(error),
                Some(Ok(Ok(()))) | None => walked.transpose(),
            }
        })
    }

    /// Decodes the pages in the order of the file.
    fn look(&self, meta: Meta, second: &mut Second<'_, '_>) -> io::Result<Option<Remembered>> {
        let mut check = StreamCheck::new(self.options.clone(), Room::memory(self.options.remember));
        second.each(|piece| {
            check.take(piece);
            self.meter.looked(piece.len() as u64);
            if check.wants_more() && !check.is_dense() {
                Wanted::More
            } else {
                Wanted::NoMore
            }
        })?;
        let (_, remembered) = check.end();
        Ok(remembered.filter(|seen| seen.page_size == u64::from(meta.page_size)))
    }

    fn walk(
        &self,
        meta: Meta,
        remembered: Option<Remembered>,
        findings: &mut Findings,
    ) -> io::Result<Walked> {
        if let Some(remembered) = remembered {
            let mut found = Findings::keeping(self.options.findings);
            if let Some(walked) = self.walk_remembered(meta, remembered, &mut found)? {
                findings.merge(found);
                return Ok(walked);
            }
        }
        let walked = |bytes| self.meter.walked(bytes);
        Walk::new(self.source, self.data, meta, self.options, &walked).run(findings)
    }

    /// Walks the trees, and takes from what is remembered all that is in it. Nothing comes back if
    /// anything is not as usual in the bucket `key`.
    fn walk_remembered(
        &self,
        meta: Meta,
        remembered: Remembered,
        findings: &mut Findings,
    ) -> io::Result<Option<Walked>> {
        let branches = Branches {
            source: self.source,
            skeleton: &remembered.skeleton,
            page_size: remembered.page_size,
        };
        let seen = Seen {
            decoder: remembered.decoder,
            skeleton: &remembered.skeleton,
        };
        let walked = |bytes| self.meter.walked(bytes);
        let walk = Walk::new(&branches, self.data, meta, self.options, &walked).remembering(seen);
        match walk.run(findings) {
            Err(error) if is_unusual(&error) => Ok(None),
            walked => walked.map(Some),
        }
    }
}

/// The snapshot, but for branch pages that are remembered.
struct Branches<'a> {
    source: &'a dyn ReadAt,
    skeleton: &'a Mutex<Skeleton>,
    page_size: u64,
}

impl ReadAt for Branches<'_> {
    fn size(&self) -> u64 {
        self.source.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        if offset.is_multiple_of(self.page_size) {
            let mut skeleton = self.skeleton.lock().unwrap_or_else(PoisonError::into_inner);
            let branch = skeleton.branch(offset / self.page_size, self.page_size, buf);
            if branch.map_err(|_| unusual())? {
                return Ok(());
            }
        }
        self.source.read_exact_at(buf, offset)
    }
}

/// Whether it is a copy of a database's own file (podman-etcd's `snapshot-*.db`, Talos' `cp`), and
/// not a stream whose trailer was lost: it never had a hash, and lacks what is only in the WAL.
///
/// # Errors
/// [`Kind::NotChecked`] if it cannot be read.
pub fn is_raw_copy(source: &dyn ReadAt) -> Result<bool> {
    let size = source.size();
    if Shape::of(size) != Shape::Unsealed {
        return Ok(false);
    }
    let metas = Metas::of_file(source, size);
    let metas = metas.doing(Kind::NotChecked, || "reading the database")?;
    Ok(metas.is_some_and(|metas| metas.of_own_file()))
}

/// Computes HashKV alone. The file is inspected as a whole, so that a cold disk is read in order;
/// findings are not reported, but a bucket that cannot be read whole has no hash.
pub fn hash_kv(source: &dyn ReadAt, at: At) -> Result<std::result::Result<HashKv, NoHash>> {
    let options = Options {
        hash_kv: at,
        findings: 0,
        ..Options::default()
    };
    let report = inspect(source, &options, &|_| {})?;
    Ok(match report.hash_kv {
        Some(hash) => Ok(hash),
        None => Err(report.no_hash_kv.unwrap_or(NoHash::Unreadable)),
    })
}

/// Adds up what both threads have done and tells it in steps.
struct Meter<'a> {
    hashed: AtomicU64,
    looked: AtomicU64,
    walked: AtomicU64,
    told: AtomicU64,
    size: u64,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Meter<'a> {
    fn new(size: u64, progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self {
            hashed: AtomicU64::new(0),
            looked: AtomicU64::new(0),
            walked: AtomicU64::new(0),
            told: AtomicU64::new(0),
            size,
            progress,
        }
    }

    fn hashed(&self, bytes: u64) {
        self.hashed.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn walked(&self, bytes: u64) {
        self.walked.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn looked(&self, bytes: u64) {
        self.looked.fetch_add(bytes, Ordering::Relaxed);
        self.tell();
    }

    fn tell(&self) {
        let hashed = self.hashed.load(Ordering::Relaxed);
        // Pages that were decoded are half done: the walk is still to come.
        let looked = self.looked.load(Ordering::Relaxed) / 2;
        let walked = self.walked.load(Ordering::Relaxed).max(looked);
        let step = (hashed + walked) / PROGRESS_STEP;
        if step > self.told.fetch_max(step, Ordering::Relaxed) {
            (self.progress)(Progress {
                hashed,
                walked,
                size: self.size,
            });
        }
    }
}

fn report_odd(size: u64, findings: &mut Findings) {
    findings.error(Layer::Trailer, Place::Offset(size), || {
        (
            "whole pages, or whole pages and a trailer of 32 bytes".into(),
            format!("{size} bytes: the file is truncated or extended"),
        )
    });
}

fn report_digests(digests: &Digests, shape: Shape, database: Option<u64>, findings: &mut Findings) {
    if let Trailer::Mismatch { expected, found } = &digests.trailer {
        findings.error(Layer::Trailer, None, || {
            (format!("SHA-256 {expected}"), found.clone())
        });
    }
    if let Some(stray) = digests.stray {
        let words = || {
            let end = database.unwrap_or_default();
            (
                format!("nothing but zeros after the database's end at {end}"),
                "other bytes".into(),
            )
        };
        match shape {
            Shape::Sealed => findings.error(Layer::Trailer, Place::Offset(stray), words),
            // A crash between writing pages and the meta leaves such bytes.
            _ => findings.warning(Layer::Meta, Place::Offset(stray), words),
        }
    }
}
