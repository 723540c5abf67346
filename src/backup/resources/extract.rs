//! Unpacks an archive that is not trusted.
//!
//! The archive is read twice. The first time it is only checked, by [`check_archive`]; any finding
//! refuses the whole archive before anything is written. The second time it is unpacked, and each
//! entry and every file's digest must be what the first reading saw.
//!
//! Nothing is written through a path: each entry goes into an open directory, by its own plain
//! name, which is never followed ([`Dir`]).

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::io::Errno;

use super::check::{Rules, Visitor, check_archive, read_archive};
use super::{ArchiveContents, Entry, EntryKind};
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::finding::Severity;
use crate::sys::dir::{Attributes, Dir};
use crate::sys::fs::OutFile;
use crate::sys::xattr::SELINUX;

/// The mode of a directory that an archive implies and does not hold.
const IMPLIED_MODE: u32 = 0o755;

/// What was unpacked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extracted {
    /// Entries of the archive that now exist.
    pub entries: usize,
    /// Bytes of content in their files.
    pub bytes: u64,
    /// Names whose owner or SELinux label could not be restored by this user or on this file
    /// system. All other attributes were, except set-id bits of files with the wrong owner.
    pub skipped: Vec<PathBuf>,
}

/// Unpacks an archive, or only what is below the names in `only`, into an empty directory that
/// nobody else writes to.
///
/// Contents, modes with set-id and sticky bits, numeric owners, modification times, symbolic and
/// hard links and extended attributes are the archive's. A directory that it implies but lacks is
/// 0755 and root's. A hard link whose file is not among `only` becomes a file. Everything is
/// durable when this returns, but for `into`'s own entry in its parent.
///
/// An archive with anything wrong in it (see [`check_archive`]) is a [`BadBackup`](Kind::BadBackup)
/// with nothing written; so is a name in `only` with nothing at or below it. Any other failure
/// leaves part of the tree in `into` and nothing anywhere else. The caller checks that there is
/// room for at most [`Rules::max_unpacked`] bytes.
pub fn extract_archive(
    archive: &Path,
    into: &Path,
    only: &[PathBuf],
    rules: &Rules,
) -> Result<Extracted> {
    extract(archive, into, only, rules, Durability::Synced, || {})
}

/// Unpacks all of an archive as [`extract_archive`] does, to look at and throw away: nothing is
/// synced, so that a crash may leave any part of it.
pub fn extract_to_look(archive: &Path, into: &Path, rules: &Rules) -> Result<Extracted> {
    extract(archive, into, &[], rules, Durability::None, || {})
}

/// Whether what is unpacked is to outlive a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// Every file and directory is synced.
    Synced,
    /// Nothing is.
    None,
}

/// The same, with something done between the two readings.
pub(super) fn extract(
    archive: &Path,
    into: &Path,
    only: &[PathBuf],
    rules: &Rules,
    durability: Durability,
    between: impl FnOnce(),
) -> Result<Extracted> {
    let target = open_empty(into)?;
    let mut file = open_archive(archive)?;
    let reading = |failure: Failure| failure.doing(format!("unpacking {}", archive.display()));
    let first = check_archive(&file, rules).map_err(reading)?;
    let wrong: Vec<String> = first
        .findings
        .iter()
        .filter(|finding| finding.severity == Severity::Error)
        .map(ToString::to_string)
        .collect();
    if !wrong.is_empty() {
        return Err(bad(archive, wrong.join("; ")));
    }
    let plan = Plan::new(&first.contents, only).map_err(|missing| {
        let what = format!("expected {}, found nothing of that name", missing.display());
        bad(archive, what)
    })?;
    between();
    file.rewind()
        .doing(Kind::Store, || format!("reading {}", archive.display()))?;
    let mut unpacker = Unpacker {
        archive,
        target,
        expected: &first.contents,
        next: 0,
        plan: &plan,
        durability,
        near: None,
        writing: None,
        done: Extracted::default(),
    };
    let second = read_archive(&file, rules, &mut unpacker).map_err(reading)?;
    if second != first {
        return Err(changed(archive));
    }
    unpacker.finish()
}

fn bad(archive: &Path, what: String) -> Failure {
    let what = format!("unpacking {}: {what}", archive.display());
    Failure::new(Kind::BadBackup, what).with(Fact::Path(archive.to_path_buf()))
}

