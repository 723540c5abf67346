//! Reading a set's snapshot, with progress, until the operator wants it to stop.

use std::io;
use std::path::Path;
use std::time::Instant;

use crate::backup::manifest::{Database, HashKv};
use crate::context::{Cancel, Context};
use crate::error::{Doing, Kind, Result};
use crate::etcd::bbolt::{FileSource, ReadAt};
use crate::etcd::kubernetes::{self, ClusterVersion};
pub use crate::etcd::snapshot::{KeyFilter, Report};
use crate::etcd::snapshot::{Options, Progress, StreamCheck, Sums, inspect, inspect_received};
use crate::event::Event;

/// The phase's name in events.
const PHASE: &str = "verify";

/// Inspects a snapshot; `None` if the file does not exist.
///
/// # Errors
/// [`crate::context::interrupted`], or [`Kind::NotChecked`] if it cannot be read.
pub fn read(context: &Context, path: &Path, wanted: KeyFilter) -> Result<Option<Report>> {
    reading(context, path, |source, progress| {
        let options = Options {
            wanted,
            ..Options::default()
        };
        inspect(source, &options, progress)
    })
}

/// Ends the check of a snapshot that was looked at while it was written; `None` if it is gone.
///
/// # Errors
/// As [`read`].
pub fn read_received(
    context: &Context,
    path: &Path,
    look: StreamCheck,
    sums: &Sums,
) -> Result<Option<Report>> {
    reading(context, path, |source, progress| {
        inspect_received(source, look, sums, progress)
    })
}

fn reading(
    context: &Context,
    path: &Path,
    inspect: impl FnOnce(&Stoppable, &(dyn Fn(Progress) + Sync)) -> Result<Report>,
) -> Result<Option<Report>> {
    let doing = || format!("reading {}", path.display());
    let file = match FileSource::open(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.doing(Kind::NotChecked, doing)?,
    };
    let total = file.size();
    context.tell(Event::PhaseStarted {
        phase: PHASE,
        about: format!("checking {}", path.display()),
        total: Some(total),
    });
    let source = Stoppable::new(file, context.cancel.clone());
    let progress = |progress: Progress| {
        // The slower of the two threads is what the reader waits for.
        context.tell(Event::PhaseProgress {
            phase: PHASE,
            done: progress.hashed.min(progress.walked),
        });
    };
    let report = inspect(&source, &progress);
    context.cancel.check()?;
    let report = report.map_err(|failure| failure.doing(doing()))?;
    context.tell(Event::PhaseDone {
        phase: PHASE,
        done: total,
    });
    Ok(Some(report))
}

/// The keys that a Manifest's cluster facts come from.
pub fn cluster_keys() -> KeyFilter {
    let keys = kubernetes::PREFIXES.iter().flat_map(|prefix| {
        [
            kubernetes::cluster_version_key(prefix).into_bytes(),
            kubernetes::kube_system_key(prefix).into_bytes(),
        ]
    });
    KeyFilter {
        keys: keys.collect(),
        ..KeyFilter::default()
    }
}

/// The ClusterVersion in the snapshot itself, if there is one.
pub fn cluster_version(report: &Report) -> Option<Result<ClusterVersion, String>> {
    let stored = |prefix: &&str| {
        report
            .collected
            .get(kubernetes::cluster_version_key(prefix).as_bytes())
    };
    kubernetes::PREFIXES
        .iter()
        .find_map(stored)
        .map(kubernetes::cluster_version)
}

/// The uid of the namespace `kube-system` in the snapshot, if it can be read.
pub fn kube_system_uid(report: &Report) -> Option<String> {
    let stored = |prefix: &&str| {
        let key = kubernetes::kube_system_key(prefix);
        report.collected.get(key.as_bytes())
    };
    let stored = kubernetes::PREFIXES.iter().find_map(stored)?;
    kubernetes::uid(stored).ok()
}

/// What a Manifest records of the database's inside.
pub fn describe(report: &Report, database: &mut Database) {
    if let Some(facts) = &report.facts {
        database.in_use = Some(facts.in_use_size);
        database.kv_revision = Some(facts.revision);
        database.compact_revision = facts.compact_revision;
        database.keys = Some(facts.keys);
        database.storage_version = facts
            .storage_version
            .clone()
            .or(database.storage_version.take());
    }
    database.status_hash = report
        .status
        .as_ref()
        .map(|status| format!("{:x}", status.hash));
    database.hash_kv = report.hash_kv.as_ref().map(|hash| HashKv {
        hash: hash.hash,
        revision: hash.revision,
        compact_revision: hash.compact_revision,
    });
}

/// A database's file, whose reads fail once the operator wants it to stop, or at a moment that is set.
#[derive(Debug)]
pub struct Stoppable {
    inner: FileSource,
    cancel: Cancel,
    end: Option<Instant>,
}

impl Stoppable {
    /// A file that is read until the operator wants it to stop.
    pub fn new(inner: FileSource, cancel: Cancel) -> Self {
        let end = None;
        Self { inner, cancel, end }
    }

    /// The same, and no longer than until then.
    pub fn until(self, end: Instant) -> Self {
        let end = Some(end);
        Self { end, ..self }
    }

    fn going_on(&self) -> io::Result<()> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        match self.end {
            Some(end) if Instant::now() > end => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }
}

impl ReadAt for Stoppable {
    fn size(&self) -> u64 {
        self.inner.size()
    }

    fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        self.going_on()?;
        self.inner.read_exact_at(buf, offset)
    }

    fn read_in_memory(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.going_on()?;
        self.inner.read_in_memory(buf, offset)
    }
}
