//! The small documents beside a set's objects: the claim, the records of arrival, the index.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::Manifest;
use crate::error::{Doing, Failure, Kind, Result};

/// The schema of these documents.
pub(super) const SCHEMA_VERSION: u32 = 1;
/// The largest of them that is read.
pub(super) const MAX_BYTES: u64 = 1 << 20;

/// Whose a folder is; made before anything else in it, and never changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// The schema version of this document.
    pub schema_version: u32,
    /// SHA-256 of the Manifest of the set that belongs here, hex.
    pub manifest_sha256: String,
    /// When the first transfer began.
    pub begun: Timestamp,
    /// The host that made it.
    pub host: String,
    /// Tells two apart that claim at once.
    pub writer: String,
}

/// One of a set's files as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectEntry {
    /// The file's name in the Manifest.
    pub file: String,
    /// The object's name in the folder.
    pub object: String,
    /// Bytes, as stored.
    pub size: u64,
    /// SHA-256 of the bytes as stored, hex.
    pub sha256: String,
    /// How it was compressed: `zstd`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression: Option<String>,
    /// How it was encrypted, after that: `age`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encryption: Option<String>,
    /// Whether it is encrypted to the recipients of secrets, and not to those of the rest.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub secrets: bool,
}

/// That an object has arrived, and of what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Arrival {
    /// SHA-256 of the file, hex.
    pub(super) plain_sha256: String,
    /// SHA-256 of the recipients it is encrypted to, hex; empty if to none.
    pub(super) recipients: String,
    /// The object.
    pub(super) entry: ObjectEntry,
}

/// All of a set's objects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Index {
    /// The schema version of this document.
    pub schema_version: u32,
    /// SHA-256 of the Manifest it belongs to, hex.
    pub manifest_sha256: String,
    /// The objects, in the order of the Manifest's files.
    pub objects: Vec<ObjectEntry>,
    /// SHA-256 of the recipients that they are encrypted to, hex; earlier versions left it out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub recipients: Option<String>,
    /// The same of the recipients that the archives are encrypted to, if they are others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secrets_recipients: Option<String>,
}

/// A document as bytes.
pub(super) fn to_bytes(document: &impl Serialize) -> Result<Vec<u8>> {
    let mut bytes =
        serde_json::to_vec_pretty(document).doing(Kind::Unexpected, || "writing JSON")?;
    bytes.push(b'\n');
    Ok(bytes)
}

impl Index {
    /// Reads the index of a set and holds it against the Manifest: one object a file, named
    /// within the folder.
    ///
    /// # Errors
    /// [`Kind::BadBackup`]
    pub fn parse(bytes: &[u8], manifest: &Manifest, manifest_sha256: &str) -> Result<Self> {
        let bad = |what: String| {
            Failure::new(Kind::BadBackup, format!("reading {}: {what}", super::INDEX))
        };
        let index: Self = serde_json::from_slice(bytes).map_err(|e| bad(e.to_string()))?;
        if index.schema_version != SCHEMA_VERSION {
            return Err(bad(format!(
                "expected schemaVersion {SCHEMA_VERSION}, found {}",
                index.schema_version
            )));
        }
        if index.manifest_sha256 != manifest_sha256 {
            return Err(bad("it belongs to another Manifest".to_owned()));
        }
        let listed: BTreeSet<&str> = index
            .objects
            .iter()
            .map(|entry| entry.file.as_str())
            .collect();
        let files: BTreeSet<&str> = manifest
            .files
            .iter()
            .map(|file| file.name.as_str())
            .collect();
        if listed != files || listed.len() != index.objects.len() {
            return Err(bad("its files differ from the Manifest's".to_owned()));
        }
        let known = |entry: &ObjectEntry| {
            entry
                .compression
                .as_deref()
                .is_none_or(|word| word == "zstd")
                && entry.encryption.as_deref().is_none_or(|word| word == "age")
        };
        for entry in &index.objects {
            if entry.object.contains('/') || !known(entry) {
                return Err(bad(format!("{:?} is not a readable object", entry.object)));
            }
        }
        Ok(index)
    }
}
