//! etcd's own files and etcd-dr's, compared: what real servers and tools leave on disk is read,
//! what etcd-dr writes is started from, and a damaged log is judged as real etcd judges it.
//!
//! The etcd releases are those in the directories of `ETCD_DR_ETCD_BINS` (separated by colons), or
//! in `.cache/etcd/*/bin`. Without any the suite says SKIPPED, unless `ETCD_DR_REQUIRE=1` forbids
//! it.

mod damage;
mod etcd;
mod founding;
mod servers;
