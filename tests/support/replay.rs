//! A disk in memory that forgets what was not fsynced.
//!
//! A recording of the failpoints is replayed up to a crash; what a later fsync of the file or of the
//! directory does not cover may or may not have reached the disk. POSIX promises no order among
//! those, so any subset is legal. For each crash point these are tried: all of them, none, each
//! one alone, each one missing, and each unsynced write torn in the middle.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub use crate::recording::{Call, read};

type Inode = usize;

#[derive(Debug, Clone)]
enum Node {
    File(Arc<Vec<u8>>),
    Dir(BTreeMap<String, Inode>),
    Link(PathBuf),
}

/// A change to one inode, and what makes it durable.
#[derive(Debug, Clone)]
enum Change {
    Write {
        file: Inode,
        offset: usize,
        data: Vec<u8>,
    },
    /// Entries of directories set or removed together.
    Entries(Vec<(Inode, String, Option<Inode>)>),
    /// A mode, owner, time or extended attribute.
    Attribute {
        of: Inode,
        name: String,
        value: String,
    },
}

/// The tree of files below one directory.
#[derive(Debug, Clone)]
pub struct Disk {
    nodes: Vec<Node>,
    /// Those that the recording set; what was there before counts for nothing.
    attributes: BTreeMap<Inode, Attributes>,
    base: PathBuf,
}

/// What a crash can leave: the tree as a map from path to content.
pub type Tree = BTreeMap<PathBuf, Entry>;

/// Modes, owners, times and extended attributes of one inode, by name.
pub type Attributes = BTreeMap<String, String>;

/// What a crash can leave, attributes and all; an entry with none that was set is absent.
pub type Dressed = (Tree, BTreeMap<PathBuf, Attributes>);

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Entry {
    Dir,
    File(Arc<Vec<u8>>),
    Link(PathBuf),
}

impl Disk {
    /// The state before the recording, read from the real directory `base`.
    pub fn load(base: &Path) -> Self {
        let mut disk = Self::empty(base);
        disk.load_dir(base, 0, None);
        disk
    }

    /// The same of some directories below the base only, with modes and owners; what bears the
    /// name `skip` is left out.
    pub fn load_dressed(base: &Path, below: &[&str], skip: &str) -> Self {
        let mut disk = Self::empty(base);
        for path in below {
            let (mut real, mut at) = (base.to_owned(), 0);
            for part in Path::new(path).iter().map(|part| part.to_str().unwrap()) {
                real.push(part);
                at = match disk.find(&real) {
                    Some(there) => there,
                    None => {
                        let made = disk.add(Node::Dir(BTreeMap::new()));
                        disk.set(at, part, Some(made));
                        disk.dress(made, &real);
                        made
                    }
                };
            }
            disk.load_dir(&real, at, Some(skip));
        }
        disk
    }

    fn empty(base: &Path) -> Self {
        Self {
            nodes: vec![Node::Dir(BTreeMap::new())],
            attributes: BTreeMap::new(),
            base: base.to_owned(),
        }
    }

    /// Notes the mode and the owner of what is really there.
    fn dress(&mut self, inode: Inode, path: &Path) {
        let meta = std::fs::symlink_metadata(path).unwrap();
        let attributes = self.attributes.entry(inode).or_default();
        if !meta.is_symlink() {
            attributes.insert("mode".to_owned(), format!("{:04o}", meta.mode() & 0o7777));
        }
        let owner = format!("{}:{}", meta.uid(), meta.gid());
        attributes.insert("owner".to_owned(), owner);
    }

