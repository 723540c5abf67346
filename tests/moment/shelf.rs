//! A store beside a real etcd, with a recorder.

use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use age::secrecy::ExposeSecret;
use etcd_dr::etcd::segment::{Name, Segment, names};
use serde_json::Value;

use crate::bench::text;
use testbench::cluster::Cluster;
use testbench::golden::{self, Run};
use testbench::process::{terminate, wait_for, write_private};

pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// Another store, for copies that only an identity opens.
pub(crate) struct Share {
    pub(crate) dir: PathBuf,
    pub(crate) url: String,
    pub(crate) recipient: String,
    /// The file of the identity.
    pub(crate) identity: String,
}

/// A store, and an empty node beside it.
pub(crate) struct Shelf {
    pub(crate) dir: tempfile::TempDir,
    url: String,
}

impl Shelf {
    pub(crate) fn new(cluster: &Cluster) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        Self {
            dir,
            url: cluster.client_url(0),
        }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    pub(crate) fn share(&self) -> Share {
        let (dir, file) = (self.dir.path().join("share"), self.dir.path().join("key"));
        std::fs::create_dir(&dir).unwrap();
        let identity = age::x25519::Identity::generate();
        write_private(&file, identity.to_string().expose_secret().as_bytes());
        Share {
            url: format!("file://{}", dir.display()),
            recipient: identity.to_public().to_string(),
            identity: text(&file),
            dir,
        }
    }

    pub(crate) fn args(&self, command: &[&str]) -> Vec<String> {
        self.args_at(&self.url, command)
    }

    fn args_at(&self, url: &str, command: &[&str]) -> Vec<String> {
        let root = text(&self.dir.path().join("root"));
        let mut args: Vec<String> = command.iter().map(|arg| (*arg).to_owned()).collect();
        let at = ["--root", &root, "--profile", "bare", "--endpoints", url];
        args.extend(at.map(str::to_owned));
        args
    }

    pub(crate) fn backup(&self) {
        golden::run(&self.args(&["backup", &text(&self.store())]), &[]).expect(0);
    }

    pub(crate) fn record(&self, seam: Option<&str>) -> Recorder {
        self.record_at(&self.url, seam)
    }

    /// The same where etcd is reached at another URL.
    pub(crate) fn record_at(&self, url: &str, seam: Option<&str>) -> Recorder {
        self.recorder(url, seam, &["--prove-every", "0s"])
    }

    pub(crate) fn record_with(&self, seam: Option<&str>, more: &[&str]) -> Recorder {
        self.recorder(&self.url, seam, more)
    }

    fn recorder(&self, url: &str, seam: Option<&str>, more: &[&str]) -> Recorder {
        let mut command = golden::etcd_dr();
        let record = ["record", &text(&self.store()), "--seal-every", "150ms"];
        let args = self.args_at(url, &record);
        command.args(args).args(more).args(["-o", "json"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        if let Some(seam) = seam {
            command.env("ETCD_DR_SEAM", seam);
        }
        Recorder(Some(command.spawn().unwrap()))
    }

    /// A schedule that records.
    pub(crate) fn schedule(&self, cron: &str, textfile: &Path) -> Recorder {
        let (store, textfile) = (text(&self.store()), text(textfile));
        let mut args = vec!["schedule", cron, &store, "--jitter", "0s", "--record"];
        args.extend(["--seal-every", "150ms", "--textfile", &textfile]);
        let mut command = golden::etcd_dr();
        command.args(self.args(&args));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        Recorder(Some(command.spawn().unwrap()))
    }

    /// The chains, the oldest first, with their segments.
    pub(crate) fn chains(&self) -> Vec<(PathBuf, Vec<Name>)> {
        let entries = std::fs::read_dir(self.store().join("changes")).into_iter();
        let dirs = entries.flatten().map(|entry| entry.unwrap().path());
        let mut dirs: Vec<PathBuf> = dirs.filter(|path| path.is_dir()).collect();
        dirs.sort();
        let chain = |dir: PathBuf| (dir.clone(), names(&dir).unwrap());
        dirs.into_iter().map(chain).collect()
    }

    pub(crate) fn last(&self) -> i64 {
        let chains = self.chains();
        let last = chains.last().and_then(|(_, names)| names.last());
        last.map_or(0, |name| name.last)
    }

    pub(crate) fn wait(&self, revision: i64) {
        let sealed = || match self.last() {
            last if last >= revision => Ok(()),
            last => Err(format!("{last} of {revision}")),
        };
        wait_for("the revision to be sealed", LIMIT, sealed).unwrap();
    }

    /// Every segment is whole, each follows the one before, and the first begins its chain.
    pub(crate) fn check(&self) -> Vec<Segment> {
        let all = self.check_left();
        for (dir, names) in self.chains() {
            if let Some(name) = names.first() {
                let first = Segment::open(&dir.join(name.to_string())).unwrap();
                assert!(first.header().begun.is_some());
            }
        }
        all
    }

    /// The same where a prune may have deleted how a chain began.
    pub(crate) fn check_left(&self) -> Vec<Segment> {
        let mut all = Vec::new();
        for (dir, names) in self.chains() {
            let mut before: Option<Segment> = None;
            for name in names {
                let segment = Segment::open(&dir.join(name.to_string())).unwrap();
                let header = segment.header();
                assert_eq!(
                    (header.first_revision, header.last_revision),
                    (name.first, name.last)
                );
                assert_eq!(header.begun.is_some(), header.previous.is_none());
                if let Some(before) = &before {
                    assert_eq!(header.previous, Some(before.sha256()));
                    assert_eq!(header.first_revision, before.header().last_revision + 1);
                }
                all.extend(before.replace(segment));
            }
            all.extend(before);
        }
        all
    }

    pub(crate) fn restore(&self, set: &str, to: &Path, more: &[&str]) -> Run {
        let (store, to) = (text(&self.store()), text(to));
        let mut args = vec![
            "restore",
            set,
            "--store",
            &store,
            "--data-dir",
            &to,
            "-o",
            "json",
        ];
        args.extend(more);
        golden::run(&args, &[])
    }
}

/// A recorder that is killed when this is dropped.
pub(crate) struct Recorder(pub(crate) Option<Child>);

impl Recorder {
    pub(crate) fn kill(mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Asks it to stop; what it says.
    pub(crate) fn stop(mut self) -> Value {
        let child = self.0.take().unwrap();
        terminate(child.id());
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{stderr}");
        let mut document: Value = serde_json::from_slice(&output.stdout).unwrap();
        testbench::schema::check_output(&document);
        document["stderr"] = stderr.into();
        document
    }

    /// Asks it to stop, and waits.
    pub(crate) fn end(self) {
        terminate(self.0.as_ref().unwrap().id());
        self.ended();
    }

    /// Waits until it ends by itself.
    pub(crate) fn ended(mut self) {
        let mut child = self.0.take().unwrap();
        let ended = || match child.try_wait().unwrap() {
            Some(_) => Ok(()),
            None => Err("it runs"),
        };
        wait_for("the recorder to end", LIMIT, ended).unwrap();
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
