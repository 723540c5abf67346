//! The name and the header of a segment.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What a segment's file begins with.
pub(super) const MAGIC: [u8; 8] = *b"EDRCHG1\n";
/// The schema that is written, and the highest that is read.
pub(super) const SCHEMA_VERSION: u32 = 1;
/// The longest header, in bytes.
pub(super) const MAX_HEADER: u32 = 64 << 10;
/// The largest segment that is read, in bytes: one that is sealed at its usual size and one transaction.
pub const MAX_BYTES: u64 = 512 << 20;
/// What the names of segments end with.
pub const FILE_SUFFIX: &str = ".changes";
/// Digits of a revision in a name.
const DIGITS: usize = 19;

/// Why a chain of segments began where it did, and not where the one before ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// Nothing was recorded in this store before.
    First,
    /// etcd had compacted the revisions that came next.
    Compacted,
    /// etcd's revisions are those of another history: it was restored.
    OtherHistory,
    /// Another cluster answers.
    OtherCluster,
    /// The watch left out revisions, again and again.
    EventsLost,
    /// The last segment could not be read.
    DamagedSegment,
}

impl Cause {
    /// The cause as a part of a sentence.
    pub const fn sentence(self) -> &'static str {
        match self {
            Self::First => "recording began",
            Self::Compacted => "etcd had compacted it before it was recorded",
            Self::OtherHistory => "etcd was restored, and has another history",
            Self::OtherCluster => "another cluster was recorded",
            Self::EventsLost => "etcd's watch left out events",
            Self::DamagedSegment => "the last segment was damaged",
        }
    }
}

/// How a chain of segments began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Begun {
    /// Why.
    pub cause: Cause,
    /// The last revision that was recorded before, or that of the backup after which nothing could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<i64>,
}

/// What a segment says of itself. Ids are hex, as etcdctl prints them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Header {
    /// The schema version.
    pub schema_version: u32,
    /// The cluster.
    pub cluster_id: String,
    /// The member that was watched.
    pub member_id: String,
    /// Its version.
    pub etcd_version: String,
    /// The first main revision.
    pub first_revision: i64,
    /// The last one; all between are in it, each whole.
    pub last_revision: i64,
    /// How many records it has.
    pub records: u64,
    /// How many leases its table has.
    pub leases: u64,
    /// Whether the table is etcd's at the seal; otherwise it is an earlier one, because etcd did not
    /// answer any more.
    pub leases_fresh: bool,
    /// When the first of its events arrived.
    pub first_received: Timestamp,
    /// When the last did.
    pub last_received: Timestamp,
    /// SHA-256 of the segment before, as its own end has it, hex; none in the first of a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<String>,
    /// How its chain began; only in the first of a chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begun: Option<Begun>,
    /// What etcd said of an earlier revision of its chain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

/// What etcd said at a revision of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// The last revision that was sealed when etcd was asked.
    pub revision: i64,
    /// Its HashKV at that revision; none if it had compacted it already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_kv: Option<CheckpointHash>,
    /// The ids of its members, hex, ascending.
    pub members: Vec<String>,
    /// Its authentication; none if it does not tell, as etcd 3.4.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth: Option<CheckpointAuth>,
}

/// A HashKV.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointHash {
    /// The hash.
    pub hash: u32,
    /// The compaction that it was made with; −1 or 0 for none.
    pub compact_revision: i64,
}

/// The state of authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CheckpointAuth {
    /// Whether it is on.
    pub enabled: bool,
    /// Raised with each change of a user or a role.
    pub revision: u64,
}

/// The name of a segment: its first and its last revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// The first revision.
    pub first: i64,
    /// The last one.
    pub last: i64,
}

impl Name {
    /// Reads a name; `None` if it is not one.
    pub fn parse(name: &str) -> Option<Self> {
        let (first, last) = name.strip_suffix(FILE_SUFFIX)?.split_once('-')?;
        let number = |digits: &str| -> Option<i64> {
            let plain = digits.len() == DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| digits.parse().ok())?
        };
        let name = Self {
            first: number(first)?,
            last: number(last)?,
        };
        (name.first >= 1 && name.first <= name.last).then_some(name)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:0DIGITS$}-{:0DIGITS$}{FILE_SUFFIX}",
            self.first, self.last
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_sort_by_revision_and_read_back() {
        let name = Name { first: 9, last: 10 };
        let text = name.to_string();
        assert_eq!(text, "0000000000000000009-0000000000000000010.changes");
        assert_eq!(Name::parse(&text), Some(name));
        let most = Name {
            first: i64::MAX,
            last: i64::MAX,
        };
        assert_eq!(Name::parse(&most.to_string()), Some(most));
        for other in [
            "",
            ".changes",
            "9-10.changes",
            "0000000000000000010-0000000000000000009.changes",
            "0000000000000000000-0000000000000000009.changes",
            "000000000000000000+-0000000000000000009.changes",
            "9999999999999999999-9999999999999999999.changes",
        ] {
            assert_eq!(Name::parse(other), None, "{other}");
        }
    }
}
