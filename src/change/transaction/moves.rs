//! The renames that changes consist of. Each can be repeated and reverted.
//!
//! Nothing here copies or deletes: what was replaced stays on the same mount until the operation is
//! committed. Between two renames that depend on each other the directories are fsynced, so no
//! crash keeps the later one and loses the earlier.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use crate::error::{Doing, Fact, Failure, Kind, Result};
use crate::etcd::restore::LOST_AND_FOUND;
use crate::sys::fs;

fn is_there(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).doing(Kind::Store, || format!("looking at {}", path.display())),
    }
}

/// Another program has put a file where the plan has to put one.
pub(crate) fn in_the_way(path: &Path, other: &Path) -> Failure {
    Failure::new(
        Kind::Unexpected,
        format!(
            "{} appeared in the meantime where {} must go: move it away and retry",
            path.display(),
            other.display()
        ),
    )
    .with(Fact::Path(path.to_owned()))
}

fn durably(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)?;
    let (old, new) = (fs::parent(from), fs::parent(to));
    // The new directory first: a crash between the two may leave both names, but never none.
    fs::sync_dir(new)?;
    if old != new {
        fs::sync_dir(old)?;
    }
    Ok(())
}

/// Moves `incoming` to `place`, and what was there to `aside`. Without `incoming` the place stays
/// empty.
pub(crate) fn swap(incoming: Option<&Path>, place: &Path, aside: &Path) -> Result<()> {
    if let Some(incoming) = incoming
        && !is_there(incoming)?
    {
        if is_there(place)? {
            // It is in place already. The attempt that moved it may have been killed before its
            // fsync.
            return synced(incoming, place, aside);
        }
        return Err(Failure::new(
            Kind::Unexpected,
            format!(
                "neither {} nor {} exists",
                incoming.display(),
                place.display()
            ),
        ));
    }
    if is_there(place)? {
        if is_there(aside)? {
            return Err(in_the_way(place, incoming.unwrap_or(aside)));
        }
        durably(place, aside)?;
    } else if is_there(aside)? {
        synced(place, aside, aside)?;
    }
    match incoming {
        Some(incoming) => durably(incoming, place),
        None => Ok(()),
    }
}

/// Takes [`swap`] back, however much of it was done.
pub(crate) fn swap_back(incoming: Option<&Path>, place: &Path, aside: &Path) -> Result<()> {
    if let Some(incoming) = incoming
        && !is_there(incoming)?
        && is_there(place)?
    {
        durably(place, incoming)?;
    }
    if !is_there(aside)? {
        // Already back, or never moved; a process killed after the rename may not have fsynced.
        return synced(place, aside, incoming.unwrap_or(aside));
    }
    if is_there(place)? {
        return Err(in_the_way(place, aside));
    }
    durably(aside, place)
}

/// Fsyncs the parent directories, for renames that a killed process made.
fn synced(one: &Path, two: &Path, three: &Path) -> Result<()> {
    let mut done: Vec<&Path> = Vec::new();
    for path in [one, two, three] {
        let dir = fs::parent(path);
        if !done.contains(&dir) && dir.is_dir() {
            fs::sync_dir(dir)?;
            done.push(dir);
        }
    }
    Ok(())
}

/// Moves the entries of one directory to another, except those in `keep` and the file system's own
/// (`lost+found`). The directories themselves stay: either may be a mount point.
pub(crate) fn move_contents(from: &Path, to: &Path, keep: &[OsString]) -> Result<()> {
    move_those(from, to, |name| {
        name != LOST_AND_FOUND && !keep.contains(name)
    })
}

/// Moves etcd's entries from one directory to another: other files that people keep in a data
/// directory stay. Journals of earlier versions have an empty `only`, which means all but `keep`.
pub(crate) fn move_data(from: &Path, to: &Path, only: &[String], keep: &[OsString]) -> Result<()> {
    if only.is_empty() {
        return move_contents(from, to, keep);
    }
    move_those(from, to, |name| {
        only.iter().any(|known| name == known.as_str())
    })
}

