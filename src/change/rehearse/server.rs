//! The etcd that serves a rehearsal: on sockets in its own folder, which all releases from 3.4 on can listen
//! on, and which nobody else can reach.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use rustix::fs::OFlags;
use serde_json::Value;

use crate::error::{Doing, Failure, Kind, Result, cut};
use crate::etcd::client::Endpoint;
use crate::sys::bound::{Bound, Spec};

use super::expected::{NAME, PEER_URL};
use super::program::Program;

/// The data directory's name.
pub(super) const DATA: &str = "data";
/// The socket's name. etcd makes it of the host and the port of `unix://client:1`, in the folder it runs in:
/// of a peer's URL it uses only these two (etcd, `configurePeerListeners` in `server/embed/etcd.go`).
const CLIENT: &str = "client:1";
const PEER: &str = "peer:1";
/// What etcd prints.
const LOG: &str = "etcd.log";
/// The longest path of a socket (unix(7)).
const MAX_SOCKET_PATH: usize = 107;
/// Bytes of the end of the log that are looked at.
const TAIL: u64 = 64 << 10;
/// SIGKILL, which etcd does not send itself.
const KILLED: i32 = 9;

/// An etcd that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Bound,
    dir: PathBuf,
    /// A short way to the folder.
    here: File,
}

impl Server {
    /// Starts it on the data directory in a folder.
    pub(super) fn start(program: &Program, dir: &Path) -> Result<Self> {
        let doing = || "starting etcd";
        let output = File::create(dir.join(LOG)).doing(Kind::Store, doing)?;
        let flags = i32::try_from((OFlags::PATH | OFlags::DIRECTORY).bits()).unwrap_or_default();
        // Open only for its number, by which a long path becomes a short one.
        let mut open = OpenOptions::new();
        let open = open.read(true).custom_flags(flags);
        let here = open.open(dir).doing(Kind::Store, doing)?;
        let child = Bound::start(Spec {
            program: &program.run,
            libraries: program.libraries.clone(),
            arguments: arguments(program.first.as_deref()),
            dir,
            output,
        });
        Ok(Self {
            child: child.doing(Kind::Unexpected, doing)?,
            dir: dir.to_owned(),
            here,
        })
    }

    /// Where it answers.
    pub(super) fn endpoint(&self) -> Result<Endpoint> {
        let mut socket = self.dir.join(CLIENT);
        if socket.as_os_str().len() > MAX_SOCKET_PATH || socket.to_string_lossy().contains(' ') {
            let short = Path::new("/proc/self/fd").join(self.here.as_raw_fd().to_string());
            socket = short.join(CLIENT);
        }
        Endpoint::parse(&format!("unix://{}", socket.display()), false)
    }

    /// Why it has ended, if it has.
    ///
    /// # Errors
    /// [`Kind::NotChecked`] if it was killed from outside: that says nothing about the backup.
    pub(super) fn ended(&self) -> Result<Option<String>> {
        let Some(status) = self.child.exited() else {
            return Ok(None);
        };
        if status.signal() == Some(KILLED) {
            let what =
                "etcd was killed (SIGKILL): by the kernel, if memory is short, or by somebody";
            return Err(Failure::new(Kind::NotChecked, what));
        }
        Ok(Some(format!(
            "etcd ended ({}): {}",
            end(status),
            self.last_words()
        )))
    }

    /// What it last said that matters: why it gave up, else its last line.
    pub(super) fn last_words(&self) -> String {
        last_words(&tail(&self.dir.join(LOG)))
    }
}

fn end(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown".to_owned(),
    }
}

/// etcd's command line: only options that all releases from 3.4 to 3.7 have.
fn arguments(first: Option<&Path>) -> Vec<OsString> {
    let own = [
        format!("--name={NAME}"),
        format!("--data-dir={DATA}"),
        format!("--listen-client-urls=unix://{CLIENT}"),
        format!("--listen-peer-urls=unix://{PEER}"),
        // It must be an address of a host; nobody dials it.
        "--advertise-client-urls=http://localhost:2379".to_owned(),
        format!("--initial-advertise-peer-urls={PEER_URL}"),
        format!("--initial-cluster={NAME}={PEER_URL}"),
        // The quota of the cluster is not known here; its alarm is in the backup.
        "--quota-backend-bytes=-1".to_owned(),
        "--enable-grpc-gateway=false".to_owned(),
        // Alone, it has no others to wait for.
        "--heartbeat-interval=20".to_owned(),
        "--election-timeout=200".to_owned(),
    ];
    let first = first.map(OsString::from);
    first.into_iter().chain(own.map(OsString::from)).collect()
}

fn tail(log: &Path) -> String {
    let mut bytes = Vec::new();
    let read = File::open(log).and_then(|mut file| {
        let size = file.metadata()?.len();
        file.seek(SeekFrom::Start(size.saturating_sub(TAIL)))?;
        file.take(TAIL).read_to_end(&mut bytes)
    });
    match read {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) => format!("its log cannot be read: {error}"),
    }
}

/// The first line in which it gives up, else the last one.
fn last_words(log: &str) -> String {
    let lines = || log.lines().map(str::trim).filter(|line| !line.is_empty());
    // zap's levels, Go's runtime, and 3.4's own form of a log line.
    let gives_up = |line: &&str| {
        let marks = [
            "\"level\":\"fatal\"",
            "\"level\":\"panic\"",
            "panic: ",
            " C | ",
        ];
        marks.iter().any(|mark| line.contains(mark))
    };
    let line = lines().find(gives_up).or_else(|| lines().next_back());
    let Some(line) = line else {
        return "it printed nothing".to_owned();
    };
    let said = serde_json::from_str::<Value>(line).ok().and_then(|value| {
        let text = |name: &str| value[name].as_str().map(str::to_owned);
        let message = text("msg")?;
        Some(match text("error") {
            Some(error) => format!("{message}: {error}"),
            None => message,
        })
    });
    cut(said.unwrap_or_else(|| line.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_in_every_form_of_log() {
        let zap = "{\"level\":\"info\",\"msg\":\"a\"}\n\
            {\"level\":\"fatal\",\"msg\":\"discovery failed\",\"error\":\"bad CRC\"}\n\
            {\"level\":\"info\",\"msg\":\"b\"}\n";
        assert_eq!(last_words(zap), "discovery failed: bad CRC");
        let plain = "2026-11-30 13:00:00.0 I | a\n2026-11-30 13:00:00.0 C | etcdserver: cannot\n";
        let said = last_words(plain);
        assert!(said.ends_with("C | etcdserver: cannot"), "{said}");
        assert_eq!(last_words("one\ntwo\n\n"), "two");
        assert_eq!(last_words("\n"), "it printed nothing");
        let panic = "x\npanic: freepages\n\ngoroutine 1 [running]:\n";
        assert_eq!(last_words(panic), "panic: freepages");
    }
}
