//! Where real etcd releases are on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The programs of one etcd release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdBins {
    /// As the server states it: `3.5.16`.
    pub version: String,
    /// The server.
    pub etcd: PathBuf,
    /// The client.
    pub etcdctl: PathBuf,
    /// The offline tool; releases before 3.5 have none.
    pub etcdutl: Option<PathBuf>,
}

impl EtcdBins {
    fn in_dir(dir: &Path) -> Option<Self> {
        let (etcd, etcdctl, etcdutl) = (dir.join("etcd"), dir.join("etcdctl"), dir.join("etcdutl"));
        if !etcd.is_file() || !etcdctl.is_file() {
            return None;
        }
        let output = Command::new(&etcd).arg("--version").output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout)
            .lines()
            .find_map(|line| line.strip_prefix("etcd Version: ").map(str::to_owned))?;
        Some(Self {
            version,
            etcd,
            etcdctl,
            etcdutl: etcdutl.is_file().then_some(etcdutl),
        })
    }

    /// Major, minor and patch as numbers, for comparing.
    pub fn numbers(&self) -> (u32, u32, u32) {
        let mut parts = self
            .version
            .split(['.', '-', '+'])
            .map(|part| part.parse().unwrap_or(0));
        let mut next = || parts.next().unwrap_or(0);
        (next(), next(), next())
    }

    /// Whether this release is of the family, such as `3.5`.
    pub fn is_of(&self, family: &str) -> bool {
        self.version
            .strip_prefix(family)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }

    /// The program that reads snapshot files: etcdutl, or the older etcdctl that still could.
    pub fn snapshot_tool(&self) -> &Path {
        self.etcdutl.as_deref().unwrap_or(&self.etcdctl)
    }
}

/// Every release found, each version once, oldest first: those that `scripts/fetch-etcd.sh` laid
/// down, or the ones `ETCD_DR_ETCD_BINS` names in their stead, else the one in `PATH`.
pub fn all_versions() -> &'static [EtcdBins] {
    static FOUND: OnceLock<Vec<EtcdBins>> = OnceLock::new();
    FOUND.get_or_init(|| {
        let mut dirs = given();
        if dirs.is_empty() {
            dirs = cached();
        }
        let mut found = by_version(&dirs);
        if found.is_empty() {
            let path = std::env::var_os("PATH").unwrap_or_default();
            found = by_version(&std::env::split_paths(&path).collect::<Vec<_>>());
            found.truncate(1);
        }
        found
    })
}

/// The newest release of a family, such as `3.5`; an empty family is any.
///
/// Says on stderr that the suite is skipped if there is no such program; panics instead where
/// `ETCD_DR_REQUIRE=1`, as in CI, demands every suite.
pub fn require(family: &str) -> Option<EtcdBins> {
    let newest = all_versions()
        .iter()
        .rev()
        .find(|bins| family.is_empty() || bins.is_of(family));
    if newest.is_none() {
        skip(&format!(
            "no etcd {family} here: run scripts/fetch-etcd.sh or set ETCD_DR_ETCD_BINS"
        ));
    }
    newest.cloned()
}

/// All releases, or the same message as [`require`] if there is no release at all.
pub fn require_all() -> &'static [EtcdBins] {
    let all = all_versions();
    if all.is_empty() {
        skip("no etcd here: run scripts/fetch-etcd.sh or set ETCD_DR_ETCD_BINS");
    }
    all
}

/// One release, or all with `ETCD_DR_RELEASES=all`: which one it is depends on the place it is asked
/// from, so that the tests of a suite take turns and together use every release.
#[track_caller]
pub fn require_turn() -> &'static [EtcdBins] {
    let all = require_all();
    if all.is_empty() || std::env::var_os("ETCD_DR_RELEASES").is_some_and(|which| which == "all") {
        return all;
    }
    let line = std::panic::Location::caller().line() as usize;
    let at = line % all.len();
    all.get(at..=at).unwrap_or_default()
}

/// Announces that this suite does less than it could, or fails where that is not allowed.
pub fn skip(reason: &str) {
    let suite = crate::suite();
    assert!(
        std::env::var_os("ETCD_DR_REQUIRE").is_none_or(|value| value != "1"),
        "{suite}: {reason}, and ETCD_DR_REQUIRE=1 allows no skipping"
    );
    eprintln!("SKIPPED {suite}: {reason}");
}

fn given() -> Vec<PathBuf> {
    let value = std::env::var_os("ETCD_DR_ETCD_BINS").unwrap_or_default();
    std::env::split_paths(&value)
        .filter(|dir| !dir.as_os_str().is_empty())
        .collect()
}

/// Prometheus' own judge of metrics and alerts: the one fetched, or that of the machine.
pub fn promtool() -> PathBuf {
    let fetched = cache().join("prometheus/promtool");
    if fetched.is_file() {
        return fetched;
    }
    PathBuf::from("promtool")
}

/// What runs a program with a clock that is ahead.
///
/// A Go program asks the kernel for the time, and not the C library, so that libfaketime alone does
/// nothing to it. QEMU's user emulation answers it with the C library's time, which libfaketime
/// changes: the program itself is the real one.
pub struct Skewer {
    dir: PathBuf,
}

/// The programs that make clocks wrong; says that the suite is skipped where they are not there.
pub fn skewed() -> Option<Skewer> {
    let dir = cache().join("qemu");
    if dir.join("usr/bin/qemu-x86_64").is_file() && dir.join("lib/libfaketime.so.1").is_file() {
        return Some(Skewer { dir });
    }
    skip("no qemu-user with libfaketime here: run scripts/fetch-servers.sh");
    None
}

impl Skewer {
    /// Writes a script that runs a server so many seconds ahead.
    pub fn write(&self, script: &Path, server: &Path, seconds: u32) {
        let text = format!(
            "#!/bin/sh\nlib='{dir}/lib'\n\
             FAKETIME=+{seconds} FAKETIME_DONT_FAKE_MONOTONIC=1 LD_LIBRARY_PATH=\"$lib\" \
             LD_PRELOAD=\"$lib/libfaketime.so.1\" \
             exec '{dir}/usr/bin/qemu-x86_64' -U LD_PRELOAD -U LD_LIBRARY_PATH '{server}' \"$@\"\n",
            dir = self.dir.display(),
            server = server.display()
        );
        std::fs::write(script, text).expect("writing a script");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(script, mode).expect("making a script executable");
    }
}

/// Where `scripts/fetch-schemas.sh` lays the judges of manifests.
pub fn schemas() -> PathBuf {
    cache().join("schemas")
}

fn cache() -> PathBuf {
    let project = crate::project();
    std::env::var_os("ETCD_DR_CACHE")
        .map_or_else(|| project.join(".cache"), |dir| project.join(dir))
}

fn cached() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(cache().join("etcd")) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|suite| suite.join("VERSION").is_file())
        .map(|suite| suite.join("bin"))
        .collect()
}

fn by_version(dirs: &[PathBuf]) -> Vec<EtcdBins> {
    let mut found = BTreeMap::new();
    for bins in dirs.iter().filter_map(|dir| EtcdBins::in_dir(dir)) {
        found.entry(bins.numbers()).or_insert(bins);
    }
    found.into_values().collect()
}
