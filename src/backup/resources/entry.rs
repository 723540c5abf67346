//! One entry as an archive's headers describe it.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use tar::{EntryType, Header};

use super::names::plain_name;
use super::pax::Records;
use super::stream::wide;
use super::{Entry, EntryKind};

/// As much of a name as a message shows.
const SHOWN: usize = 300;

/// What is wrong with one entry; the next can still be read.
#[derive(Debug)]
pub(super) struct Wrong {
    pub(super) expected: String,
    pub(super) found: String,
}

impl Wrong {
    pub(super) fn new(expected: impl Into<String>, found: impl Into<String>) -> Self {
        Self {
            expected: expected.into(),
            found: found.into(),
        }
    }
}

/// What extension headers said of the entry to come.
#[derive(Default)]
pub(super) struct Pending {
    /// A GNU long name.
    pub(super) name: Option<Vec<u8>>,
    /// A GNU long link target.
    pub(super) link: Option<Vec<u8>>,
    /// PAX records.
    pub(super) records: Option<Records>,
}

impl Pending {
    pub(super) fn is_empty(&self) -> bool {
        self.name.is_none() && self.link.is_none() && self.records.is_none()
    }
}

/// An entry's header with the extension headers before it laid over it.
pub(super) struct RawEntry<'a> {
    header: &'a Header,
    size: u64,
    name: Vec<u8>,
    link: Option<Vec<u8>>,
    pub(super) records: Records,
}

impl<'a> RawEntry<'a> {
    pub(super) fn new(header: &'a Header, pending: Pending, size: u64) -> Self {
        let mut records = pending.records.unwrap_or_default();
        let name = records.path.take().or(pending.name);
        let link = records.link.take().or(pending.link);
        Self {
            header,
            size,
            name: name.unwrap_or_else(|| header.path_bytes().into_owned()),
            link: link.or_else(|| Some(header.link_name_bytes()?.into_owned())),
            records,
        }
    }

    /// About how many bytes of memory the entry will keep.
    pub(super) fn kept(&self) -> u64 {
        let attributes = self
            .records
            .xattrs
            .iter()
            .map(|(name, value)| name.len().saturating_add(value.len()).saturating_add(128))
            .fold(0, usize::saturating_add);
        // Each parent is kept under its own name, too.
        let parents = self.name.iter().filter(|b| **b == b'/').count();
        let names = self
            .name
            .len()
            .saturating_mul(parents.min(64).saturating_add(4));
        let links = self.link.as_ref().map_or(0, Vec::len).saturating_mul(2);
        wide(names.saturating_add(links).saturating_add(attributes))
    }

    /// The name for a message: the beginning of it, with nothing a terminal would act upon.
    pub(super) fn shown(&self) -> String {
        let head = self.name.get(..SHOWN).unwrap_or(&self.name);
        String::from_utf8_lossy(head).escape_debug().to_string()
    }

    /// The entry, a file's hash still being all zeros.
    pub(super) fn entry(&self) -> Result<Entry, Wrong> {
        let kind = self.kind()?;
        let name =
            plain_name(&self.name).map_err(|found| Wrong::new("a plain relative name", found))?;
        if self.size > 0 && !matches!(kind, EntryKind::File { .. }) {
            let found = format!("{} bytes", self.size);
            return Err(Wrong::new("no content but in a regular file", found));
        }
        self.owned(name, kind)
            .map_err(|found| Wrong::new("mode, owner and time in range", found))
    }

    fn kind(&self) -> Result<EntryKind, Wrong> {
        let wrong = |found: &str| Wrong::new("a directory, a regular file or a link", found);
        match self.header.entry_type() {
            // Before POSIX a directory was a file whose name ends in a slash.
            EntryType::Regular | EntryType::Continuous if self.name.ends_with(b"/") => {
                Err(wrong("a regular file whose name ends in a slash"))
            }
            EntryType::Regular | EntryType::Continuous => Ok(EntryKind::File {
                size: self.size,
                sha256: [0; 32],
            }),
            EntryType::Directory => Ok(EntryKind::Directory),
            EntryType::Symlink => {
                let target = PathBuf::from(OsStr::from_bytes(self.target()?));
                Ok(EntryKind::Symlink { target })
            }
            EntryType::Link => {
                let target = plain_name(self.target()?)
                    .map_err(|found| Wrong::new("a hard link to an entry before it", found))?;
                Ok(EntryKind::HardLink { target })
            }
            EntryType::Char => Err(wrong("a character device")),
            EntryType::Block => Err(wrong("a block device")),
            EntryType::Fifo => Err(wrong("a named pipe")),
            other => Err(wrong(&format!("type {:?}", char::from(other.as_byte())))),
        }
    }

    fn target(&self) -> Result<&[u8], Wrong> {
        self.link
            .as_deref()
            .filter(|link| !link.is_empty() && !link.contains(&0))
            .ok_or_else(|| Wrong::new("a link with a target", "none"))
    }

    fn owned(&self, name: PathBuf, kind: EntryKind) -> Result<Entry, String> {
        let id = |told: io::Result<u64>| -> Result<u32, String> {
            let told = told.map_err(|e| e.to_string())?;
            u32::try_from(told).map_err(|_| format!("owner {told}"))
        };
        // The system's calls take the largest number for "none".
        let real = |id: u32| {
            let real = (id != u32::MAX).then_some(id);
            real.ok_or_else(|| format!("owner {id}"))
        };
        let (header, records) = (self.header, &self.records);
        let modified = match records.modified {
            Some(time) => time,
            // Before 1970 GNU tar writes a negative number, of which this takes the low 64 bits.
            None => header.mtime().map_err(|e| e.to_string())?.cast_signed(),
        };
        Ok(Entry {
            name,
            kind,
            mode: header.mode().map_err(|e| e.to_string())? & 0o7777,
            uid: records
                .uid
                .map_or_else(|| id(header.uid()), Ok)
                .and_then(real)?,
            gid: records
                .gid
                .map_or_else(|| id(header.gid()), Ok)
                .and_then(real)?,
            modified: modified.max(0),
            xattrs: records.xattrs.clone(),
        })
    }
}
