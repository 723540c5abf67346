//! Which names an archive's entries may have.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// As long as Linux takes a path, and a part of it.
const MAX_NAME: usize = 4096;
const MAX_PART: usize = 255;
/// Deeper trees are no static-pod resources; the bound keeps the memory for parents small.
const MAX_DEPTH: usize = 64;

/// Takes an entry's name from its bytes: relative and plain, or why not. A trailing slash is
/// dropped.
pub(super) fn plain_name(bytes: &[u8]) -> Result<PathBuf, &'static str> {
    let bytes = bytes.strip_suffix(b"/").unwrap_or(bytes);
    if bytes.is_empty() {
        return Err("an empty name");
    }
    if bytes.starts_with(b"/") {
        return Err("an absolute name");
    }
    if bytes.len() > MAX_NAME {
        return Err("a name longer than 4096 bytes");
    }
    let mut depth = 0;
    for part in bytes.split(|b| *b == b'/') {
        depth += 1;
        match part {
            b"" => return Err("a name with an empty part"),
            b"." => return Err("a name with a part \".\""),
            b".." => return Err("a name with a part \"..\""),
            part if part.len() > MAX_PART => return Err("a name with a part over 255 bytes"),
            part if part.contains(&0) => return Err("a name with a zero byte"),
            _ => {}
        }
    }
    if depth > MAX_DEPTH {
        return Err("a name more than 64 directories deep");
    }
    Ok(PathBuf::from(OsStr::from_bytes(bytes)))
}

/// What is known of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Some entry is below it.
    Parent,
    Directory,
    File,
    Symlink,
}

/// All names so far and what each is.
#[derive(Debug, Default)]
pub(super) struct Names {
    roles: HashMap<PathBuf, Role>,
}

impl Names {
    /// Adds an entry; says what is wrong if its name is taken or its parent is not a directory.
    pub(super) fn add(&mut self, name: &Path, role: Role) -> Result<(), &'static str> {
        for parent in name
            .ancestors()
            .skip(1)
            .filter(|p| !p.as_os_str().is_empty())
        {
            match self.roles.get(parent) {
                Some(Role::Symlink) => return Err("an entry below a symbolic link"),
                Some(Role::File) => return Err("an entry below a file"),
                Some(Role::Directory | Role::Parent) => {}
                None => {
                    self.roles.insert(parent.to_path_buf(), Role::Parent);
                }
            }
        }
        match self.roles.get(name) {
            Some(Role::Parent) if role == Role::Directory => {}
            Some(Role::Parent) => return Err("a directory's name again, as something else"),
            Some(_) => return Err("a second entry of the same name"),
            None => {}
        }
        self.roles.insert(name.to_path_buf(), role);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_plain_relative_names_pass() {
        assert_eq!(plain_name(b"a/b/"), Ok("a/b".into()));
        assert_eq!(plain_name("\u{e4}/\n".as_bytes()), Ok("\u{e4}/\n".into()));
        let deep = "a/".repeat(65);
        let long = "a".repeat(256);
        let longer = "a/".repeat(2049);
        for name in [
            "", "/", "/a", "//a", "./a", ".", "..", "a/../b", "a/..", "a//b", "a/./b", "a\0b",
            "a//", &deep, &long, &longer,
        ] {
            assert!(plain_name(name.as_bytes()).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_name_is_one_thing_only() {
        let mut names = Names::default();
        let mut add = |name: &str, role| names.add(Path::new(name), role);
        assert!(add("a/b", Role::File).is_ok());
        assert!(add("a", Role::Directory).is_ok());
        assert!(add("a", Role::Directory).is_err());
        assert!(add("a/b", Role::File).is_err());
        assert!(add("a/b/c", Role::File).is_err());
        assert!(add("l", Role::Symlink).is_ok());
        assert!(add("l/x", Role::File).is_err());
        assert!(add("p/q/r", Role::File).is_ok());
        assert!(add("p/q", Role::Symlink).is_err());
    }
}
