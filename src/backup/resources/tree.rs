//! The node's tree as it is archived: what the selection covers, in order, and what each is.

use std::collections::HashMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::Selection;
use super::links::{Landing, follow};
use super::names::plain_name;
use crate::error::{Doing, Fact, Failure, Kind, Result};

/// More than this are no static-pod resources.
pub(super) const MAX_ENTRIES: usize = 200_000;

/// One thing to archive.
#[derive(Debug)]
pub(super) struct Node {
    /// Where it lies.
    pub(super) source: PathBuf,
    /// Its name in the archive.
    pub(super) name: PathBuf,
    /// What it was when it was listed.
    pub(super) meta: Metadata,
    /// Where it leads, if it is a symbolic link.
    pub(super) target: Option<PathBuf>,
}

/// Lists all that a selection covers, each directory before what it holds, that by the bytes of
/// the name. Sockets, pipes and devices are refused, and links that lead out of the base.
pub(super) fn walk(selection: &Selection) -> Result<Vec<Node>> {
    let mut nodes = Vec::new();
    let roots = selection
        .entries
        .iter()
        .map(|entry| (selection.base.join(entry), entry.clone()))
        .chain(selection.elsewhere.iter().cloned());
    for (source, name) in roots {
        let mut todo = vec![(source, name)];
        while let Some((source, name)) = todo.pop() {
            if selection.skip.contains(&name) {
                continue;
            }
            let node = look(source, name)?;
            if node.meta.is_dir() {
                let mut children = children(&node)?;
                children.sort_by(|a, b| b.1.as_os_str().as_bytes().cmp(a.1.as_os_str().as_bytes()));
                todo.append(&mut children);
            }
            nodes.push(node);
            if nodes.len() > MAX_ENTRIES {
                return Err(refuse(
                    "too-many-files",
                    format!(
                        "listing {}: more than {MAX_ENTRIES} files",
                        selection.base.display()
                    ),
                    &selection.base,
                ));
            }
        }
    }
    refuse_links_out(&nodes, selection)?;
    Ok(nodes)
}

fn look(source: PathBuf, name: PathBuf) -> Result<Node> {
    if let Err(found) = plain_name(name.as_os_str().as_bytes()) {
        let text = format!("naming {} in the archive: {found}", source.display());
        return Err(refuse("name-not-archivable", text, &source));
    }
    let meta = fs::symlink_metadata(&source).doing(Kind::Unexpected, || {
        format!("looking at {}", source.display())
    })?;
    let kind = meta.file_type();
    let special = [
        (kind.is_socket(), "a socket"),
        (kind.is_fifo(), "a named pipe"),
        (kind.is_block_device(), "a block device"),
        (kind.is_char_device(), "a character device"),
    ];
    if let Some((_, what)) = special.iter().find(|(is, _)| *is) {
        let text = format!("archiving {}: it is {what}", source.display());
        return Err(refuse("special-file", text, &source));
    }
    let target = if kind.is_symlink() {
        let target = fs::read_link(&source).doing(Kind::Unexpected, || {
            format!("reading the link {}", source.display())
        })?;
        Some(target)
    } else {
        None
    };
    Ok(Node {
        source,
        name,
        meta,
        target,
    })
}

fn children(node: &Node) -> Result<Vec<(PathBuf, PathBuf)>> {
    let doing = || format!("listing {}", node.source.display());
    fs::read_dir(&node.source)
        .doing(Kind::Unexpected, doing)?
        .map(|entry| {
            let entry = entry.doing(Kind::Unexpected, doing)?;
            Ok((entry.path(), node.name.join(entry.file_name())))
        })
        .collect()
}

fn refuse_links_out(nodes: &[Node], selection: &Selection) -> Result<()> {
    let links: HashMap<PathBuf, PathBuf> = nodes
        .iter()
        .filter_map(|node| Some((node.name.clone(), node.target.clone()?)))
        .collect();
    for node in nodes {
        let Some(target) = &node.target else { continue };
        if follow(&node.name, &links, selection.node_base.as_deref()) == Landing::Outside {
            let text = format!(
                "archiving {}: the link leads out of {}, to {}",
                node.source.display(),
                selection.base.display(),
                target.display()
            );
            return Err(refuse("link-leads-out", text, &node.source));
        }
    }
    Ok(())
}

fn refuse(name: &'static str, what: String, path: &Path) -> Failure {
    Failure::new(Kind::Refused, what)
        .with(Fact::Refusal {
            name,
            allowable: false,
        })
        .with(Fact::Path(path.to_path_buf()))
}

/// The failure of something that changed under the reader.
pub(super) fn changed(path: &Path) -> Failure {
    let what = format!("reading {}: it changed meanwhile", path.display());
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
