//! The test bench: real etcd servers on loopback addresses, certificates as OpenShift's are,
//! data to put in, scratch nodes around the members, and golden files.
//! Its own crate, so that it is compiled once for all suites; the demo's example takes it too,
//! so that tests and demo drive one cluster starter. Whatever goes wrong here is a failed test, so
//! a panic that says what was being done.

use std::path::{Path, PathBuf};
use std::sync::LazyLock;

pub mod azurite;
pub mod bins;
pub mod bulk;
pub mod campaign;
pub mod certs;
pub mod cluster;
pub mod database;
pub mod exfat;
pub mod folder;
pub mod golden;
pub mod journals;
pub mod kube;
pub mod launch;
pub mod loopback;
pub mod namespace;
pub mod node;
pub mod node_bench;
pub mod process;
pub mod recording;
pub mod replay;
pub mod s3;
pub mod same;
pub mod schema;
pub mod sshd;
pub mod stock;
pub mod terminal;
pub mod tmpfs;

/// The folder of the project.
pub fn project() -> &'static Path {
    let bench = Path::new(env!("CARGO_MANIFEST_DIR"));
    bench.ancestors().nth(2).expect("tests/support is in it")
}

/// What runs now: `backup` in the suite of that name.
pub fn suite() -> &'static str {
    static NAME: LazyLock<String> = LazyLock::new(|| {
        let program = this_program();
        let name = program.file_stem().unwrap_or_default().to_string_lossy();
        // Cargo adds a hash, but for what it links beside it.
        match name.rsplit_once('-') {
            Some((suite, hash)) if hash.len() == 16 => suite.to_owned(),
            _ => name.into_owned(),
        }
    });
    &NAME
}

/// The file of the running test program: `target/debug/deps/backup-0123456789abcdef`.
pub(crate) fn this_program() -> PathBuf {
    std::env::current_exe().expect("the path of this program")
}
