//! What is asked of a recorder, how it stands, and what it has recorded.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::away::Away;
use crate::cluster::connect::Target;
use crate::etcd::segment::Cause;
use crate::store::LocalStore;

/// Told how a recorder stands.
pub type OnStanding = Arc<dyn Fn(&Standing) + Send + Sync>;

/// What is asked for.
#[derive(Clone)]
pub struct RecordRequest {
    /// The node whose member is watched.
    pub target: Target,
    /// Where segments go.
    pub store: LocalStore,
    /// Whether that is the node's own store, which is a link that may have to be made.
    pub default_store: bool,
    /// What has arrived is sealed after this time.
    pub seal_every: Duration,
    /// Or once there are so many bytes of it.
    pub seal_bytes: u64,
    /// How often etcd is asked for its own HashKV, members and authentication; zero: never.
    pub prove_every: Duration,
    /// Where segments are copied to as they are sealed.
    pub away: Option<Away>,
    /// Told whenever something is sealed, or the standing changes; must not block.
    pub on_standing: Option<OnStanding>,
}

impl std::fmt::Debug for RecordRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecordRequest")
            .field("store", &self.store)
            .field("seal_every", &self.seal_every)
            .field("seal_bytes", &self.seal_bytes)
            .finish_non_exhaustive()
    }
}

/// How a recorder stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Standing {
    /// Whether it is watching.
    pub connected: bool,
    /// The last revision that is sealed.
    pub revision: Option<i64>,
    /// Everything that was written up to this time is sealed.
    pub recorded_until: Option<Timestamp>,
    /// Gaps since this process began.
    pub gaps: u64,
    /// Segments that were sealed since this process began.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Revisions that were not recorded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gap {
    /// The last revision that was recorded before.
    pub after: i64,
    /// The first one that is recorded again.
    pub until: i64,
    /// Why.
    pub cause: Cause,
}

/// What was recorded.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Recorded {
    /// The directory of the chain that was recorded to last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub chain: Option<PathBuf>,
    /// The first revision of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_revision: Option<i64>,
    /// The last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_revision: Option<i64>,
    /// Segments sealed.
    pub segments: u64,
    /// Changes in them.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// How often the watch was lost.
    pub reconnects: u64,
    /// What was not recorded.
    pub gaps: Vec<Gap>,
}
