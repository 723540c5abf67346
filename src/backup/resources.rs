//! The archives of a set: static-pod resources and certificates, as `tar.gz`.
//!
//! # Format
//!
//! What `tar -cpzf FILE -C /etc/kubernetes static-pod-resources/<component>-pod-<N> …` makes
//! (cluster-etcd-operator, `bindata/etcd/cluster-backup.sh`), so that
//! `tar -C /etc/kubernetes -xzf FILE static-pod-resources` restores it:
//!
//! | part | value |
//! | --- | --- |
//! | compression | one gzip member, nothing after it |
//! | headers | GNU format; a name or link target over 100 bytes in a `L` or `K` record before |
//! | names | relative, no `./`, no `..`; directories end in `/` |
//! | order | the selection's, each directory before what it holds, that by bytes of the name |
//! | owners | numeric; user and group names only for root (0) |
//! | times | modification in whole seconds, as GNU format has them; before 1970 counts as 0 |
//! | types | directories, regular files, symbolic links; hard links become files |
//! | attributes | extended ones as PAX records `SCHILY.xattr.<name>` in an `x` record before; `%` and `=` in a name as `%25` and `%3D`, as GNU tar does |
//! | end | two zero blocks; readers accept more of them (GNU tar pads to 10,240 bytes) |
//!
//! Archives of others are read too: GNU tar's with hard links, and the Go command's, which hold
//! regular files only (cluster-etcd-operator, `pkg/cmd/backuprestore`). Nothing in an archive is
//! trusted: see [`check_archive`], and [`extract_archive`], which checks before it writes.

mod certificates;
mod check;
mod compare;
mod entry;
mod extract;
mod left;
mod links;
mod names;
mod pax;
mod stream;
mod tree;
mod write;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::error::Result;

pub use certificates::{Certificate, Certificates, Unreadable};
pub use check::{ArchiveReport, Rules, check_archive};
pub use compare::{Difference, compare_with_tree};
pub use extract::{Extracted, extract_archive, extract_to_look};
pub use left::LeftOut;
pub use write::{Packing, write_archive, write_packed};

/// The directory that all names of an OpenShift node's archives start with.
pub const STATIC_POD_RESOURCES: &str = "static-pod-resources";

/// What to archive: files, and directories with all they hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// The directory that `entries` and `skip` are relative to.
    pub base: PathBuf,
    /// What the node itself calls `base`: an absolute link below it leads inside.
    pub node_base: Option<PathBuf>,
    /// What to archive, in the archive's order.
    pub entries: Vec<PathBuf>,
    /// Left out, with all it holds.
    pub skip: Vec<PathBuf>,
    /// Sources with names of their own in the archive, after `entries`.
    pub elsewhere: Vec<(PathBuf, PathBuf)>,
}

impl Selection {
    /// Where the node's file system starts for this process.
    fn root(&self) -> PathBuf {
        let inside = self
            .node_base
            .as_ref()
            .and_then(|base| base.strip_prefix("/").ok());
        let root = inside
            .filter(|inside| self.base.ends_with(inside))
            .and_then(|inside| self.base.ancestors().nth(inside.components().count()));
        root.unwrap_or(Path::new("/")).to_owned()
    }

    /// What it covers and an archive does not get.
    ///
    /// # Errors
    /// Where something cannot be looked at.
    pub fn left_out(&self) -> Result<Vec<LeftOut>> {
        tree::walk(self).map(|(_, left)| left)
    }
}

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

#[cfg(test)]
mod tests;
