//! A backup, and the changes that were recorded after it.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::chain::Chain;
use crate::error::Result;
use crate::etcd::segment::{Proof, newest_hash};
use crate::keep::catalog::BackupSet;

/// The changes recorded after a backup, without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Continuation {
    /// The directory of the chain.
    pub dir: PathBuf,
    /// The cluster, hex.
    pub cluster_id: String,
    /// The backup's own revision.
    pub from: i64,
    /// The last revision that is reached.
    pub until: i64,
    /// When the last change arrived.
    pub last_received: Timestamp,
    /// Later backups that a part of it is proven by, ascending.
    pub proofs: Vec<Proof>,
}

/// What a restore applies of a continuation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The directory of the chain.
    pub dir: PathBuf,
    /// The last revision that is applied.
    pub until_revision: i64,
    /// The cluster, hex.
    pub cluster_id: String,
    /// What the result is held against.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<Proof>,
    /// What changed besides keys, in sentences.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

impl Continuation {
    /// What a restore to a revision applies: up to the next backup, whose HashKV proves it, or just to
    /// that revision.
    pub fn up_to(&self, revision: i64) -> Recorded {
        let proof = self.proofs.iter().find(|proof| proof.revision >= revision);
        Recorded {
            dir: self.dir.clone(),
            until_revision: proof.map_or(revision, |proof| proof.revision),
            cluster_id: self.cluster_id.clone(),
            proof: proof.cloned(),
            notes: Vec::new(),
        }
    }

    /// Whether anything proves it: a later backup, or etcd's own HashKV.
    ///
    /// # Errors
    /// Those of reading its segments.
    pub fn is_provable(&self) -> Result<bool> {
        Ok(!self.proofs.is_empty() || newest_hash(&self.dir, self.from, self.until)?.is_some())
    }

    /// The same, only as far as the next backup.
    pub fn to_next(&self) -> Self {
        let next = self.proofs.first();
        Self {
            until: next.map_or(self.until, |proof| proof.revision),
            ..self.clone()
        }
    }
}

/// The changes recorded after a backup; `None` without any, or without a Manifest that tells its
/// cluster and revision.
pub fn continuation(
    chains: &[Chain],
    sets: &[BackupSet],
    base: &BackupSet,
) -> Option<Continuation> {
    let manifest = base.manifest.as_ref()?;
    let cluster = &manifest.cluster.etcd_id;
    let from = manifest.database.kv_revision?;
    let of_cluster = chains.iter().filter(|chain| chain.cluster_id == *cluster);
    let reaching = of_cluster.filter_map(|chain| Some((chain.reach(from)?, chain)));
    let (until, chain) = reaching.max_by_key(|(until, _)| *until)?;
    let mut proofs: Vec<Proof> = sets
        .iter()
        .filter(|set| set.is_good())
        .filter_map(|set| proof(set, cluster))
        .filter(|proof| proof.revision > from && proof.revision <= until)
        .collect();
    proofs.sort_by_key(|proof| proof.revision);
    Some(Continuation {
        dir: chain.dir.clone(),
        cluster_id: cluster.clone(),
        from,
        until,
        last_received: chain.last_received,
        proofs,
    })
}

fn proof(set: &BackupSet, cluster: &str) -> Option<Proof> {
    let manifest = set.manifest.as_ref()?;
    let hash = manifest.database.hash_kv?;
    (manifest.cluster.etcd_id == cluster).then(|| Proof {
        backup: set.name.clone(),
        revision: hash.revision,
        hash: hash.hash,
        compact_revision: hash.compact_revision,
    })
}