    /// With `skip` modes and owners are noted.
    fn load_dir(&mut self, path: &Path, into: Inode, skip: Option<&str>) {
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if skip.is_some_and(|skip| entry.file_name() == *skip) {
                continue;
            }
            let kind = entry.file_type().unwrap();
            let node = if kind.is_dir() {
                Node::Dir(BTreeMap::new())
            } else if kind.is_symlink() {
                Node::Link(std::fs::read_link(entry.path()).unwrap())
            } else {
                Node::File(Arc::new(std::fs::read(entry.path()).unwrap()))
            };
            let inode = self.add(node);
            self.set(into, &entry.file_name().into_string().unwrap(), Some(inode));
            if skip.is_some() {
                self.dress(inode, &entry.path());
            }
            if kind.is_dir() {
                self.load_dir(&entry.path(), inode, skip);
            }
        }
    }

    fn add(&mut self, node: Node) -> Inode {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    fn set(&mut self, dir: Inode, name: &str, to: Option<Inode>) {
        let Node::Dir(entries) = &mut self.nodes[dir] else {
            panic!("not a directory")
        };
        match to {
            Some(inode) => entries.insert(name.to_owned(), inode),
            None => entries.remove(name),
        };
    }

    /// Finds an inode by path, following links on the way; `None` outside the base.
    fn find(&self, path: &Path) -> Option<Inode> {
        let mut at = 0;
        let mut walked = self.base.clone();
        for part in path.strip_prefix(&self.base).ok()?.components() {
            let Node::Dir(entries) = &self.nodes[at] else {
                return None;
            };
            let name = part.as_os_str().to_str()?;
            at = *entries.get(name)?;
            if let Node::Link(target) = &self.nodes[at] {
                let full = clean(&walked.join(target));
                at = self.find(&full)?;
                walked = full;
            } else {
                walked.push(name);
            }
        }
        Some(at)
    }

    fn parent(&self, path: &Path) -> Option<(Inode, String)> {
        Some((
            self.find(path.parent()?)?,
            path.file_name()?.to_str()?.to_owned(),
        ))
    }

    fn entry(&self, path: &Path) -> Option<Inode> {
        let (dir, name) = self.parent(path)?;
        match &self.nodes[dir] {
            Node::Dir(entries) => entries.get(&name).copied(),
            _ => None,
        }
    }

    fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { file, offset, data } => {
                let Node::File(content) = &mut self.nodes[*file] else {
                    panic!("not a file")
                };
                let content = Arc::make_mut(content);
                content.resize(content.len().max(offset + data.len()), 0);
                content[*offset..offset + data.len()].copy_from_slice(data);
            }
            Change::Entries(entries) => {
                for (dir, name, to) in entries {
                    self.set(*dir, name, *to);
                }
            }
            Change::Attribute { of, name, value } => {
                let attributes = self.attributes.entry(*of).or_default();
                attributes.insert(name.clone(), value.clone());
            }
        }
    }

    /// What is reachable from the base.
    /// What a call changes here, and the inodes whose sync makes that durable; nothing for syncs and for
    /// what is outside the base.
    fn change(&mut self, call: &Call, covers: &mut BTreeSet<Inode>) -> Option<Change> {
        match call {
            Call::SyncFile { .. } | Call::SyncDir { .. } => None,
            // Zeros at a file's end are left out: no reader here minds them.
            Call::Resize { .. } => None,
            Call::Write { path, offset, data } => self.find(path).map(|file| {
                covers.insert(file);
                Change::Write {
                    file,
                    offset: *offset,
                    data: hex::decode(data).unwrap(),
                }
            }),
            Call::SetMode { .. }
            | Call::SetOwner { .. }
            | Call::SetModified { .. }
            | Call::SetXattr { .. } => call.attribute().and_then(|(path, name, value)| {
                let of = self.entry(path).or_else(|| self.find(path))?;
                // A link cannot be synced; its directory's sync covers it.
                covers.insert(match self.nodes[of] {
                    Node::Link(_) => self.parent(path)?.0,
                    _ => of,
                });
                Some(Change::Attribute { of, name, value })
            }),
            Call::Link { path, to } => self.entry(to).and_then(|file| {
                let (dir, name) = self.parent(path)?;
                covers.insert(dir);
                Some(Change::Entries(vec![(dir, name, Some(file))]))
            }),
            Call::Mkdir { path } => self.made(path, Node::Dir(BTreeMap::new()), covers),
            Call::Create { path } => self.made(path, Node::File(Arc::default()), covers),
            Call::Symlink { path, to } => self.made(path, Node::Link(to.clone()), covers),
            Call::Unlink { path } | Call::Rmdir { path } => self.parent(path).map(|(dir, name)| {
                covers.insert(dir);
                Change::Entries(vec![(dir, name, None)])
            }),
            Call::Rename { path, to } => self.entry(path).and_then(|inode| {
                let (from_dir, from_name) = self.parent(path)?;
                let (to_dir, to_name) = self.parent(to)?;
                covers.extend([from_dir, to_dir]);
                Some(Change::Entries(vec![
                    (from_dir, from_name, None),
                    (to_dir, to_name, Some(inode)),
                ]))
            }),
        }
    }

    fn made(&mut self, path: &Path, node: Node, covers: &mut BTreeSet<Inode>) -> Option<Change> {
        let (dir, name) = self.parent(path)?;
        covers.insert(dir);
        let inode = self.add(node);
        Some(Change::Entries(vec![(dir, name, Some(inode))]))
    }

    fn tree(&self) -> Dressed {
        let mut tree = Tree::new();
        let mut dressed = BTreeMap::new();
        let mut dirs = vec![(PathBuf::new(), 0)];
        while let Some((path, inode)) = dirs.pop() {
            let Node::Dir(entries) = &self.nodes[inode] else {
                continue;
            };
            for (name, &child) in entries {
                let path = path.join(name);
                if let Some(attributes) = self.attributes.get(&child) {
                    dressed.insert(path.clone(), attributes.clone());
                }
                match &self.nodes[child] {
                    Node::Dir(_) => {
                        tree.insert(path.clone(), Entry::Dir);
                        dirs.push((path, child));
                    }
                    Node::File(content) => drop(tree.insert(path, Entry::File(content.clone()))),
                    Node::Link(target) => drop(tree.insert(path, Entry::Link(target.clone()))),
                }
            }
        }
        (tree, dressed)
    }
}

