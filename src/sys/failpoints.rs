//! The one place where a call that changes a disk can be counted, killed, failed or recorded.
//!
//! Without the `faults` feature [`pass`] and [`done`] compile to nothing.

#[cfg(not(feature = "faults"))]
use std::io;
use std::path::Path;

/// A call that changes a disk, as a failpoint sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op<'a> {
    /// A directory is made.
    Mkdir(&'a Path),
    /// A file is made, empty.
    Create(&'a Path),
    /// Bytes are written at an offset.
    Write(&'a Path, u64, &'a [u8]),
    /// A file gets another length, with room for all of it.
    Resize(&'a Path, u64),
    /// A file's content is made durable.
    SyncFile(&'a Path),
    /// A directory's entries are made durable.
    SyncDir(&'a Path),
    /// An entry moves, replacing what is there.
    Rename(&'a Path, &'a Path),
    /// A symbolic link is made: target, then the link's own path.
    Symlink(&'a Path, &'a Path),
    /// A file gets another name: the file, then that name.
    Link(&'a Path, &'a Path),
    /// Permission bits are set.
    SetMode(&'a Path, u32),
    /// Owner and group are set; of a symbolic link, the link's own.
    SetOwner(&'a Path, u32, u32),
    /// The modification time is set, in seconds since 1970; of a symbolic link, the link's own.
    SetModified(&'a Path, i64),
    /// An extended attribute is set; of a symbolic link, the link's own.
    SetXattr(&'a Path, &'a str, &'a [u8]),
    /// A file or link is removed.
    Unlink(&'a Path),
    /// An empty directory is removed.
    Rmdir(&'a Path),
}

/// Called before the change; an error stands in for the change's own failure.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn pass(_op: Op<'_>) -> io::Result<()> {
    Ok(())
}

/// Called after the change succeeded.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn done(_op: Op<'_>) {}

/// How a disk lies about a write that it reports as done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// It changes a bit.
    Flip,
    /// It writes nothing.
    Drop,
    /// It writes to another place.
    Elsewhere(u64),
}

/// Whether the disk lies about this write.
#[cfg(not(feature = "faults"))]
#[inline(always)]
pub fn lie(_offset: u64, _len: usize) -> Option<Lie> {
    None
}

#[cfg(feature = "faults")]
pub use armed::{Mode, arm, done, lie, pass};

#[cfg(feature = "faults")]
mod armed {
    use std::fs::File;
    use std::io::{self, Write};
    use std::path::{Path, PathBuf};
    use std::sync::Mutex;

    use super::{Lie, Op};

    /// What the failpoints do in this process.
    #[derive(Debug)]
    pub enum Mode {
        /// Writes the number of calls to a file, after each.
        Count(PathBuf),
        /// Kills the process with SIGKILL before call `n`, counted from 1.
        Kill(u64),
        /// Makes call `n` fail with this `errno`; with `sticky`, every later one too.
        Fail {
            /// Which call, counted from 1.
            at: u64,
            /// The operating system's error number.
            errno: i32,
            /// Whether later calls fail too, as on a full disk.
            sticky: bool,
        },
        /// Of the large writes that are read back, the disk changes a bit of the `n`th.
        Flip(u64),
        /// It loses the `n`th.
        Drop(u64),
        /// It writes the `n`th where the next one belongs, and that one in its place.
        Swap(u64),
        /// Appends every call that succeeded to a file, one JSON object a line; bytes in hex.
        Record(PathBuf),
    }

    impl Mode {
        /// Reads `count:FILE`, `kill:N`, `fail:N:ERRNO`, `full:N`, `flip:N`, `drop:N`, `swap:N` or `record:FILE`.
        pub fn parse(text: &str) -> Option<Self> {
            let (word, rest) = text.split_once(':')?;
            match word {
                "count" => Some(Self::Count(rest.into())),
                "kill" => rest.parse().ok().map(Self::Kill),
                "fail" => {
                    let (at, errno) = rest.split_once(':')?;
                    Some(Self::Fail {
                        at: at.parse().ok()?,
                        errno: errno.parse().ok()?,
                        sticky: false,
                    })
                }
                "full" => Some(Self::Fail {
                    at: rest.parse().ok()?,
                    errno: 28,
                    sticky: true,
                }),
                "flip" => rest.parse().ok().map(Self::Flip),
                "drop" => rest.parse().ok().map(Self::Drop),
                "swap" => rest.parse().ok().map(Self::Swap),
                "record" => Some(Self::Record(rest.into())),
                _ => None,
            }
        }
    }

    struct State {
        mode: Mode,
        calls: u64,
        /// Writes that a disk could have lied about.
        lies: u64,
        log: Option<File>,
    }

    static STATE: Mutex<Option<State>> = Mutex::new(None);

    /// Arms the failpoints for the rest of the process.
    pub fn arm(mode: Mode) -> io::Result<()> {
        let log = match &mode {
            Mode::Record(path) => Some(File::create(path)?),
            _ => None,
        };
        if let Ok(mut state) = STATE.lock() {
            *state = Some(State {
                mode,
                calls: 0,
                lies: 0,
                log,
            });
        }
        Ok(())
    }

    /// Called before the change; an error stands in for the change's own failure.
    pub fn pass(_op: Op<'_>) -> io::Result<()> {
        let Ok(mut guard) = STATE.lock() else {
            return Ok(());
        };
        let Some(state) = guard.as_mut() else {
            return Ok(());
        };
        state.calls += 1;
        match &state.mode {
            Mode::Count(path) => std::fs::write(path, state.calls.to_string()),
            Mode::Kill(at) if *at == state.calls => {
                let me = rustix::process::getpid();
                let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
                // The signal is delivered before this thread runs on; should it lag, stop here.
                loop {
                    std::thread::park();
                }
            }
            Mode::Fail { at, errno, sticky }
                if *at == state.calls || (*sticky && state.calls > *at) =>
            {
                Err(io::Error::from_raw_os_error(*errno))
            }
            _ => Ok(()),
        }
    }

    /// Whether the disk lies about this write.
    pub fn lie(offset: u64, len: usize) -> Option<Lie> {
        let mut guard = STATE.lock().ok()?;
        let state = guard.as_mut()?;
        let (Mode::Flip(at) | Mode::Drop(at) | Mode::Swap(at)) = state.mode else {
            return None;
        };
        state.lies += 1;
        match (&state.mode, state.lies.checked_sub(at)?) {
            (Mode::Flip(_), 0) => Some(Lie::Flip),
            (Mode::Drop(_), 0) => Some(Lie::Drop),
            (Mode::Swap(_), 0) => Some(Lie::Elsewhere(offset + len as u64)),
            (Mode::Swap(_), 1) => Some(Lie::Elsewhere(offset - len as u64)),
            _ => None,
        }
    }

    /// Called after the change succeeded.
    pub fn done(op: Op<'_>) {
        let Ok(mut guard) = STATE.lock() else { return };
        let Some(log) = guard.as_mut().and_then(|state| state.log.as_mut()) else {
            return;
        };
        let path = |path: &Path| path.to_string_lossy().into_owned();
        let line = match op {
            Op::Mkdir(p) => serde_json::json!({"op": "mkdir", "path": path(p)}),
            Op::Create(p) => serde_json::json!({"op": "create", "path": path(p)}),
            Op::Write(p, offset, data) => {
                serde_json::json!({"op": "write", "path": path(p), "offset": offset, "data": hex::encode(data)})
            }
            Op::Resize(p, len) => {
                serde_json::json!({"op": "resize", "path": path(p), "len": len})
            }
            Op::SyncFile(p) => serde_json::json!({"op": "sync-file", "path": path(p)}),
            Op::SyncDir(p) => serde_json::json!({"op": "sync-dir", "path": path(p)}),
            Op::Rename(from, to) => {
                serde_json::json!({"op": "rename", "path": path(from), "to": path(to)})
            }
            Op::Symlink(target, link) => {
                serde_json::json!({"op": "symlink", "path": path(link), "to": path(target)})
            }
            Op::Link(file, name) => {
                serde_json::json!({"op": "link", "path": path(name), "to": path(file)})
            }
            Op::SetMode(p, mode) => {
                serde_json::json!({"op": "set-mode", "path": path(p), "mode": mode})
            }
            Op::SetOwner(p, uid, gid) => {
                serde_json::json!({"op": "set-owner", "path": path(p), "uid": uid, "gid": gid})
            }
            Op::SetModified(p, seconds) => {
                serde_json::json!({"op": "set-modified", "path": path(p), "seconds": seconds})
            }
            Op::SetXattr(p, name, value) => {
                serde_json::json!({"op": "set-xattr", "path": path(p), "name": name, "value": hex::encode(value)})
            }
            Op::Unlink(p) => serde_json::json!({"op": "unlink", "path": path(p)}),
            Op::Rmdir(p) => serde_json::json!({"op": "rmdir", "path": path(p)}),
        };
        // A recording that cannot be written would make the replay lie: stop.
        if writeln!(log, "{line}").is_err() {
            std::process::abort();
        }
    }
}
