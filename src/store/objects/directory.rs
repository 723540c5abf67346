//! A directory as a store: a mounted share, a second disk.
//!
//! An object is written beside its name, fsynced and renamed; its directory is fsynced. A share may
//! lack hard links and locks, and none is used: a claim is a file that must not exist yet.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::StreamExt;

use super::address::Address;
use super::contract::{Body, Level, Listed, MAX_DEPTH, Store, Upload, bounded, take, take_folder};
use super::name::check_name;
use crate::error::{Doing, Failure, Kind, Result};
use crate::store::local::{self, StoreEntry};
use crate::sys::blocking::blocking;
use crate::sys::fs::{self, OutFile};
use crate::sys::small;
use crate::sys::stream_out::StreamOut;

/// What the names of objects that are being written begin with.
const PART_PREFIX: &str = ".part-";
/// Bytes of a piece.
const PIECE: usize = 1 << 20;

/// A store that is a directory.
#[derive(Debug)]
pub(super) struct Directory {
    url: String,
    dir: PathBuf,
}

impl Directory {
    /// The store there; the directory must exist, since an absent one is a share not mounted.
    pub(super) fn open(address: &Address) -> Result<Self> {
        let dir = address.path();
        if !dir.is_dir() {
            let what = format!("opening {}: there is no such directory", dir.display());
            return Err(Failure::new(Kind::Store, what));
        }
        Ok(Self {
            url: address.to_string(),
            dir,
        })
    }

    fn path(&self, name: &str) -> Result<PathBuf> {
        check_name(name)?;
        Ok(self.dir.join(name))
    }
}

#[async_trait]
impl Store for Directory {
    fn url(&self) -> String {
        self.url.clone()
    }

    fn checks_content(&self) -> bool {
        // See `Part`.
        true
    }

    async fn list(&self, folder: &str) -> Result<Vec<Listed>> {
        let from = if folder.is_empty() {
            self.dir.clone()
        } else {
            self.path(folder)?
        };
        let base = self.dir.clone();
        blocking(move || list(&base, from)).await
    }

    async fn level(&self, folder: &str) -> Result<Level> {
        let from = match folder {
            "" => self.dir.clone(),
            folder => self.path(folder)?,
        };
        let base = self.dir.clone();
        blocking(move || level(&base, &from)).await
    }

    async fn read(&self, name: &str, most: u64) -> Result<Option<Body>> {
        let path = self.path(name)?;
        let (at, doing) = (path.clone(), format!("reading {}", path.display()));
        let Some(file) = blocking(move || small::open(&at)).await? else {
            return Ok(None);
        };
        let pieces = futures_util::stream::try_unfold(file, move |mut file| {
            let path = path.clone();
            blocking(move || {
                let mut piece = Vec::with_capacity(PIECE);
                (&mut file)
                    .take(PIECE as u64)
                    .read_to_end(&mut piece)
                    .doing(Kind::Store, || format!("reading {}", path.display()))?;
                Ok((!piece.is_empty()).then(|| (Bytes::from(piece), file)))
            })
        });
        Ok(Some(bounded(pieces.boxed(), doing, most)))
    }

    async fn stage(&self, name: &str, _size: u64) -> Result<Box<dyn Upload>> {
        let path = self.path(name)?;
        let part = blocking(move || Part::begin(path)).await?;
        Ok(Box::new(part))
    }

    async fn claim(&self, name: &str, content: Bytes) -> Result<bool> {
        let path = self.path(name)?;
        blocking(move || {
            fs::mkdir_all(fs::parent(&path))?;
            match fs::write_new(&path, &content) {
                Err(failure) if failure.io_kind() == Some(std::io::ErrorKind::AlreadyExists) => {
                    return Ok(false);
                }
                made => made?,
            }
            // After a loss of power the claim must still be there: another client may have seen it.
            fs::sync_dir(fs::parent(&path))?;
            Ok(true)
        })
        .await
    }

    async fn remove(&self, name: &str) -> Result<()> {
        let path = self.path(name)?;
        blocking(move || {
            fs::unlink(&path)?;
            // What goes first must be gone first, whatever happens to the machine.
            match fs::sync_dir(fs::parent(&path)) {
                Err(failure) if failure.io_kind() == Some(std::io::ErrorKind::NotFound) => Ok(()),
                other => other,
            }
        })
        .await
    }

    async fn remove_folder(&self, folder: &str) -> Result<()> {
        let path = self.path(folder)?;
        blocking(move || {
            if !path.is_dir() {
                return Ok(());
            }
            fs::remove_tree(&path)
        })
        .await
    }
}

