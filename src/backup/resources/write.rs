//! Writing an archive.

use std::fs::Metadata;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

use super::node::Node;
use super::tree::{Content, changed, walk};
use super::{ArchiveContents, Entry, EntryKind, Selection, pax};
use crate::error::{Doing, Failure, Kind, Result};
use crate::sys::xattr::xattrs;

/// What `tar -z` uses. On PEM and manifests level 1 runs at 264 MB/s to 57 % of the size, 2 to 9
/// at about 45 MB/s to 51 %; a node's revisions are a few megabytes, some tens of milliseconds.
const LEVEL: u32 = 6;

/// The longest name a header holds itself.
const HEADER_NAME: usize = 100;

/// How an archive is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// As `tar -z` does.
    Usual,
    /// Not at all: for content so dense with repetition that a reader would take the archive for a
    /// hostile one.
    Stored,
}

/// Writes an archive of what the selection covers, and tells what it holds, as
/// [`check_archive`](super::check_archive) must find it again. `out` is flushed, not synced.
///
/// A file that changes while it is read is refused by the name `resources-changed`.
pub fn write_archive(selection: &Selection, out: impl Write) -> Result<ArchiveContents> {
    write_packed(selection, out, Packing::Usual)
}

/// The same, compressed otherwise.
pub fn write_packed(
    selection: &Selection,
    out: impl Write,
    packing: Packing,
) -> Result<ArchiveContents> {
    let level = match packing {
        Packing::Usual => LEVEL,
        Packing::Stored => 0,
    };
    let gzip = GzBuilder::new().write(out, Compression::new(level));
    let mut tar = Builder::new(gzip);
    let mut entries = Vec::new();
    for node in walk(selection)?.0 {
        entries.push(append(&mut tar, &node)?);
    }
    tar.into_inner()
        .and_then(|gzip| gzip.finish())
        .and_then(|mut out| out.flush())
        .doing(Kind::Store, || "finishing the archive")?;
    Ok(ArchiveContents {
        entries,
        ..ArchiveContents::default()
    })
}

/// What the node's tree says of an entry, but for a file's content.
pub(super) fn describe(node: &Node, kind: EntryKind) -> Result<Entry> {
    Ok(Entry {
        name: node.name.clone(),
        kind,
        mode: node.meta.mode() & 0o7777,
        uid: node.meta.uid(),
        gid: node.meta.gid(),
        modified: node.meta.mtime().max(0),
        xattrs: xattrs(&node.source)?,
    })
}

fn append(tar: &mut Builder<impl Write>, node: &Node) -> Result<Entry> {
    let kind = match &node.target {
        Some(target) => EntryKind::Symlink {
            target: target.clone(),
        },
        None if node.meta.is_dir() => EntryKind::Directory,
        None => EntryKind::File {
            size: node.meta.size(),
            sha256: [0; 32],
        },
    };
    let mut entry = describe(node, kind)?;
    let storing = || format!("writing {} into the archive", node.name.display());
    let attributes: Vec<(String, &[u8])> = entry
        .xattrs
        .iter()
        .map(|(name, value)| (pax::xattr_keyword(name), value.as_slice()))
        .collect();
    tar.append_pax_extensions(attributes.iter().map(|(key, value)| (key.as_str(), *value)))
        .doing(Kind::Store, storing)?;
    let mut header = header_of(&entry)?;
    match &mut entry.kind {
        EntryKind::Directory => {
            header.set_entry_type(EntryType::Directory);
            tar.append_data(&mut header, with_slash(&node.name), io::empty())
                .doing(Kind::Store, storing)?;
        }
        EntryKind::Symlink { target } => {
            header.set_entry_type(EntryType::Symlink);
            append_link(tar, &mut header, &node.name, target).doing(Kind::Store, storing)?;
        }
        EntryKind::File { size, sha256 } => {
            header.set_entry_type(EntryType::Regular);
            header.set_size(*size);
            let mut content = Content::open(node)?;
            let appended = tar.append_data(&mut header, &node.name, &mut content);
            if let Some(failure) = content.failure.take() {
                return Err(failure);
            }
            appended.doing(Kind::Store, storing)?;
            *sha256 = content.finish()?;
        }
        EntryKind::HardLink { .. } => {
            return Err(Failure::new(Kind::Unexpected, "no walk lists a hard link"));
        }
    }
    refuse_changed(node)?;
    Ok(entry)
}

/// Attributes were read by name: they belong to this file only if the name still does.
fn refuse_changed(node: &Node) -> Result<()> {
    let now = std::fs::symlink_metadata(&node.source).doing(Kind::Unexpected, || {
        format!("looking at {}", node.source.display())
    })?;
    let of = |meta: &Metadata| (meta.dev(), meta.ino(), meta.ctime(), meta.ctime_nsec());
    match of(&now) == of(&node.meta) {
        true => Ok(()),
        false => Err(changed(&node.source)),
    }
}

fn header_of(entry: &Entry) -> Result<Header> {
    let mut header = Header::new_gnu();
    header.set_mode(entry.mode);
    header.set_uid(u64::from(entry.uid));
    header.set_gid(u64::from(entry.gid));
    header.set_mtime(u64::try_from(entry.modified).unwrap_or_default());
    header.set_size(0);
    // GNU tar extracts by name first: only root is the same everywhere.
    if entry.uid == 0 {
        header
            .set_username("root")
            .doing(Kind::Unexpected, || "naming the owner")?;
    }
    if entry.gid == 0 {
        header
            .set_groupname("root")
            .doing(Kind::Unexpected, || "naming the group")?;
    }
    Ok(header)
}

fn with_slash(name: &Path) -> PathBuf {
    let mut text = name.as_os_str().to_os_string();
    text.push("/");
    PathBuf::from(text)
}

/// The target goes in byte for byte; the tar crate's own way would tidy it.
fn append_link(
    tar: &mut Builder<impl Write>,
    header: &mut Header,
    name: &Path,
    target: &Path,
) -> io::Result<()> {
    let bytes = target.as_os_str().as_bytes();
    if bytes.len() <= HEADER_NAME {
        header.set_link_name_literal(bytes)?;
    } else {
        let mut long = Header::new_gnu();
        let name = b"././@LongLink";
        if let Some(slot) = long
            .as_gnu_mut()
            .and_then(|gnu| gnu.name.get_mut(..name.len()))
        {
            slot.copy_from_slice(name);
        }
        long.set_entry_type(EntryType::GNULongLink);
        long.set_size(
            u64::try_from(bytes.len())
                .map_err(io::Error::other)?
                .saturating_add(1),
        );
        long.set_mode(0o644);
        long.set_uid(0);
        long.set_gid(0);
        long.set_mtime(0);
        long.set_cksum();
        tar.append(&long, [bytes, b"\0"].concat().as_slice())?;
        header.set_link_name_literal(bytes.get(..HEADER_NAME).unwrap_or_default())?;
    }
    tar.append_data(header, name, io::empty())
}
