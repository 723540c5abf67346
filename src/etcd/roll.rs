//! Rolling a snapshot forward with a member's WAL, to the last write in it.
//!
//! A snapshot has applied the raft log up to its consistent index. Every member of the cluster has the
//! same log, so that any member's WAL continues it, if it is of the same history and goes back to that
//! index: same cluster id, and the entry at the index has the term that the snapshot has recorded. By
//! raft's log matching property everything before it is then the same, too.
//!
//! All entries are applied, also those that the member did not know to be committed: a write is
//! acknowledged as soon as a majority has it in the WAL, and the commit index is written down later
//! ([`survivor`](super::survivor) tells more). An end that was torn by a crash is left out.
//!
//! Memory does not grow with the WAL: what its entries depend on is in a table, of which a part is in memory
//! ([`apply`](super::apply)), and the revisions that they make become pages at the database's end part by
//! part. The WAL is read twice after it was judged, and the database once: first it is found which keys the
//! entries name, then they are applied. The WAL is only read, and no file is locked: a
//! lock on a segment would keep etcd from purging it, and from starting again.

use std::path::{Path, PathBuf};

use super::apply::{Base, Spill, Written, apply};
use super::bbolt::{FileSource, ReadAt};
use super::build::{Behind, Watch, chosen, stop_if};
use super::datadir::DbFacts;
use super::ids::{ClusterId, MemberId};
use super::snapshot::DatabaseFacts;
use super::wal::{EndKind, Log, Scan, Wal};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::finding::Severity;
use crate::sys::fs::{OutFile, parent};

/// What was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rolled {
    /// The WAL's directory.
    pub wal: PathBuf,
    /// How many entries.
    pub entries: u64,
    /// The index and the term of the last one.
    pub last: (u64, u64),
    /// How many of them the member had not recorded as committed.
    pub uncommitted: u64,
    /// Whether the WAL ended in a write that was torn, which is left out.
    pub torn: bool,
    /// The snapshot's own revision.
    pub from_revision: i64,
    /// The revision afterwards.
    pub revision: i64,
}

/// A WAL that continues a snapshot.
pub struct Joined {
    wal: Wal,
    log: Log,
    applied: u64,
    commit: u64,
    torn: bool,
}

impl Joined {
    /// Opens the WAL in a member's data directory, or a WAL's own directory, and demands that it
    /// continues the database that `base` is of.
    ///
    /// # Errors
    /// [`Kind::Usage`] if there is no WAL; the refusals `damaged-wal`, `wal-mismatch` and `wal-gap`,
    /// not to be allowed; [`Kind::NotChecked`] if it cannot be read.
    pub fn open(dir: &Path, base: &DatabaseFacts, cluster: Option<ClusterId>) -> Result<Self> {
        let inner = dir.join("member/wal");
        let place = if inner.is_dir() {
            inner
        } else {
            dir.to_owned()
        };
        Self::read(&place, base, cluster).map_err(|failure| {
            failure
                .doing(format!("rolling forward from {}", place.display()))
                .with(Fact::Path(place))
        })
    }

    fn read(place: &Path, base: &DatabaseFacts, cluster: Option<ClusterId>) -> Result<Self> {
        let wal = Wal::list(place)?;
        if wal.segments().is_empty() {
            let what = "there is no WAL; give a member's data directory, or its member/wal";
            return Err(Failure::new(Kind::Usage, what));
        }
        let scan = wal.scan()?;
        sound(&scan)?;
        same_cluster(&scan, base, cluster)?;
        let applied = base.consistent_index.unwrap_or_default();
        if applied == 0 {
            let what = "the snapshot does not say which entry of the WAL it has applied last";
            return Err(refuse("wal-mismatch", what.to_owned()));
        }
        // One entry more than is applied: the term of that one tells whether the histories are the
        // same.
        let log = wal.log_after(&scan, applied - 1)?;
        let first = log.runs.first().map(|run| run.first);
        if first != Some(applied) {
            let begins = wal
                .segments()
                .first()
                .map_or(0, |segment| segment.name.index);
            return Err(refuse(
                "wal-gap",
                match scan
                    .segments
                    .iter()
                    .filter_map(|s| s.indexes)
                    .map(|i| i.1)
                    .max()
                {
                    Some(last) if last < applied => format!(
                        "the WAL ends with entry {last}, before the snapshot's entry {applied}"
                    ),
                    _ => format!(
                        "the WAL goes back to entry {begins} at most, and the snapshot needs it from entry {applied} on: use a later backup"
                    ),
                },
            ));
        }
        if let Some(finding) = log.findings.first() {
            return Err(refuse("damaged-wal", finding.to_string()));
        }
        let found = log.term_of(applied);
        if let (Some(term), Some(found)) = (base.term, found)
            && term != found
        {
            return Err(refuse(
                "wal-mismatch",
                format!(
                    "entry {applied} has term {found} in the WAL and term {term} in the snapshot: they are of different histories"
                ),
            ));
        }
        let end = scan.end.map(|end| end.kind);
        Ok(Self {
            torn: matches!(end, Some(EndKind::Torn(_))),
            commit: scan.hard_state.unwrap_or_default().commit,
            applied,
            log,
            wal,
        })
    }