/// Every object below a directory; hidden names are not ours.
fn list(base: &Path, from: PathBuf) -> Result<Vec<Listed>> {
    let mut found = Vec::new();
    let mut dirs = vec![(from, 1)];
    while let Some((dir, depth)) = dirs.pop() {
        for entry in entries(base, &dir)? {
            if entry.is_dir && depth < MAX_DEPTH {
                dirs.push((entry.path, depth + 1));
            } else if let Some(object) = object(base, entry) {
                take(&mut found, object).map_err(|failure| failure.doing(listing(base)))?;
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// What is directly in a directory.
fn level(base: &Path, dir: &Path) -> Result<Level> {
    let mut found = Level::default();
    for entry in entries(base, dir)? {
        let taken = match entry.is_dir {
            true => name_of(base, &entry.path).map(|name| take_folder(&mut found, name)),
            false => object(base, entry).map(|object| take(&mut found.objects, object)),
        };
        taken
            .transpose()
            .map_err(|failure| failure.doing(listing(base)))?;
    }
    Ok(found)
}

fn listing(base: &Path) -> String {
    format!("listing {}", base.display())
}

/// The entries of a directory that can be seen and are not hidden, sorted by name.
fn entries(base: &Path, dir: &Path) -> Result<Vec<StoreEntry>> {
    use std::io::ErrorKind;
    let entries = match local::entries(dir) {
        // Removed while the tree is walked.
        Err(failure) if failure.io_kind() == Some(ErrorKind::NotFound) => Vec::new(),
        // Another user's, as on a share of many.
        Err(failure) if failure.io_kind() == Some(ErrorKind::PermissionDenied) && dir != base => {
            Vec::new()
        }
        other => other?,
    };
    let seen = entries
        .into_iter()
        .filter(|entry| !entry.name.starts_with('.'));
    Ok(seen.collect())
}

/// The name in the store of what is at a path.
fn name_of(base: &Path, path: &Path) -> Option<String> {
    path.strip_prefix(base).ok()?.to_str().map(str::to_owned)
}

/// A file as a listing shows it.
fn object(base: &Path, entry: StoreEntry) -> Option<Listed> {
    (!entry.is_dir).then_some(())?;
    Some(Listed {
        name: name_of(base, &entry.path)?,
        size: entry.size,
        modified: entry.modified,
        etag: None,
    })
}

/// An object being written beside its name. It is written past the page cache, and each piece of it is
/// read back from the disk or the server and compared, while the next one is written.
struct Part {
    out: Option<StreamOut>,
    path: PathBuf,
    to: PathBuf,
    armed: bool,
}

impl Part {
    fn begin(to: PathBuf) -> Result<Self> {
        let dir = fs::parent(&to).to_owned();
        fs::mkdir_all(&dir)?;
        let random = crate::sys::random::bytes::<8>()?;
        let path = dir.join(format!("{PART_PREFIX}{}", hex::encode(random)));
        let doing = || format!("creating {}", path.display());
        let file = OutFile::create(&path).doing(Kind::Store, doing)?;
        let mut part = Self {
            out: None,
            path: path.clone(),
            to,
            armed: true,
        };
        part.out = Some(StreamOut::proven(file, None).doing(Kind::Store, doing)?);
        Ok(part)
    }

    fn finish(mut self) -> Result<()> {
        let Some(out) = self.out.take() else {
            return Ok(());
        };
        let writing = || format!("writing {}", self.path.display());
        let (mut file, back) = out.finish_proven().doing(Kind::Store, writing)?;
        file.sync().doing(Kind::Store, writing)?;
        let compared = back.finish(file.len());
        compared.doing(Kind::Store, || {
            format!("reading {} back", self.path.display())
        })?;
        // Only what was read back as it was written gets the name under which it is listed.
        fs::rename(&self.path, &self.to)?;
        self.armed = false;
        fs::sync_dir(fs::parent(&self.to))
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Its thread may still be writing.
        self.out = None;
        if self.armed {
            // The failure that led here is reported; a hidden rest is never listed.
            let _ = fs::unlink(&self.path);
        }
    }
}

#[async_trait]
impl Upload for Part {
    async fn write(&mut self, bytes: Bytes) -> Result<()> {
        let Some(mut out) = self.out.take() else {
            return Err(Failure::new(Kind::Store, "writing after a failure"));
        };
        let path = self.path.clone();
        let out = blocking(move || {
            out.write_all(&bytes)
                .doing(Kind::Store, || format!("writing {}", path.display()))?;
            Ok(out)
        })
        .await?;
        self.out = Some(out);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<()> {
        blocking(move || self.finish()).await
    }

    async fn abort(self: Box<Self>) {}
}
