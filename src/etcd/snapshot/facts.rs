//! What a database says about itself and its cluster.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::prefixes::{PrefixUsage, Usage};

/// Everything learnt from a database. Sizes are bytes.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DatabaseFacts {
    /// Whether all of the file could be read; if not, counts are lower bounds.
    pub complete: bool,
    /// bbolt's page size.
    pub page_size: u32,
    /// bbolt's transaction id.
    pub transaction: u64,
    /// Length of the database up to its high-water mark.
    pub total_size: u64,
    /// Of that, what pages in use take.
    pub in_use_size: u64,
    /// Pages that hold nothing; a defragmentation would save them.
    pub free_pages: u64,
    /// What a defragmentation would save at least: the free pages.
    pub reclaimable_size: u64,
    /// Whether a freelist is stored (etcd on Linux stores none).
    pub freelist_stored: bool,
    /// The store's current revision: the newest in the file or the compaction's, at least 1.
    pub revision: i64,
    /// The newest revision that has an entry; 0 in an empty store.
    pub last_entry_revision: i64,
    /// The revision the store is compacted at.
    pub compact_revision: Option<i64>,
    /// The compaction that was asked for last.
    pub scheduled_compact_revision: Option<i64>,
    /// The compaction that was finished last; if lower than the scheduled one, it was running.
    pub finished_compact_revision: Option<i64>,
    /// Keys that are alive at the current revision, as clients count them. `snapshot status` has
    /// one more of a bumped database: the mark of the bump.
    pub keys: u64,
    /// Distinct keys, alive or deleted.
    pub distinct_keys: u64,
    /// Revisions in the file, tombstones included.
    pub revisions: u64,
    /// Tombstones among them.
    pub tombstones: u64,
    /// Whether a restore has raised the revision (`--bump-revision`) and left its mark.
    pub bumped: bool,
    /// Keys alive that are attached to a lease.
    pub leased_keys: u64,
    /// Leases.
    pub leases: u64,
    /// Index of the last raft entry applied.
    pub consistent_index: Option<u64>,
    /// That entry's term (3.5 and later).
    pub term: Option<u64>,
    /// Raft's configuration (3.5 and later; written when members change).
    pub conf_state: Option<ConfState>,
    /// Version of the storage schema (3.6 and later).
    pub storage_version: Option<String>,
    /// Version that the cluster has agreed on.
    pub cluster_version: Option<String>,
    /// A downgrade that is or was enabled (3.5 and later).
    pub downgrade: Option<Downgrade>,
    /// Members, by id.
    pub members: Vec<Member>,
    /// Ids of members removed, as hexadecimal text; at most 1024 are listed.
    pub members_removed: Vec<String>,
    /// Authentication.
    pub auth: Auth,
    /// Alarms that are raised.
    pub alarms: Vec<Alarm>,
    /// The buckets, by name.
    pub buckets: Vec<BucketFacts>,
    /// What fills the store, biggest first.
    pub prefixes: Vec<PrefixUsage>,
    /// All that is under none of the listed prefixes.
    pub other_prefixes: Usage,
}

/// The keys that were alive at a revision.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AliveAt {
    /// How many.
    pub keys: u64,
    /// How many of them each lease has, by the lease's id.
    pub leases: BTreeMap<i64, u64>,
    /// Keys whose leases are not in the list, because there are too many.
    pub unlisted: u64,
}

impl AliveAt {
    /// Leases that are told apart, about 40 bytes each.
    const MAX_LEASES: usize = 1 << 20;

    /// Takes a key that is alive.
    pub(super) fn add(&mut self, lease: i64) {
        self.keys += 1;
        if lease == 0 {
            return;
        }
        if self.leases.len() < Self::MAX_LEASES || self.leases.contains_key(&lease) {
            *self.leases.entry(lease).or_default() += 1;
        } else {
            self.unlisted += 1;
        }
    }
}

/// One top-level bucket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BucketFacts {
    /// Its name.
    pub name: String,
    /// Entries in it.
    pub entries: u64,
    /// Bytes of their keys and values.
    pub bytes: u64,
}

/// A member as the bucket `members` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id. The bucket has a number, which JSON readers with doubles would round: shown, it is
    /// hexadecimal text, as etcdctl prints it.
    #[serde(serialize_with = "as_hex")]
    pub id: u64,
    /// Where its peers reach it.
    #[serde(rename = "peerURLs", default)]
    pub peer_urls: Vec<String>,
    /// Whether it has no vote.
    #[serde(rename = "isLearner", default)]
    pub is_learner: bool,
    /// Its name; empty until it has started for the first time.
    #[serde(default)]
    pub name: String,
    /// Where clients reach it.
    #[serde(rename = "clientURLs", default)]
    pub client_urls: Vec<String>,
    /// Fields that no etcd up to 3.7 writes.
    #[serde(flatten, skip_serializing)]
    pub unknown: BTreeMap<String, serde_json::Value>,
}

fn as_hex<S: serde::Serializer>(id: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{id:x}"))
}

fn all_as_hex<S: serde::Serializer>(ids: &[u64], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(ids.iter().map(|id| format!("{id:x}")))
}

/// Raft's configuration as the bucket `meta` has it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ConfState {
    /// Ids of voters; shown as a member's is.
    #[serde(default, serialize_with = "all_as_hex")]
    pub voters: Vec<u64>,
    /// Ids of learners.
    #[serde(default, serialize_with = "all_as_hex")]
    pub learners: Vec<u64>,
    /// The rest: `auto_leave`, and joint configurations.
    #[serde(flatten)]
    pub rest: BTreeMap<String, serde_json::Value>,
}

/// A downgrade as the bucket `cluster` has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Downgrade {
    /// The version aimed at.
    #[serde(rename = "target-version", default)]
    pub target_version: String,
    /// Whether it is enabled.
    #[serde(default)]
    pub enabled: bool,
}

/// Authentication, counted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// Whether it is on.
    pub enabled: bool,
    /// Its own revision.
    pub revision: Option<u64>,
    /// Users.
    pub users: u64,
    /// Roles.
    pub roles: u64,
}

/// An alarm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// The member that raised it.
    pub member: u64,
    /// `NOSPACE`, `CORRUPT`, or a number.
    pub alarm: String,
}

/// What `etcdutl snapshot status` prints of the same file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// CRC-32C over names, keys and values of all buckets in order.
    pub hash: u32,
    /// Main revision of the newest entry; 0 in an empty store, whatever the compaction's.
    pub revision: i64,
    /// `totalKey` as 3.4 and 3.5 count it: the entries of all buckets.
    pub total_entries: u64,
    /// `totalKey` as 3.6 and later count it: the distinct keys alive.
    pub total_keys: u64,
    /// High-water mark times page size, in bytes.
    pub total_size: u64,
    /// The storage version; printed by 3.6 and later.
    pub version: String,
}

/// How `snapshot status` counts keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum CountRule {
    /// 3.4 and 3.5: the entries of all buckets.
    AllEntries,
    /// 3.6 and later: the distinct keys that are alive.
    LiveKeys,
}

impl Status {
    /// `totalKey` under a rule.
    pub fn total_key(&self, rule: CountRule) -> u64 {
        match rule {
            CountRule::AllEntries => self.total_entries,
            CountRule::LiveKeys => self.total_keys,
        }
    }
}
