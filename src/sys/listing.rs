//! What a directory holds.

use std::fs::{self, DirEntry};
use std::io;
use std::path::Path;

/// The entries of a directory; empty if there is no such directory.
pub fn entries(dir: &Path) -> io::Result<Vec<DirEntry>> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        entries => entries?.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_absent_directory_holds_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        assert_eq!(entries(dir.path()).unwrap().len(), 1);
        assert!(entries(&dir.path().join("absent")).unwrap().is_empty());
        assert!(entries(&file).is_err());
    }
}
