//! Extending a backup's database by the segments that were recorded after it.
//!
//! The bucket `key` gets their records behind its last entry, part by part, so that memory is bounded:
//! each part becomes pages at the database's end before the next is read. The bucket `lease` becomes the
//! table at the seal of the segment that has the revision wanted, with the one before: a lease that a key
//! has at that revision was there at one of the two, unless it was granted and gone in between. Users,
//! roles, alarms and members stay those of the backup.
//!
//! Whether the segments are of the backup's history is proven by the next backup: the database at its
//! revision must have its HashKV.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::chain::{MISMATCH, between, sound};
use super::checkpoint::newest_hash;
use super::parse::Segment;
use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::apply::encode_lease;
use crate::etcd::bbolt::write::{Change, Edit, small_bucket};
use crate::etcd::bbolt::{FileSource, ReadAt};
use crate::etcd::build::{Behind, Watch, chosen, stop_if};
use crate::etcd::hashkv::At;
use crate::etcd::ids::ClusterId;
use crate::etcd::snapshot::{Options, inspect};
use crate::sys::fs::OutFile;

/// The HashKV of a later backup, which the extended database must have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Proof {
    /// The backup's name.
    pub backup: String,
    /// Its revision.
    pub revision: i64,
    /// Its HashKV.
    pub hash: u32,
    /// The compaction that the hash was made with; −1 for none.
    pub compact_revision: i64,
}

/// What a database is to be extended by.
#[derive(Debug, Clone, Copy)]
pub struct Extension<'a> {
    /// The directory of the chain.
    pub dir: &'a Path,
    /// The last revision that is applied.
    pub until: i64,
    /// The revision whose leases are wanted.
    pub leases_at: i64,
    /// The cluster that the backup is of.
    pub cluster: Option<ClusterId>,
    /// What the result is held against.
    pub proof: Option<&'a Proof>,
}

/// What was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extended {
    /// The backup's own revision.
    pub from_revision: i64,
    /// The last one that was applied.
    pub revision: i64,
    /// How many segments were read.
    pub segments: u64,
    /// How many records were added.
    pub records: u64,
    /// The revision at which the result had etcd's own HashKV, if that was asked for and no backup
    /// proves it.
    pub etcd_revision: Option<i64>,
}

/// Entries of the bucket `lease`.
type Leases = BTreeMap<Vec<u8>, Vec<u8>>;

/// Extends a copy of a database that stands at `revision`, and proves the result.
///
/// # Errors
/// The refusals `missing-segment`, `damaged-segment` and `segment-mismatch`, not to be allowed, and those
/// of reading and writing.
pub fn extend(
    out: &mut OutFile,
    revision: i64,
    extension: &Extension<'_>,
    watch: &dyn Watch,
) -> Result<Extended> {
    let doing = || format!("applying the changes in {}", extension.dir.display());
    let extended = apply(out, revision, extension, watch);
    let extended = extended.and_then(|mut extended| {
        if let Some(proof) = extension.proof {
            let by = format!("{} has", proof.backup);
            prove(
                out,
                (proof.revision, proof.hash, proof.compact_revision),
                &by,
            )?;
        } else if let Some((at, known)) = newest_hash(extension.dir, revision, extension.until)? {
            prove(
                out,
                (at, known.hash, known.compact_revision),
                "etcd itself had",
            )?;
            extended.etcd_revision = Some(at);
        }
        Ok(extended)
    });
    extended.map_err(|failure| failure.doing(doing()))
}

