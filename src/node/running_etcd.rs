//! The etcd processes that run on this machine, as `/proc` shows them (proc(5)): their own program can be
//! started again, also where it is in a container.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;

use crate::sys::opened::opened_by;

/// The database in a data directory.
const DATABASE: &str = "member/snap/db";
/// Mode bits of a file that its group or everybody may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// The name of etcd's program.
const NAME: &str = "etcd";
/// Words on a command line by which etcd's program is not a server.
const NO_SERVER: [&str; 2] = ["grpc-proxy", "gateway"];

/// An etcd that runs. What it was started from stays reachable after it has ended.
#[derive(Debug)]
pub struct RunningEtcd {
    /// Its process id.
    pub pid: u32,
    /// Its program, by the path that its container has.
    pub path: PathBuf,
    exe: File,
    root: File,
    /// The loader that it was started with, and the folders of its libraries; none of a static program.
    loader: Option<PathBuf>,
    libraries: Vec<PathBuf>,
}

impl RunningEtcd {
    /// Its program, as this machine reaches it.
    pub fn program(&self) -> PathBuf {
        descriptor(&self.exe)
    }

    /// The loader of its container, which runs the program with its own libraries; none of a static
    /// program.
    pub fn loader(&self) -> Option<PathBuf> {
        let loader = self.loader.as_ref()?;
        Some(below(&descriptor(&self.root), loader))
    }

    /// The folders of its libraries, as `LD_LIBRARY_PATH` has them.
    pub fn library_path(&self) -> OsString {
        let root = descriptor(&self.root);
        let folders: Vec<Vec<u8>> = self
            .libraries
            .iter()
            .map(|folder| below(&root, folder).into_os_string().into_vec())
            .collect();
        OsString::from_vec(folders.join(&b':'))
    }
}

/// The path by which any process of this user reaches what a file of ours leads to.
fn descriptor(file: &File) -> PathBuf {
    let own = Path::new("/proc").join(std::process::id().to_string());
    own.join("fd").join(file.as_raw_fd().to_string())
}