fn changed(archive: &Path) -> Failure {
    bad(
        archive,
        "it has changed since it was checked a moment ago".to_owned(),
    )
}

fn open_empty(into: &Path) -> Result<Dir> {
    let doing = || format!("opening {}", into.display());
    let target = Dir::open(into).doing(Kind::Store, doing)?;
    if target.is_empty().doing(Kind::Store, doing)? {
        return Ok(target);
    }
    let what = format!("unpacking into {}: it is not empty", into.display());
    Err(Failure::refused_for_good("target-not-empty", what).with(Fact::Path(into.to_path_buf())))
}

fn open_archive(archive: &Path) -> Result<File> {
    // Opening a named pipe would wait for a writer.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).unwrap_or_default();
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(archive)
        .and_then(|file| {
            if file.metadata()?.is_file() {
                Ok(file)
            } else {
                Err(io::Error::other("not a regular file"))
            }
        });
    opened.doing(Kind::Store, || format!("opening {}", archive.display()))
}

/// What of an archive will be made, and where.
struct Plan<'a> {
    /// Directories, with their entries where the archive has them.
    dirs: BTreeMap<&'a Path, Option<&'a Entry>>,
    /// Where each regular file's content goes: its own name, or that of the first wanted hard
    /// link to it where the file itself is not wanted.
    homes: HashMap<&'a Path, &'a Path>,
    only: &'a [PathBuf],
}

impl<'a> Plan<'a> {
    /// The error is a name in `only` with nothing at or below it.
    fn new(contents: &'a ArchiveContents, only: &'a [PathBuf]) -> Result<Self, &'a Path> {
        let mut plan = Self {
            dirs: BTreeMap::new(),
            homes: HashMap::new(),
            only,
        };
        for name in only {
            if !contents.entries.iter().any(|e| e.name.starts_with(name)) {
                return Err(name);
            }
        }
        for entry in contents.entries.iter().filter(|e| wants(only, &e.name)) {
            let name = entry.name.as_path();
            match &entry.kind {
                EntryKind::Directory => {
                    plan.dirs.insert(name, Some(entry));
                }
                EntryKind::File { .. } => {
                    plan.homes.insert(name, name);
                }
                EntryKind::HardLink { target } => {
                    plan.homes.entry(target).or_insert(name);
                }
                EntryKind::Symlink { .. } => {}
            }
            for parent in parents(name) {
                plan.dirs.entry(parent).or_default();
            }
        }
        // Parents that were not asked for are the archive's, too, where it has them.
        for entry in &contents.entries {
            if entry.kind == EntryKind::Directory
                && let Some(dir) = plan.dirs.get_mut(entry.name.as_path())
            {
                *dir = Some(entry);
            }
        }
        Ok(plan)
    }

    fn wants(&self, name: &Path) -> bool {
        wants(self.only, name)
    }
}

fn wants(only: &[PathBuf], name: &Path) -> bool {
    only.is_empty() || only.iter().any(|top| name.starts_with(top))
}

/// The directories above a name, the nearest first.
fn parents(name: &Path) -> impl Iterator<Item = &Path> {
    let above = name.ancestors().skip(1);
    above.filter(|parent| !parent.as_os_str().is_empty())
}

/// Makes what the second reading passes by.
struct Unpacker<'a> {
    archive: &'a Path,
    target: Dir,
    expected: &'a ArchiveContents,
    /// The place among `expected` of the entry that comes next.
    next: usize,
    plan: &'a Plan<'a>,
    durability: Durability,
    /// The directory that was last written to, and its name in the archive.
    near: Option<(PathBuf, Dir)>,
    /// The file whose content comes.
    writing: Option<OutFile>,
    done: Extracted,
}

