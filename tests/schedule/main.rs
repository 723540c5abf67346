//! `schedule` with periods of seconds, against a real etcd: what it does in each, what it does when
//! etcd, the store or the certificates go, and how it ends.

mod bench;
mod copies;
mod leader;
mod leaks;
mod metrics;
mod metrics_tls;
mod outages;
mod periods;
mod rehearsals;
mod sigterm;
mod suspended;
