//! A backup as the catalog knows it.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::backup::Manifest;
use crate::backup::names::{self, BackupId};
use crate::backup::newest::{self, Age};
use crate::backup::signature::Signature;
use crate::context::Context;
use crate::error::{Doing, Kind};
use crate::etcd::history::Span;
use crate::event::Event;
use crate::sys::digest::sha256_hex;
use crate::sys::fs;

/// What kind of set it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SetState {
    /// Ours, and every check held when it was taken.
    Good,
    /// Ours, and taken although a check failed.
    Dirty,
    /// In progress, interrupted, or with files missing.
    Incomplete,
    /// Made by another program.
    Foreign,
}

impl SetState {
    /// The word shown for it.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Dirty => "dirty",
            Self::Incomplete => "incomplete",
            Self::Foreign => "foreign",
        }
    }
}

/// When a set was last verified, and with what result; kept beside the Manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Verified {
    /// The schema version of this document.
    pub schema_version: u32,
    /// When.
    pub time: Timestamp,
    /// Whether nothing was found.
    pub good: bool,
    /// The version of the tool that looked.
    pub tool_version: String,
    /// The layers that were found broken.
    #[serde(default)]
    pub failed: Vec<String>,
}

impl Verified {
    /// What this version found now: the layers that are broken.
    pub fn new(time: Timestamp, failed: Vec<String>) -> Self {
        Self {
            schema_version: 1,
            time,
            good: failed.is_empty(),
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            failed,
        }
    }

    /// Puts it beside a Manifest; says whether that could be done. A store that cannot be written to is no
    /// error.
    pub fn write_to(&self, context: &Context, dir: &Path) -> bool {
        let written = serde_json::to_vec_pretty(self)
            .doing(Kind::Unexpected, || "writing JSON")
            .and_then(|mut bytes| {
                bytes.push(b'\n');
                fs::write_atomic(&dir.join(names::VERIFIED), &bytes)
            });
        if let Err(failure) = &written {
            context.tell(Event::Note(format!(
                "the result is not recorded: {failure}"
            )));
        }
        written.is_ok()
    }
}

/// When a real etcd last served a set, and with what result; kept beside the Manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsed {
    /// The schema version of this document.
    pub schema_version: u32,
    /// When.
    pub time: Timestamp,
    /// Whether nothing failed.
    pub good: bool,
    /// The version of the tool that rehearsed.
    pub tool_version: String,
    /// The release of the etcd that served it.
    pub etcd_version: String,
    /// Seconds from the start of the restore until etcd served; none if it never did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub served_after_seconds: Option<f64>,
    /// The questions that were answered wrongly.
    #[serde(default)]
    pub failed: Vec<String>,
}

/// The signature beside a Manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum SetSignature {
    /// The backup has no signature.
    #[default]
    None,
    /// It fits the Manifest; whose key made it is another question.
    Fits(Signature),
    /// It does not, and why.
    Bad(String),
}

impl SetSignature {
    /// That of a Manifest's bytes.
    pub fn of(manifest: &[u8], signature: Option<&[u8]>) -> Self {
        match signature.map(|pem| Signature::check(pem, manifest)) {
            None => Self::None,
            Some(Ok(signature)) => Self::Fits(signature),
            Some(Err(why)) => Self::Bad(why),
        }
    }

    /// The fingerprint of the key that made one that fits.
    pub fn fingerprint(&self) -> Option<String> {
        match self {
            Self::Fits(signature) => Some(signature.fingerprint()),
            Self::None | Self::Bad(_) => None,
        }
    }
}

/// Why a signature does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Distrust {
    /// The name of the refusal.
    pub name: &'static str,
    /// Why, in a few words.
    pub why: String,
}

/// The files of a set, by path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetFiles {
    /// The snapshot.
    pub snapshot: Option<PathBuf>,
    /// The archive of static-pod resources.
    pub resources: Option<PathBuf>,
    /// The archive of certificate directories.
    pub certificates: Option<PathBuf>,
}

