//! A cluster of one from a killed member's disk: no acknowledged write is lost, against real
//! clusters under load, and compared with what etcd's own `--force-new-cluster` loses.
//!
//! `ETCD_DR_ROUNDS=100` makes so many rounds in all, instead of a few a release.

mod apply;
mod bench;
#[cfg(feature = "faults")]
mod crash;
mod cut_wal;
mod load_and_kill;
mod refusals;
mod releases;