impl Visitor for Unpacker<'_> {
    fn begin(&mut self, entry: &Entry) -> Result<()> {
        let expected = self.expected.entries.get(self.next);
        if !expected.is_some_and(|expected| same_but_content(expected, entry)) {
            return Err(changed(self.archive));
        }
        if let EntryKind::File { .. } = entry.kind {
            let Some(home) = self.plan.homes.get(entry.name.as_path()) else {
                return Ok(());
            };
            let (dir, name) = self.place(home)?;
            let file = dir.create(&name).doing(Kind::Store, || creating(home))?;
            self.writing = Some(file);
        } else if self.plan.wants(&entry.name) {
            self.make(entry)?;
        }
        Ok(())
    }

    fn content(&mut self, part: &[u8]) -> Result<()> {
        let Some(file) = &mut self.writing else {
            return Ok(());
        };
        file.write_all(part)
            .doing(Kind::Store, || format!("writing {}", file.path().display()))
    }

    fn end(&mut self, entry: &Entry) -> Result<()> {
        if self.expected.entries.get(self.next) != Some(entry) {
            return Err(changed(self.archive));
        }
        self.next = self.next.saturating_add(1);
        if self.plan.wants(&entry.name) {
            self.done.entries = self.done.entries.saturating_add(1);
        }
        let Some(mut file) = self.writing.take() else {
            return Ok(());
        };
        self.done.bytes = self.done.bytes.saturating_add(file.len());
        let home = self.plan.homes.get(entry.name.as_path());
        let name = home.copied().unwrap_or(&entry.name);
        dress(name, entry, &file.attributes(), &mut self.done.skipped)?;
        if self.durability == Durability::None {
            return Ok(());
        }
        file.sync()
            .doing(Kind::Store, || format!("syncing {}", file.path().display()))
    }
}

/// Whether a file's header is that of `expected`; its digest is not known yet.
fn same_but_content(expected: &Entry, begun: &Entry) -> bool {
    let mut expected = expected.clone();
    if let EntryKind::File { sha256, .. } = &mut expected.kind {
        *sha256 = [0; 32];
    }
    expected == *begun
}

fn creating(name: &Path) -> String {
    format!("creating {}", name.display())
}

impl Unpacker<'_> {
    /// Makes an entry that has no content of its own.
    fn make(&mut self, entry: &Entry) -> Result<()> {
        let path = entry.name.as_path();
        let making = || creating(path);
        match &entry.kind {
            EntryKind::Directory => {
                self.enter(path)?;
            }
            EntryKind::Symlink { target } => {
                let (dir, name) = self.place(path)?;
                dir.symlink(target, &name).doing(Kind::Store, making)?;
                let dir = dir.again().doing(Kind::Store, making)?;
                let link = dir.link_attributes(&name).doing(Kind::Store, making)?;
                dress(path, entry, &link, &mut self.done.skipped)?;
            }
            EntryKind::HardLink { target } => {
                let Some(home) = self.plan.homes.get(target.as_path()).copied() else {
                    return Err(changed(self.archive));
                };
                // If not, its content was written under this very name.
                if home != path {
                    let from = self.enter(home.parent().unwrap_or(Path::new("")))?;
                    let file = home.file_name().unwrap_or_default().to_owned();
                    let from = from.again().doing(Kind::Store, making)?;
                    let (dir, name) = self.place(path)?;
                    from.hard_link(&file, dir, &name)
                        .doing(Kind::Store, making)?;
                }
            }
            // Made where its content is available.
            EntryKind::File { .. } => {}
        }
        Ok(())
    }

    /// The directory that holds a name, made if need be, and the name in it.
    fn place(&mut self, path: &Path) -> Result<(&Dir, OsString)> {
        let name = path.file_name().unwrap_or_default().to_owned();
        let dir = self.enter(path.parent().unwrap_or(Path::new("")))?;
        Ok((dir, name))
    }

    /// Opens a directory below the target, making what is missing of it.
    fn enter(&mut self, path: &Path) -> Result<&Dir> {
        if path.as_os_str().is_empty() {
            return Ok(&self.target);
        }
        if self.near.as_ref().is_none_or(|(near, _)| near != path) {
            let dir = open_below(&self.target, path).doing(Kind::Store, || creating(path))?;
            self.near = Some((path.to_path_buf(), dir));
        }
        match &self.near {
            Some((_, dir)) => Ok(dir),
            None => Ok(&self.target),
        }
    }

    /// After all entries: the directories' own attributes, the deepest first, so that each could
    /// be filled until now, and each is synced when all in it is as it will stay.
    fn finish(mut self) -> Result<Extracted> {
        self.near = None;
        let mut dirs: Vec<_> = self.plan.dirs.iter().collect();
        dirs.sort_by_key(|(path, _)| std::cmp::Reverse(path.components().count()));
        for (path, entry) in dirs {
            let dir = open_below(&self.target, path).doing(Kind::Store, || {
                format!("opening {}", self.target.path().join(path).display())
            })?;
            match entry {
                Some(entry) => dress(path, entry, &dir.attributes(), &mut self.done.skipped)?,
                None => dress_implied(path, &dir.attributes(), &mut self.done.skipped)?,
            }
            self.sync(&dir)?;
        }
        self.sync(&self.target)?;
        self.done.skipped.sort();
        self.done.skipped.dedup();
        Ok(self.done)
    }

    fn sync(&self, dir: &Dir) -> Result<()> {
        if self.durability == Durability::None {
            return Ok(());
        }
        dir.sync().doing(Kind::Store, || {
            format!("syncing directory {}", dir.path().display())
        })
    }
}

