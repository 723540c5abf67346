//! SELinux labels: new data gets the label of the place that it goes to.
//!
//! A file is labelled by the directory it is made in; a rename keeps its label. Labels are the
//! extended attribute `security.selinux` (selinux(8)).

use std::path::Path;

use super::dir::Dir;
use super::fs::OutFile;
use super::xattr::xattrs;
use crate::error::{Doing, Kind, Result};

/// The attribute.
const NAME: &str = "security.selinux";

/// The label of a path, if it has one.
pub fn label(path: &Path) -> Result<Option<Vec<u8>>> {
    Ok(xattrs(path)?.remove(NAME))
}

/// Gives a directory and all files and directories below it this label, durably.
pub fn relabel(root: &Path, label: &[u8]) -> Result<()> {
    let doing = |path: &Path| format!("labelling {}", path.display());
    let mut dirs = vec![root.to_owned()];
    while let Some(path) = dirs.pop() {
        for entry in std::fs::read_dir(&path).doing(Kind::Store, || doing(&path))? {
            let entry = entry.doing(Kind::Store, || doing(&path))?;
            let kind = entry.file_type().doing(Kind::Store, || doing(&path))?;
            let below = entry.path();
            if kind.is_dir() {
                dirs.push(below);
            } else if kind.is_file() {
                let len = entry.metadata().doing(Kind::Store, || doing(&below))?.len();
                let set = || {
                    let mut file = OutFile::go_on(&below, len)?;
                    file.attributes().set_xattr(NAME, label)?;
                    file.sync()
                };
                set().doing(Kind::Store, || doing(&below))?;
            }
        }
        let set = || {
            let dir = Dir::open(&path)?;
            dir.attributes().set_xattr(NAME, label)?;
            dir.sync()
        };
        set().doing(Kind::Store, || doing(&path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_below_gets_the_label_of_the_place() {
        let dir = tempfile::tempdir().unwrap();
        let built = dir.path().join("built");
        std::fs::create_dir_all(built.join("member/snap")).unwrap();
        std::fs::write(built.join("member/snap/db"), b"content").unwrap();
        assert_eq!(label(&built).unwrap(), None);
        let wanted = b"system_u:object_r:container_var_lib_t:s0\0";
        // Only root may, and only where the file system has such attributes.
        if let Err(failure) = relabel(&built, wanted) {
            eprintln!("SKIPPED: {failure}");
            return;
        }
        for below in ["", "member", "member/snap", "member/snap/db"] {
            let found = label(&built.join(below)).unwrap();
            assert_eq!(found.as_deref(), Some(wanted.as_slice()), "{below}");
        }
        assert_eq!(
            std::fs::read(built.join("member/snap/db")).unwrap(),
            b"content"
        );
    }
}
