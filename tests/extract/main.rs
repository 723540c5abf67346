//! What a crash, a disk error, a full disk or an ordinary user do to the unpacking of an archive:
//! nothing outside the directory that was given, and all of it there once it is reported.
//!
//! The suite runs itself again for each fault, as its own process.

#[cfg(feature = "faults")]
mod faults;
mod stock;
mod users;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use etcd_dr::backup::resources::{Rules, STATIC_POD_RESOURCES, extract_archive};
use etcd_dr::sys::tree::{self, Options};

/// Which archive the child unpacks, and into what; set in children only.
const ARCHIVE: &str = "ETCD_DR_TEST_ARCHIVE";
const INTO: &str = "ETCD_DR_TEST_INTO";

/// An archive with all kinds of entries, and room to unpack it in.
struct Bench {
    dir: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let bench = Self { dir };
        let base = bench.path("node/static-pod-resources/etcd-pod-7");
        let secrets = base.join("secrets/s");
        fs::create_dir_all(&secrets).expect("a tree");
        let file = |path: PathBuf, content: &[u8], mode| {
            fs::write(&path, content).expect("a file");
            let mode = fs::Permissions::from_mode(mode);
            fs::set_permissions(&path, mode).expect("its mode");
        };
        file(base.join("etcd-pod.yaml"), b"{}\n", 0o600);
        file(secrets.join("tls.key"), &[7; 300], 0o400);
        file(base.join("run.sh"), b"#!/bin/sh\n", 0o4755);
        fs::hard_link(secrets.join("tls.key"), base.join("zz")).expect("a hard link");
        symlink("tls.key", secrets.join("link")).expect("a link");
        let closed = fs::Permissions::from_mode(0o500);
        fs::set_permissions(&secrets, closed).expect("its mode");
        let output = Command::new("tar")
            .args(["-cpzf", "a.tar.gz", "-C", "node", STATIC_POD_RESOURCES])
            .current_dir(bench.dir.path())
            .output();
        testbench::process::expect_success("tar -c", &output.expect("running tar"));
        // Other users than its owner unpack it, too.
        for open in [bench.dir.path(), &bench.path("a.tar.gz")] {
            fs::set_permissions(open, fs::Permissions::from_mode(0o755)).expect("its mode");
        }
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A new folder with an empty one named `into` in it.
    fn place(&self, name: &str) -> PathBuf {
        let place = self.path(name);
        fs::create_dir_all(place.join("into")).expect("a place");
        place
    }

    /// This suite's own child, which unpacks the archive into a place.
    fn child(&self, place: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this suite"));
        command
            .args(["--exact", "child", "--ignored", "--nocapture"])
            .current_dir("/")
            .env(ARCHIVE, self.path("a.tar.gz"))
            .env(INTO, place.join("into"));
        command
    }
}

/// Prints what it did on the last line before the test's own.
#[test]
#[ignore = "the other tests run it, with its variables set"]
fn child() {
    let (Some(archive), Some(into)) = (std::env::var_os(ARCHIVE), std::env::var_os(INTO)) else {
        return;
    };
    #[cfg(feature = "faults")]
    if let Ok(text) = std::env::var("ETCD_DR_SEAM") {
        let mode = etcd_dr::sys::failpoints::Mode::parse(&text).expect("a mode of the seam");
        etcd_dr::sys::failpoints::arm(mode).expect("arming the seam");
    }
    let rules = Rules::default();
    match extract_archive(Path::new(&archive), Path::new(&into), &[], &rules) {
        Ok(done) => println!("UNPACKED {} {:?}", done.entries, done.skipped),
        Err(failure) => panic!("FAILED {failure}"),
    }
}

fn said(output: &Output) -> String {
    let (out, errors) = (&output.stdout, &output.stderr);
    format!(
        "{}{}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(errors)
    )
}

/// Every difference from what was archived, the time of what it does not hold left out.
fn differences(bench: &Bench, place: &Path) -> Vec<String> {
    let of = |path: PathBuf| tree::describe(&path, &Options::default()).expect("a description");
    let told = tree::differences(
        &of(bench.path("node/static-pod-resources")),
        &of(place.join("into/static-pod-resources")),
    );
    told.iter().map(ToString::to_string).collect()
}
