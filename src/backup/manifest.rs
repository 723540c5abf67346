//! The Manifest, `backup.json`. It is written last: a backup exists if and only if its Manifest
//! does.
//!
//! JSON, UTF-8, camelCase, one object. `schemaVersion` 1; a reader accepts fields it does not
//! know within the same schema version and refuses a higher one. 64-bit ids are lower-case hex
//! text as etcdctl prints them, since JSON numbers lose bits beyond 2^53; revisions and sizes
//! are numbers; sizes are bytes; times are RFC 3339 in UTC.

use std::collections::BTreeSet;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::names::FileKind;
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// The schema this version writes, and the highest it reads.
pub const SCHEMA_VERSION: u32 = 1;
/// The largest Manifest that is read; a real one is a few KiB.
pub const MAX_BYTES: u64 = 4 << 20;

/// Everything that is known about a backup when it is taken. It never changes afterwards.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// The schema version of this document.
    pub schema_version: u32,
    /// What wrote it.
    pub tool: Tool,
    /// `backup-N`.
    pub id: String,
    /// When the backup began.
    pub created: Timestamp,
    /// The node it was taken on.
    pub node: Node,
    /// The cluster.
    pub cluster: Cluster,
    /// The etcd member that was the source.
    pub member: Member,
    /// The database.
    pub database: Database,
    /// Every file of the set but this one and those learnt later.
    pub files: Vec<FileEntry>,
    /// The static pods whose resources are archived.
    #[serde(default)]
    pub components: Vec<Component>,
    /// Good, or dirty and why.
    pub quality: Quality,
    /// What was checked when it was taken.
    #[serde(default)]
    pub checks: Vec<Check>,
    /// The certificate in the archives that expires first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest_certificate_expiry: Option<CertificateExpiry>,
    /// Objects that are in a separate etcd, and so not in this backup.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub other_etcds: Vec<OtherEtcd>,
    /// The KMS plugins without which encrypted objects of this backup cannot be read.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kms_plugins: Vec<String>,
    /// The backup that this node's store had before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// The backup before another: what makes backups a chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Previous {
    /// Its `backup-N`.
    pub id: String,
    /// SHA-256 of its Manifest's bytes, hex.
    pub sha256: String,
}

/// Objects in another etcd (kube-apiserver's `--etcd-servers-overrides`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OtherEtcd {
    /// Group and resource, such as `/events`.
    pub resource: String,
    /// Its servers.
    #[serde(default)]
    pub servers: Vec<String>,
}

/// The program that wrote a Manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The node a backup was taken on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// The host's own name.
    pub host: String,
    /// The Kubernetes node name, where the profile has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// `openshift`, `kubeadm` or `bare`.
    pub profile: String,
}

/// The cluster a backup belongs to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cluster {
    /// etcd's cluster id, hex.
    pub etcd_id: String,
    /// OpenShift's cluster UUID, from ClusterVersion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// OpenShift's version, from ClusterVersion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ocp_version: Option<String>,
    /// The uid of the namespace `kube-system`, which a restore keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kube_system_uid: Option<String>,
    /// Ids that etcd's cluster had before it was restored, as far as this node knows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub former_ids: Vec<String>,
}

/// The member that the snapshot is from, by its status just before.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Member {
    /// etcd's member id, hex.
    pub id: String,
    /// Its name.
    pub name: String,
    /// The endpoint that was spoken to.
    pub endpoint: String,
    /// etcd's version.
    pub etcd_version: String,
    /// Whether it led.
    pub leader: bool,
    /// Whether it was a learner.
    pub learner: bool,
    /// Raft term.
    pub raft_term: u64,
    /// Raft index.
    pub raft_index: u64,
    /// Raft index applied.
    pub raft_applied_index: u64,
}

/// The database. What needs its inside is optional.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Database {
    /// Bytes of the snapshot's database part, without the trailer.
    pub size: u64,
    /// SHA-256 of that part, hex: what the trailer says.
    pub sha256: String,
    /// Bytes in pages that are in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub in_use: Option<u64>,
    /// The KV revision the snapshot stands at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_revision: Option<i64>,
    /// The compact revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compact_revision: Option<i64>,
    /// Live keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<u64>,
    /// The hash that `snapshot status` prints, hex.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_hash: Option<String>,
    /// HashKV, and what it is of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash_kv: Option<HashKv>,
    /// The storage version, which servers from 3.6 on state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage_version: Option<String>,
}

