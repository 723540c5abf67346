//! What an archive holds.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::certificates::Certificates;

/// The directory that all names of an OpenShift node's archives start with.
pub const STATIC_POD_RESOURCES: &str = "static-pod-resources";

/// One entry of an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name, without a trailing slash.
    pub name: PathBuf,
    /// What it is.
    pub kind: EntryKind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub modified: i64,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File {
        /// Bytes.
        size: u64,
        /// SHA-256 of its content.
        sha256: [u8; 32],
    },
    /// A symbolic link.
    Symlink {
        /// Where it leads, as written.
        target: PathBuf,
    },
    /// Another name of a file that stands earlier in the archive.
    HardLink {
        /// That file's name.
        target: PathBuf,
    },
}

/// All entries of an archive, and what their contents tell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ArchiveContents {
    /// The entries, in the archive's order.
    pub entries: Vec<Entry>,
    /// The certificates found in them. Filled by reading an archive, not by writing one.
    pub certificates: Certificates,
}

/// A component's revision whose directory is in an archive.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ArchivedRevision {
    /// The component: `etcd`, `kube-apiserver`, …
    pub component: String,
    /// Its PodRevision.
    pub revision: u64,
    /// Whether the pod's manifest is there: restore scripts up to OpenShift 4.17 need it.
    pub has_manifest: bool,
}

impl ArchiveContents {
    /// The entry of this name.
    pub fn entry(&self, name: impl AsRef<Path>) -> Option<&Entry> {
        let name = name.as_ref();
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// How many bytes the files hold together.
    pub fn content_bytes(&self) -> u64 {
        self.entries
            .iter()
            .map(|entry| match entry.kind {
                EntryKind::File { size, .. } => size,
                _ => 0,
            })
            .fold(0, u64::saturating_add)
    }

    /// The revisions `static-pod-resources/<component>-pod-<N>` in the archive, by component and
    /// number. A whole archive has exactly one of each component.
    pub fn revisions(&self) -> Vec<ArchivedRevision> {
        let mut found: BTreeMap<(String, u64), bool> = BTreeMap::new();
        for entry in &self.entries {
            let Ok(below) = entry.name.strip_prefix(STATIC_POD_RESOURCES) else {
                continue;
            };
            let mut parts = below.iter();
            let Some((component, revision)) = parts
                .next()
                .and_then(|dir| dir.to_str()?.rsplit_once("-pod-"))
                .and_then(|(name, digits)| Some((name, canonical_number(digits)?)))
            else {
                continue;
            };
            let manifest = format!("{component}-pod.yaml");
            let is_manifest = parts.next().is_some_and(|file| file == manifest.as_str())
                && parts.next().is_none();
            *found.entry((component.to_owned(), revision)).or_default() |= is_manifest;
        }
        found
            .into_iter()
            .map(|((component, revision), has_manifest)| ArchivedRevision {
                component,
                revision,
                has_manifest,
            })
            .collect()
    }
}

fn canonical_number(digits: &str) -> Option<u64> {
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}
