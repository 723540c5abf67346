//! Runs a scratch control-plane node: a stand-in kubelet and container runtime around a real etcd,
//! for demonstrations in a shell. Prints one line when all manifests run. SIGTERM or SIGINT
//! ends everything that it started, and so does a kill.
//!
//! ```text
//! node_bench --root DIR --etcd-bin DIR --node NAME --ip ADDRESS
//!            [--certs DIR | --plain] [--initial-cluster NAME=URL,…]
//!            [--empty refuse|new|join] [--api both|v1|v1alpha2]
//! ```
//!
//! `--root` holds the node's file system as `fixtures/make-node.py` makes it. `--certs` is a folder
//! like the one that generator takes; by default it uses the certificates on the node.
//! `--empty` says what etcd does without data; `join` takes `--initial-cluster`.

fn main() -> std::process::ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    testbench::node_bench::program::run(&arguments)
}
