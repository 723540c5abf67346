//! The test bench: real etcd servers on loopback addresses, certificates as OpenShift's are,
//! data to put in, scratch nodes around the members, and golden files.
//!
//! A suite takes it in with `#[path = "../support/mod.rs"] mod support;`; the demo's example does
//! the same, so that tests and demo drive one cluster starter. No suite uses all of it. Whatever
//! goes wrong here is a failed test, hence a panic that says what was being done.
#![allow(dead_code, unreachable_pub)]

pub mod bins;
pub mod bulk;
pub mod campaign;
pub mod certs;
pub mod cluster;
pub mod golden;
pub mod journals;
pub mod kube;
pub mod launch;
pub mod loopback;
pub mod namespace;
pub mod node;
pub mod node_bench;
pub mod process;
pub mod s3;
pub mod same;
pub mod schema;
pub mod sshd;
pub mod stock;
pub mod terminal;
pub mod tmpfs;
