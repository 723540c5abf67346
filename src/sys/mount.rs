//! Which mount a path is on: two paths with the same device number can still be on different
//! mounts (a bind mount, as `/var` of an OSTree host is one), and no rename crosses those.
//!
//! Read from `/proc/self/mountinfo` (proc(5)), which every kernel has that runs Kubernetes;
//! `statx` tells a mount's id only from Linux 5.8 on.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use crate::error::{Doing, Failure, Kind, Result};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Its id in this mount namespace.
    pub id: u64,
    /// Where it is mounted.
    pub point: PathBuf,
}

/// The mounts of this process's namespace, in the order the kernel lists them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mounts(Vec<Mount>);

impl Mounts {
    /// Asks the kernel.
    pub fn read() -> Result<Self> {
        let file = "/proc/self/mountinfo";
        let text = fs::read(file).doing(Kind::Unexpected, || format!("reading {file}"))?;
        Self::parse(&text).map_err(|failure| failure.doing(format!("reading {file}")))
    }

    /// Reads the lines: id, parent's id, device, root, mount point, and what is not wanted here.
    fn parse(text: &[u8]) -> Result<Self> {
        let lines = text
            .split(|byte| *byte == b'\n')
            .filter(|line| !line.is_empty());
        let mount = |(number, line): (usize, &[u8])| {
            let mut fields = line.split(|byte| *byte == b' ');
            let id = fields
                .next()
                .and_then(|id| std::str::from_utf8(id).ok()?.parse().ok());
            let point = fields.nth(3).filter(|point| point.first() == Some(&b'/'));
            match (id, point) {
                (Some(id), Some(point)) => Ok(Mount {
                    id,
                    point: unescaped(point),
                }),
                _ => Err(Failure::new(
                    Kind::Unexpected,
                    format!(
                        "line {}: expected an id and a mount point, found {:?}",
                        number + 1,
                        String::from_utf8_lossy(line)
                    ),
                )),
            }
        };
        lines
            .enumerate()
            .map(mount)
            .collect::<Result<_>>()
            .map(Self)
    }

    /// The mount that an existing path is on. Of several at one point the last covers the others.
    pub fn of(&self, path: &Path) -> Result<&Mount> {
        let doing = || format!("finding the mount of {}", path.display());
        let full = path.canonicalize().doing(Kind::Store, doing)?;
        let depth = |mount: &Mount| mount.point.components().count();
        let mut best: Option<&Mount> = None;
        for mount in self.0.iter().filter(|mount| full.starts_with(&mount.point)) {
            if best.is_none_or(|known| depth(mount) >= depth(known)) {
                best = Some(mount);
            }
        }
        best.ok_or_else(|| Failure::new(Kind::Unexpected, "no mount contains it").doing(doing()))
    }

    /// The mount of a path, or of the nearest directory above it that is there.
    pub fn of_nearest(&self, path: &Path) -> Result<&Mount> {
        let mut at = path;
        while !at.exists() {
            match at.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => at = parent,
                _ => break,
            }
        }
        self.of(at)
    }

    /// Whether something is mounted at this very path.
    pub fn is_point(&self, path: &Path) -> bool {
        path.canonicalize()
            .is_ok_and(|full| self.0.iter().any(|mount| mount.point == full))
    }
}

/// A mount point as it is: space, tab, newline and backslash are written in octal.
fn unescaped(field: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, after)) = rest.split_first() {
        let digits = after
            .get(..3)
            .filter(|digits| byte == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        let value = digits.map(|digits| {
            digits
                .iter()
                .fold(0u16, |sum, digit| sum * 8 + u16::from(digit - b'0'))
        });
        match value.and_then(|value| u8::try_from(value).ok()) {
            Some(value) => {
                out.push(value);
                rest = after.get(3..).unwrap_or_default();
            }
            None => {
                out.push(byte);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_and_last_mount_counts() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        fs::create_dir_all(root.join("var/lib/etcd/member")).unwrap();
        let at = |below: &str| root.join(below).display().to_string();
        let text = format!(
            "1 0 8:1 / / rw - ext4 /dev/a rw\n\
             2 1 8:1 /var {var} rw shared:1 - ext4 /dev/a rw\n\
             3 2 8:2 / {etcd} rw - xfs /dev/b rw\n\
             4 2 8:3 / {etcd} rw - xfs /dev/c rw\n",
            var = at("var"),
            etcd = at("var/lib/etcd"),
        );
        let mounts = Mounts::parse(text.as_bytes()).unwrap();
        let id = |path: &str| mounts.of(&root.join(path)).unwrap().id;
        assert_eq!((id(""), id("var"), id("var/lib")), (1, 2, 2));
        assert_eq!((id("var/lib/etcd"), id("var/lib/etcd/member")), (4, 4));
        assert_eq!(mounts.of_nearest(&root.join("var/x/y")).unwrap().id, 2);
        assert!(mounts.is_point(&root.join("var")) && !mounts.is_point(&root.join("var/lib")));
    }

    #[test]
    fn names_are_read_as_the_kernel_writes_them() {
        assert_eq!(unescaped(br"/a\040b\134c\0"), Path::new(r"/a b\c\0"));
        assert!(Mounts::parse(b"x 1 8:1 / /\n").is_err());
        assert!(Mounts::parse(b"1 1 8:1 / here\n").is_err());
        assert!(!Mounts::read().unwrap().0.is_empty());
    }
}