    /// The index that the snapshot has applied last, and the WAL's last one.
    pub fn span(&self) -> (u64, u64) {
        (self.applied, self.log.last)
    }

    /// Applies the entries after the snapshot to a copy of its database.
    ///
    /// # Errors
    /// The refusal `unknown-entry`, and those of reading and writing.
    pub fn apply(
        &self,
        out: &mut OutFile,
        base: &DatabaseFacts,
        watch: &dyn Watch,
    ) -> Result<Rolled> {
        let path = out.path().to_owned();
        let file = out.file().try_clone().and_then(FileSource::new);
        let file = file.doing(Kind::Store, || format!("reading {}", path.display()))?;
        let meta = chosen(&file, file.size())?;
        let members = DbFacts::of(base);
        let mut behind = Behind::new(out);
        let applied = apply(
            &Base {
                database: &file,
                meta: &meta,
                facts: base,
                members: &members.members,
                removed: &members.removed,
                conf_state: None,
                // Next to the database there is room for what is longer than it, and no other user.
                scratch: Some(Spill::to(parent(&path))),
                stop: &|| stop_if(watch),
                settled: true,
            },
            &self.wal,
            &self.log,
            &mut behind,
        )?;
        behind.finish(applied.changes)?;
        let last = self.log.last;
        Ok(Rolled {
            wal: self.wal.dir().to_owned(),
            entries: applied.entries,
            last: (last, self.log.term_of(last).unwrap_or_default()),
            uncommitted: last.saturating_sub(self.commit.max(self.applied)),
            torn: self.torn,
            from_revision: base.revision,
            revision: applied.revision,
        })
    }
}

/// Whether a directory has a WAL that nothing is wrong with, so that it may continue a snapshot.
pub fn is_sound(wal: &Path) -> bool {
    let listed = Wal::list(wal).ok();
    let listed = listed.filter(|wal| !wal.segments().is_empty());
    let scan = listed.and_then(|wal| wal.scan().ok());
    scan.is_some_and(|scan| scan.metadata.is_some() && sound(&scan).is_ok())
}

impl Written for Behind<'_> {
    fn take(&mut self, key: Vec<u8>, value: Vec<u8>) -> Result<()> {
        self.push(key, value)
    }
}

fn refuse(name: &'static str, what: String) -> Failure {
    Failure::refused_for_good(name, what)
}

fn sound(scan: &Scan) -> Result<()> {
    let mut findings = scan.findings.iter();
    match findings.find(|finding| finding.severity == Severity::Error) {
        Some(finding) => Err(refuse("damaged-wal", finding.to_string())),
        None => Ok(()),
    }
}

/// Demands that the WAL is of the cluster that the snapshot is of: by its id, or by its members, which
/// are all that a snapshot by itself tells.
fn same_cluster(scan: &Scan, base: &DatabaseFacts, cluster: Option<ClusterId>) -> Result<()> {
    let Some(metadata) = scan.metadata else {
        let what = "the WAL does not say which cluster it is of";
        return Err(refuse("damaged-wal", what.to_owned()));
    };
    let (found, me) = (ClusterId(metadata.cluster), MemberId(metadata.node));
    if let Some(expected) = cluster {
        return match found == expected {
            true => Ok(()),
            false => Err(refuse(
                "wal-mismatch",
                format!("the WAL is of cluster {found}, and the backup of cluster {expected}"),
            )),
        };
    }
    let known = base.members.iter().any(|member| member.id == me.0);
    let removed = base.members_removed.contains(&me.to_string());
    match known || removed {
        true => Ok(()),
        false => Err(refuse(
            "wal-mismatch",
            format!("the WAL is of member {me}, whom the snapshot does not know"),
        )),
    }
}
