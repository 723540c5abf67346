//! The names of sets and of their files.
//!
//! The file names are those of OpenShift's `cluster-backup.sh` (cluster-etcd-operator,
//! `bindata/etcd/cluster-backup.sh`): `snapshot_<stamp>.db` and
//! `static_kuberesources_<stamp>.tar.gz`, the stamp being `date "+%F_%H%M%S"`, followed by
//! `__POSSIBLY_DIRTY__` where checks were skipped.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// What `cluster-backup.sh` appends to a stamp when its checks were skipped.
pub const DIRTY_SUFFIX: &str = "__POSSIBLY_DIRTY__";
/// The Manifest's file name.
pub const MANIFEST: &str = "backup.json";
/// The signature of the Manifest ([`super::signature`]); may be absent.
pub const SIGNATURE: &str = "backup.json.sig";
/// The script-readable summary's file name.
pub const ENVIRONMENT: &str = "backup.env";
/// The checksum file's name.
pub const SUMS: &str = "SHA256SUMS";
/// What the last verification found; written after the set, may be absent.
pub const VERIFIED: &str = "verified.json";
/// What the last rehearsal found: whether a real etcd served the set; written after it, may be absent.
pub const REHEARSED: &str = "rehearsed.json";
/// How much of the snapshot shares its blocks with the set before; written after the set.
pub const SHARED: &str = "shared.json";
/// Which copies were asked for and which were made; written with the set and after it, may be absent.
pub const COPIES: &str = "copies.json";
/// Exists if an operator wants to keep the backup; its content is a note for people.
pub const PINNED: &str = "pinned";

/// A temporary file, to test whether files can share blocks.
pub const PROBE: &str = "clone";

const SNAPSHOT: (&str, &str) = ("snapshot_", ".db");
const RESOURCES: (&str, &str) = ("static_kuberesources_", ".tar.gz");
const CERTIFICATES: (&str, &str) = ("static_certs_", ".tar.gz");
const STAMP_FORMAT: &str = "%Y-%m-%d_%H%M%S";

/// The number of a set in its store: `backup-12`. It only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BackupId(pub u64);

impl BackupId {
    /// Reads `backup-N`; other spellings of a number (`backup-012`, `backup-+1`) are not ids.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("backup-")?;
        let number = digits.parse().ok()?;
        (Self(number).to_string() == text).then_some(Self(number))
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "backup-{}", self.0)
    }
}

/// The stamp shared by a set's files: a UTC time to the second, `2026-11-21_061530`, and whether
/// OpenShift's dirty suffix follows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp {
    text: String,
    dirty: bool,
}

/// Which file of a set a name belongs to.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum FileKind {
    /// etcd's snapshot with its trailer.
    Snapshot,
    /// The static-pod resources in use.
    Resources,
    /// The unrevisioned certificate directories.
    Certificates,
    /// `backup.env`.
    Environment,
    /// `SHA256SUMS`.
    Sums,
}

impl FileKind {
    /// Whether a file of this kind bears such a name.
    pub fn is_named(self, name: &str) -> bool {
        match self {
            Self::Environment => name == ENVIRONMENT,
            Self::Sums => name == SUMS,
            _ => recognise(name).is_some_and(|(kind, _)| kind == self),
        }
    }

    /// What names of this kind look like, for a message.
    pub fn pattern(self) -> String {
        let (prefix, ending) = match self {
            Self::Environment => return ENVIRONMENT.to_owned(),
            Self::Sums => return SUMS.to_owned(),
            Self::Snapshot => SNAPSHOT,
            Self::Resources => RESOURCES,
            Self::Certificates => CERTIFICATES,
        };
        format!("{prefix}<stamp>{ending}")
    }
}

impl Stamp {
    /// The stamp of a moment.
    pub fn new(at: Timestamp, dirty: bool) -> Self {
        Self {
            text: at
                .to_zoned(TimeZone::UTC)
                .strftime(STAMP_FORMAT)
                .to_string(),
            dirty,
        }
    }

    /// Reads the part between a file name's prefix and its ending.
    pub fn parse(text: &str) -> Option<Self> {
        let (text, dirty) = match text.strip_suffix(DIRTY_SUFFIX) {
            Some(rest) => (rest, true),
            None => (text, false),
        };
        let time = DateTime::strptime(STAMP_FORMAT, text).ok()?;
        // Other spellings of the same moment are no stamps.
        (time.strftime(STAMP_FORMAT).to_string() == text).then(|| Self {
            text: text.to_owned(),
            dirty,
        })
    }