fn open_below(target: &Dir, path: &Path) -> io::Result<Dir> {
    let mut at: Option<Dir> = None;
    for part in path {
        let above = at.as_ref().unwrap_or(target);
        at = Some(enter_or_make(above, part)?);
    }
    match at {
        Some(dir) => Ok(dir),
        None => target.again(),
    }
}

fn enter_or_make(above: &Dir, name: &OsStr) -> io::Result<Dir> {
    match above.enter(name) {
        Err(cause) if cause.kind() == io::ErrorKind::NotFound => {
            above.mkdir(name)?;
            above.enter(name)
        }
        entered => entered,
    }
}

/// Puts an entry's attributes back, in an order in which none undoes another.
fn dress(
    name: &Path,
    entry: &Entry,
    attributes: &Attributes<'_>,
    skipped: &mut Vec<PathBuf>,
) -> Result<()> {
    let putting = |what: &str| {
        let text = format!("restoring the {what} of {}", name.display());
        move || text
    };
    // The owner first: a change of it clears set-id bits and capabilities.
    let owned = own(name, (entry.uid, entry.gid), attributes, skipped)?;
    for (attribute, value) in &entry.xattrs {
        match attributes.set_xattr(attribute, value) {
            Err(cause) if attribute == SELINUX && is_unsupported(&cause) => {
                skipped.push(name.to_path_buf());
            }
            set => set.doing(Kind::Store, putting(&format!("attribute {attribute}")))?,
        }
    }
    // To another owner such a bit would give rights that nobody granted.
    let mode = if owned {
        entry.mode
    } else {
        entry.mode & 0o1777
    };
    attributes
        .set_mode(mode)
        .doing(Kind::Store, putting("mode"))?;
    attributes
        .set_modified(entry.modified)
        .doing(Kind::Store, putting("modification time"))
}

fn dress_implied(
    name: &Path,
    attributes: &Attributes<'_>,
    skipped: &mut Vec<PathBuf>,
) -> Result<()> {
    own(name, (0, 0), attributes, skipped)?;
    attributes.set_mode(IMPLIED_MODE).doing(Kind::Store, || {
        format!("setting the mode of {}", name.display())
    })
}

/// Sets the owner; says whether that was possible. Only root's failure to is an error.
fn own(
    name: &Path,
    (uid, gid): (u32, u32),
    attributes: &Attributes<'_>,
    skipped: &mut Vec<PathBuf>,
) -> Result<bool> {
    match attributes.set_owner(uid, gid) {
        Err(cause)
            if cause.kind() == io::ErrorKind::PermissionDenied
                && !rustix::process::geteuid().is_root() =>
        {
            skipped.push(name.to_path_buf());
            Ok(false)
        }
        set => {
            set.doing(Kind::Store, || {
                format!("restoring the owner of {}", name.display())
            })?;
            Ok(true)
        }
    }
}

/// Whether this system, file system or user cannot have such an attribute at all. A label that
/// the loaded policy does not know is `EINVAL`.
fn is_unsupported(cause: &io::Error) -> bool {
    let told = cause.raw_os_error().map(Errno::from_raw_os_error);
    matches!(
        told,
        Some(Errno::NOTSUP | Errno::PERM | Errno::ACCESS | Errno::INVAL)
    )
}
