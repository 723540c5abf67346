//! One description of a directory tree, to compare and to hash.
//!
//! # Hash
//!
//! [`hash`] is the SHA-256 of one record for each node, in the order of their paths by components.
//! Numbers are little-endian; `bytes` stands for a u64 length and that many bytes.
//!
//! | field | value |
//! | --- | --- |
//! | path | bytes, relative to the root; empty for the root itself |
//! | type | u8: `d`, `f`, `l` or `s` |
//! | content | `d`: nothing; `f`: u64 size, 32 bytes SHA-256; `l`: bytes, the target; `s`: bytes, what it is, u64 device number |
//! | mode, owner, group | u32 each |
//! | modified | u8 0, or u8 1 and i64 seconds and u32 nanoseconds |
//! | attributes | u64 count, then bytes name and bytes value for each, by name |

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

use super::stream::Hashing;
use super::xattr::xattrs;
use crate::error::{Doing, Failure, Kind, Result};

/// What of a tree is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Modification times. Off unless asked for: a copy or a restart changes them.
    pub modified: bool,
    /// Extended attributes.
    pub xattrs: bool,
    /// Left out with all below, by path relative to the root.
    pub skip: Vec<PathBuf>,
    /// Larger trees are an error.
    pub max_nodes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            modified: false,
            xattrs: true,
            skip: Vec::new(),
            max_nodes: 1_000_000,
        }
    }
}

/// One file, directory or link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// What it is.
    pub kind: NodeKind,
    /// Permission bits, with set-id and sticky bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970 and nanoseconds, if it was asked for.
    pub modified: Option<(i64, u32)>,
    /// Extended attributes.
    pub xattrs: BTreeMap<String, Vec<u8>>,
}

/// What a [`Node`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodeKind {
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
    /// A socket, named pipe or device.
    Special {
        /// Which of them.
        what: &'static str,
        /// A device's number, otherwise 0.
        device: u64,
    },
}

/// Something that is not the same in two trees.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Difference {
    /// Relative to the root.
    pub path: PathBuf,
    /// What is different, in a phrase.
    pub what: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path.display(), self.what)
    }
}

/// Describes a tree, or a single file or link: all paths relative to `root`, which itself is the
/// empty one. Links are not followed. Nothing at all there is an empty description.
///
/// The tree must be at rest: a file that goes away in the meantime is an error, one that is written to
/// is described as it was read.
pub fn describe(root: &Path, options: &Options) -> Result<BTreeMap<PathBuf, Node>> {
    let mut found = BTreeMap::new();
    if let Err(cause) = fs::symlink_metadata(root)
        && cause.kind() == io::ErrorKind::NotFound
    {
        return Ok(found);
    }
    let mut todo = vec![PathBuf::new()];
    while let Some(path) = todo.pop() {
        if options.skip.contains(&path) {
            continue;
        }
        let full = below(root, &path);
        let node = look(&full, options)?;
        if node.kind == NodeKind::Directory {
            let doing = || format!("listing {}", full.display());
            for entry in fs::read_dir(&full).doing(Kind::Unexpected, doing)? {
                let name = entry.doing(Kind::Unexpected, doing)?.file_name();
                todo.push(path.join(name));
            }
        }
        found.insert(path, node);
        if found.len().saturating_add(todo.len()) > options.max_nodes {
            let most = options.max_nodes;
            let what = format!("listing {}: more than {most} files", root.display());
            return Err(Failure::new(Kind::Unexpected, what));
        }
    }
    Ok(found)
}

/// Joining an empty path would end in a slash, which follows a link.
fn below(root: &Path, path: &Path) -> PathBuf {
    if path.as_os_str().is_empty() {
        root.to_owned()
    } else {
        root.join(path)
    }
}

fn look(path: &Path, options: &Options) -> Result<Node> {
    let meta = fs::symlink_metadata(path).doing(Kind::Unexpected, || {
        format!("looking at {}", path.display())
    })?;
    let nanoseconds = u32::try_from(meta.mtime_nsec()).unwrap_or_default();
    Ok(Node {
        kind: kind(path, &meta)?,
        mode: meta.mode() & 0o7777,
        uid: meta.uid(),
        gid: meta.gid(),
        modified: options.modified.then_some((meta.mtime(), nanoseconds)),
        xattrs: if options.xattrs {
            xattrs(path)?
        } else {
            BTreeMap::new()
        },
    })
}

