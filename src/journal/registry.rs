//! The operations of this node, by the folders of their journals.

use std::path::{Path, PathBuf};

use super::engine::Progress;
use super::file;
use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::sys::{fs, listing};

/// An operation's folder, and what its journal tells.
#[derive(Debug)]
pub struct Found {
    /// The folder's name.
    pub id: String,
    /// The folder.
    pub dir: PathBuf,
    /// What the journal tells, or why it cannot be read.
    pub progress: Result<Progress>,
}

impl Found {
    /// Whether other changes of the node must wait for it. An operation whose journal cannot be
    /// read may be unfinished.
    pub fn blocks(&self) -> bool {
        match &self.progress {
            Ok(progress) => progress.state.is_unfinished(),
            Err(_) => true,
        }
    }

    /// Whether it is completed, and what it replaced is still kept for a rollback.
    pub fn is_uncommitted(&self) -> bool {
        matches!(&self.progress, Ok(progress) if progress.state.is_uncommitted())
    }
}

/// The failure of a change that must wait until an operation is committed or rolled back.
pub fn must_settle(found: &Found, what: impl std::fmt::Display) -> Failure {
    let state = match &found.progress {
        Ok(progress) => progress.state.word(),
        Err(_) => "not readable",
    };
    let what = format!("{} is {state}, and not committed: {what}", found.id);
    Failure::new(Kind::Busy, what).with(Fact::Unsettled {
        id: found.id.clone(),
    })
}

/// All operations below a directory, oldest first. Folders without a journal had not begun.
pub fn list(state: &Path) -> Result<Vec<Found>> {
    let doing = || format!("listing {}", state.display());
    let mut found = Vec::new();
    for entry in listing::entries(state).doing(Kind::Store, doing)? {
        let dir = entry.path();
        match dir.join(file::FILE).symlink_metadata() {
            Ok(_) => {}
            Err(e) if is_absent(&e) => continue,
            // Only root may read it, so there may be an operation.
            Err(e) => return Err(Failure::wrap(Kind::Store, e, doing())),
        }
        found.push(Found {
            id: entry.file_name().to_string_lossy().into_owned(),
            progress: Progress::read(&dir),
            dir,
        });
    }
    let began = |found: &Found| found.progress.as_ref().ok().map(|progress| progress.began);
    found.sort_by(|a, b| began(a).cmp(&began(b)).then_with(|| a.id.cmp(&b.id)));
    Ok(found)
}

/// Whether the file is missing, also because a parent is not a directory.
fn is_absent(error: &std::io::Error) -> bool {
    use std::io::ErrorKind;
    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory)
}

/// Refuses to continue while an operation is unfinished.
///
/// # Errors
/// [`Kind::Busy`] with [`Fact::Unfinished`] that names it.
pub fn refuse_while_unfinished(state: &Path) -> Result<()> {
    let blocking = list(state)?.into_iter().find(Found::blocks);
    let Some(found) = blocking else {
        return Ok(());
    };
    let what = match &found.progress {
        Ok(progress) => format!(
            "the {} {} is not finished: it is {}",
            progress.begin.kind,
            found.id,
            progress.state.word()
        ),
        Err(failure) => format!("cannot tell whether {} is finished: {failure}", found.id),
    };
    Err(Failure::new(Kind::Busy, what).with(Fact::Unfinished {
        id: found.id,
        journal: found.dir.join(file::FILE),
        goes_back: matches!(&found.progress, Ok(progress) if progress.state == super::engine::State::RollingBack),
    }))
}

/// A name that begins so and that no folder bears yet.
pub fn free_id(state: &Path, base: &str) -> String {
    let taken = |name: &String| state.join(name).symlink_metadata().is_ok();
    std::iter::once(base.to_owned())
        .chain((2..).map(|number| format!("{base}-{number}")))
        .find(|name| !taken(name))
        .unwrap_or_else(|| base.to_owned())
}

/// Whether a folder holds a directory, so data that an operation has moved there. Before its
/// journal exists, a folder holds only files.
fn holds_data(dir: &Path) -> Result<bool> {
    let doing = || format!("listing {}", dir.display());
    for entry in std::fs::read_dir(dir).doing(Kind::Store, doing)? {
        let kind = entry.doing(Kind::Store, doing)?.file_type();
        if kind.doing(Kind::Store, doing)?.is_dir() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Folders with this prefix that hold data and have lost their journal: no rollback is possible
/// from them, and nothing removes them automatically.
pub fn strays(dir: &Path, prefixes: &[&str]) -> Result<Vec<PathBuf>> {
    let doing = || format!("listing {}", dir.display());
    let mut found = Vec::new();
    for entry in listing::entries(dir).doing(Kind::Store, doing)? {
        let (name, path) = (entry.file_name(), entry.path());
        let ours = prefixes
            .iter()
            .any(|prefix| name.to_string_lossy().starts_with(prefix));
        let journal = path.join(file::FILE);
        if ours && path.is_dir() && journal.symlink_metadata().is_err() && holds_data(&path)? {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Removes folders of operations that were interrupted before their journal existed: nothing had
/// been done. One that holds data has lost its journal, and stays.
pub fn sweep(state: &Path, prefix: &str) -> Result<Vec<PathBuf>> {
    let doing = || format!("listing {}", state.display());
    let mut removed = Vec::new();
    for entry in listing::entries(state).doing(Kind::Store, doing)? {
        let ours = entry.file_name().to_string_lossy().starts_with(prefix);
        let path = entry.path();
        if ours
            && entry.file_type().doing(Kind::Store, doing)?.is_dir()
            && path.join(file::FILE).symlink_metadata().is_err()
            && !holds_data(&path)?
        {
            fs::remove_tree(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}
