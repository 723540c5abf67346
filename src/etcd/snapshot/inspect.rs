//! The inspection: threads, passes and the report.

use std::sync::atomic::{AtomicU64, Ordering};

use super::options::{Options, Progress};
use super::packed::Packed;
use super::read_ordering::OrderedReads;
use super::report::{Report, assemble};
use super::trailer::{Digests, Shape, Trailer, digest};
use super::walk::Walk;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::bbolt::{Metas, Origin, ReadAt};
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
    let database = metas.and_then(|m| m.chosen.database_size());
    let meter = Meter::new(size, progress);
    let ordered = OrderedReads::new(source);
    let leader = options.trailer.then(|| ordered.leader());
    let hashed = |bytes| {
        ordered.advance(bytes);
        meter.hashed(bytes);
    };
    let walked = |bytes| meter.walked(bytes);
    let followed: &dyn ReadAt = if options.trailer { &ordered } else { source };
    let walk = |findings: &mut Findings| {
        metas
            .map(|metas| Walk::new(followed, data, metas.chosen, options, &walked).run(findings))
            .transpose()
    };
    let (digests, walk) = std::thread::scope(|scope| {
        let hashing = leader.map(|leader| {
            let hash = || digest(source, database, &hashed);
            scope.spawn(move || {
                let _leader = leader;
                hash()
            })
        });
        let walk = walk(&mut findings);
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

/// Whether it is a copy of a database's own file (podman-etcd's `snapshot-*.db`, Talos' `cp`), and
/// not a stream whose trailer was lost: it never had a hash, and lacks what is only in the WAL.
///
/// # Errors
/// [`Kind::NotChecked`] where it cannot be read.
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
    walked: AtomicU64,
    told: AtomicU64,
    size: u64,
    progress: &'a (dyn Fn(Progress) + Sync),
}

impl<'a> Meter<'a> {
    fn new(size: u64, progress: &'a (dyn Fn(Progress) + Sync)) -> Self {
        Self {
            hashed: AtomicU64::new(0),
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

    fn tell(&self) {
        let hashed = self.hashed.load(Ordering::Relaxed);
        let walked = self.walked.load(Ordering::Relaxed);
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