pub fn clean(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => drop(out.pop()),
            std::path::Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

/// A recording laid out as changes on inodes, each with the calls at which it became durable.
pub struct Replay {
    start: Disk,
    /// One a call; `None` for syncs and for what is outside the base.
    changes: Vec<Option<Change>>,
    /// For each call: the inodes whose sync makes it durable.
    covers: Vec<BTreeSet<Inode>>,
    /// For each call that syncs: the inode.
    syncs: Vec<Option<Inode>>,
    /// For each inode: the calls that sync it, in order.
    synced: BTreeMap<Inode, Vec<usize>>,
}

impl Replay {
    pub fn new(start: Disk, calls: &[Call]) -> Self {
        let mut now = start.clone();
        let mut replay = Self {
            start,
            changes: vec![],
            covers: vec![],
            syncs: vec![],
            synced: BTreeMap::new(),
        };
        for call in calls {
            let sync = match call {
                Call::SyncFile { path } | Call::SyncDir { path } => now.find(path),
                _ => None,
            };
            let mut covers = BTreeSet::new();
            let known = now.nodes.len();
            let change = now.change(call, &mut covers);
            // Inodes are numbered alike in the disk that replays begin from.
            replay
                .start
                .nodes
                .extend(now.nodes.iter().skip(known).cloned());
            if let Some(change) = &change {
                now.apply(change);
            }
            if let Some(inode) = sync {
                replay
                    .synced
                    .entry(inode)
                    .or_default()
                    .push(replay.syncs.len());
            }
            replay.changes.push(change);
            replay.covers.push(covers);
            replay.syncs.push(sync);
        }
        replay
    }

    /// Every tree that a crash right after the first `count` calls can leave, with call `dropped`
    /// taken out where it is a sync.
    pub fn after(&self, count: usize, dropped: Option<usize>) -> BTreeSet<Tree> {
        let states = self.dressed_after(count, dropped).into_iter();
        states.map(|(tree, _)| tree).collect()
    }

    /// The same, with the attributes.
    pub fn dressed_after(&self, count: usize, dropped: Option<usize>) -> BTreeSet<Dressed> {
        let losses = self.losses(count, dropped);
        losses
            .iter()
            .map(|loss| self.dressed(count, loss))
            .collect()
    }

    /// The changes among the first `count` that no sync covers, with call `dropped` taken out
    /// where it is a sync.
    pub fn pending(&self, count: usize, dropped: Option<usize>) -> BTreeSet<usize> {
        (0..count)
            .filter(|&i| self.changes[i].is_some() && !self.durable(i, count, dropped))
            .collect()
    }

    /// The call that next syncs what this one syncs, or the end; `None` if it syncs nothing here.
    pub fn next_sync(&self, call: usize) -> Option<usize> {
        let inode = self.syncs[call]?;
        let next = (call + 1..self.syncs.len()).find(|&later| self.syncs[later] == Some(inode));
        Some(next.unwrap_or(self.syncs.len()))
    }

    /// Whether a call changes what is replayed.
    pub fn changes(&self, call: usize) -> bool {
        self.changes[call].is_some()
    }

    /// What a crash right after the first `count` calls is tried with.
    pub fn losses(&self, count: usize, dropped: Option<usize>) -> Vec<Loss> {
        let pending = self.pending(count, dropped);
        let mut losses = vec![Loss::default(), Loss::of(pending.clone())];
        for &one in &pending {
            let mut others = pending.clone();
            others.remove(&one);
            losses.push(Loss::of(others));
            losses.push(Loss::of(BTreeSet::from([one])));
            if let Some(Change::Write { data, .. }) = &self.changes[one] {
                losses.push(Loss {
                    torn: Some((one, data.len() / 2)),
                    ..Loss::default()
                });
            }
        }
        losses
    }

    fn durable(&self, call: usize, count: usize, dropped: Option<usize>) -> bool {
        self.covers[call].iter().all(|inode| {
            let all = self.synced.get(inode).map_or(&[][..], Vec::as_slice);
            let later = &all[all.partition_point(|&sync| sync <= call)..];
            let in_time = later.iter().take_while(|&&sync| sync < count);
            in_time.into_iter().any(|&sync| Some(sync) != dropped)
        })
    }

    /// What is there after the first `count` calls and a loss.
    pub fn dressed(&self, count: usize, loss: &Loss) -> Dressed {
        let mut disk = self.start.clone();
        for call in 0..count {
            let Some(change) = &self.changes[call] else {
                continue;
            };
            if loss.lost.contains(&call) {
                continue;
            }
            match (change, loss.torn) {
                (Change::Write { file, offset, data }, Some((torn, kept))) if torn == call => {
                    disk.apply(&Change::Write {
                        file: *file,
                        offset: *offset,
                        data: data[..kept].to_vec(),
                    });
                }
                (change, _) => disk.apply(change),
            }
        }
        disk.tree()
    }
}

/// What did not reach the disk.
#[derive(Debug, Clone, Default)]
pub struct Loss {
    /// These calls.
    pub lost: BTreeSet<usize>,
    /// What is behind so many bytes of this write.
    pub torn: Option<(usize, usize)>,
}

impl Loss {
    pub fn of(lost: BTreeSet<usize>) -> Self {
        Self { lost, torn: None }
    }
}

/// Lays a tree out in a real, empty directory.
pub fn lay_out(tree: &Tree, into: &Path) {
    for (path, entry) in tree {
        let path = into.join(path);
        match entry {
            Entry::Dir => std::fs::create_dir(&path).unwrap(),
            Entry::File(content) => std::fs::write(&path, content.as_slice()).unwrap(),
            Entry::Link(target) => std::os::unix::fs::symlink(target, &path).unwrap(),
        }
    }
}

/// The same with modes and owners; what has none noted is as this program makes it.
pub fn lay_out_dressed((tree, dressed): &Dressed, into: &Path) {
    lay_out(tree, into);
    // Those above last: a directory's mode may be one that nothing can be made in.
    for (path, entry) in tree.iter().rev() {
        let real = into.join(path);
        let noted = |name: &str| dressed.get(path).and_then(|all| all.get(name));
        let others: Vec<&String> = dressed.get(path).map_or_else(Vec::new, |all| {
            let known = ["mode", "owner", "modified"];
            all.keys()
                .filter(|name| !known.contains(&name.as_str()))
                .collect()
        });
        assert!(
            others.is_empty(),
            "{}: {others:?} is not laid out",
            path.display()
        );
        if let Some((uid, gid)) = noted("owner").and_then(|owner| owner.split_once(':')) {
            let (uid, gid) = (uid.parse().unwrap(), gid.parse().unwrap());
            std::os::unix::fs::lchown(&real, Some(uid), Some(gid)).unwrap();
        }
        let plain = match entry {
            Entry::Dir => "0700",
            Entry::File(_) => "0600",
            Entry::Link(_) => continue,
        };
        let mode = noted("mode").map_or(plain, String::as_str);
        let mode = u32::from_str_radix(mode, 8).unwrap();
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(mode)).unwrap();
    }
}