    /// Whether the dirty suffix follows.
    pub fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// The moment, read as UTC. `cluster-backup.sh` writes the host's local time without saying
    /// which zone that is, so for its files this is off by the host's offset.
    pub fn as_utc(&self) -> Option<Timestamp> {
        let time = DateTime::strptime(STAMP_FORMAT, &self.text).ok()?;
        time.to_zoned(TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp())
    }

    /// `snapshot_<stamp>.db`
    pub fn snapshot(&self) -> String {
        self.name(SNAPSHOT)
    }

    /// `static_kuberesources_<stamp>.tar.gz`
    pub fn resources(&self) -> String {
        self.name(RESOURCES)
    }

    /// `static_certs_<stamp>.tar.gz`
    pub fn certificates(&self) -> String {
        self.name(CERTIFICATES)
    }

    fn name(&self, (prefix, ending): (&str, &str)) -> String {
        format!("{prefix}{self}{ending}")
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}{}",
            self.text,
            if self.dirty { DIRTY_SUFFIX } else { "" }
        )
    }
}

/// Recognises a file of a set by its name.
pub fn recognise(name: &str) -> Option<(FileKind, Stamp)> {
    [
        (FileKind::Snapshot, SNAPSHOT),
        (FileKind::Resources, RESOURCES),
        (FileKind::Certificates, CERTIFICATES),
    ]
    .into_iter()
    .find_map(|(kind, (prefix, ending))| {
        let stamp = name.strip_prefix(prefix)?.strip_suffix(ending)?;
        Stamp::parse(stamp).map(|stamp| (kind, stamp))
    })
}

/// Whether etcd-dr makes files of this name in a backup's directory: the backup's own files, the
/// records that are added later, and either while it is being replaced (`.NAME.new`).
pub fn is_of_a_set(name: &str) -> bool {
    let name = name
        .strip_prefix('.')
        .and_then(|rest| rest.strip_suffix(".new"))
        .unwrap_or(name);
    let fixed = [
        MANIFEST,
        SIGNATURE,
        ENVIRONMENT,
        SUMS,
        VERIFIED,
        REHEARSED,
        SHARED,
        COPIES,
        PINNED,
        PROBE,
    ];
    fixed.contains(&name) || recognise(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_stock_script() {
        let at: Timestamp = "2026-11-21T06:15:30.9Z".parse().unwrap();
        let stamp = Stamp::new(at, false);
        assert_eq!(stamp.snapshot(), "snapshot_2026-11-21_061530.db");
        assert_eq!(
            stamp.resources(),
            "static_kuberesources_2026-11-21_061530.tar.gz"
        );
        assert_eq!(stamp.as_utc().unwrap().to_string(), "2026-11-21T06:15:30Z");
        let dirty = Stamp::new(at, true);
        assert_eq!(
            dirty.snapshot(),
            "snapshot_2026-11-21_061530__POSSIBLY_DIRTY__.db"
        );
        assert_eq!(
            recognise(&dirty.snapshot()),
            Some((FileKind::Snapshot, dirty.clone()))
        );
        assert_eq!(
            recognise(&stamp.certificates()),
            Some((FileKind::Certificates, stamp))
        );
    }

    #[test]
    fn files_of_a_set_are_told_from_others() {
        for name in [
            "backup.json",
            "backup.json.sig",
            ".verified.json.new",
            "snapshot_2026-11-21_061530.db",
            "pinned",
        ] {
            assert!(is_of_a_set(name), "{name}");
        }
        for name in ["notes.txt", "backup.json.old", ".new", "snapshot.db", ""] {
            assert!(!is_of_a_set(name), "{name}");
        }
    }

    #[test]
    fn near_misses_are_not_recognised() {
        for name in [
            "snapshot_2026-13-21_061530.db",
            "snapshot_2026-11-21_061530.db.part",
            "snapshot_2026-11-21.db",
            "snapshot_2026-11-21_061530_DIRTY.db",
            "static_kuberesources_2026-11-21_061530.tar",
            "snapshot_2026-1-21_061530.db",
        ] {
            assert_eq!(recognise(name), None, "{name}");
        }
        for id in [
            "backup-",
            "backup-x",
            "backup-012",
            "backup-+1",
            "backup-1.old",
            "Backup-1",
        ] {
            assert_eq!(BackupId::parse(id), None, "{id}");
        }
        assert_eq!(BackupId::parse("backup-12"), Some(BackupId(12)));
    }
}
