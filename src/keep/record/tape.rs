//! The chains on disk, and the one that is recorded to.

use std::io::Write;
use std::path::{Path, PathBuf};

use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

use crate::error::{Doing, Failure, Kind, Result};
use crate::etcd::segment::{Again, Begun, Cause, Header, Name, Segment, names};
use crate::store::local;
use crate::sys::fs::{self, OutFile};
use crate::sys::lock::Lock;

/// The lock's name.
const LOCK: &str = ".lock";
/// A segment on its way.
const NEW: &str = ".new";

/// Where segments are written.
#[derive(Debug)]
pub(super) struct Tape {
    root: PathBuf,
    chain: Option<Chain>,
    /// How the next chain will have begun.
    begun: Begun,
    _lock: Lock,
}

/// The chain that is recorded to.
#[derive(Debug)]
struct Chain {
    dir: PathBuf,
    cluster: String,
    hash: String,
    again: Again,
}

impl Tape {
    /// Takes the lock, and finds the chain that was recorded to last.
    pub(super) fn open(root: &Path) -> Result<Self> {
        fs::mkdir_all(root)?;
        let lock = Lock::acquire(&root.join(LOCK), "record")?;
        let mut tape = Self {
            root: root.to_owned(),
            chain: None,
            begun: Begun {
                cause: Cause::First,
                after: None,
            },
            _lock: lock,
        };
        tape.look()?;
        Ok(tape)
    }

    /// Finds the newest chain, and the last segment of it.
    ///
    /// # Errors
    /// [`Kind::Store`].
    pub(super) fn look(&mut self) -> Result<()> {
        self.chain = None;
        let dirs = local::entries(&self.root)?.into_iter();
        let dirs: Vec<PathBuf> = dirs.filter(|e| e.is_dir).map(|e| e.path).collect();
        for dir in dirs.into_iter().rev() {
            fs::unlink(&dir.join(NEW))?;
            let Some(last) = names(&dir)?.pop() else {
                // Left by a crash before its first segment; what else is in it is not ours.
                fs::remove_empty_dir(&dir)?;
                continue;
            };
            match Segment::open(&dir.join(last.to_string())) {
                Ok(segment) => {
                    self.chain = Some(Chain {
                        dir,
                        cluster: segment.header().cluster_id.clone(),
                        hash: segment.sha256(),
                        again: Again::of(&segment),
                    });
                }
                Err(failure) if failure.kind() == Kind::BadBackup => {
                    self.begun = Begun {
                        cause: Cause::DamagedSegment,
                        after: Some(last.last),
                    };
                }
                Err(failure) => return Err(failure),
            }
            break;
        }
        Ok(())
    }

    /// What a watch resumes with.
    pub(super) fn resume(&self) -> Option<Again> {
        self.chain.as_ref().map(|chain| chain.again.clone())
    }

    /// The cluster of the present chain.
    pub(super) fn cluster(&self) -> Option<&str> {
        self.chain.as_ref().map(|chain| chain.cluster.as_str())
    }

    /// The last revision that is sealed in the present chain.
    pub(super) fn revision(&self) -> Option<i64> {
        self.chain.as_ref().map(|chain| chain.again.revision())
    }

    /// The directory of the present chain.
    pub(super) fn dir(&self) -> Option<&Path> {
        self.chain.as_ref().map(|chain| chain.dir.as_path())
    }

    /// How the next chain will have begun.
    pub(super) fn begun(&self) -> Begun {
        self.begun
    }

    /// Ends the chain with a revision: the next segment begins another one. If none has begun since an
    /// earlier end, that one counts.
    pub(super) fn end(&mut self, cause: Cause, last: i64) {
        if self.chain.take().is_none() && self.begun.after.is_some() {
            return;
        }
        // Another cluster's revisions say nothing here.
        let after = (cause != Cause::OtherCluster).then_some(last);
        self.begun = Begun { cause, after };
    }

    /// Writes into a header what precedes its segment.
    pub(super) fn link(&self, header: &mut Header) {
        match &self.chain {
            Some(chain) => header.previous = Some(chain.hash.clone()),
            None => header.begun = Some(self.begun),
        }
    }

    /// Makes a segment durable; where it is.
    ///
    /// # Errors
    /// [`Kind::Store`]; then it is not there.
    pub(super) fn append(
        &mut self,
        header: &Header,
        file: &[u8],
        hash: String,
        again: impl FnOnce() -> Again,
    ) -> Result<PathBuf> {
        let name = Name {
            first: header.first_revision,
            last: header.last_revision,
        };
        let dir = match &self.chain {
            Some(chain) => chain.dir.clone(),
            None => self.begin(&header.cluster_id, header.last_received)?,
        };
        let path = dir.join(name.to_string());
        if path.symlink_metadata().is_ok() {
            let what = format!("{} exists already", path.display());
            return Err(Failure::new(Kind::Store, what));
        }
        let new = dir.join(NEW);
        fs::unlink(&new)?;
        let write = || {
            let mut out = OutFile::create(&new)?;
            out.write_all(file)?;
            out.sync()
        };
        write().doing(Kind::Store, || format!("writing {}", new.display()))?;
        // Durable under another name first: whatever has a segment's name is a whole segment.
        fs::rename(&new, &path)?;
        fs::sync_dir(&dir)?;
        self.chain = Some(Chain {
            dir,
            cluster: header.cluster_id.clone(),
            hash,
            again: again(),
        });
        Ok(path)
    }

    /// Makes the directory of a chain, under a name that sorts by the time.
    fn begin(&self, cluster: &str, now: Timestamp) -> Result<PathBuf> {
        for second in 0..60 {
            let at = now.checked_add(second.seconds()).unwrap_or(now);
            let stamp = at.to_zoned(TimeZone::UTC).strftime("%Y%m%dT%H%M%SZ");
            let dir = self.root.join(format!("{stamp}-{cluster}"));
            match fs::mkdir(&dir) {
                Err(failure) if failure.io_kind() == Some(std::io::ErrorKind::AlreadyExists) => {
                    // One that a crash left before its first segment will do.
                    if names(&dir)?.is_empty() {
                        return Ok(dir);
                    }
                }
                made => {
                    made?;
                    fs::sync_dir(&self.root)?;
                    return Ok(dir);
                }
            }
        }
        let what = format!("{} has too many chains of this minute", self.root.display());
        Err(Failure::new(Kind::Store, what))
    }
}
