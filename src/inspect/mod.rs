//! Questions, answered without changing anything: is this backup good, what is wrong with the cluster,
//! which member's disk is the best, may etcd be upgraded, are the recorded changes whole.

pub mod compare;
pub mod data_dir;
pub mod diagnose;
pub mod layers;
pub mod live;
pub mod look;
pub mod ranges;
pub mod upgrade;
pub mod verify;
