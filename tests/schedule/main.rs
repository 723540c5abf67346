//! `schedule` with periods of seconds, against a real etcd: what it does in each, what it does when
//! etcd, the store or the certificates go, and how it ends.

mod bench;
mod campaign;
mod copies;
mod leader;
mod long;
mod monitor;
mod periods;
mod rehearsals;
mod secured;
mod suspended;
mod troubles;
