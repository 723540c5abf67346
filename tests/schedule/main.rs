//! `schedule` with periods of seconds, against a real etcd: what it does in each, what it does if
//! etcd, the store or the certificates are gone, and how it ends.

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
