//! What `prune` removed: a small document in the folder that the backups were in.
//!
//! `pruned-<16 hex digits>.json`, named after its own SHA-256, with `pruned-….json.sig` beside it where prune
//! had a key. A new one takes over what the ones before it say, as far as a backup that is there still leads
//! to it, and is written before anything is removed. Nothing is ever replaced; the old ones are removed
//! where the store allows it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::manifest::Previous;
use crate::backup::signers::Subject;
use crate::error::{Doing, Kind, Result};
use crate::keep::catalog::{BackupSet, SetSignature};
use crate::keep::trust::Trust;
use crate::sys::digest::sha256_hex;

/// The largest record that is read: 60,000 removed backups.
pub const MAX_BYTES: u64 = 16 << 20;
/// How many removed backups are kept as evidence that one before them is missing.
const MAX_EVIDENCE: usize = 1000;
/// What its name begins with.
const PREFIX: &str = "pruned-";
/// What it ends with.
const SUFFIX: &str = ".json";
/// What its signature's name adds.
pub const SIGNATURE: &str = ".sig";
/// Hex digits of the SHA-256 in its name.
const DIGITS: usize = 16;

/// The document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PruneRecord {
    /// The schema version of this document.
    pub schema_version: u32,
    /// When it was written.
    pub time: Timestamp,
    /// What was removed, by this run and before it.
    pub removed: Vec<Removed>,
}

/// One backup that was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Removed {
    /// Its `backup-N`.
    pub id: String,
    /// SHA-256 of its Manifest's bytes, hex.
    pub sha256: String,
    /// When it was taken.
    pub created: Timestamp,
    /// The cluster that it was of.
    pub cluster: String,
    /// The node that it was of.
    pub node: String,
    /// The backup before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

impl Removed {
    /// What is worth knowing of a backup once it is gone; none: it has no Manifest.
    fn of(set: &BackupSet) -> Option<Self> {
        let manifest = set.manifest.as_ref()?;
        let (cluster, node) = manifest.origin();
        Some(Self {
            id: manifest.id.clone(),
            sha256: set.manifest_sha256.clone()?,
            created: manifest.created,
            cluster: cluster.to_owned(),
            node: node.to_owned(),
            previous: manifest.previous.clone(),
        })
    }
}

/// The name of a record with these bytes.
pub fn name(bytes: &[u8]) -> String {
    let digits = sha256_hex(bytes);
    let digits = digits.get(..DIGITS).unwrap_or_default();
    format!("{PREFIX}{digits}{SUFFIX}")
}

/// Whether a file or an object is a record.
pub fn is_record(name: &str) -> bool {
    let digits = name
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_suffix(SUFFIX));
    digits.is_some_and(|digits| {
        digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_hexdigit())
    })
}

/// All that the records of a store say, by the Manifests' hashes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Records(BTreeMap<String, Removed>);

impl Records {
    /// Takes over what one record says; of a record whose signature does not count for a backup's node,
    /// nothing about that backup. What is not a record says nothing.
    pub fn add(&mut self, bytes: &[u8], signature: Option<&[u8]>, trust: &Trust) {
        let Ok(record) = serde_json::from_slice::<PruneRecord>(bytes) else {
            return;
        };
        let signature = SetSignature::of(bytes, signature);
        for removed in record.removed {
            let subject = Subject {
                cluster: &removed.cluster,
                node: &removed.node,
                created: record.time,
            };
            if trust.vouches(&signature, &subject) {
                self.0.insert(removed.sha256.clone(), removed);
            }
        }
    }

    /// How many backups they name.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether they name none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The backup with this Manifest, if it was removed.
    pub fn get(&self, sha256: &str) -> Option<&Removed> {
        self.0.get(sha256)
    }

    /// The record to be written before some backups are removed: them, and of what was removed before them
    /// whatever a backup that stays leads to. None if no chain needs it.
    pub fn with_removal(
        &self,
        sets: &[BackupSet],
        names: &[String],
        now: Timestamp,
    ) -> Option<PruneRecord> {
        let (going, staying): (Vec<&BackupSet>, Vec<&BackupSet>) =
            sets.iter().partition(|set| names.contains(&set.name));
        let mut all = self.0.clone();
        for removed in going.into_iter().filter_map(Removed::of) {
            all.insert(removed.sha256.clone(), removed);
        }
        let there: BTreeSet<&str> = staying
            .iter()
            .filter_map(|set| set.manifest_sha256.as_deref())
            .collect();
        let mut needed: BTreeMap<String, Removed> = BTreeMap::new();
        for one in staying
            .into_iter()
            .flat_map(|set| led_to(super::previous(set), &all, &there))
        {
            // Of one that several lead to the more is kept.
            if one.previous.is_some() || !needed.contains_key(&one.sha256) {
                needed.insert(one.sha256.clone(), one);
            }
        }
        let removed: Vec<Removed> = needed.into_values().collect();
        let known = removed.iter().all(|one| self.0.contains_key(&one.sha256));
        (!known).then_some(PruneRecord {
            schema_version: 1,
            time: now,
            removed,
        })
    }
}