fn kind(path: &Path, meta: &Metadata) -> Result<NodeKind> {
    let kind = meta.file_type();
    let special = |what, device| NodeKind::Special { what, device };
    Ok(if kind.is_dir() {
        NodeKind::Directory
    } else if kind.is_file() {
        content(path)?
    } else if kind.is_symlink() {
        let target = fs::read_link(path).doing(Kind::Unexpected, || {
            format!("reading the link {}", path.display())
        })?;
        NodeKind::Symlink { target }
    } else if kind.is_socket() {
        special("a socket", 0)
    } else if kind.is_fifo() {
        special("a named pipe", 0)
    } else if kind.is_block_device() {
        special("a block device", meta.rdev())
    } else {
        special("a character device", meta.rdev())
    })
}

fn content(path: &Path) -> Result<NodeKind> {
    // It may have been replaced by a link or a pipe since it was looked at.
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(i32::try_from(flags.bits()).unwrap_or_default())
        .open(path)
        .doing(Kind::Unexpected, || format!("opening {}", path.display()))?;
    let mut hashing = Hashing::new(file);
    io::copy(&mut hashing, &mut io::sink())
        .doing(Kind::Unexpected, || format!("reading {}", path.display()))?;
    let (_, sha256, size) = hashing.finish();
    Ok(NodeKind::File { size, sha256 })
}

/// The digest of a description, in the form that the module's head lays down.
pub fn hash(tree: &BTreeMap<PathBuf, Node>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (path, node) in tree {
        put(&mut hash, path.as_os_str().as_bytes());
        match &node.kind {
            NodeKind::Directory => hash.update(b"d"),
            NodeKind::File { size, sha256 } => {
                hash.update(b"f");
                hash.update(size.to_le_bytes());
                hash.update(sha256);
            }
            NodeKind::Symlink { target } => {
                hash.update(b"l");
                put(&mut hash, target.as_os_str().as_bytes());
            }
            NodeKind::Special { what, device } => {
                hash.update(b"s");
                put(&mut hash, what.as_bytes());
                hash.update(device.to_le_bytes());
            }
        }
        for number in [node.mode, node.uid, node.gid] {
            hash.update(number.to_le_bytes());
        }
        match node.modified {
            None => hash.update([0]),
            Some((seconds, nanoseconds)) => {
                hash.update([1]);
                hash.update(seconds.to_le_bytes());
                hash.update(nanoseconds.to_le_bytes());
            }
        }
        hash.update((node.xattrs.len() as u64).to_le_bytes());
        for (name, value) in &node.xattrs {
            put(&mut hash, name.as_bytes());
            put(&mut hash, value);
        }
    }
    hash.finalize().into()
}

fn put(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_le_bytes());
    hash.update(bytes);
}

/// Every difference between two descriptions, by path; none means that they are the same.
pub fn differences(a: &BTreeMap<PathBuf, Node>, b: &BTreeMap<PathBuf, Node>) -> Vec<Difference> {
    let paths: BTreeSet<&PathBuf> = a.keys().chain(b.keys()).collect();
    let mut told = Vec::new();
    for path in paths {
        let what = match (a.get(path), b.get(path)) {
            (Some(a), Some(b)) => differing(a, b).join(", "),
            (Some(_), None) => "only in the first".to_owned(),
            (None, _) => "only in the second".to_owned(),
        };
        if !what.is_empty() {
            told.push(Difference {
                path: path.clone(),
                what,
            });
        }
    }
    told
}

