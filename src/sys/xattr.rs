//! Reading extended attributes.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use crate::error::{Doing, Kind, Result};

/// The attribute that holds a SELinux label.
pub const SELINUX: &str = "security.selinux";

/// The extended attributes of a file, directory or link; empty if the file system has none.
pub fn xattrs(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let doing = || format!("reading the extended attributes of {}", path.display());
    let list = match sized(|buf| rustix::fs::llistxattr(path, buf)) {
        Ok(list) => list.unwrap_or_default(),
        Err(e) => return Err(io::Error::from(e)).doing(Kind::Unexpected, doing),
    };
    for name in list.split(|b| *b == 0).filter(|name| !name.is_empty()) {
        let text = std::str::from_utf8(name).doing(Kind::Unexpected, || {
            format!("naming an attribute of {}", path.display())
        })?;
        let value = sized(|buf| rustix::fs::lgetxattr(path, OsStr::from_bytes(name), buf))
            .map_err(io::Error::from)
            .doing(Kind::Unexpected, doing)?;
        if let Some(value) = value {
            found.insert(text.to_owned(), value);
        }
    }
    Ok(found)
}

/// Linux bounds a list and a value to 64 KiB each; one that still does not fit grew in the meantime.
fn sized(get: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Option<Vec<u8>>, Errno> {
    for size in [1 << 10, 1 << 16] {
        let mut buf = vec![0; size];
        match get(&mut buf) {
            Ok(length) => {
                buf.truncate(length);
                return Ok(Some(buf));
            }
            Err(Errno::RANGE) => {}
            Err(Errno::NOTSUP | Errno::NODATA | Errno::NOSYS) => return Ok(None),
            Err(other) => return Err(other),
        }
    }
    Err(Errno::RANGE)
}