/// etcd's HashKV of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HashKv {
    /// CRC-32C over the live revisions.
    pub hash: u32,
    /// The revision it was computed at.
    pub revision: i64,
    /// The compact revision it was computed with; -1 if nothing was compacted.
    pub compact_revision: i64,
}

/// One file of a set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FileEntry {
    /// Its name within the set's directory.
    pub name: String,
    /// What it is.
    pub kind: FileKind,
    /// Bytes.
    pub size: u64,
    /// Permission bits, octal text (`0600`).
    pub mode: String,
    /// SHA-256 of its bytes, hex.
    pub sha256: String,
}

/// One static pod whose resources are in the archive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Component {
    /// `etcd`, `kube-apiserver`, …
    pub name: String,
    /// Its PodRevision, where the profile has revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The image of its main container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// Whether anything was wrong when the backup was taken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Quality {
    /// The verdict.
    pub state: QualityState,
    /// Why it is dirty; empty for a good one.
    #[serde(default)]
    pub reasons: Vec<Reason>,
}

/// The verdict on a backup's circumstances.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum QualityState {
    /// Every check held.
    Good,
    /// A check failed and was allowed.
    Dirty,
}

/// A check that failed and was allowed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reason {
    /// The check's name.
    #[serde(deserialize_with = "crate::error::names::one")]
    pub check: String,
    /// What it found.
    pub message: String,
}

/// A check and how it went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// The check's name.
    #[serde(deserialize_with = "crate::error::names::one")]
    pub name: String,
    /// How it went.
    pub result: CheckResult,
    /// What was seen, or why it was not checked.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CheckResult {
    /// It held.
    Ok,
    /// It did not.
    Failed,
    /// It could not be, or was not asked to be, checked.
    NotChecked,
}

/// The certificate in a set's archives that expires first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CertificateExpiry {
    /// notAfter.
    pub time: Timestamp,
    /// The certificate's subject.
    pub subject: String,
    /// The archive entry that holds it.
    pub path: String,
}