fn move_those(from: &Path, to: &Path, wanted: impl Fn(&OsString) -> bool) -> Result<()> {
    let mut names = Vec::new();
    let listing = || format!("listing {}", from.display());
    for entry in std::fs::read_dir(from).doing(Kind::Store, listing)? {
        let name = entry.doing(Kind::Store, listing)?.file_name();
        if wanted(&name) {
            names.push(name);
        }
    }
    names.sort();
    for name in &names {
        let (old, new) = (from.join(name), to.join(name));
        if is_there(&new)? {
            return Err(in_the_way(&new, &old));
        }
        fs::rename(&old, &new)?;
    }
    // In this order, as in `durably`.
    fs::sync_dir(to)?;
    fs::sync_dir(from)
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    struct Places {
        _dir: tempfile::TempDir,
        incoming: PathBuf,
        place: PathBuf,
        aside: PathBuf,
    }

    fn places() -> Places {
        let dir = tempfile::tempdir().unwrap();
        for name in ["new", "live", "old"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        Places {
            incoming: dir.path().join("new/x"),
            place: dir.path().join("live/x"),
            aside: dir.path().join("old/x"),
            _dir: dir,
        }
    }

    fn word(path: &Path) -> Option<String> {
        std::fs::read_to_string(path).ok()
    }

    #[test]
    fn a_swap_can_be_repeated_and_reverted_from_each_half() {
        for had_one in [true, false] {
            for brings_one in [true, false] {
                for half in 0..3 {
                    let p = places();
                    let incoming = brings_one.then_some(p.incoming.as_path());
                    if had_one {
                        std::fs::write(&p.place, "before").unwrap();
                    }
                    if brings_one {
                        std::fs::write(&p.incoming, "after").unwrap();
                    }
                    if half == 1 && had_one {
                        std::fs::rename(&p.place, &p.aside).unwrap();
                    }
                    if half == 2 {
                        swap(incoming, &p.place, &p.aside).unwrap();
                        swap(incoming, &p.place, &p.aside).unwrap();
                        assert_eq!(word(&p.place), brings_one.then(|| "after".to_owned()));
                        assert_eq!(word(&p.aside), had_one.then(|| "before".to_owned()));
                    }
                    for _ in 0..2 {
                        swap_back(incoming, &p.place, &p.aside).unwrap();
                        assert_eq!(word(&p.place), had_one.then(|| "before".to_owned()));
                        assert_eq!(word(&p.incoming), brings_one.then(|| "after".to_owned()));
                        assert_eq!(word(&p.aside), None);
                    }
                }
            }
        }
    }

    #[test]
    fn files_of_others_are_never_overwritten() {
        let p = places();
        std::fs::write(&p.place, "theirs").unwrap();
        std::fs::write(&p.aside, "before").unwrap();
        std::fs::write(&p.incoming, "after").unwrap();
        assert!(swap(Some(&p.incoming), &p.place, &p.aside).is_err());
        assert!(swap(None, &p.place, &p.aside).is_err());
        assert!(swap_back(None, &p.place, &p.aside).is_err());
        assert_eq!(word(&p.place).as_deref(), Some("theirs"));
        assert_eq!(word(&p.aside).as_deref(), Some("before"));
        assert!(swap(Some(&p.aside.join("gone")), &p.incoming.join("x"), &p.aside).is_err());
    }

    #[test]
    fn of_a_data_directory_only_etcds_moves() {
        let p = places();
        let (from, to) = (p.place.parent().unwrap(), p.aside.parent().unwrap());
        for name in ["member", "snapshot.db", ".hidden", "revision.json"] {
            std::fs::write(from.join(name), name).unwrap();
        }
        let only = ["member".to_owned()];
        for _ in 0..2 {
            move_data(from, to, &only, &[]).unwrap();
        }
        assert_eq!(word(&to.join("member")).as_deref(), Some("member"));
        assert_eq!(std::fs::read_dir(from).unwrap().count(), 3);
        // As a journal of an earlier version means it.
        move_data(from, to, &[], &[OsString::from(".hidden")]).unwrap();
        assert_eq!(std::fs::read_dir(from).unwrap().count(), 1);
    }

    #[test]
    fn contents_move_and_the_mount_stays() {
        let p = places();
        let (from, to) = (p.place.parent().unwrap(), p.aside.parent().unwrap());
        for name in ["member", "lost+found", ".ours", "revision.json"] {
            std::fs::write(from.join(name), name).unwrap();
        }
        let keep = [OsString::from(".ours")];
        move_contents(from, to, &keep).unwrap();
        move_contents(from, to, &keep).unwrap();
        let left = |dir: &Path| {
            let mut names: Vec<_> = std::fs::read_dir(dir)
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect();
            names.sort();
            names
        };
        assert_eq!(left(from), [".ours", "lost+found"]);
        assert_eq!(left(to), ["member", "revision.json"]);
        std::fs::write(from.join("member"), "theirs").unwrap();
        assert!(move_contents(from, to, &keep).is_err());
        assert_eq!(word(&to.join("member")).as_deref(), Some("member"));
    }
}
