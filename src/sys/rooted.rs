//! Resolves paths below a root directory, following links as a process in that root would.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::path::{Component as Part, Path, PathBuf};

use crate::error::{Doing, Failure, Kind, Result};

/// As many links as Linux follows in one path.
const MAX_LINKS: usize = 40;

/// The local path of a path below a root with every symbolic link followed: an absolute target starts
/// at the root. What does not exist yet is kept as named.
pub fn resolve(root: &Path, path: &Path) -> Result<PathBuf> {
    let mut todo: Vec<OsString> = parts(path);
    todo.reverse();
    let mut done: Vec<OsString> = Vec::new();
    let mut links = 0;
    while let Some(part) = todo.pop() {
        // In the root itself `..` is the root.
        if part == ".." {
            done.pop();
            continue;
        }
        done.push(part);
        let here: PathBuf = root
            .iter()
            .chain(done.iter().map(|p| p.as_os_str()))
            .collect();
        match fs::symlink_metadata(&here) {
            Ok(meta) if meta.is_symlink() => {}
            Ok(_) => continue,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(e).doing(Kind::Unexpected, || {
                    format!("looking at {}", here.display())
                });
            }
        }
        links += 1;
        if links > MAX_LINKS {
            return Err(Failure::new(
                Kind::Unexpected,
                format!(
                    "following {}: more than {MAX_LINKS} symbolic links",
                    path.display()
                ),
            ));
        }
        let target = fs::read_link(&here).doing(Kind::Unexpected, || {
            format!("reading the link {}", here.display())
        })?;
        done.pop();
        if target.is_absolute() {
            done.clear();
        }
        let mut next = parts(&target);
        next.reverse();
        todo.append(&mut next);
    }
    Ok(root
        .iter()
        .chain(done.iter().map(|p| p.as_os_str()))
        .collect())
}

/// The plain names of a path, and `..`.
pub fn parts(path: &Path) -> Vec<OsString> {
    path.components()
        .filter_map(|part| match part {
            Part::Normal(name) => Some(name.to_os_string()),
            Part::ParentDir => Some(OsString::from("..")),
            Part::RootDir | Part::CurDir | Part::Prefix(_) => None,
        })
        .collect()
}
