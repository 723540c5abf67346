//! The `etcd-dr` command.

fn main() {}