fn below(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// The servers that run, by process id, one for each program file. `proc` is where procfs is mounted, and
/// `data_dir` the node's own data directory; a process that may not be looked at is passed over.
///
/// Who can start a program called `etcd` must not have it run by this user. So only those count of which
/// everything belongs to this user or to root, and which either see the file system of this process, or have
/// the node's own database open, as a container that may reach it does.
pub fn running(proc: &Path, data_dir: &Path) -> Vec<RunningEtcd> {
    let serving = opened_by(proc, &[data_dir.join(DATABASE)]);
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut pids: Vec<u32> = pids.collect();
    pids.sort_unstable();
    let mut seen = Vec::new();
    let mut found = Vec::new();
    for pid in pids {
        let dir = proc.join(pid.to_string());
        let Ok(Some(etcd)) = look(&dir, pid) else {
            continue;
        };
        let serves = serving.iter().any(|process| process.pid == pid);
        if !is_trusted(&dir, &etcd, serves).unwrap_or(false) {
            continue;
        }
        let identity = etcd.exe.metadata().map(|meta| (meta.dev(), meta.ino()));
        if let Ok(identity) = identity
            && !seen.contains(&identity)
        {
            seen.push(identity);
            found.push(etcd);
        }
    }
    found
}

/// Whether nobody but this user and root decides what the program of a process does.
fn is_trusted(dir: &Path, etcd: &RunningEtcd, serves: bool) -> io::Result<bool> {
    let own = rustix::process::geteuid().as_raw();
    let trusted = |uid: u32| uid == own || uid == 0;
    // Not the owner of its folder in procfs, which a process can make root.
    let status = fs::read_to_string(dir.join("status"))?;
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let ids: Vec<u32> = ids
        .unwrap_or_default()
        .split_whitespace()
        .filter_map(|id| id.parse().ok())
        .collect();
    let program = etcd.exe.metadata()?;
    let mine = ids.len() == 4 && ids.into_iter().all(trusted);
    if !mine || !trusted(program.uid()) || program.mode() & WRITABLE_BY_OTHERS != 0 {
        return Ok(false);
    }
    let place = |meta: fs::Metadata| (meta.dev(), meta.ino());
    Ok(serves || place(etcd.root.metadata()?) == place(fs::metadata("/")?))
}

/// A process, if it is a server.
fn look(dir: &Path, pid: u32) -> io::Result<Option<RunningEtcd>> {
    let link = dir.join("exe");
    let path = fs::read_link(&link)?;
    // The kernel marks a file that was removed since.
    let name = path.file_name().unwrap_or_default().as_bytes();
    if name.strip_suffix(b" (deleted)").unwrap_or(name) != NAME.as_bytes() {
        return Ok(None);
    }
    let words = fs::read(dir.join("cmdline"))?;
    let mut words = words.split(|byte| *byte == 0);
    if words.any(|word| NO_SERVER.iter().any(|other| other.as_bytes() == word)) {
        return Ok(None);
    }
    // Seen from here, a process in another mount namespace has the root "/", and one after chroot(2) its path.
    let root = fs::read_link(dir.join("root"))?;
    let (loader, libraries) = mapped(&fs::read(dir.join("maps"))?, &root);
    Ok(Some(RunningEtcd {
        pid,
        path,
        exe: hold(&link)?,
        root: hold(&dir.join("root"))?,
        loader,
        libraries,
    }))
}

/// Opens what a link of procfs leads to, only to reach it.
fn hold(link: &Path) -> io::Result<File> {
    let flags = i32::try_from(OFlags::PATH.bits()).unwrap_or_default();
    OpenOptions::new().read(true).custom_flags(flags).open(link)
}

/// The loader and the folders of the libraries that a process has mapped, by its own paths, from `maps`:
/// `address permissions offset device inode path`.
fn mapped(maps: &[u8], root: &Path) -> (Option<PathBuf>, Vec<PathBuf>) {
    let (mut loader, mut folders) = (None, Vec::new());
    for line in maps.split(|byte| *byte == b'\n') {
        let Some(path) = line.splitn(6, |byte| *byte == b' ').nth(5) else {
            continue;
        };
        let path = PathBuf::from(OsString::from_vec(path.trim_ascii_start().to_vec()));
        let path = match path.strip_prefix(root) {
            Ok(inside) => Path::new("/").join(inside),
            Err(_) => path,
        };
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if !path.is_absolute() || !name.contains(".so") {
            continue;
        }
        if name.starts_with("ld-") || name.starts_with("ld.so") {
            loader.get_or_insert(path.clone());
        }
        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    match loader {
        Some(loader) => (Some(loader), folders),
        // A static program may still have mapped one for a lookup of names.
        None => (None, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    #[test]
    fn a_dynamic_program_has_a_loader_and_folders() {
        let maps = b"\
00400000-01e1f000 r-xp 00000000 00:2f 524 /usr/bin/etcd
7f0a00000000-7f0a00021000 rw-p 00000000 00:00 0 
7f0a10000000-7f0a10100000 r-xp 00000000 00:2f 99   /usr/lib64/libc-2.28.so
7f0a10200000-7f0a10300000 r-xp 00000000 00:2f 98                 /usr/lib64/ossl modules/fips.so
7f0a20000000-7f0a20020000 r-xp 00000000 00:2f 97   /usr/lib64/ld-2.28.so
7ffd00000000-7ffd00002000 r-xp 00000000 00:00 0    [vdso]
";
        let (loader, folders) = mapped(maps, Path::new("/"));
        assert_eq!(loader, Some("/usr/lib64/ld-2.28.so".into()));
        let wanted: [PathBuf; 2] = ["/usr/lib64".into(), "/usr/lib64/ossl modules".into()];
        assert_eq!(folders, wanted);
        let chrooted = String::from_utf8_lossy(maps).replace("/usr", "/srv/root/usr");
        let inside = mapped(chrooted.as_bytes(), Path::new("/srv/root"));
        assert_eq!(inside, (loader, folders));
        let own = b"00400000-01e1f000 r-xp 00000000 00:2f 524 /usr/bin/etcd";
        assert_eq!(mapped(own, Path::new("/")), (None, Vec::new()));
    }

    /// A folder of procfs with processes in it.
    struct Proc(tempfile::TempDir);

    impl Proc {
        fn file(&self, name: &str, mode: u32) -> PathBuf {
            let path = self.0.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, "x").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            path
        }

        fn process(&self, pid: u32, exe: &Path, root: &Path, words: &str, uids: &str) -> PathBuf {
            let at = self.0.path().join("proc").join(pid.to_string());
            fs::create_dir_all(at.join("fd")).unwrap();
            symlink(exe, at.join("exe")).unwrap();
            symlink(root, at.join("root")).unwrap();
            fs::write(at.join("cmdline"), words).unwrap();
            fs::write(at.join("maps"), "").unwrap();
            fs::write(at.join("status"), format!("Name:\tetcd\nUid:\t{uids}\n")).unwrap();
            at
        }

        fn found(&self) -> Vec<RunningEtcd> {
            running(&self.0.path().join("proc"), &self.0.path().join("data"))
        }
    }

    fn own(uids: usize) -> String {
        let own = rustix::process::geteuid().as_raw().to_string();
        vec![own; uids].join("\t")
    }

    #[test]
    fn servers_are_found_once_each_and_proxies_are_not() {
        let proc = Proc(tempfile::tempdir().unwrap());
        let (program, here) = (proc.file("bin/etcd", 0o755), Path::new("/"));
        let ids = own(4);
        proc.process(7, &program, here, "etcd\0--data-dir=/x\0", &ids);
        proc.process(8, &program, here, "etcd\0--data-dir=/y\0", &ids);
        let proxy = proc.file("other/etcd", 0o755);
        proc.process(9, &proxy, here, "etcd\0grpc-proxy\0start\0", &ids);
        let other = proc.file("bin/other", 0o755);
        proc.process(10, &other, here, "other\0", &ids);
        fs::create_dir_all(proc.0.path().join("proc/11")).unwrap();
        let found = proc.found();
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].pid, &found[0].path), (7, &program));
        assert_eq!(found[0].loader(), None);
        assert_eq!(fs::read(found[0].program()).unwrap(), b"x");
        fs::remove_file(&program).unwrap();
        assert_eq!(fs::read(found[0].program()).unwrap(), b"x");
    }

    #[test]
    fn what_another_user_has_put_there_is_not_run() {
        let proc = Proc(tempfile::tempdir().unwrap());
        let here = Path::new("/");
        let (good, open) = (proc.file("good/etcd", 0o755), proc.file("open/etcd", 0o775));
        let stranger = format!("{}\t4242", own(3));
        proc.process(1, &good, here, "etcd\0", &stranger);
        proc.process(2, &good, here, "etcd\0", &own(3));
        proc.process(3, &open, here, "etcd\0", &own(4));
        // A container's: only if the node's own database is open there.
        let contained = proc.process(4, &good, proc.0.path(), "etcd\0", &own(4));
        assert!(proc.found().is_empty(), "{:?}", proc.found());
        let database = proc.file("data/member/snap/db", 0o600);
        symlink(database, contained.join("fd/3")).unwrap();
        let found: Vec<u32> = proc.found().iter().map(|etcd| etcd.pid).collect();
        assert_eq!(found, [4]);
    }
}
