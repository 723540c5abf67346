//! The node's tree as it is archived: what the selection covers, in order, and what each is.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::left::LeftOut;
use super::links_out::follow_links_out;
use super::node::{Node, children, look, size};
use super::selection::Selection;
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// More than this are no static-pod resources; a reader accepts a few more.
pub(super) const MAX_ENTRIES: usize = 190_000;
/// The largest file that a reader accepts.
const MAX_FILE: u64 = 256 << 20;
/// As much content leaves room for headers within what a reader accepts.
const MAX_CONTENT: u64 = 800 << 20;

impl Selection {
    /// What it covers and an archive does not get.
    ///
    /// # Errors
    /// If something cannot be looked at.
    pub fn left_out(&self) -> Result<Vec<LeftOut>> {
        walk(self).map(|(_, left)| left)
    }
}

/// Lists all that a selection covers, each directory before what it holds, that by the bytes of
/// the name; and what of it an archive cannot have.
pub(super) fn walk(selection: &Selection) -> Result<(Vec<Node>, Vec<LeftOut>)> {
    let mut nodes = Vec::new();
    let mut left = Vec::new();
    let roots = selection
        .entries
        .iter()
        .map(|entry| (selection.base.join(entry), entry.clone()))
        .chain(selection.elsewhere.iter().cloned());
    let mut todo: Vec<(PathBuf, PathBuf)> = roots.collect();
    // The last of a stack is taken first.
    todo.reverse();
    while let Some((source, name)) = todo.pop() {
        if selection.skip.contains(&name) {
            continue;
        }
        if nodes.len() >= MAX_ENTRIES {
            let why = format!("more than {MAX_ENTRIES} files are to be archived");
            left.push(LeftOut::new(&source, why, false));
            break;
        }
        let node = match look(source, name)? {
            Ok(node) => node,
            Err(found) => {
                left.push(found);
                continue;
            }
        };
        if node.meta.is_dir() {
            let mut children = children(&node)?;
            // Descending, for the same reason.
            children.sort_by(|a, b| b.1.as_os_str().as_bytes().cmp(a.1.as_os_str().as_bytes()));
            todo.append(&mut children);
        }
        nodes.push(node);
    }
    let nodes = follow_links_out(nodes, selection, &mut left)?;
    let nodes = within_bounds(nodes, &mut left);
    left.sort();
    Ok((nodes, left))
}

/// What a reader of the archive accepts, of the files in their order.
fn within_bounds(nodes: Vec<Node>, left: &mut Vec<LeftOut>) -> Vec<Node> {
    let mut total = 0_u64;
    let mut kept = Vec::with_capacity(nodes.len());
    for node in nodes {
        let size = size(&node);
        let why = if size > MAX_FILE {
            Some(format!("it is larger than {} MiB", MAX_FILE >> 20))
        } else if total.saturating_add(size) > MAX_CONTENT {
            Some(format!(
                "all files together are more than {} MiB",
                MAX_CONTENT >> 20
            ))
        } else {
            None
        };
        match why {
            Some(why) => left.push(LeftOut::new(&node.source, why, false)),
            None => {
                total = total.saturating_add(size);
                kept.push(node);
            }
        }
    }
    kept
}

fn refuse(name: &'static str, what: String, path: &Path) -> Failure {
    Failure::refused_for_good(name, what).with(Fact::Path(path.to_path_buf()))
}

/// The failure of something that changed under the reader.
pub(super) fn changed(path: &Path) -> Failure {
    let what = format!("reading {}: it changed in the meantime", path.display());
    refuse("resources-changed", what, path)
}

/// A file's content, which must stay what it was when it was listed: as many bytes, and no write
/// while they are read.
pub(super) struct Content<'a> {
    node: &'a Node,
    file: File,
    left: u64,
    hash: Sha256,
    /// Why reading failed; the tar writer in between knows only its own errors.
    pub(super) failure: Option<Failure>,
}

impl<'a> Content<'a> {
    /// Opens a node's file.
    pub(super) fn open(node: &'a Node) -> Result<Self> {
        // A link may have replaced it, which must not be followed, or a pipe, which must not be
        // waited for.
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
        let file = OpenOptions::new()
            .read(true)
            .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
            .open(&node.source)
            .doing(Kind::Unexpected, || {
                format!("opening {}", node.source.display())
            })?;
        let content = Self {
            node,
            file,
            left: node.meta.size(),
            hash: Sha256::new(),
            failure: None,
        };
        content.check_unchanged()?;
        Ok(content)
    }

    fn check_unchanged(&self) -> Result<()> {
        let now = self.file.metadata().doing(Kind::Unexpected, || {
            format!("looking at {}", self.node.source.display())
        })?;
        let facts = |m: &Metadata| {
            (
                m.dev(),
                m.ino(),
                m.mode(),
                m.size(),
                m.mtime(),
                m.mtime_nsec(),
                // A writer can set the modification time back, but not this one.
                m.ctime(),
                m.ctime_nsec(),
            )
        };
        if facts(&now) == facts(&self.node.meta) {
            Ok(())
        } else {
            Err(changed(&self.node.source))
        }
    }

    fn read_on(&mut self, buf: &mut [u8]) -> Result<usize> {
        // The archive's header has announced so many bytes.
        let most = usize::try_from(self.left)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let Some(part) = buf.get_mut(..most).filter(|part| !part.is_empty()) else {
            return Ok(0);
        };
        let count = loop {
            match self.file.read(part) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        let count = count.doing(Kind::Unexpected, || {
            format!("reading {}", self.node.source.display())
        })?;
        // It is shorter than when it was listed.
        if count == 0 {
            return Err(changed(&self.node.source));
        }
        self.hash.update(part.get(..count).unwrap_or_default());
        self.left = self
            .left
            .saturating_sub(u64::try_from(count).unwrap_or(u64::MAX));
        Ok(count)
    }

    /// After the last byte: the content's hash, if the file is still what it was.
    pub(super) fn finish(self) -> Result<[u8; 32]> {
        self.check_unchanged()?;
        Ok(self.hash.finalize().into())
    }
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read_on(buf).map_err(|failure| {
            let text = failure.to_string();
            self.failure = Some(failure);
            io::Error::other(text)
        })
    }
}
