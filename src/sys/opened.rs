//! Which processes have a file open, as far as `/proc` shows it (proc(5)): for messages only.
//! A process of another user, or outside this pid namespace, is not seen.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Its id.
    pub pid: u32,
    /// Its name, of at most 15 bytes as the kernel keeps it; control characters are left out.
    pub command: String,
}

impl fmt::Display for Process {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (process {})", self.command, self.pid)
    }
}

/// The processes that have any of the files open, by id. `proc` is where procfs is mounted; what
/// cannot be read there is passed over.
///
/// A process in a container sees the file under another path, so that device and inode decide;
/// only descriptors with a fitting name are asked for theirs, as another's file may be on a
/// share that no longer answers.
pub fn opened_by(proc: &Path, files: &[PathBuf]) -> Vec<Process> {
    let wanted: Vec<(&Path, u64, u64)> = files
        .iter()
        .filter_map(|file| {
            let meta = fs::metadata(file).ok()?;
            Some((file.as_path(), meta.dev(), meta.ino()))
        })
        .collect();
    let is_wanted = |descriptor: &Path| {
        let Ok(target) = fs::read_link(descriptor) else {
            return false;
        };
        let mut named = wanted
            .iter()
            .filter(|(file, ..)| file.file_name() == target.file_name())
            .peekable();
        if named.peek().is_none() {
            return false;
        }
        fs::metadata(descriptor)
            .is_ok_and(|meta| named.any(|(_, dev, ino)| (*dev, *ino) == (meta.dev(), meta.ino())))
    };
    let mut found: Vec<Process> = entries(proc)
        .into_iter()
        .filter_map(|dir| {
            let pid: u32 = dir.file_name()?.to_str()?.parse().ok()?;
            let open = entries(&dir.join("fd")).iter().any(|fd| is_wanted(fd));
            open.then(|| Process {
                pid,
                command: command(&dir),
            })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let list = fs::read_dir(dir).into_iter().flatten();
    list.filter_map(|entry| Some(entry.ok()?.path())).collect()
}

fn command(dir: &Path) -> String {
    let name = fs::read(dir.join("comm")).unwrap_or_default();
    let name = String::from_utf8_lossy(&name);
    name.chars().filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_file_open_is_found_by_any_of_its_names() {
        let dir = tempfile::tempdir().unwrap();
        let (file, other) = (dir.path().join("db"), dir.path().join("other/db"));
        fs::create_dir(dir.path().join("other")).unwrap();
        fs::write(&file, "").unwrap();
        fs::hard_link(&file, &other).unwrap();
        // Another test's child may have our descriptors for a moment, so that only we count.
        let ours = |files: &[PathBuf]| {
            let mut found = opened_by(Path::new("/proc"), files);
            found.retain(|process| process.pid == std::process::id());
            found
        };
        assert_eq!(ours(std::slice::from_ref(&file)), []);
        let open = fs::File::open(&file).unwrap();
        let found = ours(&[dir.path().join("absent"), other]);
        assert_eq!(found.len(), 1);
        assert!(!found[0].command.is_empty());
        drop(open);
        assert_eq!(ours(&[file]), []);
    }

    #[test]
    fn what_proc_does_not_show_is_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("12/fd")).unwrap();
        fs::create_dir_all(dir.path().join("self/fd")).unwrap();
        fs::write(dir.path().join("13"), "").unwrap();
        let file = dir.path().join("db");
        fs::write(&file, "").unwrap();
        assert_eq!(opened_by(dir.path(), std::slice::from_ref(&file)), []);
        let gone = opened_by(&dir.path().join("absent"), std::slice::from_ref(&file));
        assert_eq!(gone, []);
        std::os::unix::fs::symlink(&file, dir.path().join("12/fd/7")).unwrap();
        fs::write(dir.path().join("12/comm"), "et\x1b[cd\n").unwrap();
        let found = opened_by(dir.path(), &[file]);
        assert_eq!(found[0].to_string(), "et[cd (process 12)");
    }
}
