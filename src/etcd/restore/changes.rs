//! What a restore changes in the database.
//!
//! | bucket | becomes |
//! | --- | --- |
//! | `members` | the founding members, as JSON |
//! | `members_removed` | empty |
//! | `meta/consistent_index` | the index that the founding WAL ends at |
//! | `meta/term` | 1 |
//! | `meta/confState` | the founding members as voters |
//! | `meta/scheduledCompactRev`, `key` | the new revision, if it is bumped |
//! | `key` | without what came after the revision to restore to, if that is an earlier one |
//! | `lease` | with the leases that keys had at that revision and that were gone later |
//! | `meta/storageVersion`, `cluster/clusterVersion` | as they were, or dropped for an older release |
//! | `cluster/downgrade` | gone: an interrupted downgrade would continue in the new cluster |
//! | `auth/authEnabled` | 0 in a rehearsal, which knows no user's password |
//!
//! All ten buckets are there afterwards. Everything else stays: keys, leases, users, roles, alarms.
//! (etcd, `etcdutl/snapshot/v3_snapshot.go`, which leaves `confState` and `downgrade` as they are.)

use std::collections::{BTreeMap, BTreeSet};

use super::spec::AtRevision;
use crate::etcd::apply::encode_lease;
use crate::etcd::bbolt::write::{Change, Changes, Edit};
use crate::etcd::founding::FoundingCluster;
use crate::etcd::mvcc::revision_key;
use crate::etcd::snapshot::STANDARD;

/// The term of the founding WAL.
pub(super) const TERM: u64 = 1;

/// The changes for one cluster; `revision` is the one that the store is bumped to, `at` the earlier
/// one that is restored.
pub(super) fn changes(
    cluster: &FoundingCluster,
    revision: Option<i64>,
    at: Option<&AtRevision>,
    drop_versions: bool,
    present: &BTreeSet<String>,
) -> Changes {
    let mut changes = Changes::new();
    let mut set = |bucket: &str, edit: Edit| {
        changes.insert(bucket.as_bytes().to_vec(), Change::Edit(edit));
    };
    for bucket in STANDARD.into_iter().filter(|name| !present.contains(*name)) {
        set(bucket, Edit::default());
    }
    set(
        "members",
        Edit {
            clear: true,
            put: cluster
                .members
                .iter()
                .map(|member| {
                    let key = member.db_key().into_bytes();
                    (key, member.to_json().into_bytes())
                })
                .collect(),
            ..Edit::default()
        },
    );
    set(
        "members_removed",
        Edit {
            clear: true,
            ..Edit::default()
        },
    );
    let mut gone = BTreeSet::from([b"downgrade".to_vec()]);
    if drop_versions {
        gone.insert(b"clusterVersion".to_vec());
    }
    set(
        "cluster",
        Edit {
            remove: gone,
            ..Edit::default()
        },
    );
    set("meta", meta(cluster, revision, drop_versions));
    if let Some(recreated) = at.and_then(leases) {
        set("lease", recreated);
    }
    if let Some(keys) = keys(revision, at) {
        changes.insert(b"key".to_vec(), keys);
    }
    changes
}

/// The change of the bucket `auth` after which etcd asks for no user (etcd, `server/auth/store.go`).
pub(super) fn authentication_off() -> (Vec<u8>, Change) {
    let edit = Edit {
        put: BTreeMap::from([(b"authEnabled".to_vec(), vec![0])]),
        ..Edit::default()
    };
    (b"auth".to_vec(), Change::Edit(edit))
}

fn keys(raised: Option<i64>, at: Option<&AtRevision>) -> Option<Change> {
    let mark = raised.map(|revision| (revision_key(revision), Vec::new()));
    let first_gone = at.and_then(|at| at.revision.checked_add(1));
    match (first_gone, mark) {
        (Some(gone), mark) => Some(Change::Cut {
            from: revision_key(gone),
            then: mark.into_iter().collect(),
        }),
        (None, Some((key, value))) => Some(Change::Append { key, value }),
        (None, None) => None,
    }
}

/// How long recreated leases live, in seconds. Their original time to live is not known.
pub(super) const RECREATED_TTL: i64 = 60;

fn leases(at: &AtRevision) -> Option<Edit> {
    let put: BTreeMap<Vec<u8>, Vec<u8>> = at
        .recreated_leases
        .iter()
        .map(|(id, _)| (id.to_be_bytes().to_vec(), encode_lease(*id, RECREATED_TTL)))
        .collect();
    (!put.is_empty()).then(|| Edit {
        put,
        ..Edit::default()
    })
}

fn meta(cluster: &FoundingCluster, revision: Option<i64>, drop_versions: bool) -> Edit {
    let voters: Vec<String> = cluster.ids().iter().map(u64::to_string).collect();
    // As Go's JSON has a `raftpb.ConfState`: empty lists are left out, `auto_leave` never is.
    let conf_state = format!("{{\"voters\":[{}],\"auto_leave\":false}}", voters.join(","));
    let mut edit = Edit::default();
    let mut put = |key: &str, value: Vec<u8>| {
        edit.put.insert(key.as_bytes().to_vec(), value);
    };
    put("consistent_index", cluster.commit().to_be_bytes().to_vec());
    put("term", TERM.to_be_bytes().to_vec());
    put("confState", conf_state.into_bytes());
    if let Some(revision) = revision {
        put("scheduledCompactRev", revision_key(revision));
    }
    if drop_versions {
        edit.remove.insert(b"storageVersion".to_vec());
    }
    edit
}