fn apply(
    out: &mut OutFile,
    revision: i64,
    extension: &Extension<'_>,
    watch: &dyn Watch,
) -> Result<Extended> {
    let paths = between(extension.dir, revision, extension.until)?;
    let mut now: Leases = leases(out)?;
    let mut behind = Behind::new(out);
    let (mut wanted, mut before) = (None, None);
    let mut records = 0;
    for path in &paths {
        stop_if(watch)?;
        let segment = sound(path)?;
        follows(&segment, before.as_deref(), extension.cluster)
            .map_err(|failure| failure.doing(format!("reading {}", path.display())))?;
        for record in segment.records() {
            let main = record.key.revision.main;
            // The first segment may begin before the backup's revision, and the last one end after
            // the wanted one.
            if main > revision && main <= extension.until {
                behind.push(record.key_bytes.to_vec(), record.value.to_vec())?;
                records += 1;
            }
        }
        // The tables at both ends of the segment; the later one has precedence.
        let mut either = std::mem::take(&mut now);
        now = table(&segment);
        let header = segment.header();
        if (header.first_revision..=header.last_revision).contains(&extension.leases_at) {
            either.extend(now.clone());
            wanted = Some(either);
        }
        before = Some(segment.sha256());
    }
    // No segment has a revision that is not after the backup's: then the backup's table stays.
    let table = wanted.map(|leases| {
        let edit = Edit {
            clear: true,
            put: leases,
            ..Edit::default()
        };
        (b"lease".to_vec(), Change::Edit(edit))
    });
    behind.finish(table.into_iter().collect())?;
    Ok(Extended {
        from_revision: revision,
        revision: extension.until.max(revision),
        segments: paths.len() as u64,
        records,
        etcd_revision: None,
    })
}

/// Demands that a segment continues the one before, whose hash is given, and is of the cluster.
fn follows(segment: &Segment, before: Option<&str>, cluster: Option<ClusterId>) -> Result<()> {
    let header = segment.header();
    let refuse = |what: String| Err(Failure::refused_for_good(MISMATCH, what));
    let own = ClusterId::from_hex(&header.cluster_id);
    if let Some(cluster) = cluster.filter(|cluster| own != Some(*cluster)) {
        let what = format!(
            "it is of cluster {}, and the backup of cluster {cluster}",
            header.cluster_id
        );
        return refuse(what);
    }
    match before {
        Some(before) if header.previous.as_deref() != Some(before) => {
            refuse("it does not follow the segment before it".to_owned())
        }
        _ => Ok(()),
    }
}

fn table(segment: &Segment) -> Leases {
    let entry = |(id, ttl): &(i64, i64)| (id.to_be_bytes().to_vec(), encode_lease(*id, *ttl));
    segment.leases().iter().map(entry).collect()
}

fn source(out: &OutFile) -> Result<FileSource> {
    let file = out.file().try_clone().and_then(FileSource::new);
    file.doing(Kind::Store, || "reading the database again")
}

fn leases(out: &OutFile) -> Result<Leases> {
    let file = source(out)?;
    let meta = chosen(&file, file.size())?;
    let entries = small_bucket(&file, file.size(), &meta, b"lease")?;
    Ok(entries.into_iter().collect())
}

/// Holds HashKV of the result at a revision, made with a compaction, against a known one.
fn prove(out: &OutFile, (at, known, compacted): (i64, u32, i64), by: &str) -> Result<()> {
    let options = Options {
        trailer: false,
        hash_kv: At {
            revision: Some(at),
            // The hash depends on the compaction, and this database may have another one.
            compacted_at: Some(compacted),
        },
        ..Options::default()
    };
    let report = inspect(&source(out)?, &options, &|_| {})?;
    let found = report.hash_kv;
    // Servers before 3.4.34 differ where no key is alive.
    let equal = found.is_some_and(|found| [found.hash, found.hash_before_3_4_34].contains(&known));
    if report.is_good() && equal {
        return Ok(());
    }
    let why = match found {
        _ if !report.is_good() => "is damaged".to_owned(),
        Some(found) => format!("has HashKV {}", found.hash),
        None => "has no HashKV".to_owned(),
    };
    let what = format!(
        "the database {why} at revision {at}, and {by} HashKV {known}: the recorded changes are not of the backup's history, or incomplete"
    );
    Err(Failure::refused_for_good(MISMATCH, what))
}
