//! Data directories made from snapshots: real etcd starts from them, each record is compared with
//! what etcdutl makes, and none is ever half there.
//!
//! The parts that need real etcd use the releases that `scripts/fetch-etcd.sh` brought.

mod bench;
#[cfg(feature = "faults")]
mod crash;
mod generated;
mod places;
mod records;
mod start;
mod unusual_snapshots;
