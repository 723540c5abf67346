//! Restores to a moment: real etcd is asked what it has at random revisions, and a restore of a later
//! backup to that revision has just that.

mod away;
mod before;
mod bench;
mod campaign;
mod checkpoint;
mod encrypted;
mod log;
mod record;
mod refusals;
mod releases;
mod revisions;
mod rewritten;
mod roll;
mod roll_bound;
mod shelf;
mod times;