/// A set as the catalog knows it.
#[derive(Debug, Clone)]
pub struct BackupSet {
    /// How it is called in this store.
    pub name: String,
    /// Its directory.
    pub dir: PathBuf,
    /// What kind it is.
    pub state: SetState,
    /// When it was taken: from the Manifest, or from a script-made stamp read as UTC.
    pub created: Option<Timestamp>,
    /// Bytes of its files.
    pub size: u64,
    /// Whether a script-made name carries the dirty suffix.
    pub marked_dirty: bool,
    /// Its Manifest, if it has a readable one.
    pub manifest: Option<Manifest>,
    /// Its files.
    pub files: SetFiles,
    /// Whether `latest-backup` points at it.
    pub latest: bool,
    /// What is wrong with it, in sentences.
    pub problems: Vec<String>,
    /// When it was last verified.
    pub verified: Option<Verified>,
    /// When a real etcd last served it.
    pub rehearsed: Option<Rehearsed>,
    /// Whether it is pinned: no retention removes it.
    pub pinned: bool,
    /// Bytes of its snapshot that share their blocks with the set before.
    pub shared: Option<u64>,
    /// SHA-256 of its Manifest's bytes, hex.
    pub manifest_sha256: Option<String>,
    /// When the store got its Manifest, by the store's clock, if it tells.
    pub arrived: Option<Timestamp>,
    /// The signature of its Manifest.
    pub signature: SetSignature,
    /// Whose signature that is, as the allowed signers name him; if they were asked.
    pub signer: Option<String>,
    /// Why its signature does not count; if the allowed signers were asked.
    pub distrust: Option<Distrust>,
}

/// How much of a snapshot shares its blocks with another's; kept beside the Manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shared {
    /// The schema version of this document.
    pub schema_version: u32,
    /// The set whose snapshot it is.
    pub with: String,
    /// Bytes.
    pub bytes: u64,
}

impl BackupSet {
    /// A set of which only its place is known.
    pub(in crate::keep) fn at(name: String, dir: &Path, state: SetState) -> Self {
        Self {
            name,
            dir: dir.to_owned(),
            state,
            created: None,
            size: 0,
            marked_dirty: false,
            manifest: None,
            files: SetFiles::default(),
            latest: false,
            problems: Vec::new(),
            verified: None,
            rehearsed: None,
            pinned: false,
            shared: None,
            manifest_sha256: None,
            arrived: None,
            signature: SetSignature::None,
            signer: None,
            distrust: None,
        }
    }

    /// Whether this is a set of ours that is whole and good, and signed as it must be.
    pub fn is_good(&self) -> bool {
        self.state == SetState::Good && self.distrust.is_none()
    }

    /// Whether its time is later than any right clock can say now: it counts for nothing until
    /// then.
    pub fn is_future(&self, now: Timestamp) -> bool {
        self.created.is_some_and(|at| newest::is_future(at, now))
    }

    /// Whether its record of a verification is of a time that has not come: it says nothing.
    pub fn is_verified_in_future(&self, now: Timestamp) -> bool {
        let verified = self.verified.as_ref();
        verified.is_some_and(|last| newest::is_future(last.time, now))
    }

    /// The revisions that it can be restored to, as its Manifest tells.
    pub fn reachable(&self) -> Option<Span> {
        let database = &self.manifest.as_ref()?.database;
        Some(Span {
            from: database.compact_revision.unwrap_or(1).max(1),
            to: database.kv_revision?,
        })
    }

    /// Its last rehearsal, unless that is of a time that has not come: then it says nothing.
    pub fn believed_rehearsal(&self, now: Timestamp) -> Option<&Rehearsed> {
        let rehearsed = self.rehearsed.as_ref();
        rehearsed.filter(|last| !newest::is_future(last.time, now))
    }

    /// Its number, if it is ours; away from the node its name is the last part of a path.
    pub fn number(&self) -> Option<u64> {
        let last = self.name.rsplit('/').next()?;
        BackupId::parse(last).map(|id| id.0)
    }

    /// The number that a directory gave it when it was taken there: one that was brought from
    /// elsewhere has another in its Manifest, and a copy has a path for a name.
    pub fn sequence(&self) -> Option<u64> {
        let manifest = self.manifest.as_ref()?;
        (manifest.id == self.name).then(|| self.number()).flatten()
    }

    /// Takes over a Manifest's bytes' hash, and checks the signature beside it.
    pub(crate) fn signed(&mut self, manifest: &[u8], signature: Option<&[u8]>) {
        self.manifest_sha256 = Some(sha256_hex(manifest));
        self.signature = SetSignature::of(manifest, signature);
    }

    /// What tells its place in time.
    pub fn age(&self) -> Age<'_> {
        Age {
            created: self.created,
            origin: self.manifest.as_ref().map(Manifest::origin),
            sequence: self.sequence(),
            number: self.number().unwrap_or(0),
            name: &self.name,
        }
    }
}
