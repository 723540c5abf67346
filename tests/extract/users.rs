//! Who unpacks, and onto what.

use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;

use crate::{Bench, differences, fs, said};
use testbench::bins;

/// A user who owns nothing here.
const NOBODY: u32 = 65_534;

#[test]
fn root_restores_owners_modes_and_attributes() {
    let bench = Bench::new();
    let place = bench.place("one");
    let output = bench.child(&place).output().expect("a child");
    assert!(output.status.success(), "{}", said(&output));
    assert_eq!(differences(&bench, &place), Vec::<String>::new());
}

#[test]
fn another_user_gets_all_but_owners_and_a_warning() {
    if !rustix::process::geteuid().is_root() {
        return bins::skip("not root: nobody else can be taken for a user");
    }
    let bench = Bench::new();
    let place = bench.place("one");
    chown(place.join("into"), Some(NOBODY), Some(NOBODY)).expect("giving it away");
    // The suite's own file may be where other users cannot go.
    let copy = bench.path("suite");
    fs::copy(std::env::current_exe().expect("this suite"), &copy).expect("a copy");
    let mut command = std::process::Command::new(&copy);
    let child = bench.child(&place);
    command.args(child.get_args()).current_dir("/");
    for (name, value) in child.get_envs() {
        command.env(name, value.expect("only set ones"));
    }
    let output = command.uid(NOBODY).gid(NOBODY).output().expect("a child");
    let told = said(&output);
    assert!(output.status.success(), "{told}");
    assert!(
        told.contains("\"static-pod-resources/etcd-pod-7/run.sh\""),
        "{told}"
    );
    for difference in differences(&bench, &place) {
        let owner = difference.contains("owner 0:0 and 65534:65534");
        assert!(owner, "{difference}");
        let without_set_id = difference.contains("mode 4755 and 0755");
        let is_set_id = difference.starts_with("etcd-pod-7/run.sh:");
        assert_eq!(
            difference.contains("mode"),
            is_set_id && without_set_id,
            "{difference}"
        );
    }
    let closed = place.join("into/static-pod-resources/etcd-pod-7/secrets/s");
    assert_eq!(fs::metadata(closed).expect("it").mode() & 0o7777, 0o500);
}
