//! The etcd client and the snapshot's download: against a scripted fake for what no real server
//! does on request, and against real etcd releases for all the rest.

mod certificates;
mod connect;
mod fake;
mod real;
mod stream;
mod unary;