fn differing(a: &Node, b: &Node) -> Vec<String> {
    let mut what = Vec::new();
    match (&a.kind, &b.kind) {
        (x, y) if x == y => {}
        (NodeKind::File { .. }, NodeKind::File { .. }) => what.push("different content".to_owned()),
        (NodeKind::Symlink { .. }, NodeKind::Symlink { .. }) => {
            what.push("different target".to_owned());
        }
        _ => what.push("different type".to_owned()),
    }
    if a.mode != b.mode {
        what.push(format!("mode {:04o} and {:04o}", a.mode, b.mode));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        what.push(format!("owner {}:{} and {}:{}", a.uid, a.gid, b.uid, b.gid));
    }
    if a.modified != b.modified {
        what.push("different modification time".to_owned());
    }
    if a.xattrs != b.xattrs {
        what.push("different extended attributes".to_owned());
    }
    what
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn tree() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        fs::write(dir.path().join("a/f"), b"content").unwrap();
        fs::write(dir.path().join("a/b/g"), b"").unwrap();
        symlink("f", dir.path().join("a/l")).unwrap();
        symlink("/nowhere", dir.path().join("dangling")).unwrap();
        dir
    }

    fn of(dir: &Path) -> BTreeMap<PathBuf, Node> {
        describe(dir, &Options::default()).unwrap()
    }

    #[test]
    fn the_same_tree_has_the_same_hash_and_each_change_another() {
        let dir = tree();
        let at = |name: &str| dir.path().join(name);
        let before = of(dir.path());
        assert_eq!(before.len(), 7);
        assert!(before.contains_key(Path::new("")));
        assert_eq!(hash(&before), hash(&of(dir.path())));
        let other = tree();
        assert_eq!(differences(&before, &of(other.path())), []);
        assert_eq!(hash(&before), hash(&of(other.path())));

        let mut seen = BTreeSet::from([hash(&before)]);
        let mut last = before.clone();
        let mut step = |path: &str, what: &str| {
            let now = of(dir.path());
            let told = differences(&last, &now);
            assert_eq!(told.len(), 1, "{told:?}");
            assert_eq!(told[0].path, Path::new(path));
            assert!(told[0].what.contains(what), "{}", told[0]);
            assert!(seen.insert(hash(&now)), "{what}");
            last = now;
        };
        fs::write(at("a/f"), b"tnetnoc").unwrap();
        step("a/f", "different content");
        fs::set_permissions(at("a/b"), fs::Permissions::from_mode(0o4711)).unwrap();
        step("a/b", "mode");
        fs::remove_file(at("a/l")).unwrap();
        step("a/l", "only in the first");
        symlink("g", at("a/l")).unwrap();
        step("a/l", "only in the second");
        fs::remove_file(at("a/l")).unwrap();
        symlink("b/g", at("a/l")).unwrap();
        step("a/l", "different target");
        fs::remove_file(at("a/l")).unwrap();
        fs::write(at("a/l"), b"").unwrap();
        step("a/l", "different type, mode");
        let file = fs::File::open(at("a/f")).unwrap();
        match rustix::fs::fsetxattr(&file, "user.x", b"1", rustix::fs::XattrFlags::empty()) {
            Ok(()) => step("a/f", "different extended attributes"),
            Err(e) => println!("SKIPPED attributes: {e}"),
        }
    }

    #[test]
    fn times_and_parts_are_options() {
        let dir = tree();
        let timed = Options {
            modified: true,
            skip: vec!["a/b".into()],
            ..Options::default()
        };
        let before = describe(dir.path(), &timed).unwrap();
        assert!(!before.contains_key(Path::new("a/b/g")));
        let file = fs::File::options().write(true).open(dir.path().join("a/f"));
        file.unwrap()
            .set_modified(std::time::SystemTime::UNIX_EPOCH)
            .unwrap();
        let after = describe(dir.path(), &timed).unwrap();
        let told = differences(&before, &after);
        assert_eq!(told.len(), 1, "{told:?}");
        assert_eq!(told[0].to_string(), "a/f: different modification time");
        assert_eq!(of(dir.path()), of(dir.path()));
        let few = Options {
            max_nodes: 3,
            ..Options::default()
        };
        assert!(describe(dir.path(), &few).is_err());
    }

    #[test]
    fn one_file_nothing_and_other_kinds() {
        let dir = tree();
        let single = of(&dir.path().join("a/l"));
        assert_eq!(single.len(), 1);
        assert!(matches!(
            single[Path::new("")].kind,
            NodeKind::Symlink { .. }
        ));
        assert_eq!(of(&dir.path().join("none")), BTreeMap::new());
        let pipe = dir.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).unwrap();
        assert!(matches!(
            of(&pipe)[Path::new("")].kind,
            NodeKind::Special {
                what: "a named pipe",
                ..
            }
        ));
    }
}