impl Manifest {
    /// The document as bytes: indented JSON and a final newline.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .doing(Kind::Unexpected, || "writing the Manifest as JSON")?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Reads a document; `file` is only for the message.
    ///
    /// # Errors
    /// [`Kind::BadBackup`], with line and column if it is not a Manifest, or saying that a newer
    /// version wrote it.
    pub fn from_bytes(bytes: &[u8], file: &Path) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Version {
            schema_version: u32,
        }
        let doing = || format!("reading the Manifest {}", file.display());
        let bad = |what: String| {
            Failure::new(Kind::BadBackup, what)
                .doing(doing())
                .with(Fact::Path(file.to_owned()))
        };
        let read = serde_json::from_slice::<Self>(bytes);
        // A document that this version cannot read may be a later version's.
        let version = match &read {
            Ok(manifest) => manifest.schema_version,
            Err(_) => {
                let version = serde_json::from_slice::<Version>(bytes);
                version.doing(Kind::BadBackup, doing)?.schema_version
            }
        };
        if version == 0 || version > SCHEMA_VERSION {
            return Err(bad(format!(
                "expected schemaVersion 1 to {SCHEMA_VERSION}, found {version}: a newer version of the tool wrote it"
            )));
        }
        let manifest = read.doing(Kind::BadBackup, doing)?;
        let mut kinds = BTreeSet::new();
        for entry in &manifest.files {
            // A Manifest may list no other files: what is learnt later is stored next to these.
            if !entry.kind.is_named(&entry.name) {
                let expected = entry.kind.pattern();
                return Err(bad(format!(
                    "expected a file named {expected}, found {:?}",
                    entry.name
                )));
            }
            if !kinds.insert(entry.kind) {
                let what = format!("expected one file of each kind, found {:?} too", entry.name);
                return Err(bad(what));
            }
        }
        Ok(manifest)
    }

    /// The set's file of a kind.
    pub fn file(&self, kind: FileKind) -> Option<&FileEntry> {
        self.files.iter().find(|entry| entry.kind == kind)
    }

    /// Where the backup is from: the cluster, by OpenShift's UUID or etcd's id, and the node.
    pub fn origin(&self) -> (&str, &str) {
        let cluster = self.cluster.uuid.as_deref();
        let node = self.node.name.as_deref();
        (
            cluster.unwrap_or(&self.cluster.etcd_id),
            node.unwrap_or(&self.node.host),
        )
    }

    /// Bytes of all its files.
    pub fn total_size(&self) -> u64 {
        self.files
            .iter()
            .fold(0, |sum, entry| sum.saturating_add(entry.size))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A Manifest with every field set.
    pub(crate) fn example() -> Manifest {
        Manifest {
            schema_version: SCHEMA_VERSION,
            tool: Tool {
                name: "etcd-dr".into(),
                version: "0.1.0".into(),
            },
            id: "backup-12".into(),
            created: "2026-11-21T06:15:30Z".parse().unwrap(),
            node: Node {
                host: "h".into(),
                name: Some("master-0".into()),
                profile: "openshift".into(),
            },
            cluster: Cluster {
                etcd_id: "67dd97daf3ded3f".into(),
                uuid: Some("u".into()),
                ocp_version: Some("4.18.3".into()),
                kube_system_uid: Some("u-1".into()),
                former_ids: vec!["1f".into()],
            },
            member: Member {
                id: "8e9e05c52164694d".into(),
                name: "master-0".into(),
                endpoint: "https://10.0.0.1:2379".into(),
                etcd_version: "3.5.30".into(),
                leader: true,
                learner: false,
                raft_term: 3,
                raft_index: 4000,
                raft_applied_index: 4000,
            },
            database: Database {
                size: 4096,
                sha256: "00".into(),
                kv_revision: Some(7),
                ..Database::default()
            },
            files: vec![FileEntry {
                name: "snapshot_2026-11-21_061530.db".into(),
                kind: FileKind::Snapshot,
                size: 4128,
                mode: "0600".into(),
                sha256: "11".into(),
            }],
            components: vec![Component {
                name: "etcd".into(),
                revision: Some(7),
                image: Some("quay.io/x".into()),
            }],
            quality: Quality {
                state: QualityState::Good,
                reasons: Vec::new(),
            },
            checks: vec![Check {
                name: "etcd-alarm".into(),
                result: CheckResult::Ok,
                detail: String::new(),
            }],
            earliest_certificate_expiry: None,
            other_etcds: Vec::new(),
            kms_plugins: Vec::new(),
            previous: None,
        }
    }

    #[test]
    fn it_reads_what_it_wrote() {
        let manifest = example();
        let bytes = manifest.to_bytes().unwrap();
        assert_eq!(
            Manifest::from_bytes(&bytes, Path::new("backup.json")).unwrap(),
            manifest
        );
        let mut value: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        value["laterField"] = true.into();
        let later = serde_json::to_vec(&value).unwrap();
        assert_eq!(
            Manifest::from_bytes(&later, Path::new("backup.json")).unwrap(),
            manifest
        );
    }

    #[test]
    fn a_newer_schema_and_a_name_that_leaves_are_refused() {
        let mut value = serde_json::to_value(example()).unwrap();
        value["schemaVersion"] = 2.into();
        let failure =
            Manifest::from_bytes(value.to_string().as_bytes(), Path::new("b.json")).unwrap_err();
        assert!(failure.to_string().contains("found 2"), "{failure}");
        value["schemaVersion"] = 1.into();
        value["files"][0]["name"] = "../etc/passwd".into();
        let failure =
            Manifest::from_bytes(value.to_string().as_bytes(), Path::new("b.json")).unwrap_err();
        assert_eq!(failure.kind(), Kind::BadBackup);
        // Neither what is learnt later, nor another kind's name, nor what no program of ours writes.
        for name in [
            "pinned",
            "verified.json",
            "copies.json",
            "shared.json",
            "backup.json",
            "SHA256SUMS",
            "static_certs_2026-11-21_061530.tar.gz",
            "evil\u{1b}[31m\nname",
            "snapshot_2026-11-21_061530.db/x",
            "",
        ] {
            value["files"][0]["name"] = name.into();
            let read = Manifest::from_bytes(value.to_string().as_bytes(), Path::new("b.json"));
            let failure = read.unwrap_err().to_string();
            assert!(
                failure.contains("snapshot_<stamp>.db"),
                "{name:?}: {failure}"
            );
            assert!(!failure.contains('\u{1b}'), "{failure:?}");
        }
        let mut twice = example();
        let mut second = twice.files[0].clone();
        second.name = "snapshot_2026-11-21_061531.db".into();
        twice.files.push(second);
        let read = Manifest::from_bytes(&twice.to_bytes().unwrap(), Path::new("b.json"));
        assert!(
            read.unwrap_err()
                .to_string()
                .contains("one file of each kind")
        );
        let bytes = example().to_bytes().unwrap();
        for cut in 0..bytes.len() - 2 {
            assert!(Manifest::from_bytes(&bytes[..cut], Path::new("b.json")).is_err());
        }
    }
}
