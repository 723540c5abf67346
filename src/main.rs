//! The `etcd-dr` command: everything is in the library's `cli`.

use std::process::ExitCode;

fn main() -> ExitCode {
    etcd_dr::cli::main(std::env::args_os())
}
