//! Data directories made from snapshots: what real etcd starts from, told record by record from
//! what etcdutl makes, and never half there.
//!
//! Those parts that need real etcd take the releases that `scripts/fetch-etcd.sh` laid down.

#[path = "../reader/model.rs"]
#[allow(dead_code, unused_mut)]
mod model;
#[path = "../support/mod.rs"]
mod support;
#[path = "../reader/writer.rs"]
#[allow(dead_code)]
mod writer;

mod bench;
#[cfg(feature = "faults")]
mod crash;
mod generated;
mod places;
mod real;
mod records;
#[cfg(feature = "faults")]
#[path = "../crash/replay.rs"]
#[allow(dead_code, unreachable_pub)]
mod replay;
mod special;
