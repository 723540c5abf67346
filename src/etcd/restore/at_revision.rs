//! A restore to an earlier revision than the snapshot's own.
//!
//! A database has every revision since its compaction. Without the entries of the bucket `key`
//! above a revision it is as it was then, key by key and version by version: HashKV at that
//! revision is the same, and is compared. The other buckets have no history:
//!
//! | what | is |
//! | --- | --- |
//! | leases with keys at the revision | all there; those that were gone later are recreated, to expire soon |
//! | leases granted after it | there, without keys; they expire by themselves |
//! | users, roles, alarms, members, versions | those at the snapshot's end |
//! | `scheduledCompactRev`, `finishedCompactRev` | as they were: at or below the revision |

use std::collections::BTreeSet;

use super::changes::RECREATED_TTL;
use super::spec::AtRevision;
use crate::error::{Failure, Kind, Result};
use crate::etcd::bbolt::FileSource;
use crate::etcd::hashkv::At;
use crate::etcd::history::{Span, UNREACHABLE};
use crate::etcd::snapshot::{DatabaseFacts, Options, Report, inspect};
use crate::finding::Severity;

/// Leases that are named one by one.
const FEW: usize = 5;

/// Judges a revision against a snapshot that was inspected for it; `leases` is the bucket of that name.
///
/// # Errors
/// The refusal `unreachable-target`, not to be allowed.
pub(super) fn judge(
    revision: i64,
    facts: &DatabaseFacts,
    report: &Report,
    leases: &[(Vec<u8>, Vec<u8>)],
) -> Result<AtRevision> {
    let span = Span {
        from: facts.compact_revision.unwrap_or(1).max(1),
        to: facts.revision,
    };
    if !span.holds(revision) {
        return Err(Failure::refused_for_good(
            UNREACHABLE,
            format!(
                "revision {revision} cannot be reached; reachable: revisions {} to {}",
                span.from, span.to
            ),
        ));
    }
    let (Some(hash_kv), Some(alive)) = (report.hash_kv, &report.alive) else {
        let what = format!("HashKV at revision {revision} cannot be computed");
        return Err(Failure::new(Kind::Unexpected, what));
    };
    let id = |key: &[u8]| key.try_into().ok().map(i64::from_be_bytes);
    let there: BTreeSet<i64> = leases.iter().filter_map(|(key, _)| id(key)).collect();
    let in_use = alive.leases.keys().filter(|id| there.contains(id)).count();
    let gone = alive.leases.iter().filter(|(id, _)| !there.contains(id));
    Ok(AtRevision {
        revision,
        keys: alive.keys,
        hash_kv,
        idle_leases: (there.len() - in_use) as u64,
        recreated_leases: gone.map(|(id, keys)| (*id, *keys)).collect(),
    })
}

/// Notes on the buckets that have no history.
pub(super) fn notes(at: &AtRevision, facts: &DatabaseFacts) -> Vec<String> {
    let mut notes = Vec::new();
    let recreated = &at.recreated_leases;
    if !recreated.is_empty() {
        let named = recreated.iter().take(FEW);
        let named: Vec<String> = named
            .map(|(id, keys)| format!("{:016x} ({keys} keys)", id.cast_unsigned()))
            .collect();
        let more = match recreated.len().saturating_sub(FEW) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        notes.push(format!(
            "leases that expired or were revoked after revision {} are recreated, and expire {RECREATED_TTL} s after etcd starts: {}{more}",
            at.revision,
            named.join(", ")
        ));
    }
    if at.idle_leases > 0 {
        notes.push(format!(
            "{} leases have no keys at revision {}; they expire by themselves",
            at.idle_leases, at.revision
        ));
    }
    if facts.auth.enabled || facts.auth.users > 0 || facts.auth.roles > 0 {
        notes.push(format!(
            "users and roles have no history: they are those at revision {}, the end of the backup",
            facts.revision
        ));
    }
    notes
}

/// Reads the whole result, and compares its HashKV at the revision with the snapshot's.
///
/// # Errors
/// [`Kind::Unexpected`] if it is not the same.
pub(super) fn prove(result: &FileSource, at: &AtRevision) -> Result<()> {
    let options = Options {
        trailer: false,
        hash_kv: At {
            revision: Some(at.revision),
            compacted_at: Some(at.hash_kv.compact_revision),
        },
        // A bump is only marked as compacted: no entry has gone.
        own_compaction: false,
        ..Options::default()
    };
    let report = inspect(result, &options, &|_| {})?;
    let mut findings = report.findings.listed().iter();
    if let Some(found) = findings.find(|found| found.severity == Severity::Error) {
        return Err(Failure::new(Kind::Unexpected, found.to_string()));
    }
    let keys = report.alive.map(|alive| alive.keys);
    if report.hash_kv != Some(at.hash_kv) || keys != Some(at.keys) {
        return Err(Failure::new(
            Kind::Unexpected,
            format!(
                "expected {} keys and HashKV {:?} at revision {}, found {keys:?} and {:?}",
                at.keys, at.hash_kv, at.revision, report.hash_kv
            ),
        ));
    }
    Ok(())
}