impl PruneRecord {
    /// The document as bytes.
    ///
    /// # Errors
    /// [`Kind::Unexpected`], never in practice.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes =
            serde_json::to_vec_pretty(self).doing(Kind::Unexpected, || "writing JSON")?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

/// The removed backups that one which is there leads to.
///
/// If they lead to another one that is there, all of them are needed. If they end where nothing was before,
/// only the first is, and what was before it is forgotten. If one of them names a backup that is neither there
/// nor removed, they are the evidence that it is missing.
fn led_to(
    from: Option<&Previous>,
    removed: &BTreeMap<String, Removed>,
    there: &BTreeSet<&str>,
) -> Vec<Removed> {
    let mut between: Vec<Removed> = Vec::new();
    let mut next = from.map(|previous| previous.sha256.as_str());
    while let Some(sha256) = next {
        if there.contains(sha256) {
            return between;
        }
        // A forged record could lead in a circle.
        let circle = between.iter().any(|one| one.sha256 == sha256);
        let Some(known) = removed.get(sha256).filter(|_| !circle) else {
            between.truncate(MAX_EVIDENCE);
            return between;
        };
        between.push(known.clone());
        next = known
            .previous
            .as_ref()
            .map(|previous| previous.sha256.as_str());
    }
    between.truncate(1);
    for first in &mut between {
        first.previous = None;
    }
    between
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keep::chain::check::tests::{link, sha};

    fn names(of: &[&str]) -> Vec<String> {
        of.iter().map(|name| (*name).to_owned()).collect()
    }

    fn hashes(record: &PruneRecord) -> Vec<String> {
        let mut all: Vec<String> = record.removed.iter().map(|one| one.id.clone()).collect();
        all.sort();
        all
    }

    #[test]
    fn a_record_holds_what_leads_from_one_backup_to_another() {
        let sets: Vec<BackupSet> = (1..=6).map(|n| link(n, (n > 1).then(|| n - 1))).collect();
        let now = Timestamp::UNIX_EPOCH;
        let records = Records::default();
        let first = records
            .with_removal(&sets, &names(&["backup-3", "backup-4"]), now)
            .unwrap();
        assert_eq!(hashes(&first), ["backup-3", "backup-4"]);
        // Nothing leads to the newest or, once the oldest are gone, further back than one step.
        assert_eq!(
            records.with_removal(&sets, &names(&["backup-6"]), now),
            None
        );
        let oldest = records
            .with_removal(&sets, &names(&["backup-1", "backup-2"]), now)
            .unwrap();
        assert_eq!(hashes(&oldest), ["backup-2"]);

        let mut records = Records::default();
        let bytes = first.to_bytes().unwrap();
        assert!(is_record(&name(&bytes)), "{}", name(&bytes));
        records.add(&bytes, None, &Trust::default());
        records.add(b"{\"removed\":[]}", None, &Trust::default());
        assert_eq!(
            records.get(&sha(4)).unwrap().previous.as_ref().unwrap().id,
            "backup-3"
        );
        let left: Vec<BackupSet> = sets
            .iter()
            .filter(|set| !["backup-3", "backup-4"].contains(&set.name.as_str()))
            .cloned()
            .collect();
        let second = records
            .with_removal(&left, &names(&["backup-2"]), now)
            .unwrap();
        assert_eq!(hashes(&second), ["backup-2", "backup-3", "backup-4"]);
        let third = records.with_removal(&left, &names(&["backup-1", "backup-2", "backup-5"]), now);
        assert_eq!(hashes(&third.unwrap()), ["backup-5"]);
    }

    #[test]
    fn a_record_that_leads_in_a_circle_ends() {
        let mut records = Records::default();
        for (id, previous) in [(1, 2), (2, 1)] {
            records.0.insert(
                sha(id),
                Removed {
                    id: format!("backup-{id}"),
                    sha256: sha(id),
                    created: Timestamp::UNIX_EPOCH,
                    cluster: "c".into(),
                    node: "n".into(),
                    previous: Some(Previous {
                        id: format!("backup-{previous}"),
                        sha256: sha(previous),
                    }),
                },
            );
        }
        let sets = [link(3, Some(2))];
        assert_eq!(
            records.with_removal(&sets, &[], Timestamp::UNIX_EPOCH),
            None
        );
    }

    #[test]
    fn only_whole_names_are_records() {
        for name in [
            "pruned-.json",
            "pruned-0123456789abcdeg.json",
            "pruned-0123456789abcdef.json.sig",
            "backup.json",
        ] {
            assert!(!is_record(name), "{name}");
        }
    }
}
