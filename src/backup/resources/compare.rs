//! A finished archive against the tree it was made from.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::node::Node;
use super::tree::{Content, walk};
use super::write::describe;
use super::{ArchiveContents, Entry, EntryKind, Selection};
use crate::error::Result;

/// Something that is not the same in the archive and in the tree.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// The entry's name.
    pub name: PathBuf,
    /// What is different, in a sentence.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name.display(), self.what)
    }
}

/// Reads the tree again and tells every difference: names, types, contents, modes, owners, times,
/// link targets and attributes. None means that the archive is the tree.
///
/// Directories are not missed in an archive that has none, as the Go command makes them.
pub fn compare_with_tree(
    contents: &ArchiveContents,
    selection: &Selection,
) -> Result<Vec<Difference>> {
    let mut archived: BTreeMap<&Path, &Entry> = contents
        .entries
        .iter()
        .map(|entry| (entry.name.as_path(), entry))
        .collect();
    let all = archived.clone();
    let has_directories = contents
        .entries
        .iter()
        .any(|e| e.kind == EntryKind::Directory);
    let mut told = Vec::new();
    for node in walk(selection)?.0 {
        let Some(entry) = archived.remove(node.name.as_path()) else {
            if !node.meta.is_dir() || has_directories {
                told.push(difference(&node.name, "not in the archive"));
            }
            continue;
        };
        let found = read(&node)?;
        let what = differing(&resolved(entry, &all), &found);
        if !what.is_empty() {
            told.push(difference(&node.name, &what.join(", ")));
        }
    }
    told.extend(
        archived
            .into_keys()
            .map(|name| difference(name, "only in the archive")),
    );
    told.sort();
    Ok(told)
}

fn difference(name: &Path, what: &str) -> Difference {
    Difference {
        name: name.to_path_buf(),
        what: what.to_owned(),
    }
}

/// A hard link is, in the tree, the file it leads to.
fn resolved(entry: &Entry, all: &BTreeMap<&Path, &Entry>) -> Entry {
    let mut resolved = entry.clone();
    if let EntryKind::HardLink { target } = &entry.kind
        && let Some(file) = all.get(target.as_path())
    {
        resolved.kind = file.kind.clone();
    }
    resolved
}

fn read(node: &Node) -> Result<Entry> {
    let kind = match &node.target {
        Some(target) => EntryKind::Symlink {
            target: target.clone(),
        },
        None if node.meta.is_dir() => EntryKind::Directory,
        None => {
            let mut content = Content::open(node)?;
            let copied = io::copy(&mut content, &mut io::sink());
            if let Some(failure) = content.failure.take() {
                return Err(failure);
            }
            let size = copied.unwrap_or_default();
            EntryKind::File {
                size,
                sha256: content.finish()?,
            }
        }
    };
    describe(node, kind)
}

fn differing(archived: &Entry, found: &Entry) -> Vec<&'static str> {
    let mut what = Vec::new();
    match (&archived.kind, &found.kind) {
        (a, b) if a == b => {}
        (EntryKind::File { .. }, EntryKind::File { .. }) => what.push("different content"),
        (EntryKind::Symlink { .. }, EntryKind::Symlink { .. }) => what.push("different target"),
        _ => what.push("different type"),
    }
    // A link's own mode means nothing: tar programs write 777.
    let link = matches!(found.kind, EntryKind::Symlink { .. });
    if archived.mode != found.mode && !link {
        what.push("different mode");
    }
    if (archived.uid, archived.gid) != (found.uid, found.gid) {
        what.push("different owner");
    }
    if archived.modified != found.modified {
        what.push("different modification time");
    }
    if archived.xattrs != found.xattrs {
        what.push("different extended attributes");
    }
    what
}
