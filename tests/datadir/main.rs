//! Data directories made from snapshots: what real etcd starts from, told record by record from
//! what etcdutl makes, and never half there.
//!
//! Those parts that need real etcd take the releases that `scripts/fetch-etcd.sh` laid down.

mod bench;
#[cfg(feature = "faults")]
mod crash;
mod generated;
mod places;
mod records;
mod start;
mod unusual_snapshots;
